//! Rounds: which checks there are, running those that are due all at once, and reporting by the deadline with what is known.
//!
//! The scopes of all workers that see the same states and have the same settings share one engine.

mod shared;

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

pub(crate) use self::shared::{Key, shared};
use crate::{
    check::{Check, Pending},
    process::generation,
    registry::{CheckCache, Registry},
    report::{Entry, MAX_DURATION, Outcome, Report},
    runtime::{Executor, Runtime},
};

/// How long rounds wait, how long their results keep, and whether they are run without being asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Settings {
    pub(crate) deadline: Duration,
    pub(crate) max_age: Duration,
    pub(crate) refresh: Option<Duration>,
}

impl Settings {
    /// How old a result may be that is made in the background: three times as old as the next one should be.
    fn stale(&self, refresh: Duration) -> Duration {
        refresh * 3 + self.deadline
    }

    /// How old a result may be that is told to who may not ask for a new one. Without `refresh` it is as old as who may has
    /// let it become, and most ask at least so often.
    fn tellable(&self) -> Duration {
        self.refresh.map_or(self.max_age.max(Duration::from_mins(1)), |refresh| self.stale(refresh))
    }
}

/// Where checks come from.
pub(crate) struct Sources {
    /// Found in states and given to the scope: fixed.
    pub(crate) fixed: Vec<Slot>,
    /// Asked anew at every round.
    pub(crate) registries: Vec<Registry>,
}

/// A place in the report.
#[derive(Clone)]
pub(crate) enum Slot {
    Check(Check),
    /// What is known to be wrong without asking anybody.
    Fault {
        group: Arc<str>,
        name: Arc<str>,
        message: Arc<str>,
    },
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Selection<'a> {
    All,
    /// The checks that count for liveness.
    Live,
    /// The checks that are not optional.
    Critical,
    Group(&'a str),
    Check(&'a str, &'a str),
}

/// The slots of all sources, and the versions of the registries that they are of.
struct Merged {
    versions: Vec<u64>,
    slots: Arc<Vec<Slot>>,
}

/// Runs checks and reports.
///
/// Only scopes hold one strongly, together with the states whose addresses are part of its key: see [`shared`].
pub(crate) struct Engine {
    inner: Arc<EngineInner>,
    /// Every critical check has been up once; then for good.
    started: AtomicBool,
    refresher: Mutex<Option<Refresher>>,
}

/// What the engine and its refresher share.
struct EngineInner {
    sources: Sources,
    settings: Settings,
    executor: Executor,
    merged: Mutex<Option<Merged>>,
    /// The log says that there are no threads.
    missing_threads: AtomicBool,
}

/// The background task of an engine with `refresh`.
struct Refresher {
    /// After a `fork`, the child has none.
    process: u32,
    task: AbortHandle,
}

impl Engine {
    pub(crate) fn new(sources: Sources, settings: Settings, executor: Executor) -> Self {
        let inner = Arc::new(EngineInner {
            sources,
            settings,
            executor,
            merged: Mutex::default(),
            missing_threads: AtomicBool::new(false),
        });
        for registry in &inner.sources.registries {
            let engine: Weak<EngineInner> = Arc::downgrade(&inner);
            registry.add_cache(engine);
        }
        Self { inner, started: AtomicBool::new(false), refresher: Mutex::default() }
    }

    /// Reports on a selection by the deadline; without `refresh`, what is due of it is run first. `None` if there is nothing
    /// of that name. With the report comes until when it keeps, if it does, and the count of changes as of which it does.
    pub(crate) async fn report(
        &self,
        selection: Selection<'_>,
        details: bool,
    ) -> Option<(Report, Option<Instant>, u64)> {
        let EngineInner { settings, executor, .. } = &*self.inner;
        let until = Instant::now() + settings.deadline;
        // Read before anything else is: a change on the way is seen at the next look.
        let changes = generation::current();
        let slots = self.inner.slots();
        let selected: Vec<_> = slots.iter().filter(|slot| selection.takes(slot)).collect();
        if selected.is_empty() && matches!(selection, Selection::Group(_) | Selection::Check(..)) {
            return None;
        }
        let runtime = match executor.runtime() {
            Ok(runtime) => runtime,
            Err(error) => return Some((self.inner.missing_threads(&error), None, changes)),
        };
        self.inner.missing_threads.store(false, Ordering::Relaxed);
        self.refresh(&runtime);
        let run = |slot: &&Slot| match (slot.check(), settings.refresh) {
            (Some(check), None) => Some(check.inner().run_if_due(settings.max_age, &runtime)),
            (Some(check), Some(_)) => {
                // It may have been added since the latest background run.
                check.inner().run_if_new(&runtime);
                None
            }
            (None, _) => None,
        };
        let pending: Vec<_> = selected.iter().map(run).collect();
        let mut entries = Vec::with_capacity(selected.len());
        for (slot, pending) in selected.iter().zip(pending) {
            let outcome = slot.outcome(pending, until, settings).await;
            entries.push(slot.entry(outcome, details));
        }
        let keeps = |check: &Check| match settings.refresh {
            None => check.inner().fresh_until(settings.max_age),
            Some(refresh) => check.inner().valid_until(settings.stale(refresh)),
        };
        let mut checks = selected.iter().filter_map(|slot| slot.check());
        let kept_until = checks.try_fold(Instant::now() + MAX_DURATION, |a, check| keeps(check).map(|b| a.min(b)));
        Some((Report::of(entries), kept_until, changes))
    }

