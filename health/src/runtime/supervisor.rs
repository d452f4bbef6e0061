//! Calls at requested times, in one task: whatever blocks elsewhere, a limit is recorded when it has passed.

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    pin::pin,
    sync::{Arc, Weak},
};

use futures_util::future::select;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::Runtime;

/// Something with limits.
pub(crate) trait Supervised: Send + Sync {
    /// Records what has expired; `at` is the time that was requested. Returns when to call next.
    fn expire(self: Arc<Self>, at: Instant, runtime: &Arc<Runtime>) -> Option<Instant>;
}

/// The requested times, the earliest first.
#[derive(Default)]
pub(super) struct Supervisor {
    entries: Mutex<BinaryHeap<Entry>>,
    /// Notified when an entry becomes the earliest.
    earlier: Notify,
}

struct Entry {
    at: Instant,
    supervised: Weak<dyn Supervised>,
}

impl Supervisor {
    pub(super) fn add(&self, supervised: Weak<dyn Supervised>, at: Instant) {
        let mut entries = self.entries.lock();
        let is_earliest = entries.peek().is_none_or(|earliest| at < earliest.at);
        entries.push(Entry { at, supervised });
        drop(entries);
        if is_earliest {
            self.earlier.notify_one();
        }
    }

    fn next(&self) -> Option<Instant> {
        self.entries.lock().peek().map(|entry| entry.at)
    }

    fn pop_due(&self, now: Instant) -> Option<Entry> {
        let mut entries = self.entries.lock();
        let is_due = entries.peek().is_some_and(|entry| entry.at <= now);
        if is_due { entries.pop() } else { None }
    }
}

/// Serves the requested times, without end. Sleeps while there are none.
pub(super) async fn run(runtime: Arc<Runtime>) {
    let supervisor = &runtime.supervisor;
    loop {
        let earlier = supervisor.earlier.notified();
        match supervisor.next() {
            Some(at) => {
                select(pin!(sleep_until(at)), pin!(earlier)).await;
            }
            None => earlier.await,
        }
        while let Some(Entry { at, supervised }) = supervisor.pop_due(Instant::now()) {
            let Some(supervised) = supervised.upgrade() else { continue };
            let again = Arc::downgrade(&supervised);
            if let Some(at) = supervised.expire(at, &runtime) {
                supervisor.entries.lock().push(Entry { at, supervised: again });
            }
        }
    }
}

impl Ord for Entry {
    /// A `BinaryHeap` pops the greatest: the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}
