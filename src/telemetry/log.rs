//! Log lines: text for people, JSON for machines, on stderr. Set up once, by `main`'s commands.
//!
//! `RUST_LOG` narrows or widens single modules; without it the level is `info`, or `debug` when the configuration says
//! so. Lines of the libraries are kept at `warn`: their debug lines show headers, and those hold tokens.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogOutput;

/// Starts log output. A second call has no effect.
pub fn init(output: LogOutput) {
    let level = if output.debug { "debug" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("warn,millrace={level}")));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = if output.json {
        lines.json().finish().try_init()
    } else {
        // Colours are for terminals, and not when NO_COLOR asks for none (https://no-color.org).
        let colours =
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        lines.with_ansi(colours).finish().try_init()
    };
    if outcome.is_err() {
        tracing::debug!("log output was set up before");
    }
}
