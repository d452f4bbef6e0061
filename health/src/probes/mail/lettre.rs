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
//! a `NOOP` takes longer than twice the longest one before, and at least 300 ms, a second one is sent, for which the transport uses another
//! connection. No further one starts until then, so a blocking transport blocks two threads, however often the check is polled.
//!
//! What a run costs the server: one or two `NOOP`, and a new connection if the transport has none; twice that if the server is silent.
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

use std::{fmt, io, time::Duration};

use lettre::{
    AsyncSmtpTransport, Executor, SmtpTransport,
    transport::smtp::{Error, response::Category},
};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::Instant,
};

use crate::{
    error::{ProbeError, ProbeErrorKind, chain, classify_io},
    options::{CheckOptions, Role},
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        pool::silent_connection,
        support::{
            debug_fields::DebugFields,
            hedge::{HedgeDelay, hedged},
            label::Label,
            single_flight::SingleFlight,
        },
    },
    status::Status,
};

const OPTIONS: CheckOptions =
    CheckOptions { role: Role::Optional, max_age: Some(Duration::from_secs(30)), ..CheckOptions::new() };

library_probe! { "mail" <E>, AsyncSmtpTransport<E> where { E: Executor }, OPTIONS => TransportProbe::of_async }
library_probe! { "mail", SmtpTransport, OPTIONS => TransportProbe::of_blocking }

/// A transport, and what its probe remembers between runs.
struct TransportProbe {
    label: Label,
    start: Box<dyn Fn() -> JoinHandle<Tested> + Send + Sync>,
    first: SingleFlight<Tested>,
    /// Begins while the first one is silent.
    second: SingleFlight<Tested>,
    round_trips: HedgeDelay,
}

/// The result of [`SmtpTransport::test_connection`].
type Tested = Result<bool, Error>;

impl TransportProbe {
    fn of_async<E: Executor>(transport: &AsyncSmtpTransport<E>) -> Self {
        let test = |transport: AsyncSmtpTransport<E>| tokio::spawn(async move { transport.test_connection().await });
        Self::new(transport, test, SingleFlight::abandoning_lost_work)
    }

    fn of_blocking(transport: &SmtpTransport) -> Self {
        let test = |transport: SmtpTransport| spawn_blocking(move || transport.test_connection());
        Self::new(transport, test, SingleFlight::new)
    }

    fn new<T: Clone + fmt::Debug + Send + Sync + 'static>(
        transport: &T,
        start: fn(T) -> JoinHandle<Tested>,
        in_flight: fn() -> SingleFlight<Tested>,
    ) -> Self {
        let address = DebugFields::of(transport).address("server: ", "port: ");
        let transport = transport.clone();
        Self {
            label: Label::new("smtp").at(address),
            start: Box::new(move || start(transport.clone())),
            first: in_flight(),
            second: in_flight(),
            round_trips: HedgeDelay::new(),
        }
    }

    async fn test(&self, connection: &SingleFlight<Tested>) -> Result<(), ProbeError> {
        match connection.join_or_start(&self.start).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => {
                let text = "the transport does not expose why NOOP failed on a new connection";
                Err(self.label.error_of_kind(ProbeErrorKind::Failed, text))
            }
            Ok(Err(error)) => Err(self.label.error(error)),
            Err(panicked) => Err(self.label.error_of_kind(ProbeErrorKind::Failed, panicked)),
        }
    }

    /// Why the first `NOOP` is silent. Most errors of the second one say nothing about that, because the server may reject only further
    /// connections.
    async fn silence(&self) -> Option<ProbeError> {
        match self.test(&self.second).await {
            Ok(()) => Some(silent_connection(&self.label)),
            Err(error) => Some(error).filter(|error| error.kind() == ProbeErrorKind::Unreachable),
        }
    }
}

impl LibraryProbe for TransportProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        let started = Instant::now();
        let silence = async { self.silence().await.map(Err) };
        let result = hedged(self.test(&self.first), self.round_trips.get(), silence).await;
        match &result {
            Ok(()) => self.round_trips.record(started.elapsed()),
            // Its connection is lost, and the next run gets another one.
            Err(error) if error.status() == Status::Degraded => self.first.abandon().await,
            Err(_) => {}
        }
        result
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
