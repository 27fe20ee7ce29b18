//! The same files with a planted bug under the same models: every ordering is Relaxed.
//!
//! `build.rs` makes the copies at each build, so the bug is planted in what the product has now. Only tests that are
//! expected to fail use them.

mod drain {
    include!(concat!(env!("OUT_DIR"), "/drain.rs"));
}
mod extent {
    include!(concat!(env!("OUT_DIR"), "/extent.rs"));
}
mod handshake {
    include!(concat!(env!("OUT_DIR"), "/handshake.rs"));
}
#[allow(unused_imports, reason = "the fence is left out")]
mod lost {
    include!(concat!(env!("OUT_DIR"), "/lost.rs"));
}
#[path = "models.rs"]
pub(crate) mod models;
#[path = "models_of_a_log.rs"]
mod models_of_a_log;
mod progress {
    include!(concat!(env!("OUT_DIR"), "/progress.rs"));
}
mod quota {
    include!(concat!(env!("OUT_DIR"), "/quota.rs"));
}
mod ranges {
    include!(concat!(env!("OUT_DIR"), "/ranges.rs"));
}
