//! What the status says of plugins: of those that are in force, in the order in which data goes through them.
//!
//! `/metrics` has more, by lane; a picture of the moment needs only what tells a plugin that works from one that does not.

use serde_json::{Value, json};

use super::{Metrics, Sources};

/// Where a plugin works, in the order in which data gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PluginPlace {
    /// It reads a format.
    Receivers,
    /// It changes blocks.
    Processors,
    /// It writes a format.
    Exporters,
}

impl PluginPlace {
    /// The section of the configuration in which it stands.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            PluginPlace::Receivers => "receivers",
            PluginPlace::Processors => "processors",
            PluginPlace::Exporters => "exporters",
        }
    }
}

/// A plugin on all its threads together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginFigures {
    /// Which of its generations runs.
    pub generation: u64,
    /// Calls, and rows in them.
    pub calls: u64,
    /// Rows shown.
    pub rows: u64,
    /// Rows changed.
    pub rows_edited: u64,
    /// Rows dropped.
    pub rows_dropped: u64,
    /// Processor time of the calls, nanoseconds.
    pub cpu_ns: u64,
    /// Batches that failed.
    pub failures: u64,
    /// Blocks kept aside.
    pub quarantined_blocks: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Lanes on which it is given a rest.
    pub resting_lanes: u64,
    /// It fails again and again, and goes on.
    pub is_failing: bool,
    /// Why it failed last, in words.
    pub last_failure: Option<String>,
}

/// A plugin with its name in the configuration.
pub struct PluginSource {
    /// The name.
    pub name: String,
    /// Reads the figures.
    pub read: Box<dyn Fn() -> PluginFigures + Send>,
}

impl Metrics {
    /// Shows these plugins of a place from now on, and no others.
    pub fn show_plugins(&self, place: PluginPlace, plugins: Vec<PluginSource>) {
        self.sources().plugins[place as usize] = plugins;
    }
}

impl Sources {
    pub(super) fn plugins_json(&self) -> Vec<Value> {
        self.plugins.iter().flatten().map(|plugin| figures_json(&plugin.name, &(plugin.read)())).collect()
    }
}

fn figures_json(name: &str, figures: &PluginFigures) -> Value {
    json!({
        "name": name,
        "state": match figures {
            PluginFigures { resting_lanes: 1.., .. } => "resting",
            PluginFigures { is_failing: true, .. } => "failing",
            PluginFigures { .. } => "running",
        },
        "generation": figures.generation,
        "calls": figures.calls,
        "rows": { "shown": figures.rows, "edited": figures.rows_edited, "dropped": figures.rows_dropped },
        "nanoseconds_a_row": figures.cpu_ns.checked_div(figures.rows).unwrap_or(0),
        "failures": figures.failures,
        "last_failure": figures.last_failure,
        "quarantined_blocks": figures.quarantined_blocks,
        "memory_bytes": figures.memory_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_rests_says_so_and_one_that_was_never_called_costs_nothing() {
        let rests = PluginFigures { rows: 10, cpu_ns: 1005, resting_lanes: 1, ..PluginFigures::default() };
        let shown = figures_json("plugin/a", &rests);
        assert_eq!((&shown["state"], &shown["nanoseconds_a_row"]), (&json!("resting"), &json!(100)));
        let new = figures_json("plugin/b", &PluginFigures::default());
        assert_eq!((&new["state"], &new["nanoseconds_a_row"]), (&json!("running"), &json!(0)));
    }
}
