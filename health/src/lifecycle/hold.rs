//! [`hold`]: takes the process out of rotation for a time.

use std::{fmt, sync::atomic::Ordering, time::Duration};

use tokio::{
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use crate::{
    process::{ActiveHold, HOLDS, Holds, generation},
    redact::label,
    report::MAX_DURATION,
    runtime::Executor,
};

/// Takes the process out of rotation until the returned [`Hold`] is dropped, or until `ttl` has passed.
///
/// `/health` and `/health/ready` of this process respond with 503 meanwhile, and show the reason with the time that is left, such as
/// `held: maintenance, 12 min left`. Liveness, startup and the paths of groups are not affected. Several holds can be active at
/// once. The `ttl` ensures that a hold that is forgotten ends; it is limited to a year.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let hold = health::hold("maintenance", Duration::from_secs(15 * 60));
/// // … migrate …
/// drop(hold);
/// ```
///
/// For an operator, behind the authentication of the application's own routes:
///
/// ```
/// use std::{sync::Mutex, time::Duration};
///
/// use actix_web::{HttpResponse, Responder, web};
///
/// type Held = Mutex<Option<health::Hold>>;
///
/// async fn start_maintenance(held: web::Data<Held>) -> impl Responder {
///     *held.lock().unwrap() = Some(health::hold("maintenance", Duration::from_secs(15 * 60)));
///     HttpResponse::NoContent()
/// }
///
/// async fn end_maintenance(held: web::Data<Held>) -> impl Responder {
///     held.lock().unwrap().take();
///     HttpResponse::NoContent()
/// }
/// ```
pub fn hold(reason: impl AsRef<str>, ttl: Duration) -> Hold {
    let reason = match reason.as_ref() {
        "" => "no reason given".to_owned(),
        reason => label(reason),
    };
    let ttl = ttl.min(MAX_DURATION);
    let until = Instant::now() + ttl;
    let id = HOLDS.add(reason.clone(), until);
    tracing::info!("held: {reason}: readiness is DOWN for at most {}", time_left(ttl));
    // Without this task, the hold still ends in time, but that is not logged.
    let expiry = Executor::Global.runtime().ok().map(|runtime| {
        let logger = runtime.clone();
        runtime.spawn_background(async move {
            sleep_until(until).await;
            if let Some(reason) = HOLDS.remove(id) {
                logger.defer(move || tracing::warn!("the hold `{reason}` has expired"));
            }
        })
    });
    Hold { id, expiry }
}

/// Keeps the process out of rotation: see [`hold`]. Dropping it ends the hold.
#[must_use = "the hold ends when this is dropped"]
pub struct Hold {
    id: u64,
    expiry: Option<AbortHandle>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(expiry) = &self.expiry {
            expiry.abort();
        }
        if let Some(reason) = HOLDS.remove(self.id) {
            tracing::info!("the hold `{reason}` has ended");
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

/// The reasons and times left of the process's holds.
pub(crate) fn held() -> Option<String> {
    HOLDS.message()
}

/// The number of the process's active holds.
pub(crate) fn hold_count() -> usize {
    HOLDS.count()
}

impl Holds {
    /// Returns the id of the new hold.
    pub(crate) fn add(&self, reason: String, until: Instant) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.active.lock().push(ActiveHold { id, reason, until });
        generation::bump();
        id
    }

    /// Returns the reason, unless the hold has ended already.
    pub(crate) fn remove(&self, id: u64) -> Option<String> {
        let mut active = self.active.lock();
        let index = active.iter().position(|hold| hold.id == id)?;
        let removed = active.remove(index);
        drop(active);
        generation::bump();
        Some(removed.reason)
    }

    fn count(&self) -> usize {
        let now = Instant::now();
        self.active.lock().iter().filter(|hold| hold.until > now).count()
    }

    pub(crate) fn message(&self) -> Option<String> {
        let now = Instant::now();
        let left = |hold: &ActiveHold| format!("{}, {} left", hold.reason, time_left(hold.until.duration_since(now)));
        let list: Vec<_> = self.active.lock().iter().filter(|hold| hold.until > now).map(left).collect();
        (!list.is_empty()).then(|| format!("held: {}", list.join("; ")))
    }
}

/// Rounded up, so that a hold with `1 s left` is never over.
fn time_left(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3_600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn several_holds_are_shown_with_the_time_that_is_left_and_end_by_themselves() {
        let holds = Holds::default();
        assert_eq!(holds.message(), None);
        let in_seconds = |seconds| Instant::now() + Duration::from_secs(seconds);
        let maintenance = holds.add("maintenance".to_owned(), in_seconds(12 * 60));
        holds.add("migration".to_owned(), in_seconds(90));
        assert_eq!(holds.message().as_deref(), Some("held: maintenance, 12 min left; migration, 90 s left"));
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(holds.message().as_deref(), Some("held: maintenance, 11 min left"));
        assert_eq!(holds.remove(maintenance).as_deref(), Some("maintenance"));
        holds.add("restart".to_owned(), in_seconds(1));
        assert_eq!(holds.remove(maintenance), None);
        assert_eq!(holds.message().as_deref(), Some("held: restart, 1 s left"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(holds.message(), None);
    }

    #[test]
    fn the_time_left_is_rounded_up() {
        for (ms, text) in [
            (1, "1 s"),
            (90_000, "90 s"),
            (119_001, "2 min"),
            (120_001, "3 min"),
            (7_199_000, "120 min"),
            (7_200_000, "2 h"),
        ] {
            assert_eq!(time_left(Duration::from_millis(ms)), text);
        }
    }
}
