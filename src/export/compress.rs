//! Compression of a request body: slices in, one buffer out.
//!
//! The fastest useful level of each: traces repeat themselves so much that the first level takes most of the gain, and the
//! exporter threads share their cores with the lanes.

use std::io::Write;

use crate::config::Compression;

/// Replaces `out` by the compressed concatenation of `slices` and returns the `Content-Encoding`; `None` for no compression,
/// which leaves `out` alone.
pub(super) fn compress(how: Compression, slices: &[&[u8]], out: &mut Vec<u8>) -> Option<&'static str> {
    const INFALLIBLE: &str = "compressing into memory does not fail";
    match how {
        Compression::None => None,
        Compression::Gzip => {
            out.clear();
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
            slices.iter().for_each(|slice| encoder.write_all(slice).expect(INFALLIBLE));
            encoder.finish().expect(INFALLIBLE);
            Some("gzip")
        }
        Compression::Zstd => {
            out.clear();
            let mut encoder = zstd::stream::write::Encoder::new(out, 1).expect("level 1 exists");
            slices.iter().for_each(|slice| encoder.write_all(slice).expect(INFALLIBLE));
            encoder.finish().expect(INFALLIBLE);
            Some("zstd")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_compressed_comes_back_joined() {
        let slices: [&[u8]; 3] = [b"one ", b"", b"two"];
        let mut out = b"left over".to_vec();
        assert_eq!(compress(Compression::Gzip, &slices, &mut out), Some("gzip"));
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&out[..]).read_to_string(&mut plain).unwrap();
        assert_eq!(plain, "one two");
        assert_eq!(compress(Compression::Zstd, &slices, &mut out), Some("zstd"));
        assert_eq!(zstd::decode_all(&out[..]).unwrap(), b"one two");
        assert_eq!(compress(Compression::None, &slices, &mut out), None);
    }
}
