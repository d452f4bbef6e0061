//! [`ResponseCache`]: the responses that a worker serves again without rendering.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use actix_web::{http::StatusCode, web::Bytes};
use tokio::time::Instant;

use super::endpoint::{Endpoint, FIXED_PATH_COUNT};
use crate::{process::generation, status::Status};

/// The latest response for allowed clients and the latest status for denied ones, of each fixed path.
#[derive(Default)]
pub(super) struct ResponseCache {
    responses: [RefCell<Option<CachedResponse>>; FIXED_PATH_COUNT],
    statuses: [Cell<Option<CachedStatus>>; FIXED_PATH_COUNT],
}

/// A rendered response, valid until a time or the next change.
pub(super) struct CachedResponse {
    pub(super) valid_until: Instant,
    pub(super) generation: u64,
    pub(super) code: StatusCode,
    pub(super) body: Bytes,
}

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
    pub(super) fn response(&self, endpoint: &Endpoint<'_>) -> Option<(StatusCode, Bytes)> {
        let cached = self.responses[endpoint.fixed_index()?].borrow();
        cached.as_ref().filter(|cached| cached.is_fresh()).map(|cached| (cached.code, cached.body.clone()))
    }

    /// Stores the response of `/health` or `/health/ready`. Others are not cached: liveness and startup depend on more than the
    /// generation, and the paths of groups and checks are unbounded.
    pub(super) fn store(&self, endpoint: &Endpoint<'_>, response: CachedResponse) {
        if let (Endpoint::Health | Endpoint::Ready, Some(index)) = (endpoint, endpoint.fixed_index()) {
            *self.responses[index].borrow_mut() = Some(response);
        }
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
