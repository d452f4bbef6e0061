//! Work that nobody can end, once at a time: what is given up by who asked for it goes on, and who asks next waits for that.

use std::{fmt, future::Future, panic::resume_unwind, sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    task::{JoinError, JoinHandle},
    time::Instant,
};

/// After so long work that may be lost is taken to be, and other work is begun beside it; each further time after twice as
/// long, for what is lost may never end: a day's outage leaves a hundred and fifty behind, and not one a round.
const PATIENCE: Duration = Duration::from_mins(1);
const LONGEST_PATIENCE: Duration = Duration::from_mins(10);
const ENDLESS_PATIENCE: Duration = Duration::MAX;

/// Clones share it.
pub(super) struct OneAtATime<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    under_way: Option<(JoinHandle<T>, Instant)>,
    patience: Duration,
    /// What it is after success.
    first_patience: Duration,
}

impl<T: Send + 'static> OneAtATime<T> {
    /// For work that ends when what it hangs on does.
    pub(super) fn new() -> Self {
        Self::with(ENDLESS_PATIENCE)
    }

    /// For work that may be lost on the way, and then never ends.
    pub(super) fn that_may_be_lost() -> Self {
        Self::with(PATIENCE)
    }

    fn with(patience: Duration) -> Self {
        Self(Arc::new(Mutex::new(State { under_way: None, patience, first_patience: patience })))
    }

    /// What the work comes to that `begin` begins. Where earlier work is under way, that is waited for instead.
    ///
    /// # Errors
    ///
    /// It panicked.
    pub(super) async fn ask(&self, begin: impl FnOnce() -> JoinHandle<T>) -> Result<T, JoinError> {
        let mut state = self.0.lock().await;
        let patience = state.patience;
        match &state.under_way {
            // Nobody waited for it to the end, and what it found out is of the past.
            Some((work, _)) if work.is_finished() => state.under_way = None,
            Some((_, since)) if since.elapsed() >= patience => {
                state.under_way = None;
                state.patience = patience.saturating_mul(2).min(LONGEST_PATIENCE);
            }
            _ => {}
        }
        let (work, _) = state.under_way.get_or_insert_with(|| (begin(), Instant::now()));
        let found = work.await;
        (state.under_way, state.patience) = (None, state.first_patience);
        found
    }

    /// The answer to a question that is a task of its own. Where an earlier one is under way, its answer; its panic goes on here.
    pub(super) async fn answer(&self, question: impl Future<Output = T> + Send + 'static) -> T {
        let answer = self.ask(|| tokio::spawn(question)).await;
        answer.unwrap_or_else(|panicked| resume_unwind(panicked.into_panic()))
    }

    #[cfg(test)]
    pub(super) async fn is_finished(&self) -> bool {
        self.0.lock().await.under_way.as_ref().is_some_and(|(work, _)| work.is_finished())
    }
}

impl<T> Clone for OneAtATime<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for OneAtATime<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneAtATime")
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
    async fn what_never_ends_is_begun_anew_more_and_more_rarely() {
        let one = OneAtATime::that_may_be_lost();
        let begun = Arc::new(AtomicU32::new(0));
        let work = || {
            let begun = Arc::clone(&begun);
            || {
                tokio::spawn(async move {
                    begun.fetch_add(1, Ordering::SeqCst);
                    pending::<()>().await;
                })
            }
        };
        for _ in 0..24 * 60 {
            // Given up, as at the hard limit.
            assert!(timeout(Duration::from_secs(30), one.ask(work())).await.is_err());
            sleep(Duration::from_secs(30)).await;
        }
        let begun = begun.load(Ordering::SeqCst);
        assert!((100..=150).contains(&begun), "{begun}");
    }
}
