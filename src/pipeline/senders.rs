//! The sender threads of a destination: each owns an exporter with one keep-alive connection and sends one request at a time.
//!
//! Jobs go out and answers come back through bounded channels, so every count stays with the destination's own thread. How
//! many requests are in flight is delivery's decision; there are as many threads as it may ever want.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::{self, Receiver, Sender};
use crossbeam::sync::Unparker;

use super::sabotage::{Sabotage, planted};
use crate::deliver::{Outcome, Request, RequestId};
use crate::export::{self, Exporter};
use crate::sys::clock;

/// One request with the bytes that it sends.
pub struct Job {
    /// The request.
    pub request: Request,
    /// Its payloads, in order.
    pub payloads: Vec<Bytes>,
    /// Pages of mapped files that had gone before the payloads were looked at.
    pub faults: u64,
}

/// What became of a job.
pub struct Answer {
    /// The request's id.
    pub id: RequestId,
    /// What the answer means.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
}

/// Both channels and the threads at their other ends.
pub struct Senders {
    jobs: Sender<Job>,
    answers: Receiver<Answer>,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    /// One thread for each exporter; `driver` is woken at every answer.
    pub fn start(name: &str, exporters: Vec<Exporter>, driver: &Unparker) -> io::Result<Senders> {
        let (jobs, jobs_taken) = channel::bounded::<Job>(exporters.len());
        let (answered, answers) = channel::bounded(exporters.len());
        let mut threads = Vec::with_capacity(exporters.len());
        for (index, exporter) in exporters.into_iter().enumerate() {
            let (jobs, answers, driver) = (jobs_taken.clone(), answered.clone(), driver.clone());
            let thread = thread::Builder::new().name(format!("{name}-send-{index}"));
            threads.push(thread.spawn(move || send_all(exporter, &jobs, &answers, &driver))?);
        }
        Ok(Senders { jobs, answers, threads })
    }

    /// No threads: nothing can be sent.
    #[must_use]
    pub fn none() -> Senders {
        Senders { jobs: channel::bounded(0).0, answers: channel::never(), threads: Vec::new() }
    }

    /// Both channels without threads: whoever has the other ends sends, at most `most` requests at a time.
    #[cfg(test)]
    pub fn without_threads(most: usize) -> (Senders, Receiver<Job>, Sender<Answer>) {
        let (jobs, jobs_taken) = channel::bounded(most);
        let (answered, answers) = channel::bounded(most);
        (Senders { jobs, answers, threads: Vec::new() }, jobs_taken, answered)
    }

    /// Hands a job to a free thread; delivery never has more in flight than there are threads.
    pub fn send(&self, job: Job) {
        self.jobs.send(job).expect("senders live as long as their destination");
    }

    /// The next answer, if one has come.
    pub fn answer(&self) -> Option<Answer> {
        let answer = self.answers.try_recv().ok()?;
        if planted(Sabotage::AnswerLost) && answer.id.0 % 64 == 63 {
            return None;
        }
        Some(answer)
    }

    /// Lets the threads end; one whose request is still under way ends with it, nobody waits.
    pub fn finish(self) {
        drop(self.jobs);
        for thread in self.threads {
            if thread.is_finished() {
                thread.join().expect("a sender does not panic");
            }
        }
    }
}

fn send_all(mut exporter: Exporter, jobs: &Receiver<Job>, answers: &Sender<Answer>, driver: &Unparker) {
    for Job { request, payloads, faults } in jobs {
        let slices: Vec<&[u8]> = payloads.iter().map(|payload| &payload[..]).collect();
        let started = clock::monotonic();
        let outcome = exporter.send(&export::Request {
            signal: request.signal,
            payloads: &slices,
            uncompressed: request.uncompressed,
            wall_ns: clock::wall_ns(),
            faults,
        });
        drop(slices);
        drop(payloads);
        let elapsed = clock::monotonic().saturating_sub(started);
        if answers.send(Answer { id: request.id, outcome, elapsed }).is_err() {
            // The destination has ended without waiting: what was not answered is sent again after the next start.
            return;
        }
        driver.unpark();
    }
}
