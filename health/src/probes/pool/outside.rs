//! Connections outside the pool: when one is opened, how many there are concurrently, and how long an outcome is reused.
//!
//! Tasks open them, so that an attempt continues if its run ends, and the next run uses the outcome. Otherwise no run would ever get the
//! outcome of a far server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::select;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{Pool, Query};
use crate::probes::classify::Classify;

/// The shortest time between two attempts, and how long an outcome is reused.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);

/// The shortest time between two attempts while the server cannot be connected to, so that a run notices within a second that the server is
/// back.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(900);

/// How long a run waits for the next attempt before it reuses an outcome that is older than [`INTERVAL`].
const REUSE_DELAY: Duration = Duration::from_millis(200);

/// How long a run waits for a newer outcome before it reuses a failure from before it began.
const FAILURE_REUSE_DELAY: Duration = Duration::from_millis(450);

/// An older outcome is not reused, however far the server is.
const MAX_AGE: Duration = Duration::from_secs(60);

const MAX_IN_FLIGHT: usize = 2;

/// How long a connection may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The outcome of a connection outside the pool.
#[derive(Debug)]
pub(super) enum Outcome<E> {
    /// The server accepted it and responded, after this time.
    Works(Duration),
    /// The server has reached its maximum number of connections.
    Full(Arc<E>),
    Failed(Arc<E>),
}

impl<E> Clone for Outcome<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Works(took) => Self::Works(*took),
            Self::Full(error) => Self::Full(Arc::clone(error)),
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
        }
    }
}

/// Which outcomes a run accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wanted {
    /// Recent ones. An older success is reused while the next attempt is in flight.
    Recent,
    /// Recent successes, and failures of attempts that began after this time. An earlier failure is accepted only if no attempt can begin
    /// soon.
    Since(Instant),
    /// Those of attempts that began after this time.
    After(Instant),
}

/// The attempts of one probe, and the last outcome.
pub(super) struct Outside<E> {
    shared: Arc<Shared<E>>,
}

struct Shared<E> {
    attempts: Mutex<Attempts<E>>,
    ended: Notify,
    next_id: AtomicU64,
}

/// The attempts and the last outcome. Its methods do not wait.
struct Attempts<E> {
    in_flight: Vec<InFlight>,
    /// When the newest attempt began.
    last_begun: Option<Instant>,
    /// When the oldest attempt in flight began, since the last outcome.
    silent_since: Option<Instant>,
    last: Option<Ended<E>>,
}

struct InFlight {
    id: u64,
    begun: Instant,
    task: Option<AbortHandle>,
}

struct Ended<E> {
    outcome: Outcome<E>,
    begun: Instant,
    at: Instant,
}

#[derive(Debug)]
enum Decision<E> {
    Use(Outcome<E>),
    Begin,
    /// Until this time, or until an attempt ends.
    Wait(Option<Instant>),
}

impl<E> Attempts<E> {
    fn decide(&self, wanted: Wanted, called_at: Instant, now: Instant, cancel_safe: bool) -> Decision<E> {
        if let Some(outcome) = self.usable(wanted, called_at, now) {
            return Decision::Use(outcome);
        }
        let may_begin = self.may_begin(now, cancel_safe);
        if may_begin.is_some_and(|at| at <= now) {
            return Decision::Begin;
        }
        let reuse_at = called_at + if wanted == Wanted::Recent { REUSE_DELAY } else { FAILURE_REUSE_DELAY };
        Decision::Wait(may_begin.into_iter().chain(Some(reuse_at).filter(|at| *at > now)).min())
    }

