//! Cuts the query off `url.full`: what stands behind the question mark may be anybody's secret.
//!
//! A row is a span or a log record. The struct says which values are read and written; what it does not name is
//! neither copied nor seen.

use millrace_plugin::prelude::*;

/// The fields of a row.
#[derive(Fields)]
struct Row<'b> {
    #[field("url.full")]
    url: Text<'b, Edit>,
}

/// What the operator may write under `config`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// What stands in the place of a query.
    marker: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { marker: "CUT".to_owned() }
    }
}

struct CutQuery {
    config: Config,
}

impl Plugin for CutQuery {
    type Config = Config;
    const SIGNALS: &'static [Signal] = &[Signal::Span];

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self { config })
    }
}

#[transform]
impl Transform for CutQuery {
    type Row<'b> = Row<'b>;

    fn row(&mut self, row: &mut Row) -> Verdict {
        if let Some((before, _)) = row.url.get().and_then(|url| split_once(url, b'?')) {
            row.url.set_parts(&[before, "?", &self.config.marker]);
        }
        Verdict::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_cut() {
        let mut plugin = testing::configured::<CutQuery>("{}").unwrap();
        let batch = testing::Batch::new().row([("url.full", "http://shop/?card=4711")]).row([("url.full", "http://shop/")]);
        let after = testing::transform(&mut plugin, &batch).unwrap();
        assert_eq!(after.text(0, "url.full"), Some("http://shop/?CUT"));
        assert_eq!(after.text(1, "url.full"), Some("http://shop/"));
    }
}
