//! The state of one check: its run in flight, its latest result, its history.
//!
//! This is a pure state machine: every function takes the current time as an argument, and none waits, locks, logs or runs
//! anything. `run` calls [`State::start`] when a result is requested, [`State::begin`] when the run gets its thread,
//! [`State::expire`] when a limit may have passed, and [`State::finish`] when the run ends.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    error::{ProbeError, ProbeErrorKind},
    observe::Observations,
    report::{Counters, Details, LastError, Outcome, Sample, milliseconds},
    status::Status,
};

/// A run that takes longer is abandoned, unless ten of its limits are longer.
const HARD_LIMIT: Duration = Duration::from_secs(30);
const HARD_LIMIT_FACTOR: u32 = 10;

/// A success after the limit makes the next run due at once only if the run took at least this long, so that a check that is slightly
/// slower than its limit does not run without a pause.
const LATE_RUN_INTERVAL: Duration = Duration::from_secs(1);

/// The number of results in the history.
const HISTORY_LEN: usize = 60;

/// A time on both clocks: ages are measured on the monotonic one, and people read the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamp {
    pub(crate) instant: Instant,
    pub(crate) wall: SystemTime,
}

impl Timestamp {
    pub(crate) fn now() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }
}

/// How long a run may take, and how many results in a row change the shown status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) limit: Duration,
    pub(crate) rise: u32,
    pub(crate) fall: u32,
}

impl Rules {
    fn hard_limit(&self) -> Duration {
        HARD_LIMIT.max(self.limit.saturating_mul(HARD_LIMIT_FACTOR))
    }
}

#[derive(Default)]
pub(crate) struct State {
    in_flight: Option<InFlight>,
    /// The number of the latest run that was started.
    started: u64,
    /// The number of the latest run with a result of its own or a recorded timeout.
    last_settled: u64,
    latest: Option<Latest>,
    last_success: Option<SystemTime>,
    /// The public message of the latest failure, and its time.
    last_error: Option<(Arc<str>, SystemTime)>,
    ever_up: bool,
    /// The time of the first result, to which the times of the history are relative.
    epoch: Option<Instant>,
    history: VecDeque<HistoryEntry>,
    counters: Counters,
    /// The kinds of failures that were logged since the check was last up, and whether the run was still queued.
    logged: Vec<(ProbeErrorKind, bool)>,
}

struct InFlight {
    /// The process that started the run. In a forked child, a run of the parent never ends.
    process: u32,
    /// When the run was started, or got its thread.
    since: Instant,
    phase: Phase,
    /// A timeout of the run was recorded.
    timed_out: bool,
    /// The metrics have counted the run.
    is_counted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Waiting for a thread.
    Queued,
    Running,
    /// Past the hard limit: its future is dropped when its thread returns.
    Abandoned,
}

struct Latest {
    finished: Instant,
    finished_wall: SystemTime,
    latency: Duration,
    /// A new run is due, whatever the age of this result.
    due: bool,
    raw: Status,
    shown: Outcome,
    /// The time of the last transition.
    since: SystemTime,
    /// The number of latest results in a row that contradict the shown status.
    streak: u32,
    /// Failures in a row.
    failures: u32,
    data: Observations,
}

impl Latest {
    fn is_fresh(&self, now: Instant, max_age: Duration) -> bool {
        !self.due && now.duration_since(self.finished) < max_age
    }
}

/// A result in the history, which is compact because each check has up to sixty of them.
struct HistoryEntry {
    /// Since the first result.
    finished_ms: u64,
    latency_us: u32,
    status: Status,
}

/// The decision of [`State::start`].
#[derive(Debug)]
pub(crate) enum Start {
    /// The latest result is fresh.
    Fresh(Outcome),
    /// The run of this number is in flight and within its limit.
    Joined(u64),
    /// A run is due: the caller launches it under this number.
    New(u64),
    /// The run in flight has passed its limit. The failure is there if it was recorded by this call, and is to be logged.
    Overdue(Outcome, Option<RunFailure>),
}

