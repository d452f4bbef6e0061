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
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use proptest::prelude::*;
    use tokio::{
        runtime::Handle,
        time::{Instant, advance},
    };

    use super::*;
    use crate::{
        check::Check,
        engine::{CheckEntry, EngineConfig, Selection, Sources},
        lifecycle::Holds,
        runtime::{Executor, Runtime},
    };

    #[derive(Clone, Debug)]
    enum Step {
        /// Switches the critical, the optional or the shared check.
        Switch(usize, bool),
        /// Holds the process for that many seconds.
        Hold(u64),
        /// Ends the oldest hold.
        EndHold,
        Drain,
        /// Waits for that many seconds.
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (0_usize..3, any::<bool>()).prop_map(|(check, is_up)| Step::Switch(check, is_up)),
            2 => (1_u64..100).prop_map(Step::Hold),
            1 => Just(Step::EndHold),
            1 => Just(Step::Drain),
            4 => (1_u64..60).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..40)
    }

    /// The documented rules.
    #[derive(Default)]
    struct Model {
        is_up: [bool; 3],
        ever_up: [bool; 3],
        /// The times at which the holds end, in seconds.
        holds: Vec<u64>,
        is_draining: bool,
        now: u64,
    }

    impl Model {
        fn has_started(&self) -> bool {
            self.ever_up[0] && self.ever_up[2]
        }

        fn is_in_rotation(&self) -> bool {
            !self.is_draining && self.holds.iter().all(|&end| end <= self.now)
        }

        /// Whether health, ready and startup respond with 200.
        fn responses(&self) -> [bool; 3] {
            let [critical, _, shared] = self.is_up;
            [
                self.is_in_rotation() && critical && shared,
                self.is_in_rotation() && critical && self.has_started(),
                self.has_started(),
            ]
        }
    }

    async fn simulate(steps: Vec<Step>) -> Result<(), TestCaseError> {
        let switches = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let check = |index: usize| {
            let switch = Arc::clone(&switches[index]);
            Check::new("service", format!("{index}"), move || {
                let is_up = switch.load(Ordering::SeqCst);
                async move { if is_up { Ok(()) } else { Err("switched off") } }
            })
        };
        let fixed = [check(0), check(1).optional(), check(2).shared()].map(CheckEntry::Check).into();
        let config =
            EngineConfig { deadline: Duration::from_secs(1), max_age: Duration::ZERO, refresh: None, if_empty: None };
        let executor = Executor::Test(Runtime::on(Handle::current()));
        let engine = Engine::new(Sources { fixed, ..Sources::default() }, config, executor);
        let holds = Holds::default();
        let mut held = Vec::new();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Switch(check, is_up) => {
                    switches[check].store(is_up, Ordering::SeqCst);
                    model.is_up[check] = is_up;
                }
                Step::Hold(ttl) => {
                    held.push(holds.add("maintenance".to_owned(), Instant::now() + Duration::from_secs(ttl)));
                    model.holds.push(model.now + ttl);
                }
                Step::EndHold if !held.is_empty() => {
                    holds.remove(held.remove(0));
                    model.holds.remove(0);
                }
                Step::EndHold => {}
                Step::Drain => model.is_draining = true,
                Step::Wait(seconds) => {
                    advance(Duration::from_secs(seconds)).await;
                    model.now += seconds;
                }
            }
            let results = engine.results(Selection::All, &[], false).await.entries;
            for (ever_up, is_up) in model.ever_up.iter_mut().zip(model.is_up) {
                *ever_up |= is_up;
            }
            let process = ProcessState {
                is_draining: model.is_draining,
                held: holds.message(),
                pending: engine.pending_startup(),
                missing_workers: None,
            };
            let responds = |endpoint| assess(&endpoint, results.clone(), &process, Vec::new).status() != Status::Down;
            let responses = [Endpoint::Health, Endpoint::Ready, Endpoint::Startup].map(responds);
            prop_assert_eq!(responses, model.responses());
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_endpoints_respond_as_the_model_says(steps in steps()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(simulate(steps))?;
        }
    }
}
