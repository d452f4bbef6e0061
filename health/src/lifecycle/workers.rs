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
    process::{EPOCH, TICK_INTERVAL_MS, WORKERS, WorkerState, generation},
    report::{Entry, milliseconds},
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

/// Whether any worker is registered at present.
pub(super) fn any_registered() -> bool {
    WORKERS.lock().iter().any(Option::is_some)
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
        let state = Arc::new(WorkerState {
            last_tick_ms: AtomicU64::new(now_ms()),
            resumed_ms: AtomicU64::new(0),
            pause_ms: AtomicU64::new(0),
            interval_changed: Notify::new(),
        });
        let ticking = Arc::clone(&state);
        // On the runtime of the worker, because that is what is observed.
        let task = Handle::current().spawn(async move {
            loop {
                ticking.tick();
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

    /// An entry for each worker: `DOWN` if its event loop has been blocked for longer than `stall`.
    ///
    /// The event loop that responds is not blocked. If it has ticked too late itself, the whole process may have been paused, so that
    /// time does not count for the others.
    pub(crate) fn entries(&self, stall: Duration) -> Vec<Entry> {
        let limit = milliseconds(stall).max(max_gap_ms());
        self.state.tick();
        let entry = |(number, state): (usize, &Option<Arc<WorkerState>>)| {
            let blocked_ms = state.as_ref()?.blocked_ms(&self.state);
            let time =
                if blocked_ms < 1_000 { format!("{blocked_ms} ms") } else { format!("{} s", blocked_ms / 1_000) };
            let error = format!("event loop blocked for {time}");
            let is_blocked = blocked_ms > limit;
            Some(Entry::plain("health", format!("worker.{number}"), is_blocked.then(|| error.into())))
        };
        WORKERS.lock().iter().enumerate().filter_map(entry).collect()
    }

    /// Whether there is no worker to report. Always `None` in a worker.
    pub(crate) fn missing_workers(&self) -> Option<MissingWorkers> {
        if self.number.is_some() {
            return None;
        }
        let workers = WORKERS.lock();
        match (workers.is_empty(), workers.iter().any(Option::is_some)) {
            (true, _) => Some(MissingWorkers::NotRegistered),
            (false, false) => Some(MissingWorkers::Stopped),
            (false, true) => None,
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(number) = self.number {
            WORKERS.lock()[number] = None;
            generation::bump();
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
        Entry::plain("health", "workers", Some(message.into()))
    }
}

impl WorkerState {
    /// The time since the latest tick, without the latest pause of the observer if that was since.
    fn blocked_ms(&self, observer: &Self) -> u64 {
        let last_tick = self.last_tick_ms.load(Ordering::Relaxed);
        let was_paused_since = observer.resumed_ms.load(Ordering::Relaxed) > last_tick;
        let pause = if was_paused_since { observer.pause_ms.load(Ordering::Relaxed) } else { 0 };
        now_ms().saturating_sub(last_tick).saturating_sub(pause)
    }

    fn tick(&self) {
        let now = now_ms();
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
