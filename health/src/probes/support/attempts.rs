//! A further attempt when the previous one is silent.
//!
//! While the path to a server is broken, TCP retransmits after longer and longer pauses, so an attempt from that time may stay silent after
//! the server is back for as long as the outage took. A new attempt gets its response at once.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::timeout;

/// The shortest time between two attempts, and so between two connections that are opened for them.
pub(in crate::probes) const INTERVAL: Duration = Duration::from_secs(2);

/// The maximum number of attempts in flight, for runs that may take minutes.
const MAX_ATTEMPTS: usize = 15;

/// Returns the first result of any attempt. Another attempt begins after each `interval` without a result; the earlier ones continue,
/// because they may only be slow.
pub(in crate::probes) async fn first_result<F: Future>(
    interval: Duration,
    mut attempt: impl FnMut() -> F,
) -> F::Output {
    let mut attempts = Attempts(Vec::new());
    loop {
        attempts.0.push(Box::pin(attempt()));
        if attempts.0.len() == MAX_ATTEMPTS {
            return attempts.await;
        }
        if let Ok(result) = timeout(interval, &mut attempts).await {
            return result;
        }
    }
}

/// Attempts in flight. Polls all of them, because there are few.
struct Attempts<F>(Vec<Pin<Box<F>>>);

impl<F: Future> Future for Attempts<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let results = self.0.iter_mut().map(|attempt| attempt.as_mut().poll(context));
        results.into_iter().find(Poll::is_ready).unwrap_or(Poll::Pending)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_attempt_is_followed_by_another_one_and_continues() {
        let started = Instant::now();
        let mut begun = 0;
        let result = first_result(INTERVAL, || {
            begun += 1;
            let number = begun;
            async move {
                // The first one is slow, and all others hang.
                if number == 1 {
                    sleep(Duration::from_secs(7)).await;
                } else {
                    pending::<()>().await;
                }
                number
            }
        });
        assert_eq!(result.await, 1);
        assert_eq!((begun, started.elapsed()), (4, Duration::from_secs(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_attempt_after_the_server_is_back_has_the_result() {
        let started = Instant::now();
        let back = Duration::from_secs(9);
        let result = first_result(INTERVAL, || async {
            let begun = started.elapsed();
            if begun < back { pending().await } else { begun }
        });
        assert_eq!(result.await, Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_attempts_is_bounded() {
        let mut begun = 0;
        let lost = first_result(INTERVAL, || {
            begun += 1;
            pending::<()>()
        });
        timeout(Duration::from_secs(600), lost).await.unwrap_err();
        assert_eq!(begun, MAX_ATTEMPTS);
    }
}
