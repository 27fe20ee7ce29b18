//! Keeps traces that are worth a look: those that failed or were slow, and one of many of the others.
//!
//! Which of the others follows from the trace id alone, so it is the same on every lane and after a restart. A kept one says
//! for how many it stands, so that counts stay right.

use millrace_plugin::prelude::*;

#[derive(Fields)]
struct Trace<'b> {
    #[field(intrinsic, "trace-id")]
    id: Bytes<'b>,
    #[field(intrinsic, "errors")]
    errors: Integer<'b>,
    #[field(intrinsic, "trace-duration")]
    duration_ns: Integer<'b>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// A trace that takes longer is kept.
    slow_ms: u32,
    /// Of the others one in this many is kept; 0 for none.
    one_in: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { slow_ms: 1_000, one_in: 100 }
    }
}

struct TailWorthy(Config);

impl Plugin for TailWorthy {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self(config))
    }
}

#[sample]
impl Sample for TailWorthy {
    type Row<'b> = Trace<'b>;

    fn trace(&mut self, row: &mut Trace, is_final: bool) -> Decision {
        let is_slow = row.duration_ns.get().is_some_and(|ns| ns > i64::from(self.0.slow_ms) * 1_000_000);
        if is_slow || row.errors.get().is_some_and(|errors| errors > 0) {
            return Decision::Keep;
        }
        // The rest of it may still fail.
        if !is_final {
            return Decision::NotYet;
        }
        match number(row.id.get().unwrap_or_default()).checked_rem(u64::from(self.0.one_in)) {
            Some(0) => Decision::KeepFor(f64::from(self.0.one_in)),
            _ => Decision::Drop,
        }
    }
}

/// The last eight bytes of a trace id, which are random by W3C's Trace Context, level 2.
fn number(id: &[u8]) -> u64 {
    id.last_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_plugin::testing::{Batch, Value};

    fn trace(batch: Batch, id: u8, errors: i64, ms: i64) -> Batch {
        let batch = batch.row::<i64, 0>([]).intrinsic("trace-id", Value::Bytes(vec![id; 16]));
        batch.intrinsic("errors", errors).intrinsic("trace-duration", ms * 1_000_000)
    }

    #[test]
    fn failed_and_slow_are_kept_and_others_count_for_many() {
        let mut plugin = testing::configured::<TailWorthy>(r#"{ "one_in": 2 }"#).unwrap();
        let traces = trace(trace(trace(trace(Batch::new(), 1, 1, 5), 1, 0, 1_001), 1, 0, 5), 2, 0, 5);
        let early = testing::sample(&mut plugin, &traces, false).unwrap();
        assert_eq!(early, [Decision::Keep, Decision::Keep, Decision::NotYet, Decision::NotYet]);
        let late = testing::sample(&mut plugin, &traces, true).unwrap();
        assert_eq!(late, [Decision::Keep, Decision::Keep, Decision::Drop, Decision::KeepFor(2.0)]);
        let mut none = testing::configured::<TailWorthy>(r#"{ "one_in": 0 }"#).unwrap();
        assert_eq!(testing::sample(&mut none, &traces, true).unwrap()[3], Decision::Drop);
    }
}
