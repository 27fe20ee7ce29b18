//! The worlds: for each the trait that a plugin implements, and what runs it.
//!
//! `run` stands behind what the world's attribute exports, and behind [`crate::testing`]: natively and in the host a plugin is
//! called the same way. Nothing here knows the interface's functions, only its types.

pub mod decode;
pub mod encode;
pub mod enrich;
pub mod sample;
pub mod transform;
