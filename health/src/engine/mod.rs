//! [`Engine`]: runs the checks that are due, concurrently, and reports what is known of them by the deadline.
//!
//! `selection` has the checks of an engine and which of them a request selects; `filter` which of them the scope leaves out;
//! `refresh` the background runs; `shared` the engines of the process: scopes of all workers that have the same states and settings
//! share one.

mod filter;
mod refresh;
mod selection;
mod shared;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{task::AbortHandle, time::Instant};

use self::selection::unique;
pub(crate) use self::{
    filter::Filter,
    selection::{CheckEntry, Selection},
    shared::{EngineKey, get_or_create},
};
use crate::{
    check::{Check, Pending},
    process::generation,
    registry::{CheckCache, Registry},
    report::{Entry, MAX_DURATION, Outcome},
    runtime::{Executor, Runtime},
};

/// When a report is due, how long results are reused, whether checks run in the background, and whether there have to be any.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EngineConfig {
    pub(crate) deadline: Duration,
    pub(crate) max_age: Duration,
    /// The interval of background runs; `None` if checks run on request.
    pub(crate) refresh: Option<Duration>,
    /// The message while there are no checks; `None` if the status is then `UP`.
    pub(crate) if_empty: Option<&'static str>,
}

impl EngineConfig {
    /// The age from which a result is too old to be served without a run.
    fn max_age(&self, check: &Check) -> Duration {
        check.options().max_age.unwrap_or(self.max_age)
    }

    /// The age from which the result of a background run is no longer shown: three runs were due since.
    fn max_background_age(&self, check: &Check, refresh: Duration) -> Duration {
        check.options().max_age.unwrap_or(refresh) * 3 + self.deadline
    }

    /// The age from which a result is no longer shown to clients whose requests run no checks. Without `refresh`, results are
    /// as old as the latest request of an allowed client, and most of those poll at least once a minute.
    fn max_stale_age(&self, check: &Check) -> Duration {
        match self.refresh {
            Some(refresh) => self.max_background_age(check, refresh),
            None => self.max_age(check).max(Duration::from_mins(1)),
        }
    }
}

/// Where checks come from.
#[derive(Default)]
pub(crate) struct Sources {
    /// Found in states and given to the scope; they never change.
    pub(crate) fixed: Vec<CheckEntry>,
    /// Their checks may be added and removed at any time.
    pub(crate) registries: Vec<Registry>,
    pub(crate) filter: Filter,
}

/// The results of the selected checks.
pub(crate) struct Results {
    /// In the order of registration.
    pub(crate) entries: Vec<Entry>,
    /// Until when they may be served again, if they may.
    pub(crate) valid_until: Option<Instant>,
    /// The number of changes that they include.
    pub(crate) generation: u64,
    /// The checks that the request has excluded, as `group.name`.
    pub(crate) excluded: Vec<String>,
    /// The names in the request that match no check.
    pub(crate) unmatched: Vec<String>,
}

/// The checks of all sources, and the versions of the registries that they were read at.
struct CheckSnapshot {
    versions: Vec<u64>,
    entries: Arc<Vec<CheckEntry>>,
}

/// Runs checks and reports.
///
/// Only scopes own an engine, together with the states whose addresses are part of its key: see [`get_or_create`].
pub(crate) struct Engine {
    inner: Arc<EngineInner>,
    /// Every required check has been up once. Never reset.
    started: AtomicBool,
    refresher: Mutex<Option<Refresher>>,
}

/// What the engine and its background task share.
struct EngineInner {
    sources: Sources,
    config: EngineConfig,
    executor: Executor,
    snapshot: Mutex<Option<CheckSnapshot>>,
    /// The log has the error that no thread can be started.
    missing_threads: AtomicBool,
    /// The log has the names of the filter that match nothing.
    is_filter_logged: AtomicBool,
}

/// The checks of a report. This may be the last handle to a check that was unregistered meanwhile, whose destructors are user code
/// and must not run on a worker or on the thread of the supervisor.
struct Entries {
    list: Option<Arc<Vec<CheckEntry>>>,
    executor: Executor,
}

impl Entries {
    fn list(&self) -> &[CheckEntry] {
        self.list.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        if let Some(owned) = self.list.take().and_then(Arc::into_inner)
            && let Ok(runtime) = self.executor.runtime()
        {
            runtime.drop_later(owned);
        }
    }
}

/// The background task of an engine with `refresh`.
struct Refresher {
    /// The process that runs it: a forked child has none.
    process: u32,
    task: AbortHandle,
}

impl Engine {
    pub(crate) fn new(sources: Sources, config: EngineConfig, executor: Executor) -> Self {
        let inner = Arc::new(EngineInner {
            sources,
            config,
            executor,
            snapshot: Mutex::default(),
            missing_threads: AtomicBool::new(false),
            is_filter_logged: AtomicBool::new(false),
        });
        for registry in &inner.sources.registries {
            let engine: Weak<EngineInner> = Arc::downgrade(&inner);
            registry.add_cache(engine);
        }
        Self { inner, started: AtomicBool::new(false), refresher: Mutex::default() }
    }

