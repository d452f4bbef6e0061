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
//! | no response | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | `NOOP` fails on a new connection; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! lettre waits up to 60 s for a response of the server. A run does not, but what it has started is never cancelled: a response that was
//! not awaited would be read by the application, as that of its own command. No other `NOOP` starts until then, so a blocking transport
//! blocks one thread, however often the check is polled.
//!
//! What a run costs the server: one or two `NOOP`, and a new connection if the transport has none.
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
use tokio::task::{JoinHandle, spawn_blocking};

use crate::{
    error::{ProbeError, ProbeErrorKind, chain, classify_io},
    options::{CheckOptions, Role},
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        support::{debug_fields::DebugFields, label::Label, single_flight::SingleFlight},
    },
};

const OPTIONS: CheckOptions =
    CheckOptions { role: Role::Optional, max_age: Some(Duration::from_secs(30)), ..CheckOptions::new() };

library_probe! { "mail" <E>, AsyncSmtpTransport<E> where { E: Executor }, OPTIONS => TransportProbe::of_async }
library_probe! { "mail", SmtpTransport, OPTIONS => TransportProbe::of_blocking }

/// A transport, and what its probe remembers between runs.
struct TransportProbe {
    label: Label,
    start: Box<dyn Fn() -> JoinHandle<Result<bool, Error>> + Send + Sync>,
    in_flight: SingleFlight<Result<bool, Error>>,
}

impl TransportProbe {
    fn of_async<E: Executor>(transport: &AsyncSmtpTransport<E>) -> Self {
        Self::new(transport, |transport| tokio::spawn(async move { transport.test_connection().await }))
    }

    fn of_blocking(transport: &SmtpTransport) -> Self {
        Self::new(transport, |transport| spawn_blocking(move || transport.test_connection()))
    }

    fn new<T: Clone + fmt::Debug + Send + Sync + 'static>(
        transport: &T,
        start: fn(T) -> JoinHandle<Result<bool, Error>>,
    ) -> Self {
        let address = DebugFields::of(transport).address("server: ", "port: ");
        let transport = transport.clone();
        Self {
            label: Label::new("smtp").at(address),
            start: Box::new(move || start(transport.clone())),
            in_flight: SingleFlight::new(),
        }
    }
}

impl LibraryProbe for TransportProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        match self.in_flight.join_or_start(&self.start).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => {
                let text = "the transport does not expose why NOOP failed on a new connection";
                Err(self.label.error_of_kind(ProbeErrorKind::Failed, text))
            }
            Ok(Err(error)) => Err(self.label.error(error)),
            Err(panicked) => Err(self.label.error_of_kind(ProbeErrorKind::Failed, panicked)),
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
