//! The harness: real servers, proxies, an HTTP client, and the log.

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

/// Canary values that the servers are set up with. None may be in a response, and the password not in the log either.
pub(crate) const USER: &str = "canaryuser";
pub(crate) const PASSWORD: &str = "canary-5ecret";
pub(crate) const DATABASE: &str = "canarybase";

/// The timeout of [`eventually`]. It is long because the machines are small and noisy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a condition holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "timed out after {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
