//! A reload: the configuration read again, compared with the one in force, and put into force whole or not at all.
//!
//! parse and validate -> refuse what needs a restart -> do what can fail (sockets, TLS files, tokens, threads) -> adopt.
//! Whatever fails before the last step leaves the old configuration in force; the reason goes to whoever asked, to the log,
//! and to health. Differences are told by key, and secrets are never in them. Owned by the thread that runs the appliance.

mod differences;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use differences::{changed, decoders_that_need_restart, differences, is_under};

use super::appliance::Appliance;
use super::logs;
use crate::config::budget::{Pools, pools};
use crate::config::{Config, Loaded, Queue};
use crate::queue::Keys;
use crate::serve::ReloadAnswer;
use crate::sys::clock;
use crate::telemetry::health::{Component, State};
use crate::telemetry::ledger::Counter;
use crate::telemetry::log;
use crate::telemetry::metrics::{Extra, ExtraKind, ExtraRead, Metrics};

/// Reads the configuration from where the first one came; the error is complete, a problem a line.
pub type Load<'a> = dyn Fn() -> Result<Loaded, String> + 'a;

/// What of a configuration belongs to a key, to be compared.
type Of = fn(&Config) -> String;

/// What only a start can change, by key.
const COLD: [(&str, Of); 6] = [
    ("lanes", |config| format!("{:?}", config.lanes)),
    ("state_directory", |config| format!("{:?}", config.state_directory)),
    ("memory_limit", |config| format!("{:?}", config.memory_limit_bytes)),
    ("queue", |config| format!("{:?}", Queue { retain: Duration::ZERO, ..config.queue.clone() })),
    ("service.telemetry.metrics", |config| config.management.to_string()),
    ("service.telemetry.logs.encoding", |config| config.log.json.to_string()),
];

/// What metrics show of reloads.
#[derive(Debug, Default)]
struct Shown {
    generation: Counter,
    last_was_good: Counter,
    good_at: Counter,
    bad_at: Counter,
}

/// The configuration in force, and the way to the next one.
pub struct Reloader<'a> {
    load: &'a Load<'a>,
    current: Loaded,
    /// How large the pools were made at start: they stay so, whatever configurations come and go.
    pools: Pools,
    shown: Arc<Shown>,
    component: Component,
}

impl<'a> Reloader<'a> {
    /// Begins with the configuration that `appliance` was started with: generation 1.
    #[must_use]
    pub fn new(current: Loaded, load: &'a Load<'a>, appliance: &Appliance) -> Reloader<'a> {
        let shown = Arc::new(Shown::default());
        shown.generation.set(1);
        shown.last_was_good.set(1);
        shown.good_at.set(wall_seconds());
        show(&appliance.metrics, &shown);
        let component = appliance.health.component("configuration");
        component.set(State::Ready);
        let pools = pools(&current.config, appliance.lanes());
        Reloader { load, current, pools, shown, component }
    }

    /// Reads the configuration again and puts it into force, or with `dry_run` only says what would change.
    pub fn reload(&mut self, appliance: &mut Appliance, dry_run: bool) -> ReloadAnswer {
        let outcome = self.attempt(appliance, dry_run);
        if !dry_run {
            self.shown.last_was_good.set(u64::from(outcome.is_ok()));
            let at = if outcome.is_ok() { &self.shown.good_at } else { &self.shown.bad_at };
            at.set(wall_seconds());
        }
        let generation = self.shown.generation.get();
        match outcome {
            Ok((changes, warnings)) => {
                if !dry_run {
                    self.component.set(State::Ready);
                    tracing::info!(generation, changes = changes.join("; "), "the configuration was reloaded");
                    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                }
                ReloadAnswer::Good { generation, changes, warnings }
            }
            Err(problems) => {
                if !dry_run {
                    let reason = problems.join("; ");
                    tracing::error!(generation, "the reload failed, the configuration stays: {reason}");
                    self.component.set(State::Degraded(format!("the last reload failed: {reason}")));
                }
                ReloadAnswer::Refused { generation, problems }
            }
        }
    }

    /// What changed and the warnings, or what is wrong.
    fn attempt(&mut self, appliance: &mut Appliance, dry_run: bool) -> Result<(Vec<String>, Vec<String>), Vec<String>> {
        let next = (self.load)().map_err(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())?;
        let mut refused = needs_restart(&self.current, &next);
        refused.extend(outgrown(&self.pools, &pools(&next.config, appliance.lanes())));
        refused.extend(other_keys(&self.current.config.queue, &next.config.queue, appliance.keys()));
        if !refused.is_empty() {
            return Err(refused);
        }
        let renewed = appliance.reload(&next.config, dry_run).map_err(|error| vec![with_causes(&error)])?;
        let warnings = [next.warnings.clone(), next.unresolved.clone(), appliance.stale_decoders()].concat();
        let changes = [differences(&self.current, &next), renewed].concat();
        if !dry_run {
            log::set_debug(next.config.log.debug);
            self.shown.generation.add(1);
            self.current = next;
        }
        Ok((changes, warnings))
    }
}

