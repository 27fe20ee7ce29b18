//! Reading one level of the tree into types: every key asked for is a known key, every other one is an error.
//!
//! A [`Section`] is opened on a map, asked for its settings, and finished; what was not asked for is unknown, and the
//! nearest known key is named. Nothing stops at the first problem: the [`Reader`] gathers problems, warnings and, for
//! `config explain`, each setting with its origin. Values of secret settings are never remembered.

use std::cell::RefCell;
use std::fmt;

use super::tree::{Data, Entry, Origin, Value};
use super::words::Kind;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column`, a variable or a flag.
    pub place: String,
    /// What is wrong, with the value that was.
    pub message: String,
}

/// A configuration that cannot be run: every problem that was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{}: {}", problem.place, problem.message)?;
        }
        Ok(())
    }
}

/// One setting as it will be used, for `config explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Its key, levels joined by dots.
    pub key: String,
    /// Its value as written; `***` for a secret.
    pub value: String,
    /// Who said so, with file, line and column when it was the file.
    pub source: String,
}

/// A value with its origin: when two settings mean the same thing, the higher rank wins.
#[derive(Clone, Debug)]
pub(super) struct Sourced<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

impl<T> Sourced<T> {
    /// The stronger of this and a more specific setting: equal ranks go to the specific one.
    pub(super) fn or_stronger(self, specific: Option<Sourced<T>>) -> Sourced<T> {
        match specific {
            Some(specific) if specific.origin.rank() >= self.origin.rank() => specific,
            _ => self,
        }
    }
}

/// Gathers what reading finds.
pub(super) struct Reader {
    file: String,
    problems: RefCell<Vec<(Origin, Problem)>>,
    warnings: RefCell<Vec<String>>,
    settings: RefCell<Vec<Explained>>,
}

impl Reader {
    pub(super) fn new(file: Option<&str>) -> Reader {
        Reader {
            file: file.unwrap_or("file").to_owned(),
            problems: RefCell::default(),
            warnings: RefCell::default(),
            settings: RefCell::default(),
        }
    }

    /// A place as people look it up.
    pub(super) fn place(&self, origin: &Origin) -> String {
        match origin {
            Origin::File { line, column } => format!("{}:{line}:{column}", self.file),
            Origin::Default => "configuration".to_owned(),
            Origin::Proxytrace | Origin::Environment(_) | Origin::Flag(_) => origin.to_string(),
        }
    }

    pub(super) fn problem(&self, at: &Origin, message: String) {
        let problem = Problem { place: self.place(at), message };
        let mut problems = self.problems.borrow_mut();
        if !problems.iter().any(|(_, known)| *known == problem) {
            problems.push((at.clone(), problem));
        }
    }

    pub(super) fn warning(&self, at: &Origin, message: &str) {
        self.warnings.borrow_mut().push(format!("{}: {message}", self.place(at)));
    }

    fn remember(&self, key: String, value: String, origin: &Origin) {
        let source = match origin {
            Origin::File { .. } => self.place(origin),
            _ => origin.to_string(),
        };
        self.settings.borrow_mut().push(Explained { key, value, source });
    }

    /// The configuration, unless there were problems.
    pub(super) fn finish(self, config: super::Config) -> Result<super::Loaded, ConfigError> {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            let warnings = self.warnings.into_inner();
            Ok(super::Loaded { config, warnings, unresolved: Vec::new(), settings: self.settings.into_inner() })
        } else {
            // As somebody with the file open goes through them; what has no place in it comes last.
            problems.sort_by_key(|(at, _)| match at {
                Origin::File { line, column } => (0, *line, *column),
                other => (4 - other.rank(), 0, 0),
            });
            Err(ConfigError { problems: problems.into_iter().map(|(_, problem)| problem).collect() })
        }
    }
}

