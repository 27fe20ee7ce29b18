//! From a field's name to its place in the table: a perfect hash over the folded name.
//!
//! A name is folded by setting bit 5 of every byte, which makes letters lower case and leaves digits alone; the few other
//! bytes that it merges (such as `@` and the backtick) do not occur in two known names. Built once, when an encoder is
//! made, by trying multipliers until no two names share a slot; it cannot fail for long because the table is sparse.

use super::fields::{FIELD_COUNT, FIELDS};

/// Bytes of the longest known name.
const MAX_NAME_BYTES: usize = 32;

const SLOT_BITS: u32 = 12;
const NO_FIELD: u8 = u8::MAX;
const FOLD: u64 = 0x2020_2020_2020_2020;

/// A name of at most [`MAX_NAME_BYTES`], folded and padded with zeros.
type Folded = [u64; 4];

/// The hash table.
#[derive(Debug)]
pub(crate) struct Names {
    multiplier: u64,
    slots: Box<[u8; 1 << SLOT_BITS]>,
    folded: [Folded; FIELD_COUNT],
}

impl Names {
    pub(crate) fn new() -> Names {
        let mut folded = [[0; 4]; FIELD_COUNT];
        for (place, field) in folded.iter_mut().zip(&FIELDS) {
            *place = fold_slice(field.name.as_bytes()).expect("no field has a longer name");
        }
        let mut names =
            Names { multiplier: 0x9e37_79b9_7f4a_7c15, slots: Box::new([NO_FIELD; 1 << SLOT_BITS]), folded };
        while !names.fill() {
            names.multiplier = names.multiplier.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x14) | 1;
        }
        names
    }

    /// Fills the slots under the present multiplier; false when two names share one.
    fn fill(&mut self) -> bool {
        self.slots.fill(NO_FIELD);
        for (field, folded) in (0u8..).zip(&self.folded) {
            let slot = slot(self.multiplier, folded);
            if self.slots[slot] != NO_FIELD {
                return false;
            }
            self.slots[slot] = field;
        }
        true
    }

    /// The field whose name is the bytes of `line` from a place on, so many.
    #[inline]
    pub(crate) fn find(&self, line: &[u8], (at, bytes): (usize, usize)) -> Option<usize> {
        // A longer name is none of a field.
        if bytes > MAX_NAME_BYTES {
            return None;
        }
        match line.get(at..at + MAX_NAME_BYTES) {
            Some(window) => self.find_folded(&fold(window.try_into().expect("a range of that many bytes"), bytes)),
            None => self.find_name(line.get(at..at + bytes)?),
        }
    }

    /// The field with this folded name.
    #[inline]
    fn find_folded(&self, name: &Folded) -> Option<usize> {
        let field = usize::from(self.slots[slot(self.multiplier, name)]);
        let candidate = self.folded.get(field)?;
        let differ =
            (candidate[0] ^ name[0]) | (candidate[1] ^ name[1]) | (candidate[2] ^ name[2]) | (candidate[3] ^ name[3]);
        (differ == 0).then_some(field)
    }

    /// The field with this name as it was sent.
    #[cold]
    pub(crate) fn find_name(&self, name: &[u8]) -> Option<usize> {
        fold_slice(name).and_then(|folded| self.find_folded(&folded))
    }
}

#[inline]
fn slot(multiplier: u64, name: &Folded) -> usize {
    // Sums that do not wait for each other, and one product; its top bits depend on every byte.
    let mixed = (name[0] ^ name[2].rotate_left(17)).wrapping_add((name[1] ^ name[3].rotate_left(29)).rotate_left(23));
    (mixed.wrapping_mul(multiplier) >> (64 - SLOT_BITS)) as usize
}

/// Folds the first `bytes` of a window.
#[inline]
fn fold(window: &[u8; MAX_NAME_BYTES], bytes: usize) -> Folded {
    let word = |at: usize| u64::from_le_bytes(window[at..at + 8].try_into().expect("a range of eight bytes"));
    let mask = &MASKS[bytes];
    [(word(0) | FOLD) & mask[0], (word(8) | FOLD) & mask[1], (word(16) | FOLD) & mask[2], (word(24) | FOLD) & mask[3]]
}

fn fold_slice(name: &[u8]) -> Option<Folded> {
    let mut window = [0; MAX_NAME_BYTES];
    window.get_mut(..name.len())?.copy_from_slice(name);
    Some(fold(&window, name.len()))
}

/// For each length, which bytes of a window belong to the name.
static MASKS: [Folded; MAX_NAME_BYTES + 1] = {
    let mut masks = [[0u64; 4]; MAX_NAME_BYTES + 1];
    let mut bytes = 0;
    while bytes <= MAX_NAME_BYTES {
        let mut at = 0;
        while at < bytes {
            masks[bytes][at / 8] |= 0xff << (at % 8 * 8);
            at += 1;
        }
        bytes += 1;
    }
    masks
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case_and_no_other() {
        let names = Names::new();
        for (place, field) in FIELDS.iter().enumerate() {
            assert_eq!(names.find_name(field.name.as_bytes()), Some(place));
            assert_eq!(names.find_name(field.name.to_uppercase().as_bytes()), Some(place));
            assert_ne!(names.find_name(&field.name.as_bytes()[1..]), Some(place));
            assert_ne!(names.find_name(format!("{}x", field.name).as_bytes()), Some(place));
        }
        assert_eq!(names.find_name(b""), None);
        assert_eq!(names.find_name(&[b'x'; 40]), None);
    }
}
