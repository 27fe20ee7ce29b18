//! The small store of a plugin on one lane: kept over instances and generations, lost with the process.
//!
//! What a call wrote counts once its answer was accepted; else everything is as it was before, so that a batch that is
//! given again is not counted twice. For that the first old value of each key that is written is put aside until then. An
//! entry's time to live runs in batch time; what is over is swept when room is needed.

use std::collections::HashMap;

use crate::plugin::bindings::millrace::plugin::state;
use crate::plugin::host::Host;

/// Bytes of a key at most.
const KEY_BYTES: usize = 256;

/// Bytes of a value at most.
const VALUE_BYTES: usize = 64 << 10;

/// Entries at most, and keys that one call may write.
const ENTRIES: usize = 16_384;

/// What an entry costs beside its bytes: about what the map takes for it.
const ENTRY_BYTES: usize = 64;

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    /// Batch time at which it is over; `u64::MAX`: never.
    until_ns: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::plugin) struct State {
    entries: HashMap<String, Entry>,
    bytes: usize,
    /// What the keys that the calls that are not yet accepted have written held before.
    before: HashMap<String, Option<Entry>>,
}

impl State {
    fn get(&self, key: &str, now_ns: u64) -> Option<&[u8]> {
        let entry = self.entries.get(key)?;
        (entry.until_ns > now_ns).then_some(entry.value.as_slice())
    }

    fn set(&mut self, key: String, entry: Entry, now_ns: u64, limit_bytes: usize) -> Result<(), String> {
        if key.len() > KEY_BYTES {
            return Err(format!("a key has at most {KEY_BYTES} bytes"));
        }
        if entry.value.len() > VALUE_BYTES {
            return Err(format!("a value has at most {VALUE_BYTES} bytes"));
        }
        if self.before.len() >= ENTRIES && !self.before.contains_key(&key) {
            return Err(format!("one call writes at most {ENTRIES} keys"));
        }
        let size = cost(&key, &entry);
        if !self.has_room(&key, size, limit_bytes) {
            self.sweep(now_ns);
        }
        if !self.has_room(&key, size, limit_bytes) {
            return Err(format!("there is room for {limit_bytes} bytes in {ENTRIES} entries"));
        }
        self.bytes += size;
        let old = self.entries.insert(key.clone(), entry);
        self.put_aside(key, old);
        Ok(())
    }

    fn delete(&mut self, key: String) {
        if let Some(old) = self.entries.remove(&key) {
            self.put_aside(key, Some(old));
        }
    }

    /// What was written since the last time stays.
    pub(in crate::plugin) fn commit(&mut self) {
        self.before.clear();
    }

    /// Everything is as it was the last time.
    pub(in crate::plugin) fn roll_back(&mut self) {
        for (key, before) in std::mem::take(&mut self.before) {
            let now = match before {
                Some(entry) => {
                    self.bytes += cost(&key, &entry);
                    self.entries.insert(key.clone(), entry)
                }
                None => self.entries.remove(&key),
            };
            if let Some(entry) = now {
                self.bytes -= cost(&key, &entry);
            }
        }
    }

    /// `old` is no longer among the entries.
    fn put_aside(&mut self, key: String, old: Option<Entry>) {
        if let Some(old) = &old {
            self.bytes -= cost(&key, old);
        }
        self.before.entry(key).or_insert(old);
    }

    fn has_room(&self, key: &str, size: usize, limit_bytes: usize) -> bool {
        let old = self.entries.get(key);
        let is_room_for_one = old.is_some() || self.entries.len() < ENTRIES;
        is_room_for_one && self.bytes - old.map_or(0, |old| cost(key, old)) + size <= limit_bytes
    }

    /// Removes what is over. A call that is rolled back does not bring it back.
    fn sweep(&mut self, now_ns: u64) {
        let mut freed = 0;
        self.entries.retain(|key, entry| {
            let stays = entry.until_ns > now_ns;
            freed += if stays { 0 } else { cost(key, entry) };
            stays
        });
        self.bytes -= freed;
    }
}

fn cost(key: &str, entry: &Entry) -> usize {
    key.len() + entry.value.len() + ENTRY_BYTES
}

