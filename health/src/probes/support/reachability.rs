//! Whether a server can be connected to, while its driver is silent.
//!
//! A driver that has lost its connection reconnects repeatedly, and its commands wait meanwhile. So if a query takes longer than its round
//! trips took so far, a plain TCP connection is opened. If the server refuses it, that is the result of the run. Otherwise the run waits for
//! the driver.
//!
//! A server that responds costs nothing. A silent one gets a connection that is closed at once, every two seconds.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::{Either, select};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::{attempts::INTERVAL, hedge::HedgeDelay};

/// The delay after a failed run, because then the driver is probably reconnecting.
const DELAY_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// What earlier runs of a check have learned about the connection to its server.
#[derive(Debug, Default)]
pub(in crate::probes) struct Reachability {
    round_trips: HedgeDelay,
    has_failed: AtomicBool,
    last_connection: Mutex<Option<Instant>>,
}

impl Reachability {
    pub(in crate::probes) fn new() -> Self {
        Self::default()
    }

    /// Returns the result of the driver's query, or the error of `refusal`, whichever is there first. `refusal` connects to the server, and
    /// returns `None` on success.
    pub(in crate::probes) async fn or_refusal<T, E, F>(
        &self,
        query: impl Future<Output = Result<T, E>>,
        refusal: impl Fn() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Option<E>>,
    {
        let started = Instant::now();
        let refused = pin!(async {
            let delay =
                if self.has_failed.load(Ordering::Relaxed) { DELAY_AFTER_FAILURE } else { self.round_trips.get() };
            sleep_until(started + delay).await;
            loop {
                if let Some(error) = self.connect(refusal()).await {
                    return error;
                }
            }
        });
        let result = match select(pin!(query), refused).await {
            Either::Left((result, _)) => result,
            Either::Right((error, _)) => Err(error),
        };
        if result.is_ok() {
            self.round_trips.record(started.elapsed());
        }
        self.has_failed.store(result.is_err(), Ordering::Relaxed);
        result
    }

    /// Returns the error of `refusal`, for a driver whose own error does not contain the cause. Returns `None` if a connection succeeded in
    /// the last two seconds.
    pub(in crate::probes) async fn refusal<E>(&self, refusal: impl Future<Output = Option<E>>) -> Option<E> {
        if self.last_connection().is_some_and(|last| last.elapsed() < INTERVAL) {
            return None;
        }
        self.connect(refusal).await
    }

    fn last_connection(&self) -> Option<Instant> {
        *self.last_connection.lock()
    }

    /// Successful connections are two seconds apart; a refused one costs the server nothing.
    async fn connect<E>(&self, refusal: impl Future<Output = Option<E>>) -> Option<E> {
        if let Some(last) = self.last_connection() {
            sleep_until(last + INTERVAL).await;
        }
        let refused = refusal.await;
        if refused.is_none() {
            *self.last_connection.lock() = Some(Instant::now());
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::atomic::AtomicU32,
    };

    use tokio::time::{sleep, timeout};

    use super::*;

    type Outcome = Result<(), &'static str>;

    async fn after(ms: u64, outcome: Outcome) -> Outcome {
        sleep(Duration::from_millis(ms)).await;
        outcome
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_the_result_while_the_driver_is_silent() {
        let reachability = Reachability::new();
        let started = Instant::now();
        let silent = || reachability.or_refusal(pending::<Outcome>(), || ready(Some("refused")));
        assert_eq!(silent().await, Err("refused"));
        assert_eq!(started.elapsed(), Duration::from_millis(300));
        // The next runs return it sooner.
        for _ in 0..3 {
            let started = Instant::now();
            assert_eq!(silent().await, Err("refused"));
            assert_eq!(started.elapsed(), DELAY_AFTER_FAILURE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_far_away_is_not_connected_to() {
        for round_trip in [80, 150, 250, 350, 700] {
            let reachability = Reachability::new();
            let connections = AtomicU32::new(0);
            for _ in 0..20 {
                let connect = || async {
                    connections.fetch_add(1, Ordering::SeqCst);
                    None
                };
                reachability.or_refusal(after(round_trip, Ok(())), connect).await.unwrap();
            }
            // In the first run the distance is unknown.
            let at_first = u32::from(round_trip > 300);
            assert_eq!(connections.load(Ordering::SeqCst), at_first, "{round_trip} ms away");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_accepts_and_never_responds_is_connected_to_every_two_seconds() {
        let reachability = Reachability::new();
        let connections = AtomicU32::new(0);
        let connect = || async {
            connections.fetch_add(1, Ordering::SeqCst);
            None
        };
        // A run that exceeds its limit, and runs that end.
        timeout(Duration::from_secs(20), reachability.or_refusal(pending::<Outcome>(), connect)).await.unwrap_err();
        for _ in 0..40 {
            reachability.or_refusal(after(500, Err("timed out")), connect).await.unwrap_err();
        }
        // Runs that fail without a cause.
        for _ in 0..40 {
            assert_eq!(reachability.refusal(connect()).await, None::<&str>);
            sleep(Duration::from_millis(500)).await;
        }
        // In 60 s.
        let connections = connections.load(Ordering::SeqCst);
        assert!((25..=31).contains(&connections), "{connections}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_connection_after_one_that_succeeded_is_opened_after_two_seconds() {
        let reachability = Reachability::new();
        let refused = || reachability.refusal(ready(Some("refused")));
        assert_eq!(reachability.refusal(ready(None::<&str>)).await, None);
        sleep(Duration::from_millis(1_999)).await;
        assert_eq!(refused().await, None);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(refused().await, Some("refused"));
        assert_eq!(refused().await, Some("refused"), "a refused one costs nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_waits_for_the_driver_while_the_server_accepts_connections() {
        let reachability = Reachability::new();
        assert_eq!(reachability.or_refusal(after(700, Ok(())), || ready(None)).await, Ok(()));
        assert_eq!(reachability.or_refusal(after(700, Err("mine")), || ready(None)).await, Err("mine"));
    }
}
