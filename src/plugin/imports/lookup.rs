//! Tables that the operator gives: read once a generation, shared by all lanes, never written.
//!
//! A CSV file (RFC 4180) has the names of its columns in the first line and the key in the first column; a JSON file is one
//! object of rows by key. Each row is kept as the JSON that plugins are given, so that a look-up copies and nothing else.

mod csv;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use wasmtime::component::Resource;

use crate::plugin::bindings::millrace::plugin::lookup;
use crate::plugin::host::Host;
use crate::sys::digest::sha256;

/// Bytes of a table's file at most.
const FILE_BYTES: u64 = 64 << 20;

/// Bytes of the answers to one call at most: keys are cheap to repeat, rows are not.
const ANSWER_BYTES: usize = 8 << 20;

/// The tables of a plugin, by name.
pub(in crate::plugin) type Tables = Vec<(String, Arc<Table>)>;

/// A plugin's handle: the number of the table.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings name it")]
pub struct OpenTable;

type Rows = HashMap<Box<str>, Box<str>>;

/// Rows by key.
#[derive(Debug)]
pub(in crate::plugin) struct Table {
    rows: Rows,
    /// Of the file that they were read from.
    sha256: [u8; 32],
}

/// Why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not what its name says.
    #[error("{}: {what}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
}