/// Why `next` cannot follow `current` without a restart: a line a key, with its place.
fn needs_restart(current: &Loaded, next: &Loaded) -> Vec<String> {
    let mut refused = decoders_that_need_restart(current, next);
    for (key, of) in COLD {
        if of(&current.config) == of(&next.config) {
            continue;
        }
        let before = refused.len();
        for (setting, old) in changed(current, next).filter(|(setting, _)| is_under(&setting.key, key)) {
            if setting.key != "queue.retain" {
                refused.push(differences::refused((setting, old)));
            }
        }
        if refused.len() == before {
            refused.push(format!("configuration: {key} has changed, and that needs a restart"));
        }
    }
    refused
}

/// What has to be larger than it was made at start.
fn outgrown(made: &Pools, needed: &Pools) -> Vec<String> {
    let outgrown = |what: &str, made: usize, needed: usize| {
        let text = format!(
            "configuration: receivers: {what} may take {needed} bytes of a lane, {made} were set aside for them at start, \
             and that needs a restart"
        );
        (needed > made).then_some(text)
    };
    let bodies = outgrown("request bodies", made.gateway_body_bytes, needed.gateway_body_bytes);
    let lines = outgrown("unfinished lines", made.unfinished_line_bytes, needed.unfinished_line_bytes);
    bodies.into_iter().chain(lines).collect()
}

