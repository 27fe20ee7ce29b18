//! What a reload changes, in words: by component and key, for whoever asked, for the log, and to refuse what needs a restart.
//!
//! Most keys are compared as `config explain` shows them. What it does not show - lists, what may be secret, what one of
//! the two configurations does not have - is compared as it is understood. Values of secrets are never said. That a file
//! holds something else than before is seen by who reads it: see [`super::super::appliance`].

use crate::config::{
    Backend, Capability, Config, Explained, Exporter, Loaded, Plugin, PluginComponent, Protocol, Receiver,
};
use crate::sys::digest::hex;

/// A key of a plugin whose value no setting shows, and the value.
type List = (&'static str, fn(&Plugin) -> String);

const LISTS: [List; 5] = [
    ("filter.sources", |plugin| list(&plugin.filter.sources)),
    ("filter.services", |plugin| list(&plugin.filter.services)),
    ("filter.sourcetypes", |plugin| list(&plugin.filter.sourcetypes)),
    // Capabilities are called in a configuration as in the code, in lower case.
    ("capabilities", |plugin| list(&plugin.capabilities.iter().map(capability_word).collect::<Vec<_>>())),
    ("lookups", |plugin| {
        list(&plugin.lookups.iter().map(|(name, path)| format!("{name}: {}", path.display())).collect::<Vec<_>>())
    }),
];

/// What has changed, a line each: components that came, went or changed, and every key that says something else.
pub(super) fn differences(current: &Loaded, next: &Loaded) -> Vec<String> {
    let (old, new) = (&current.config, &next.config);
    let mut lines = Vec::new();
    let exporters = |config: &Config| config.exporters.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    let receivers = |config: &Config| config.receivers.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    let processors = |config: &Config| config.plugins.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    for (section, before, after) in [
        ("receivers", receivers(old), receivers(new)),
        ("processors", processors(old), processors(new)),
        ("exporters", exporters(old), exporters(new)),
    ] {
        lines.extend(after.iter().filter(|name| !before.contains(name)).map(|name| format!("{section}.{name}: added")));
        let gone = before.iter().filter(|name| !after.contains(name));
        lines.extend(gone.map(|name| format!("{section}.{name}: removed")));
    }
    lines.extend(order(&processors(old), &processors(new)));
    lines.extend(changed(current, next).map(|(setting, old)| format!("{}: {old} -> {}", setting.key, setting.value)));
    for plugin in &new.plugins {
        let known = old.plugins.iter().find(|known| known.name == plugin.name);
        more(&mut lines, known.map_or_else(Vec::new, |known| of_plugin("processors", known, plugin)));
    }
    for exporter in &new.exporters {
        let Some(known) = old.exporters.iter().find(|known| known.name == exporter.name) else { continue };
        if let (Some(known), Some(plugin)) = (plugin_of(known), plugin_of(exporter)) {
            more(&mut lines, of_plugin("exporters", known, plugin));
        }
        let key = format!("exporters.{}", exporter.name);
        if known != exporter && !lines.iter().any(|line| is_under(key_of(line), &key)) {
            lines.push(format!("{key}: a secret has changed"));
        }
    }
    lines
}

/// The settings of both whose values differ, with the old value; those of secrets never do.
pub(super) fn changed<'s>(
    current: &'s Loaded,
    next: &'s Loaded,
) -> impl Iterator<Item = (&'s Explained, &'s str)> + Clone {
    next.settings.iter().filter_map(|setting| {
        let old = current.settings.iter().find(|old| old.key == setting.key)?;
        (old.value != setting.value).then_some((setting, old.value.as_str()))
    })
}

/// Whether a key is this one or below it.
pub(super) fn is_under(key: &str, path: &str) -> bool {
    key == path || key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
}

/// Why a setting cannot follow the one before without a restart.
pub(super) fn refused((setting, old): (&Explained, &str)) -> String {
    let Explained { key, value, source } = setting;
    format!("{source}: {key} is {value} instead of {old}, and that needs a restart")
}

