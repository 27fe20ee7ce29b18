//! The `queue` section: the log's size, its syncs, and how blocks lie on the disk.
//!
//! Files are not touched here: that a key file can be read and is nobody else's to read is seen when the log is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::section::{Reader, Section};
use super::words::{AT_LEAST_ONE, BYTES, LEVEL, PATH, SWITCH, TEXT, TIMEOUT, show_bytes};
use super::{AckPolicy, BlockCompression, Encryption, MissingKey, Queue, StorageKind};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Segments that a lane needs to go on: one is written, one stands ready, one is on its way back.
pub const SEGMENTS_A_LANE: u64 = 3;

/// `lanes` is how many the configuration asks for; how many the machine has is looked at when the log is opened.
pub(super) fn read(mut section: Section<'_>, lanes: Option<usize>, reader: &Reader) -> Queue {
    let ack = [("durable", AckPolicy::Durable), ("appended", AckPolicy::Appended)];
    let storage = [("mmap", StorageKind::Mmap), ("file", StorageKind::File)];
    let segment = section.read("segment_bytes", &BYTES, 64 * MIB);
    // A segment must hold its headers, its footer and a few of the largest blocks, and be mapped by one call anywhere.
    if !(4 * MIB..=GIB).contains(&segment.value) || !segment.value.is_multiple_of(4096) {
        let message = "queue.segment_bytes must be a multiple of 4096 from 4MiB to 1GiB".to_owned();
        reader.problem(&segment.origin, message);
    }
    let max = section.read("max_bytes", &BYTES, 10 * GIB);
    if let Some(message) = too_small(max.value, segment.value, lanes.unwrap_or(1)) {
        reader.problem(&max.origin, message);
    }
    let queue = Queue {
        ack: section.choice("ack", &ack, "durable").value,
        storage: section.choice("storage", &storage, "mmap").value,
        segment_bytes: segment.value,
        pool_segments: section.read("pool_segments", &AT_LEAST_ONE, 4).value,
        max_bytes: max.value,
        reserve_bytes: section.read("reserve_bytes", &BYTES, GIB).value,
        retain: section.read("retain", &TIMEOUT, Duration::from_secs(3600)).value,
        max_spans_in_memory: section.read("max_spans_in_memory", &AT_LEAST_ONE, 10_000).value,
        sync_interval: section.read("sync_interval", &TIMEOUT, Duration::from_millis(100)).value,
        sync_bytes: section.read("sync_bytes", &BYTES, 8 * MIB).value,
        compression: read_compression(&mut section),
        encryption: read_encryption(section.section("encryption"), reader),
        allow_remote: section.read("allow_remote", &SWITCH, false).value,
    };
    section.finish();
    queue
}

/// Says why a budget cannot carry so many lanes, if it cannot: a lane would wait for room that only it could give back.
#[must_use]
pub fn too_small(max_bytes: u64, segment_bytes: u64, lanes: usize) -> Option<String> {
    let lanes = lanes as u64;
    let least = lanes.saturating_mul(SEGMENTS_A_LANE).saturating_mul(segment_bytes);
    (max_bytes < least).then(|| {
        format!(
            "queue.max_bytes is {}, and {lanes} lanes with {SEGMENTS_A_LANE} segments of {} each need {}: raise it, or \
             lower queue.segment_bytes or lanes",
            show_bytes(max_bytes),
            show_bytes(segment_bytes),
            show_bytes(least)
        )
    })
}

fn read_compression(section: &mut Section<'_>) -> BlockCompression {
    let level = section.read("compression_level", &LEVEL, 1);
    let words = [
        ("none", BlockCompression::None),
        ("lz4", BlockCompression::Lz4),
        ("zstd", BlockCompression::Zstd { level: level.value }),
    ];
    section.choice("compression", &words, "none").value
}

/// Keys come from a file, or from a credential that systemd hands over: one that is named so, or a key file without any
/// directory in its name.
fn read_encryption(mut section: Section<'_>, reader: &Reader) -> Option<Encryption> {
    let missing_key = [("hold", MissingKey::Hold), ("skip", MissingKey::Skip)];
    let directory = section.read_optional("credentials_directory", &PATH).map(|directory| directory.value);
    let key_file = section.read_optional("key_file", &PATH);
    let credential = section.read_optional("credential", &TEXT);
    let missing_key = section.choice("missing_key", &missing_key, "hold").value;
    section.finish();
    let key_file = match (key_file, credential) {
        (Some(_), Some(credential)) => {
            let message = "queue.encryption.credential: there is a key_file already".to_owned();
            reader.problem(&credential.origin, message);
            return None;
        }
        // Status, reload and the tools for files read this configuration too, and only the unit has the directory.
        (None, Some(credential)) => directory.map(|directory| directory.join(credential.value)),
        (Some(key_file), None) => Some(with_directory(key_file.value, directory.as_deref())),
        (None, None) => return None,
    };
    Some(Encryption { key_file, missing_key })
}

