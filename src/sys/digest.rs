//! What a file holds, told apart by its SHA-256.
//!
//! A file of a plugin, a table or a certificate that was put in the place of another has another digest; its time and length
//! may be the same. What is pinned or kept by its hash is written in hexadecimal digits.

use std::path::Path;

use ring::digest::{SHA256, digest};

/// The SHA-256 of bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    *digest(&SHA256, bytes).as_ref().first_chunk().expect("the digest has 32 bytes")
}

/// The SHA-256 of what a file holds; `None` when it cannot be read.
#[must_use]
pub fn of_file(path: &Path) -> Option<[u8; 32]> {
    Some(sha256(&std::fs::read(path).ok()?))
}

/// Bytes as hexadecimal digits, in lower case.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_file_is_that_of_its_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_file(file.path()).as_ref().map(|digest| hex(digest)).as_deref(), Some(expected));
        assert_eq!(of_file(Path::new("/nowhere")), None);
    }
}
