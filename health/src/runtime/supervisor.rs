//! Calls at scheduled times, in one task that runs no user code. So a limit is recorded when it has passed, whatever blocks
//! elsewhere.

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
    /// Records the limits that have passed. `at` is the scheduled time of the call. Returns when to call next, if at all.
    fn expire(self: Arc<Self>, at: Instant, runtime: &Arc<Runtime>) -> Option<Instant>;
}

/// The scheduled calls, the earliest first.
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

/// Makes the scheduled calls, without end. It does not wake up while there are none.
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
    /// The earliest entry is the greatest, because a `BinaryHeap` pops that.
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
