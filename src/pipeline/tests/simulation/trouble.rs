//! What goes wrong, and what an operator does meanwhile: failing and full disks, slow syncs, jumps of the wall clock, power
//! cuts, kills, orderly stops, restarts with other destinations and lanes, reloads with other transforms.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::process::Configuration;
use super::world::World;
use crate::queue::Log;

/// Producers end within this time after they were told to.
const PRODUCERS_END: Duration = Duration::from_secs(2);

/// Writers hold what does not fit for so long, as `appliance` has it.
const HAND_OVER: Duration = Duration::from_secs(1);

/// Nothing else in a stop takes longer, once the disk is no longer busy.
const STOP_LIMIT: Duration = Duration::from_secs(12);

impl World {
    /// Something happens.
    pub(super) fn trouble(&mut self) {
        self.trouble_at = self.now + self.scenario.trouble.mul_f64(2.0 * self.random.f64());
        if self.full_until.is_some_and(|until| until <= self.now) {
            self.full_until = None;
            self.disk.set_free_bytes(u64::MAX);
            self.tell(|| "the disk has room".to_owned());
        }
        if self.process.has_failed() && self.random.bool() {
            // It says so, and is started again.
            return self.crash();
        }
        match self.random.u8(..=if self.scenario.weak_disk { 74 } else { u8::MAX }) {
            0..=39 => {
                let syncs = self.random.u64(0..4);
                self.tell(|| format!("the sync after {syncs} more fails"));
                self.disk.fail_sync_after(syncs);
            }
            40..=74 => {
                self.tell(|| "the disk is full".to_owned());
                self.disk.set_free_bytes(0);
                self.full_until = Some(self.now + Duration::from_millis(self.random.u64(500..60_000)));
            }
            75..=119 => {
                self.process.sync_blocked_until = self.now + Duration::from_millis(self.random.u64(50..5_000));
            }
            120..=159 => {
                let operations = self.random.u64(1..1_500);
                self.tell(|| format!("the power goes after {operations} operations"));
                self.disk.light_fuse(operations);
            }
            160..=174 => self.crash(),
            175..=204 if self.sources_on => self.restart(),
            205..=229 => self.jump_wall_clock(),
            230..=255 => self.exchange(),
            _ => {}
        }
    }

    fn jump_wall_clock(&mut self) {
        const HOUR: i64 = 3_600_000_000_000;
        let jumps = [HOUR, -HOUR, 24 * HOUR, -24 * HOUR, 10 * 8_766 * HOUR, -10 * 8_766 * HOUR];
        let jump = self.clock_random.choice(jumps).expect("there are jumps");
        if self.wall_clock_jumps {
            self.wall_offset_ns += jump;
        }
    }

    /// An orderly stop, then a start with another configuration.
    fn restart(&mut self) {
        self.counts.stops += 1;
        self.tell(|| "stop".to_owned());
        if self.stop() {
            self.void_what_no_sync_has_covered();
            self.reconfigure();
            self.start();
        }
        self.sources_on = true;
    }

    fn reconfigure(&mut self) {
        let before = self.configuration;
        if self.random.bool() || self.scenario.without_destinations {
            return;
        }
        let lanes = self.random.usize(1..=self.scenario.most_lanes);
        let destinations = before.destinations ^ 1 << self.random.u8(0..3);
        let destinations = if destinations == 0 { before.destinations } else { destinations };
        // Not those that a run never had: they begin, they do not return.
        let returned = before.returned | before.destinations;
        self.configuration = Configuration { lanes, destinations, returned, ..before };
        self.oracle.borrow_mut().void(before.destinations & !destinations);
    }

    /// Stops the process in the order of `pipeline::drain`. False when a crash was quicker.
    pub(super) fn stop(&mut self) -> bool {
        let starts = self.starts();
        self.sources_on = false;
        let end = self.now + PRODUCERS_END;
        while self.now < end && self.starts() == starts && !self.producers_are_done() {
            self.step();
        }
        if self.starts() != starts {
            return false;
        }
        for lane in &mut self.process.lanes {
            (lane.gateway, lane.lines) = (None, None);
        }
        let begun = self.now;
        while self.process.lanes.iter().any(|lane| lane.writer.is_some()) {
            let limit = begun.max(self.process.sync_blocked_until) + STOP_LIMIT;
            assert!(self.now < limit, "a writer does not end");
            if self.now >= begun + HAND_OVER {
                self.give_up();
            }
            self.step();
            if self.starts() != starts {
                return false;
            }
        }
        self.process.sync_stop.stop();
        self.process.sync_due = self.now;
        while self.process.syncer.is_some() {
            let limit = begun.max(self.process.sync_blocked_until) + 2 * STOP_LIMIT;
            assert!(self.now < limit, "the sync thread does not end");
            self.step();
            if self.starts() != starts {
                return false;
            }
        }
        self.everything_is_durable();
        self.drain_destinations(starts)
    }

    fn drain_destinations(&mut self, starts: u64) -> bool {
        let time = Duration::from_millis(self.random.u64(0..20_000));
        self.process.egress_stop.drain_until(self.uptime() + time);
        let limit = self.now + time + Duration::from_secs(1);
        let process = |world: &World| {
            world.process.destinations.iter().any(|one| one.egress.is_some()) || world.process.none.is_some()
        };
        while process(self) {
            assert!(self.now < limit, "a destination does not end in its time");
            self.step();
            if self.starts() != starts {
                return false;
            }
        }
        true
    }

    fn producers_are_done(&mut self) -> bool {
        self.process.lanes.iter_mut().all(|lane| {
            lane.gateway.as_ref().is_none_or(super::sources::Gateway::is_idle)
                && lane.lines.as_mut().is_none_or(super::sources::Lines::hand_over)
        })
    }

    fn everything_is_durable(&self) {
        // A writer that was told to give up leaves to the next start what it had no room or no time to move after a failed
        // sync.
        let gave_up = self.process.give_up.load(Ordering::Relaxed);
        let is_left = |log: &Log| log.has_failed() || (gave_up && log.stats().sync_failures > 0);
        for log in self.process.logs.iter().filter(|log| !is_left(log)) {
            let (published, durable) = (log.published_sequence(), log.durable_sequence());
            assert_eq!(published, durable, "lane {} stops with blocks that are not durable", log.lane());
            // But for a last sync that failed: with its writer gone nobody moves the mark.
            let is_synced = log.unsynced_bytes() == 0 || log.moves_blocks();
            assert!(is_synced, "lane {} stops with a mark that is not durable", log.lane());
        }
    }

    /// Processes so far: a crash starts another.
    fn starts(&self) -> u64 {
        self.counts.kills + self.counts.power_cuts
    }
}
