//! `millrace check`: validate everything that can be validated without starting, and print what would run.
//!
//! Nothing is bound or sent, and nothing opened but the files with keys and tokens and the plugins, which are loaded and tried
//! as by a start. Problems go to stderr with exit code 2; the plan with its memory budget goes to stdout.

use std::io::Write;
use std::thread;

use crate::config::budget::{Budget, budget};
use crate::config::{Backend, Config, Exporter, Protocol, Receiver, Requirement};
use crate::pipeline::{logs, plugins};
use crate::serve::Tokens;

use super::source::{Source, Unusable};

/// Checks the configuration and its memory budget.
pub(super) fn check(source: &Source) -> anyhow::Result<()> {
    let loaded = source.load()?;
    let config = &loaded.config;
    for warning in loaded.warnings.iter().chain(&loaded.unresolved) {
        eprintln!("warning: {warning}");
    }
    secrets(config)?;
    plugins::check(config).map_err(|error| Unusable(format!("{:#}", anyhow::Error::from(error))))?;
    let (lanes, budget) = fit(config)?;
    let mut out = std::io::stdout().lock();
    for receiver in &config.receivers {
        writeln!(out, "receive   {}", describe_receiver(receiver))?;
    }
    for plugin in &config.plugins {
        writeln!(out, "process   {}: {}", plugin.name, plugin.component.path.display())?;
    }
    writeln!(out, "log       {} lanes under {}", lanes, config.state_directory.display())?;
    if config.exporters.is_empty() {
        writeln!(out, "export    nowhere: the log keeps {:?}", config.queue.retain)?;
    }
    for exporter in &config.exporters {
        writeln!(out, "export    {}", describe_exporter(exporter))?;
    }
    writeln!(out, "manage    http://{}/", config.management)?;
    writeln!(out, "memory\n{budget}")?;
    Ok(())
}

/// Whether the keys of the log and the tokens of the management port can be had, all problems together.
fn secrets(config: &Config) -> Result<(), Unusable> {
    let keys = logs::at_rest(&config.queue).err().map(|error| error.to_string());
    let tokens = config.management_token_file.as_ref().map(|path| Tokens::read(path));
    let tokens = tokens.and_then(Result::err).map(|error| format!("management.token_file: {error}"));
    let problems: Vec<String> = keys.into_iter().chain(tokens).collect();
    if problems.is_empty() { Ok(()) } else { Err(Unusable(problems.join("\n"))) }
}

fn describe_receiver(receiver: &Receiver) -> String {
    let what = match &receiver.protocol {
        Protocol::UberagentTcp(_) => "uberAgent lines over TCP",
        Protocol::OtlpHttp(_) => "OTLP over HTTP",
        Protocol::Elasticsearch(_) => "Elasticsearch _bulk",
        Protocol::Plugin(_) => "what the plugin reads over TCP",
    };
    format!("{}: {what} on {}", receiver.name, receiver.listen)
}

fn describe_exporter(exporter: &Exporter) -> String {
    let what = match &exporter.backend {
        Backend::OtlpHttp(_) => "OTLP over HTTP",
        Backend::Influx(_) => "session map in line protocol",
        Backend::Plugin(_) => "what the plugin writes",
    };
    let url = exporter.backend.url();
    let requirement = match exporter.requirement {
        Requirement::Required => "required".to_owned(),
        Requirement::Optional { max_lag_bytes } => format!("optional, may lag {} MiB", max_lag_bytes >> 20),
    };
    format!("{}: {what} to {url} ({requirement})", exporter.name)
}

/// The number of lanes that would run, and what they take; fails when that is too much.
pub(super) fn fit(config: &Config) -> Result<(usize, Budget), Unusable> {
    let lanes = config.lanes.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let budget = budget(config, lanes).map_err(|over| Unusable(over.to_string()))?;
    Ok((lanes, budget))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_secrets_are_read_and_every_problem_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let text = format!(
            "management: {{token_file: '{}'}}\nqueue: {{encryption: {{key_file: '{}'}}}}\n",
            path("tokens").display(),
            path("keys").display()
        );
        std::fs::write(path("m.yaml"), text).unwrap();
        let said = || check(&Source::of_file(Some(path("m.yaml")))).err().map(|error| error.to_string());
        let missing = said().unwrap();
        assert!(missing.lines().count() == 2 && missing.contains("keys: No such file"), "{missing}");
        std::fs::write(path("tokens"), "0123456789abcdef").unwrap();
        std::fs::write(path("keys"), "no key").unwrap();
        let malformed = said().unwrap();
        assert!(
            malformed.contains("queue.encryption: cannot read keys") && !malformed.contains("no key"),
            "{malformed}"
        );
        std::fs::write(path("keys"), "0f".repeat(32)).unwrap();
        assert_eq!(said(), None);
    }

    #[cfg(feature = "plugins")]
    #[test]
    fn plugins_are_loaded_as_by_a_start() {
        let kept = |name: &str| format!("{}/tests/data/plugins/{name}", env!("CARGO_MANIFEST_DIR"));
        let directory = tempfile::tempdir().unwrap();
        let said = |component: &str| {
            let text = format!(
                "processors: {{plugin/x: {{path: '{}'}}}}\nservice: {{pipelines: {{traces: {{processors: [plugin/x]}}}}}}\n",
                kept(component)
            );
            let path = directory.path().join("m.yaml");
            std::fs::write(&path, text).unwrap();
            check(&Source::of_file(Some(path))).err().map(|error| error.to_string())
        };
        assert_eq!(said("transform.wasm"), None);
        for (component, why) in
            [("none.wasm", "No such file"), ("abi.c", "WebAssembly"), ("encode.wasm", "world encode")]
        {
            let problem = said(component).unwrap();
            assert!(problem.contains("processors.plugin/x") && problem.contains(why), "{problem}");
        }
    }
}
