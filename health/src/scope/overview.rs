//! [`overview`]: what the metrics and the page show of a scope.

use std::time::SystemTime;

use super::{
    assess::{ProcessState, assess},
    endpoint::Endpoint,
};
use crate::{
    lifecycle,
    options::Role,
    process::DENIED_REQUESTS,
    report::{Entry, Overview, Release, Worker},
};

/// The overview of the results of all checks, with details.
pub(super) fn overview(
    results: Vec<Entry>,
    process: &ProcessState,
    workers: Vec<Worker>,
    release: Option<&Release>,
) -> Overview {
    let status = |endpoint, is_selected: fn(&Entry) -> bool| {
        let selected = results.iter().filter(|entry| is_selected(entry)).map(Entry::without_details).collect();
        assess(&endpoint, selected, process, || workers.iter().map(Worker::entry).collect()).status()
    };
    Overview {
        ready: status(Endpoint::Ready, |_| true),
        live: status(Endpoint::Live, |entry| entry.options.is_some_and(|options| options.live)),
        startup: status(Endpoint::Startup, |entry| entry.role() != Role::Optional),
        health: assess(&Endpoint::Health, results, process, Vec::new),
        workers,
        is_draining: process.is_draining,
        holds: lifecycle::hold_count(),
        held: process.held.clone(),
        pending: process.pending.clone(),
        denied: DENIED_REQUESTS.load(std::sync::atomic::Ordering::Relaxed),
        release: release.cloned(),
        time: SystemTime::now(),
    }
}
