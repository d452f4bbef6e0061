//! Counts the threads that blocking calls of a user's check occupy: `actix_web::web::block`, `tokio::task::spawn_blocking`.
//!
//! Such a call goes on when the future that waits for it is dropped. A check whose calls hang would leave a thread behind with
//! each abandoned run; so there is a bound, above which the next run waits for a call to return.
//!
//! tokio names a new thread on the thread that needs it, which is the one that polls the check: the name carries the count to
//! the new thread, whose hooks count it. Idle threads are not kept, so each call has a thread of its own.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Builder;

/// A check with so many blocking calls that have not returned is not run again before one does.
const MAX_CALLS: usize = 4;

const NAME: &str = "health-blocking-";

/// The blocking calls of one check that have not returned, also those of earlier runs.
#[derive(Default)]
pub(crate) struct BlockingCalls {
    running: Mutex<usize>,
    returned: Condvar,
}

thread_local! {
    /// On a thread that polls a check: the calls of that check. On one that serves a call: those that it is one of.
    static CALLS: RefCell<Option<Arc<BlockingCalls>>> = const { RefCell::new(None) };
}

/// The calls whose threads have a name and did not start yet, by the number in their name.
static STARTING: Mutex<Option<HashMap<u64, Arc<BlockingCalls>>>> = Mutex::new(None);

impl BlockingCalls {
    /// Polls a run on this thread, and counts its blocking calls. Waits while too many have not returned.
    pub(super) fn counted(self: Arc<Self>, poll: impl FnOnce()) {
        {
            let mut running = self.running.lock();
            self.returned.wait_while(&mut running, |running| *running >= MAX_CALLS);
        }
        CALLS.set(Some(self));
        poll();
        CALLS.set(None);
    }

    /// Why the next run waits, if it does.
    pub(crate) fn exhausted(&self) -> Option<String> {
        let running = *self.running.lock();
        (running >= MAX_CALLS).then(|| format!("{running} blocking calls of its earlier runs have not returned"))
    }
}

/// Has a runtime count its threads for blocking calls.
pub(super) fn count(builder: &mut Builder) {
    builder.thread_name_fn(name).on_thread_start(started).on_thread_stop(stopped).thread_keep_alive(Duration::ZERO);
}

fn name() -> String {
    static THREADS: AtomicU64 = AtomicU64::new(0);

    let Some(calls) = CALLS.with_borrow(Clone::clone) else { return "health-io".to_owned() };
    let number = THREADS.fetch_add(1, Ordering::Relaxed);
    STARTING.lock().get_or_insert_default().insert(number, calls);
    format!("{NAME}{number}")
}

fn started() {
    let thread = thread::current();
    let number = thread.name().and_then(|name| name.strip_prefix(NAME)?.parse::<u64>().ok());
    let calls = number.and_then(|number| STARTING.lock().as_mut()?.remove(&number));
    if let Some(calls) = calls {
        *calls.running.lock() += 1;
        CALLS.set(Some(calls));
    }
}

fn stopped() {
    if let Some(calls) = CALLS.take() {
        *calls.running.lock() -= 1;
        calls.returned.notify_all();
    }
}
