//! Write plugins for Millrace.
//!
//! A plugin says which fields it reads and writes, as a struct, and what to do with one row:
//!
//! ```
//! use millrace_plugin::prelude::*;
//!
//! #[derive(Fields)]
//! struct Request<'b> {
//!     #[field("url.full")]
//!     url: Text<'b, Edit>,
//! }
//!
//! #[derive(Plugin, Deserialize)]
//! struct CutQuery {
//!     marker: String,
//! }
//!
//! #[transform]
//! impl Transform for CutQuery {
//!     type Row<'b> = Request<'b>;
//!
//!     fn row(&mut self, row: &mut Request) -> Verdict {
//!         if let Some((before, _)) = row.url.get().and_then(|url| split_once(url, b'?')) {
//!             row.url.set_parts(&[before, "?", &self.marker]);
//!         }
//!         Verdict::Keep
//!     }
//! }
//!
//! let mut plugin = testing::configured::<CutQuery>(r#"{ "marker": "cut" }"#).unwrap();
//! let batch = testing::Batch::new().row([("url.full", "http://shop/?card=4711")]);
//! let after = testing::transform(&mut plugin, &batch).unwrap();
//! assert_eq!(after.text(0, "url.full"), Some("http://shop/?cut"));
//! ```
//!
//! The struct of the plugin is also its configuration; one with state of its own implements [`Plugin`]. Compiled for
//! WebAssembly the attribute exports the world; natively everything runs in plain `cargo test`. The other worlds are
//! [`Sample`] (traces to keep), [`Enrich`] (values to add to), [`Decode`] and [`Encode`] (bytes in and out). Cells are
//! slices of what the host gave and edits go to flat buffers, so nothing is allocated for a row.

// The attributes name the crate from outside; its own tests and examples do too.
extern crate self as millrace_plugin;

#[doc(hidden)]
pub mod bindings;
mod cell;
mod extra;
mod fields;
pub mod host;
mod number;
mod plugin;
mod rows;
mod search;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod wide;
mod worlds;

#[doc(hidden)]
pub use wit_bindgen;

pub use cell::{Access, Cell, Edit, Edits, Read, Write};
pub use extra::Extra;
pub use fields::{Field, Fields, Level};
pub use millrace_plugin_macros::{Fields, Plugin, decode, encode, enrich, sample, transform};
pub use number::{Boolean, Float, Integer, Number};
pub use plugin::{NoConfig, Plugin, Signal};
pub use rows::{At, Rows};
pub use search::{find, find_text, split_once};
pub use wide::{AnyText, Bytes, Json, Text, Wide};
pub use worlds::decode::{Decode, Input, Output, Taken};
pub use worlds::encode::{Encode, Messages, Unencodable};
pub use worlds::enrich::Enrich;
pub use worlds::sample::{Decision, Sample};
pub use worlds::transform::{All, Batch, Transform, Verdict};

/// What the attributes of the worlds call; not for plugins.
#[doc(hidden)]
pub mod exports {
    pub use crate::fields::{check, check_read, check_written};
    pub use crate::plugin::Slot;
    pub use crate::rows::Given;
    pub use crate::worlds::{decode, encode, enrich, sample, transform};
}

/// What a plugin usually needs.
pub mod prelude {
    pub use crate::host::{self, Severity};
    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::testing;
    pub use crate::{
        AnyText, Batch, Boolean, Bytes, Decision, Decode, Edit, Encode, Enrich, Extra, Fields, Float, Input, Integer,
        Json, Messages, Output, Plugin, Read, Rows, Sample, Signal, Taken, Text, Transform, Unencodable, Verdict,
        Write, find, find_text, split_once,
    };
    pub use millrace_plugin_macros::{decode, encode, enrich, sample, transform};
    pub use serde::Deserialize;
}
