//! The plugins that read or write formats, as they are seen: a receiver's decoder, and the encoders of a destination.
//!
//! Each thread that runs one counts for itself, and so does each generation; what is shown is the sum, under `receivers.NAME`
//! or `exporters.NAME`. They have no circuit, for bytes that are not decoded and spans that are not encoded are dealt with
//! one by one; one that fails as often as would open a circuit by default is shown as failing instead. A lock of this
//! module is never held while the metrics' is wanted: a scrape takes them the other way round.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::shown;
use crate::export::Exporter;
use crate::plugin::counters::Counters;
use crate::telemetry::metrics::{Metrics, PluginPlace, PluginSource};

/// Failures within the window that make a plugin a failing one: what opens a circuit by default.
const FAILURES: u64 = 5;
const WINDOW: Duration = Duration::from_secs(10);

/// What the threads of one plugin count.
pub type Counted = Vec<Arc<Counters>>;

/// What these exporters count of a plugin; nothing if they have none.
pub fn counted<'e>(exporters: impl IntoIterator<Item = &'e Exporter>) -> Counted {
    exporters.into_iter().filter_map(Exporter::counters).collect()
}

/// See the module. A clone is another handle.
#[derive(Clone)]
pub struct Formats {
    metrics: Arc<Metrics>,
    known: Arc<Mutex<Known>>,
}

type Known = BTreeMap<(PluginPlace, String), Arc<Mutex<Format>>>;

impl Formats {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Formats {
        Formats { metrics: Arc::clone(metrics), known: Arc::default() }
    }

    /// A receiver or exporter is served by threads that count there, from now on; without any it has no plugin.
    pub fn serve(&self, place: PluginPlace, name: &str, counted: Counted) {
        if counted.is_empty() {
            return self.end(place, name);
        }
        let key = (place, name.to_owned());
        let known = lock(&self.known).get(&key).cloned();
        let format = known.unwrap_or_else(|| {
            let format = Arc::<Mutex<Format>>::default();
            let (of, labels) = (Arc::clone(&format), vec![("plugin", shown_name(place, name))]);
            shown::register_plugin(&self.metrics, &labels, &(Arc::new(move || lock(&of).counters()) as _));
            lock(&self.known).insert(key, Arc::clone(&format));
            format
        });
        lock(&format).serve(counted);
        self.show();
    }

    /// It has no plugin any more; what was counted stays on `/metrics`.
    pub fn end(&self, place: PluginPlace, name: &str) {
        let known = lock(&self.known).get(&(place, name.to_owned())).cloned();
        if let Some(format) = known {
            lock(&format).is_served = false;
            self.show();
        }
    }

    /// Looks at what has failed since; to be called about once a second. The names of those that fail again and again.
    pub fn failing(&self, now: Duration) -> Vec<String> {
        let known = lock(&self.known);
        let failing = known.iter().filter(|(_, format)| lock(format).look(now));
        failing.map(|((place, name), _)| shown_name(*place, name)).collect()
    }

    fn show(&self) {
        let known: Vec<_> = lock(&self.known).iter().map(|(key, format)| (key.clone(), Arc::clone(format))).collect();
        for place in [PluginPlace::Receivers, PluginPlace::Exporters] {
            let of_place = known.iter().filter(|((other, _), format)| *other == place && lock(format).is_served);
            let source = |((place, name), format): &((PluginPlace, String), Arc<Mutex<Format>>)| {
                let format = Arc::clone(format);
                let read = move || {
                    let format = lock(&format);
                    shown::figures_of_plugin(&format.counters(), format.is_failing)
                };
                PluginSource { name: shown_name(*place, name), read: Box::new(read) }
            };
            self.metrics.show_plugins(place, of_place.map(source).collect());
        }
    }
}

fn shown_name(place: PluginPlace, name: &str) -> String {
    format!("{}.{name}", place.word())
}

/// One plugin with all its threads.
#[derive(Default)]
struct Format {
    is_served: bool,
    is_failing: bool,
    generation: u64,
    threads: Counted,
    /// What threads have counted that are no more.
    ended: Arc<Counters>,
    /// How many failures there were by then, over the window.
    recent: VecDeque<(Duration, u64)>,
}

impl Format {
    fn serve(&mut self, counted: Counted) {
        self.is_served = true;
        self.generation += 1;
        counted.iter().for_each(|counters| counters.generation.set(self.generation));
        self.threads.extend(counted);
    }

    fn counters(&self) -> Counted {
        self.threads.iter().chain([&self.ended]).map(Arc::clone).collect()
    }

    fn look(&mut self, now: Duration) -> bool {
        // A thread's counters are nobody else's once its instance has gone.
        for over in self.threads.extract_if(.., |counters| Arc::get_mut(counters).is_some()) {
            self.ended.absorb(&over);
        }
        let failures = self.counters().iter().map(|counters| counters.failures()).sum();
        if self.recent.is_empty() {
            self.recent.push_back((now, 0));
        }
        self.recent.push_back((now, failures));
        while self.recent.front().is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW) {
            self.recent.pop_front();
        }
        let before = self.recent.front().map_or(failures, |(_, before)| *before);
        self.is_failing = self.is_served && failures - before >= FAILURES;
        self.is_failing
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::health::Health;

    #[test]
    fn what_threads_have_counted_outlives_them_and_failures_are_said_for_as_long_as_they_last() {
        let metrics = Arc::new(Metrics::new());
        let formats = Formats::new(&metrics);
        let seconds = Duration::from_secs;
        let thread = |calls: u64| {
            let counters = Arc::new(Counters::default());
            counters.calls.set(calls);
            counters
        };
        let says = |line: &str| assert!(metrics.render().contains(line), "{line} is not in\n{}", metrics.render());
        let (first, second) = (thread(3), thread(4));
        formats.serve(PluginPlace::Exporters, "plugin/a", vec![Arc::clone(&first), Arc::clone(&second)]);
        says("millrace_plugin_calls_total{plugin=\"exporters.plugin/a\"} 7");
        says("millrace_plugin_generation{plugin=\"exporters.plugin/a\"} 1");
        assert_eq!(formats.failing(seconds(1)), Vec::<String>::new());
        first.traps.set(4);
        first.refused.set(100);
        assert_eq!(formats.failing(seconds(5)), Vec::<String>::new(), "what it says of spans is no failure of it");
        second.bad_patches.set(1);
        let failing = formats.failing(seconds(6));
        assert_eq!(failing, ["exporters.plugin/a"]);
        let health = Health::new();
        shown::set_health(&health.component("plugins"), &[], &failing);
        assert_eq!(health.summary(), "ready; plugins: fails again and again: exporters.plugin/a");
        assert_eq!(formats.failing(seconds(20)), Vec::<String>::new(), "it was long ago");
        // A reload: other threads, and these end.
        drop((first, second));
        let third = thread(0);
        formats.serve(PluginPlace::Exporters, "plugin/a", vec![Arc::clone(&third)]);
        assert_eq!(formats.failing(seconds(21)), Vec::<String>::new());
        says("millrace_plugin_calls_total{plugin=\"exporters.plugin/a\"} 7");
        says("millrace_plugin_failures_total{plugin=\"exporters.plugin/a\",reason=\"trap\"} 4");
        says("millrace_plugin_generation{plugin=\"exporters.plugin/a\"} 2");
        assert!(lock(&lock(&formats.known)[&(PluginPlace::Exporters, "plugin/a".to_owned())]).threads.len() == 1);
    }
}