/// A failure that no probe returned: a timeout, or a run that got no thread.
#[derive(Debug)]
pub(crate) struct RunFailure {
    pub(crate) error: ProbeError,
    pub(crate) latency: Duration,
    pub(crate) recorded: Recorded,
    /// The run was still waiting for a thread.
    pub(crate) was_queued: bool,
}

/// The effect of a result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Recorded {
    /// The status that was shown before; `None` if this is the first result.
    pub(crate) before: Option<Status>,
    pub(crate) after: Status,
    /// The result is a transition, or a kind of failure that was not logged since the check was last up.
    pub(crate) should_log: bool,
    /// The metrics count the run with this result, which is its first.
    pub(crate) is_counted: bool,
}

/// The effect of [`State::expire`].
#[derive(Debug)]
pub(crate) enum Expired {
    Nothing,
    /// The limit has passed, and a timeout is recorded.
    TimedOut(RunFailure),
    /// The hard limit has passed: the caller drops the future of the run.
    Abandoned,
}

/// The effect of [`State::finish`].
#[derive(Debug)]
pub(crate) enum Finished {
    /// The run is no longer in flight, and its result is not recorded.
    Unknown,
    Recorded(Recorded, Duration),
    /// The run ended after its limit. If it failed, its error explains the recorded timeout.
    Late(Option<Recorded>, Duration),
}

impl State {
    /// Decides whether a request for a result younger than `max_age` is served by the latest result, by the run in flight, or by
    /// a new run.
    pub(crate) fn start(&mut self, now: Timestamp, max_age: Duration, rules: Rules, process: u32) -> Start {
        if self.in_flight.as_ref().is_some_and(|run| run.process != process) {
            self.in_flight = None;
        }
        if let Some(run) = self.in_flight.as_mut().filter(|run| run.timed_out && now.instant < run.since + rules.limit)
        {
            // A scope with a longer deadline was added since, so the limit is longer now.
            run.timed_out = false;
            self.last_settled = self.started - 1;
            return Start::Joined(self.started);
        }
        if let Some(latest) = self.latest.as_ref().filter(|latest| latest.is_fresh(now.instant, max_age)) {
            return Start::Fresh(latest.shown.clone());
        }
        let Some(run) = &mut self.in_flight else {
            self.started += 1;
            self.in_flight = Some(InFlight {
                process,
                since: now.instant,
                phase: Phase::Queued,
                timed_out: false,
                is_counted: false,
            });
            return Start::New(self.started);
        };
        if now.instant < run.since + rules.limit {
            return Start::Joined(self.started);
        }
        // A hung check counts towards `fall` once per `max_age`.
        let timed_out = run.timed_out;
        let recent = self
            .latest
            .as_ref()
            .filter(|latest| timed_out && now.instant.duration_since(latest.finished) < max_age.max(rules.limit));
        if let Some(latest) = recent {
            return Start::Overdue(latest.shown.clone(), None);
        }
        let failure = self.record_timeout(now, rules);
        let shown = self.latest.as_ref().map(|latest| latest.shown.clone()).expect("a timeout was just recorded");
        Start::Overdue(shown, Some(failure))
    }

    /// Records that a run has got its thread, and restarts its limit. `false` if the run is no longer in flight.
    pub(crate) fn begin(&mut self, number: u64, now: Instant) -> bool {
        let Some(run) = self.in_flight.as_mut().filter(|_| self.started == number) else { return false };
        run.since = now;
        run.phase = Phase::Running;
        if run.timed_out {
            run.timed_out = false;
            self.last_settled = number - 1;
        }
        true
    }

