//! How long a connection may stay silent before another one is tried concurrently.
//!
//! A connection can be dead without either end noticing, so a silent one is hedged with another. A fixed delay would open a connection in
//! nearly every run if the server is far away, so the delay follows the round trips of earlier runs.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures_util::future::{Either, select};
use tokio::time::{Instant, sleep, timeout};

use super::attempts::{INTERVAL, first_result};

/// How long a driver that is connecting may be silent before the server is connected to directly.
pub(in crate::probes) const HEDGE_DELAY: Duration = Duration::from_millis(100);

/// The shortest delay, and the delay before any round trip is known: longer than a query to another continent takes.
pub(in crate::probes) const MIN_DELAY: Duration = Duration::from_millis(300);

/// Longer round trips exceed the limit of any check.
const MAX_DELAY: Duration = Duration::from_secs(5);

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

    /// Whether a round trip has been recorded.
    pub(in crate::probes) fn is_known(&self) -> bool {
        self.longest_us.load(Ordering::Relaxed) > 0
    }

    /// Records the duration of a successful round trip. A longer one from before decays by an eighth.
    pub(in crate::probes) fn record(&self, round_trip: Duration) {
        let round_trip_us = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX);
        let decayed = |longest: u32| Some(round_trip_us.max(longest - longest / 8));
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
#[derive(Debug, PartialEq)]
pub(in crate::probes) enum RepeatedError<E> {
    /// A repetition succeeds, and the first query stays silent.
    Silent,
    Query(E),
}

/// Runs a query. If it is silent for longer than those before, or for `unknown_delay` if there were none, it is repeated, for which the
/// client uses other connections, because that of the first one is in use. From the first result of a repetition on, the first query has as
/// long again: it may be slow, and not silent.
pub(in crate::probes) async fn repeated<E, F: Future<Output = Result<(), E>>>(
    delay: &HedgeDelay,
    unknown_delay: Duration,
    mut query: impl FnMut() -> F,
) -> Result<(), RepeatedError<E>> {
    let started = Instant::now();
    let wait = if delay.is_known() { delay.get() } else { unknown_delay };
    let mut first = pin!(query());
    let result = match timeout(wait, &mut first).await {
        Ok(result) => result,
        Err(_) => match select(first, pin!(first_result(INTERVAL, query))).await {
            Either::Left((result, _)) => result,
            Either::Right((repetition, first)) => match (timeout(wait, first).await, repetition) {
                (Ok(result), _) => result,
                (Err(_), Ok(())) => return Err(RepeatedError::Silent),
                (Err(_), Err(error)) => Err(error),
            },
        },
    };
    if result.is_ok() {
        delay.record(started.elapsed());
    }
    result.map_err(RepeatedError::Query)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// Runs a query and repetitions that end after these durations with these results. `None` is silent.
    async fn run(
        delay: &HedgeDelay,
        queries: &[Option<(Duration, Result<(), &'static str>)>],
    ) -> Result<(), RepeatedError<&'static str>> {
        let mut queries = queries.iter();
        repeated(delay, INTERVAL, || {
            let query = *queries.next().expect("no further repetition");
            async move {
                match query {
                    None => pending().await,
                    Some((duration, result)) => {
                        sleep(duration).await;
                        result
                    }
                }
            }
        })
        .await
    }

    fn known() -> HedgeDelay {
        let delay = HedgeDelay::new();
        delay.record(Duration::from_millis(1));
        delay
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_query_is_an_error_if_a_repetition_succeeds() {
        let started = Instant::now();
        let rtt = Duration::from_millis(1);
        assert_eq!(run(&known(), &[None, Some((rtt, Ok(())))]).await, Err(RepeatedError::Silent));
        assert_eq!(started.elapsed(), MIN_DELAY + rtt + MIN_DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_query_is_no_error_and_later_ones_may_take_as_long() {
        let delay = known();
        let slow = MIN_DELAY + MIN_DELAY;
        assert_eq!(run(&delay, &[Some((slow, Ok(()))), Some((Duration::from_millis(1), Ok(())))]).await, Ok(()));
        assert_eq!(delay.get(), slow * 2);
        assert_eq!(run(&delay, &[Some((slow, Ok(())))]).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_of_a_repetition_counts_if_the_query_is_silent() {
        let refused = Some((Duration::ZERO, Err("refused")));
        assert_eq!(run(&known(), &[None, refused]).await, Err(RepeatedError::Query("refused")));
        let failed = Some((MIN_DELAY + Duration::from_millis(1), Err("failed")));
        assert_eq!(run(&known(), &[failed, refused]).await, Err(RepeatedError::Query("failed")));
    }

    #[tokio::test(start_paused = true)]
    async fn without_earlier_results_the_first_repetition_is_later() {
        let delay = HedgeDelay::new();
        let slow = INTERVAL * 9 / 10;
        assert_eq!(run(&delay, &[Some((slow, Err("failed")))]).await, Err(RepeatedError::Query("failed")));
        assert!(!delay.is_known());
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
        assert!(!delay.is_known());
        delay.record(Duration::from_millis(2));
        assert!(delay.is_known());
        assert_eq!(delay.get(), MIN_DELAY);
        delay.record(Duration::from_millis(350));
        assert_eq!(delay.get(), Duration::from_millis(700));
        delay.record(Duration::from_secs(60));
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
