//! The log lines of a check: one a transition, and one for each further kind of failure until it is up again.
//!
//! Users' errors print themselves on the thread that ran the probe; subscribers run on the thread for that. Both may block.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{
    inner::CheckInner,
    state::{Failure, Recorded},
};
use crate::{error::ProbeError, probe::DynProbe, redact, report::milliseconds, runtime::Runtime, status::Status};

/// What the log calls a probe's resource. That is user code, which may panic.
pub(super) fn resource_of(probe: &dyn DynProbe) -> Option<String> {
    catch_unwind(AssertUnwindSafe(|| probe.resource())).ok().flatten().map(|resource| redact::label(&resource))
}

/// Logs a failure that a probe returned. Called by the thread that ran it.
pub(super) fn failure(
    check: &CheckInner,
    error: &ProbeError,
    recorded: Recorded,
    latency: Duration,
    runtime: &Runtime,
) {
    if !recorded.should_log {
        return;
    }
    let text =
        catch_unwind(AssertUnwindSafe(|| error.log_text())).unwrap_or_else(|_| "an error that panics".to_owned());
    // It may have learned its address meanwhile.
    let resource = resource_of(&*check.probe);
    write(check, error, recorded, latency, resource, text, runtime);
}

/// Logs a failure that the library found: a timeout, or a run without a thread.
pub(super) fn failure_of(check: &Arc<CheckInner>, failure: &Failure, runtime: &Runtime) {
    let Failure { error, latency, recorded, was_queued } = failure;
    if !recorded.should_log {
        return;
    }
    let blocked = || runtime.blocked_by().filter(|_| check.probe.never_blocks());
    let text = match error.log_text() {
        text if !text.is_empty() => text,
        _ if *was_queued => check.blocking_calls.exhausted().unwrap_or_else(|| runtime.congestion()),
        _ => blocked().unwrap_or_default(),
    };
    let resource = check.resource.get().cloned().flatten();
    write(check, error, *recorded, *latency, resource, text, runtime);
}

/// Logs that a check is up again.
pub(super) fn recovery(check: &CheckInner, recorded: Recorded, latency: Duration, runtime: &Runtime) {
    if !recorded.should_log || recorded.after != Status::Up {
        return;
    }
    let check = format!("{}.{}", check.group, check.name);
    let duration_ms = milliseconds(latency);
    runtime.defer(move || tracing::info!(%check, duration_ms, "health check {check} is UP again"));
}

fn write(
    check: &CheckInner,
    error: &ProbeError,
    recorded: Recorded,
    latency: Duration,
    resource: Option<String>,
    text: String,
    runtime: &Runtime,
) {
    let is_critical = check.options.critical;
    let (check, message) = (format!("{}.{}", check.group, check.name), error.to_string());
    let (status, kind, duration_ms) = (recorded.after, error.kind(), milliseconds(latency));
    runtime.defer(move || {
        let error = (!text.is_empty()).then_some(text.as_str());
        let resource = resource.as_deref();
        if status == Status::Down && is_critical {
            tracing::error!(%check, %kind, resource, error, duration_ms, "health check {check} is {status}: {message}");
        } else {
            tracing::warn!(%check, %kind, resource, error, duration_ms, "health check {check} is {status}: {message}");
        }
    });
}
