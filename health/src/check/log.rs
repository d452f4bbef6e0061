//! The log lines of a check: one per transition, and one per further kind of failure until the check is up again.
//!
//! The `Display` of users' errors and log subscribers may block. The former runs on the thread that ran the probe, the latter on
//! the thread `health-log`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{
    inner::CheckInner,
    state::{Recorded, RunFailure},
};
use crate::{
    error::ProbeError,
    options::Role,
    probe::{DynProbe, drop_catching_panics},
    redact,
    report::milliseconds,
    runtime::Runtime,
    status::Status,
};

/// The name of a probe's resource in the log. `Probe::resource` is user code, which may panic.
pub(super) fn resource_of(probe: &dyn DynProbe) -> Option<String> {
    catch_unwind(AssertUnwindSafe(|| probe.resource())).ok().flatten().map(|resource| redact::label(&resource))
}

/// What the log says of a failure that a probe returned.
#[derive(Default)]
pub(super) struct Description {
    text: String,
    resource: Option<String>,
}

impl Description {
    /// Describes an error, and drops what it owns of the user. Called on the thread that ran the probe.
    pub(super) fn detach(error: &mut ProbeError, probe: &dyn DynProbe) -> Self {
        let text =
            catch_unwind(AssertUnwindSafe(|| error.log_text())).unwrap_or_else(|_| "<its text panicked>".to_owned());
        drop_catching_panics(error.take_source());
        // The address may be known only after the run.
        Self { text, resource: resource_of(probe) }
    }
}

/// Logs a failure that a probe returned.
pub(super) fn probe_failure(
    check: &CheckInner,
    error: &ProbeError,
    recorded: Recorded,
    latency: Duration,
    description: Description,
    runtime: &Runtime,
) {
    if recorded.should_log {
        write(check, error, recorded, latency, description.resource, description.text, runtime);
    }
}

/// Logs a failure that the library detected: a timeout, or a run that got no thread.
pub(super) fn run_failure(check: &Arc<CheckInner>, failure: &RunFailure, runtime: &Runtime) {
    let RunFailure { error, latency, recorded, was_queued } = failure;
    if !recorded.should_log {
        return;
    }
    let is_library = check.probe.never_blocks();
    let stall = || if is_library { runtime.blocked_by() } else { check.io.busy_reason().map(str::to_owned) };
    let text = match error.log_text() {
        text if !text.is_empty() => text,
        _ if *was_queued => check.io.wait_reason().unwrap_or_else(|| runtime.wait_reason()),
        _ => stall().unwrap_or_default(),
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
    let is_error = check.options.role != Role::Optional;
    let (check, message) = (format!("{}.{}", check.group, check.name), error.to_string());
    let (status, kind, duration_ms) = (recorded.after, error.kind(), milliseconds(latency));
    runtime.defer(move || {
        let error = (!text.is_empty()).then_some(text.as_str());
        let resource = resource.as_deref();
        if status == Status::Down && is_error {
            tracing::error!(%check, %kind, resource, error, duration_ms, "health check {check} is {status}: {message}");
        } else {
            tracing::warn!(%check, %kind, resource, error, duration_ms, "health check {check} is {status}: {message}");
        }
    });
}
