//! The threads of users' checks. A run is polled on one thread until it ends, so one that blocks or deadlocks hurts only
//! itself.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

/// The number of users' checks that are polled at a time. Further runs wait for a thread, within their limits.
const MAX_THREADS: usize = 128;

/// An idle thread ends after this time.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

type Job = Box<dyn FnOnce() + Send>;

/// A pool of `health-check` threads that grows by demand.
///
/// tokio's own pool of blocking threads would do, but for one thing: it panics when the operating system has no thread left,
/// and a health check has to report that.
#[derive(Default)]
pub(super) struct CheckThreads {
    state: Mutex<State>,
    queued: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// Notified threads that have not woken yet.
    waking: usize,
    /// Why the last attempt to start a thread failed, if it did.
    spawn_error: Option<io::Error>,
}

impl CheckThreads {
    /// Queues a job. A thread that takes one sees to it that another thread is awake for the next, so a queue of many short
    /// jobs wakes few threads, and a job that blocks holds up no other.
    ///
    /// # Errors
    ///
    /// There is no thread, and none can be started.
    pub(super) fn execute(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut state = self.state.lock();
        state.queue.push_back(Box::new(job));
        self.provide(&mut state);
        match (state.threads, state.spawn_error.take()) {
            // No thread would ever run it.
            (0, Some(error)) => {
                drop(state.queue.pop_back());
                Err(error)
            }
            (_, error) => {
                state.spawn_error = error;
                Ok(())
            }
        }
    }

    /// Why runs have to wait, if they do.
    pub(super) fn exhausted(&self) -> Option<String> {
        let state = self.state.lock();
        if state.queue.is_empty() {
            return None;
        }
        let threads = state.threads;
        Some(match &state.spawn_error {
            Some(error) => format!("all {threads} threads for checks are in use, and no other can be started: {error}"),
            None => format!("all {threads} threads for checks are in use"),
        })
    }

    /// Makes sure that a thread is about to take from the queue, if any can be had.
    fn provide(self: &Arc<Self>, state: &mut State) {
        if state.queue.is_empty() || state.waking > 0 {
            return;
        }
        if state.idle > 0 {
            state.idle -= 1;
            state.waking += 1;
            self.queued.notify_one();
        } else if state.threads < MAX_THREADS {
            let threads = Arc::clone(self);
            match thread::Builder::new().name("health-check".to_owned()).spawn(move || threads.work()) {
                Ok(_) => {
                    state.threads += 1;
                    state.waking += 1;
                    state.spawn_error = None;
                }
                Err(error) => state.spawn_error = Some(error),
            }
        }
    }

    fn work(self: Arc<Self>) {
        let mut state = self.state.lock();
        state.waking -= 1;
        loop {
            while let Some(job) = state.queue.pop_front() {
                self.provide(&mut state);
                drop(state);
                // A run contains its panics; this is for those of what it drops at its end.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.state.lock();
            }
            state.idle += 1;
            let idle = self.queued.wait_for(&mut state, KEEP_ALIVE);
            if state.waking > 0 {
                // `provide` has counted this thread, or one that wakes in its place.
                state.waking -= 1;
            } else if idle.timed_out() {
                state.idle -= 1;
                state.threads -= 1;
                return;
            } else {
                // A spurious wake-up.
                state.idle -= 1;
            }
        }
    }
}