    /// Records that the limit or the hard limit of the run in flight has expired, if it has.
    pub(crate) fn expire(&mut self, now: Timestamp, rules: Rules) -> Expired {
        let Some(run) = &mut self.in_flight else { return Expired::Nothing };
        if !run.timed_out && now.instant >= run.since + rules.limit {
            return Expired::TimedOut(self.record_timeout(now, rules));
        }
        if run.timed_out && run.phase == Phase::Running && now.instant >= run.since + rules.hard_limit() {
            run.phase = Phase::Abandoned;
            return Expired::Abandoned;
        }
        Expired::Nothing
    }

    /// When [`State::expire`] has to be called next.
    pub(crate) fn next_expiry(&self, rules: Rules) -> Option<Instant> {
        let run = self.in_flight.as_ref()?;
        match run.phase {
            _ if !run.timed_out => Some(run.since + rules.limit),
            Phase::Running => Some(run.since + rules.hard_limit()),
            Phase::Queued | Phase::Abandoned => None,
        }
    }

    /// Records the end of a run. The result is `None` if the run was abandoned and its future dropped.
    pub(crate) fn finish(
        &mut self,
        number: u64,
        now: Timestamp,
        result: Option<&Result<(), ProbeError>>,
        data: Observations,
        rules: Rules,
    ) -> Finished {
        let Some(run) = self.in_flight.take_if(|_| self.started == number) else { return Finished::Unknown };
        self.last_settled = number;
        let latency = now.instant.duration_since(run.since);
        match result {
            // The limit may have been extended since the timeout was recorded.
            Some(result) if !run.timed_out || latency <= rules.limit => {
                let is_counted = !run.is_counted;
                if is_counted {
                    self.counters.count(result, latency);
                }
                let recorded = self.record(now, result, latency, data, false, rules);
                Finished::Recorded(Recorded { is_counted, ..recorded }, latency)
            }
            Some(Err(error)) => Finished::Late(self.record_late(now, error), latency),
            Some(Ok(())) | None => {
                // The timeout counts, and is shown until the next run.
                if let Some(latest) = self.latest.as_mut().filter(|_| latency >= LATE_RUN_INTERVAL) {
                    latest.due = true;
                }
                Finished::Late(None, latency)
            }
        }
    }

    /// Records a run that could not be launched.
    pub(crate) fn fail_to_start(
        &mut self,
        number: u64,
        now: Timestamp,
        error: ProbeError,
        rules: Rules,
    ) -> Option<RunFailure> {
        self.in_flight.take_if(|_| self.started == number)?;
        self.last_settled = number;
        let latency = Duration::ZERO;
        let result = Err(error);
        self.counters.count(&result, latency);
        let recorded = self.record(now, &result, latency, Observations::default(), true, rules);
        let recorded = Recorded { is_counted: true, ..recorded };
        result.err().map(|error| RunFailure { error, latency, recorded, was_queued: true })
    }

    fn record_timeout(&mut self, now: Timestamp, rules: Rules) -> RunFailure {
        let run = self.in_flight.as_mut().expect("a run is in flight");
        run.timed_out = true;
        let was_queued = run.phase == Phase::Queued;
        let is_counted = !std::mem::replace(&mut run.is_counted, true);
        self.last_settled = self.started;
        let error = if was_queued { not_started_within(rules.limit) } else { timed_out_after(rules.limit) };
        let result = Err(error);
        if is_counted {
            self.counters.count(&result, rules.limit);
        }
        let recorded = self.record(now, &result, rules.limit, Observations::default(), was_queued, rules);
        let recorded = Recorded { is_counted, ..recorded };
        let Err(error) = result else { unreachable!("the result is an error") };
        RunFailure { error, latency: rules.limit, recorded, was_queued }
    }

