//! [`assess`]: the report of an endpoint, from the results of checks and the state of the process.

use super::endpoint::Endpoint;
use crate::{
    engine::Engine,
    lifecycle,
    report::{Entry, Report},
    status::Status,
};

/// The report of an endpoint. What the process says of itself stands before the results of the checks.
pub(super) fn assess(
    endpoint: &Endpoint<'_>,
    results: Vec<Entry>,
    engine: &Engine,
    workers: impl FnOnce() -> Vec<Entry>,
) -> Report {
    let after = |mut entries: Vec<Entry>| {
        entries.extend(results.iter().cloned());
        entries
    };
    match endpoint {
        Endpoint::Health => Report::of(after(rotation())),
        Endpoint::Ready => {
            let mut entries = rotation();
            match &*engine.pending_startup() {
                [] => Report::of_started(after(entries)),
                pending => {
                    let message = format!("not started: {} has not been up yet", pending.join(", "));
                    entries.push(Entry::plain("health", "startup", Some(message.into())));
                    Report::of(after(entries))
                }
            }
        }
        Endpoint::Live => Report::of(after(workers())),
        Endpoint::Startup => {
            // Permanently UP once started, whatever the results of the checks are now.
            let status = if engine.pending_startup().is_empty() { Status::Up } else { Status::Down };
            Report::with_status(status, results)
        }
        Endpoint::Group(_) | Endpoint::Check(..) => Report::of(results),
    }
}

/// Why the process is out of rotation.
fn rotation() -> Vec<Entry> {
    let drain = lifecycle::is_draining().then(|| ("drain", "server is draining".into()));
    let hold = lifecycle::held().map(|message| ("hold", message.into()));
    drain.into_iter().chain(hold).map(|(name, message)| Entry::plain("health", name, Some(message))).collect()
}
