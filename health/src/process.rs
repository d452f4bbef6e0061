//! The state that all scopes of the process share. Each static lives as long as the process; its comment says how long its entries
//! live.
//!
//! Statics of a type of their own module are next to the type, because modules below must not import those above: the engines
//! (`engine::shared`), the checks of states (`discovery::state`) and of resources (`check::resource`), which end with their last holder;
//! the global registry (`registry`) and the channel of all transitions (`events`); the threads (`runtime`), which a fork starts again.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::access::{LogThrottle, Peer};

/// A counter of all changes that can alter a response: a result, a check that is added or removed, the start of a drain.
///
/// A cached response is valid while the generation is the one that it was rendered at. One counter for the process is enough:
/// there are a few changes per second, and an unrelated one costs one rendering.
pub(crate) mod generation {
    use super::{AtomicU64, Ordering};

    /// Counts from the start of the process, and is never reset.
    static GENERATION: AtomicU64 = AtomicU64::new(0);

    /// Invalidates all cached responses.
    pub(crate) fn bump() {
        GENERATION.fetch_add(1, Ordering::Release);
    }

    /// The current generation. Load it before the data that is rendered, so that a change in between is not missed.
    pub(crate) fn current() -> u64 {
        GENERATION.load(Ordering::Acquire)
    }
}

/// When a worker's event loop ran last.
pub(crate) struct WorkerState {
    /// In milliseconds since [`EPOCH`].
    pub(crate) last_tick_ms: AtomicU64,
    /// When a tick was too late the last time, and the time between that tick and the one before.
    pub(crate) resumed_ms: AtomicU64,
    pub(crate) pause_ms: AtomicU64,
    /// Notified when [`TICK_INTERVAL_MS`] was shortened.
    pub(crate) interval_changed: Notify,
}

/// The workers that serve a scope or have a `health::heartbeat()`, each at the index that is its number. An entry becomes `None` with
/// the last of those of its worker; the list is empty only if no worker has ever registered.
pub(crate) static WORKERS: Mutex<Vec<Option<Arc<WorkerState>>>> = Mutex::new(Vec::new());

/// The time between two ticks of every worker, as the shortest `stall` of all scopes needs it. It is never lengthened again.
pub(crate) static TICK_INTERVAL_MS: AtomicU64 = AtomicU64::new(1_000);

/// The time from which ticks are counted: that of the first one.
pub(crate) static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How many servers are draining. A server counts from the start of its drain until it has stopped.
pub(crate) static DRAINING: AtomicUsize = AtomicUsize::new(0);

/// How many of these still have to serve, because the time of their drain has not passed.
pub(crate) static DRAINING_AND_SERVING: AtomicUsize = AtomicUsize::new(0);

/// Whether a server has stopped at the end of its drain. Never reset.
pub(crate) static DRAINED: AtomicBool = AtomicBool::new(false);

/// Why the process is held out of rotation, and until when.
pub(crate) struct ActiveHold {
    pub(crate) id: u64,
    pub(crate) reason: String,
    pub(crate) until: Instant,
}

/// The holds that are active, the oldest first.
#[derive(Default)]
pub(crate) struct Holds {
    pub(crate) active: Mutex<Vec<ActiveHold>>,
    /// Never reused: a `Hold` whose time has passed must not end a later one.
    pub(crate) next_id: AtomicU64,
}

/// An entry ends when its `Hold` is dropped or its time has passed.
pub(crate) static HOLDS: Holds = Holds { active: Mutex::new(Vec::new()), next_id: AtomicU64::new(0) };

/// The denials that were logged lately, of all scopes. An entry older than a minute is removed when another one is added to a map
/// with 1024 entries.
pub(crate) static DENIALS: LazyLock<Mutex<LogThrottle<(Peer, DenialKind)>>> = LazyLock::new(Mutex::default);

/// How many requests the scopes of the process have denied.
pub(crate) static DENIED_REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Denials of one client that are logged separately.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DenialKind {
    Ordinary,
    /// The predicate of the application panicked: a fault that must not be hidden by an ordinary denial.
    Panicked,
}

/// A line that is logged once per process, however many workers and scopes have a reason to.
pub(crate) struct LogOnce(AtomicBool);

impl LogOnce {
    const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn is_logged(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Claims the line: true for the first call, which has to log it.
    pub(crate) fn claim(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

/// A scope without trusted proxies got a request that a proxy has forwarded.
pub(crate) static UNTRUSTED_PROXY_WARNING: LogOnce = LogOnce::new();

/// A scope's deadline was longer than the maximum.
pub(crate) static LONG_DEADLINE_WARNING: LogOnce = LogOnce::new();

/// The workers ended before the time of a drain had passed.
pub(crate) static ENDED_DRAIN_WARNING: LogOnce = LogOnce::new();

/// A scope without a state is served over gRPC, and the log has no warning yet. Set by each such call of `health::grpc`, reset by the
/// warning.
pub(crate) static GRPC_WITHOUT_STATE: AtomicBool = AtomicBool::new(false);

/// A request had a method that is not allowed.
pub(crate) static METHOD_WARNING: LogOnce = LogOnce::new();
