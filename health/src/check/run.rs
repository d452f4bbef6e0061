//! A run of a check: launched once for any number of requests, supervised, recorded, and published.
//!
//! A run belongs to the check and not to a request, so a client that disconnects cancels nothing. The thread that runs it records
//! its result. The supervisor records that a limit has passed, whatever that thread does.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::{AbortHandle, AbortRegistration, Abortable};
use tokio::time::Instant;

use super::{
    facade,
    inner::{CheckInner, Shared},
    log,
    state::{Expired, Finished, Recorded, Start, Timestamp},
};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    events::Transition,
    observe::{Observations, observing},
    probe::{drop_catching_panics, probe_catching_panics},
    process::generation,
    report::Outcome,
    runtime::{Runtime, Supervised, Work},
};

/// The outcome of a check for one request, which may have to wait for it.
pub(crate) enum Pending {
    Known(Outcome),
    /// That of the run of this number.
    Run(u64),
}

impl CheckInner {
    /// Launches a run if the latest result is older than `max_age` and none is in flight.
    pub(crate) fn run_if_due(self: &Arc<Self>, max_age: Duration, runtime: &Arc<Runtime>) -> Pending {
        let (now, rules) = (Timestamp::now(), self.rules());
        let mut shared = self.shared.lock();
        match shared.state.start(now, max_age, rules, runtime.process()) {
            Start::Fresh(outcome) => Pending::Known(outcome),
            Start::Joined(number) => {
                // The limit may have changed since the run was launched.
                self.supervise(&mut shared, runtime);
                Pending::Run(number)
            }
            Start::Overdue(outcome, failure) => {
                if let Some(failure) = &failure {
                    self.publish(&shared, failure.recorded, Some(&failure.error), failure.latency, runtime);
                }
                drop(shared);
                if let Some(failure) = failure {
                    self.settled.notify_waiters();
                    log::run_failure(self, &failure, runtime);
                }
                Pending::Known(outcome)
            }
            Start::New(number) => {
                let (abort, registration) = AbortHandle::new_pair();
                shared.abort = Some(abort);
                self.supervise(&mut shared, runtime);
                drop(shared);
                let run = Arc::clone(self).run(number, registration, Arc::clone(runtime));
                if let Err(error) = runtime.spawn(self.work(), run) {
                    self.fail_to_start(number, error, runtime);
                }
                Pending::Run(number)
            }
        }
    }

    /// Launches the first run of a check.
    pub(crate) fn run_if_new(self: &Arc<Self>, runtime: &Arc<Runtime>) {
        let is_new = self.shared.lock().state.is_new();
        if is_new {
            self.run_if_due(Duration::MAX, runtime);
        }
    }

