//! Which probe is being polled on the thread of the library's probes. They never block by themselves, but a hook of the
//! application's pool may; then all of them wait, and the log has to name the one that blocks.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// A poll that takes longer blocks the thread.
const BLOCKED: Duration = Duration::from_millis(100);

/// Group and name of a check.
type Name = (Arc<str>, Arc<str>);

#[derive(Default)]
pub(super) struct Polling(Mutex<Option<(Name, Instant)>>);

impl Polling {
    /// The probe that blocks the thread, and for how long.
    pub(super) fn blocked(&self) -> Option<String> {
        let ((group, name), since) = self.0.lock().clone()?;
        let time = since.elapsed();
        (time >= BLOCKED).then(|| {
            format!(
                "{group}.{name} has blocked the thread of the library's probes for {} ms, in a hook of its pool",
                time.as_millis()
            )
        })
    }
}

/// A run that is seen while it is polled.
pub(super) async fn watched(polling: Arc<Polling>, name: Name, run: impl Future<Output = ()>) {
    let mut run = pin!(run);
    std::future::poll_fn(move |context| {
        *polling.0.lock() = Some((name.clone(), Instant::now()));
        let polled: Poll<()> = Pin::as_mut(&mut run).poll(context);
        *polling.0.lock() = None;
        polled
    })
    .await;
}
