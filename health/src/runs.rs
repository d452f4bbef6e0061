//! The runs of one check: at most one in flight, its limits, its outcome and what is shown of it.
//!
//! A run belongs to the check, not to who asked: it is a task of its own on the probing runtime, and nobody's leaving
//! cancels it. The engine starts runs and waits for them.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    change,
    check::Core,
    error::{Class, ProbeError},
    events::{self, Transition},
    home::Home,
    probe::ask_contained,
    report::{Details, Outcome, Sample, Status},
};

/// A run that has not ended by then is aborted, unless ten of its limits are longer.
const HARD_LIMIT: Duration = Duration::from_secs(30);
const HARD_LIMIT_IN_LIMITS: u32 = 10;

/// How many results of a check are remembered.
const HISTORY: usize = 60;

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
    /// The longest limit of all who ask: a check may stand in scopes of different deadlines.
    limit: Duration,
    latest: Option<Latest>,
    started: u64,
    last_success: Option<Instant>,
    /// It has been up, or degraded, once.
    ever_up: bool,
    /// The first result's time, from which the history counts.
    epoch: Option<Instant>,
    history: VecDeque<Past>,
    /// Of the classes of the failures since the check was last up, those that the log has.
    logged: Vec<Class>,
}

#[derive(Clone, Copy)]
enum InFlight {
    Asked {
        since: Instant,
        /// It was logged that its limit has passed and nobody has noted it.
        logged: bool,
    },
    /// Its limit has passed, and the outcome says so already.
    Overdue,
}

struct Latest {
    finished: Instant,
    latency: Duration,
    /// To be run anew whatever its age: the answer to this one came too late to count.
    due: bool,
    raw: Status,
    shown: Outcome,
    /// Since when the status that is shown is shown.
    since: Instant,
    /// Results in a row that contradict what is shown.
    against: u32,
    /// Results in a row that were down.
    failures: u32,
}

/// A result in the history, in few bytes: there are sixty of each check.
struct Past {
    /// Since the first result.
    finished_ms: u64,
    latency_us: u32,
    status: Status,
}

impl Core {
    /// Starts a run, unless one is in flight or the latest result is younger than `max_age`.
    pub(crate) fn run_if_due(self: &Arc<Self>, max_age: Duration, deadline: Duration, home: &Home) {
        let mut state = self.runs.state();
        let limit = self.options.timeout.map_or(deadline, |timeout| timeout.min(deadline));
        state.limit = state.limit.max(limit);
        let fresh = state.latest.as_ref().is_some_and(|latest| !latest.due && latest.finished.elapsed() < max_age);
        if fresh || state.in_flight.is_some() {
            return;
        }
        state.in_flight = Some(InFlight::Asked { since: Instant::now(), logged: false });
        state.started += 1;
        drop(state);
        home.spawn(self.probe.never_blocks(), Arc::clone(self).run());
    }

    async fn run(self: Arc<Self>) {
        let started = Instant::now();
        let mut asked = std::pin::pin!(ask_contained(&*self.probe));
        let mut limit = self.runs.state().limit;
        let in_time = loop {
            match timeout_at(started + limit, &mut asked).await {
                Ok(result) => break Some(result),
                // Somebody more patient may have come to ask meanwhile.
                Err(_) => match self.runs.state().limit {
                    longer if longer > limit => limit = longer,
                    _ => break None,
                },
            }
        };
        let late = match in_time {
            Some(result) if started.elapsed() <= limit => return self.record(&result, started.elapsed(), None),
            // It blocked its thread, so that no limit could stop it.
            Some(result) => {
                self.record(&Err(no_answer_within(limit)), limit, Some(InFlight::Overdue));
                Some(result)
            }
            None => {
                self.record(&Err(no_answer_within(limit)), limit, Some(InFlight::Overdue));
                timeout_at(started + HARD_LIMIT.max(limit * HARD_LIMIT_IN_LIMITS), asked).await.ok()
            }
        };
        match late {
            // It says more than that there was no answer.
            Some(Err(failure)) => self.record_late(&failure, started.elapsed()),
            // Too late to count, or aborted here: what is known stays, and who asks next has it run anew.
            Some(Ok(())) | None => {
                let mut state = self.runs.state();
                state.in_flight = None;
                if let Some(latest) = &mut state.latest {
                    latest.due = true;
                }
            }
        }
        change::happened();
    }

