//! What a reload tells a destination's thread: serve under these settings, stop sending, end.
//!
//! A command is obeyed between turns and when nothing is in flight, so no request is cut off and nothing is sent twice; the
//! blocks that were read stay where they are, and the next settings send them. A thread starts without settings, and one
//! that is parked has none any more: it sends nothing, reads nothing, and its cursor holds what it has not delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::channel::Receiver;

use super::{Egress, Takes, drop_spans};
use crate::config::{Batch, Compression, Requirement, Retry};
use crate::pipeline::senders::Senders;
use crate::telemetry::ledger::DropReason;

/// One command. They are obeyed in order.
pub enum Command {
    /// Deliver so.
    Serve(Box<Service>),
    /// Send nothing more and keep the place, as long as it does not lag further than this.
    Park {
        /// Which parking this is, from 1: giving up is said of one, not of the next.
        number: u64,
        /// Bytes of the log, over all lanes.
        max_lag_bytes: u64,
        /// What health says of it.
        why: String,
    },
    /// End. What was not delivered stays for a later cursor, or is given up for this reason.
    End(Option<DropReason>),
}

/// How a destination delivers.
pub struct Service {
    /// The threads that send.
    pub senders: Senders,
    /// What the backend has a place for.
    pub takes: Takes,
    /// How failures are met.
    pub retry: Retry,
    /// When to send how much.
    pub batch: Batch,
    /// How bodies are compressed.
    pub compression: Compression,
    /// Whether it may hold senders up.
    pub requirement: Requirement,
}

/// What a destination's thread knows of its commands.
#[derive(Default)]
pub(super) struct Orders {
    commands: Option<Receiver<Command>>,
    /// Waits for what is in flight.
    pending: Option<Command>,
    /// There are no settings to send under.
    idle: bool,
    /// The number of the last parking.
    parking: u64,
    /// The number of the last parking in which everything was given up; 0 for none.
    given_up: Arc<AtomicU64>,
}

impl Orders {
    /// Whether blocks are read.
    pub(super) fn reads(&self) -> bool {
        !self.idle
    }

    /// Whether requests are sent.
    pub(super) fn sends(&self) -> bool {
        !self.idle && self.pending.is_none()
    }
}

impl Egress {
    /// The same destination under commands: it does nothing before the first. `given_up` becomes the number of the parking
    /// in which it has given up its place.
    #[must_use]
    pub fn commanded(mut self, commands: Receiver<Command>, given_up: Arc<AtomicU64>) -> Egress {
        self.orders = Orders { commands: Some(commands), pending: None, idle: true, parking: 0, given_up };
        self
    }

    /// Obeys what has come, once nothing is in flight. False when that was the end.
    pub(super) fn obey(&mut self, now: Duration) -> bool {
        loop {
            if self.orders.pending.is_none() {
                self.orders.pending = self.orders.commands.as_ref().and_then(|commands| commands.try_recv().ok());
            }
            if !self.in_flight.is_empty() {
                return true;
            }
            match self.orders.pending.take() {
                Some(Command::Serve(service)) => self.serve(*service),
                Some(Command::Park { number, max_lag_bytes, why }) => {
                    self.orders.idle = true;
                    self.orders.parking = number;
                    self.options.place.require(Requirement::Optional { max_lag_bytes });
                    self.options.watch.parked = Some(why);
                    self.options.watch.gauges.parked.set(1);
                }
                Some(Command::End(reason)) => {
                    if let Some(reason) = reason {
                        self.give_everything_up(reason, now);
                    }
                    return false;
                }
                None if self.orders.idle && self.lags_too_far() => {
                    self.give_everything_up(DropReason::Lag, now);
                    // Relaxed: a number through which nothing is published.
                    self.orders.given_up.store(self.orders.parking, Ordering::Relaxed);
                    return true;
                }
                None => return true,
            }
        }
    }

    fn serve(&mut self, service: Service) {
        let Service { senders, takes, retry, batch, compression, requirement } = service;
        std::mem::replace(&mut self.options.senders, senders).finish();
        self.options.takes = takes;
        self.options.delivery.adopt(retry, batch, compression);
        self.options.place.require(requirement);
        self.options.watch.parked = None;
        self.options.watch.gauges.parked.set(0);
        self.orders.idle = false;
    }

    fn give_everything_up(&mut self, reason: DropReason, now: Duration) {
        let mut spans = self.give_up_before(self.first_payload + self.payloads.len() as u64, reason);
        for lane in 0..self.options.readers.len() {
            let reader = &mut self.options.readers[lane];
            let before = reader.position();
            reader.skip_to(self.options.place.newest(lane));
            // The rest of the newest segment: only its entries tell how many spans there are.
            while reader.next().is_some() {}
            let (end, unread) = (reader.position(), reader.position().spans_since(&before));
            self.pass_over(lane, end, now, |totals| drop_spans(totals, reason, unread));
            spans += unread;
        }
        self.put_behind();
        let (destination, reason) = (&self.options.name, reason.label());
        tracing::warn!(%destination, spans, reason, "the parked destination is forgotten, its spans are dropped");
    }
}