    fn record(
        &mut self,
        now: Timestamp,
        result: &Result<(), ProbeError>,
        latency: Duration,
        data: Observations,
        was_queued: bool,
        rules: Rules,
    ) -> Recorded {
        let raw = Outcome::from(result);
        let status = raw.status;
        let before = self.latest.as_ref().map(|latest| latest.shown.status);
        let (shown, streak) = self.apply_rise_fall(raw, rules);
        let after = shown.status;
        let since = self.latest.as_ref().filter(|_| before == Some(after)).map_or(now.wall, |latest| latest.since);
        self.counters.transitions += u64::from(before.is_some_and(|before| before != after));
        let failures = match (status, &self.latest) {
            (Status::Down, Some(latest)) => latest.failures + 1,
            (Status::Down, None) => 1,
            _ => 0,
        };
        self.latest = Some(Latest {
            finished: now.instant,
            finished_wall: now.wall,
            latency,
            due: false,
            raw: status,
            shown,
            since,
            streak,
            failures,
            data,
        });
        self.remember(now.instant, latency, status);
        match result {
            Ok(()) => self.last_success = Some(now.wall),
            Err(error) => self.last_error = Some((error.message().as_ref().into(), now.wall)),
        }
        self.ever_up |= after != Status::Down;
        if after == Status::Up {
            self.logged.clear();
        }
        let should_log = match result {
            _ if after == Status::Up => before.is_some_and(|before| before != Status::Up),
            Err(error) => self.is_unlogged(error.kind(), was_queued) || before != Some(after),
            Ok(()) => false,
        };
        Recorded { before, after, should_log, is_counted: false }
    }

    /// Records an error that was returned after the limit. The timeout has counted already; the error replaces its message.
    fn record_late(&mut self, now: Timestamp, error: &ProbeError) -> Option<Recorded> {
        let latest = self.latest.as_mut()?;
        (latest.finished, latest.finished_wall) = (now.instant, now.wall);
        self.last_error = Some((error.message().as_ref().into(), now.wall));
        let shown = latest.shown.status;
        if shown == Status::Down && error.status() == Status::Down {
            latest.shown = Outcome::down(error.message().as_ref());
        }
        let should_log = shown == Status::Down && self.is_unlogged(error.kind(), false);
        Some(Recorded { before: Some(shown), after: shown, should_log, is_counted: false })
    }

    /// The outcome to show after a result, and the streak of results that contradict it. A contradiction is shown once it has
    /// lasted for as many results as `rise` or `fall` require.
    fn apply_rise_fall(&self, result: Outcome, rules: Rules) -> (Outcome, u32) {
        let Some(latest) = &self.latest else { return (result, 0) };
        let is_down = result.status == Status::Down;
        if is_down == (latest.shown.status == Status::Down) {
            return (result, 0);
        }
        let required = if is_down { rules.fall } else { rules.rise };
        let streak = latest.streak + 1;
        if streak >= required { (result, 0) } else { (latest.shown.clone(), streak) }
    }

    fn is_unlogged(&mut self, kind: ProbeErrorKind, was_queued: bool) -> bool {
        let unlogged = !self.logged.contains(&(kind, was_queued));
        if unlogged {
            self.logged.push((kind, was_queued));
        }
        unlogged
    }

    fn remember(&mut self, now: Instant, latency: Duration, status: Status) {
        if self.history.len() == HISTORY_LEN {
            self.history.pop_front();
        }
        let since_first = now.duration_since(*self.epoch.get_or_insert(now));
        let latency_us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        self.history.push_back(HistoryEntry { finished_ms: milliseconds(since_first), latency_us, status });
    }

    /// The outcome of the run of that number, or of a later one, once it has a result.
    pub(crate) fn outcome_of(&self, number: u64) -> Option<Outcome> {
        self.latest.as_ref().filter(|_| self.last_settled >= number).map(|latest| latest.shown.clone())
    }

    /// The outcome for a response that has to leave before the run has a result.
    pub(crate) fn outcome_at_deadline(&self, deadline: Duration, rules: Rules) -> Outcome {
        let is_queued = self.in_flight.as_ref().is_some_and(|run| run.phase == Phase::Queued);
        let error = if is_queued { not_started_within(deadline) } else { timed_out_after(deadline) };
        self.apply_rise_fall(Outcome::from(&Err(error)), rules).0
    }