    fn record(&self, result: &Result<(), ProbeError>, latency: Duration, in_flight: Option<InFlight>) {
        let now = Instant::now();
        let mut state = self.runs.state();
        state.in_flight = in_flight;
        let raw = Outcome::from(result);
        let status = raw.status;
        let down = status == Status::Down;
        let before = state.latest.as_ref().map(|latest| latest.shown.status);
        let (shown, against) = self.damped(state.latest.as_ref(), raw);
        let after = shown.status;
        let since = state.latest.as_ref().filter(|_| before == Some(after)).map_or(now, |latest| latest.since);
        let failures = if down { state.latest.as_ref().map_or(0, |latest| latest.failures) + 1 } else { 0 };
        let transition = (before != Some(after)).then(|| shown.clone());
        state.latest =
            Some(Latest { finished: now, latency, due: false, raw: status, shown, since, against, failures });
        state.remember(now, latency, status);
        if status == Status::Up {
            state.last_success = Some(now);
        }
        state.ever_up |= after != Status::Down;
        if after == Status::Up {
            state.logged.clear();
        }
        let unlogged = result.as_ref().err().filter(|_| after != Status::Up);
        let unlogged = unlogged.filter(|error| before != Some(after) || !state.logged.contains(&error.class()));
        state.logged.extend(unlogged.map(ProbeError::class));
        drop(state);

        change::happened();
        self.runs.settled.notify_waiters();
        self.log(before, after, unlogged, latency);
        if let Some(Outcome { status: to, error }) = transition {
            let class = result.as_ref().err().map(ProbeError::class);
            let (group, name) = (Arc::clone(&self.group), Arc::clone(&self.name));
            events::publish(|| Transition { group, name, from: before, to, class, error });
        }
    }