impl state::Host for Host {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.kept.state.get(&key, self.received_ns).map(<[u8]>::to_vec))
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: u64) -> wasmtime::Result<Result<(), String>> {
        let now_ns = self.received_ns;
        let until_ns = match ttl_ms {
            0 => u64::MAX,
            _ => now_ns.saturating_add(ttl_ms.saturating_mul(1_000_000)),
        };
        let limit_bytes = usize::try_from(self.environment.limits.state_bytes).unwrap_or(usize::MAX);
        Ok(self.kept.state.set(key, Entry { value, until_ns }, now_ns, limit_bytes))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<()> {
        self.kept.state.delete(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const LIMIT_BYTES: usize = 2000;

    fn entry(value: &[u8], until_ns: u64) -> Entry {
        Entry { value: value.to_vec(), until_ns }
    }

    fn set(state: &mut State, key: &str, value: &[u8]) -> Result<(), String> {
        state.set(key.to_owned(), entry(value, u64::MAX), 0, LIMIT_BYTES)
    }

    fn counted(state: &State) -> usize {
        state.entries.iter().map(|(key, entry)| cost(key, entry)).sum()
    }

    #[test]
    fn whatever_was_written_a_roll_back_undoes_it_and_the_bytes_are_right() {
        let seed = fastrand::u64(..);
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut state, mut model, mut before) = (State::default(), BTreeMap::new(), BTreeMap::new());
        for step in 0..20_000 {
            let key = format!("k{}", rng.u8(..12));
            match rng.u8(..10) {
                0 => (state.commit(), before = model.clone()).1,
                1 => (state.roll_back(), model = before.clone()).1,
                2..5 => {
                    state.delete(key.clone());
                    model.remove(&key);
                }
                _ => {
                    let value = vec![rng.u8(..); rng.usize(..400)];
                    if set(&mut state, &key, &value).is_ok() {
                        model.insert(key, value);
                    }
                }
            }
            let held: BTreeMap<String, Vec<u8>> =
                state.entries.iter().map(|(key, entry)| (key.clone(), entry.value.clone())).collect();
            assert_eq!(held, model, "seed {seed}, step {step}");
            assert_eq!(state.bytes, counted(&state), "seed {seed}, step {step}");
            assert!(state.bytes <= LIMIT_BYTES || !state.before.is_empty(), "seed {seed}, step {step}");
        }
    }

    #[test]
    fn limits_are_answers_that_say_which() {
        let mut state = State::default();
        let refusal = |outcome: Result<(), String>| outcome.unwrap_err();
        assert_eq!(refusal(set(&mut state, &"k".repeat(257), b"")), "a key has at most 256 bytes");
        assert_eq!(refusal(set(&mut state, "k", &[0; 65_537])), "a value has at most 65536 bytes");
        assert_eq!(refusal(set(&mut state, "k", &[0; 2000])), "there is room for 2000 bytes in 16384 entries");
        // Written and deleted again, over and over: what is put aside is bounded too.
        let outcomes = (0..=ENTRIES).map(|n| {
            let outcome = set(&mut state, &n.to_string(), b"");
            state.delete(n.to_string());
            outcome
        });
        let refused: Vec<String> = outcomes.filter_map(Result::err).collect();
        assert_eq!(refused, ["one call writes at most 16384 keys"]);
        state.commit();
        assert_eq!(set(&mut state, "k", b"v"), Ok(()));
    }

    #[test]
    fn what_is_over_is_not_given_and_makes_room() {
        let mut state = State::default();
        state.set("old".to_owned(), entry(&[0; 1500], 100), 0, LIMIT_BYTES).unwrap();
        assert_eq!(state.get("old", 99).map(<[u8]>::len), Some(1500));
        assert_eq!(state.get("old", 100), None);
        assert!(state.set("new".to_owned(), entry(&[0; 1500], 200), 99, LIMIT_BYTES).is_err());
        state.set("new".to_owned(), entry(&[0; 1500], 200), 100, LIMIT_BYTES).unwrap();
        assert_eq!((state.entries.len(), state.bytes), (1, counted(&state)));
    }
}