    /// Whether there is a check that is selected.
    pub(crate) fn contains(&self, selection: Selection<'_>) -> bool {
        self.inner.entries().list().iter().any(|entry| selection.matches(entry))
    }

    /// Returns the results of the selected checks by the deadline, except of those that `exclude` names. Without `refresh`, it
    /// first runs those that are due.
    pub(crate) async fn results(&self, selection: Selection<'_>, exclude: &[String], details: bool) -> Results {
        let EngineInner { config, executor, .. } = &*self.inner;
        let until = Instant::now() + config.deadline;
        // Read first, so that a change during this report is not taken for included.
        let generation = generation::current();
        let entries = self.inner.entries();
        let (excluded, selected): (Vec<_>, Vec<_>) = entries
            .list()
            .iter()
            .filter(|entry| selection.matches(entry))
            .partition(|entry| exclude.iter().any(|name| entry.is_named(name)));
        let is_unmatched = |name: &&String| !excluded.iter().any(|entry| entry.is_named(name));
        let unmatched = exclude.iter().filter(is_unmatched).cloned().collect();
        let excluded = excluded.iter().map(ToString::to_string).collect();
        let runtime = match executor.runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                let entries = vec![self.inner.missing_threads(&error)];
                return Results { entries, valid_until: None, generation, excluded, unmatched };
            }
        };
        self.inner.missing_threads.store(false, Ordering::Relaxed);
        self.ensure_refresher(&runtime);
        let run = |entry: &&CheckEntry| match (entry.check(), config.refresh) {
            (Some(check), None) => Some(check.inner().run_if_due(config.max_age(check), &runtime)),
            (Some(check), Some(_)) => {
                // It may have been registered since the latest background run.
                check.inner().run_if_new(&runtime);
                None
            }
            (None, _) => None,
        };
        let pending: Vec<_> = selected.iter().map(run).collect();
        let mut reported = Vec::with_capacity(selected.len());
        for (entry, pending) in selected.iter().zip(pending) {
            let outcome = self.inner.outcome(entry, pending, until).await;
            reported.push(entry.with_outcome(outcome, details));
        }
        let valid_until = |check: &Check| match config.refresh {
            None => check.inner().fresh_until(config.max_age(check)),
            Some(refresh) => check.inner().valid_until(config.max_background_age(check, refresh)),
        };
        let mut checks = selected.iter().filter_map(|entry| entry.check());
        let latest = Instant::now() + MAX_DURATION;
        let valid_until = checks.try_fold(latest, |earliest, check| Some(earliest.min(valid_until(check)?)));
        Results { entries: reported, valid_until, generation, excluded, unmatched }
    }

    /// Returns the latest results of the selected checks, and runs none.
    pub(crate) fn latest_results(&self, selection: Selection<'_>, details: bool) -> Vec<Entry> {
        if let Ok(runtime) = self.inner.executor.runtime() {
            self.ensure_refresher(&runtime);
        }
        let outcome = |entry: &CheckEntry| match entry {
            CheckEntry::Misconfigured { message, .. } => Outcome::down(Arc::clone(message)),
            CheckEntry::Check(check) => check.inner().cached_outcome(self.inner.config.max_stale_age(check)),
        };
        let entries = self.inner.entries();
        let selected = entries.list().iter().filter(|entry| selection.matches(entry));
        selected.map(|entry| entry.with_outcome(outcome(entry), details)).collect()
    }

    /// The names of the checks that there are now: those that are reported, and those that the scope leaves out.
    pub(crate) fn check_names(&self) -> (Vec<String>, Vec<String>) {
        let all = Entries { list: Some(Arc::new(self.inner.all())), executor: self.inner.executor.clone() };
        let checks = all.list().iter().filter(|entry| entry.check().is_some());
        let (selected, excluded): (Vec<_>, Vec<_>) = checks.partition(|entry| self.inner.sources.filter.selects(entry));
        let names = |entries: Vec<&CheckEntry>| entries.iter().map(ToString::to_string).collect();
        (names(selected), names(excluded))
    }

    /// The critical and shared checks that have never been up. Once there are none, the list stays empty.
    pub(crate) fn pending_startup(&self) -> Vec<String> {
        if self.started.load(Ordering::Acquire) {
            return Vec::new();
        }
        let is_pending =
            |entry: &&CheckEntry| entry.is_required() && !entry.check().is_some_and(|check| check.inner().ever_up());
        let entries = self.inner.entries();
        let pending: Vec<_> = entries.list().iter().filter(is_pending).map(CheckEntry::to_string).collect();
        if pending.is_empty() {
            self.started.store(true, Ordering::Release);
        }
        pending
    }

    /// Starts the background runs, if the engine is to have them and this process has not started them yet.
    fn ensure_refresher(&self, runtime: &Arc<Runtime>) {
        let Some(interval) = self.inner.config.refresh else { return };
        let mut refresher = self.refresher.lock();
        if refresher.as_ref().is_none_or(|refresher| refresher.process != runtime.process()) {
            let task =
                runtime.spawn_background(refresh::refresh(Arc::clone(&self.inner), interval, Arc::clone(runtime)));
            *refresher = Some(Refresher { process: runtime.process(), task });
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(Refresher { task, .. }) = self.refresher.get_mut() {
            task.abort();
        }
    }
}