fn with_directory(key_file: PathBuf, credentials: Option<&Path>) -> PathBuf {
    match credentials {
        Some(credentials) if key_file.parent() == Some(Path::new("")) => credentials.join(key_file),
        _ => key_file,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{File, Host, Inputs, Loaded, load};
    use super::*;

    fn loaded(text: &str, credentials: Option<&str>) -> Result<Loaded, String> {
        let environment = |name: &str| credentials.filter(|_| name == "CREDENTIALS_DIRECTORY").map(str::to_owned);
        let inputs = Inputs {
            file: Some(File { name: "millrace.yaml", text }),
            environment: &environment,
            flags: &[],
            proxytrace: false,
            host: Host { resolve: &|_| Vec::new(), is_local: &|_| false },
        };
        load(&inputs).map_err(|error| error.to_string())
    }

    fn queue(text: &str, credentials: Option<&str>) -> Queue {
        loaded(text, credentials).unwrap().config.queue
    }

    #[test]
    fn compression_and_its_level() {
        for (text, expected) in [
            ("{}", BlockCompression::None),
            ("queue: {compression: lz4}", BlockCompression::Lz4),
            ("queue: {compression: zstd}", BlockCompression::Zstd { level: 1 }),
            ("queue: {compression: zstd, compression_level: -5}", BlockCompression::Zstd { level: -5 }),
        ] {
            assert_eq!(queue(text, None).compression, expected, "{text}");
        }
        let error = loaded("queue: {compression: zstd, compression_level: 30}", None).unwrap_err();
        assert!(error.ends_with("\"30\" is not a level from -7 to 19"), "{error}");
    }

    #[test]
    fn keys_come_from_a_file_or_from_a_credential() {
        let key_file =
            |text, credentials| queue(text, credentials).encryption.map(|encryption| encryption.key_file.unwrap());
        let path = |text| Some(PathBuf::from(text));
        assert_eq!(key_file("{}", Some("/run/c")), None, "credentials of something else");
        assert_eq!(key_file("queue: {encryption: {key_file: /etc/k}}", Some("/run/c")), path("/etc/k"));
        assert_eq!(key_file("queue: {encryption: {key_file: queue.key}}", Some("/run/c")), path("/run/c/queue.key"));
        assert_eq!(key_file("queue: {encryption: {key_file: queue.key}}", None), path("queue.key"));
        assert_eq!(key_file("queue: {encryption: {credential: queue.key}}", Some("/run/c")), path("/run/c/queue.key"));
        let outside = queue("queue: {encryption: {credential: queue.key}}", None).encryption;
        assert_eq!(
            outside.map(|encryption| encryption.key_file),
            Some(None),
            "that is for whoever opens the log to say"
        );
        let skips = queue("queue: {encryption: {key_file: /k, missing_key: skip}}", None).encryption.unwrap();
        assert_eq!(skips.missing_key, MissingKey::Skip);
        for (text, part) in [
            ("queue: {encryption: {credential: a, key_file: b}}", "there is a key_file already"),
            ("queue: {encryption: {keyfile: b}}", "did you mean \"key_file\"?"),
        ] {
            let error = loaded(text, None).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_budget_that_cannot_carry_the_lanes_is_refused_with_the_figures() {
        assert_eq!(too_small(192 << 20, 64 << 20, 1), None);
        let error = loaded("lanes: 8\nqueue: {max_bytes: 1GiB}", None).unwrap_err();
        let expected = "millrace.yaml:2:20: queue.max_bytes is 1GiB, and 8 lanes with 3 segments of 64MiB each need \
                        1536MiB: raise it, or lower queue.segment_bytes or lanes";
        assert_eq!(error, expected);
        assert!(loaded("lanes: 8\nqueue: {max_bytes: 1GiB, segment_bytes: 32MiB}", None).is_ok());
    }
}