/// What of the receivers that are plugins cannot follow without a restart: they have threads of their own.
pub(super) fn decoders_that_need_restart(current: &Loaded, next: &Loaded) -> Vec<String> {
    let (old, new) = (decoders(&current.config), decoders(&next.config));
    let is_in = |name: &str, of: &[(&Receiver, &Plugin)]| of.iter().any(|(known, _)| known.name == name);
    let came_or_went = |what: &str, (receiver, _): &(&Receiver, &Plugin)| {
        format!("configuration: receivers.{} was {what}, and that needs a restart", receiver.name)
    };
    let mut lines = Vec::new();
    lines.extend(new.iter().filter(|(one, _)| !is_in(&one.name, &old)).map(|one| came_or_went("added", one)));
    lines.extend(old.iter().filter(|(one, _)| !is_in(&one.name, &new)).map(|one| came_or_went("removed", one)));
    for (receiver, plugin) in &new {
        let known = old.iter().find(|(known, _)| known.name == receiver.name);
        let Some((known, known_plugin)) = known.filter(|(known, _)| known != receiver) else { continue };
        let key = format!("receivers.{}", known.name);
        let settings: Vec<_> = changed(current, next).filter(|(setting, _)| is_under(&setting.key, &key)).collect();
        let said = |line: &String| settings.iter().any(|(setting, _)| setting.key == key_of(line));
        let others = of_plugin("receivers", known_plugin, plugin).into_iter().filter(|line| !said(line));
        lines.extend(others.map(|line| format!("configuration: {line}, and that needs a restart")));
        lines.extend(settings.into_iter().map(refused));
    }
    lines
}

/// The receivers that are plugins.
fn decoders(config: &Config) -> Vec<(&Receiver, &Plugin)> {
    fn decoder(receiver: &Receiver) -> Option<(&Receiver, &Plugin)> {
        match &receiver.protocol {
            Protocol::Plugin(decoder) => Some((receiver, &decoder.plugin)),
            _ => None,
        }
    }
    config.receivers.iter().filter_map(decoder).collect()
}

fn plugin_of(exporter: &Exporter) -> Option<&Plugin> {
    match &exporter.backend {
        Backend::Plugin(export) => Some(&export.plugin),
        _ => None,
    }
}

/// The order in which those stand that are in both.
fn order(before: &[String], after: &[String]) -> Option<String> {
    let stayed = before.iter().filter(|name| after.contains(name));
    let is_same = stayed.eq(after.iter().filter(|name| before.contains(name)));
    (!is_same).then(|| format!("processors: their order is now {}", after.join(", ")))
}

/// What differs between two configurations of one plugin that no setting shows; some of it a setting may show all the same.
fn of_plugin(section: &str, old: &Plugin, new: &Plugin) -> Vec<String> {
    let key = format!("{section}.{}", new.name);
    let mut lines = of_component(&key, &old.component, &new.component);
    for (name, of) in LISTS {
        let (old, new) = (of(old), of(new));
        if old != new {
            lines.push(format!("{key}.{name}: {old} -> {new}"));
        }
    }
    match (&old.shadow, &new.shadow) {
        (None, Some(shadow)) => lines.push(format!("{key}.shadow: added, {}", shadow.path.display())),
        (Some(_), None) => lines.push(format!("{key}.shadow: removed")),
        (Some(old), Some(new)) => lines.extend(of_component(&format!("{key}.shadow"), old, new)),
        (None, None) => {}
    }
    lines
}

fn of_component(key: &str, old: &PluginComponent, new: &PluginComponent) -> Vec<String> {
    let mut lines = Vec::new();
    let path = |component: &PluginComponent| component.path.display().to_string();
    let pin =
        |component: &PluginComponent| component.sha256.map_or_else(|| "(unset)".to_owned(), |sha256| hex(&sha256));
    for (name, old, new) in [("path", path(old), path(new)), ("sha256", pin(old), pin(new))] {
        if old != new {
            lines.push(format!("{key}.{name}: {old} -> {new}"));
        }
    }
    if old.config != new.config {
        // It may hold secrets.
        lines.push(format!("{key}.config: has changed"));
    }
    lines
}

/// Adds the lines of keys that have none yet.
fn more(lines: &mut Vec<String>, others: Vec<String>) {
    for line in others {
        if !lines.iter().any(|known| key_of(known) == key_of(&line)) {
            lines.push(line);
        }
    }
}

fn key_of(line: &str) -> &str {
    line.split_once(": ").map_or(line, |(key, _)| key)
}

fn list(words: &[String]) -> String {
    format!("[{}]", words.join(", "))
}

