//! A plugin on one lane: the place where calls are made, over sandboxes and generations.
//!
//! A sandbox is made when it is needed. One that failed is dropped with all its memory, and the next call gets a new one. One
//! that has grown over its high-water mark is replaced by way of `save` and `restore`. Under [`Isolation::Batch`] each call
//! gets a sandbox of its own.
//!
//! Calls are one transaction until their answers are accepted: what they wrote to `state` and added to counters counts
//! then. It is forgotten when they are rejected, or when one of them fails: whoever wants the batch done gives all of it again.
//!
//! Not shared: it belongs to the thread that makes the calls.

use std::sync::Arc;

use super::answers::{Answer, Batch, Call, Decoded, Encoded, Verdicts};
use super::counters::Counters;
use super::error::CallError;
use super::generation::Generation;
use super::host::Kept;
use super::sandbox::Sandbox;
use crate::config::Isolation;
use crate::sys::clock;

/// See the module.
pub struct Instance {
    generation: Arc<Generation>,
    sandbox: Option<Sandbox>,
    kept: Kept,
    /// See [`Instance::lapse`].
    lapse: Option<CallError>,
}

impl Instance {
    /// A plugin's place on a lane, counting in `counters`. The first sandbox is made by the first call.
    #[must_use]
    pub fn new(generation: Arc<Generation>, counters: Arc<Counters>) -> Instance {
        counters.generation.set(generation.number);
        Instance { generation, sandbox: None, kept: Kept { counters, ..Kept::default() }, lapse: None }
    }