    /// Reports what is known of a selection, without running a check.
    pub(crate) fn known(&self, selection: Selection<'_>) -> Report {
        if let Ok(runtime) = self.inner.executor.runtime() {
            self.refresh(&runtime);
        }
        let tellable = self.inner.settings.tellable();
        let slots = self.inner.slots();
        let selected = slots.iter().filter(|slot| selection.takes(slot));
        Report::of(selected.map(|slot| slot.entry(slot.known_outcome(tellable), false)).collect())
    }

    /// The critical checks that have not been up yet; none once there were none.
    pub(crate) fn not_started(&self) -> Vec<String> {
        if self.started.load(Ordering::Acquire) {
            return Vec::new();
        }
        let waits = |slot: &Slot| match slot {
            Slot::Check(check) => check.inner().options.critical && !check.inner().ever_up(),
            Slot::Fault { .. } => true,
        };
        let slots = self.inner.slots();
        let waited_for: Vec<_> = slots.iter().filter(|slot| waits(slot)).map(Slot::to_string).collect();
        if waited_for.is_empty() {
            self.started.store(true, Ordering::Release);
        }
        waited_for
    }

    /// Starts the background runs, if there are to be any and this process has none.
    fn refresh(&self, runtime: &Arc<Runtime>) {
        let Some(every) = self.inner.settings.refresh else { return };
        let mut refresher = self.refresher.lock();
        if refresher.as_ref().is_none_or(|refresher| refresher.process != runtime.process()) {
            let task = runtime.spawn_background(Arc::clone(&self.inner).refresh(every, Arc::clone(runtime)));
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
    /// The report when nothing can be run.
    fn missing_threads(&self, error: &std::io::Error) -> Report {
        let message = "the threads of the health check cannot be started";
        if !self.missing_threads.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "health scope: {message}: {error}");
        }
        Report::of(vec![Entry::plain("health", "runtime", Some(message.into()))])
    }

    /// Runs all checks again and again, up to a tenth of the interval earlier or later: the replicas of a service, which start
    /// at the same time, should not run them at the same time.
    async fn refresh(self: Arc<Self>, every: Duration, runtime: Arc<Runtime>) {
        let random = RandomState::new();
        for round in 0_u64.. {
            let slots = self.slots();
            for check in slots.iter().filter_map(Slot::check) {
                check.inner().run_if_due(Duration::ZERO, &runtime);
            }
            // It may be the last handle to a check by now, and what that owns is dropped elsewhere.
            runtime.release(slots);
            sleep(jittered(every, random.hash_one(round))).await;
        }
    }

    /// All checks in the order of registration, each name once.
    fn slots(&self) -> Arc<Vec<Slot>> {
        let mut merged = self.merged.lock();
        // Read before the checks are: a change in between is merged now and once more at the next report.
        let versions: Vec<u64> = self.sources.registries.iter().map(Registry::version).collect();
        match &*merged {
            Some(known) if known.versions == versions => Arc::clone(&known.slots),
            _ => {
                let slots = Arc::new(self.merge());
                *merged = Some(Merged { versions, slots: Arc::clone(&slots) });
                slots
            }
        }
    }

