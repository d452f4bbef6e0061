//! [`assess`]: the report of an endpoint, from the results of checks and the state of the process.

use super::endpoint::Endpoint;
use crate::{
    engine::Engine,
    lifecycle::{self, MissingWorkers},
    report::{Entry, Report},
    status::Status,
};

/// What the process says of itself.
pub(super) struct ProcessState {
    pub(super) is_draining: bool,
    /// The reasons for which it is held out of rotation.
    pub(super) held: Option<String>,
    /// The checks that have not been up yet, without which the service has not started.
    pub(super) pending: Vec<String>,
    /// Why no worker serves the application. Only a management server reports it.
    pub(super) missing_workers: Option<MissingWorkers>,
}

impl ProcessState {
    pub(super) fn now(engine: &Engine) -> Self {
        Self {
            is_draining: lifecycle::is_draining(),
            held: lifecycle::held(),
            pending: engine.pending_startup(),
            missing_workers: None,
        }
    }

    /// The reasons for which the process is out of rotation.
    fn rotation(&self) -> Vec<Entry> {
        let drain = self.is_draining.then(|| Entry::down("health", "drain", "server is draining"));
        let hold = self.held.as_deref().map(|message| Entry::down("health", "hold", message));
        drain.into_iter().chain(hold).chain(self.without_workers()).collect()
    }

    /// The entry for the lack of workers. A drain ends with it.
    fn without_workers(&self) -> Option<Entry> {
        self.missing_workers.filter(|_| !self.is_draining).map(MissingWorkers::entry)
    }
}

