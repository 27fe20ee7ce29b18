//! Counters of the plugin's own, shown among the host's metrics with the plugin's name as label.
//!
//! They are made while the plugin is configured, so that their number is known before it is live. Names become names of
//! metrics: lower-case letters, digits and underscores. What a call adds counts once its answer was accepted.

use std::sync::Arc;

use crate::plugin::bindings::millrace::plugin::metrics;
use crate::plugin::host::Host;

/// Counters of a plugin at most.
const COUNTERS: usize = 64;

/// Bytes of a counter's name at most.
const NAME_BYTES: usize = 64;

impl metrics::Host for Host {
    fn counter(&mut self, name: String) -> wasmtime::Result<Result<u32, String>> {
        if !self.configures {
            return Ok(Err("counters are made in `configure` only".to_owned()));
        }
        if !is_name(&name) {
            let rule = "lower-case letters, digits and underscores, a letter first";
            return Ok(Err(format!("a counter's name is at most {NAME_BYTES} {rule}")));
        }
        let Some(counter) = self.kept.counters.own_counter(&name, COUNTERS) else {
            return Ok(Err(format!("a plugin has at most {COUNTERS} counters")));
        };
        let number = match self.own_counters.iter().position(|known| Arc::ptr_eq(known, &counter)) {
            Some(known) => known,
            None => {
                self.own_counters.push(counter);
                self.own_counters.len() - 1
            }
        };
        Ok(Ok(u32::try_from(number).expect("there are at most 64")))
    }

    fn add(&mut self, counter: u32, by: u64) -> wasmtime::Result<()> {
        let Some(counter) = self.own_counters.get(counter as usize) else {
            wasmtime::bail!("there is no counter {counter}");
        };
        // At most one entry for each of 64 counters.
        match self.kept.added.iter_mut().find(|(known, _)| Arc::ptr_eq(known, counter)) {
            Some((_, added)) => *added = added.wrapping_add(by),
            None => self.kept.added.push((Arc::clone(counter), by)),
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= NAME_BYTES && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(is_word)
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_are_those_of_metrics() {
        assert!(["a", "rows_seen", "x2", &"a".repeat(64)].iter().all(|name| is_name(name)));
        assert!(!["", "2x", "_x", "A", "a-b", "a b", "ä", "a\n", &"a".repeat(65)].iter().any(|name| is_name(name)));
    }
}
