//! Encryption at rest: keys, and the cipher of one use of one segment.
//!
//! AES-256-GCM over each block. A segment's key and nonce salt are HKDF-SHA256 of a master key, with the random 16 bytes that
//! the use of the file drew, its id, lane and incarnation as info: no two uses of a file share a key, so a nonce (salt and
//! sequence) has to be fresh within one use only, and the writer's sequences ascend there. [`Sealer`] refuses any other
//! order. A block that is moved after a failed sync keeps its sequence and gets another segment, hence another key.
//!
//! Master keys come from a file, one a line, 64 hexadecimal digits each: the first writes, all read. A key goes by its id,
//! 8 bytes derived from it, so a wrong key is a missing key and never garbage. Our copies of keys are wiped; `ring` keeps
//! expanded ones for the segments that are open.
//!
//! What this protects: nobody without the key reads a payload, changes a block or its header, or moves a block to another
//! place of the segment or into another one. What it does not: whoever can write to the disk can read header fields (times,
//! counts, source ids), remove blocks and segments or cut the log off (a gap, or nothing at all, as with any loss), put a
//! whole segment back that was delivered before (it is delivered again; its sequences tell), add segments that are not
//! encrypted (they are read like those from before encryption was switched on), and lie in marks, footers, index and cursors:
//! about what was lost, not about what is delivered. Order and completeness are nobody's promise against him.

use std::fmt;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use super::format::SegmentHeader;
use super::sabotage::{Sabotage, planted};

/// Bytes that encryption adds to a block.
pub(super) const TAG_BYTES: usize = 16;

const MASTER_BYTES: usize = 32;
const NONCE_SALT_BYTES: usize = 4;

/// Names a master key without telling it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(super) [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why keys could not be read. Never says what they are.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A line that is no key.
    #[error("line {0} is not a key of 64 hexadecimal digits (openssl rand -hex 32)")]
    NotAKey(usize),
    /// No key at all.
    #[error("there is no key in it")]
    Empty,
}

/// The master keys: none for a log that is not encrypted. Clones share them.
#[derive(Clone, Default)]
pub struct Keys(Arc<[MasterKey]>);

struct MasterKey {
    id: KeyId,
    secret: Zeroizing<[u8; MASTER_BYTES]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.id)).finish()
    }
}

impl Keys {
    /// The keys of a key file: one a line, empty lines and those that begin with `#` left out.
    pub fn parse(text: &str) -> Result<Keys, KeyError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if !line.is_empty() && !line.starts_with('#') {
                keys.push(MasterKey::parse(line).ok_or(KeyError::NotAKey(number + 1))?);
            }
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Keys(keys.into())) }
    }

    /// The ids of all keys, the writing one first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.0.iter().map(|key| key.id)
    }

    /// The key that new segments are written with, if they are encrypted.
    pub(super) fn writing(&self) -> Option<KeyId> {
        self.0.first().map(|key| key.id)
    }

    /// The cipher of a segment; `None` when its key is not there.
    pub(super) fn cipher(&self, key: KeyId, segment: &SegmentHeader) -> Option<Cipher> {
        let master = self.0.iter().find(|master| master.id == key)?;
        let mut info = [0u8; 36];
        info[..16].copy_from_slice(&segment.key.0);
        info[16..24].copy_from_slice(&segment.id.to_le_bytes());
        info[24..28].copy_from_slice(&segment.lane.to_le_bytes());
        info[28..36].copy_from_slice(&segment.incarnation.to_le_bytes());
        if planted(Sabotage::OneCipherForAll) {
            info.fill(0);
        }
        let mut derived = Zeroizing::new([0u8; MASTER_BYTES + NONCE_SALT_BYTES]);
        derive(&master.secret, b"millrace segment", &info, &mut *derived);
        let (secret, salt) = derived.split_at(MASTER_BYTES);
        let unbound = UnboundKey::new(&AES_256_GCM, secret).expect("the key has the cipher's length");
        #[cfg(test)]
        let witness = u64::from_le_bytes(*secret.first_chunk().expect("32 bytes"));
        Some(Cipher {
            key: LessSafeKey::new(unbound),
            salt: *salt.first_chunk().expect("the salt is behind the key"),
            #[cfg(test)]
            witness,
        })
    }
}

impl MasterKey {
    fn parse(line: &str) -> Option<MasterKey> {
        let digits: &[u8; 2 * MASTER_BYTES] = line.as_bytes().try_into().ok()?;
        let mut secret = Zeroizing::new([0u8; MASTER_BYTES]);
        for (byte, pair) in secret.iter_mut().zip(digits.as_chunks::<2>().0) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).expect("two digits");
        }
        let mut id = [0u8; 8];
        derive(&secret, b"millrace key id", &[], &mut id);
        Some(MasterKey { id: KeyId(id), secret })
    }
}

/// HKDF-SHA256 (RFC 5869): fills `out` from the secret. The label parts the uses of a master key.
fn derive(secret: &[u8; MASTER_BYTES], label: &[u8], info: &[u8], out: &mut [u8]) {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let pseudo_random = Salt::new(HKDF_SHA256, label).extract(secret);
    let info = [info];
    let material = pseudo_random.expand(&info, Length(out.len())).expect("far less than 255 hashes");
    material.fill(out).expect("the length that was asked for");
}

/// The cipher of one use of one segment.
pub(super) struct Cipher {
    key: LessSafeKey,
    salt: [u8; NONCE_SALT_BYTES],
    /// Tells ciphers apart in tests that watch nonces.
    #[cfg(test)]
    witness: u64,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(***)")
    }
}

