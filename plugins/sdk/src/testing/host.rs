//! Stand-ins for the host's functions, one set a thread and so one a test.
//!
//! What a plugin logs and counts can be looked at; time and tables are given. The time of life of a state's entry is ignored.

use std::cell::RefCell;
use std::collections::BTreeMap;

#[derive(Default)]
struct Stage {
    lines: Vec<(u8, String)>,
    counters: Vec<(String, u64)>,
    batch_time_ns: u64,
    state: BTreeMap<String, Vec<u8>>,
    tables: BTreeMap<String, BTreeMap<String, String>>,
}

thread_local! {
    static STAGE: RefCell<Stage> = RefCell::default();
}

/// The lines logged so far, with their severities.
#[must_use]
pub fn lines() -> Vec<(u8, String)> {
    STAGE.with_borrow(|stage| stage.lines.clone())
}

/// What a counter has counted; 0 for one that does not exist.
#[must_use]
pub fn counted(name: &str) -> u64 {
    STAGE.with_borrow(|stage| stage.counters.iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count))
}

/// Sets the time of the batch, Unix nanoseconds.
pub fn set_batch_time_ns(time: u64) {
    STAGE.with_borrow_mut(|stage| stage.batch_time_ns = time);
}

/// Gives a table: keys with their rows as JSON objects.
pub fn set_table<const N: usize>(name: &str, rows: [(&str, &str); N]) {
    let rows = rows.into_iter().map(|(key, row)| (key.to_owned(), row.to_owned())).collect();
    STAGE.with_borrow_mut(|stage| stage.tables.insert(name.to_owned(), rows));
}

pub(crate) mod log {
    use super::STAGE;

    pub(crate) fn log(severity: u8, message: &str) {
        STAGE.with_borrow_mut(|stage| stage.lines.push((severity, message.to_owned())));
    }

    pub(crate) fn enabled(_severity: u8) -> bool {
        true
    }
}

pub(crate) mod metrics {
    use super::STAGE;

    pub(crate) fn counter(name: &str) -> Result<u32, String> {
        STAGE.with_borrow_mut(|stage| {
            let known = stage.counters.iter().position(|(known, _)| known == name);
            let index = known.unwrap_or(stage.counters.len());
            if known.is_none() {
                stage.counters.push((name.to_owned(), 0));
            }
            u32::try_from(index).ok().filter(|index| *index < 64).ok_or_else(|| "a plugin has 64 counters".to_owned())
        })
    }

    pub(crate) fn add(counter: u32, by: u64) {
        STAGE.with_borrow_mut(|stage| stage.counters[counter as usize].1 += by);
    }
}

pub(crate) mod clock {
    pub(crate) fn batch_time() -> u64 {
        super::STAGE.with_borrow(|stage| stage.batch_time_ns)
    }
}

pub(crate) mod state {
    use super::STAGE;

    pub(crate) fn get(key: &str) -> Option<Vec<u8>> {
        STAGE.with_borrow(|stage| stage.state.get(key).cloned())
    }

    pub(crate) fn set(key: &str, value: &[u8], _ttl_ms: u64) -> Result<(), String> {
        STAGE.with_borrow_mut(|stage| stage.state.insert(key.to_owned(), value.to_vec()));
        Ok(())
    }

    pub(crate) fn delete(key: &str) {
        STAGE.with_borrow_mut(|stage| stage.state.remove(key));
    }
}

pub(crate) mod lookup {
    use super::STAGE;

    #[derive(Debug)]
    pub(crate) struct Table(String);

    impl Table {
        pub(crate) fn open(name: &str) -> Result<Self, String> {
            STAGE.with_borrow(|stage| match stage.tables.contains_key(name) {
                true => Ok(Self(name.to_owned())),
                false => Err(format!("there is no table {name}; there are {:?}", stage.tables.keys())),
            })
        }

        pub(crate) fn get_many(&self, keys: &[String]) -> Vec<Option<String>> {
            STAGE.with_borrow(|stage| keys.iter().map(|key| stage.tables[&self.0].get(key).cloned()).collect())
        }
    }
}
