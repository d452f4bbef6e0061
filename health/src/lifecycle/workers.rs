//! [`Heartbeat`]: whether the event loop of each worker runs.

use std::{
    cell::RefCell,
    pin::pin,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::select;
use tokio::{
    runtime::Handle,
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::{
    process::{DRAINING_AND_SERVING, ENDED_DRAIN_WARNING, EPOCH, TICK_INTERVAL_MS, WORKERS, WorkerState, generation},
    report::{Entry, Worker, milliseconds},
};

/// The longest time between two ticks, and so between two wake-ups of an idle worker.
pub(super) const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest time between two ticks. A busy machine does not schedule a worker more often.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

thread_local! {
    static THIS_WORKER: RefCell<Weak<Heartbeat>> = const { RefCell::new(Weak::new()) };
}

/// The heartbeat of a worker: a task on its event loop that records the time. All scopes of the worker share it; dropping the last
/// handle removes the worker.
pub(crate) struct Heartbeat {
    /// The index in [`WORKERS`]; `None` on the management server, which is not a worker.
    number: Option<usize>,
    state: Arc<WorkerState>,
    task: AbortHandle,
}

/// Why a management server has no worker to report.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissingWorkers {
    NotRegistered,
    Stopped,
}

/// Why no worker is registered at present; `None` if one is.
pub(super) fn missing_workers() -> Option<MissingWorkers> {
    let workers = WORKERS.lock();
    match (workers.is_empty(), workers.iter().any(Option::is_some)) {
        (true, _) => Some(MissingWorkers::NotRegistered),
        (false, false) => Some(MissingWorkers::Stopped),
        (false, true) => None,
    }
}

/// Warns if the workers have ended while a server should still serve. Called after the end of a worker and after the start of a drain,
/// whose order is random: at SIGTERM actix's own handler stops the server, too, unless it is disabled.
pub(super) fn warn_if_ended_before_drain() {
    if DRAINING_AND_SERVING.load(Ordering::SeqCst) > 0
        && missing_workers() == Some(MissingWorkers::Stopped)
        && ENDED_DRAIN_WARNING.claim()
    {
        // Not on the thread of the log: the process may be about to end.
        tracing::warn!(
            "the workers have ended before the time of the drain has passed: add `.disable_signals()` to the HttpServer, so that it does \
             not stop at SIGTERM by itself"
        );
    }
}

impl Heartbeat {
    /// Returns the heartbeat of this worker, which ticks often enough to detect that a worker is blocked for `stall`.
    pub(crate) fn of_this_worker(stall: Duration) -> Rc<Self> {
        let heartbeat = THIS_WORKER.with_borrow_mut(|this| {
            this.upgrade().unwrap_or_else(|| {
                let heartbeat = Rc::new(Self::start().registered());
                *this = Rc::downgrade(&heartbeat);
                heartbeat
            })
        });
        shorten_interval(stall);
        heartbeat
    }

    /// Starts a heartbeat that observes the workers and is not one of them.
    pub(crate) fn of_management_server(stall: Duration) -> Rc<Self> {
        shorten_interval(stall);
        Rc::new(Self::start())
    }

    fn start() -> Self {
        let state = Arc::new(WorkerState::new(now_ms()));
        let ticking = Arc::clone(&state);
        // On the runtime of the worker, because that is what is observed.
        let task = Handle::current().spawn(async move {
            loop {
                ticking.tick(now_ms());
                let interval = Duration::from_millis(TICK_INTERVAL_MS.load(Ordering::Relaxed));
                select(pin!(sleep(interval)), pin!(ticking.interval_changed.notified())).await;
            }
        });
        Self { number: None, state, task: task.abort_handle() }
    }

    fn registered(mut self) -> Self {
        let mut workers = WORKERS.lock();
        let number = workers.iter().position(Option::is_none).unwrap_or_else(|| {
            workers.push(None);
            workers.len() - 1
        });
        workers[number] = Some(Arc::clone(&self.state));
        self.number = Some(number);
        generation::bump();
        self
    }

    /// All workers, and which of them have been blocked for longer than `stall`.
    ///
    /// The event loop that responds is not blocked. If it has ticked too late itself, the whole process may have been paused, so that
    /// time does not count for the others.
    pub(crate) fn workers(&self, stall: Duration) -> Vec<Worker> {
        let now = now_ms();
        self.state.tick(now);
        workers(stall, |worker| worker.blocked_ms(&self.state, now))
    }

    /// Whether there is no worker to report. Always `None` in a worker.
    pub(crate) fn missing_workers(&self) -> Option<MissingWorkers> {
        if self.number.is_some() { None } else { missing_workers() }
    }
}

/// All workers, as seen by code that runs on no event loop that could tell a pause of the process from a blocked worker.
pub(crate) fn unobserved_workers(stall: Duration) -> Vec<Worker> {
    let now = now_ms();
    workers(stall, |worker| now.saturating_sub(worker.last_tick_ms.load(Ordering::Relaxed)))
}

fn workers(stall: Duration, blocked_ms: impl Fn(&WorkerState) -> u64) -> Vec<Worker> {
    let limit = milliseconds(stall).max(max_gap_ms());
    let worker = |(number, state): (usize, &Option<Arc<WorkerState>>)| {
        let blocked_ms = blocked_ms(state.as_ref()?);
        Some(Worker { number, blocked: Duration::from_millis(blocked_ms), is_blocked: blocked_ms > limit })
    };
    WORKERS.lock().iter().enumerate().filter_map(worker).collect()
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(number) = self.number {
            WORKERS.lock()[number] = None;
            generation::bump();
            warn_if_ended_before_drain();
        }
    }
}