    fn usable(&self, wanted: Wanted, called_at: Instant, now: Instant) -> Option<Outcome<E>> {
        let last = self.last.as_ref()?;
        let age = now.saturating_duration_since(last.at);
        let usable = match (&last.outcome, wanted) {
            (_, Wanted::After(begun)) => last.begun >= begun,
            (Outcome::Failed(_), Wanted::Recent) => age < RETRY_INTERVAL,
            (Outcome::Failed(_), Wanted::Since(begun)) => {
                last.begun >= begun || age < RETRY_INTERVAL && now >= called_at + FAILURE_REUSE_DELAY
            }
            (Outcome::Works(_) | Outcome::Full(_), _) if age < INTERVAL => true,
            (Outcome::Works(_) | Outcome::Full(_), Wanted::Recent) => {
                let took = last.at.saturating_duration_since(last.begun);
                age < MAX_AGE && now >= called_at + REUSE_DELAY && self.is_in_flight_no_longer_than(took, now)
            }
            (_, Wanted::Since(_)) => false,
        };
        usable.then(|| last.outcome.clone())
    }

    /// Whether an attempt is in flight, and has not taken notably longer than the last one.
    fn is_in_flight_no_longer_than(&self, took: Duration, now: Instant) -> bool {
        self.silent_since.is_some_and(|begun| now.saturating_duration_since(begun) <= took + took / 4)
    }

    /// When the next attempt may begin. `None` while too many that cannot be cancelled are in flight.
    fn may_begin(&self, now: Instant, cancel_safe: bool) -> Option<Instant> {
        let Some(last_begun) = self.last_begun else { return Some(now) };
        if self.in_flight.is_empty() && matches!(&self.last, Some(Ended { outcome: Outcome::Failed(_), .. })) {
            return Some(last_begun + RETRY_INTERVAL);
        }
        (cancel_safe || self.in_flight.len() < MAX_IN_FLIGHT).then(|| last_begun + INTERVAL)
    }

    /// Registers an attempt. If there are too many, cancels the oldest one, which has been silent for twice the interval.
    fn begin(&mut self, id: u64, now: Instant) {
        while self.in_flight.len() >= MAX_IN_FLIGHT {
            if let Some(task) = self.in_flight.remove(0).task {
                task.abort();
            }
        }
        self.in_flight.push(InFlight { id, begun: now, task: None });
        self.last_begun = Some(now);
        self.silent_since.get_or_insert(now);
    }

    fn end(&mut self, id: u64, now: Instant, outcome: Option<Outcome<E>>) {
        let Some(at) = self.in_flight.iter().position(|attempt| attempt.id == id) else { return };
        let begun = self.in_flight.remove(at).begun;
        if let Some(outcome) = outcome {
            self.last = Some(Ended { outcome, begun, at: now });
            self.silent_since = self.in_flight.first().map(|attempt| attempt.begun);
        }
    }
}

