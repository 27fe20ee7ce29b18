//! What can go wrong with a plugin: before it is live, and in a call.
//!
//! A [`LoadError`] keeps a generation from going live and is for the operator: it names the file, the import or the setting.
//! A [`CallError`] concerns one batch, which is as it was; what becomes of it is the operator's policy. Texts that come
//! from a plugin are cut and cleaned before they get here.

use std::path::PathBuf;
use std::time::Duration;

use super::imports::lookup::TableError;

/// Why a plugin cannot go live.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says; not called the source, for whoever shows sources too would say it twice.
        why: std::io::Error,
    },
    /// The file is not one that is looked into.
    #[error("a component of more than {limit} bytes is not loaded")]
    TooBig {
        /// Bytes at most.
        limit: u64,
    },
    /// The file is not the one that was pinned.
    #[error("the file has the sha256 {found}, the configuration wants {wanted}")]
    Pin {
        /// What the configuration says, in hex.
        wanted: String,
        /// What the file has, in hex.
        found: String,
    },
    /// The file is no component.
    #[error("not a WebAssembly component: {0}")]
    NotAComponent(String),
    /// It imports what no plugin is given.
    #[error("the plugin imports `{0}`; only the interfaces of millrace:plugin are there, and no WASI")]
    Import(String),
    /// It imports what this one is not given.
    #[error("the plugin uses `{interface}`, which its `capabilities` do not list: write `{line}` beside its `path`")]
    NotAllowed {
        /// What it imports.
        interface: &'static str,
        /// With this in the configuration it may.
        line: String,
    },
    /// It imports what its world has not.
    #[error("the plugin imports `{interface}`, which the world `{world}` has not")]
    NotInWorld {
        /// What it exports.
        world: &'static str,
        /// What it imports.
        interface: &'static str,
    },
    /// It exports none of the worlds, or several.
    #[error("a plugin exports one of transformer, sampler, enricher, decoder and encoder; this one exports {0}")]
    World(String),
    /// It was made for another version of the interface.
    #[error("the plugin was built for millrace:plugin@{found}, this host has {host}")]
    Version {
        /// The plugin's.
        found: String,
        /// Ours.
        host: &'static str,
    },
    /// It does not compile, or does not fit the interface.
    #[error("the plugin cannot be used: {0}")]
    Unfit(String),
    /// One of its tables cannot be used.
    #[error("table {0}")]
    Table(#[source] TableError),
    /// It said no to its configuration, or failed over it.
    #[error("the plugin could not be configured: {0}")]
    Configure(CallError),
    /// It took longer than a light plugin may.
    #[error(
        "the plugin could not be started: {0}; a light plugin is started between two blocks of a lane, `class: heavy` \
         gives it a thread and more time"
    )]
    Slow(CallError),
    /// What it says of itself breaks a rule.
    #[error("what the plugin declares cannot be: {0}")]
    Setup(String),
}

/// Why a call gave no patch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It trapped; the text says where.
    #[error("trapped: {0}")]
    Trap(String),
    /// It used up its processor time.
    #[error("used more than {} ms of processor time", budget.as_millis())]
    TimeOut {
        /// What it had.
        budget: Duration,
    },
    /// It wanted more memory than it may have, and failed without.
    #[error("needs more than {limit_bytes} bytes of memory")]
    OutOfMemory {
        /// What it may have.
        limit_bytes: usize,
    },
    /// Its stack overflowed.
    #[error("its stack overflowed")]
    StackOverflow,
    /// It answered with an error; the text is the plugin's.
    #[error("refused: {0}")]
    Refused(String),
    /// No instance could be made.
    #[error("no instance could be made: {0}")]
    Start(String),
}

impl CallError {
    /// One of a fixed set: a metric's label, and a dead letter's reason.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            CallError::Trap(_) | CallError::StackOverflow => "trap",
            CallError::TimeOut { .. } => "time_out",
            CallError::OutOfMemory { .. } => "out_of_memory",
            CallError::Refused(_) => "refused",
            CallError::Start(_) => "start",
        }
    }
}

/// Text of a plugin made fit for logs and answers: at most so many bytes, control characters shown as escapes.
pub(super) fn clean(text: &str, most_bytes: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(most_bytes));
    for c in text.chars() {
        let begin = clean.len();
        match c.is_control() {
            true => clean.extend(c.escape_default()),
            false => clean.push(c),
        }
        if clean.len() > most_bytes {
            clean.truncate(begin);
            clean.push('…');
            break;
        }
    }
    clean
}

/// Bytes of a message in an error.
pub(super) const MESSAGE_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_plugins_are_cut_at_characters_and_show_their_control_characters() {
        assert_eq!(clean("plain ä", 100), "plain ä");
        assert_eq!(clean("a\nb\u{1b}[31m\0\u{9b}", 100), "a\\nb\\u{1b}[31m\\u{0}\\u{9b}");
        assert_eq!(clean("ääää", 5), "ää…");
        assert_eq!(clean(&"\n".repeat(10), 5), "\\n\\n…");
    }
}
