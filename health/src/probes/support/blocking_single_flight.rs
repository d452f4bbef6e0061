//! At most one blocked thread, for calls that may block forever.

use std::io;

use tokio::task::spawn_blocking;

use super::single_flight::SingleFlight;

/// Runs one blocking call at a time on the runtime's blocking pool: a file system or a resolver that hangs blocks one thread,
/// however many runs there are. Clones share the call in flight.
#[derive(Debug)]
pub(in crate::probes) struct BlockingSingleFlight<T>(SingleFlight<T>);

impl<T: Send + 'static> BlockingSingleFlight<T> {
    pub(in crate::probes) fn new() -> Self {
        Self(SingleFlight::new())
    }

    /// Returns the output of the call in flight, or of `call` if there is none.
    pub(in crate::probes) async fn run(&self, call: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        self.0.join_or_start(|| spawn_blocking(call)).await.map_err(io::Error::other)
    }

    /// Returns the output of the call in flight. Returns `None` if there is none, or if it ended between the runs.
    pub(in crate::probes) async fn join(&self) -> Option<io::Result<T>> {
        self.0.join().await.map(|joined| joined.map_err(io::Error::other))
    }
}

impl<T> Clone for BlockingSingleFlight<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use parking_lot::Mutex;
    use tokio::time::timeout;

    use super::BlockingSingleFlight;

    #[tokio::test]
    async fn a_call_that_hangs_blocks_one_thread_however_many_runs_there_are() {
        let single_flight = BlockingSingleFlight::new();
        let started = Arc::new(AtomicUsize::new(0));
        let (unblock, blocked) = mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        let call = || {
            let (started, blocked) = (started.clone(), blocked.clone());
            move || {
                let number = started.fetch_add(1, Ordering::SeqCst);
                if number == 0 {
                    blocked.lock().recv().unwrap();
                }
                number
            }
        };
        for _ in 0..5 {
            // Dropped at the hard limit.
            timeout(Duration::from_millis(20), single_flight.clone().run(call())).await.unwrap_err();
        }
        assert_eq!(started.load(Ordering::SeqCst), 1);

        // A run that begins while the call hangs gets its output.
        let run = tokio::spawn({
            let (single_flight, call) = (single_flight.clone(), call());
            async move { single_flight.run(call).await.unwrap() }
        });
        tokio::task::yield_now().await;
        unblock.send(()).unwrap();
        assert_eq!(run.await.unwrap(), 0);
        assert_eq!(single_flight.run(call()).await.unwrap(), 1, "the next run starts another call");
    }

    #[tokio::test]
    async fn the_output_of_a_call_that_ended_between_runs_is_dropped() {
        let single_flight = BlockingSingleFlight::new();
        let (unblock, blocked) = mpsc::channel::<()>();
        let dropped = single_flight.run(move || {
            blocked.recv().unwrap();
            "old"
        });
        timeout(Duration::from_millis(20), dropped).await.unwrap_err();
        unblock.send(()).unwrap();
        while !single_flight.0.is_finished().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(single_flight.run(|| "new").await.unwrap(), "new");
    }

    #[tokio::test]
    async fn a_run_may_join_the_call_in_flight_without_starting_one() {
        let single_flight = BlockingSingleFlight::new();
        assert!(single_flight.join().await.is_none());
        let (unblock, blocked) = mpsc::channel::<()>();
        let dropped = single_flight.run(move || blocked.recv().is_ok());
        timeout(Duration::from_millis(20), dropped).await.unwrap_err();
        let unblock = async { unblock.send(()).unwrap() };
        assert!(tokio::join!(biased; single_flight.join(), unblock).0.unwrap().unwrap());
    }
}