    fn merge(&self) -> Vec<Slot> {
        let registered = self.sources.registries.iter().flat_map(Registry::checks).map(Slot::Check);
        let slots = unique(self.sources.fixed.iter().cloned().chain(registered));
        for slot in &slots {
            match slot {
                Slot::Check(check) => check.inner().shown_within(self.settings.deadline),
                Slot::Fault { message, .. } => {
                    tracing::error!(check = %slot, "health check {slot} can't be run: {message}");
                }
            }
        }
        if slots.is_empty() {
            let message = "there is no check: nothing is registered, and no state was found that derives HealthCheck";
            tracing::error!("health scope: {message}");
            return vec![Slot::fault("health", "checks", message)];
        }
        slots
    }
}

impl CheckCache for EngineInner {
    fn forget(&self) {
        let merged = self.merged.lock().take();
        drop(merged);
    }
}

/// Between nine and eleven tenths of a time.
fn jittered(time: Duration, random: u64) -> Duration {
    let per_mille = 900 + u32::try_from(random % 201).expect("it is at most 200");
    time * per_mille / 1000
}

impl Slot {
    pub(crate) fn fault(group: &str, name: &str, message: &str) -> Self {
        Self::Fault { group: group.into(), name: name.into(), message: message.into() }
    }

    fn check(&self) -> Option<&Check> {
        match self {
            Self::Check(check) => Some(check),
            Self::Fault { .. } => None,
        }
    }

    /// The outcome of a run; without one, that of the latest background run.
    async fn outcome(&self, pending: Option<Pending>, until: Instant, settings: &Settings) -> Outcome {
        match (self, pending) {
            (Self::Fault { message, .. }, _) => Outcome::down(Arc::clone(message)),
            (Self::Check(_), Some(Pending::Known(outcome))) => outcome,
            (Self::Check(check), Some(Pending::Run(run))) => {
                check.inner().outcome_of(run, until, settings.deadline).await
            }
            (Self::Check(check), None) => {
                let max_age = settings.refresh.map_or(Duration::ZERO, |refresh| settings.stale(refresh));
                check.inner().background_outcome(until, settings.deadline, max_age).await
            }
        }
    }

    /// What is known now, if it is no older than `keeps`.
    fn known_outcome(&self, keeps: Duration) -> Outcome {
        match self {
            Self::Fault { message, .. } => Outcome::down(Arc::clone(message)),
            Self::Check(check) => check.inner().cached_outcome(keeps),
        }
    }

    fn entry(&self, outcome: Outcome, details: bool) -> Entry {
        let inner = self.check().map(Check::inner);
        Entry {
            group: Arc::clone(self.group()),
            name: Arc::clone(self.name()),
            critical: inner.is_none_or(|inner| inner.options.critical),
            outcome,
            details: inner.filter(|_| details).and_then(|inner| inner.details()),
        }
    }

    fn group(&self) -> &Arc<str> {
        match self {
            Self::Check(check) => &check.inner().group,
            Self::Fault { group, .. } => group,
        }
    }

    fn name(&self) -> &Arc<str> {
        match self {
            Self::Check(check) => &check.inner().name,
            Self::Fault { name, .. } => name,
        }
    }
}

impl fmt::Display for Slot {
    /// `group.name`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.group(), self.name())
    }
}

impl Selection<'_> {
    fn takes(&self, slot: &Slot) -> bool {
        match self {
            Self::All => true,
            Self::Live => slot.check().is_some_and(|check| check.inner().options.live),
            Self::Critical => slot.check().is_none_or(|check| check.inner().options.critical),
            Self::Group(group) => **slot.group() == **group,
            Self::Check(group, name) => **slot.group() == **group && **slot.name() == **name,
        }
    }
}