impl EngineInner {
    fn missing_threads(&self, error: &std::io::Error) -> Entry {
        let message = "the threads of the health check cannot be started";
        if !self.missing_threads.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "health scope: {message}: {error}");
        }
        Entry::plain("health", "runtime", Some(message.into()))
    }

    /// Logs names of the filter that match no check, which are probably misspelled, and that no check is left.
    fn log_filter(&self, all: &[CheckEntry]) {
        let filter = &self.sources.filter;
        let list = all.iter().map(CheckEntry::to_string).collect::<Vec<_>>().join(", ");
        for (setting, name) in filter.unmatched(all) {
            let list = list.clone();
            self.log(move || {
                tracing::warn!("health scope: {setting} names {name}, which matches no check; the checks are: {list}");
            });
        }
        if !all.is_empty() && filter.problem(all).is_none() && !all.iter().any(|entry| filter.selects(entry)) {
            self.log(move || {
                tracing::warn!("health scope: all checks are excluded, so it is UP; the checks are: {list}");
            });
        }
    }

    /// Writes a log line, on the thread for that: background runs must not be delayed by a subscriber.
    fn log(&self, write: impl FnOnce() + Send + 'static) {
        match self.executor.runtime() {
            Ok(runtime) => runtime.defer(write),
            Err(_) => write(),
        }
    }

    /// The outcome of a pending run; without one, that of the latest background run. Waits until the response has to leave.
    async fn outcome(&self, entry: &CheckEntry, pending: Option<Pending>, until: Instant) -> Outcome {
        let EngineConfig { deadline, refresh, .. } = self.config;
        match (entry, pending) {
            (CheckEntry::Misconfigured { message, .. }, _) => Outcome::down(Arc::clone(message)),
            (CheckEntry::Check(_), Some(Pending::Known(outcome))) => outcome,
            (CheckEntry::Check(check), Some(Pending::Run(run))) => check.inner().outcome_of(run, until, deadline).await,
            (CheckEntry::Check(check), None) => {
                let max_age = refresh.map_or(Duration::ZERO, |refresh| self.config.max_background_age(check, refresh));
                check.inner().background_outcome(until, deadline, max_age).await
            }
        }
    }

    /// All checks in the order of registration, each name once.
    fn entries(&self) -> Entries {
        Entries { list: Some(self.current_entries()), executor: self.executor.clone() }
    }

    fn current_entries(&self) -> Arc<Vec<CheckEntry>> {
        let mut snapshot = self.snapshot.lock();
        // Read before the checks: after a change in between, the checks are read once more by the next report.
        let versions: Vec<u64> = self.sources.registries.iter().map(Registry::version).collect();
        match &*snapshot {
            Some(current) if current.versions == versions => Arc::clone(&current.entries),
            _ => {
                let entries = Arc::new(self.collect());
                *snapshot = Some(CheckSnapshot { versions, entries: Arc::clone(&entries) });
                entries
            }
        }
    }

    /// The checks of all sources, each name once.
    fn all(&self) -> Vec<CheckEntry> {
        let registered = self.sources.registries.iter().flat_map(Registry::checks).map(CheckEntry::Check);
        unique(self.sources.fixed.iter().cloned().chain(registered))
    }

    /// The checks that are reported.
    fn collect(&self) -> Vec<CheckEntry> {
        let all = self.all();
        if !self.is_filter_logged.swap(true, Ordering::Relaxed) {
            self.log_filter(&all);
        }
        let filter = &self.sources.filter;
        let problem = if all.is_empty() { self.config.if_empty } else { filter.problem(&all) };
        let entries: Vec<_> = all.into_iter().filter(|entry| filter.selects(entry)).collect();
        for entry in &entries {
            match entry {
                CheckEntry::Check(check) => check.inner().observe_deadline(self.config.deadline),
                CheckEntry::Misconfigured { message, .. } => {
                    let (check, message) = (entry.to_string(), Arc::clone(message));
                    self.log(move || tracing::error!(%check, "health check {check} cannot be run: {message}"));
                }
            }
        }
        if let Some(message) = problem {
            self.log(move || tracing::error!("health scope: {message}"));
            return vec![CheckEntry::misconfigured("health", "checks", message)];
        }
        entries
    }
}

impl CheckCache for EngineInner {
    fn forget(&self) {
        let snapshot = self.snapshot.lock().take();
        // After the lock is released: destructors of checks are user code.
        drop(snapshot);
    }
}
