//! The threads of users' checks. A run is polled on one thread until it ends, so one that blocks or deadlocks hurts only
//! itself. Another runtime drives its I/O and timers, and keeps doing so when the run has ended: connections opened in a check
//! outlive it.
//!
//! That runtime has two workers, because a task that a check spawns may block one. tokio does not move the I/O driver to
//! another worker when the one that was woken by it blocks; a task from outside does. So while runs are polled, an empty task
//! is spawned every now and then.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tokio::{
    runtime::{Builder, Handle},
    sync::Notify,
    time::sleep,
};

use super::{
    blocking::{self, BlockingCalls},
    drive,
};

/// At most so many runs of users' checks are polled at a time. Further ones wait for a thread, within their limits.
const MAX_THREADS: usize = 128;

/// An idle thread ends after this time.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How often, and how many times after a run has begun, the runtime behind the threads gets an empty task.
const PULSE: Duration = Duration::from_millis(20);
const PULSES: u32 = 100;

/// The threads `health-check`, and the runtime behind them.
pub(super) struct CheckThreads {
    pool: Arc<Pool>,
    io: Handle,
    activity: Arc<Activity>,
}

/// The runs that are being polled.
#[derive(Default)]
struct Activity {
    running: AtomicUsize,
    begun: Notify,
}

impl CheckThreads {
    /// `background` is the runtime for the empty tasks' timer.
    pub(super) fn start(background: &Handle) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        blocking::count(builder.worker_threads(2).enable_all());
        let threads = Self { pool: Arc::default(), io: drive("health-io", &mut builder)?, activity: Arc::default() };
        background.spawn(keep_driven(threads.io.clone(), Arc::clone(&threads.activity)));
        Ok(threads)
    }

    pub(super) fn spawn(
        &self,
        blocking_calls: Arc<BlockingCalls>,
        run: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let (io, activity) = (self.io.clone(), Arc::clone(&self.activity));
        self.pool.execute(Box::new(move || {
            blocking_calls.counted(|| {
                activity.running.fetch_add(1, Ordering::AcqRel);
                activity.begun.notify_one();
                io.block_on(run);
                activity.running.fetch_sub(1, Ordering::AcqRel);
            });
        }))
    }

    /// Why runs have to wait, if they do.
    pub(super) fn exhausted(&self) -> Option<String> {
        let state = self.pool.state.lock();
        if state.queue.is_empty() {
            return None;
        }
        let threads = state.threads;
        Some(match &state.spawn_error {
            Some(error) => format!("all {threads} threads for checks are in use, and no other can be started: {error}"),
            None => format!("all {threads} threads for checks are in use"),
        })
    }
}

async fn keep_driven(io: Handle, activity: Arc<Activity>) {
    loop {
        activity.begun.notified().await;
        for _ in 0..PULSES {
            sleep(PULSE).await;
            if activity.running.load(Ordering::Acquire) == 0 {
                break;
            }
            io.spawn(async {});
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A pool of threads that grows by demand.
///
/// tokio's own pool of blocking threads would do, but for one thing: it panics when the operating system has no thread left,
/// and a health check has to report that.
#[derive(Default)]
struct Pool {
    state: Mutex<PoolState>,
    queued: Condvar,
}

#[derive(Default)]
struct PoolState {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// Notified threads that have not woken yet.
    waking: usize,
    /// Why the last attempt to start a thread failed, if it did.
    spawn_error: Option<io::Error>,
}

impl Pool {
    /// Queues a job. A thread that takes one sees to it that another thread is awake for the next, so a queue of many short
    /// jobs wakes few threads, and a job that blocks holds up no other.
    fn execute(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let mut state = self.state.lock();
        state.queue.push_back(job);
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

    /// Makes sure that a thread is about to take from the queue, if any can be had.
    fn provide(self: &Arc<Self>, state: &mut PoolState) {
        if state.queue.is_empty() || state.waking > 0 {
            return;
        }
        if state.idle > 0 {
            state.idle -= 1;
            state.waking += 1;
            self.queued.notify_one();
        } else if state.threads < MAX_THREADS {
            let pool = Arc::clone(self);
            match thread::Builder::new().name("health-check".to_owned()).spawn(move || pool.work()) {
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
