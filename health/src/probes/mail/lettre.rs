//! `lettre::AsyncSmtpTransport` and the blocking `lettre::SmtpTransport`, and how errors of lettre are classified.
//!
//! Each run sends `NOOP` on a connection of the transport's own pool, which sends one `NOOP` itself before it lends an idle connection. No
//! mail is sent.
//!
//! An idle connection is closed after 60 s, and without lettre's feature `pool` none is kept; then a run connects, and logs in. Many servers
//! limit how often a client may do that. So, unless other options are set, a result is valid for 30 s, which also keeps the connection
//! open. Few services are down without their mail server, so the check is optional.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, or the TLS handshake fails | [`ProbeErrorKind::Rejected`] | DOWN |
//! | an idle connection is silent, and a new one responds | [`ProbeErrorKind::TimedOut`] | DEGRADED |
//! | no response | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | `NOOP` fails on a new connection; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The blocking transport waits up to 60 s for each response of the server, the asynchronous one without a limit. A run does not, but what
//! it has started is never cancelled: a response that was not awaited would be read by the application, as that of its own command. So if
//! a `NOOP` takes longer than twice the longest one before, and at least 300 ms, another one is sent, for which the transport uses another
//! connection, and so on: up to ten at a time, or four of a blocking transport, each of which blocks a thread.
//!
//! What a run costs the server: one or two `NOOP`, and a new connection if the transport has none. A silent server gets up to ten.
//!
//! # Examples
//!
//! The mail server of a service that cannot do without it, with a result for each poll:
//!
//! ```
//! # mod example {
//! use health::HealthCheck;
//! use lettre::{AsyncSmtpTransport, Tokio1Executor};
//!
//! #[derive(HealthCheck)]
//! struct AppState {
//!     #[health(critical, max_age = "1s")]
//!     mailer: AsyncSmtpTransport<Tokio1Executor>, // probed: mail.mailer
//! }
//! # }
//! ```

use std::{collections::VecDeque, fmt, io, time::Duration};

use futures_util::future::select_all;
use lettre::{
    AsyncSmtpTransport, Executor, SmtpTransport,
    transport::smtp::{Error, response::Category},
};
use tokio::{
    sync::Mutex,
    task::{JoinError, JoinHandle, spawn_blocking},
    time::{Instant, timeout},
};

use crate::{
    error::{ProbeError, ProbeErrorKind, chain, classify_io},
    options::{CheckOptions, Role},
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        pool::silent_connection,
        support::{debug_fields::DebugFields, hedge::HedgeDelay, label::Label},
    },
};

const OPTIONS: CheckOptions =
    CheckOptions { role: Role::Optional, max_age: Some(Duration::from_secs(30)), ..CheckOptions::new() };

library_probe! { "mail" <E>, AsyncSmtpTransport<E> where { E: Executor }, OPTIONS => TransportProbe::of_async }
library_probe! { "mail", SmtpTransport, OPTIONS => TransportProbe::of_blocking }

/// How many connections are tested at a time while the server is silent: as many as a pool keeps idle by default, and fewer if each
/// blocks a thread.
const MAX_TASKS: usize = 10;
const MAX_THREADS: usize = 4;

/// After this time, a test may be lost.
const ABANDON_AFTER: Duration = Duration::from_mins(1);

/// A transport, and what its probe remembers between runs.
struct TransportProbe {
    label: Label,
    start: Box<dyn Fn() -> JoinHandle<Tested> + Send + Sync>,
    /// The most that may be in flight.
    max_attempts: usize,
    attempts: Mutex<Attempts>,
    round_trips: HedgeDelay,
}

/// The result of [`SmtpTransport::test_connection`].
type Tested = Result<bool, Error>;

/// Tests of connections in flight, the oldest first. Each has a connection of its own, so those before one that succeeds are silent.
#[derive(Default)]
struct Attempts(VecDeque<Attempt>);

struct Attempt {
    test: JoinHandle<Tested>,
    since: Instant,
}

