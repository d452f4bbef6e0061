//! Records which probe is being polled on the thread of the library's probes. These do not block, but a hook of the application's
//! pool may. Then all of them wait, and the log names the one that blocks.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// A poll that takes longer is reported as blocking.
const BLOCKING: Duration = Duration::from_millis(100);

/// Group and name of a check.
type CheckName = (Arc<str>, Arc<str>);

#[derive(Default)]
pub(super) struct Polling(Mutex<Option<(CheckName, Instant)>>);

impl Polling {
    /// The probe that blocks the thread, and for how long.
    pub(super) fn blocked(&self) -> Option<String> {
        let ((group, name), since) = self.0.lock().clone()?;
        let time = since.elapsed();
        (time >= BLOCKING).then(|| {
            format!(
                "{group}.{name} has blocked the thread of the library's probes for {} ms, probably in a hook of its pool",
                time.as_millis()
            )
        })
    }
}

/// Polls a run, and records it meanwhile.
pub(super) async fn watched(polling: Arc<Polling>, name: CheckName, run: impl Future<Output = ()>) {
    let mut run = pin!(run);
    std::future::poll_fn(move |context| {
        *polling.0.lock() = Some((name.clone(), Instant::now()));
        let polled: Poll<()> = Pin::as_mut(&mut run).poll(context);
        *polling.0.lock() = None;
        polled
    })
    .await;
}
