//! How long a connection may stay silent before another one is tried concurrently.
//!
//! A connection can be dead without either end noticing, so a silent one is hedged with another. A fixed delay would open a connection in
//! nearly every run if the server is far away, so the delay follows the round trips of earlier runs.

use std::{
    error::Error,
    future::{Future, pending},
    io,
    pin::pin,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures_util::future::{Either, select};
use tokio::time::{Instant, sleep, timeout};

use super::{
    attempts::{INTERVAL, first_result},
    label::Label,
};
use crate::{
    error::{ProbeError, ProbeErrorKind, chain},
    probes::classify::Classify,
};

/// How long a driver that is connecting may be silent before the server is connected to directly.
pub(in crate::probes) const HEDGE_DELAY: Duration = Duration::from_millis(100);

/// The shortest delay, and the delay before any round trip is known: longer than a query to another continent takes.
pub(in crate::probes) const MIN_DELAY: Duration = Duration::from_millis(300);

/// Longer round trips exceed the limit of any check.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// Longer round trips are caused by a fault of the server, and not by its distance, unless all are that long.
pub(in crate::probes) const MAX_ROUND_TRIP: Duration = Duration::from_secs(1);

/// The delay before a silent connection is hedged, from the round trips of one resource.
#[derive(Debug, Default)]
pub(in crate::probes) struct HedgeDelay {
    /// The longest recent round trip, in microseconds.
    longest_us: AtomicU32,
}

impl HedgeDelay {
    pub(in crate::probes) const fn new() -> Self {
        Self { longest_us: AtomicU32::new(0) }
    }

    /// Returns twice the longest recent round trip, within [`MIN_DELAY`] and [`MAX_DELAY`].
    pub(in crate::probes) fn get(&self) -> Duration {
        let longest = Duration::from_micros(self.longest_us.load(Ordering::Relaxed).into());
        (longest * 2).clamp(MIN_DELAY, MAX_DELAY)
    }

    /// Records the duration of a successful round trip. A longer one from before decays by an eighth. One that is longer than
    /// [`MAX_ROUND_TRIP`], because it began while the server was frozen, counts only if none is known.
    pub(in crate::probes) fn record(&self, round_trip: Duration) {
        let round_trip_us = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX);
        let is_distance = round_trip <= MAX_ROUND_TRIP;
        let decayed = |longest: u32| (longest == 0 || is_distance).then(|| round_trip_us.max(longest - longest / 8));
        // The runs of one check do not overlap, so relaxed ordering is enough.
        let _ = self.longest_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, decayed);
    }
}

/// Returns the result of the driver's query, or that of `hedge`, which starts after `delay`, whichever is there first. If `hedge`
/// returns `None`, the query is waited for. Drivers may be silent for long: they retry refused connections, and wait for responses
/// on dead ones.
pub(in crate::probes) async fn hedged<T, E>(
    query: impl Future<Output = Result<T, E>>,
    delay: Duration,
    hedge: impl Future<Output = Option<Result<T, E>>>,
) -> Result<T, E> {
    let hedge = pin!(async {
        sleep(delay).await;
        hedge.await
    });
    match select(pin!(query), hedge).await {
        Either::Left((result, _)) | Either::Right((Some(result), _)) => result,
        Either::Right((None, query)) => query.await,
    }
}

/// Why a [`repeated`] query fails.
pub(in crate::probes) enum RepeatedError<E> {
    /// The first query had no response in time, and a repetition had one.
    Late,
    Query(E),
}

impl<E> RepeatedError<E> {
    /// Creates an error that names the server of the query.
    pub(in crate::probes) fn into_probe_error(self, label: &Label, error: impl FnOnce(E) -> ProbeError) -> ProbeError {
        match self {
            Self::Late => ProbeError::new(
                ProbeErrorKind::TimedOut,
                format!("a request to {label} had no response in time, a later one had"),
            )
            .degraded(),
            Self::Query(failure) => error(failure),
        }
    }
}