/// The report of an endpoint. What the process says of itself stands before the results of the checks.
pub(super) fn assess(
    endpoint: &Endpoint<'_>,
    results: Vec<Entry>,
    process: &ProcessState,
    workers: impl FnOnce() -> Vec<Entry>,
) -> Report {
    let before_results = |mut entries: Vec<Entry>| {
        entries.extend(results);
        entries
    };
    let pending = process.pending.join(", ");
    match endpoint {
        Endpoint::Health => Report::of(before_results(process.rotation())),
        Endpoint::Ready if pending.is_empty() => Report::of_started(before_results(process.rotation())),
        Endpoint::Ready => {
            let mut entries = process.rotation();
            entries.push(Entry::down("health", "startup", &format!("not started: {pending} has not been up yet")));
            Report::of(before_results(entries))
        }
        Endpoint::Live => {
            let entries = workers().into_iter().chain(process.without_workers()).collect();
            Report::of(before_results(entries))
        }
        Endpoint::Startup => {
            let not_registered = process.missing_workers.filter(|missing| *missing == MissingWorkers::NotRegistered);
            // Permanently UP once started, whatever the results of the checks are now.
            let status = if pending.is_empty() && not_registered.is_none() { Status::Up } else { Status::Down };
            Report::with_status(status, before_results(not_registered.map(MissingWorkers::entry).into_iter().collect()))
        }
        Endpoint::Group(_) | Endpoint::Check(..) => Report::of(before_results(Vec::new())),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
    use tokio::{
        runtime::Handle,
        time::{Instant, advance},
    };

    use super::*;
    use crate::{
        check::Check,
        engine::{CheckEntry, EngineConfig, Selection, Sources},
        lifecycle::Holds,
        options::{CheckOptions, Role},
        registry::Registry,
        runtime::{Executor, Runtime},
    };

    /// The status of a report, and the names of its entries, if a shared check is down.
    fn assessed(endpoint: &Endpoint<'_>, process: &ProcessState) -> (Status, Vec<String>) {
        let options = Some(CheckOptions { role: Role::Shared, ..CheckOptions::default() });
        let results = vec![Entry { options, ..Entry::down("cache", "sessions", "unreachable") }];
        let workers = || vec![Entry::plain("health", "worker.0", None)];
        let report = assess(endpoint, results, process, workers);
        (report.status(), report.checks().iter().map(|entry| entry.name().to_owned()).collect())
    }

    #[test]
    fn what_the_process_says_of_itself_stands_before_the_results() {
        use Endpoint::{Health, Live, Ready, Startup};
        let works = || ProcessState { is_draining: false, held: None, pending: Vec::new(), missing_workers: None };
        let drains = || ProcessState { is_draining: true, ..works() };
        let held = || ProcessState { held: Some("maintenance".to_owned()), ..works() };
        let starts = || ProcessState { pending: vec!["cache.sessions".to_owned()], ..works() };
        let without_workers = |why| ProcessState { missing_workers: Some(why), ..works() };
        let (not_registered, stopped) = (MissingWorkers::NotRegistered, MissingWorkers::Stopped);
        let drained = ProcessState { is_draining: true, ..without_workers(stopped) };
        for (endpoint, process, status, entries) in [
            (Health, works(), Status::Down, vec![]),
            (Health, held(), Status::Down, vec!["hold"]),
            (Health, ProcessState { is_draining: true, ..held() }, Status::Down, vec!["drain", "hold"]),
            (Health, without_workers(stopped), Status::Down, vec!["workers"]),
            // A drain ends with the workers.
            (Health, drained, Status::Down, vec!["drain"]),
            // A shared check that is down only degrades a service that has started.
            (Ready, works(), Status::Degraded, vec![]),
            (Ready, drains(), Status::Down, vec!["drain"]),
            (Ready, starts(), Status::Down, vec!["startup"]),
            (Ready, ProcessState { is_draining: true, ..starts() }, Status::Down, vec!["drain", "startup"]),
            (Live, held(), Status::Down, vec!["worker.0"]),
            (Live, without_workers(stopped), Status::Down, vec!["worker.0", "workers"]),
            (Startup, drains(), Status::Up, vec![]),
            (Startup, starts(), Status::Down, vec![]),
            (Startup, without_workers(stopped), Status::Up, vec![]),
            (Startup, without_workers(not_registered), Status::Down, vec!["workers"]),
        ] {
            let entries = entries.into_iter().chain(["sessions"]).map(str::to_owned).collect();
            assert_eq!(assessed(&endpoint, &process), (status, entries), "{endpoint:?}");
        }
    }

    /// The checks by their index: critical, optional, shared, and a critical one that is registered only at times.
    const REGISTERED: usize = 3;

    #[derive(Clone, Debug)]
    enum Step {
        /// Switches a check.
        Switch(usize, bool),
        Register,
        Unregister,
        /// Holds the process for that many seconds.
        Hold(u64),
        /// Ends the oldest hold.
        EndHold,
        Drain,
        /// Waits for that many seconds.
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_usize..4, any::<bool>()).prop_map(|(check, is_up)| Step::Switch(check, is_up)),
            1 => Just(Step::Register),
            1 => Just(Step::Unregister),
            2 => (1_u64..100).prop_map(Step::Hold),
            1 => Just(Step::EndHold),
            4 => (1_u64..60).prop_map(Step::Wait),
        ]
    }

    /// The documented rules.
    #[derive(Default)]
    struct Model {
        is_up: [bool; 4],
        ever_up: [bool; 4],
        is_registered: bool,
        has_started: bool,
        /// The times at which the holds end, in seconds.
        holds: Vec<u64>,
        is_draining: bool,
        now: u64,
    }

    impl Model {
        fn poll(&mut self) {
            for (ever_up, is_up) in self.ever_up.iter_mut().zip(self.is_up) {
                *ever_up |= is_up;
            }
            self.has_started |= self.ever_up[0] && self.ever_up[2] && (!self.is_registered || self.ever_up[REGISTERED]);
        }

        fn is_in_rotation(&self) -> bool {
            !self.is_draining && self.holds.iter().all(|&end| end <= self.now)
        }

        /// Whether health, ready and startup respond with 200.
        fn responses(&self) -> [bool; 3] {
            let [critical, _, shared, registered] = self.is_up;
            let critical = critical && (!self.is_registered || registered);
            [
                self.is_in_rotation() && critical && shared,
                self.is_in_rotation() && critical && self.has_started,
                self.has_started,
            ]
        }
    }

    /// The checks, the engine and the holds of a process, and what the model says of them.
    struct Process {
        switches: [Arc<AtomicBool>; 4],
        registry: Registry,
        engine: Engine,
        holds: Holds,
        held: VecDeque<u64>,
        model: Model,
    }

    impl Process {
        fn start() -> Self {
            let switches = [(); 4].map(|()| Arc::new(AtomicBool::new(false)));
            let fixed = [check(&switches, 0), check(&switches, 1).optional(), check(&switches, 2).shared()];
            let registry = Registry::new();
            let sources = Sources {
                fixed: fixed.map(CheckEntry::Check).into(),
                registries: vec![registry.clone()],
                ..Sources::default()
            };
            let config = EngineConfig {
                deadline: Duration::from_secs(1),
                max_age: Duration::ZERO,
                refresh: None,
                if_empty: None,
            };
            let engine = Engine::new(sources, config, Executor::Test(Runtime::on(Handle::current())));
            Self { switches, registry, engine, holds: Holds::default(), held: VecDeque::new(), model: Model::default() }
        }

        /// Applies a step, and compares the responses with those of the model.
        async fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
            let model = &mut self.model;
            match step {
                Step::Switch(check, is_up) => {
                    self.switches[check].store(is_up, Ordering::SeqCst);
                    model.is_up[check] = is_up;
                }
                Step::Register => {
                    if self.registry.register(check(&self.switches, REGISTERED)).is_ok() {
                        prop_assert!(!model.is_registered);
                        model.is_registered = true;
                        model.ever_up[REGISTERED] = false;
                    }
                }
                Step::Unregister => {
                    prop_assert_eq!(self.registry.unregister("service", "3"), model.is_registered);
                    model.is_registered = false;
                }
                Step::Hold(ttl) => {
                    self.held
                        .push_back(self.holds.add("maintenance".to_owned(), Instant::now() + Duration::from_secs(ttl)));
                    model.holds.push(model.now + ttl);
                }
                Step::EndHold => {
                    if let Some(oldest) = self.held.pop_front() {
                        self.holds.remove(oldest);
                        model.holds.remove(0);
                    }
                }
                Step::Drain => model.is_draining = true,
                Step::Wait(seconds) => {
                    advance(Duration::from_secs(seconds)).await;
                    model.now += seconds;
                }
            }
            let results = self.engine.results(Selection::All, &[], false).await.entries;
            model.poll();
            let process = ProcessState {
                is_draining: model.is_draining,
                held: self.holds.message(),
                pending: self.engine.pending_startup(),
                missing_workers: None,
            };
            let responds = |endpoint| assess(&endpoint, results.clone(), &process, Vec::new).status() != Status::Down;
            let responses = [Endpoint::Health, Endpoint::Ready, Endpoint::Startup].map(responds);
            prop_assert_eq!(responses, model.responses());
            Ok(())
        }
    }

    fn check(switches: &[Arc<AtomicBool>; 4], index: usize) -> Check {
        let switch = Arc::clone(&switches[index]);
        Check::new("service", format!("{index}"), move || {
            let is_up = switch.load(Ordering::SeqCst);
            async move { if is_up { Ok(()) } else { Err("switched off") } }
        })
    }

    fn on_a_paused_clock<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_endpoints_respond_as_the_model_says(
            steps in prop::collection::vec(prop_oneof![16 => step(), 1 => Just(Step::Drain)], 1..40),
        ) {
            on_a_paused_clock(async {
                let mut process = Process::start();
                for step in steps {
                    process.step(step).await?;
                }
                Ok::<_, TestCaseError>(())
            })?;
        }
    }

    #[test]
    fn long_thirty_days_of_random_changes_are_reported_as_the_model_says() {
        const DAY: u64 = 24 * 60 * 60;
        let mut random = TestRunner::default();
        let mut polls = 0;
        on_a_paused_clock(async {
            // A process is drained after a day, and another one is started.
            for _ in 0..30 {
                let mut process = Process::start();
                while process.model.now < DAY {
                    process.step(step().new_tree(&mut random).unwrap().current()).await.unwrap();
                    polls += 1;
                }
                process.step(Step::Drain).await.unwrap();
            }
        });
        println!("{polls} polls in 30 days");
    }
}
