//! `millrace dlq`: what was kept aside because it could not be decoded or was refused, and what becomes of it.
//!
//! `ls` and `show` read the files, beside a running process or without one. `replay` asks the running process, which alone
//! can send; `purge` asks it too, and without one works on the files under the state directory's lock. Letters whose key is
//! missing are not there to be shown or purged: that they are there is said, and ends the command with 1.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::ControlFlow;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::api::{Api, ApiArgs};
use super::human::{self, Table};
use super::source::Unusable;
use super::state::{State, StateArgs, lock, user};
use crate::pipeline::dead_letters::{self, Letter, Scan, Selection, StoreName};
use crate::queue::inspect::Lane;
use crate::sys::clock;

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub(super) enum DlqCommand {
    /// How many there are, by store, reason and origin, and the newest ones.
    Ls {
        #[command(flatten)]
        filter: Filter,
        /// Letters to list.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Exact figures for programs.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        state: StateArgs,
    },
    /// One letter with its bytes: OTLP as JSON, a record as it was sent.
    Show {
        /// Its id, such as front-12.
        id: String,
        /// How its bytes are shown.
        #[arg(long, default_value = "text")]
        format: Format,
        #[command(flatten)]
        state: StateArgs,
    },
    /// Send letters again: records into the front, spans to the backend that refused them.
    Replay(ChangeArgs),
    /// Throw letters away.
    Purge(ChangeArgs),
}

/// Letters by what is known of them.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Filter {
    /// Of this store: front (records not understood) or delivery (spans refused by a backend).
    #[arg(long, value_parser = ["front", "delivery"])]
    store: Option<String>,
    /// For this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Refused by this destination, or received by this source.
    #[arg(long, visible_alias = "origin", value_name = "NAME")]
    destination: Option<String>,
}

/// Which letters to replay or purge, and where.
#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    /// Their ids, such as front-12.
    ids: Vec<String>,
    /// All there are.
    #[arg(long)]
    all: bool,
    /// What came of it, for programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// OTLP as JSON, a record as text.
    Text,
    /// Everything that is known of it, in JSON.
    Json,
    /// Its bytes in hexadecimal.
    Hex,
    /// Its bytes as they are, to be sent to a receiver.
    Raw,
}

/// Runs one.
pub(super) fn dlq(command: &DlqCommand) -> anyhow::Result<()> {
    match command {
        DlqCommand::Ls { filter, limit, json, state } => {
            let selection = filter.selection(&[])?;
            let state = state.open()?;
            let found = with_stores(&state, |scans| dead_letters::list(scans, &selection, *limit))?;
            let locked = locked(&state, selection.store)?;
            show_list(&found, locked.is_some(), *json)?;
            locked.map_or(Ok(()), |locked| Err(anyhow::anyhow!(locked)))
        }
        DlqCommand::Show { id, format, state } => show(id, *format, &state.open()?),
        DlqCommand::Replay(arguments) => replay(arguments),
        DlqCommand::Purge(arguments) => purge(arguments),
    }
}

impl Filter {
    fn selection(&self, ids: &[String]) -> Result<Selection, Unusable> {
        let ids = ids.iter().map(|id| Selection::parse_id(id)).collect::<Result<_, _>>().map_err(Unusable)?;
        let store = self.store.as_deref().and_then(StoreName::from_word);
        Ok(Selection {
            ids,
            store,
            reason: self.reason.clone(),
            origin: self.destination.clone(),
            after: BTreeSet::new(),
        })
    }
}