/// Runs a query. If it is silent for longer than those before, or ends with the client's own timeout, it is repeated, for which the client
/// uses other connections, because that of the first one is in use. From the result of either on, the other has as long again: it may be
/// slow, and not silent.
pub(in crate::probes) async fn repeated<E: Classify, F: Future<Output = Result<(), E>>>(
    delay: &HedgeDelay,
    mut query: impl FnMut() -> F,
) -> Result<(), RepeatedError<E>> {
    let started = Instant::now();
    let wait = delay.get();
    let mut first = pin!(query());
    let repetition = pin!(first_result(INTERVAL, || failure_by_repetition(query())));
    let ended = match timeout(wait, &mut first).await {
        Ok(result) => Either::Left((result, repetition)),
        Err(_) => select(first, repetition).await,
    };
    let result = match ended {
        Either::Left((Err(error), repetition)) if error.is_timeout() => {
            return Err(timeout(wait, repetition).await.unwrap_or(RepeatedError::Query(error)));
        }
        Either::Left((result, _)) => result,
        Either::Right((failure, first)) => match timeout(wait, first).await {
            Ok(Err(error)) if error.is_timeout() => return Err(failure),
            Ok(result) => result,
            Err(_) => return Err(failure),
        },
    };
    if result.is_ok() {
        delay.record(started.elapsed());
    }
    result.map_err(RepeatedError::Query)
}

/// Returns why the first query fails if it stays silent. Most errors of a repetition say nothing about that, because the server may reject
/// only further requests. If the server refuses connections, the error is a better message than that the first query timed out.
async fn failure_by_repetition<E: Classify>(repetition: impl Future<Output = Result<(), E>>) -> RepeatedError<E> {
    match repetition.await {
        Ok(()) => RepeatedError::Late,
        Err(error) if is_refusal(&error) => RepeatedError::Query(error),
        Err(_) => pending().await,
    }
}

fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    let mut errors = chain(error).filter_map(|link| link.downcast_ref::<io::Error>());
    errors.any(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::{future::ready, io::ErrorKind};

    use super::*;

    const RTT: Duration = Duration::from_millis(1);

    /// How long a query takes, and its result.
    type Query = (Duration, Result<(), ErrorKind>);

    const SILENT: Query = (Duration::from_secs(3600), Ok(()));
    const FAST: Query = (RTT, Ok(()));

    /// The outcome of a query and its repetitions, and how long they took.
    #[derive(Debug, PartialEq)]
    enum Outcome {
        Ok,
        Late,
        Failed(ErrorKind),
        /// Silent for longer than the limit of any check.
        Silent,
    }

    async fn run(delay: &HedgeDelay, queries: &[Query]) -> (Outcome, Duration) {
        let started = Instant::now();
        let mut queries = queries.iter();
        let repeated = repeated(delay, || {
            let &(duration, result) = queries.next().expect("no further repetition");
            async move {
                sleep(duration).await;
                result.map_err(io::Error::from)
            }
        });
        let outcome = match timeout(INTERVAL * 2, repeated).await {
            Ok(Ok(())) => Outcome::Ok,
            Ok(Err(RepeatedError::Late)) => Outcome::Late,
            Ok(Err(RepeatedError::Query(error))) => Outcome::Failed(error.kind()),
            Err(_) => Outcome::Silent,
        };
        (outcome, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_query_is_late_if_a_repetition_succeeds() {
        let delay = HedgeDelay::new();
        assert_eq!(run(&delay, &[SILENT, FAST]).await, (Outcome::Late, MIN_DELAY + RTT + MIN_DELAY));
        assert_eq!(delay.get(), MIN_DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_query_is_no_error_and_later_ones_may_take_as_long() {
        let delay = HedgeDelay::new();
        let slow = MIN_DELAY + MIN_DELAY;
        assert_eq!(run(&delay, &[(slow, Ok(())), FAST]).await, (Outcome::Ok, slow));
        assert_eq!(delay.get(), slow * 2);
        assert_eq!(run(&delay, &[(slow, Ok(()))]).await, (Outcome::Ok, slow));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_the_query_itself_counts() {
        let delay = HedgeDelay::new();
        let early = (RTT, Err(ErrorKind::ConnectionReset));
        assert_eq!(run(&delay, &[early]).await, (Outcome::Failed(ErrorKind::ConnectionReset), RTT));
        let slow = (MIN_DELAY + MIN_DELAY, Err(ErrorKind::ConnectionReset));
        let failed = (Outcome::Failed(ErrorKind::ConnectionReset), MIN_DELAY + MIN_DELAY);
        assert_eq!(run(&delay, &[slow, FAST]).await, failed);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_refusal_of_a_repetition_counts_and_not_before_a_slow_query_has_ended() {
        let delay = HedgeDelay::new();
        let refused = (Duration::ZERO, Err(ErrorKind::ConnectionRefused));
        let failed = (Outcome::Failed(ErrorKind::ConnectionRefused), MIN_DELAY + MIN_DELAY);
        assert_eq!(run(&delay, &[SILENT, refused]).await, failed);
        let rejected = (Duration::ZERO, Err(ErrorKind::PermissionDenied));
        assert_eq!(run(&delay, &[SILENT, rejected, rejected]).await.0, Outcome::Silent);
        let slow = MIN_DELAY + MIN_DELAY + RTT;
        assert_eq!(run(&delay, &[(slow, Ok(())), rejected]).await, (Outcome::Ok, slow));
        let slow = MIN_DELAY + MIN_DELAY / 2;
        assert_eq!(run(&HedgeDelay::new(), &[(slow, Ok(())), refused]).await, (Outcome::Ok, slow));
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_error_of_a_repetition_a_silent_query_is_repeated_again() {
        let rejected = (Duration::ZERO, Err(ErrorKind::PermissionDenied));
        let late = (Outcome::Late, MIN_DELAY + INTERVAL + RTT + MIN_DELAY);
        assert_eq!(run(&HedgeDelay::new(), &[SILENT, rejected, FAST]).await, late);
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_that_exceeds_the_timeout_of_the_client_is_late_if_a_repetition_succeeds() {
        let delay = HedgeDelay::new();
        // Before a repetition, while one is in flight, and after its result.
        let early = MIN_DELAY / 2;
        let timed_out = |after| (after, Err(ErrorKind::TimedOut));
        assert_eq!(run(&delay, &[timed_out(early), FAST]).await, (Outcome::Late, early + RTT));
        let slow = (RTT * 3, Ok(()));
        assert_eq!(run(&delay, &[timed_out(MIN_DELAY + RTT), slow]).await, (Outcome::Late, MIN_DELAY + RTT * 3));
        let later = MIN_DELAY + RTT * 9;
        assert_eq!(run(&delay, &[timed_out(later), FAST]).await, (Outcome::Late, later));
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_that_exceeds_the_timeout_of_the_client_fails_if_its_repetition_fails() {
        let delay = HedgeDelay::new();
        let timed_out = (MIN_DELAY / 2, Err(ErrorKind::TimedOut));
        let failed = |error| (Outcome::Failed(error), MIN_DELAY / 2);
        let refused = (Duration::ZERO, Err(ErrorKind::ConnectionRefused));
        assert_eq!(run(&delay, &[timed_out, refused]).await, failed(ErrorKind::ConnectionRefused));
        assert_eq!(run(&delay, &[timed_out, timed_out]).await.0, Outcome::Failed(ErrorKind::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hedge_begins_after_the_delay_and_only_its_result_ends_the_query() {
        let started = Instant::now();
        let silent = || pending::<Result<(), &str>>();
        assert_eq!(hedged(silent(), HEDGE_DELAY, ready(Some(Err("refused")))).await, Err("refused"));
        assert_eq!(started.elapsed(), HEDGE_DELAY);
        let slow = async {
            sleep(HEDGE_DELAY * 3).await;
            Ok::<_, &str>("slow")
        };
        assert_eq!(hedged(slow, HEDGE_DELAY, ready(None)).await, Ok("slow"));
        assert_eq!(hedged(ready(Ok::<_, &str>("fast")), HEDGE_DELAY, ready(Some(Err("refused")))).await, Ok("fast"));
    }

    #[test]
    fn the_delay_is_longer_than_earlier_round_trips() {
        let delay = HedgeDelay::new();
        assert_eq!(delay.get(), MIN_DELAY);
        delay.record(Duration::from_millis(2));
        assert_eq!(delay.get(), MIN_DELAY);
        delay.record(Duration::from_millis(350));
        assert_eq!(delay.get(), Duration::from_millis(700));
    }

    #[test]
    fn a_round_trip_that_began_on_a_frozen_server_is_no_distance() {
        let frozen = Duration::from_secs(60);
        let delay = HedgeDelay::new();
        delay.record(Duration::from_millis(350));
        delay.record(frozen);
        assert_eq!(delay.get(), Duration::from_millis(700));
        // Unless all are that long.
        let delay = HedgeDelay::new();
        delay.record(frozen);
        assert_eq!(delay.get(), MAX_DELAY);
    }

    #[test]
    fn a_single_slow_round_trip_decays() {
        let delay = HedgeDelay::new();
        delay.record(Duration::from_millis(700));
        assert_eq!(delay.get(), Duration::from_millis(1_400));
        for _ in 0..20 {
            delay.record(Duration::from_millis(1));
        }
        assert_eq!(delay.get(), MIN_DELAY);
    }
}