impl<E: Classify> Outside<E> {
    pub(super) fn new() -> Self {
        let attempts = Attempts { in_flight: Vec::new(), last_begun: None, silent_since: None, last: None };
        let shared = Shared { attempts: Mutex::new(attempts), ended: Notify::new(), next_id: AtomicU64::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the outcome of a connection outside the pool: an accepted earlier one, or that of a connection which is opened as soon as it
    /// may be.
    pub(super) async fn outcome<P, Q>(&self, pool: &P, query: &Q, wanted: Wanted) -> Outcome<E>
    where
        P: Pool<Error = E>,
        Q: Query<P>,
    {
        let called_at = Instant::now();
        loop {
            let ended = self.shared.ended.notified();
            let decision = self.shared.attempts.lock().decide(wanted, called_at, Instant::now(), P::CANCEL_SAFE);
            match decision {
                Decision::Use(outcome) => return outcome,
                Decision::Begin => self.begin(pool, query),
                Decision::Wait(None) => ended.await,
                Decision::Wait(Some(until)) => {
                    select(std::pin::pin!(ended), std::pin::pin!(sleep_until(until))).await;
                }
            }
        }
    }

    fn begin<P, Q>(&self, pool: &P, query: &Q)
    where
        P: Pool<Error = E>,
        Q: Query<P>,
    {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        self.shared.attempts.lock().begin(id, Instant::now());
        let registered = Registered { shared: Arc::clone(&self.shared), id };
        let (pool, query) = (pool.clone(), query.clone());
        // Boxed, because the future is large and rarely created.
        let attempt = Box::pin(async move {
            let begun = Instant::now();
            let responded = async {
                let mut connection = pool.connect().await?;
                let result = query.run(&mut connection).await;
                Ok((connection, result.map(drop)))
            };
            let (connection, result) = match responded.await {
                Ok((connection, result)) => (Some(connection), result),
                Err(error) => (None, Err(error)),
            };
            registered.end(match result {
                Ok(()) => Outcome::Works(begun.elapsed()),
                Err(error) if error.is_full() => Outcome::Full(Arc::new(error)),
                Err(error) => Outcome::Failed(Arc::new(error)),
            });
            if let Some(connection) = connection {
                // The outcome is known already.
                let _ = timeout(CLOSE_TIMEOUT, P::close(connection)).await;
            }
        });
        let task = tokio::spawn(attempt).abort_handle();
        if let Some(attempt) = self.shared.attempts.lock().in_flight.iter_mut().find(|attempt| attempt.id == id) {
            attempt.task = Some(task);
        }
    }
}

impl<E> Drop for Outside<E> {
    fn drop(&mut self) {
        for attempt in self.shared.attempts.lock().in_flight.drain(..) {
            if let Some(task) = attempt.task {
                task.abort();
            }
        }
    }
}

/// Removes an attempt that ends without an outcome, because it panicked or was aborted.
struct Registered<E> {
    shared: Arc<Shared<E>>,
    id: u64,
}

impl<E> Registered<E> {
    fn end(self, outcome: Outcome<E>) {
        self.shared.attempts.lock().end(self.id, Instant::now(), Some(outcome));
    }
}

impl<E> Drop for Registered<E> {
    fn drop(&mut self) {
        self.shared.attempts.lock().end(self.id, Instant::now(), None);
        self.shared.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts at times in milliseconds after a moment.
    struct Timeline(Instant);

    /// `usable` returns an outcome, or not.
    const REUSED: bool = true;
    const TOO_OLD: bool = false;

    impl Timeline {
        fn begin() -> Self {
            Self(Instant::now() + MAX_AGE)
        }

        fn at(&self, ms: u64) -> Instant {
            self.0 + Duration::from_millis(ms)
        }

        fn in_flight(&self, begun: &[u64]) -> Vec<InFlight> {
            (0..).zip(begun).map(|(id, &begun)| InFlight { id, begun: self.at(begun), task: None }).collect()
        }

        /// The last outcome, of an attempt that began and ended at these times, and the attempts in flight since then.
        fn after(
            &self,
            outcome: Outcome<&'static str>,
            [begun, ended]: [u64; 2],
            in_flight: &[u64],
        ) -> Attempts<&'static str> {
            Attempts {
                in_flight: self.in_flight(in_flight),
                last_begun: Some(self.at(in_flight.last().copied().unwrap_or(begun))),
                silent_since: in_flight.first().map(|&begun| self.at(begun)),
                last: Some(Ended { outcome, begun: self.at(begun), at: self.at(ended) }),
            }
        }

        fn wait(&self, until: impl Into<Option<u64>>) -> String {
            format!("{:?}", Decision::<&str>::Wait(until.into().map(|until| self.at(until))))
        }
    }

    fn works() -> Outcome<&'static str> {
        Outcome::Works(Duration::from_millis(100))
    }

    fn full() -> Outcome<&'static str> {
        Outcome::Full(Arc::new("full"))
    }

