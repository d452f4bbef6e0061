//! [`ResponseCache`]: the responses that a worker serves again without rendering.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    endpoint::{Endpoint, FIXED_PATH_COUNT},
    response::Rendered,
};
use crate::{process::generation, status::Status};

/// The latest responses for allowed clients, and the latest status of each endpoint for denied ones.
#[derive(Default)]
pub(super) struct ResponseCache {
    responses: [RefCell<Option<CachedResponse>>; SLOT_COUNT],
    statuses: [Cell<Option<CachedStatus>>; FIXED_PATH_COUNT],
}

/// A rendered response, valid until a time or the next change.
pub(super) struct CachedResponse {
    pub(super) valid_until: Instant,
    pub(super) generation: u64,
    pub(super) rendered: Rendered,
}

/// Which response is cached. Others are not: liveness and startup depend on more than the generation, and the paths of groups and
/// checks are unbounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Health,
    Ready,
    Prometheus,
    OpenMetrics,
    #[cfg(feature = "page")]
    Page,
}

const SLOT_COUNT: usize = 5;

impl CachedResponse {
    fn is_fresh(&self) -> bool {
        self.generation == generation::current() && Instant::now() < self.valid_until
    }
}

/// A status, valid for a short time or until the next change, so that a denied client costs no more than an allowed one.
#[derive(Clone, Copy)]
struct CachedStatus {
    determined_at: Instant,
    generation: u64,
    status: Status,
}

impl CachedStatus {
    const TTL: Duration = Duration::from_millis(100);

    fn is_fresh(&self) -> bool {
        self.generation == generation::current() && self.determined_at.elapsed() < Self::TTL
    }
}

impl ResponseCache {
    pub(super) fn response(&self, slot: Slot) -> Option<Rendered> {
        let cached = self.responses[slot as usize].borrow();
        cached.as_ref().filter(|cached| cached.is_fresh()).map(|cached| cached.rendered.clone())
    }

    pub(super) fn store(&self, slot: Slot, response: CachedResponse) {
        *self.responses[slot as usize].borrow_mut() = Some(response);
    }

    /// The cached status of an endpoint if it is fresh, else the one that `determine` returns.
    pub(super) fn status(&self, endpoint: &Endpoint<'_>, determine: impl FnOnce() -> Status) -> Status {
        let cached = endpoint.fixed_index().map(|index| &self.statuses[index]);
        if let Some(fresh) = cached.and_then(Cell::get).filter(CachedStatus::is_fresh) {
            return fresh.status;
        }
        let (determined_at, generation) = (Instant::now(), generation::current());
        let status = determine();
        if let Some(cached) = cached {
            cached.set(Some(CachedStatus { determined_at, generation, status }));
        }
        status
    }
}
