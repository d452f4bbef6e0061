//! What all clones of a check share: its name, options and probe, and its state behind a lock.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::AbortHandle;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::state::{Rules, State};
use crate::{
    events::Subscribers,
    options::CheckOptions,
    probe::DynProbe,
    report::{Details, Outcome, Sample, milliseconds},
    runtime::CheckIo,
};

pub(crate) struct CheckInner {
    pub(crate) group: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) options: CheckOptions,
    pub(crate) probe: Arc<dyn DynProbe>,
    pub(crate) subscribers: Subscribers,
    /// The name of the resource in the log, as the probe returned it before the first run.
    pub(super) resource: OnceLock<Option<String>>,
    /// The longest deadline of the scopes that have shown the check, in milliseconds. It limits runs without a timeout.
    longest_deadline_ms: AtomicU64,
    /// The runtime for I/O of a user's check.
    pub(super) io: CheckIo,
    pub(super) shared: Mutex<Shared>,
    /// Notified when a run has a result or a recorded timeout.
    pub(super) settled: Notify,
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) state: State,
    /// Drops the future of the run in flight.
    pub(super) abort: Option<AbortHandle>,
    /// The current entry of the supervisor for this check: its process and its time.
    pub(super) supervised: Option<(u32, Instant)>,
}

impl CheckInner {
    pub(super) fn new(group: Arc<str>, name: Arc<str>, options: CheckOptions, probe: Arc<dyn DynProbe>) -> Self {
        Self {
            group,
            name,
            options,
            probe,
            subscribers: Subscribers::default(),
            resource: OnceLock::new(),
            longest_deadline_ms: AtomicU64::new(0),
            io: CheckIo::default(),
            shared: Mutex::default(),
            settled: Notify::new(),
        }
    }

    /// Registers that a scope with this deadline shows the check. A run without a timeout may take that long.
    pub(crate) fn observe_deadline(&self, deadline: Duration) {
        self.longest_deadline_ms.fetch_max(milliseconds(deadline), Ordering::Relaxed);
    }

    pub(super) fn rules(&self) -> Rules {
        let CheckOptions { timeout, rise, fall, .. } = self.options;
        let longest_deadline = || Duration::from_millis(self.longest_deadline_ms.load(Ordering::Relaxed));
        Rules { limit: timeout.unwrap_or_else(longest_deadline), rise, fall }
    }

    /// Waits for the result of a run until the response has to leave, which is `deadline` after its request.
    pub(crate) async fn outcome_of(&self, run: u64, until: Instant, deadline: Duration) -> Outcome {
        let outcome = self.wait_for(until, |state| state.outcome_of(run)).await;
        outcome.unwrap_or_else(|| self.outcome_at_deadline(deadline))
    }

    /// The latest result of background runs, if it is younger than `max_age`. Waits only for the first result.
    pub(crate) async fn background_outcome(&self, until: Instant, deadline: Duration, max_age: Duration) -> Outcome {
        let outcome = self.wait_for(until, |state| state.latest_outcome(Instant::now(), max_age)).await;
        outcome.unwrap_or_else(|| self.outcome_at_deadline(deadline))
    }

    /// The latest result, if it is younger than `max_age`. Neither runs the check nor waits.
    pub(crate) fn cached_outcome(&self, max_age: Duration) -> Outcome {
        let outcome = self.shared.lock().state.latest_outcome(Instant::now(), max_age);
        outcome.unwrap_or_else(|| Outcome::down("no result yet"))
    }

    fn outcome_at_deadline(&self, deadline: Duration) -> Outcome {
        self.shared.lock().state.outcome_at_deadline(deadline, self.rules())
    }

    async fn wait_for<T>(&self, until: Instant, read: impl Fn(&State) -> Option<T>) -> Option<T> {
        loop {
            // Created before the state is read, so that a notification in between is not lost.
            let settled = self.settled.notified();
            let value = read(&self.shared.lock().state);
            if value.is_some() {
                return value;
            }
            if timeout_at(until, settled).await.is_err() {
                return read(&self.shared.lock().state);
            }
        }
    }

    pub(crate) fn fresh_until(&self, max_age: Duration) -> Option<Instant> {
        self.shared.lock().state.fresh_until(max_age)
    }

    pub(crate) fn valid_until(&self, max_age: Duration) -> Option<Instant> {
        self.shared.lock().state.valid_until(max_age)
    }

    pub(crate) fn ever_up(&self) -> bool {
        self.shared.lock().state.ever_up()
    }

    pub(crate) fn details(&self) -> Option<Details> {
        self.shared.lock().state.details(Instant::now())
    }

    pub(crate) fn history(&self) -> Vec<Sample> {
        self.shared.lock().state.history(Instant::now())
    }
}
