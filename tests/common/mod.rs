//! The harness: real servers, a real HTTP client, and the log.

pub(crate) mod counted;
pub(crate) mod daemon;
pub(crate) mod docs;
pub(crate) mod far;
pub(crate) mod http;
pub(crate) mod logs;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod responses;
pub(crate) mod reverse_proxy;
pub(crate) mod servers;
pub(crate) mod test_server;

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// The credentials of the servers. None of them may be in a response, and the password not in the log either.
pub(crate) const USER: &str = "canaryuser";
pub(crate) const PASSWORD: &str = "canary-5ecret";
pub(crate) const DATABASE: &str = "canarybase";

/// How long to wait for a condition. Generous, because test machines are slow and noisy.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until a condition holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < TIMEOUT, "not within {TIMEOUT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