    fn work(self: &Arc<Self>) -> Work<'_> {
        if self.probe.never_blocks() {
            Work::Library { group: Arc::clone(&self.group), name: Arc::clone(&self.name) }
        } else {
            let check = Arc::downgrade(self);
            // The run itself holds the check once.
            Work::User { io: &self.io, is_needed: Box::new(move || check.strong_count() > 1) }
        }
    }

    async fn run(self: Arc<Self>, number: u64, registration: AbortRegistration, runtime: Arc<Runtime>) {
        {
            let mut shared = self.shared.lock();
            if !shared.state.begin(number, Instant::now()) {
                return;
            }
            self.supervise(&mut shared, &runtime);
        }
        self.resource.get_or_init(|| log::resource_of(&*self.probe));
        let mut probing = Box::pin(Abortable::new(observing(probe_catching_panics(&*self.probe)), registration));
        let (mut result, data) = (&mut probing).await.ok().unzip();
        // User code runs before the result is recorded: the future's and the error's destructors, and the error's text. If it blocks,
        // the run is still in flight, and is recorded as timed out.
        drop_catching_panics(probing);
        let description = match &mut result {
            Some(Err(error)) => log::Description::detach(error, &*self.probe),
            _ => log::Description::default(),
        };
        self.finish(number, result.as_ref(), data.unwrap_or_default(), description, &runtime);
        runtime.release(self);
    }

    fn finish(
        self: &Arc<Self>,
        number: u64,
        result: Option<&Result<(), ProbeError>>,
        data: Observations,
        description: log::Description,
        runtime: &Arc<Runtime>,
    ) {
        let (now, rules) = (Timestamp::now(), self.rules());
        let mut shared = self.shared.lock();
        // The supervisor may not have recorded yet that the limit has passed.
        let expired = shared.state.expire(now, rules);
        if let Expired::TimedOut(failure) = &expired {
            self.publish(&shared, failure.recorded, Some(&failure.error), failure.latency, runtime);
        }
        let finished = shared.state.finish(number, now, result, data, rules);
        if !matches!(finished, Finished::Unknown) {
            shared.abort = None;
        }
        let error = result.and_then(|result| result.as_ref().err());
        if let Finished::Recorded(recorded, latency) = finished {
            self.publish(&shared, recorded, error, latency, runtime);
        }
        drop(shared);
        generation::bump();
        self.settled.notify_waiters();
        if let Expired::TimedOut(failure) = expired {
            log::run_failure(self, &failure, runtime);
        }
        match (finished, error) {
            (Finished::Recorded(recorded, latency) | Finished::Late(Some(recorded), latency), Some(error)) => {
                log::probe_failure(self, error, recorded, latency, description, runtime);
            }
            (Finished::Recorded(recorded, latency), None) => log::recovery(self, recorded, latency, runtime),
            _ => {}
        }
    }

    fn fail_to_start(self: &Arc<Self>, number: u64, cause: std::io::Error, runtime: &Arc<Runtime>) {
        let error = ProbeError::new(ProbeErrorKind::Failed, "the check could not start").with_source(cause);
        let mut shared = self.shared.lock();
        let Some(failure) = shared.state.fail_to_start(number, Timestamp::now(), error, self.rules()) else { return };
        self.publish(&shared, failure.recorded, Some(&failure.error), failure.latency, runtime);
        shared.abort = None;
        drop(shared);
        self.settled.notify_waiters();
        log::run_failure(self, &failure, runtime);
    }

    /// Schedules a call of [`Supervised::expire`] for when the run may expire.
    fn supervise(self: &Arc<Self>, shared: &mut Shared, runtime: &Arc<Runtime>) {
        let Some(at) = shared.state.next_expiry(self.rules()) else { return };
        let process = runtime.process();
        if shared.supervised.is_none_or(|(by, known)| by != process || at < known) {
            shared.supervised = Some((process, at));
            let check: Weak<Self> = Arc::downgrade(self);
            runtime.supervise(check, at);
        }
    }

    /// Sends a result to the crate `metrics`, and a transition to subscribers. The caller holds the lock of the state, so that both are
    /// in order.
    fn publish(
        &self,
        _: &Shared,
        recorded: Recorded,
        error: Option<&ProbeError>,
        latency: Duration,
        runtime: &Runtime,
    ) {
        let Recorded { before, after, .. } = recorded;
        generation::bump();
        facade::record(self, recorded, error, latency, runtime);
        if before == Some(after) {
            return;
        }
        self.subscribers.publish(|| Transition {
            group: Arc::clone(&self.group),
            name: Arc::clone(&self.name),
            from: before,
            to: after,
            kind: error.map(ProbeError::kind),
            error: error.map(|error| error.message().as_ref().into()),
        });
    }
}

impl Supervised for CheckInner {
    fn expire(self: Arc<Self>, at: Instant, runtime: &Arc<Runtime>) -> Option<Instant> {
        let (now, rules) = (Timestamp::now(), self.rules());
        let mut shared = self.shared.lock();
        // An entry is obsolete if an earlier one was added after it.
        let is_current = shared.supervised == Some((runtime.process(), at));
        let next = if is_current {
            let expired = shared.state.expire(now, rules);
            if let Expired::TimedOut(failure) = &expired {
                self.publish(&shared, failure.recorded, Some(&failure.error), failure.latency, runtime);
            }
            let next = shared.state.next_expiry(rules);
            shared.supervised = next.map(|at| (runtime.process(), at));
            let abort = shared.abort.take_if(|_| matches!(expired, Expired::Abandoned));
            drop(shared);
            match (expired, abort) {
                (Expired::TimedOut(failure), _) => {
                    self.settled.notify_waiters();
                    log::run_failure(&self, &failure, runtime);
                }
                // The thread of the run drops the future when its current poll returns.
                (Expired::Abandoned, Some(abort)) => abort.abort(),
                _ => {}
            }
            next
        } else {
            drop(shared);
            None
        };
        runtime.release(self);
        next
    }
}