    /// The latest result, or `DOWN` if that is older than `max_age`. `None` before the first result.
    pub(crate) fn latest_outcome(&self, now: Instant, max_age: Duration) -> Option<Outcome> {
        let latest = self.latest.as_ref()?;
        let age = now.duration_since(latest.finished);
        Some(if age < max_age {
            latest.shown.clone()
        } else {
            Outcome::down(format!("last result is {} s old", age.as_secs()))
        })
    }

    /// Until when a response with the latest result may be served again. `None` if a new result is due or pending.
    pub(crate) fn fresh_until(&self, max_age: Duration) -> Option<Instant> {
        let latest = self.latest.as_ref().filter(|latest| !latest.due)?;
        let is_settled = self.in_flight.as_ref().is_none_or(|run| run.timed_out);
        is_settled.then(|| latest.finished + max_age)
    }

    /// Until when the latest result of a background run is valid.
    pub(crate) fn valid_until(&self, max_age: Duration) -> Option<Instant> {
        self.latest.as_ref().map(|latest| latest.finished + max_age)
    }

    /// Whether the check has no result and no run in flight.
    pub(crate) fn is_new(&self) -> bool {
        self.latest.is_none() && self.in_flight.is_none()
    }

    /// Whether the check has ever been up or degraded.
    pub(crate) fn ever_up(&self) -> bool {
        self.ever_up
    }

    /// Latency, times, counters and history. `None` before the first result.
    pub(crate) fn details(&self, now: Instant) -> Option<Details> {
        let latest = self.latest.as_ref()?;
        Some(Details {
            latency: latest.latency,
            age: now.duration_since(latest.finished),
            since: latest.since,
            last_success: self.last_success,
            last_error: self.last_error.clone().map(|(message, time)| LastError { message, time }),
            runs: self.started,
            consecutive_failures: latest.failures,
            raw: latest.raw,
            data: latest.data.clone(),
            last_run: latest.finished_wall,
            counters: self.counters.clone(),
            history: self.history(now),
        })
    }

    /// The latest results, the oldest first.
    pub(crate) fn history(&self, now: Instant) -> Vec<Sample> {
        let since_first = self.epoch.map_or(Duration::ZERO, |epoch| now.duration_since(epoch));
        let sample = |entry: &HistoryEntry| Sample {
            age: since_first.saturating_sub(Duration::from_millis(entry.finished_ms)),
            latency: Duration::from_micros(entry.latency_us.into()),
            status: entry.status,
        };
        self.history.iter().map(sample).collect()
    }
}

fn timed_out_after(limit: Duration) -> ProbeError {
    ProbeError::new(ProbeErrorKind::TimedOut, format!("timed out after {} ms", exact_milliseconds(limit)))
}

fn not_started_within(limit: Duration) -> ProbeError {
    let message = format!("the check could not start within {} ms", exact_milliseconds(limit));
    ProbeError::new(ProbeErrorKind::Failed, message)
}

