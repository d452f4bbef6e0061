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
    error::{ProbeError, ProbeErrorKind},
    events::Transition,
    home::{Home, Manners},
    probe::ask_contained,
    report::{Details, Outcome, Sample, Status, milliseconds},
};

/// A run that has not ended by then is aborted, unless ten of its limits are longer.
const HARD_LIMIT: Duration = Duration::from_secs(30);
const HARD_LIMIT_IN_LIMITS: u32 = 10;

/// A run that has not been given up so long after its limit can't be: its thread is blocked.
const GRACE: Duration = Duration::from_secs(1);

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
    /// The longest limit of all who ask for the run in flight: a check may stand in scopes of different deadlines.
    limit: Duration,
    latest: Option<Latest>,
    /// The number of the run that was started last.
    started: u64,
    /// The number of the latest run that has an outcome, be it that its limit has passed.
    settled: u64,
    /// It was seen to block its thread.
    blocks: bool,
    last_success: Option<Instant>,
    /// It has been up, or degraded, once.
    ever_up: bool,
    /// The first result's time, from which the history counts.
    epoch: Option<Instant>,
    history: VecDeque<Past>,
    /// Of the kinds of the failures since the check was last up, those that the log has.
    logged: Vec<ProbeErrorKind>,
}

#[derive(Clone, Copy)]
enum InFlight {
    Asked {
        since: Instant,
    },
    /// Its limit has passed, and the outcome says so already.
    Overdue,
}

/// What a caller goes by.
pub(crate) enum Ticket {
    /// It is known.
    Known(Outcome),
    /// It will be when the run of that number has an outcome.
    Run(u64),
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

impl Latest {
    fn is_fresh(&self, max_age: Duration) -> bool {
        !self.due && self.finished.elapsed() < max_age
    }
}

/// A result in the history, in few bytes: there are sixty of each check.
struct Past {
    /// Since the first result.
    finished_ms: u64,
    latency_us: u32,
    status: Status,
}

impl Core {
    /// Starts a run, unless one is in flight or the latest result is younger than `max_age`, and says what to go by. What is
    /// known is known now: by the time that all checks of an answer are, another caller may have begun the next run.
    pub(crate) fn ask(self: &Arc<Self>, max_age: Duration, deadline: Duration, home: &Home) -> Ticket {
        let limit = self.options.timeout.map_or(deadline, |timeout| timeout.min(deadline));
        let mut state = self.runs.state();
        if let Some(latest) = state.latest.as_ref().filter(|latest| latest.is_fresh(max_age)) {
            return Ticket::Known(latest.shown.clone());
        }
        if let Some(InFlight::Asked { since }) = state.in_flight {
            state.limit = state.limit.max(limit);
            if since.elapsed() <= state.limit + GRACE {
                return Ticket::Run(state.started);
            }
            self.give_up(&mut state, since);
        }
        if state.in_flight.is_some() {
            return Ticket::Known(self.still_no_answer(state, max_age));
        }
        state.in_flight = Some(InFlight::Asked { since: Instant::now() });
        state.limit = limit;
        state.started += 1;
        let number = state.started;
        let manners = match (self.probe.never_blocks(), state.blocks) {
            (true, _) => Manners::Known,
            (false, false) => Manners::Unknown,
            (false, true) => Manners::Blocks,
        };
        drop(state);
        let ended = Ended { core: Arc::clone(self), number };
        home.spawn(manners, Arc::clone(self).run(number, ended));
        Ticket::Run(number)
    }

    /// What is shown of a run that is overdue. Where a new result is due by now, that counts as often as a run would that is
    /// answered so: or else `fall` would wait for the hard limit, over and over.
    fn still_no_answer(&self, mut state: MutexGuard<'_, State>, max_age: Duration) -> Outcome {
        let (limit, no_answer) = (state.limit, Err(no_answer_within(state.limit)));
        let shown = |state: &State| {
            state.latest.as_ref().map_or_else(|| Outcome::from(&no_answer), |latest| latest.shown.clone())
        };
        if state.latest.as_ref().is_some_and(|latest| latest.finished.elapsed() < max_age.max(limit)) {
            return shown(&state);
        }
        let noted = self.note(&mut state, &no_answer, limit);
        let shown = shown(&state);
        drop(state);
        self.tell(&noted, &no_answer, limit);
        shown
    }

    /// Starts the first run of a check that has had none.
    pub(crate) fn ask_first(self: &Arc<Self>, deadline: Duration, home: &Home) {
        let unasked = {
            let state = self.runs.state();
            state.latest.is_none() && state.in_flight.is_none()
        };
        if unasked {
            self.ask(Duration::MAX, deadline, home);
        }
    }

