//! [`hold`]: takes the process out of rotation for a time.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use crate::{
    process::{ActiveHold, HOLDS, generation},
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
    static NEXT_ID: AtomicU64 = AtomicU64::new(0);

    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let reason = label(reason.as_ref());
    let ttl = ttl.min(MAX_DURATION);
    let until = Instant::now() + ttl;
    HOLDS.lock().push(ActiveHold { id, reason: reason.clone(), until });
    generation::bump();
    tracing::info!("held: {reason}: readiness is DOWN for at most {}", time_left(ttl));
    // Without this task, the hold still ends in time, but that is not logged.
    let expiry = Executor::Global.runtime().ok().map(|runtime| {
        let logger = runtime.clone();
        runtime.spawn_background(async move {
            sleep_until(until).await;
            if let Some(ended) = remove(id) {
                logger.defer(move || {
                    tracing::warn!("the hold {} has expired: readiness is no longer DOWN for it", ended.reason)
                });
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
        if let Some(ended) = remove(self.id) {
            tracing::info!("the hold {} has ended", ended.reason);
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

fn remove(id: u64) -> Option<ActiveHold> {
    let mut holds = HOLDS.lock();
    let index = holds.iter().position(|hold| hold.id == id)?;
    let removed = holds.remove(index);
    drop(holds);
    generation::bump();
    Some(removed)
}

/// The message of all holds that are active: reasons and times left.
pub(crate) fn held() -> Option<String> {
    let holds = HOLDS.lock();
    let now = Instant::now();
    let active = holds.iter().filter(|hold| hold.until > now);
    let list: Vec<_> =
        active.map(|hold| format!("{}, {} left", hold.reason, time_left(hold.until.duration_since(now)))).collect();
    (!list.is_empty()).then(|| format!("held: {}", list.join("; ")))
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
        assert_eq!(held(), None);
        let maintenance = hold("maintenance", Duration::from_secs(12 * 60));
        let _migration = hold("migration of bob:hunter2@db", Duration::from_secs(90));
        assert_eq!(held().as_deref(), Some("held: maintenance, 12 min left; migration of ***@db, 90 s left"));
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(held().as_deref(), Some("held: maintenance, 11 min left"));
        drop(maintenance);
        assert_eq!(held(), None);
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
