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
    process::{EPOCH, TICK_INTERVAL_MS, WORKERS, WorkerState},
    report::{Entry, milliseconds},
};

/// The longest time between two ticks, and so between two wake-ups of an idle worker.
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest time between two ticks. A busy machine does not schedule a worker more often.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

thread_local! {
    static THIS_WORKER: RefCell<Weak<Heartbeat>> = const { RefCell::new(Weak::new()) };
}

/// The heartbeat of a worker: a task on its event loop that records the time. All scopes of the worker share it; dropping the last
/// handle removes the worker.
pub(crate) struct Heartbeat {
    number: usize,
    state: Arc<WorkerState>,
    task: AbortHandle,
}

impl Heartbeat {
    /// Returns the heartbeat of this worker, which ticks often enough to detect that a worker is blocked for `stall`.
    pub(crate) fn of_this_worker(stall: Duration) -> Rc<Self> {
        let heartbeat = THIS_WORKER.with_borrow_mut(|this| {
            this.upgrade().unwrap_or_else(|| {
                let heartbeat = Rc::new(Self::start());
                *this = Rc::downgrade(&heartbeat);
                heartbeat
            })
        });
        let interval = milliseconds((stall / 4).clamp(MIN_INTERVAL, MAX_INTERVAL));
        if TICK_INTERVAL_MS.fetch_min(interval, Ordering::Relaxed) > interval {
            WORKERS.lock().iter().flatten().for_each(|state| state.interval_changed.notify_one());
        }
        heartbeat
    }

    fn start() -> Self {
        let state = Arc::new(WorkerState { last_tick_ms: AtomicU64::new(now_ms()), interval_changed: Notify::new() });
        let ticking = Arc::clone(&state);
        // On the runtime of the worker, because that is what is observed.
        let task = Handle::current().spawn(async move {
            loop {
                ticking.tick();
                let interval = Duration::from_millis(TICK_INTERVAL_MS.load(Ordering::Relaxed));
                select(pin!(sleep(interval)), pin!(ticking.interval_changed.notified())).await;
            }
        });
        let mut workers = WORKERS.lock();
        let number = workers.iter().position(Option::is_none).unwrap_or_else(|| {
            workers.push(None);
            workers.len() - 1
        });
        workers[number] = Some(Arc::clone(&state));
        Self { number, state, task: task.abort_handle() }
    }

    /// An entry for each worker: `DOWN` if its event loop has been blocked for longer than `stall`.
    ///
    /// The worker that responds is not blocked. If it has ticked too late itself, the whole process was paused. It is then not
    /// reported, which gives the other workers time to tick.
    pub(crate) fn entries(&self, stall: Duration) -> Vec<Entry> {
        let limit = milliseconds(stall).max(4 * TICK_INTERVAL_MS.load(Ordering::Relaxed));
        let process_paused = self.state.blocked_ms() > limit;
        self.state.tick();
        let entry = |(number, state): (usize, &Option<Arc<WorkerState>>)| {
            let blocked_ms = state.as_ref()?.blocked_ms();
            let time =
                if blocked_ms < 1_000 { format!("{blocked_ms} ms") } else { format!("{} s", blocked_ms / 1_000) };
            let error = format!("event loop blocked for {time}");
            let is_blocked = blocked_ms > limit && !process_paused;
            Some(Entry::plain("health", format!("worker.{number}"), is_blocked.then(|| error.into())))
        };
        WORKERS.lock().iter().enumerate().filter_map(entry).collect()
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
        WORKERS.lock()[self.number] = None;
    }
}

impl WorkerState {
    fn blocked_ms(&self) -> u64 {
        now_ms().saturating_sub(self.last_tick_ms.load(Ordering::Relaxed))
    }

    fn tick(&self) {
        self.last_tick_ms.store(now_ms(), Ordering::Relaxed);
    }
}

/// Milliseconds since [`EPOCH`].
fn now_ms() -> u64 {
    let epoch = *EPOCH;
    milliseconds(Instant::now().duration_since(epoch))
}