impl Cipher {
    fn nonce(&self, sequence: u64) -> Nonce {
        let mut nonce = [0u8; 12];
        nonce[..NONCE_SALT_BYTES].copy_from_slice(&self.salt);
        nonce[NONCE_SALT_BYTES..].copy_from_slice(&sequence.to_be_bytes());
        if planted(Sabotage::OneNonceForAll) {
            nonce.fill(0);
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// Opens what was sealed; `None` when it was not, or not in this place.
    pub(super) fn open(&self, sequence: u64, vouched: &[u8], mut stored: Vec<u8>) -> Option<Vec<u8>> {
        let length = self.key.open_in_place(self.nonce(sequence), Aad::from(vouched), &mut stored).ok()?.len();
        stored.truncate(length);
        Some(stored)
    }
}

/// The writing side of a cipher: seals each sequence once, in ascending order.
#[derive(Debug)]
pub(super) struct Sealer {
    cipher: Cipher,
    last_sequence: u64,
}

impl Sealer {
    pub(super) fn new(cipher: Cipher) -> Sealer {
        Sealer { cipher, last_sequence: 0 }
    }

    /// Encrypts `bytes` and puts the tag behind them.
    pub(super) fn seal(&mut self, sequence: u64, vouched: &[u8], bytes: &mut Vec<u8>) {
        // A nonce used twice would give away both blocks and the means to forge others.
        assert!(sequence > self.last_sequence, "block {sequence} sealed after {}", self.last_sequence);
        self.last_sequence = sequence;
        let nonce = self.cipher.nonce(sequence);
        #[cfg(test)]
        witness::saw(self.cipher.witness, *nonce.as_ref());
        let sealed = self.cipher.key.seal_in_place_append_tag(nonce, Aad::from(vouched), bytes);
        sealed.expect("a block is far shorter than the cipher's limit");
    }
}

/// Every pair of key and nonce that this thread has sealed with.
#[cfg(test)]
pub(super) mod witness {
    use std::cell::RefCell;
    use std::collections::HashSet;

    thread_local! {
        static SEEN: RefCell<HashSet<(u64, [u8; 12])>> = RefCell::default();
    }

    pub(super) fn saw(key: u64, nonce: [u8; 12]) {
        assert!(SEEN.with_borrow_mut(|seen| seen.insert((key, nonce))), "a nonce was used twice");
    }

    /// Forgets what was seen: another disk begins.
    pub(in crate::queue) fn forget() {
        SEEN.with_borrow_mut(HashSet::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::HeaderKey;

    const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn segment(key: u8, id: u64) -> SegmentHeader {
        SegmentHeader { id, key: HeaderKey([key; 16]), ..SegmentHeader::default() }
    }

    #[test]
    fn key_files_are_read_and_never_shown() {
        let two = ONE.replace("00", "Ff");
        let keys = Keys::parse(&format!("# writes\n{two}\n\n  {ONE}\n")).unwrap();
        let ids: Vec<KeyId> = keys.ids().collect();
        assert_eq!(ids.len(), 2);
        assert_eq!(keys.writing(), Some(ids[0]));
        assert_eq!(Keys::parse(ONE).unwrap().writing(), Some(ids[1]), "an id is a function of the key");
        assert!(!format!("{keys:?}").contains("0102"), "{keys:?}");
        for (text, error) in [
            ("", KeyError::Empty),
            ("# only\n", KeyError::Empty),
            (&ONE[2..], KeyError::NotAKey(1)),
            (&format!("{ONE}\n{ONE}0"), KeyError::NotAKey(2)),
            (&ONE.replace('0', "g"), KeyError::NotAKey(1)),
            (&ONE.replace('0', "+"), KeyError::NotAKey(1)),
        ] {
            assert_eq!(Keys::parse(text).unwrap_err(), error);
        }
    }

    #[test]
    fn only_the_same_use_sequence_and_header_open_what_was_sealed() {
        let keys = Keys::parse(ONE).unwrap();
        let id = keys.writing().unwrap();
        let cipher = |segment| keys.cipher(id, &segment).unwrap();
        let mut bytes = b"payload".to_vec();
        Sealer::new(cipher(segment(1, 1))).seal(5, b"header", &mut bytes);
        assert_eq!(bytes.len(), 7 + TAG_BYTES);
        let open =
            |segment, sequence, vouched: &[u8], bytes: &[u8]| cipher(segment).open(sequence, vouched, bytes.to_vec());
        assert_eq!(open(segment(1, 1), 5, b"header", &bytes).unwrap(), b"payload");
        assert_eq!(open(segment(2, 1), 5, b"header", &bytes), None);
        assert_eq!(open(segment(1, 2), 5, b"header", &bytes), None);
        assert_eq!(open(segment(1, 1), 6, b"header", &bytes), None);
        assert_eq!(open(segment(1, 1), 5, b"hEader", &bytes), None);
        for short in 0..bytes.len() {
            assert_eq!(open(segment(1, 1), 5, b"header", &bytes[..short]), None, "cut to {short}");
        }
        assert!(keys.cipher(KeyId([0; 8]), &segment(1, 1)).is_none());
    }

    #[test]
    #[should_panic(expected = "sealed after")]
    fn a_sequence_is_sealed_once() {
        let keys = Keys::parse(ONE).unwrap();
        let mut sealer = Sealer::new(keys.cipher(keys.writing().unwrap(), &segment(3, 3)).unwrap());
        sealer.seal(1, b"", &mut vec![1]);
        sealer.seal(1, b"", &mut vec![2]);
    }
}