    async fn run(self: Arc<Self>, number: u64, ended: Ended) {
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
            Some(result) if started.elapsed() <= limit => {
                self.settle(number, &result, started.elapsed(), None);
                return;
            }
            // It blocked its thread, so that no limit could stop it.
            Some(result) => {
                self.runs.state().blocks = true;
                self.settle(number, &Err(no_answer_within(limit)), limit, Some(InFlight::Overdue));
                Some(result)
            }
            None => {
                self.settle(number, &Err(no_answer_within(limit)), limit, Some(InFlight::Overdue));
                timeout_at(started + HARD_LIMIT.max(limit * HARD_LIMIT_IN_LIMITS), asked).await.ok()
            }
        };
        // It says more than that there was no answer. A success came too late to count, and what is known stays.
        if let Some(Err(failure)) = late {
            self.note_late(&failure, started.elapsed());
        }
        drop(ended);
    }

    /// Notes the outcome of a run, unless who asks has noted before that there is none.
    fn settle(&self, number: u64, result: &Result<(), ProbeError>, latency: Duration, in_flight: Option<InFlight>) {
        let mut state = self.runs.state();
        if state.settled >= number {
            return;
        }
        state.settled = number;
        state.in_flight = in_flight;
        let noted = self.note(&mut state, result, latency);
        drop(state);
        self.runs.settled.notify_waiters();
        self.tell(&noted, result, latency);
    }

    /// Gives up a run that should have been given up by itself, and was not: its thread does not turn. So who asks does it.
    fn give_up(&self, state: &mut State, since: Instant) {
        contained(|| {
            let check = format_args!("{}.{}", self.group, self.name);
            tracing::error!(
                %check,
                "health check {check} has neither ended nor been given up after {} ms: it or another one blocks the thread \
                 that it runs on; what blocks belongs into tokio::task::spawn_blocking",
                since.elapsed().as_millis()
            );
        });
        state.settled = state.started;
        state.in_flight = Some(InFlight::Overdue);
        self.runs.settled.notify_waiters();
    }

    fn note(&self, state: &mut State, result: &Result<(), ProbeError>, latency: Duration) -> Noted {
        let now = Instant::now();
        let raw = Outcome::from(result);
        let status = raw.status;
        let down = status == Status::Down;
        let before = state.latest.as_ref().map(|latest| latest.shown.status);
        let (shown, against) = self.damped(state.latest.as_ref(), raw);
        let after = shown.status;
        let since = state.latest.as_ref().filter(|_| before == Some(after)).map_or(now, |latest| latest.since);
        let failures = if down { state.latest.as_ref().map_or(0, |latest| latest.failures) + 1 } else { 0 };
        if before != Some(after) {
            let (group, name, error) = (Arc::clone(&self.group), Arc::clone(&self.name), shown.error.clone());
            let kind = result.as_ref().err().map(ProbeError::kind);
            // Under the lock, so that they come in order; it waits for nobody.
            self.watchers.publish(|| Transition { group, name, from: before, to: after, kind, error });
        }
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
        change::happened();
        let failed = result.as_ref().err().filter(|_| after != Status::Up).map(ProbeError::kind);
        let is_new_class = failed.is_some_and(|kind| state.is_unlogged(kind));
        Noted { before, after, is_news: is_new_class || (failed.is_some() && before != Some(after)) }
    }

    /// A failure after the limit, of a run that was counted when that passed: what is shown of it says why, if it is down.
    fn note_late(&self, failure: &ProbeError, latency: Duration) {
        let mut state = self.runs.state();
        let Some(latest) = &mut state.latest else { return };
        latest.finished = Instant::now();
        let shown_down = latest.shown.status == Status::Down;
        if shown_down && failure.status() == Status::Down {
            latest.shown = Outcome::from(&Err(ProbeError::new(failure.kind(), failure.message().clone())));
        }
        let is_news = shown_down && state.is_unlogged(failure.kind());
        // It is as old as it is, and no older one: it is not due.
        state.in_flight = None;
        drop(state);
        change::happened();
        let noted = Noted { before: Some(Status::Down), after: Status::Down, is_news };
        self.tell_failure(&noted, failure, latency);
    }

    fn tell(&self, noted: &Noted, result: &Result<(), ProbeError>, latency: Duration) {
        if let Err(error) = result {
            self.tell_failure(noted, error, latency);
        }
        if noted.after == Status::Up && noted.before.is_some_and(|before| before != Status::Up) {
            let check = format_args!("{}.{}", self.group, self.name);
            let duration_ms = milliseconds(latency);
            contained(|| tracing::info!(%check, duration_ms, "health check {check} is UP again"));
        }
    }

