//! `millrace demo`: a synthetic fleet logs on, the appliance takes its rows over TCP, a backend in this process takes
//! what the appliance exports. Nothing is mocked: real sockets, the real log on disk, real OTLP/HTTP.
//!
//! While it runs it shows rows, spans, lag and the ledger; at the end it prints one logon as a tree from what the backend
//! really got. It ends by itself or with Ctrl-C, and fails unless the ledger balances and every span has arrived.

mod appliance;
mod receiver;
mod sender;
mod tree;
mod view;

use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::DemoArgs;
use crate::sys::clock;
use appliance::{Running, Totals};
use receiver::Receiver;
use sender::Sender;
use view::{Frame, LagMeter, Screen};

/// Between two looks at the counters; every fifth is shown.
const TICK: Duration = Duration::from_millis(50);

/// How long the last rows may take to arrive.
const DRAIN_LIMIT: Duration = Duration::from_secs(15);

/// Runs the demo until its time is over or Ctrl-C.
pub(super) fn demo(arguments: &DemoArgs) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupted)).context("catching Ctrl-C")?;
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&interrupted)).context("catching SIGTERM")?;
    let state = StateDirectory::create()?;
    let rows_at = address(5000, arguments.any_ports)?;
    let management = address(8000, arguments.any_ports)?;

    let storm = sender::storm(arguments);
    let receiver = Receiver::start(storm.watched)?;
    let running = appliance::start(&appliance::Places {
        state_directory: &state.0,
        rows: rows_at,
        management,
        backend: receiver.address,
        any_ports: arguments.any_ports,
    })?;
    let mut screen = Screen::new(io::stdout().is_terminal(), std::env::var_os("NO_COLOR").is_none());
    screen.line(&format!(
        "A fleet of {} hosts logs on: {} logons in {} seconds, about {} rows, over TCP to {rows_at}.",
        arguments.hosts,
        storm.logons,
        arguments.seconds,
        view::grouped(storm.rows_estimate),
    ))?;
    screen.line(&format!("Metrics and health: http://{management}/   Log: {}", state.0.display()))?;

    let sender = Sender::start(rows_at, storm)?;
    let outcome = watch(&sender, &running, &receiver, &interrupted, &mut screen);
    sender.stop();
    let totals = running.stop();
    outcome?;
    conclude(&sender, totals, &receiver, &mut screen)
}

/// Shows the counters until everything sent has arrived.
fn watch(
    sender: &Sender,
    running: &Running,
    receiver: &Receiver,
    interrupted: &AtomicBool,
    screen: &mut Screen,
) -> Result<()> {
    let began = clock::monotonic();
    let mut lag = LagMeter::default();
    let mut sent_at = None;
    for tick in 0u64.. {
        let now = clock::monotonic() - began;
        // Relaxed: a flag that a signal handler sets; nothing else is read through it.
        if interrupted.load(Ordering::Relaxed) {
            sender.stop();
        }
        let totals = running.totals();
        lag.note(now, totals.lane.appended, totals.destination.settled());
        let frame =
            Frame { now, rows_sent: sender.rows(), totals, spans_received: receiver.spans(), lag: lag.lag(now) };
        if tick.is_multiple_of(5) {
            screen.show(frame)?;
        }
        if sender.is_done() {
            let since = *sent_at.get_or_insert(now);
            if frame.has_settled() || now - since > DRAIN_LIMIT {
                return screen.show(frame);
            }
        }
        std::thread::park_timeout(TICK);
    }
    Ok(())
}

/// Prints the tree and the account; an error unless every span is accounted for and has arrived.
fn conclude(sender: &Sender, totals: Totals, receiver: &Receiver, screen: &mut Screen) -> Result<()> {
    let received = receiver.received();
    screen.finish()?;
    let mut out = io::stdout().lock();
    write!(out, "\n{}", tree::render(&received.watched, screen.colour()))?;
    writeln!(
        out,
        "\n{} rows sent, {} spans arrived in {} requests, {} of them different: a row sent twice is a span sent twice, \
         under one id.",
        view::grouped(sender.rows()),
        view::grouped(received.spans),
        view::grouped(received.requests),
        view::grouped(received.different as u64),
    )?;
    if let Some(error) = sender.error() {
        anyhow::bail!("the fleet could not send: {error}");
    }
    ensure!(totals.imbalances() == [0, 0, 0], "the ledger does not balance: {:?}", totals.imbalances());
    ensure!(
        sender.rows() == totals.front.received,
        "{} rows were sent and {} received",
        sender.rows(),
        totals.front.received
    );
    ensure!(
        totals.lane.appended == received.spans,
        "{} spans are in the log and {} arrived",
        totals.lane.appended,
        received.spans
    );
    writeln!(out, "The ledger balances, and every span has arrived.")?;
    Ok(())
}

/// A loopback address with the usual port, or with any free one where that is taken.
fn address(usual: u16, any: bool) -> Result<SocketAddr> {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, usual));
    if !any && TcpListener::bind(usual).is_ok() {
        return Ok(usual);
    }
    // The listener is closed again at once: the appliance binds the port itself, a moment later.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(free.local_addr()?)
}

/// A directory that goes with the demo.
struct StateDirectory(PathBuf);

impl StateDirectory {
    fn create() -> Result<StateDirectory> {
        let path = std::env::temp_dir().join(format!("millrace-demo-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(StateDirectory(path))
    }
}

impl Drop for StateDirectory {
    fn drop(&mut self) {
        // What is left of it does no harm: the name holds the process id.
        std::fs::remove_dir_all(&self.0).ok();
    }
}