/// Formats as a whole number unless the duration has a fraction of a millisecond.
#[allow(clippy::cast_precision_loss, reason = "durations of this crate are below 2^53 ns, which is 104 days")]
fn exact_milliseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_timeout_has_the_limit_as_it_was_set() {
        for (limit, message) in [
            (Duration::from_millis(800), "timed out after 800 ms"),
            (Duration::from_micros(1_500), "timed out after 1.5 ms"),
            (Duration::from_nanos(1), "timed out after 0.000001 ms"),
            (Duration::from_mins(10), "timed out after 600000 ms"),
        ] {
            assert_eq!(timed_out_after(limit).to_string(), message);
        }
    }

    const LIMIT: Duration = Duration::from_millis(10);
    const RULES: Rules = Rules { limit: LIMIT, rise: 1, fall: 1 };
    const LONGER: Rules = Rules { limit: Duration::from_millis(20), ..RULES };
    const MAX_AGE: Duration = Duration::from_secs(1);

    /// A state, and a clock that begins with it. All times are in milliseconds.
    struct Timeline {
        state: State,
        began: Instant,
    }

    impl Timeline {
        fn new() -> Self {
            Self { state: State::default(), began: Instant::now() }
        }

        fn at(&self, ms: u64) -> Timestamp {
            let passed = Duration::from_millis(ms);
            Timestamp { instant: self.began + passed, wall: SystemTime::UNIX_EPOCH + passed }
        }

        fn start(&mut self, ms: u64, rules: Rules) -> Start {
            self.state.start(self.at(ms), MAX_AGE, rules, 1)
        }

        /// Starts a run that gets its thread at once.
        fn run(&mut self, ms: u64) -> u64 {
            let Start::New(number) = self.start(ms, RULES) else { panic!("not due after {ms} ms") };
            assert!(self.state.begin(number, self.at(ms).instant));
            number
        }

        fn finish(&mut self, number: u64, ms: u64, result: &Result<(), ProbeError>, rules: Rules) -> Finished {
            self.state.finish(number, self.at(ms), Some(result), Observations::default(), rules)
        }

        /// A run that ends at once.
        fn record(&mut self, ms: u64, result: &Result<(), ProbeError>) -> Recorded {
            let number = self.run(ms);
            let Finished::Recorded(recorded, _) = self.finish(number, ms, result, RULES) else { panic!("late") };
            recorded
        }

        fn time_out(&mut self, ms: u64) -> RunFailure {
            let Expired::TimedOut(failure) = self.state.expire(self.at(ms), RULES) else { panic!("within its limit") };
            failure
        }
    }

    fn failure() -> Result<(), ProbeError> {
        failed(ProbeErrorKind::Failed)
    }

    fn failed(kind: ProbeErrorKind) -> Result<(), ProbeError> {
        Err(ProbeError::new(kind, "no"))
    }

    #[test]
    fn a_check_that_is_slightly_slower_than_its_limit_runs_once_per_max_age() {
        let mut timeline = Timeline::new();
        let number = timeline.run(0);
        timeline.time_out(10);
        assert!(matches!(timeline.finish(number, 12, &Ok(()), RULES), Finished::Late(None, _)));
        for fresh in [13, 1_009] {
            assert!(
                matches!(timeline.start(fresh, RULES), Start::Fresh(outcome) if outcome.status == Status::Down),
                "{fresh}"
            );
        }
        assert!(matches!(timeline.start(1_010, RULES), Start::New(2)));
    }

    #[test]
    fn a_run_that_has_timed_out_has_no_result_again_if_its_limit_is_extended() {
        let mut timeline = Timeline::new();
        let number = timeline.run(0);
        timeline.time_out(10);
        assert!(timeline.state.outcome_of(number).is_some());
        assert!(matches!(timeline.start(15, LONGER), Start::Joined(joined) if joined == number));
        assert!(timeline.state.outcome_of(number).is_none());
        assert!(matches!(timeline.finish(number, 16, &Ok(()), LONGER), Finished::Recorded(..)));
        assert_eq!(timeline.state.outcome_of(number).unwrap().status, Status::Up);
        assert!(timeline.state.outcome_of(number + 1).is_none());

        let mut timeline = Timeline::new();
        timeline.run(0);
        timeline.time_out(10);
        assert!(matches!(timeline.start(20, LONGER), Start::Fresh(_)), "the longer limit has passed, too");
    }

    #[test]
    fn a_run_that_timed_out_in_the_queue_has_no_result_again_once_it_has_its_thread() {
        let mut timeline = Timeline::new();
        timeline.record(0, &failure());
        let Start::New(number) = timeline.start(1_000, RULES) else { panic!("not due") };
        assert!(timeline.time_out(1_010).was_queued);
        assert!(timeline.state.outcome_of(number).is_some());
        assert!(timeline.state.begin(number, timeline.at(1_012).instant));
        assert!(timeline.state.outcome_of(number).is_none());
        assert!(timeline.state.outcome_of(number - 1).is_some());
        assert!(matches!(timeline.finish(number, 1_013, &Ok(()), RULES), Finished::Recorded(..)));
        assert_eq!(timeline.state.outcome_of(number).unwrap().status, Status::Up);
    }

    #[test]
    fn a_run_expires_at_its_limit_and_is_abandoned_at_the_hard_limit_once() {
        let mut timeline = Timeline::new();
        timeline.run(5);
        let hard_limit = RULES.hard_limit();
        assert_eq!(timeline.state.next_expiry(RULES), Some(timeline.at(15).instant));
        assert!(matches!(timeline.state.expire(timeline.at(14), RULES), Expired::Nothing));
        timeline.time_out(15);
        let abandoned = 5 + milliseconds(hard_limit);
        assert_eq!(timeline.state.next_expiry(RULES), Some(timeline.at(abandoned).instant));
        assert!(matches!(timeline.state.expire(timeline.at(abandoned - 1), RULES), Expired::Nothing));
        assert!(matches!(timeline.state.expire(timeline.at(abandoned), RULES), Expired::Abandoned));
        assert!(matches!(timeline.state.expire(timeline.at(abandoned), RULES), Expired::Nothing));
        assert_eq!(timeline.state.next_expiry(RULES), None);
    }

    #[test]
    fn a_hung_run_times_out_again_for_a_request_once_its_last_timeout_is_too_old() {
        let mut timeline = Timeline::new();
        timeline.run(0);
        assert!(matches!(timeline.start(9, RULES), Start::Joined(1)));
        assert!(matches!(timeline.start(10, RULES), Start::Overdue(_, Some(_))));
        assert!(matches!(timeline.start(11, RULES), Start::Fresh(_)));
        // Without a maximum age, the limit is the time between two timeouts.
        let mut start = |ms| {
            let now = timeline.at(ms);
            timeline.state.start(now, Duration::ZERO, RULES, 1)
        };
        assert!(matches!(start(19), Start::Overdue(_, None)));
        assert!(matches!(start(20), Start::Overdue(_, Some(_))));
        assert!(matches!(start(21), Start::Overdue(_, None)));
    }

    #[test]
    fn each_run_is_counted_once_although_its_result_may_replace_its_timeout() {
        let mut timeline = Timeline::new();
        assert!(timeline.record(0, &Ok(())).is_counted);

        let number = timeline.run(2_000);
        assert!(timeline.time_out(2_010).recorded.is_counted);
        let Finished::Recorded(recorded, _) = timeline.finish(number, 2_012, &Ok(()), LONGER) else { panic!("late") };
        assert!(!recorded.is_counted);

        let Start::New(number) = timeline.start(4_000, RULES) else { panic!("not due") };
        let error = ProbeError::new(ProbeErrorKind::Failed, "no thread");
        let failure = timeline.state.fail_to_start(number, timeline.at(4_000), error, RULES).unwrap();
        assert!(failure.recorded.is_counted);
    }

    #[test]
    fn a_result_is_valid_until_it_is_as_old_as_its_maximum_age() {
        let mut timeline = Timeline::new();
        assert!(timeline.state.is_new());
        timeline.record(0, &Ok(()));
        assert!(!timeline.state.is_new());
        let end = Some(timeline.at(1_000).instant);
        assert_eq!((timeline.state.fresh_until(MAX_AGE), timeline.state.valid_until(MAX_AGE)), (end, end));
        let status_at = |ms| timeline.state.latest_outcome(timeline.at(ms).instant, MAX_AGE).unwrap().status;
        assert_eq!((status_at(999), status_at(1_000)), (Status::Up, Status::Down));
        timeline.run(1_000);
        assert_eq!(timeline.state.fresh_until(MAX_AGE), None);
    }

    #[test]
    fn transitions_are_logged_and_each_kind_of_failure_once_until_the_check_is_up() {
        use ProbeErrorKind::{Failed, Saturated, Unreachable};
        let mut timeline = Timeline::new();
        let results = [
            (Ok(()), false),
            (failed(Failed), true),
            (failed(Failed), false),
            (failed(Unreachable), true),
            (failed(Failed), false),
            // It is degraded.
            (failed(Saturated), true),
            (failed(Failed), true),
            (failed(Saturated), true),
            (failed(Saturated), false),
            (Ok(()), true),
            (Ok(()), false),
            (failed(Failed), true),
            (failed(Unreachable), true),
        ];
        for (at, (result, should_log)) in (0..).step_by(1_000).zip(results) {
            assert_eq!(timeline.record(at, &result).should_log, should_log, "{at}: {result:?}");
        }
        assert!(Timeline::new().record(0, &failure()).should_log);
    }

    #[test]
    fn an_error_after_the_limit_explains_the_timeout_and_is_logged_once_if_the_check_is_down() {
        let late = |timeline: &mut Timeline, at, result: &Result<(), ProbeError>| {
            let number = timeline.run(at);
            timeline.time_out(at + 10);
            let Finished::Late(Some(recorded), _) = timeline.finish(number, at + 11, result, RULES) else {
                panic!("recorded as a result of its own")
            };
            let error = timeline.state.outcome_of(number).unwrap().error.unwrap();
            (recorded.should_log, error.to_string())
        };
        let mut timeline = Timeline::new();
        assert_eq!(late(&mut timeline, 0, &failure()), (true, "no".to_owned()));
        assert_eq!(late(&mut timeline, 2_000, &failure()), (false, "no".to_owned()));
        let degraded = failed(ProbeErrorKind::Saturated);
        assert_eq!(late(&mut timeline, 4_000, &degraded), (true, "timed out after 10 ms".to_owned()));

        // One failure of two that are required.
        let rules = Rules { fall: 2, ..RULES };
        let mut timeline = Timeline::new();
        timeline.record(0, &Ok(()));
        let number = timeline.run(2_000);
        assert!(matches!(timeline.state.expire(timeline.at(2_010), rules), Expired::TimedOut(_)));
        let Finished::Late(Some(recorded), _) = timeline.finish(number, 2_011, &failure(), rules) else {
            panic!("recorded as a result of its own")
        };
        assert_eq!((recorded.after, recorded.should_log), (Status::Up, false));
        assert_eq!(timeline.state.outcome_of(number).unwrap().status, Status::Up);
    }

    #[test]
    fn details_count_failures_in_a_row_and_keep_the_time_of_the_last_transition() {
        let mut timeline = Timeline::new();
        for (at, result, failures, since, transitions) in [
            (0, Ok(()), 0, 0, 0),
            (1_000, failure(), 1, 1_000, 1),
            (2_000, failure(), 2, 1_000, 1),
            (3_000, Ok(()), 0, 3_000, 2),
            (4_000, Ok(()), 0, 3_000, 2),
        ] {
            timeline.record(at, &result);
            let details = timeline.state.details(timeline.at(at + 7).instant).unwrap();
            assert_eq!(details.consecutive_failures, failures, "{at}");
            assert_eq!(details.since, timeline.at(since).wall, "{at}");
            assert_eq!(details.counters.transitions, transitions, "{at}");
            assert_eq!(details.age, Duration::from_millis(7), "{at}");
        }
        let mut timeline = Timeline::new();
        timeline.record(0, &failure());
        assert_eq!(timeline.state.details(timeline.at(0).instant).unwrap().consecutive_failures, 1);
    }

    #[test]
    fn the_history_has_the_latest_results_with_their_ages() {
        let mut timeline = Timeline::new();
        let results = HISTORY_LEN as u64 + 2;
        for n in 0..results {
            timeline.record(n * 1_000, &Ok(()));
        }
        let now = timeline.at(results * 1_000).instant;
        let ages: Vec<_> = timeline.state.history(now).iter().map(|sample| sample.age.as_secs()).collect();
        assert_eq!(ages, (1..=HISTORY_LEN as u64).rev().collect::<Vec<_>>());
    }
}
