//! The threads of users' checks. Each run is polled on one thread until it ends, so a run that blocks or deadlocks affects no
//! other.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

/// The maximum number of users' checks that are polled at a time. Further runs wait for a thread, within their limits.
const MAX_THREADS: usize = 128;

/// How long an idle thread waits for a job before it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

type Job = Box<dyn FnOnce() + Send>;

/// A pool of `health-check` threads that grows on demand.
///
/// It is not tokio's pool of blocking threads because that panics when no thread can be started, which a health check has to
/// report.
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
    /// The error of the last attempt to start a thread, if it failed.
    spawn_error: Option<io::Error>,
}

impl CheckThreads {
    /// Queues a job. A thread that takes a job wakes or starts another thread if more jobs are queued: a queue of
    /// short jobs wakes few threads, and a job that blocks delays no other.
    ///
    /// # Errors
    ///
    /// The pool has no thread, and none can be started.
    pub(super) fn execute(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut state = self.state.lock();
        state.queue.push_back(Box::new(job));
        self.wake_or_start(&mut state);
        match (state.threads, state.spawn_error.take()) {
            // No thread will take the job.
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

    /// Why queued runs have to wait, if there are any.
    pub(super) fn wait_reason(&self) -> Option<String> {
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

    /// Ensures that a thread is about to take the next job, if one is idle or can be started.
    fn wake_or_start(self: &Arc<Self>, state: &mut State) {
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
                self.wake_or_start(&mut state);
                drop(state);
                // Panics of probes are caught in the run. This catches those of destructors at its end.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.state.lock();
            }
            state.idle += 1;
            let idle = self.queued.wait_for(&mut state, KEEP_ALIVE);
            if state.waking > 0 {
                // `wake_or_start` has counted this thread, or another one that it notified.
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
