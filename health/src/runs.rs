//! The runs of one check: at most one in flight, its limits, its outcome and what is shown of it.
//!
//! A run belongs to the check, not to who asked: it is a task of its own on the probing runtime, and nobody's leaving
//! cancels it. The engine starts runs and waits for them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    check::Core,
    error::{Class, ProbeError},
    probe::ask_contained,
    report::Status,
};

/// A run that has not ended by then is aborted, unless ten of its limits are longer.
const HARD_LIMIT: Duration = Duration::from_secs(30);
const HARD_LIMIT_IN_LIMITS: u32 = 10;

/// The runs of one check.
#[derive(Default)]
pub(crate) struct Runs {
    state: Mutex<State>,
    /// Told whenever a run has an outcome, or has passed its limit.
    settled: Notify,
}

#[derive(Default)]
struct State {
    in_flight: Option<InFlight>,
    latest: Option<Latest>,
    /// Of the classes of the failures since the check was last up, those that the log has.
    logged: Vec<Class>,
}

#[derive(Clone, Copy, PartialEq)]
enum InFlight {
    Asked,
    /// Its limit has passed, and the outcome says so already.
    Overdue,
}

struct Latest {
    finished: Instant,
    /// To be run anew whatever its age: the answer to this one came too late to count.
    due: bool,
    shown: Outcome,
    /// Results in a row that contradict what is shown.
    against: u32,
}

/// What a run came to, as far as answers show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    /// The public sentence; `None` when up.
    pub(crate) error: Option<Arc<str>>,
}

impl Outcome {
    pub(crate) fn no_answer_within(limit: Duration) -> Self {
        Self { status: Status::Down, error: Some(sentence_no_answer(limit).into()) }
    }
}

impl From<&Result<(), ProbeError>> for Outcome {
    fn from(result: &Result<(), ProbeError>) -> Self {
        match result {
            Ok(()) => Self { status: Status::Up, error: None },
            Err(error) => Self { status: error.status(), error: Some(error.sentence().as_ref().into()) },
        }
    }
}

impl Core {
    /// Starts a run, unless one is in flight or the latest result is younger than `max_age`.
    pub(crate) fn run_if_due(self: &Arc<Self>, max_age: Duration, deadline: Duration, home: &Handle) {
        let mut state = self.runs.state();
        let fresh = state.latest.as_ref().is_some_and(|latest| !latest.due && latest.finished.elapsed() < max_age);
        if fresh || state.in_flight.is_some() {
            return;
        }
        state.in_flight = Some(InFlight::Asked);
        drop(state);
        let limit = self.options.timeout.map_or(deadline, |timeout| timeout.min(deadline));
        home.spawn(Arc::clone(self).run(limit));
    }

    async fn run(self: Arc<Self>, limit: Duration) {
        let started = Instant::now();
        let hard_limit = HARD_LIMIT.max(limit * HARD_LIMIT_IN_LIMITS);
        let mut asked = std::pin::pin!(ask_contained(&*self.probe));
        if let Ok(result) = timeout(limit, &mut asked).await {
            self.record(&result, started.elapsed(), None);
            return;
        }
        let late = ProbeError::new(Class::TimedOut, sentence_no_answer(limit));
        self.record(&Err(late), limit, Some(InFlight::Overdue));
        match timeout_at(started + hard_limit, asked).await {
            // It says more than that there was no answer.
            Ok(Err(failure)) => self.record(&Err(failure), started.elapsed(), None),
            // Too late to count, or aborted here: what is known stays, and who asks next has it run anew.
            Ok(Ok(())) | Err(_) => {
                let mut state = self.runs.state();
                state.in_flight = None;
                if let Some(latest) = &mut state.latest {
                    latest.due = true;
                }
            }
        }
    }

    fn record(&self, result: &Result<(), ProbeError>, latency: Duration, in_flight: Option<InFlight>) {
        let mut state = self.runs.state();
        state.in_flight = in_flight;
        let before = state.latest.as_ref().map(|latest| latest.shown.status);
        let (shown, against) = self.damped(state.latest.as_ref(), result.into());
        let after = shown.status;
        state.latest = Some(Latest { finished: Instant::now(), due: false, shown, against });
        if after == Status::Up {
            state.logged.clear();
        }
        let unlogged = match result {
            Err(error) if after != Status::Up && (before != Some(after) || !state.logged.contains(&error.class())) => {
                state.logged.push(error.class());
                Some(error)
            }
            _ => None,
        };
        drop(state);
        self.runs.settled.notify_waiters();
        self.log(before, after, unlogged, latency);
    }

    /// What is shown after a result: the result, once enough in a row have contradicted what was shown before.
    fn damped(&self, latest: Option<&Latest>, result: Outcome) -> (Outcome, u32) {
        let Some(latest) = latest else { return (result, 0) };
        let down = result.status == Status::Down;
        if down == (latest.shown.status == Status::Down) {
            return (result, 0);
        }
        let needed = if down { self.options.fall } else { self.options.rise };
        let against = latest.against + 1;
        if against >= needed { (result, 0) } else { (latest.shown.clone(), against) }
    }

    /// One line a transition, and one for each further class of failure until the check is up again.
    fn log(&self, before: Option<Status>, after: Status, unlogged: Option<&ProbeError>, latency: Duration) {
        let check = format_args!("{}.{}", self.group, self.name);
        let duration_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        match (after, unlogged) {
            (Status::Up, _) => {
                if before.is_some_and(|before| before != Status::Up) {
                    tracing::info!(%check, duration_ms, "health check {check} is UP again");
                }
            }
            (_, None) => {}
            (status, Some(error)) => {
                let (class, text) = (error.class(), error.log_text());
                if status == Status::Down && self.options.critical {
                    tracing::error!(%check, %class, error = %text, duration_ms, "health check {check} is {status}: {error}");
                } else {
                    tracing::warn!(%check, %class, error = %text, duration_ms, "health check {check} is {status}: {error}");
                }
            }
        }
    }

    /// Waits until the run in flight, if there is one, has an outcome or has passed its limit; no longer than to `deadline`.
    pub(crate) async fn settled(&self, deadline: Instant) {
        loop {
            // Made before the look, so that no outcome slips in between.
            let settled = self.runs.settled.notified();
            if self.runs.state().is_settled() || timeout_at(deadline, settled).await.is_err() {
                return;
            }
        }
    }

    /// What an answer says of the check at the end of its deadline.
    pub(crate) fn outcome(&self, deadline: Duration) -> Outcome {
        let state = self.runs.state();
        match &state.latest {
            Some(latest) if state.is_settled() => latest.shown.clone(),
            latest => self.damped(latest.as_ref(), Outcome::no_answer_within(deadline)).0,
        }
    }
}

impl State {
    fn is_settled(&self) -> bool {
        self.in_flight != Some(InFlight::Asked)
    }
}

impl Runs {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock; a poisoned one would still hold a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sentence_no_answer(limit: Duration) -> String {
    format!("no answer within {} ms", limit.as_millis())
}
