//! What lies ahead of a reader, told from headers alone: for whoever watches it, at most about once a second.
//!
//! Nothing moves, no payload is touched, and a segment whose key is missing tells as much as any other: headers are not
//! encrypted. What is damaged is passed over as by the reader itself.

use std::sync::Arc;

use super::{FIRST_ENTRY, Kind, MissingKey, Reader, Unpacker, entry_bytes};
use crate::queue::KeyId;

/// What a reader will meet next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Receive time of the next block, Unix nanoseconds; 0 when there is none.
    pub received_ns: u64,
    /// The key that it is held for.
    pub missing_key: Option<KeyId>,
}

impl Reader {
    /// Looks ahead without going on.
    #[must_use]
    pub fn ahead(&self) -> Ahead {
        let (log, open, unpacker) = (Arc::clone(&self.log), self.open.clone(), Unpacker::default());
        Reader { log, position: self.position, open, unpacker, shares_at: None }.find_ahead().unwrap_or_default()
    }

    fn find_ahead(&mut self) -> Option<Ahead> {
        let holds = self.log.options.at_rest.missing_key == MissingKey::Hold;
        loop {
            let here = self.position.segment;
            let Some(open) = self.open.clone() else {
                let segment = self.log.segment_from(here)?;
                self.enter(&segment)?;
                continue;
            };
            let (end, sealed) = open.segment.extent.load();
            let from = self.position.offset.max(FIRST_ENTRY);
            let Some((offset, header)) = (from < end).then(|| open.find_header(from, end)).flatten() else {
                let segment = if sealed { self.log.segment_from(here + 1)? } else { return None };
                self.enter(&segment)?;
                continue;
            };
            self.position.offset = offset + entry_bytes(header.stored_bytes as usize);
            if let Kind::Block(meta) = header.kind
                && header.sequence > self.position.sequence
            {
                let missing_key = open.segment.header.master.filter(|_| holds && !open.is_readable());
                return Some(Ahead { received_ns: meta.received_ns, missing_key });
            }
        }
    }
}
