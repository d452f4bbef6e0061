//! `tonic::transport::Channel`, and [`GrpcService`]: a service behind a channel.
//!
//! Each run calls `Check` of the [gRPC health service](https://github.com/grpc/grpc/blob/master/doc/health-checking.md)
//! `grpc.health.v1.Health`, on the application's own channel: one round trip on its HTTP/2 connection. The channel opens that connection
//! if there is none. A channel itself is checked for the server as a whole, which is the empty service name.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | `SERVING` | | UP |
//! | `NOT_SERVING`, or another status | [`ProbeErrorKind::Failed`] | DOWN |
//! | `UNIMPLEMENTED`, for a channel: the server responds, and has no health service | | UP |
//! | `UNIMPLEMENTED`, for a [`GrpcService`], or not from a gRPC server | [`ProbeErrorKind::Failed`] | DOWN |
//! | `NOT_FOUND`: the health service does not know the name | [`ProbeErrorKind::Failed`] | DOWN |
//! | `UNAUTHENTICATED`, `PERMISSION_DENIED` | [`ProbeErrorKind::Rejected`] | DOWN |
//! | refused, reset, closed, no such host, TLS; `UNAVAILABLE`, which is also 429, 502, 503 and 504 of an HTTP/2 server or proxy | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no response, `DEADLINE_EXCEEDED` | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | `RESOURCE_EXHAUSTED` | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | the response is not HTTP/2, but HTTP/1 for example; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The response is a value of the run, `serving_status`: `SERVING`, `NOT_SERVING`, `UNKNOWN`, `SERVICE_UNKNOWN` or `UNIMPLEMENTED`. A channel that is `UP`
//! with `UNIMPLEMENTED` is only known to reach a gRPC server.
//!
//! A server that requires credentials for each call rejects the check, because the channel does not contain them: an interceptor is around
//! the channel. Exempt the health service, or write a [custom check](crate::Check) with the client of the application.
//!
//! A channel has no time limit by default, so requests of the application wait for a frozen server until its connection breaks: set
//! `Endpoint::timeout` and `http2_keep_alive_interval`. It exposes no address, so messages do not contain one.
//!
//! # Limits of the channel
//!
//! A check is a call like those of the application, so it waits with them while a limit is reached: `Endpoint::concurrency_limit`,
//! `Endpoint::rate_limit`, or the number of concurrent streams that the server allows for each connection. It is then DOWN with
//! `timed out`, although the server may be up. The channel does not show whether a call waits for a limit or for a server that is frozen
//! or cannot be connected to, so the check cannot be DEGRADED instead. With `rate_limit`, each run uses one of the calls of the interval.
//!
//! To check the server regardless of its load, use a second channel to the same endpoint, which has a connection and limits of its own, and
//! skip that of the application:
//!
//! ```
//! use health::{HealthCheck, probes::tonic::GrpcService};
//! use tonic::transport::{Channel, Endpoint};
//!
//! #[derive(HealthCheck)]
//! struct AppState {
//!     #[health(skip)]
//!     channel: Channel,
//!     orders: GrpcService, // service.orders
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let endpoint = Endpoint::from_static("http://10.0.0.7:50051");
//! let state = AppState {
//!     orders: GrpcService::new(endpoint.connect_lazy(), ""), // the server as a whole
//!     channel: endpoint.concurrency_limit(16).connect_lazy(),
//! };
//! # drop(state);
//! # }
//! ```
//!
//! Such a check does not use the connection of the application. Set `http2_keep_alive_interval` on its endpoint, so that a connection that
//! is silently dead is replaced.
//!
//! The other direction, which serves the endpoints of this application over gRPC, is [`grpc`](crate::grpc).
//!
//! # Examples
//!
//! ```
//! use health::{HealthCheck, probes::tonic::GrpcService};
//! use tonic::transport::{Channel, Endpoint};
//!
//! #[derive(HealthCheck)]
//! struct AppState {
//!     orders: Channel,       // service.orders
//!     payments: GrpcService, // service.payments
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let channel = Endpoint::from_static("http://10.0.0.7:50051").connect_lazy();
//! let state = AppState { payments: GrpcService::new(channel.clone(), "payments.v1.Payments"), orders: channel };
//! # drop(state);
//! # }
//! ```

use std::{error::Error as _, future::poll_fn};

use ::tonic::{Code, Status, TimeoutExpired, client::GrpcService as _, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    error::{ProbeError, ProbeErrorKind, chain},
    observe::observe,
    probe::{LibraryProbe, library_probe},
    probes::{classify::Classify, support::label::Label},
};

