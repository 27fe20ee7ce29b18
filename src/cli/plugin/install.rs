//! `millrace plugin install`: a component into the place where the service reads it, and what to write into its configuration.
//!
//! It is loaded, configured and tried first: what would not start is not installed. The file is named after its content, so
//! nothing that runs is overwritten: the old configuration finds the old file until a reload says otherwise, and the way
//! back is the old configuration. The snippet pins the SHA-256: a file that was changed is refused.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::product::READ_BYTES;
use super::sample;
use super::trial::{self, ClassWord, ComponentArgs, Trial};
use crate::block::Signal;
use crate::config::PluginClass;
use crate::pipeline::trial::start;
use crate::plugin::load::{self, Source};
use crate::plugin::{Cache, World};
use crate::sys::digest;

/// Digits of the hash in a file's name.
const HASH_DIGITS: usize = 12;

/// What to install.
#[derive(Debug, Args)]
pub(in crate::cli) struct InstallArgs {
    #[command(flatten)]
    component: ComponentArgs,
    /// The directory.
    #[arg(long, value_name = "DIR", default_value = "/etc/millrace/plugins")]
    to: PathBuf,
}

/// Installs a component and prints its configuration.
pub(super) fn install(arguments: &InstallArgs) -> anyhow::Result<()> {
    let component = &arguments.component;
    let bytes = fs::read(&component.file).with_context(|| component.file.display().to_string())?;
    let source = Source::new(bytes.clone())?;
    let mut trial = Trial::load(component, &source)?;
    try_out(&mut trial).context("not installed: it starts, and fails on what it is tried with")?;
    let sum = digest::hex(&source.sha256);
    let name = trial::name(&component.file);
    fs::create_dir_all(&arguments.to).with_context(|| arguments.to.display().to_string())?;
    let directory = arguments.to.canonicalize().with_context(|| arguments.to.display().to_string())?;
    let path = directory.join(format!("{name}-{}.wasm", &sum[..HASH_DIGITS]));
    keep(&path, &bytes).with_context(|| path.display().to_string())?;
    compile(&trial, &source, &path)?;
    eprintln!("installed {}; in the configuration:", path.display());
    write!(std::io::stdout(), "{}", snippet(component, &trial, &path, &sum))?;
    Ok(())
}

/// Does what a start does before a plugin goes live; one that reads or writes a format is given a typical sample.
fn try_out(trial: &mut Trial) -> anyhow::Result<()> {
    match trial.world() {
        World::Transform | World::Enrich | World::Sample if trial.plugin.class == PluginClass::Light => {
            start(&trial.engine, &trial.plugin)?;
        }
        // A start compiles it, and an interpreter takes long: it is given a typical batch instead.
        World::Transform | World::Enrich | World::Sample => {
            trial.hand.block(Signal::Traces, &sample::batch())?;
        }
        World::Decode => {
            for (name, bytes) in sample::connections() {
                trial.hand.connection(&bytes, READ_BYTES).with_context(|| name.to_owned())?;
            }
        }
        World::Encode => {
            trial.hand.batch(Signal::Traces, &sample::batch())?;
        }
    }
    Ok(())
}

/// Compiles it for the starts to come: what is compiled is trusted, so only where nobody but root can write.
fn compile(trial: &Trial, source: &Source, path: &Path) -> anyhow::Result<()> {
    let owner = path.metadata()?.uid();
    if owner == 0 {
        let compiled = load::install(&trial.engine, trial.plugin.class, source, &Cache::beside(path))?;
        eprintln!("compiled {}", compiled.display());
    } else {
        eprintln!("not compiled: each start does that, since the directory is not root's (it is user {owner}'s)");
    }
    Ok(())
}

/// Whole under its name or not there at all.
fn keep(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o644).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