fn capability_word(capability: &Capability) -> String {
    format!("{capability:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::super::tests::loaded;
    use super::*;

    const BEFORE: &str = "
processors:
  plugin/a: {path: /a.wasm, limits: {memory: 8MiB}}
  plugin/b: {path: /b.wasm, config: {salt: hunter2}, filter: {services: [shop]}}
receivers:
  plugin/lines: {path: /lines.wasm, endpoint: '127.0.0.1:7000', config: {key: hunter2}}
exporters:
  plugin/out: {path: /out.wasm, endpoint: 'http://out/', config: {key: hunter2}}
service: {pipelines: {traces: {processors: [plugin/a, plugin/b]}}}
";

    fn lines(changes: &[(&str, &str)]) -> Vec<String> {
        let changed = changes.iter().fold(BEFORE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        differences(&loaded(BEFORE), &loaded(&changed))
    }

    #[test]
    fn plugins_that_come_go_or_change_places_are_listed() {
        assert_eq!(lines(&[]), Vec::<String>::new());
        assert_eq!(lines(&[("plugin/a", "plugin/c")]), ["processors.plugin/c: added", "processors.plugin/a: removed"],);
        let order = "processors: their order is now plugin/b, plugin/a";
        assert_eq!(lines(&[("[plugin/a, plugin/b]", "[plugin/b, plugin/a]")]), [order]);
    }

    #[test]
    fn every_key_of_a_plugin_that_says_something_else_is_listed_once_and_no_secret() {
        let pin = "0f".repeat(32);
        for (from, to, expected) in [
            ("/a.wasm", "/c.wasm", "plugin/a.path: /a.wasm -> /c.wasm"),
            ("8MiB", "9MiB", "plugin/a.limits.memory: 8MiB -> 9MiB"),
            (
                "limits: {memory: 8MiB}",
                "class: light, on_error: pass, limits: {memory: 8MiB}",
                "plugin/a.on_error: quarantine -> pass",
            ),
            ("config: {salt: hunter2}", "config: {salt: hunter3}", "plugin/b.config: has changed"),
            ("[shop]", "[shop, pay]", "plugin/b.filter.services: [shop] -> [shop, pay]"),
            (
                "filter: {services: [shop]}",
                "filter: {services: [shop]}, capabilities: [log]",
                "plugin/b.capabilities: [log, metrics, clock] -> [log]",
            ),
            ("/a.wasm", "/a.wasm, shadow: {path: /s.wasm}", "plugin/a.shadow: added, /s.wasm"),
            ("/a.wasm", &format!("/a.wasm, sha256: {pin}"), &format!("plugin/a.sha256: (unset) -> {pin}")),
        ] {
            assert_eq!(lines(&[(from, to)]), [format!("processors.{expected}")]);
        }
        let out = (
            "/out.wasm, endpoint: 'http://out/', config: {key: hunter2}",
            "/out.wasm, endpoint: 'http://out/', config: {}",
        );
        assert_eq!(lines(&[out]), ["exporters.plugin/out.config: has changed"]);
        let tables = lines(&[("/a.wasm", "/a.wasm, lookups: {sites: /s.csv}")]);
        assert!(tables.iter().any(|line| line == "processors.plugin/a.lookups: [] -> [sites: /s.csv]"), "{tables:?}");
    }

    #[test]
    fn a_receiver_that_is_a_plugin_and_needs_a_restart_is_named() {
        let refused = |from: &str, to: &str| {
            assert!(BEFORE.contains(from), "{from}");
            decoders_that_need_restart(&loaded(BEFORE), &loaded(&BEFORE.replace(from, to)))
        };
        assert_eq!(refused("/a.wasm", "/c.wasm"), Vec::<String>::new());
        let added = refused("receivers:", "receivers:\n  plugin/more: {path: /m.wasm, endpoint: '127.0.0.1:7001'}");
        assert_eq!(added, ["configuration: receivers.plugin/more was added, and that needs a restart"]);
        let removed = decoders_that_need_restart(&loaded(BEFORE), &loaded("lanes: 1"));
        assert_eq!(removed, ["configuration: receivers.plugin/lines was removed, and that needs a restart"]);
        let limits = refused("/lines.wasm,", "/lines.wasm, limits: {memory: 8MiB}, max_record_bytes: 64KiB,");
        assert_eq!(limits.len(), 2, "{limits:?}");
        let key = "receivers.plugin/lines.limits.memory is 8MiB instead of 64MiB, and that needs a restart";
        assert!(limits.iter().any(|line| line.starts_with("m.yaml:6:") && line.ends_with(key)), "{limits:?}");
        let told = refused("'127.0.0.1:7000', config: {key: hunter2}", "'127.0.0.1:7000', config: {key: hunter3}");
        assert_eq!(told, ["configuration: receivers.plugin/lines.config: has changed, and that needs a restart"]);
    }
}
