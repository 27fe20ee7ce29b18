//! A small record that is replaced whole: two slots in one file, the newer valid one counts.
//!
//! ```text
//! slot at 0 and at 16384:
//! off size field
//!   0   8  magic of the record's kind
//!   8   8  generation, ascending
//!  16   4  payload bytes
//!  20   4  CRC32C of bytes 0..20 and the payload
//!  24   ..  payload
//! ```
//!
//! A write goes to the slot that does not count, and moves on only when its sync succeeded: a torn write or a failed
//! sync never touches the slot that counts. A note is such a write without the sync: it lasts unless the power goes soon,
//! and when it is torn the record before it counts. Writing is the owner's business; nothing here is shared.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::crc32c;
use super::fields::{Fields, Writer};
use super::sabotage::{Sabotage, planted};
use super::storage::{Storage, StoredFile};

const SLOT_BYTES: usize = 16 * 1024;
/// Where the two slots stand.
const OFFSETS: [u64; 2] = [0, SLOT_BYTES as u64];
const FILE_BYTES: u64 = 2 * SLOT_BYTES as u64;
const HEADER_BYTES: usize = 24;

/// Payload bytes that fit a slot.
pub(super) const MAX_PAYLOAD_BYTES: usize = SLOT_BYTES - HEADER_BYTES;

/// The file of two slots.
#[derive(Debug)]
pub(super) struct Slots {
    file: Arc<dyn StoredFile>,
    magic: [u8; 8],
    generation: u64,
    next: usize,
}

impl Slots {
    /// Opens the file, or creates it; the payload is that of the newer valid slot.
    pub(super) fn open(storage: &dyn Storage, path: &Path, magic: [u8; 8]) -> io::Result<(Slots, Option<Vec<u8>>)> {
        let file = match storage.open(path) {
            Ok(file) if file.bytes() >= FILE_BYTES => file,
            Ok(_) => {
                storage.remove(path)?;
                create(storage, path)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(storage, path)?,
            Err(error) => return Err(error),
        };
        // What an earlier process failed to write must not be believed from the cache.
        file.sync()?;
        file.forget(FILE_BYTES)?;
        let mut best: Option<(u64, usize, Vec<u8>)> = None;
        for slot in [0, 1] {
            let Some((generation, payload)) = read_slot(&*file, OFFSETS[slot], magic) else { continue };
            let newer = best.as_ref().is_none_or(|(best, ..)| generation > *best);
            if newer != planted(Sabotage::OlderSlot) || best.is_none() {
                best = Some((generation, slot, payload));
            }
        }
        let (generation, next, payload) = match best {
            Some((generation, slot, payload)) => (generation, 1 - slot, Some(payload)),
            None => (0, 0, None),
        };
        Ok((Slots { file, magic, generation, next }, payload))
    }

    /// Replaces the record; durable when it returns `Ok`, the old record counts when it does not.
    pub(super) fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        self.note(payload)?;
        if !planted(Sabotage::SlotNotSynced) {
            self.file.sync()?;
        }
        self.generation += 1;
        if !planted(Sabotage::SameSlot) {
            self.next = 1 - self.next;
        }
        Ok(())
    }

    /// Puts a record in the slot that does not count yet. It takes the place of the one that counts as soon as it is on the
    /// disk, whenever that is.
    pub(super) fn note(&self, payload: &[u8]) -> io::Result<()> {
        assert!(payload.len() <= MAX_PAYLOAD_BYTES, "{} bytes do not fit a slot", payload.len());
        let mut writer = Writer::default();
        writer.0.extend_from_slice(&self.magic);
        writer.u64(self.generation + 1);
        writer.u32(u32::try_from(payload.len()).expect("a slot is small"));
        let crc = crc32c::crc32c_append(crc32c::crc32c(&writer.0), payload);
        writer.u32(crc);
        writer.0.extend_from_slice(payload);
        self.file.write_at(OFFSETS[self.next], &writer.0)
    }
}

fn create(storage: &dyn Storage, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
    let file = storage.create(path, FILE_BYTES)?;
    if let Some(directory) = path.parent() {
        storage.sync_directory(directory)?;
    }
    Ok(file)
}

fn read_slot(file: &dyn StoredFile, offset: u64, magic: [u8; 8]) -> Option<(u64, Vec<u8>)> {
    let mut header = [0u8; HEADER_BYTES];
    file.read_at(offset, &mut header).ok()?;
    let mut fields = Fields(&header);
    let (found, generation, length, crc) = (fields.bytes::<8>()?, fields.u64()?, fields.u32()?, fields.u32()?);
    if found != magic || length as usize > MAX_PAYLOAD_BYTES {
        return None;
    }
    let mut payload = vec![0u8; length as usize];
    file.read_at(offset + HEADER_BYTES as u64, &mut payload).ok()?;
    let expected = crc32c::crc32c_append(crc32c::crc32c(&header[..20]), &payload);
    (crc == expected || planted(Sabotage::SlotUnchecked)).then_some((generation, payload))
}