    fn failed() -> Outcome<&'static str> {
        Outcome::Failed(Arc::new("refused"))
    }

    #[test]
    fn an_attempt_that_began_late_enough_counts_whatever_its_outcome() {
        let time = Timeline::begin();
        for outcome in [works, full, failed] {
            let wanted = |after| {
                let attempts = time.after(outcome(), [100, 150], &[]);
                attempts.usable(Wanted::After(time.at(after)), time.at(90_000), time.at(90_000)).is_some()
            };
            assert_eq!([wanted(99), wanted(100), wanted(101)], [REUSED, REUSED, TOO_OLD]);
        }
    }

    #[test]
    fn a_failure_is_reused_for_less_than_the_time_until_the_next_attempt() {
        let time = Timeline::begin();
        let recent = |now| {
            let attempts = time.after(failed(), [0, 100], &[]);
            attempts.usable(Wanted::Recent, time.at(now), time.at(now)).is_some()
        };
        assert_eq!([recent(100), recent(999), recent(1_000), recent(1_001)], [REUSED, REUSED, TOO_OLD, TOO_OLD]);

        // Of an attempt that began before the run, only once the run has waited for a newer one.
        let since = |since, called_at, now| {
            let attempts = time.after(failed(), [0, 100], &[]);
            attempts.usable(Wanted::Since(time.at(since)), time.at(called_at), time.at(now)).is_some()
        };
        assert_eq!(since(0, 5_000, 5_000), REUSED);
        assert_eq!([since(1, 100, 549), since(1, 100, 550), since(1, 100, 551)], [TOO_OLD, REUSED, REUSED]);
        assert_eq!([since(1, 100, 999), since(1, 100, 1_000), since(1, 100, 1_001)], [REUSED, TOO_OLD, TOO_OLD]);
    }

    #[test]
    fn a_success_is_reused_for_the_interval_and_longer_while_the_next_attempt_is_not_late() {
        let time = Timeline::begin();
        for outcome in [works, full] {
            let usable = |wanted, [called_at, now]: [u64; 2], in_flight: &[u64]| {
                // It took 100 ms.
                let attempts = time.after(outcome(), [0, 100], in_flight);
                attempts.usable(wanted, time.at(called_at), time.at(now)).is_some()
            };
            let since = |now| usable(Wanted::Since(time.at(50)), [0, now], &[]);
            assert_eq!([since(2_099), since(2_100), since(2_101)], [REUSED, TOO_OLD, TOO_OLD]);
            let recent = |times, in_flight: &[u64]| usable(Wanted::Recent, times, in_flight);
            assert_eq!(recent([2_099, 2_099], &[]), REUSED);
            // Then the run waits for the next attempt first,
            assert_eq!(recent([3_000, 3_199], &[3_190]), TOO_OLD);
            assert_eq!([recent([3_000, 3_200], &[3_190]), recent([3_000, 3_201], &[3_190])], [REUSED, REUSED]);
            // which takes no more than a quarter longer,
            assert_eq!([recent([2_900, 3_125], &[3_000]), recent([2_900, 3_126], &[3_000])], [REUSED, TOO_OLD]);
            // if there is one,
            assert_eq!(recent([2_900, 3_125], &[]), TOO_OLD);
            // for up to a minute.
            assert_eq!([recent([0, 60_099], &[60_090]), recent([0, 60_100], &[60_090])], [REUSED, TOO_OLD]);
            assert_eq!(recent([0, 60_101], &[60_090]), TOO_OLD);
        }
    }

    #[test]
    fn an_attempt_begins_at_once_or_a_pause_after_the_last_one() {
        let time = Timeline::begin();
        let decide = |attempts: &Attempts<&'static str>, wanted, called_at, now, cancel_safe| {
            format!("{:?}", attempts.decide(wanted, time.at(called_at), time.at(now), cancel_safe))
        };
        let begin = format!("{:?}", Decision::<&str>::Begin);
        let after = Wanted::After(time.at(50_000));

        let none = Attempts { in_flight: Vec::new(), last_begun: None, silent_since: None, last: None };
        assert_eq!(decide(&none, Wanted::Recent, 0, 0, true), begin);
        assert_eq!(
            decide(&time.after(works(), [0, 10], &[]), Wanted::Recent, 20, 20, true),
            format!("{:?}", Decision::Use(works()))
        );

        // After a success, two seconds; after a failure, 900 ms, unless another attempt is in flight.
        let worked = time.after(works(), [0, 10], &[]);
        assert_eq!(decide(&worked, after, 0, 1_999, true), time.wait(2_000));
        assert_eq!(decide(&worked, after, 0, 2_000, true), begin);
        let refused = time.after(failed(), [0, 10], &[]);
        assert_eq!(decide(&refused, after, 0, 899, true), time.wait(900));
        assert_eq!(decide(&refused, after, 0, 900, true), begin);
        let overtaken = time.after(failed(), [0, 10], &[0]);
        assert_eq!(decide(&overtaken, after, 0, 900, true), time.wait(2_000));

        // Two that cannot be cancelled are the most.
        let one = time.after(works(), [0, 10], &[1_000]);
        assert_eq!(decide(&one, after, 0, 3_000, false), begin);
        let two = time.after(works(), [0, 10], &[1_000, 3_000]);
        assert_eq!(decide(&two, after, 0, 5_000, false), time.wait(None));
        assert_eq!(decide(&two, after, 0, 5_000, true), begin);
    }

    #[test]
    fn a_run_waits_until_an_outcome_may_be_reused_or_the_next_attempt_may_begin() {
        let time = Timeline::begin();
        let until = |wanted, called_at, now| {
            let attempts = time.after(works(), [0, 10], &[4_000]);
            format!("{:?}", attempts.decide(wanted, time.at(called_at), time.at(now), true))
        };
        // The next attempt may begin at 6 s.
        assert_eq!(until(Wanted::Recent, 4_100, 4_150), time.wait(4_300));
        assert_eq!(until(Wanted::Recent, 4_100, 4_299), time.wait(4_300));
        assert_eq!(until(Wanted::Recent, 4_099, 4_300), time.wait(6_000));
        assert_eq!(until(Wanted::Recent, 5_900, 5_950), time.wait(6_000));
        assert_eq!(until(Wanted::Since(time.at(4_100)), 4_100, 4_500), time.wait(4_550));
        assert_eq!(until(Wanted::Since(time.at(4_100)), 4_100, 4_550), time.wait(6_000));
    }

    #[test]
    fn the_oldest_of_two_attempts_makes_room_for_a_third() {
        let time = Timeline::begin();
        let mut attempts = Attempts::<&str> { in_flight: Vec::new(), last_begun: None, silent_since: None, last: None };
        for (id, begun) in [(1, 0), (2, 2_000), (3, 4_000)] {
            attempts.begin(id, time.at(begun));
        }
        let ids = |attempts: &Attempts<_>| attempts.in_flight.iter().map(|attempt| attempt.id).collect::<Vec<_>>();
        assert_eq!(ids(&attempts), [2, 3]);
        assert_eq!((attempts.last_begun, attempts.silent_since), (Some(time.at(4_000)), Some(time.at(0))));

        // The first one was aborted.
        attempts.end(1, time.at(4_001), Some(works()));
        assert!(attempts.last.is_none());
        // This one ends without an outcome, and the last one is not silent any more.
        attempts.end(2, time.at(4_002), None);
        assert!(attempts.last.is_none());
        assert_eq!((ids(&attempts), attempts.silent_since), (vec![3], Some(time.at(0))));
        attempts.end(3, time.at(4_100), Some(works()));
        let last = attempts.last.as_ref().unwrap();
        assert_eq!((last.begun, last.at), (time.at(4_000), time.at(4_100)));
        assert_eq!((ids(&attempts), attempts.silent_since), (vec![], None));
    }

    #[test]
    fn after_an_outcome_the_silence_is_that_of_the_attempt_still_in_flight() {
        let time = Timeline::begin();
        let mut attempts = time.after(works(), [0, 10], &[2_000, 4_000]);
        attempts.end(0, time.at(4_100), Some(failed()));
        assert_eq!(attempts.silent_since, Some(time.at(4_000)));
    }
}
