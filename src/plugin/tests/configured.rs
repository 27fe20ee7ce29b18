//! A plugin as an operator could have configured it, with little to say about anything but its file.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{
    Capability, Circuit, Isolation, OnError, Plugin, PluginClass, PluginComponent, PluginFilter, PluginLimits,
};

/// A plugin that runs the component in a file.
pub(crate) fn plugin(path: PathBuf) -> Plugin {
    Plugin {
        name: "plugin/tried".to_owned(),
        component: PluginComponent { path, sha256: None, config: "{}".to_owned() },
        shadow: None,
        on_error: OnError::Quarantine,
        isolation: Isolation::Lane,
        class: PluginClass::Light,
        filter: PluginFilter::default(),
        capabilities: vec![Capability::Log, Capability::Metrics, Capability::Clock, Capability::State],
        lookups: Vec::new(),
        limits: PluginLimits {
            memory_bytes: 64 << 20,
            // Twenty times the usual: the host is not optimised here.
            cpu: Duration::from_millis(100),
            cpu_per_row: Duration::from_micros(20),
            patch_bytes: 4 << 20,
            state_bytes: 1 << 20,
            log_lines_per_second: 10,
        },
        circuit: Circuit {
            failures: 5,
            window: Duration::from_secs(10),
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
        },
        record: false,
    }
}