const LABEL: Label = Label::new("the grpc server");

/// A service of a gRPC server, which is probed by its name in the health service of the server.
///
/// # Examples
///
/// ```
/// use health::{Check, probes::tonic::GrpcService};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let channel = tonic::transport::Endpoint::from_static("http://10.0.0.7:50051").connect_lazy();
/// let check = Check::probe("payments", GrpcService::new(channel, "payments.v1.Payments"));
/// # drop(check);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GrpcService {
    channel: Channel,
    service: String,
}

impl GrpcService {
    /// Creates the probe of a service. `service` is its name in the health service, by convention the full name of the gRPC service; if it
    /// is empty, the server as a whole is probed, as by a channel.
    pub fn new(channel: Channel, service: impl Into<String>) -> Self {
        Self { channel, service: service.into() }
    }
}

library_probe! { "service", Channel => HealthProbe::of_server }
library_probe! { "service", GrpcService => HealthProbe::of_service }

struct HealthProbe {
    channel: Channel,
    /// Empty for the server as a whole.
    service: String,
}

impl HealthProbe {
    fn of_server(channel: &Channel) -> Self {
        Self { channel: channel.clone(), service: String::new() }
    }

    fn of_service(service: &GrpcService) -> Self {
        Self { channel: service.channel.clone(), service: service.service.clone() }
    }

    async fn check(&self) -> Result<ServingStatus, Status> {
        let mut channel = self.channel.clone();
        // The client would return this error without its cause.
        poll_fn(|context| channel.poll_ready(context)).await.map_err(|error| Status::from_error(error.into()))?;
        let request = HealthCheckRequest { service: self.service.clone() };
        // A code of another version of the service is `UNKNOWN`.
        HealthClient::new(channel).check(request).await.map(|response| response.into_inner().status())
    }
}

impl LibraryProbe for HealthProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        let failed = |text: &str, source: String| {
            Err(LABEL.error_with(ProbeErrorKind::Failed, format!("{LABEL} {text}"), source))
        };
        match self.check().await {
            Ok(status) => {
                let status_name = status.as_str_name();
                observe("serving_status", status_name);
                match status {
                    ServingStatus::Serving => Ok(()),
                    _ => failed(&format!("reports {status_name}"), format!("the serving status is {status_name}")),
                }
            }
            Err(status) if status.code() == Code::Unimplemented && is_grpc(&status) => {
                observe("serving_status", "UNIMPLEMENTED");
                match &*self.service {
                    "" => Ok(()),
                    service => failed("has no health service", format!("the status of {service} is unknown")),
                }
            }
            Err(status) if status.code() == Code::NotFound && is_grpc(&status) => {
                failed("does not know the service", format!("unknown service `{}`: {status}", self.service))
            }
            Err(status) => Err(LABEL.error(status)),
        }
    }

    fn resource(&self) -> Option<String> {
        Some(match &*self.service {
            "" => LABEL.to_string(),
            service => format!("{service} of {LABEL}"),
        })
    }
}

/// Whether a gRPC server sent the status. tonic also derives one from the response of any HTTP server: `UNIMPLEMENTED` from 404.
fn is_grpc(status: &Status) -> bool {
    let content_type = status.metadata().get("content-type");
    content_type.is_some_and(|value| value.as_encoded_bytes().starts_with(b"application/grpc"))
}

impl Classify for Status {
    fn classify(&self) -> ProbeErrorKind {
        let is_timeout = chain(self).any(<dyn std::error::Error>::is::<TimeoutExpired>);
        match self.code() {
            Code::DeadlineExceeded => ProbeErrorKind::TimedOut,
            _ if is_timeout => ProbeErrorKind::TimedOut,
            // It has a cause in this process: the connection could not be opened, or broke. The cause of `INTERNAL` is what the server
            // sends: it is not HTTP/2.
            code if code != Code::Internal && self.source().is_some() => ProbeErrorKind::Unreachable,
            Code::Unavailable => ProbeErrorKind::Unreachable,
            Code::Unauthenticated | Code::PermissionDenied => ProbeErrorKind::Rejected,
            Code::ResourceExhausted => ProbeErrorKind::Saturated,
            _ => ProbeErrorKind::Failed,
        }
    }

    fn message(&self, name: &str) -> String {
        match self.classify() {
            ProbeErrorKind::Saturated => format!("{name} reports RESOURCE_EXHAUSTED"),
            kind => kind.message(name),
        }
    }
}