    /// One line a transition, and one for each further kind of failure until the check is up again.
    fn tell_failure(&self, noted: &Noted, error: &ProbeError, latency: Duration) {
        if !noted.is_news {
            return;
        }
        let (status, kind, duration_ms) = (noted.after, error.kind(), milliseconds(latency));
        // Somebody's error may panic when it prints itself, and so may somebody's log.
        contained(|| {
            let check = format_args!("{}.{}", self.group, self.name);
            let text = contained(|| error.log_text()).unwrap_or_else(|| "an error that can't be printed".to_owned());
            let text = (!text.is_empty()).then_some(&*text);
            let resource = contained(|| self.probe.resource()).flatten();
            let resource = resource.as_deref();
            if status == Status::Down && self.options.critical {
                tracing::error!(%check, %kind, resource, error = text, duration_ms, "health check {check} is {status}: {error}");
            } else {
                tracing::warn!(%check, %kind, resource, error = text, duration_ms, "health check {check} is {status}: {error}");
            }
        });
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

    /// What an answer says of the check that leaves at `until`, `deadline` after it was asked for: as soon as the run that
    /// counts for it has ended or passed its limit.
    pub(crate) async fn outcome(&self, ticket: Ticket, until: Instant, deadline: Duration) -> Outcome {
        let number = match ticket {
            Ticket::Known(outcome) => return outcome,
            Ticket::Run(number) => number,
        };
        let known = |state: &State| {
            let latest = state.latest.as_ref().filter(|_| state.settled >= number);
            latest.map(|latest| latest.shown.clone())
        };
        self.seen(until, known).await.unwrap_or_else(|| {
            let no_answer = Outcome::from(&Err(no_answer_within(deadline)));
            self.damped(self.runs.state().latest.as_ref(), no_answer).0
        })
    }

    /// What an answer says of a check that is run in the background, every so often: its latest result, which is waited for
    /// only if there is none yet, and says nothing any more when it is older than `keeps`.
    pub(crate) async fn refreshed_outcome(&self, until: Instant, deadline: Duration, keeps: Duration) -> Outcome {
        let known = |state: &State| state.known(keeps);
        self.seen(until, known).await.unwrap_or_else(|| Outcome::from(&Err(no_answer_within(deadline))))
    }

    /// What is known without asking anybody or waiting.
    pub(crate) fn known_outcome(&self, keeps: Duration) -> Outcome {
        self.runs.state().known(keeps).unwrap_or_else(|| Outcome::down("no result yet"))
    }

    /// What is seen in the state, as soon as it is there; no later than at `until`.
    async fn seen<T>(&self, until: Instant, look: impl Fn(&State) -> Option<T>) -> Option<T> {
        loop {
            // Made before the look, so that no outcome slips in between.
            let settled = self.runs.settled.notified();
            let seen = look(&self.runs.state());
            if seen.is_some() {
                return seen;
            }
            if timeout_at(until, settled).await.is_err() {
                return look(&self.runs.state());
            }
        }
    }

    /// Until when what is shown keeps, if no change happens: `None` if it is not to be kept at all.
    pub(crate) fn keeps_until(&self, max_age: Duration) -> Option<Instant> {
        let state = self.runs.state();
        let latest = state.latest.as_ref()?;
        (state.is_settled() && !latest.due).then(|| latest.finished + max_age)
    }

    /// Until when a result keeps that is made in the background.
    pub(crate) fn refreshed_keeps_until(&self, keeps: Duration) -> Option<Instant> {
        self.runs.state().latest.as_ref().map(|latest| latest.finished + keeps)
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

/// What became of a result, for the log.
struct Noted {
    before: Option<Status>,
    after: Status,
    is_news: bool,
}

/// The end of a run's task, however it ends.
struct Ended {
    core: Arc<Core>,
    number: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let mut state = self.core.runs.state();
        if state.started != self.number || state.in_flight.is_none() {
            return;
        }
        // Aborted, or late, or it panicked where nothing should: who asks next has it run anew.
        state.in_flight = None;
        state.settled = self.number;
        if let Some(latest) = &mut state.latest {
            latest.due = true;
        }
        drop(state);
        change::happened();
        self.core.runs.settled.notify_waiters();
    }
}

/// What a panic leaves of it.
fn contained<T>(f: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(f)).ok()
}

impl State {
    /// What is shown; a result that is not younger than `keeps` says nothing any more.
    fn known(&self, keeps: Duration) -> Option<Outcome> {
        let latest = self.latest.as_ref()?;
        let age = latest.finished.elapsed();
        Some(if age < keeps {
            latest.shown.clone()
        } else {
            Outcome::down(format!("last result is {} s old", age.as_secs()))
        })
    }

    fn is_settled(&self) -> bool {
        !matches!(self.in_flight, Some(InFlight::Asked { .. }))
    }

    /// Whether a kind of failure is not in the log yet; it is about to be.
    fn is_unlogged(&mut self, kind: ProbeErrorKind) -> bool {
        let unlogged = !self.logged.contains(&kind);
        if unlogged {
            self.logged.push(kind);
        }
        unlogged
    }

    fn remember(&mut self, finished: Instant, latency: Duration, status: Status) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        let since_first = finished.duration_since(*self.epoch.get_or_insert(finished));
        let finished_ms = milliseconds(since_first);
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
    ProbeError::new(ProbeErrorKind::TimedOut, format!("timed out after {} ms", limit.as_millis()))
}
