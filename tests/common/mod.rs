//! The harness: real servers, a real HTTP client, and what was logged.

pub(crate) mod answers;
pub(crate) mod docs;
pub(crate) mod far;
pub(crate) mod front;
pub(crate) mod http;
pub(crate) mod logs;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod rig;
pub(crate) mod servers;

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// What must never be in an answer, and the password not in a log either. The servers are set up with them.
pub(crate) const USER: &str = "canaryuser";
pub(crate) const PASSWORD: &str = "canary-5ecret";
pub(crate) const DATABASE: &str = "canarybase";

/// The longest that a condition is waited for. Loose: the machines are small and noisy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a condition holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
