//! Log lines: text for people, JSON for machines, on stderr. Set up once, by `main`'s commands.
//!
//! `RUST_LOG` narrows or widens single modules; without it the level is `info`, or `debug` when the configuration says
//! so. Lines of the libraries are kept at `warn`: their debug lines show headers, and those hold tokens.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogOutput;

/// Puts another filter into the output that was started.
type Reload = Box<dyn Fn(EnvFilter) + Send + Sync>;
static RELOAD: OnceLock<Reload> = OnceLock::new();

/// Starts log output. A second call has no effect.
pub fn init(output: LogOutput) {
    let lines = tracing_subscriber::fmt().with_env_filter(filter(output.debug)).with_writer(std::io::stderr);
    let outcome = if output.json {
        let lines = lines.json().with_filter_reloading();
        let handle = lines.reload_handle();
        // A second call finds the first one's.
        RELOAD.set(Box::new(move |filter| drop(handle.reload(filter)))).ok();
        lines.finish().try_init()
    } else {
        // Colours are for terminals, and not when NO_COLOR asks for none (https://no-color.org).
        let colours =
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let lines = lines.with_ansi(colours).with_filter_reloading();
        let handle = lines.reload_handle();
        // As above.
        RELOAD.set(Box::new(move |filter| drop(handle.reload(filter)))).ok();
        lines.finish().try_init()
    };
    if outcome.is_err() {
        tracing::debug!("log output was set up before");
    }
}

/// Shows debug lines from now on, or no longer; `RUST_LOG` wins. Without output nothing happens.
pub fn set_debug(debug: bool) {
    if let Some(reload) = RELOAD.get() {
        reload(filter(debug));
    }
}

fn filter(debug: bool) -> EnvFilter {
    let level = if debug { "debug" } else { "info" };
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("warn,millrace={level}")))
}