/// Each name once. Two checks of one name are neither merged nor shadowed: their place says what happened. One check that
/// comes from two places is one check.
fn unique(slots: impl Iterator<Item = Slot>) -> Vec<Slot> {
    let mut unique: Vec<Slot> = Vec::new();
    let mut places: HashMap<(Arc<str>, Arc<str>), usize> = HashMap::new();
    for slot in slots {
        let slot = match slot {
            Slot::Check(check) => match check.valid() {
                Ok(()) => Slot::Check(check),
                Err(invalid) => Slot::fault(check.group(), check.name(), &invalid.to_string()),
            },
            fault @ Slot::Fault { .. } => fault,
        };
        let key = (Arc::clone(slot.group()), Arc::clone(slot.name()));
        match places.get(&key) {
            None => {
                places.insert(key, unique.len());
                unique.push(slot);
            }
            Some(&place) => {
                let same = match (&unique[place], &slot) {
                    (Slot::Check(one), Slot::Check(other)) => one.identity() == other.identity(),
                    _ => false,
                };
                if !same {
                    let message =
                        format!("two checks are named {}.{}: give one of them another name or group", key.0, key.1);
                    unique[place] = Slot::Fault { group: key.0, name: key.1, message: message.into() };
                }
            }
        }
    }
    unique
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicU32, Ordering},
    };

    use tokio::{runtime::Handle, time::sleep};

    use super::*;
    use crate::{ProbeError, ProbeErrorKind, status::Status};

    const SETTINGS: Settings =
        Settings { deadline: Duration::from_millis(800), max_age: Duration::from_secs(1), refresh: None };

    fn engine(checks: impl IntoIterator<Item = Check>) -> Engine {
        let fixed = checks.into_iter().map(Slot::Check).collect();
        Engine::new(Sources { fixed, registries: Vec::new() }, SETTINGS, test_executor())
    }

    fn test_executor() -> Executor {
        Executor::Test(Runtime::on(Handle::current()))
    }

    fn boom() -> Result<(), String> {
        panic!("s3cret payload")
    }

    async fn statuses(engine: &Engine) -> Vec<(String, Status, Option<String>)> {
        let (report, ..) = engine.report(Selection::All, false).await.unwrap();
        let entry = |entry: &Entry| {
            let error = entry.outcome.error.as_deref().map(str::to_owned);
            (format!("{}.{}", entry.group, entry.name), entry.outcome.status, error)
        };
        report.entries.iter().map(entry).collect()
    }

    fn sleeping(name: &str, ms: u64) -> Check {
        Check::new("service", name, move || async move {
            sleep(Duration::from_millis(ms)).await;
            Ok::<_, String>(())
        })
    }

    #[tokio::test(start_paused = true)]
    async fn four_checks_of_200_ms_take_one_round_of_200_ms() {
        let engine = engine(["a", "b", "c", "d"].map(|name| sleeping(name, 200)));
        let started = Instant::now();
        let (report, ..) = engine.report(Selection::All, false).await.unwrap();
        let took = started.elapsed();
        assert_eq!(report.status, Status::Up);
        // The clock of the runtime ticks in whole milliseconds.
        assert!((200..=202).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_leaves_by_the_deadline_and_names_the_hung_check_alone() {
        let hung = Check::new("cache", "hung", pending::<Result<(), String>>);
        let engine = engine([sleeping("fast", 10), hung]);
        let started = Instant::now();
        let answer = statuses(&engine).await;
        let took = started.elapsed();
        assert!((800..=802).contains(&took.as_millis()), "{took:?}");
        assert_eq!(
            answer,
            [
                ("service.fast".into(), Status::Up, None),
                ("cache.hung".into(), Status::Down, Some("timed out after 800 ms".into())),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_has_a_limit_of_its_own_inside_the_deadline() {
        let limited = |name, ms| sleeping(name, 10_000).timeout(Duration::from_millis(ms));
        let engine = engine([limited("short", 250), limited("long", 5_000)]);
        let answer = statuses(&engine).await;
        assert_eq!(answer[0].2.as_deref(), Some("timed out after 250 ms"));
        assert_eq!(answer[1].2.as_deref(), Some("timed out after 800 ms"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_told_without_asking_and_only_while_it_is_young() {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let check = Check::new("service", "counted", move || {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, String>(()) }
        });
        let engine = engine([check]);
        assert_eq!(engine.known(Selection::All).status, Status::Down, "nobody has asked");
        engine.report(Selection::All, false).await.unwrap();
        sleep(Duration::from_secs(59)).await;
        assert_eq!(engine.known(Selection::All).status, Status::Up);
        sleep(Duration::from_secs(1)).await;
        let known = engine.known(Selection::All);
        assert_eq!((known.status, known.entries[0].error()), (Status::Down, Some("last result is 60 s old")));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_is_served_until_it_is_max_age_old() {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let engine = engine([Check::new("a", "b", move || {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, String>(()) }
        })]);
        statuses(&engine).await;
        sleep(Duration::from_millis(900)).await;
        statuses(&engine).await;
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        sleep(Duration::from_millis(101)).await;
        statuses(&engine).await;
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_leaves_neither_cancels_the_run_nor_spoils_it() {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let engine = engine([Check::new("a", "b", move || {
            counted.fetch_add(1, Ordering::SeqCst);
            async {
                sleep(Duration::from_millis(200)).await;
                Ok::<_, String>(())
            }
        })]);
        let impatient = tokio::time::timeout(Duration::from_millis(50), engine.report(Selection::All, false)).await;
        assert!(impatient.is_err());
        assert_eq!(statuses(&engine).await[0].1, Status::Up);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_run_is_the_only_one_until_the_hard_limit_and_answers_at_once_meanwhile() {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let engine = engine([Check::new("a", "b", move || {
            counted.fetch_add(1, Ordering::SeqCst);
            pending::<Result<(), String>>()
        })]);
        let started = Instant::now();
        statuses(&engine).await;
        for _ in 0..28 {
            sleep(Duration::from_secs(1)).await;
            let asked = Instant::now();
            assert_eq!(statuses(&engine).await[0].1, Status::Down);
            assert_eq!(asked.elapsed(), Duration::ZERO);
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        tokio::time::sleep_until(started + Duration::from_millis(30_002)).await;
        assert_eq!(statuses(&engine).await[0].1, Status::Down);
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_success_is_not_shown_as_up_and_the_next_caller_runs_it_anew() {
        let took = Arc::new(AtomicU32::new(1_500));
        let ms = Arc::clone(&took);
        let engine = engine([Check::new("database", "cold", move || {
            let ms = ms.load(Ordering::SeqCst);
            async move {
                sleep(Duration::from_millis(ms.into())).await;
                Ok::<_, String>(())
            }
        })]);
        assert_eq!(statuses(&engine).await[0].1, Status::Down);
        took.store(5, Ordering::SeqCst);
        sleep(Duration::from_millis(710)).await;
        assert_eq!(statuses(&engine).await[0].1, Status::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panicking_check_is_down_and_the_others_are_not_disturbed() {
        let in_future = Check::new("a", "future", || async { boom() });
        let in_call = Check::new("a", "call", || std::future::ready(boom()));
        let engine = engine([in_future, in_call, sleeping("fine", 10)]);
        let panicked = || (Status::Down, Some("the check panicked".to_owned()));
        let answer: Vec<_> = statuses(&engine).await.into_iter().map(|(_, status, error)| (status, error)).collect();
        assert_eq!(answer, [panicked(), panicked(), (Status::Up, None)]);
    }

    #[tokio::test(start_paused = true)]
    async fn rise_and_fall_damp_what_is_shown() {
        // One result a second, true is up; below it what is shown, with fall 2 and rise 3.
        let raw = [true, false, true, false, false, true, true, false, true, true, true];
        let shown = [true, true, true, true, false, false, false, false, false, false, true];
        let step = Arc::new(AtomicU32::new(0));
        let engine = engine([Check::new("a", "b", move || {
            let up = raw[step.fetch_add(1, Ordering::SeqCst) as usize];
            async move { if up { Ok(()) } else { Err("down") } }
        })
        .fall(2)
        .rise(3)]);
        for (at, up) in shown.into_iter().enumerate() {
            let status = statuses(&engine).await[0].1;
            assert_eq!(status == Status::Up, up, "result {at}");
            sleep(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test]
    async fn one_name_for_two_checks_is_down_and_says_which() {
        let engine = engine([sleeping("main", 0), sleeping("other", 0), sleeping("main", 0)]);
        let answer = statuses(&engine).await;
        assert_eq!(answer.len(), 2);
        assert_eq!(answer[0].1, Status::Down);
        assert!(answer[0].2.as_deref().unwrap().starts_with("two checks are named service.main"), "{answer:?}");
        assert_eq!(answer[1].1, Status::Up);
    }

    #[tokio::test]
    async fn one_check_from_two_places_is_one_check() {
        let check = sleeping("main", 0);
        let engine = engine([check.clone(), check]);
        assert_eq!(statuses(&engine).await, [("service.main".into(), Status::Up, None)]);
    }

    #[tokio::test]
    async fn nothing_to_check_is_down() {
        let engine = engine([]);
        assert_eq!(engine.report(Selection::All, false).await.unwrap().0.status, Status::Down);
    }

    #[tokio::test]
    async fn what_is_asked_for_is_all_that_runs() {
        let engine = engine([
            sleeping("a", 0),
            Check::new("cache", "b", || async { Err(ProbeError::new(ProbeErrorKind::Failed, "was asked")) }),
        ]);
        let service = engine.report(Selection::Group("service"), false).await.unwrap();
        assert_eq!(service.0.status, Status::Up);
        assert!(engine.report(Selection::Check("service", "b"), false).await.is_none());
        assert!(engine.report(Selection::Group("queue"), false).await.is_none());
        assert_eq!(engine.report(Selection::Check("cache", "b"), false).await.unwrap().0.status, Status::Down);
    }

    #[tokio::test]
    async fn checks_can_come_and_go_while_the_engine_serves() {
        let registry = Registry::new();
        let sources = Sources { fixed: vec![Slot::Check(sleeping("fixed", 0))], registries: vec![registry.clone()] };
        let engine = Engine::new(sources, SETTINGS, test_executor());
        assert_eq!(statuses(&engine).await.len(), 1);
        registry.register(sleeping("late", 0)).unwrap();
        assert_eq!(statuses(&engine).await.len(), 2);
        registry.unregister("service", "late");
        assert_eq!(statuses(&engine).await.len(), 1);
    }

    fn counted(name: &str) -> (Arc<AtomicU32>, Check) {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let check = Check::new("service", name, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, String>(()) }
        });
        (runs, check)
    }

    fn refreshed(checks: impl IntoIterator<Item = Check>) -> Engine {
        let fixed = checks.into_iter().map(Slot::Check).collect();
        let settings = Settings { refresh: Some(Duration::from_secs(5)), ..SETTINGS };
        Engine::new(Sources { fixed, registries: Vec::new() }, settings, test_executor())
    }

    #[tokio::test(start_paused = true)]
    async fn with_refresh_the_first_caller_waits_for_the_first_round_and_all_others_only_read() {
        let (runs, check) = counted("a");
        let engine = refreshed([check, sleeping("slow", 200)]);
        let started = Instant::now();
        assert!(statuses(&engine).await.iter().all(|(_, status, _)| *status == Status::Up));
        assert!((200..=202).contains(&started.elapsed().as_millis()));
        for _ in 0..100 {
            let asked = Instant::now();
            statuses(&engine).await;
            assert_eq!(asked.elapsed(), Duration::ZERO);
            sleep(Duration::from_millis(600)).await;
        }
        // In a minute, every 4.5 to 5.5 s.
        let runs = runs.load(Ordering::SeqCst);
        assert!((11..=14).contains(&runs), "{runs}");
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_refresher_stops_results_grow_stale_and_the_answer_becomes_down() {
        let (_, check) = counted("a");
        let engine = refreshed([check]);
        assert_eq!(statuses(&engine).await[0].1, Status::Up);
        engine.refresher.lock().as_ref().unwrap().task.abort();
        sleep(Duration::from_secs(15)).await;
        assert_eq!(statuses(&engine).await[0].1, Status::Up);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(
            statuses(&engine).await[0],
            ("service.a".into(), Status::Down, Some("last result is 16 s old".into()))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresher_ends_with_its_engine() {
        let (runs, check) = counted("a");
        let engine = refreshed([check]);
        statuses(&engine).await;
        drop(engine);
        let before = runs.load(Ordering::SeqCst);
        sleep(Duration::from_mins(1)).await;
        assert_eq!(runs.load(Ordering::SeqCst), before);
        // The supervisor's.
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 1);
    }

    #[test]
    fn jitter_is_a_tenth_to_either_side_and_spread() {
        let every = Duration::from_secs(10);
        let times: Vec<_> = (0..10_000).map(|round| jittered(every, RandomState::new().hash_one(round))).collect();
        assert!(times.iter().all(|time| (Duration::from_secs(9)..=Duration::from_secs(11)).contains(time)));
        for (low, high) in [(9_000, 9_500), (9_500, 10_000), (10_000, 10_500), (10_500, 11_000)] {
            let here = times.iter().filter(|time| (low..high).contains(&time.as_millis())).count();
            assert!((2_000..3_000).contains(&here), "{here} of 10000 between {low} and {high} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_polls_of_a_hung_check_are_one_task() {
        let engine = engine([Check::new("a", "b", pending::<Result<(), String>>)]);
        for poll in 0..10_000 {
            statuses(&engine).await;
            // The run's, and the supervisor's.
            assert_eq!(Handle::current().metrics().num_alive_tasks(), 2, "poll {poll}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_scope_with_a_longer_deadline_that_comes_later_sees_the_result_of_the_run_in_flight() {
        for polled_after in [50, 150, 250] {
            let slow = sleeping("slow", 300);
            let with = |ms| {
                let settings = Settings { deadline: Duration::from_millis(ms), ..SETTINGS };
                let fixed = vec![Slot::Check(slow.clone())];
                Engine::new(Sources { fixed, registries: Vec::new() }, settings, test_executor())
            };
            let (first, second) = (with(100), with(3_000));
            let later = async {
                sleep(Duration::from_millis(polled_after)).await;
                statuses(&second).await
            };
            let (first, second) = tokio::join!(statuses(&first), later);
            assert_eq!(first[0].2.as_deref(), Some("timed out after 100 ms"));
            assert_eq!(second[0].1, Status::Up, "polled after {polled_after} ms: {second:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_run_whose_future_panics_when_it_is_dropped_is_followed_by_another() {
        struct PanicsOnDrop;

        impl Drop for PanicsOnDrop {
            fn drop(&mut self) {
                panic!("in the destructor")
            }
        }

        let runs = AtomicU32::new(0);
        let engine = engine([Check::new("a", "b", move || {
            let is_first = runs.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if is_first {
                    let _guard = PanicsOnDrop;
                    pending::<()>().await;
                }
                Ok::<_, String>(())
            }
        })]);
        assert_eq!(statuses(&engine).await[0].1, Status::Down);
        sleep(Duration::from_secs(31)).await;
        assert_eq!(statuses(&engine).await[0].1, Status::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_longer_than_the_deadline_is_the_limit_of_the_run() {
        let engine = engine([sleeping("slow", 2_000).timeout(Duration::from_secs(5))]);
        assert_eq!(statuses(&engine).await[0].2.as_deref(), Some("timed out after 800 ms"));
        sleep(Duration::from_millis(1_300)).await;
        // The run has ended within its own limit meanwhile.
        assert_eq!(statuses(&engine).await[0].1, Status::Up);
    }

    #[tokio::test]
    async fn a_check_that_is_unregistered_is_dropped_at_once() {
        let (pool, registry) = (Arc::new(()), Registry::new());
        let owned = Arc::clone(&pool);
        let check = Check::new("database", "plugin", move || {
            let _pool = Arc::clone(&owned);
            async { Ok::<_, String>(()) }
        });
        registry.register(check).unwrap();
        let sources = Sources { fixed: vec![Slot::Check(sleeping("fixed", 0))], registries: vec![registry.clone()] };
        let engine = Engine::new(sources, SETTINGS, test_executor());
        assert_eq!(statuses(&engine).await.len(), 2);
        assert!(registry.unregister("database", "plugin"));
        assert_eq!(Arc::strong_count(&pool), 1);
        assert_eq!(statuses(&engine).await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_cannot_start_is_a_failure_and_no_old_result_is_shown_again() {
        let runtime = Runtime::on(Handle::current());
        let sources = Sources { fixed: vec![Slot::Check(sleeping("up", 0))], registries: Vec::new() };
        let engine = Engine::new(sources, SETTINGS, Executor::Test(Arc::clone(&runtime)));
        assert_eq!(statuses(&engine).await[0].1, Status::Up);
        runtime.refuse(true);
        for _ in 0..3 {
            sleep(Duration::from_millis(1_001)).await;
            let failed = ("service.up".into(), Status::Down, Some("the check could not start".into()));
            assert_eq!(statuses(&engine).await, [failed]);
        }
        runtime.refuse(false);
        sleep(Duration::from_millis(1_001)).await;
        assert_eq!(statuses(&engine).await[0].1, Status::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn without_threads_a_report_says_so_and_a_later_one_is_complete() {
        let runtime = Runtime::on(Handle::current());
        let sources = Sources { fixed: vec![Slot::Check(sleeping("up", 0))], registries: Vec::new() };
        let engine = Engine::new(sources, SETTINGS, Executor::Test(Arc::clone(&runtime)));
        runtime.refuse_all(true);
        let message = "the threads of the health check cannot be started";
        assert_eq!(statuses(&engine).await, [("health.runtime".into(), Status::Down, Some(message.into()))]);
        runtime.refuse_all(false);
        assert_eq!(statuses(&engine).await[0].1, Status::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn an_impatient_scope_does_not_judge_for_a_patient_one() {
        let slow = sleeping("slow", 300);
        let with = |ms| {
            let settings = Settings { deadline: Duration::from_millis(ms), ..SETTINGS };
            let fixed = vec![Slot::Check(slow.clone())];
            Engine::new(Sources { fixed, registries: Vec::new() }, settings, test_executor())
        };
        let (impatient, patient) = (with(100), with(3_000));
        let both = async { tokio::join!(statuses(&impatient), statuses(&patient)) };
        let (first, second) = both.await;
        assert_eq!(first[0].2.as_deref(), Some("timed out after 100 ms"));
        assert_eq!(second[0].1, Status::Up);
        for _ in 0..3 {
            sleep(Duration::from_millis(1_001)).await;
            assert_eq!(statuses(&impatient).await[0].1, Status::Down);
            assert_eq!(statuses(&patient).await[0].1, Status::Up);
        }
    }

    #[tokio::test]
    async fn a_check_that_blocks_its_thread_past_its_limit_is_not_up() {
        let blocking = Check::new("a", "b", || async {
            std::thread::sleep(Duration::from_millis(100));
            Ok::<_, String>(())
        });
        let engine = engine([blocking.timeout(Duration::from_millis(20))]);
        assert_eq!(statuses(&engine).await[0].2.as_deref(), Some("timed out after 20 ms"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_run_that_another_caller_begins_is_not_taken_for_no_answer() {
        // `first` is fresh when the slow caller comes, and due before `second` has answered it.
        let engine = engine([sleeping("first", 200), sleeping("second", 400)]);
        let first = engine.report(Selection::Check("service", "first"), false);
        let second = async {
            sleep(Duration::from_millis(100)).await;
            statuses(&engine).await
        };
        tokio::join!(first, second);
        // At 500 ms: results of 200 and 500 ms. At 1190 ms only the second is asked for anew.
        sleep(Duration::from_millis(1_000)).await;
        let slow = async {
            let up = |(_, status, _): &(String, Status, Option<String>)| *status == Status::Up;
            assert!(statuses(&engine).await.iter().all(up));
        };
        let other = async {
            for _ in 0..20 {
                sleep(Duration::from_millis(20)).await;
                let report = engine.report(Selection::Check("service", "first"), false).await.unwrap();
                assert_eq!(report.0.status, Status::Up);
            }
        };
        tokio::join!(slow, other);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_check_counts_towards_fall_as_often_as_it_is_due() {
        let first = Arc::new(AtomicU32::new(0));
        let engine = engine([Check::new("a", "b", move || {
            let first = first.fetch_add(1, Ordering::SeqCst) == 0;
            async move { if first { Ok::<_, String>(()) } else { pending().await } }
        })
        .fall(3)]);
        let started = Instant::now();
        while statuses(&engine).await[0].1 == Status::Up {
            sleep(Duration::from_secs(1)).await;
        }
        // A run at 1 s that is given up at 1.8 s, and two more of no answer when they are due.
        assert!(started.elapsed() < Duration::from_millis(4_900), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_checks_neither_order_takes_the_next_run_for_no_answer() {
        for names in [["slow", "quick"], ["quick", "slow"]] {
            let check = |name: &str| sleeping(name, if name == "slow" { 700 } else { 750 });
            let engine = engine(names.map(check));
            statuses(&engine).await;
            // Quick is a little fresher than slow.
            sleep(Duration::from_millis(980)).await;
            let all = statuses(&engine);
            let other = async {
                sleep(Duration::from_millis(150)).await;
                engine.report(Selection::Check("service", "quick"), false).await.unwrap().0.status
            };
            let (all, other) = tokio::join!(all, other);
            assert!(all.iter().all(|(_, status, _)| *status == Status::Up), "{all:?}");
            assert_eq!(other, Status::Up);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_max_age_any_number_of_callers_get_the_answer_of_the_run_they_wait_for() {
        let settings = Settings { max_age: Duration::ZERO, ..SETTINGS };
        let sources = Sources { fixed: vec![Slot::Check(sleeping("slow", 500))], registries: Vec::new() };
        let engine = Arc::new(Engine::new(sources, settings, test_executor()));
        let callers: Vec<_> = (0..50)
            .map(|n| {
                let engine = Arc::clone(&engine);
                tokio::spawn(async move {
                    sleep(Duration::from_millis(n * 13)).await;
                    for _ in 0..10 {
                        assert_eq!(statuses(&engine).await[0].1, Status::Up);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_refresh_a_check_that_comes_late_is_asked_at_once() {
        let registry = Registry::new();
        let settings = Settings { refresh: Some(Duration::from_mins(1)), ..SETTINGS };
        let sources = Sources { fixed: vec![Slot::Check(sleeping("first", 0))], registries: vec![registry.clone()] };
        let engine = Engine::new(sources, settings, test_executor());
        statuses(&engine).await;
        registry.register(sleeping("late", 100)).unwrap();
        assert!(statuses(&engine).await.iter().all(|(_, status, _)| *status == Status::Up));
    }

    #[tokio::test]
    async fn a_payload_is_dropped_and_one_that_panics_again_does_no_harm() {
        struct Payload(Arc<AtomicU32>, bool);

        impl Drop for Payload {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
                assert!(!self.1, "again");
            }
        }

        let dropped = Arc::new(AtomicU32::new(0));
        for again in [false, true] {
            let counted = Arc::clone(&dropped);
            let check = Check::new("a", "b", move || -> std::future::Ready<Result<(), String>> {
                std::panic::panic_any(Payload(Arc::clone(&counted), again))
            });
            assert_eq!(statuses(&engine([check])).await[0].2.as_deref(), Some("the check panicked"));
        }
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_panics_where_it_names_itself_is_run_again_all_the_same() {
        #[derive(Clone)]
        struct Nameless(Arc<AtomicU32>);

        impl crate::Probe for Nameless {
            const GROUP: &'static str = "service";

            async fn probe(&self) -> Result<(), ProbeError> {
                if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
                    sleep(Duration::from_millis(1_200)).await;
                }
                Ok(())
            }

            fn resource(&self) -> Option<String> {
                panic!("no name")
            }
        }

        let engine = engine([Check::probe("nameless", Nameless(Arc::default()))]);
        assert_eq!(statuses(&engine).await[0].1, Status::Down);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(statuses(&engine).await[0].1, Status::Up);
    }
}
