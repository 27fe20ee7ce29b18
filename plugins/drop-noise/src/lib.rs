//! Drops spans that nobody looks at: health checks and their like, as long as they are quick and well.
//!
//! A failed or slow one is never noise, whatever it is called.

use millrace_plugin::prelude::*;

#[derive(Fields)]
struct Row<'b> {
    #[field(intrinsic, "name")]
    name: Text<'b>,
    #[field("url.path")]
    path: Text<'b>,
    #[field(intrinsic, "duration")]
    duration_ns: Integer<'b>,
    #[field(intrinsic, "status")]
    status: Integer<'b>,
}

/// OTLP's code of an error.
const ERROR: i64 = 2;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Values of `url.path`, whole.
    paths: Vec<String>,
    /// Names of spans, whole.
    names: Vec<String>,
    /// What takes longer is kept.
    slow_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        let paths = ["/health", "/healthz", "/live", "/livez", "/ready", "/readyz", "/metrics"];
        Self { paths: paths.map(str::to_owned).to_vec(), names: Vec::new(), slow_ms: 100 }
    }
}

struct DropNoise(Config);

impl Plugin for DropNoise {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self(config))
    }
}

#[transform]
impl Transform for DropNoise {
    type Row<'b> = Row<'b>;

    fn row(&mut self, row: &mut Row) -> Verdict {
        let is_one_of = |words: &[String], word: Option<&str>| word.is_some_and(|word| words.iter().any(|w| w == word));
        let is_noise = is_one_of(&self.0.paths, row.path.get()) || is_one_of(&self.0.names, row.name.get());
        let is_slow = row.duration_ns.get().is_none_or(|ns| ns > i64::from(self.0.slow_ms) * 1_000_000);
        match is_noise && !is_slow && row.status.get() != Some(ERROR) {
            true => Verdict::Drop,
            false => Verdict::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_and_well_is_dropped_and_the_rest_stays() {
        let span = |batch: testing::Batch, path: &str, ms: i64, status: i64| {
            let batch = batch.row([("url.path", path)]).intrinsic("name", "GET");
            batch.intrinsic("duration", ms * 1_000_000).intrinsic("status", status)
        };
        let mut batch = testing::Batch::new();
        for (path, ms, status) in [("/health", 3, 0), ("/health", 3, 2), ("/health", 101, 1), ("/shop", 3, 0)] {
            batch = span(batch, path, ms, status);
        }
        let mut plugin = testing::configured::<DropNoise>("").unwrap();
        let after = testing::transform(&mut plugin, &batch).unwrap();
        assert_eq!([0, 1, 2, 3].map(|row| after.is_dropped(row)), [true, false, false, false]);
        let mut plugin = testing::configured::<DropNoise>(r#"{ "paths": [], "names": ["GET"] }"#).unwrap();
        let after = testing::transform(&mut plugin, &batch).unwrap();
        assert_eq!([0, 1, 2, 3].map(|row| after.is_dropped(row)), [true, false, false, true]);
    }
}
