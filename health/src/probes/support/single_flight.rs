//! At most one task at a time, for work that cannot be cancelled: a run that is dropped leaves its work in flight, and the next
//! run waits for that instead of starting other work.

use std::{fmt, future::Future, panic::resume_unwind, sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    task::{JoinError, JoinHandle},
    time::Instant,
};

/// After this time, work that may be lost is abandoned, and other work is started. The time doubles with each abandoned task, up to
/// [`MAX_ABANDON_AFTER`], because lost work may never end: a day's outage leaves about 150 tasks behind.
const ABANDON_AFTER: Duration = Duration::from_mins(1);
const MAX_ABANDON_AFTER: Duration = Duration::from_mins(10);

/// Clones share the work in flight.
pub(in crate::probes) struct SingleFlight<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    in_flight: Option<InFlight<T>>,
    abandon_after: Duration,
    /// The value of `abandon_after` once work has completed.
    initial_abandon_after: Duration,
}

struct InFlight<T> {
    work: JoinHandle<T>,
    since: Instant,
}

impl<T: Send + 'static> SingleFlight<T> {
    /// For work that always ends.
    pub(in crate::probes) fn new() -> Self {
        Self::with(Duration::MAX)
    }

    /// For work that may never end.
    pub(in crate::probes) fn abandoning_lost_work() -> Self {
        Self::with(ABANDON_AFTER)
    }

    fn with(abandon_after: Duration) -> Self {
        let state = State { in_flight: None, abandon_after, initial_abandon_after: abandon_after };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Returns the output of the work in flight, or of the work that `start` starts if there is none.
    ///
    /// # Errors
    ///
    /// Returns an error if the work panicked.
    pub(in crate::probes) async fn join_or_start(&self, start: impl FnOnce() -> JoinHandle<T>) -> Result<T, JoinError> {
        let mut state = self.0.lock().await;
        let abandon_after = state.abandon_after;
        match &state.in_flight {
            // No run has waited for it to the end, so its output is outdated.
            Some(InFlight { work, .. }) if work.is_finished() => state.in_flight = None,
            Some(InFlight { since, .. }) if since.elapsed() >= abandon_after => {
                state.in_flight = None;
                state.abandon_after = abandon_after.saturating_mul(2).min(MAX_ABANDON_AFTER);
            }
            _ => {}
        }
        let in_flight = state.in_flight.get_or_insert_with(|| InFlight { work: start(), since: Instant::now() });
        let output = (&mut in_flight.work).await;
        state.in_flight = None;
        state.abandon_after = state.initial_abandon_after;
        output
    }

    /// Returns the output of the work in flight. Returns `None` if there is none, or if it ended between the runs.
    pub(in crate::probes) async fn join(&self) -> Option<Result<T, JoinError>> {
        let mut state = self.0.lock().await;
        let InFlight { work, .. } = state.in_flight.as_mut().filter(|in_flight| !in_flight.work.is_finished())?;
        let output = work.await;
        state.in_flight = None;
        Some(output)
    }

    /// Returns the output of the task in flight, or of `future`, which is spawned if there is none. A panic of the task is resumed.
    pub(in crate::probes) async fn join_or_spawn(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let output = self.join_or_start(|| tokio::spawn(future)).await;
        output.unwrap_or_else(|panicked| resume_unwind(panicked.into_panic()))
    }

    #[cfg(test)]
    pub(in crate::probes) async fn is_finished(&self) -> bool {
        self.0.lock().await.in_flight.as_ref().is_some_and(|in_flight| in_flight.work.is_finished())
    }
}

impl<T> Clone for SingleFlight<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for SingleFlight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SingleFlight")
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicU32, Ordering},
    };

    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_work_that_is_in_flight_can_be_joined() {
        let single_flight = SingleFlight::new();
        assert!(single_flight.join().await.is_none());
        let slow = |output| async move {
            sleep(Duration::from_secs(1)).await;
            output
        };
        timeout(Duration::from_millis(1), single_flight.join_or_spawn(slow("first"))).await.unwrap_err();
        assert_eq!(single_flight.join().await.unwrap().unwrap(), "first");
        assert!(single_flight.join().await.is_none());
        timeout(Duration::from_millis(1), single_flight.join_or_spawn(slow("second"))).await.unwrap_err();
        sleep(Duration::from_secs(2)).await;
        assert!(single_flight.join().await.is_none(), "it ended between the runs");
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_never_ends_is_restarted_at_growing_intervals() {
        let single_flight = SingleFlight::abandoning_lost_work();
        let started = Arc::new(AtomicU32::new(0));
        let start = || {
            let started = Arc::clone(&started);
            || {
                tokio::spawn(async move {
                    started.fetch_add(1, Ordering::SeqCst);
                    pending::<()>().await;
                })
            }
        };
        for _ in 0..24 * 60 {
            // Dropped at the hard limit.
            assert!(timeout(Duration::from_secs(30), single_flight.join_or_start(start())).await.is_err());
            sleep(Duration::from_secs(30)).await;
        }
        let started = started.load(Ordering::SeqCst);
        assert!((100..=150).contains(&started), "{started}");
    }
}