/// What is wrong with the keys of the log, or that they are not those in force: the next start has to be able to read them,
/// and until then new segments would go on under the old one.
fn other_keys(current: &Queue, next: &Queue, in_force: &Keys) -> Option<String> {
    match logs::at_rest(next) {
        Err(error) => Some(with_causes(&error)),
        // Another key file is a setting that has changed, and is said as one.
        Ok(_) if format!("{:?}", current.encryption) != format!("{:?}", next.encryption) => None,
        Ok(found) => found
            .keys
            .ids()
            .ne(in_force.ids())
            .then(|| "queue.encryption: its keys have changed: that needs a restart".to_owned()),
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

fn show(metrics: &Metrics, shown: &Arc<Shown>) {
    let gauge = |name, help, of: fn(&Shown) -> &Counter| {
        let shown = Arc::clone(shown);
        let read = ExtraRead::One(Box::new(move || of(&shown).get()));
        metrics.add_extra(Extra { name, help, kind: ExtraKind::Gauge, labels: Vec::new(), read });
    };
    gauge("millrace_config_generation", "Number of the configuration in force; 1 at start.", |shown| &shown.generation);
    gauge("millrace_config_last_reload_successful", "0 when the last reload failed.", |shown| &shown.last_was_good);
    let good = "When a configuration last came into force, Unix seconds.";
    gauge("millrace_config_last_reload_success_timestamp_seconds", good, |shown| &shown.good_at);
    let bad = "When a reload last failed, Unix seconds; 0 when none has.";
    gauge("millrace_config_last_reload_failure_timestamp_seconds", bad, |shown| &shown.bad_at);
}

fn wall_seconds() -> u64 {
    clock::wall_ns() / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, File, Host, Inputs};

    pub(super) fn loaded(text: &str) -> Loaded {
        let host = Host { resolve: &|_| Vec::new(), is_local: &|_| false };
        let file = Some(File { name: "m.yaml", text });
        config::load(&Inputs { file, environment: &|_| None, flags: &[], proxytrace: false, host }).unwrap()
    }

    const BEFORE: &str = "
lanes: 1
queue: {retain: 1h, max_bytes: 1GiB}
exporters:
  otlphttp/a: {endpoint: 'http://a', headers: {x-key: hunter2}}
  otlphttp/b: {endpoint: 'http://b'}
";

    #[test]
    fn what_only_a_start_can_change_is_refused_by_key_and_place() {
        let after = BEFORE.replace("1h", "2h");
        assert_eq!(needs_restart(&loaded(BEFORE), &loaded(&after)), Vec::<String>::new(), "retention is hot");
        let after = BEFORE.replace("1GiB", "2GiB").replace("lanes: 1", "lanes: 2").replace("1h", "2h");
        let refused = [
            "m.yaml:2:8: lanes is 2 instead of 1, and that needs a restart",
            "m.yaml:3:32: queue.max_bytes is 2GiB instead of 1GiB, and that needs a restart",
        ];
        assert_eq!(needs_restart(&loaded(BEFORE), &loaded(&after)), refused);
        let same = BEFORE.replace("1GiB", "1024MiB");
        assert_eq!(needs_restart(&loaded(BEFORE), &loaded(&same)), Vec::<String>::new(), "the same in other words");
    }

    #[test]
    fn keys_are_read_and_other_keys_than_those_in_force_need_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let (first, second) = ("0f".repeat(32), "a7".repeat(32));
        let text = format!("queue: {{encryption: {{key_file: '{}'}}}}", path.display());
        let (plain, encrypted) = (loaded("lanes: 1").config.queue, loaded(&text).config.queue);
        let in_force = Keys::parse(&first).unwrap();
        let with = |written: &str| {
            std::fs::write(&path, written).unwrap();
            other_keys(&encrypted, &encrypted, &in_force)
        };
        assert_eq!(with(&first), None);
        assert_eq!(with(&format!("# the only one\n\n{first}\n")), None, "the same in other words");
        let changed = Some("queue.encryption: its keys have changed: that needs a restart".to_owned());
        assert_eq!(with(&format!("{second}\n{first}\n")), changed);
        let malformed = with(&format!("{first}\ngarbage\n")).unwrap();
        assert!(malformed.contains("keys: line 2 is not a key") && !malformed.contains("garbage"), "{malformed}");
        std::fs::remove_file(&path).unwrap();
        let gone = other_keys(&encrypted, &encrypted, &in_force).unwrap();
        assert!(gone.contains("queue.encryption: cannot read keys from") && gone.contains("No such file"), "{gone}");
        assert_eq!(other_keys(&plain, &plain, &Keys::default()), None);
    }

    #[test]
    fn what_was_set_aside_at_start_bounds_every_later_configuration() {
        let of = |receivers: &str| pools(&loaded(&format!("{BEFORE}receivers: {{{receivers}}}")).config, 1);
        let made = of("otlp: {protocols: {http: {max_inflated_bytes: 32MiB}}}, uberagent: {protocols: {tcp: {}}}");
        let small = of("otlp: {protocols: {http: {max_inflated_bytes: 8MiB}}}");
        assert_eq!((outgrown(&made, &made), outgrown(&made, &small)), (Vec::new(), Vec::new()));
        let refused = outgrown(&made, &of("otlp: {protocols: {http: {max_inflated_bytes: 33MiB}}}"));
        assert!(refused.len() == 1 && refused[0].contains("request bodies"), "{refused:?}");
        let refused = outgrown(&made, &of("uberagent: {protocols: {tcp: {max_line_bytes: 48MiB}}}"));
        assert!(refused.len() == 1 && refused[0].contains("50331648 bytes of a lane"), "{refused:?}");
    }

    #[test]
    fn differences_name_components_and_keys_and_no_secret() {
        let after = BEFORE.replace("otlphttp/b", "otlphttp/c").replace("1h", "2h").replace("hunter2", "hunter3");
        let lines = differences(&loaded(BEFORE), &loaded(&after));
        let expected = [
            "exporters.otlphttp/c: added",
            "exporters.otlphttp/b: removed",
            "queue.retain: 1h -> 2h",
            "exporters.otlphttp/a: a secret has changed",
        ];
        assert_eq!(lines, expected);
        assert_eq!(differences(&loaded(BEFORE), &loaded(BEFORE)), Vec::<String>::new());
        assert!(loaded(BEFORE).unresolved[0].starts_with("exporters.otlphttp/a: a has no address"));
    }
}
