//! Exporters against backends that behave as badly as a backend can: a listener on loopback with a scripted answer.

use std::time::Duration;

use crate::config::{Compression, HttpClient};

/// A client that gives up soon.
pub(super) fn http_client() -> HttpClient {
    HttpClient {
        headers: Vec::new(),
        ca_file: None,
        compression: Compression::None,
        timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(1),
    }
}