impl Attempts {
    /// Starts another test, unless there are too many. The oldest may be lost, and is left to itself after some time.
    fn start(&mut self, probe: &TransportProbe) {
        let attempts = &mut self.0;
        if attempts.len() >= probe.max_attempts
            && attempts.front().is_some_and(|oldest| oldest.since.elapsed() >= ABANDON_AFTER)
        {
            attempts.pop_front();
        }
        if attempts.len() < probe.max_attempts {
            attempts.push_back(Attempt { test: (probe.start)(), since: Instant::now() });
        }
    }

    /// Waits until a test ends. Returns its result, and how many older ones are in flight.
    async fn next(&mut self) -> (Result<Tested, JoinError>, usize) {
        let tests = self.0.iter_mut().map(|attempt| &mut attempt.test);
        let (tested, older, _) = select_all(tests).await;
        self.0.remove(older);
        (tested, older)
    }
}

impl TransportProbe {
    fn of_async<E: Executor>(transport: &AsyncSmtpTransport<E>) -> Self {
        let test = |transport: AsyncSmtpTransport<E>| tokio::spawn(async move { transport.test_connection().await });
        Self::new(transport, test, MAX_TASKS)
    }

    fn of_blocking(transport: &SmtpTransport) -> Self {
        let test = |transport: SmtpTransport| spawn_blocking(move || transport.test_connection());
        Self::new(transport, test, MAX_THREADS)
    }

    fn new<T: Clone + fmt::Debug + Send + Sync + 'static>(
        transport: &T,
        start: fn(T) -> JoinHandle<Tested>,
        max_attempts: usize,
    ) -> Self {
        let address = DebugFields::of(transport).address("server: ", "port: ");
        let transport = transport.clone();
        Self {
            label: Label::new("smtp").at(address),
            start: Box::new(move || start(transport.clone())),
            max_attempts,
            attempts: Mutex::default(),
            round_trips: HedgeDelay::new(),
        }
    }

    fn outcome(&self, tested: Result<Tested, JoinError>) -> Result<(), ProbeError> {
        match tested {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => {
                let text = "the transport does not expose why NOOP failed on a new connection";
                Err(self.label.error_of_kind(ProbeErrorKind::Failed, text))
            }
            Ok(Err(error)) => Err(self.label.error(error)),
            Err(panicked) => Err(self.label.error_of_kind(ProbeErrorKind::Failed, panicked)),
        }
    }
}

impl LibraryProbe for TransportProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        let mut attempts = self.attempts.lock().await;
        // The result of one that ended between the runs is outdated.
        attempts.0.retain(|attempt| !attempt.test.is_finished());
        let started = Instant::now();
        attempts.start(self);
        let delay = self.round_trips.get();
        loop {
            let Ok((tested, older)) = timeout(delay, attempts.next()).await else {
                // Its connection may be dead, and those of others, too.
                attempts.start(self);
                continue;
            };
            match self.outcome(tested) {
                Ok(()) if older == 0 => {
                    self.round_trips.record(started.elapsed());
                    return Ok(());
                }
                Ok(()) => {
                    // The next run shall not wait for them.
                    attempts.0.clear();
                    return Err(silent_connection(&self.label));
                }
                // The server may reject only further connections.
                Err(error) if older > 0 && error.kind() != ProbeErrorKind::Unreachable => {}
                result => return result,
            }
        }
    }

    fn resource(&self) -> Option<String> {
        Some(self.label.to_string())
    }
}

impl Classify for Error {
    fn classify(&self) -> ProbeErrorKind {
        if let Some(error) = chain(self).find_map(|error| error.downcast_ref::<io::Error>()) {
            return classify_io(error);
        }
        // `535 Authentication credentials invalid` and others; the category is that of the protocol's states.
        let is_about_login = self.status().is_some_and(|code| code.category == Category::Unspecified3);
        // The driver's kind has no accessor without its features for TLS, but the `Debug` output contains it.
        if is_about_login || DebugFields::of(self).contains("kind: Tls") {
            ProbeErrorKind::Rejected
        } else if self.is_transport_shutdown() {
            ProbeErrorKind::Unreachable
        } else {
            ProbeErrorKind::Failed
        }
    }
}
