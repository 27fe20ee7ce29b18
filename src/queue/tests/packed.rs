//! A directory as one file of the repository: for each file `u16` path length, path, `u32` length, bytes; all of it one zstd
//! frame. The zeros that segments are filled up with cost nothing there, and no blocks of the disk when they are laid out.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where a packed directory of this name is.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/queue").join(format!("{name}.zst"))
}

/// Whether it has to be made: it is not there, and that is asked for.
pub(crate) fn is_wanted(name: &str) -> bool {
    std::env::var_os("MILLRACE_WRITE_GOLDEN").is_some() && !data(name).exists()
}

/// Lays a packed directory out under `root`.
pub(crate) fn unpack(name: &str, root: &Path) {
    let packed = fs::read(data(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let bytes = zstd::stream::decode_all(&packed[..]).unwrap();
    let mut rest = &bytes[..];
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (path, after) = after.split_at(u16::from_le_bytes(*length).into());
        let (length, after) = after.split_first_chunk::<4>().unwrap();
        let (content, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        let path = root.join(std::str::from_utf8(path).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(path).unwrap();
        let written = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        file.write_all(&content[..written]).unwrap();
        file.set_len(content.len() as u64).unwrap();
        rest = after;
    }
}

/// Packs every file under `root`.
pub(crate) fn pack(name: &str, root: &Path) {
    let mut bytes = Vec::new();
    for path in files(root) {
        let content = fs::read(root.join(&path)).unwrap();
        bytes.extend_from_slice(&u16::try_from(path.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(path.as_bytes());
        bytes.extend_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&content);
    }
    fs::write(data(name), zstd::bulk::compress(&bytes, 19).unwrap()).unwrap();
}

/// The paths of all files under `root`, in order.
pub(crate) fn files(root: &Path) -> Vec<String> {
    let (mut found, mut directories) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}
