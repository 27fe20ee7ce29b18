//! Compression of blocks: before encryption, and kept only when it saves something.
//!
//! The packed form is the payload's length (`u32`, little-endian) and one lz4 block or zstd frame. A declared length is
//! checked against the largest block before anything is allocated. Contexts and buffers are kept, so that a block allocates
//! nothing once they have grown.

use std::fmt;

use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};
use zstd::bulk::{Compressor, Decompressor};

use super::crc32c::crc32c;
use super::sabotage::{Sabotage, planted};
use crate::block::{MAX_BYTES, Packing};
use crate::config::BlockCompression;

const LENGTH_BYTES: usize = 4;

/// The writer's side.
pub(super) struct Packer {
    compression: BlockCompression,
    zstd: Option<Compressor<'static>>,
    /// What is stored, when that is not the payload itself.
    pub(super) buffer: Vec<u8>,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("compression", &self.compression).finish_non_exhaustive()
    }
}

impl Packer {
    pub(super) fn new(compression: BlockCompression) -> Packer {
        Packer { compression, zstd: None, buffer: Vec::new() }
    }

    /// Packs the payload into `buffer`, or says [`Packing::None`] when that would save nothing.
    pub(super) fn pack(&mut self, payload: &[u8]) -> Packing {
        let (packing, room) = match self.compression {
            BlockCompression::None => return Packing::None,
            BlockCompression::Lz4 => (Packing::Lz4, get_maximum_output_size(payload.len())),
            // No more than would save something: zstd stops when it does not.
            BlockCompression::Zstd { .. } => (Packing::Zstd, payload.len().saturating_sub(LENGTH_BYTES)),
        };
        self.buffer.clear();
        self.buffer.resize(LENGTH_BYTES + room, 0);
        let length = u32::try_from(payload.len()).expect("at most MAX_BYTES");
        self.buffer[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        let packed = match self.compression {
            BlockCompression::Zstd { level } => self.pack_zstd(level, payload),
            _ => compress_into(payload, &mut self.buffer[LENGTH_BYTES..]).ok(),
        };
        match packed.map(|bytes| LENGTH_BYTES + bytes) {
            Some(bytes) if bytes < payload.len() => {
                self.buffer.truncate(bytes);
                packing
            }
            _ => Packing::None,
        }
    }

    fn pack_zstd(&mut self, level: i32, payload: &[u8]) -> Option<usize> {
        if self.zstd.is_none() {
            self.zstd = Compressor::new(level).ok();
        }
        self.zstd.as_mut()?.compress_to_buffer(payload, &mut self.buffer[LENGTH_BYTES..]).ok()
    }
}

/// A reader's side.
#[derive(Default)]
pub(super) struct Unpacker {
    zstd: Option<Decompressor<'static>>,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unpacker")
    }
}

impl Unpacker {
    /// As `unpack`, of bytes that lie in the file itself and have passed their CRC: they pass once more when they are
    /// unpacked. The pages of a file that somebody cuts off meanwhile read as zeros, which may be unpacked without an error.
    pub(super) fn unpack_in_place(&mut self, packing: Packing, packed: &[u8], crc: u32) -> Option<Vec<u8>> {
        let payload = self.unpack(packing, packed)?;
        (crc32c(packed) == crc || planted(Sabotage::PayloadUnchecked)).then_some(payload)
    }

    /// The payload of a packed block; `None` when it is not one.
    pub(super) fn unpack(&mut self, packing: Packing, packed: &[u8]) -> Option<Vec<u8>> {
        let (length, packed) = packed.split_first_chunk::<LENGTH_BYTES>()?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_BYTES {
            return None;
        }
        let mut payload = vec![0u8; length];
        let unpacked = match packing {
            Packing::None => return None,
            Packing::Lz4 => decompress_into(packed, &mut payload).ok()?,
            Packing::Zstd => {
                if self.zstd.is_none() {
                    self.zstd = Decompressor::new().ok();
                }
                self.zstd.as_mut()?.decompress_to_buffer(packed, &mut payload[..]).ok()?
            }
        };
        (unpacked == length).then_some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [BlockCompression; 2] = [BlockCompression::Lz4, BlockCompression::Zstd { level: 1 }];

    #[test]
    fn what_is_packed_is_unpacked_and_what_does_not_shrink_is_not_packed() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = (0..5000).map(|_| random.u8(..)).collect();
        for compression in ALL {
            let mut packer = Packer::new(compression);
            for payload in [vec![7; MAX_BYTES], b"span ".repeat(100), vec![0; 64]] {
                let packing = packer.pack(&payload);
                assert_ne!(packing, Packing::None);
                assert!(packer.buffer.len() < payload.len());
                let mut unpacker = Unpacker::default();
                assert_eq!(unpacker.unpack(packing, &packer.buffer), Some(payload));
            }
            for payload in [&noise[..], b"", b"1234"] {
                assert_eq!(packer.pack(payload), Packing::None);
            }
        }
    }

    #[test]
    fn pages_that_went_away_while_they_were_unpacked_are_no_payload() {
        let mut random = fastrand::Rng::with_seed(2);
        // What does not shrink is stored as it is in the packed form: there zeros are as good as any bytes.
        let payload: Vec<u8> = std::iter::repeat_n(7, 128 << 10).chain((0..20_000).map(|_| random.u8(..))).collect();
        for compression in ALL {
            let mut packer = Packer::new(compression);
            let packing = packer.pack(&payload);
            let crc = crc32c(&packer.buffer);
            let mut unpacker = Unpacker::default();
            assert_eq!(unpacker.unpack_in_place(packing, &packer.buffer, crc).as_ref(), Some(&payload));
            let pages = packer.buffer.len() / 4096;
            let mut taken_for_payloads = 0;
            for first_gone in 0..=pages {
                let mut cut_off = packer.buffer.clone();
                cut_off[first_gone * 4096..].fill(0);
                taken_for_payloads += usize::from(unpacker.unpack(packing, &cut_off).is_some());
                assert_eq!(unpacker.unpack_in_place(packing, &cut_off, crc), None, "{compression:?} {first_gone}");
            }
            assert!(taken_for_payloads > 0, "{compression:?}: the case that this is about");
        }
    }

    #[test]
    fn a_lie_about_the_length_allocates_nothing_and_damage_is_none() {
        for compression in ALL {
            let mut packer = Packer::new(compression);
            let packing = packer.pack(&[7; 5000]);
            let mut unpacker = Unpacker::default();
            for length in [0u32, 4999, 5001, u32::try_from(MAX_BYTES).unwrap() + 1, u32::MAX] {
                let mut lie = packer.buffer.clone();
                lie[..4].copy_from_slice(&length.to_le_bytes());
                assert_eq!(unpacker.unpack(packing, &lie), None, "{compression:?} {length}");
            }
            for cut in 0..packer.buffer.len() {
                assert_eq!(unpacker.unpack(packing, &packer.buffer[..cut]), None, "{compression:?} cut to {cut}");
            }
        }
    }
}