impl MissingWorkers {
    pub(crate) fn entry(self) -> Entry {
        let message = match self {
            Self::NotRegistered => {
                "no worker has registered: add `.service(health::heartbeat())` to the App of the main server"
            }
            Self::Stopped => "all workers have stopped: the main server does not run any more",
        };
        Entry::down("health", "workers", message)
    }
}

impl WorkerState {
    fn new(now: u64) -> Self {
        Self {
            last_tick_ms: AtomicU64::new(now),
            resumed_ms: AtomicU64::new(0),
            pause_ms: AtomicU64::new(0),
            interval_changed: Notify::new(),
        }
    }

    /// The time since the latest tick, without the latest pause of the observer if that was since.
    fn blocked_ms(&self, observer: &Self, now: u64) -> u64 {
        let last_tick = self.last_tick_ms.load(Ordering::Relaxed);
        let was_paused_since = observer.resumed_ms.load(Ordering::Relaxed) > last_tick;
        let pause = if was_paused_since { observer.pause_ms.load(Ordering::Relaxed) } else { 0 };
        now.saturating_sub(last_tick).saturating_sub(pause)
    }

    fn tick(&self, now: u64) {
        let gap = now.saturating_sub(self.last_tick_ms.swap(now, Ordering::Relaxed));
        if gap > max_gap_ms() {
            self.resumed_ms.store(now, Ordering::Relaxed);
            self.pause_ms.store(gap, Ordering::Relaxed);
        }
    }
}

/// Makes all workers tick often enough to detect that one is blocked for `stall`.
fn shorten_interval(stall: Duration) {
    let interval = milliseconds((stall / 4).clamp(MIN_INTERVAL, MAX_INTERVAL));
    if TICK_INTERVAL_MS.fetch_min(interval, Ordering::Relaxed) > interval {
        WORKERS.lock().iter().flatten().for_each(|state| state.interval_changed.notify_one());
    }
}

/// The longest time between two ticks that is not too late. A busy machine delays them.
fn max_gap_ms() -> u64 {
    4 * TICK_INTERVAL_MS.load(Ordering::Relaxed)
}

/// Milliseconds since [`EPOCH`].
fn now_ms() -> u64 {
    let epoch = *EPOCH;
    milliseconds(Instant::now().duration_since(epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_which_the_observer_did_not_run_either_does_not_count() {
        let (observer, fine, blocked) = (WorkerState::new(1_000), WorkerState::new(1_000), WorkerState::new(1_000));
        let assert_blocked_ms = |of_fine, of_blocked, now| {
            observer.tick(now);
            assert_eq!((fine.blocked_ms(&observer, now), blocked.blocked_ms(&observer, now)), (of_fine, of_blocked));
        };
        for now in [2_000, 3_000, 4_000] {
            fine.tick(now);
            assert_blocked_ms(0, now - 1_000, now);
        }
        // The process is paused for 20 s. The observer runs first.
        assert_blocked_ms(0, 3_000, 24_100);
        assert_blocked_ms(50, 3_050, 24_150);
        fine.tick(24_200);
        assert_blocked_ms(0, 3_100, 24_200);
        for now in [25_200, 26_200, 27_200] {
            fine.tick(now);
            assert_blocked_ms(0, now - 21_100, now);
        }
        // And once more.
        assert_blocked_ms(0, 26_200, 57_200);
    }
}