/// Calls `use_them` with both stores to be read.
fn with_stores<T>(state: &State, use_them: impl FnOnce(&[Scan<'_>]) -> T) -> anyhow::Result<T> {
    let open = |store| Lane::open(state.store(store), clock::wall_ns());
    let (front, delivery) = (open(StoreName::Front)?, open(StoreName::Delivery)?);
    let (front, delivery) = (|| front.reader(front.oldest()), || delivery.reader(delivery.oldest()));
    let pulse = || ControlFlow::Continue(());
    Ok(use_them(&[
        Scan { store: StoreName::Front, open: &front, pulse: &pulse },
        Scan { store: StoreName::Delivery, open: &delivery, pulse: &pulse },
    ]))
}

/// What cannot be read for want of a key, in words.
fn locked(state: &State, store: Option<StoreName>) -> anyhow::Result<Option<String>> {
    let mut said = Vec::new();
    for name in StoreName::ALL.into_iter().filter(|name| store.is_none_or(|store| store == *name)) {
        let found = Lane::open(state.store(name), clock::wall_ns())?.recovered;
        // A letter counts as a span of its store.
        let letters = human::counted(found.unreadable_spans, "letter");
        said.extend(found.missing_key.map(|key| format!("{}: {letters} need key {key}", name.word())));
    }
    Ok((!said.is_empty()).then(|| format!("{}: name its file with --key-file", said.join(", "))))
}

fn show_list(found: &Value, is_locked: bool, json: bool) -> anyhow::Result<()> {
    let out = &mut std::io::stdout().lock();
    if json {
        writeln!(out, "{found:#}")?;
        return Ok(());
    }
    let now_ns = clock::wall_ns();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let time = |value: &Value| human::time_and_age(human::moment(&text(value)), now_ns);
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let groups = list(&found["groups"]);
    if groups.is_empty() {
        writeln!(out, "{}", if is_locked { "No dead letters that can be read." } else { "No dead letters." })?;
        return Ok(());
    }
    let mut table = Table::new(&["STORE", "REASON", "SOURCE OR DESTINATION", ">LETTERS", ">SIZE", "OLDEST", "NEWEST"]);
    for group in &groups {
        table.row([
            text(&group["store"]),
            text(&group["reason"]),
            text(&group["origin"]),
            human::count(number(&group["letters"])),
            human::size(number(&group["bytes"])),
            time(&group["oldest"]),
            time(&group["newest"]),
        ]);
    }
    table.write(out)?;
    let mut table = Table::new(&["ID", "TIME", "REASON", "SOURCE OR DESTINATION", ">SIZE", "REPLY"]);
    for letter in &list(&found["letters"]) {
        table.row([
            text(&letter["id"]),
            time(&letter["time"]),
            text(&letter["reason"]),
            text(&letter["origin"]),
            human::size(number(&letter["bytes"])),
            text(&letter["reply"]).chars().take(80).collect(),
        ]);
    }
    writeln!(out)?;
    table.write(out)?;
    Ok(())
}

fn show(id: &str, format: Format, state: &State) -> anyhow::Result<()> {
    let (store, number) = Selection::parse_id(id).map_err(Unusable)?;
    let letter = with_stores(state, |scans| find(scans, store, number))?;
    let Some(letter) = letter else {
        if let Some(locked) = locked(state, Some(store))? {
            anyhow::bail!("{id} is not among the dead letters that can be read; {locked}");
        }
        anyhow::bail!("there is no dead letter {id}: `millrace dlq ls` shows which there are")
    };
    let out = &mut std::io::stdout().lock();
    match format {
        Format::Text => {
            let when = human::time_and_age(letter.time_ns, clock::wall_ns());
            let title = format!("{id}: {} by {} at {when}", letter.reason, letter.origin);
            writeln!(out, "{}", human::on_one_line(&title))?;
            if !letter.reply.is_empty() {
                writeln!(out, "reply: {}", human::on_one_line(&letter.reply))?;
            }
            if letter.is_cut() {
                writeln!(out, "only its beginning was kept: it cannot be replayed")?;
            }
            writeln!(out, "{}", human::harmless(&letter.content()))?;
        }
        Format::Json => {
            let mut all = letter.summary();
            all["content"] = serde_json::from_str(&letter.content()).unwrap_or_else(|_| letter.content().into());
            writeln!(out, "{all:#}")?;
        }
        Format::Hex => {
            for line in letter.bytes.chunks(32) {
                let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(out, "{hex}")?;
            }
        }
        Format::Raw => out.write_all(&letter.bytes)?,
    }
    Ok(())
}

fn find(scans: &[Scan<'_>], store: StoreName, number: u64) -> Option<Letter> {
    let scan = scans.iter().find(|scan| scan.store == store)?;
    let mut found = None;
    scan.letters(&mut |letter, _| {
        if letter.number != number {
            return ControlFlow::Continue(());
        }
        found = Some(letter);
        ControlFlow::Break(())
    });
    found
}

/// Which letters are meant; what names none is refused unless it says all.
fn body(arguments: &ChangeArgs) -> anyhow::Result<(Selection, Value)> {
    let selection = arguments.filter.selection(&arguments.ids)?;
    if !selection.names_some() && !arguments.all {
        let message = "say which letters: their ids, --store, --reason, --destination, or --all";
        return Err(Unusable(message.to_owned()).into());
    }
    let body = selection.to_json();
    Ok((selection, body))
}

fn replay(arguments: &ChangeArgs) -> anyhow::Result<()> {
    let (selection, _) = body(arguments)?;
    let api = Api::find(&arguments.api, &arguments.state.source())?;
    let (mut replayed, mut failed) = (0, Vec::new());
    let named = arguments.named();
    // The last of each store that was tried: what failed again is not tried twice.
    let mut after: BTreeSet<(StoreName, u64)> = BTreeSet::new();
    let stopped = loop {
        let answer =
            api.post("/api/v1/dlq/replay", &Selection { after: after.clone(), ..selection.clone() }.to_json())?;
        replayed += answer["replayed"].as_u64().unwrap_or(0);
        failed.extend(answer["failed"].as_array().cloned().unwrap_or_default());
        let last = answer["last"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let last: Vec<_> = last.filter_map(|id| Selection::parse_id(id).ok()).collect();
        let stopped = answer["stopped"].as_str().map(str::to_owned);
        if stopped.is_some() || answer["more"] != json!(true) || last.is_empty() {
            break stopped;
        }
        after.retain(|(store, _)| last.iter().all(|(other, _)| other != store));
        after.extend(last);
    };
    let mut out = std::io::stdout().lock();
    let met = replayed + failed.len() as u64;
    if arguments.json {
        writeln!(out, "{:#}", json!({ "replayed": replayed, "failed": failed, "stopped": stopped }))?;
    } else {
        say_replayed(replayed, &failed, &mut out)?;
    }
    match stopped {
        Some(why) => anyhow::bail!("some were not tried: {}", human::on_one_line(&why)),
        None if !failed.is_empty() => anyhow::bail!("what failed again is still a dead letter"),
        None => all_met(named, met),
    }
}

fn say_replayed(replayed: u64, failed: &[Value], out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{} replayed, {} failed again", human::count(replayed), human::count(failed.len() as u64))?;
    for letter in failed {
        let (id, why) = (letter["id"].as_str().unwrap_or_default(), letter["why"].as_str().unwrap_or_default());
        writeln!(out, "  {id}: {}", human::on_one_line(why))?;
    }
    Ok(())
}

fn purge(arguments: &ChangeArgs) -> anyhow::Result<()> {
    let (selection, body) = body(arguments)?;
    let state = arguments.state.open();
    let offline = state.as_ref().is_ok_and(|state| user(&state.directory).is_none());
    let (purged, locked) = if offline && !arguments.api.names_one() {
        purge_files(&state?, &selection)?
    } else {
        let api = Api::find(&arguments.api, &arguments.state.source())?;
        (api.post("/api/v1/dlq/purge", &body)?["purged"].as_u64().unwrap_or(0), None)
    };
    let out = &mut std::io::stdout().lock();
    match arguments.json {
        true => writeln!(out, "{:#}", json!({ "purged": purged }))?,
        false => writeln!(out, "{} purged", human::counted(purged, "dead letter"))?,
    }
    match locked {
        Some(locked) => Err(anyhow::anyhow!(locked)),
        None => all_met(arguments.named(), purged),
    }
}

/// Purges where no process runs; how many letters went, and what could not be looked at.
fn purge_files(state: &State, selection: &Selection) -> anyhow::Result<(u64, Option<String>)> {
    let _held = lock(&state.directory)?;
    let purged = dead_letters::purge(&state.directory, &state.at_rest, selection)?;
    Ok((purged, locked(state, selection.store)?))
}

/// Letters that were named are expected to be there.
fn all_met(named: u64, met: u64) -> anyhow::Result<()> {
    match named.saturating_sub(met) {
        0 => Ok(()),
        missing => anyhow::bail!("{missing} of those that were named are not there: `millrace dlq ls` shows which are"),
    }
}

impl ChangeArgs {
    /// How many letters are named one by one.
    fn named(&self) -> u64 {
        self.ids.iter().collect::<BTreeSet<_>>().len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::state::tests::{encrypted, keys, without_keys};

    #[test]
    fn letters_without_their_key_are_not_passed_over_in_silence() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = without_keys(directory.path());
        assert_eq!(locked(&state, None).unwrap(), None);
        encrypted(&state.store(StoreName::Front), 2);
        let key = keys().ids().next().unwrap();
        let said = format!("front: 6 letters need key {key}: name its file with --key-file");
        assert_eq!(locked(&state, None).unwrap(), Some(said));
        assert_eq!(locked(&state, Some(StoreName::Delivery)).unwrap(), None);
        let all = Filter::default().selection(&[]).unwrap();
        let (purged, said) = purge_files(&state, &all).unwrap();
        assert_eq!((purged, said.is_some()), (0, true), "they may be meant, and nobody can tell");
        let why = show("front-1", Format::Text, &state).unwrap_err().to_string();
        assert!(why.contains("6 letters need key"), "{why}");
        state.at_rest.keys = keys();
        assert_eq!(locked(&state, None).unwrap(), None);
        assert!(show("front-9", Format::Text, &state).unwrap_err().to_string().contains("there is no dead letter"));
    }
}
