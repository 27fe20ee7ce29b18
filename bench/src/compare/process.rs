//! A program under measurement: start it, wait until it listens, read its cost, stop it.
//!
//! Memory is sampled while it runs, because its peak is what counts. The process ends with this value, whatever happens.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millrace::sys::clock;

use crate::usage::{self, Memory};

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

/// A running program.
#[derive(Debug)]
pub(super) struct Subject {
    child: Child,
    sampler: Option<JoinHandle<()>>,
    sampling: Arc<AtomicBool>,
    peak: Arc<Mutex<Memory>>,
}

impl Subject {
    /// Starts `command` with its output in `log`, and waits until it accepts connections on `listens`.
    pub(super) fn start(command: &mut Command, log: &Path, listens: SocketAddr) -> Result<Subject> {
        let output = std::fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let program = PathBuf::from(command.get_program());
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut subject = Subject {
            child,
            sampler: None,
            sampling: Arc::new(AtomicBool::new(true)),
            peak: Arc::new(Mutex::new(Memory::default())),
        };
        subject.wait_until_it_listens(listens).with_context(|| format!("see {}", log.display()))?;
        subject.sample()?;
        Ok(subject)
    }

    /// CPU time so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        usage::process_cpu(self.child.id())
    }

    /// The most memory seen.
    pub(super) fn peak(&self) -> Memory {
        *self.peak.lock().expect("the sampler does not panic")
    }

    /// Asks it to drain and end, and waits. Returns how long it took.
    pub(super) fn stop(mut self) -> Result<Duration> {
        let asked = clock::monotonic();
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().context("running kill")?;
        if !told.success() {
            bail!("kill -TERM {pid} failed");
        }
        while self.child.try_wait()?.is_none() {
            if clock::monotonic() - asked > STOP_LIMIT {
                bail!("still running {} s after SIGTERM", STOP_LIMIT.as_secs());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(clock::monotonic() - asked)
    }

    fn wait_until_it_listens(&mut self, address: SocketAddr) -> Result<()> {
        let began = clock::monotonic();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended at once: {status}");
            }
            if clock::monotonic() - began > START_LIMIT {
                bail!("it does not listen on {address}");
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }

    fn sample(&mut self) -> Result<()> {
        let (pid, sampling, peak) = (self.child.id(), Arc::clone(&self.sampling), Arc::clone(&self.peak));
        let sampler = std::thread::Builder::new().name("sampler".into()).spawn(move || {
            // Relaxed: a flag, nothing else is read through it.
            while sampling.load(Ordering::Relaxed) {
                let Ok(memory) = usage::process_memory(pid) else { return };
                let mut peak = peak.lock().expect("nobody panics while reading the peak");
                *peak = peak.peak(memory);
                drop(peak);
                std::thread::park_timeout(SAMPLE_INTERVAL);
            }
        })?;
        self.sampler = Some(sampler);
        Ok(())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.sampling.store(false, Ordering::Relaxed);
        // Both fail only when it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
        if let Some(sampler) = self.sampler.take() {
            sampler.join().ok();
        }
    }
}

/// A loopback address that is free now.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A directory that goes with this value.
#[derive(Debug)]
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    /// A new directory below `parent`.
    pub(super) fn new(parent: &Path, name: &str) -> Result<Scratch> {
        let path = parent.join(format!("millrace-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is named after this process.
        std::fs::remove_dir_all(&self.0).ok();
    }
}
