//! Campaigns of seeds: how many is said by the environment, every core takes part, one line says what was done.
//!
//! A long campaign is run in pieces: the line names the seed at which the next piece begins.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use crate::sys::clock;

/// Seeds in a row, each of which goes one way.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// What is run.
    pub name: &'static str,
    /// The environment variable of the first seed.
    pub seed_variable: &'static str,
    /// The environment variable of how much is run, in units.
    pub count_variable: &'static str,
    /// Units of that count that one seed runs.
    pub units_a_seed: u64,
    /// The seeds.
    pub seeds: Range<u64>,
}

impl Campaign {
    /// The campaign that the environment asks for, else `default` units from seed 1.
    #[must_use]
    pub fn asked_for(
        name: &'static str,
        (seed_variable, count_variable): (&'static str, &'static str),
        units_a_seed: u64,
        default: u64,
    ) -> Campaign {
        let number =
            |variable, default| std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
        let first: u64 = number(seed_variable, 1);
        let seeds = first..first + number(count_variable, default) / units_a_seed;
        Campaign { name, seed_variable, count_variable, units_a_seed, seeds }
    }

    /// Units in all.
    #[must_use]
    pub fn units(&self) -> u64 {
        (self.seeds.end - self.seeds.start) * self.units_a_seed
    }

    /// Runs every seed, and says with `sum` what they came to.
    ///
    /// # Panics
    ///
    /// When a seed does; how to run that one alone is said before.
    pub fn run<R: Send>(&self, each: impl Fn(u64) -> R + Sync, sum: impl Fn(&[R]) -> String) -> Vec<R> {
        let began = clock::monotonic();
        let results = in_threads(self.seeds.clone(), |seed| {
            catch_unwind(AssertUnwindSafe(|| each(seed))).unwrap_or_else(|panic| {
                let Campaign { seed_variable, count_variable, units_a_seed, .. } = self;
                eprintln!("{seed_variable}={seed} {count_variable}={units_a_seed}");
                resume_unwind(panic);
            })
        });
        let seconds = (clock::monotonic() - began).as_secs_f64();
        let Campaign { name, seed_variable, seeds, .. } = self;
        eprintln!(
            "{name}: {} from seed {}, {}, {seconds:.0} s; next {seed_variable}={}",
            self.units(),
            seeds.start,
            sum(&results),
            seeds.end
        );
        results
    }
}

/// Does the work on every core; a panic of one is the caller's.
pub fn in_threads<W: Send, R: Send>(
    work: impl IntoIterator<Item = W, IntoIter: Send>,
    each: impl Fn(W) -> R + Sync,
) -> Vec<R> {
    let work = Mutex::new(work.into_iter());
    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
    let worker = || std::iter::from_fn(next).map(&each).collect::<Vec<R>>();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let results =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results.flatten().collect()
    })
}