    /// The generation that is live here.
    #[must_use]
    pub fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// What is counted here.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.kept.counters
    }

    /// Asks a `transform` plugin. Whether a failure of it, of an `enrich` or of a `sample` plugin counts, is for whoever
    /// has the block to say, who may ask again. The payload is what the columns were gathered from; the plugin may look
    /// into it, and it is as it was when this returns. What comes back is unchecked. As in all calls:
    ///
    /// # Errors
    ///
    /// See [`CallError`]. Then what the calls since the last [`accept`](Self::accept) wrote is forgotten; the next call may be
    /// made in every case.
    ///
    /// # Panics
    ///
    /// If the generation is of another world.
    pub fn transform(&mut self, call: &Call<'_>, payload: &mut Vec<u8>) -> Result<Answer, CallError> {
        self.counted(call.columns.rows(), |sandbox, kept| sandbox.transform(kept, call, payload))
    }

    /// Asks an `encode` plugin; as [`transform`](Self::transform).
    pub fn encode(&mut self, call: &Call<'_>, payload: &mut Vec<u8>) -> Result<Encoded, CallError> {
        self.settled(call.columns.rows(), |sandbox, kept| sandbox.encode(kept, call, payload))
    }

    /// Asks an `enrich` plugin what follows from combinations of values.
    pub fn enrich(&mut self, batch: &Batch<'_>) -> Result<Answer, CallError> {
        self.counted(batch.rows, |sandbox, kept| sandbox.enrich(kept, batch))
    }

    /// Asks a `sample` plugin about traces of which nothing more is awaited.
    pub fn decide(&mut self, batch: &Batch<'_>) -> Result<Verdicts, CallError> {
        self.counted(batch.rows, |sandbox, kept| sandbox.decide(kept, batch))
    }

    /// In which of its lives the next call will find the plugin: another one has forgotten whatever was not saved or kept
    /// in `state`. Counted from 1.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.kept.counters.starts.get() + u64::from(self.sandbox.is_none() || self.has_grown())
    }

    /// Tells a `decode` plugin of a connection.
    pub fn opened(&mut self, connection: u64, about: &[(String, String)]) -> Result<(), CallError> {
        self.settled(0, |sandbox, kept| sandbox.opened(kept, connection, about))
    }

    /// Asks a `decode` plugin for the records in bytes of a connection, received at so many Unix nanoseconds.
    pub fn decode(
        &mut self,
        (connection, received_ns): (u64, u64),
        chunk: &[u8],
        last: bool,
    ) -> Result<Decoded, CallError> {
        let decoded = self.settled(0, |sandbox, kept| sandbox.decode(kept, (connection, received_ns), chunk, last));
        self.kept.counters.rows.add(decoded.as_ref().map_or(0, |decoded| u64::from(decoded.rows)));
        decoded
    }

    /// Tells a `decode` plugin that a connection has gone.
    pub fn closed(&mut self, connection: u64) -> Result<(), CallError> {
        self.settled(0, |sandbox, kept| sandbox.closed(kept, connection))
    }

    /// As `counted`, for a call that is not made again: its failure counts.
    fn settled<R>(
        &mut self,
        rows: u32,
        call: impl FnOnce(&mut Sandbox, &mut Kept) -> Result<R, CallError>,
    ) -> Result<R, CallError> {
        self.counted(rows, call).inspect_err(|error| self.kept.counters.failed(error))
    }

    fn counted<R>(
        &mut self,
        rows: u32,
        call: impl FnOnce(&mut Sandbox, &mut Kept) -> Result<R, CallError>,
    ) -> Result<R, CallError> {
        let begin_ns = clock::thread_cpu_ns();
        let answer = self.ready().and_then(|mut sandbox| {
            let answer = call(&mut sandbox, &mut self.kept);
            self.after(sandbox, answer.as_ref().err());
            answer
        });
        let counters = &self.kept.counters;
        counters.calls.add(1);
        counters.rows.add(u64::from(rows));
        counters.cpu_ns.add(clock::thread_cpu_ns().saturating_sub(begin_ns));
        if answer.is_err() {
            self.kept.reject();
        }
        answer
    }

    /// The answers since the last time were good: what the calls wrote counts.
    pub fn accept(&mut self) {
        self.kept.accept();
    }

    /// They were not, or only looked at: what the calls wrote is forgotten.
    pub fn reject(&mut self) {
        self.kept.reject();
    }

    /// Why what the plugin had in its memory was lost since this was last asked, though no call failed by it: it could not hand
    /// over to the next sandbox.
    pub fn lapse(&mut self) -> Option<CallError> {
        self.lapse.take()
    }

    /// Replaces the sandbox as is done with one that has grown, to see whether that can be.
    ///
    /// # Errors
    ///
    /// When what it had would have been lost.
    pub fn restart(&mut self) -> Result<(), CallError> {
        let generation = Arc::clone(&self.generation);
        self.sandbox = Some(self.successor(&generation)?);
        self.lapse().map_or(Ok(()), Err)
    }

    /// Makes another generation live, between two transactions: it is configured, and given what the old one saves; nothing, if
    /// that fails. State and counters stay.
    ///
    /// # Errors
    ///
    /// When the new one cannot be started; the old one goes on as it was.
    pub fn swap(&mut self, generation: Arc<Generation>) -> Result<(), CallError> {
        let next = self.successor(&generation);
        if let Some(error) = self.lapse() {
            let plugin = &self.generation.environment.name;
            tracing::warn!(plugin, %error, "the plugin could not save: the next instance starts without what it had");
        }
        match next {
            Ok(_) => self.kept.accept(),
            Err(_) => self.kept.reject(),
        }
        self.sandbox = Some(next?);
        self.kept.counters.generation.set(generation.number);
        self.generation = generation;
        Ok(())
    }

    /// The sandbox is over its high-water mark.
    fn has_grown(&self) -> bool {
        let mark_bytes = self.generation.environment.limits.memory_bytes / 2;
        self.sandbox.as_ref().is_some_and(|sandbox| sandbox.memory_bytes() as u64 > mark_bytes)
    }

    /// The sandbox for the next call.
    fn ready(&mut self) -> Result<Sandbox, CallError> {
        if self.has_grown() {
            let generation = Arc::clone(&self.generation);
            // One that cannot hand over is replaced all the same, and that is a failure.
            self.sandbox = match self.successor(&generation) {
                Ok(next) => Some(next),
                Err(error) => {
                    self.lapsed(error);
                    None
                }
            };
        }
        match self.sandbox.take() {
            Some(sandbox) => Ok(sandbox),
            None => start(&self.generation, &mut self.kept),
        }
    }

    /// Decides what becomes of a sandbox after a call.
    fn after(&mut self, sandbox: Sandbox, error: Option<&CallError>) {
        let is_usable = matches!(error, None | Some(CallError::Refused(_)));
        // One that failed is gone with all that it had.
        self.kept.counters.memory_bytes.set(if is_usable { sandbox.memory_bytes() as u64 } else { 0 });
        if is_usable && self.generation.isolation == Isolation::Lane {
            self.sandbox = Some(sandbox);
        }
    }

    /// A sandbox of `generation` that was given what the present one saves, if it can. The present one stays, unless it failed.
    fn successor(&mut self, generation: &Generation) -> Result<Sandbox, CallError> {
        let saved = self.saved();
        let mut next = start(generation, &mut self.kept)?;
        if let Some(saved) = saved {
            next.restore(&mut self.kept, &saved).map_err(|error| CallError::Start(error.to_string()))?;
        }
        Ok(next)
    }

    /// What the present sandbox hands over. One that fails over that may not keep its successor out.
    fn saved(&mut self) -> Option<Vec<u8>> {
        let mut sandbox = self.sandbox.take()?;
        let saved = sandbox.save(&mut self.kept);
        if let Ok(_) | Err(CallError::Refused(_)) = &saved {
            self.sandbox = Some(sandbox);
        }
        saved.map_err(|error| self.lapsed(error)).ok()
    }

    fn lapsed(&mut self, error: CallError) {
        self.kept.counters.failed(&error);
        self.lapse = Some(error);
    }
}

fn start(generation: &Generation, kept: &mut Kept) -> Result<Sandbox, CallError> {
    kept.counters.starts.add(1);
    generation.sandbox(kept)
}