    /// A failure after the limit, of a run that was counted when that passed: what is shown of it says why, if it is down.
    fn record_late(&self, failure: &ProbeError, latency: Duration) {
        let mut state = self.runs.state();
        state.in_flight = None;
        let Some(latest) = &mut state.latest else { return };
        latest.finished = Instant::now();
        let shown_down = latest.shown.status == Status::Down;
        if shown_down && failure.status() == Status::Down {
            latest.shown = Outcome::from(&Err(ProbeError::new(failure.class(), failure.sentence().clone())));
        }
        let unlogged = shown_down && !state.logged.contains(&failure.class());
        if unlogged {
            state.logged.push(failure.class());
        }
        drop(state);
        self.log(Some(Status::Down), Status::Down, unlogged.then_some(failure), latency);
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
                let class = error.class();
                // Somebody's error may panic when it prints itself.
                let text = catch_unwind(AssertUnwindSafe(|| error.log_text()));
                let text = text.unwrap_or_else(|_| "an error that can't be printed".to_owned());
                let text = (!text.is_empty()).then_some(&*text);
                let resource = self.probe.resource();
                let resource = resource.as_deref();
                if status == Status::Down && self.options.critical {
                    tracing::error!(%check, %class, resource, error = text, duration_ms, "health check {check} is {status}: {error}");
                } else {
                    tracing::warn!(%check, %class, resource, error = text, duration_ms, "health check {check} is {status}: {error}");
                }
            }
        }
    }

    /// What an answer says of the check that leaves at `until`, `deadline` after it was asked for: as soon as the run in flight,
    /// if there is one, has ended or passed its limit.
    ///
    /// It is read at that moment, and not when all checks of the answer have one: by then, another caller may have begun
    /// the next run.
    pub(crate) async fn outcome(&self, until: Instant, deadline: Duration) -> Outcome {
        loop {
            // Made before the look, so that no outcome slips in between.
            let settled = self.runs.settled.notified();
            {
                let state = self.runs.state();
                if let (Some(latest), true) = (&state.latest, state.is_settled()) {
                    return latest.shown.clone();
                }
            }
            if timeout_at(until, settled).await.is_err() {
                let mut state = self.runs.state();
                self.notice_blocked_threads(&mut state);
                let no_answer = Outcome::from(&Err(no_answer_within(deadline)));
                return match &state.latest {
                    Some(latest) if state.is_settled() => latest.shown.clone(),
                    latest => self.damped(latest.as_ref(), no_answer).0,
                };
            }
        }
    }

    /// A run that should have been noted to be overdue, and was not: its threads don't turn.
    fn notice_blocked_threads(&self, state: &mut State) {
        const GRACE: Duration = Duration::from_secs(1);

        let limit = state.limit;
        if let Some(InFlight::Asked { since, logged: logged @ false }) = &mut state.in_flight
            && since.elapsed() > limit + GRACE
        {
            *logged = true;
            let check = format_args!("{}.{}", self.group, self.name);
            tracing::error!(
                %check,
                "health check {check} has neither ended nor been given up after {} ms: it or others block the threads that \
                 checks run on; what blocks belongs into tokio::task::spawn_blocking",
                since.elapsed().as_millis()
            );
        }
    }

    /// What an answer says of a check that is run in the background, every so often: its latest result, which is waited for
    /// only if there is none yet, and says nothing any more when it is older than `keeps`.
    pub(crate) async fn refreshed_outcome(&self, until: Instant, deadline: Duration, keeps: Duration) -> Outcome {
        loop {
            let settled = self.runs.settled.notified();
            if let Some(latest) = &self.runs.state().latest {
                let age = latest.finished.elapsed();
                if age < keeps {
                    return latest.shown.clone();
                }
                let error = Some(format!("no result for {} s", age.as_secs()).into());
                return Outcome { status: Status::Down, error };
            }
            if timeout_at(until, settled).await.is_err() {
                return Outcome::from(&Err(no_answer_within(deadline)));
            }
        }
    }

    /// Until when what is shown keeps, if no change happens: `None` if it is not to be kept at all.
    pub(crate) fn keeps_until(&self, max_age: Duration) -> Option<Instant> {
        let state = self.runs.state();
        let latest = state.latest.as_ref()?;
        match state.in_flight {
            Some(InFlight::Asked { .. }) => None,
            // Nothing is started anew before this one ends, and that is a change.
            Some(InFlight::Overdue) => Some(Instant::now() + max_age),
            None => (!latest.due).then(|| latest.finished + max_age),
        }
    }

    /// Whether it has been up, or degraded, once.
    pub(crate) fn ever_up(&self) -> bool {
        self.runs.state().ever_up
    }

    /// What is known of the check beside its status; `None` before its first result.
    pub(crate) fn details(&self) -> Option<Details> {
        let state = self.runs.state();
        let latest = state.latest.as_ref()?;
        Some(Details {
            latency: latest.latency,
            age: latest.finished.elapsed(),
            since: latest.since.elapsed(),
            last_success: state.last_success.map(|success| success.elapsed()),
            runs: state.started,
            failures: latest.failures,
            raw: latest.raw,
        })
    }

    /// The latest results, the oldest first.
    pub(crate) fn history(&self) -> Vec<Sample> {
        let state = self.runs.state();
        let since_first = state.epoch.map_or(Duration::ZERO, |epoch| epoch.elapsed());
        let sample = |past: &Past| Sample {
            age: since_first.saturating_sub(Duration::from_millis(past.finished_ms)),
            latency: Duration::from_micros(past.latency_us.into()),
            status: past.status,
        };
        state.history.iter().map(sample).collect()
    }
}

impl State {
    fn is_settled(&self) -> bool {
        !matches!(self.in_flight, Some(InFlight::Asked { .. }))
    }

    fn remember(&mut self, finished: Instant, latency: Duration, status: Status) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        let since_first = finished.duration_since(*self.epoch.get_or_insert(finished));
        let finished_ms = u64::try_from(since_first.as_millis()).unwrap_or(u64::MAX);
        let latency_us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        self.history.push_back(Past { finished_ms, latency_us, status });
    }
}

impl Runs {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock; a poisoned one would still hold a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_answer_within(limit: Duration) -> ProbeError {
    ProbeError::new(Class::TimedOut, format!("no answer within {} ms", limit.as_millis()))
}