impl Table {
    /// Reads a table; the file's name ends in `.csv` or `.json`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is too big, or is not what its name says.
    pub(in crate::plugin) fn load(path: &Path) -> Result<Table, TableError> {
        let broken = |what| TableError::Broken { path: path.to_owned(), what };
        let bytes = read(path)?;
        let sha256 = sha256(&bytes);
        let text = String::from_utf8(bytes).map_err(|error| broken(error.to_string()))?;
        let rows = match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => rows_of_csv(&text).map_err(broken)?,
            Some("json") => rows_of_json(&text).map_err(broken)?,
            _ => return Err(broken("a table is a .csv or a .json file".to_owned())),
        };
        Ok(Table { rows, sha256 })
    }

    /// Whether the file still holds what the table was read from.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is too big.
    pub(in crate::plugin) fn is_of(&self, path: &Path) -> Result<bool, TableError> {
        Ok(sha256(&read(path)?) == self.sha256)
    }

    /// The row of this key, as a JSON object.
    fn row(&self, key: &str) -> Option<&str> {
        self.rows.get(key).map(AsRef::as_ref)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TableError> {
    let read = |source| TableError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(read)?.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > FILE_BYTES {
        let what = format!("a table has at most {FILE_BYTES} bytes");
        return Err(TableError::Broken { path: path.to_owned(), what });
    }
    Ok(bytes)
}

fn rows_of_csv(text: &str) -> Result<Rows, String> {
    let mut records = csv::records(text);
    let (_, names) = records.next().ok_or("there is no first line with names")??;
    let mut rows = HashMap::new();
    for record in records {
        let (line, cells) = record?;
        if cells.len() != names.len() {
            return Err(format!("line {line} has {} cells, the first line {}", cells.len(), names.len()));
        }
        let pairs = names.iter().cloned().zip(cells.iter().cloned().map(Value::String)).skip(1);
        let row = Value::Object(pairs.collect()).to_string();
        if rows.insert(Box::from(cells[0].as_str()), Box::from(row)).is_some() {
            return Err(format!("line {line}: the key {:?} is there twice", cells[0]));
        }
    }
    Ok(rows)
}

fn rows_of_json(text: &str) -> Result<Rows, String> {
    let rows: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if let Some((key, _)) = rows.iter().find(|(_, row)| !row.is_object()) {
        return Err(format!("the row {key:?} is not an object"));
    }
    Ok(rows.into_iter().map(|(key, row)| (key.into(), row.to_string().into())).collect())
}

impl lookup::Host for Host {}

impl lookup::HostTable for Host {
    fn open(&mut self, name: String) -> wasmtime::Result<Result<Resource<OpenTable>, String>> {
        let tables = &self.environment.tables;
        let Some(number) = tables.iter().position(|(known, _)| *known == name) else {
            let known: Vec<&str> = tables.iter().map(|(known, _)| known.as_str()).collect();
            return Ok(Err(format!("there is no such table; the tables are: {}", known.join(", "))));
        };
        Ok(Ok(Resource::new_own(u32::try_from(number).expect("an operator names no billions of tables"))))
    }

    fn get_many(&mut self, table: Resource<OpenTable>, keys: Vec<String>) -> wasmtime::Result<Vec<Option<String>>> {
        let Some((_, table)) = self.environment.tables.get(table.rep() as usize) else {
            wasmtime::bail!("there is no such table");
        };
        let rows: Vec<Option<&str>> = keys.iter().map(|key| table.row(key)).collect();
        let bytes: usize = rows.iter().flatten().map(|row| row.len()).sum();
        if bytes > ANSWER_BYTES {
            wasmtime::bail!("{} keys ask for {bytes} bytes of rows; one call gets at most {ANSWER_BYTES}", keys.len());
        }
        Ok(rows.into_iter().map(|row| row.map(str::to_owned)).collect())
    }

    fn drop(&mut self, _: Resource<OpenTable>) -> wasmtime::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::component::Resource;

    use super::lookup::HostTable;
    use super::*;
    use crate::plugin::host::tests::host;

    fn load(name: &str, text: &str) -> Result<Table, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        Table::load(&path).map_err(|error| error.to_string().rsplit_once(": ").unwrap().1.to_owned())
    }

    #[test]
    fn rows_are_json_objects_by_key() {
        let csv = load("sites.csv", "host,site,floor\nh1,\"Bern, \"\"CH\"\"\",2\nh2,,\n").unwrap();
        assert_eq!(csv.row("h1"), Some(r#"{"floor":"2","site":"Bern, \"CH\""}"#));
        assert_eq!((csv.row("h2"), csv.row("host")), (Some(r#"{"floor":"","site":""}"#), None));
        let json = load("sites.json", r#"{"h1": {"floor": 2, "tags": [true]}}"#).unwrap();
        assert_eq!((json.row("h1"), json.row("")), (Some(r#"{"floor":2,"tags":[true]}"#), None));
    }

    #[test]
    fn a_file_that_is_not_a_table_says_why() {
        for (name, text, expected) in [
            ("a.csv", "", "there is no first line with names"),
            ("a.csv", "k,v\na,1\nb\n", "line 3 has 1 cells, the first line 2"),
            ("a.csv", "k,v\na,1\na,2\n", "the key \"a\" is there twice"),
            ("a.json", "{\"a\": 1}", "the row \"a\" is not an object"),
            ("a.mmdb", "", "a table is a .csv or a .json file"),
        ] {
            assert_eq!(load(name, text).unwrap_err(), expected);
        }
    }

    #[test]
    fn answers_come_in_the_order_of_the_keys_and_are_bounded() {
        let big = format!("k,v\na,1\nb,{}\n", "x".repeat(1 << 20));
        let mut host = host(vec![("sites".to_owned(), Arc::new(load("t.csv", &big).unwrap()))]);
        let refusal = host.open("site".to_owned()).unwrap().unwrap_err();
        assert_eq!(refusal, "there is no such table; the tables are: sites");
        let number = host.open("sites".to_owned()).unwrap().unwrap().rep();
        let ask = |host: &mut Host, key: &str, times: usize| {
            host.get_many(Resource::new_own(number), vec![key.to_owned(); times]).map(|rows| rows.len())
        };
        assert_eq!(ask(&mut host, "b", 7).unwrap(), 7);
        assert!(ask(&mut host, "b", 9).is_err(), "nine times a megabyte");
        let keys = ["z", "a"].map(str::to_owned).to_vec();
        assert_eq!(host.get_many(Resource::new_own(number), keys).unwrap(), [None, Some(r#"{"v":"1"}"#.to_owned())]);
        assert!(host.get_many(Resource::new_own(9), Vec::new()).is_err());
    }
}
