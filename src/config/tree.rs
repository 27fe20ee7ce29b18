//! The tree of words that every layer of the configuration becomes, and laying one word over it.
//!
//! Scalars stay text until somebody asks for a type: a variable and a file then say the same thing in the same words.
//! Each node knows its origin, which is both what an error message points at and what decides between two settings that
//! mean the same thing. No YAML and no environment here.

use std::fmt;

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A default of the ProxyTrace service, in force by `--proxytrace`.
    Proxytrace,
    /// The file, at a line and column counted from 1.
    File {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// An environment variable.
    Environment(&'static str),
    /// A command line flag.
    Flag(&'static str),
}

impl Origin {
    /// The precedence: the higher wins.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self {
            Origin::Default | Origin::Proxytrace => 0,
            Origin::File { .. } => 1,
            Origin::Environment(_) => 2,
            Origin::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "default"),
            Origin::Proxytrace => write!(f, "default of --proxytrace"),
            Origin::File { line, column } => write!(f, "file:{line}:{column}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) data: Data,
    pub(super) origin: Origin,
    /// Written in quotes, so text even where it looks like a number.
    pub(super) quoted: bool,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// Nothing was written after the key.
    Null,
    Text(String),
    List(Vec<Value>),
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Where the key stands.
    pub(super) at: Origin,
    pub(super) value: Value,
}

impl Value {
    /// The tree of a layer that says nothing.
    pub(super) fn empty_map() -> Value {
        Value { data: Data::Map(Vec::new()), origin: Origin::Default, quoted: false }
    }

    /// The entries of a map; none for anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Map(entries) => entries,
            Data::Null | Data::Text(_) | Data::List(_) => &[],
        }
    }

    /// The node under a key.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The node under a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The node under a key, made when there is none. `None` when this is neither a map nor empty: the reading of the
    /// tree will complain about that.
    fn slot(&mut self, key: &str, origin: &Origin) -> Option<&mut Value> {
        if matches!(self.data, Data::Null) {
            self.data = Data::Map(Vec::new());
        }
        let Data::Map(entries) = &mut self.data else { return None };
        let found = entries.iter().position(|entry| entry.key == key);
        let index = found.unwrap_or_else(|| {
            let value = Value { data: Data::Null, origin: origin.clone(), quoted: false };
            entries.push(Entry { key: key.to_owned(), at: origin.clone(), value });
            entries.len() - 1
        });
        Some(&mut entries[index].value)
    }

    /// Makes sure that there is a map, perhaps an empty one, under a path.
    pub(super) fn ensure(&mut self, path: &[&str], origin: &Origin) {
        let mut value = self;
        for key in path {
            match value.slot(key, origin) {
                Some(next) => value = next,
                None => return,
            }
        }
    }

    /// Lays a word over the tree, on top of what is there. Where the tree has something else than maps on the way it is
    /// left alone.
    pub(super) fn lay(&mut self, path: &[&str], text: &str, origin: &Origin) {
        let mut value = self;
        for key in path {
            match value.slot(key, origin) {
                Some(next) => value = next,
                None => return,
            }
        }
        *value = Value { data: Data::Text(text.to_owned()), origin: origin.clone(), quoted: false };
    }

    /// Lays a word under the tree: only where nothing is said.
    pub(super) fn lay_under(&mut self, path: &[&str], text: &str, origin: &Origin) {
        if self.at(path).is_none() {
            self.lay(path, text, origin);
        }
    }

    /// Keeps the entries of the map under a key that a predicate accepts.
    pub(super) fn retain(&mut self, key: &str, keep: impl Fn(&Entry) -> bool) {
        let Data::Map(entries) = &mut self.data else { return };
        let Some(entry) = entries.iter_mut().find(|entry| entry.key == key) else { return };
        if let Data::Map(entries) = &mut entry.value.data {
            entries.retain(keep);
        }
    }
}