/// One map of the tree while it is read.
pub(super) struct Section<'t> {
    path: String,
    at: Origin,
    entries: &'t [Entry],
    asked: Vec<&'t str>,
    reader: &'t Reader,
}

impl<'t> Section<'t> {
    pub(super) fn root(tree: &'t Value, reader: &'t Reader) -> Section<'t> {
        Section::open(String::new(), tree, reader)
    }

    fn open(path: String, value: &'t Value, reader: &'t Reader) -> Section<'t> {
        if matches!(value.data, Data::Text(_) | Data::List(_)) {
            let name = if path.is_empty() { "the configuration" } else { &path };
            reader.problem(&value.origin, format!("{name} must be a map of keys"));
        }
        Section { path, at: value.origin.clone(), entries: value.entries(), asked: Vec::new(), reader }
    }

    /// Where the section stands.
    pub(super) fn at(&self) -> &Origin {
        &self.at
    }

    /// The full name of a key of this section.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn reader(&self) -> &'t Reader {
        self.reader
    }

    fn ask(&mut self, key: &'t str) -> Option<&'t Value> {
        self.asked.push(key);
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// Where a key stands, if it is there at all; it becomes a known key.
    pub(super) fn has(&mut self, key: &'t str) -> Option<&'t Origin> {
        self.asked.push(key);
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.at)
    }

    /// The section under a key; an empty one when there is none.
    pub(super) fn section(&mut self, key: &'t str) -> Section<'t> {
        let path = self.key(key);
        match self.ask(key) {
            Some(value) => Section::open(path, value, self.reader),
            None => Section { path, at: self.at.clone(), entries: &[], asked: Vec::new(), reader: self.reader },
        }
    }

    /// All keys with their sections, for maps whose keys are names. Every key becomes known.
    pub(super) fn children(&mut self) -> Vec<(&'t str, &'t Origin, Section<'t>)> {
        let mut children = Vec::new();
        for entry in self.entries {
            self.asked.push(&entry.key);
            children.push((
                entry.key.as_str(),
                &entry.at,
                Section::open(self.key(&entry.key), &entry.value, self.reader),
            ));
        }
        children
    }

    /// All keys with their places, for maps of words whose keys are names. They become known as they are read.
    pub(super) fn names(&self) -> Vec<(&'t str, &'t Origin)> {
        self.entries.iter().map(|entry| (entry.key.as_str(), &entry.at)).collect()
    }

    /// A setting, or its default.
    pub(super) fn read<T>(&mut self, key: &'t str, kind: &Kind<T>, default: T) -> Sourced<T> {
        match self.parse(key, kind) {
            Some(found) => found,
            None => {
                self.reader.remember(self.key(key), (kind.show)(&default), &Origin::Default);
                Sourced { value: default, origin: Origin::Default }
            }
        }
    }

    /// A setting that need not be there.
    pub(super) fn read_optional<T>(&mut self, key: &'t str, kind: &Kind<T>) -> Option<Sourced<T>> {
        let found = self.parse(key, kind);
        if found.is_none() {
            self.reader.remember(self.key(key), "(unset)".to_owned(), &Origin::Default);
        }
        found
    }

    /// A secret that need not be there; its value is not remembered and not in any message.
    pub(super) fn read_secret(&mut self, key: &'t str) -> Option<String> {
        let value = self.ask(key)?;
        match &value.data {
            Data::Text(text) => {
                self.reader.remember(self.key(key), "***".to_owned(), &value.origin);
                Some(text.clone()).filter(|text| !text.is_empty())
            }
            Data::Null => None,
            Data::List(_) | Data::Map(_) => {
                self.reader.problem(&value.origin, format!("{} must be one word", self.key(key)));
                None
            }
        }
    }

    /// What stands under a key, whatever it is: it belongs to somebody else, may be a secret, and is not remembered.
    pub(super) fn hidden(&mut self, key: &'t str) -> Option<&'t Value> {
        let value = self.ask(key)?;
        self.reader.remember(self.key(key), "***".to_owned(), &value.origin);
        Some(value)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'t str, words: &[(&str, T)], default: &str) -> Sourced<T> {
        let of = |wanted: &str| words.iter().find(|(word, _)| *word == wanted).map(|(_, value)| *value);
        let fallback = of(default).expect("the default is one of the words");
        let Some((text, origin)) = self.word(key) else {
            self.reader.remember(self.key(key), default.to_owned(), &Origin::Default);
            return Sourced { value: fallback, origin: Origin::Default };
        };
        let Some(value) = of(text) else {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("{}: {text:?} is none of {}{}", self.key(key), all.join(", "), hint(text, &all));
            self.reader.problem(origin, message);
            return Sourced { value: fallback, origin: origin.clone() };
        };
        self.reader.remember(self.key(key), text.to_owned(), origin);
        Sourced { value, origin: origin.clone() }
    }

    /// The words of a list, each with its place; `None` when the key is not there.
    pub(super) fn list(&mut self, key: &'t str) -> Option<Vec<(&'t str, &'t Origin)>> {
        let value = self.ask(key)?;
        let Data::List(items) = &value.data else {
            self.reader.problem(&value.origin, format!("{} must be a list", self.key(key)));
            return None;
        };
        let mut words = Vec::new();
        for item in items {
            match &item.data {
                Data::Text(text) => words.push((text.as_str(), &item.origin)),
                _ => self.reader.problem(&item.origin, format!("{} must be a list of words", self.key(key))),
            }
        }
        Some(words)
    }

    /// A setting of the Collector's language that has no meaning here: taken, and said so.
    pub(super) fn ignore(&mut self, key: &'t str, why: &str) {
        if let Some(at) = self.has(key) {
            self.reader.warning(at, &format!("{} has no effect: {why}", self.key(key)));
        }
    }

    /// A setting whose meaning this version does not have: refused, because going on would be something else.
    pub(super) fn refuse(&mut self, key: &'t str, why: &str) {
        if let Some(at) = self.has(key) {
            self.reader.problem(at, format!("{} is not available in this version: {why}", self.key(key)));
        }
    }

    /// Complains about every key that nobody asked for.
    pub(super) fn finish(self) {
        for entry in self.entries {
            if !self.asked.contains(&entry.key.as_str()) {
                let message = format!("unknown key {:?}{}", self.key(&entry.key), hint(&entry.key, &self.asked));
                self.reader.problem(&entry.at, message);
            }
        }
    }

    fn word(&mut self, key: &'t str) -> Option<(&'t str, &'t Origin)> {
        let value = self.ask(key)?;
        match &value.data {
            Data::Null => None,
            Data::Text(text) => Some((text, &value.origin)),
            Data::List(_) | Data::Map(_) => {
                self.reader.problem(&value.origin, format!("{} must be one word", self.key(key)));
                None
            }
        }
    }

    fn parse<T>(&mut self, key: &'t str, kind: &Kind<T>) -> Option<Sourced<T>> {
        let (text, origin) = self.word(key)?;
        match (kind.parse)(text) {
            Ok(value) => {
                self.reader.remember(self.key(key), text.to_owned(), origin);
                Some(Sourced { value, origin: origin.clone() })
            }
            Err(expected) => {
                self.reader.problem(origin, format!("{}: {text:?} is not {expected}", self.key(key)));
                None
            }
        }
    }
}

/// `; did you mean "..."?`, when some known word is near enough to be what was meant.
pub(super) fn hint(word: &str, known: &[&str]) -> String {
    let near = known.iter().map(|known| (strsim::damerau_levenshtein(word, known), *known)).min();
    match near {
        Some((distance, known)) if distance <= 2 + known.len() / 4 => format!("; did you mean {known:?}?"),
        _ if known.is_empty() || known.len() > 12 => String::new(),
        _ => format!("; known here: {}", known.join(", ")),
    }
}
