//! Work that may block for ever, on one thread at most.

use std::io;

use tokio::task::spawn_blocking;

use super::one_at_a_time::OneAtATime;

/// Runs what blocks on the runtime's pool for that, once at a time: a file system or a resolver that hangs takes one thread,
/// however often it is asked. Clones share it.
#[derive(Debug)]
pub(super) struct OneThread<T>(OneAtATime<T>);

impl<T: Send + 'static> OneThread<T> {
    pub(super) fn new() -> Self {
        Self(OneAtATime::new())
    }

    /// What `work` finds out. Where earlier work still blocks, that is waited for instead.
    pub(super) async fn ask(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        self.0.ask(|| spawn_blocking(work)).await.map_err(io::Error::other)
    }
}

impl<T> Clone for OneThread<T> {
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

    use tokio::time::timeout;

    use super::OneThread;

    #[tokio::test]
    async fn what_hangs_takes_one_thread_however_often_it_is_asked() {
        let thread = OneThread::new();
        let started = Arc::new(AtomicUsize::new(0));
        let (let_go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let work = || {
            let (started, gate) = (started.clone(), gate.clone());
            move || {
                let nth = started.fetch_add(1, Ordering::SeqCst);
                if nth == 0 {
                    gate.lock().unwrap().recv().unwrap();
                }
                nth
            }
        };
        for _ in 0..5 {
            // Given up, as at the hard limit.
            timeout(Duration::from_millis(20), thread.clone().ask(work())).await.unwrap_err();
        }
        assert_eq!(started.load(Ordering::SeqCst), 1);

        // Who asks while it still hangs gets its answer when it is there.
        let asked = tokio::spawn({
            let (thread, work) = (thread.clone(), work());
            async move { thread.ask(work).await.unwrap() }
        });
        tokio::task::yield_now().await;
        let_go.send(()).unwrap();
        assert_eq!(asked.await.unwrap(), 0);
        assert_eq!(thread.ask(work()).await.unwrap(), 1, "the next one asks anew");
    }

    #[tokio::test]
    async fn what_was_found_out_when_nobody_waited_is_not_told_later() {
        let thread = OneThread::new();
        let (let_go, gate) = mpsc::channel::<()>();
        let given_up = thread.ask(move || {
            gate.recv().unwrap();
            "old"
        });
        timeout(Duration::from_millis(20), given_up).await.unwrap_err();
        let_go.send(()).unwrap();
        while !thread.0.is_finished().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(thread.ask(|| "new").await.unwrap(), "new");
    }
}