/// The lines of a configuration with which the plugin runs.
fn snippet(component: &ComponentArgs, trial: &Trial, path: &Path, sum: &str) -> String {
    let name = &trial.plugin.name;
    // A path or text in JSON is one in YAML too; a dollar sign stands for itself when it is doubled.
    let yaml = |text: &str| text.replace('$', "$$");
    let quoted = |text: &str| yaml(&serde_json::Value::from(text).to_string());
    let section = match trial.world() {
        World::Transform | World::Enrich | World::Sample => "processors",
        World::Decode => "receivers",
        World::Encode => "exporters",
    };
    let mut text = format!("{section}:\n  {name}:\n    path: {}\n", quoted(&path.display().to_string()));
    text += &format!("    sha256: {sum}\n");
    text += match trial.world() {
        World::Transform | World::Enrich | World::Sample => "",
        World::Decode => "    endpoint: 127.0.0.1:7000 # where its peers connect\n",
        World::Encode => "    endpoint: http://127.0.0.1:8080/ # where its messages are posted\n",
    };
    if trial::class(&component.file, &component.told) == ClassWord::Heavy {
        text += "    class: heavy\n";
    }
    if let Some(line) = &trial.capabilities_line {
        text += &format!("    {line}\n");
    }
    if !trial.plugin.lookups.is_empty() {
        text += "    lookups:\n";
        for (table, path) in &trial.plugin.lookups {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            text += &format!("      {table}: {}\n", quoted(&path.display().to_string()));
        }
    }
    if trial.plugin.component.config != "null" {
        text += &format!("    config: {}\n", yaml(&trial.plugin.component.config));
    }
    match trial.world() {
        World::Transform | World::Enrich | World::Sample => {
            text + &format!("service:\n  pipelines:\n    traces:\n      processors: [{name}]\n")
        }
        World::Decode | World::Encode => {
            text += &format!("# where service.pipelines.traces lists its {section}, {name} belongs there too\n");
            match trial.world() {
                World::Decode => {
                    text + "# a reload refuses it: a receiver that is a plugin comes, changes and goes with a restart\n"
                }
                _ => text,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{component, kept};
    use super::*;
    use crate::config;
    use crate::plugin::tests::guest::Guest;

    #[test]
    fn the_snippet_is_a_configuration_of_what_was_tried() {
        let mut arguments = component(kept("transform"));
        arguments.told.config = Some(r#"{"salt": "a$b${C}", "n": [1, true, null, "3"]}"#.to_owned());
        let source = Source::read(&arguments.file).unwrap();
        let trial = Trial::load(&arguments, &source).unwrap();
        let text = snippet(&arguments, &trial, Path::new("/opt/a b.wasm"), &"0f".repeat(32));
        let host = config::Host { resolve: &|_| Vec::new(), is_local: &|_| false };
        let file = Some(config::File { name: "m.yaml", text: &text });
        let inputs = config::Inputs { file, environment: &|_| None, flags: &[], proxytrace: false, host };
        let plugins = config::load(&inputs).unwrap_or_else(|error| panic!("{error}\n{text}")).config.plugins;
        assert_eq!(plugins[0].component.path, Path::new("/opt/a b.wasm"));
        assert_eq!(plugins[0].component.sha256, Some([0x0f; 32]));
        assert_eq!(plugins[0].component.config, trial.plugin.component.config);
        assert_eq!(plugins[0].limits, trial.plugin.limits);
        assert_eq!(plugins[0].class, trial.plugin.class);
    }

    #[test]
    fn plugins_that_read_or_write_a_format_are_put_where_such_are_configured() {
        for (world, receivers, exporters) in [("decode", 1, 0), ("encode", 3, 1), ("enrich", 3, 0), ("sample", 3, 0)] {
            let arguments = component(kept(world));
            let source = Source::read(&arguments.file).unwrap();
            let trial = Trial::load(&arguments, &source).unwrap();
            let text = snippet(&arguments, &trial, &arguments.file, &"0f".repeat(32));
            let host = config::Host { resolve: &|_| Vec::new(), is_local: &|_| false };
            let file = Some(config::File { name: "m.yaml", text: &text });
            let inputs = config::Inputs { file, environment: &|_| None, flags: &[], proxytrace: false, host };
            let config = config::load(&inputs).unwrap_or_else(|error| panic!("{error}\n{text}")).config;
            let counts = (config.receivers.len(), config.exporters.len(), config.plugins.len());
            let processors = usize::from(["enrich", "sample"].contains(&world));
            assert_eq!(counts, (receivers, exporters, processors), "{text}");
            assert_eq!(text.contains("with a restart"), world == "decode", "{text}");
        }
    }

    #[test]
    fn what_is_granted_by_name_only_is_in_the_snippet_and_what_is_refused_without_names_the_line() {
        // As the makers of components for JavaScript and Python do: imported, whether it is used or not.
        let import = r#"(import "millrace:plugin/lookup@1.0.0" "[static]table.open" (func $open (param i32 i32 i32)))"#;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("wide.wasm");
        fs::write(&file, Guest::of_world("enrich", import).component()).unwrap();
        let arguments = component(file.clone());
        let source = Source::read(&file).unwrap();
        let trial = Trial::load(&arguments, &source).unwrap();
        let text = snippet(&arguments, &trial, &file, &digest::hex(&source.sha256));
        let line = "capabilities: [log, metrics, clock, lookup]";
        assert!(text.contains(&format!("    {line}\n")), "{text}");
        let starts = |text: &str| {
            let host = config::Host { resolve: &|_| Vec::new(), is_local: &|_| false };
            let file = Some(config::File { name: "m.yaml", text });
            let inputs = config::Inputs { file, environment: &|_| None, flags: &[], proxytrace: false, host };
            let plugin = config::load(&inputs).unwrap().config.plugins.remove(0);
            load::load(&trial.engine, &plugin, &plugin.component).map(|_| ()).map_err(|error| error.to_string())
        };
        starts(&text).unwrap();
        let refused = starts(&text.replace(line, "")).unwrap_err();
        assert!(refused.contains(&format!("write `{line}`")), "{refused}");
        // With a table named it is granted without a word.
        let mut arguments = component(file.clone());
        let table = directory.path().join("sites.csv");
        fs::write(&table, "key,site\na,b\n").unwrap();
        arguments.told.lookups = vec![format!("sites={}", table.display())];
        let text = snippet(&arguments, &Trial::load(&arguments, &source).unwrap(), &file, &digest::hex(&source.sha256));
        assert!(!text.contains("capabilities"), "{text}");
        starts(&text).unwrap();
    }

    #[test]
    fn what_is_installed_is_named_after_its_content_and_what_cannot_start_is_not_installed() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("plugins");
        install(&InstallArgs { component: component(kept("transform")), to: to.clone() }).unwrap();
        let names = || {
            let entries = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            entries.filter(|name| name != "compiled").collect::<Vec<_>>()
        };
        let [name] = &names()[..] else { panic!("{:?}", names()) };
        assert!(name.starts_with("transform-") && name.len() == "transform-".len() + HASH_DIGITS + 5, "{name}");
        assert_eq!(fs::read(to.join(name)).unwrap(), fs::read(kept("transform")).unwrap());
        assert!(install(&InstallArgs { component: component(kept("make")), to: to.clone() }).is_err());
        let loops = directory.path().join("loops.wasm");
        let code = include_str!("../../../tests/guests/hostile/loops.wat").replace("$misbehave", "$behave");
        fs::write(&loops, Guest::of_world("transform", &code).component()).unwrap();
        let error = install(&InstallArgs { component: component(loops), to: to.clone() }).unwrap_err();
        assert!(format!("{error:#}").contains("of processor time"), "{error:#}");
        assert_eq!(names().len(), 1);
        let is_root = to.metadata().unwrap().uid() == 0;
        assert_eq!(to.join("compiled").is_dir(), is_root, "only root's word counts");
    }
}
