//! `rskafka::client::Client`, in an `Arc`, and how errors of rskafka are classified.
//!
//! Each run requests the metadata of all topics from any broker, on the connection that the client keeps for that. It creates no topic.
//! Permission: none; a user sees only the topics that it may describe.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, no such host, on all brokers | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no response | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | wrong or missing credentials | [`ProbeErrorKind::TimedOut`]; [`ProbeErrorKind::Unreachable`] if a `deadline` in the client's `BackoffConfig` ends first | DOWN |
//! | no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! After a failure the client tries again without a limit, after longer and longer pauses. A run begins with a short pause, so the check is UP
//! soon after the broker is back, before operations of the application that wait are. `ClientBuilder::build` does not return while the
//! broker is stopped, or rejects the credentials: open the client before the server starts, or give `build` a limit.
//!
//! So a run meets wrong credentials only if they were valid before, when the client connects again. It cannot distinguish that from a
//! silent broker: the client only logs the reason, as a warning of the target `rskafka::connection`.
//!
//! One broker is enough for a run. Whether each partition has a leader is not checked: use a [`Check::new`](crate::Check::new) that fetches an
//! offset of the partitions that the service needs.
//!
//! Observation: `topics`, their number.
//!
//! What a run costs the broker: one request, whose response lists all topics and partitions; with thousands of them, set a `max_age`. While it
//! is silent for longer than twice the longest run before, and at least 300 ms, a TCP connection to each broker is opened and closed, at most
//! every 2 s.
//!
//! # Examples
//!
//! ```
//! # mod example {
//! use std::sync::Arc;
//!
//! use health::HealthCheck;
//! use rskafka::client::Client;
//!
//! #[derive(HealthCheck)]
//! struct AppState {
//!     kafka: Arc<Client>, // probed: queue.kafka
//! }
//! # }
//! ```

use std::{io, sync::Arc};

use derive_more::{Display, Error, From};
use rskafka::{
    ConnectionError,
    client::{
        Client,
        error::{Error as DriverError, ProtocolError, RequestError},
    },
};

use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    observe::observe,
    probe::{LibraryProbe, Probe, Session},
    probes::{
        classify::Classify,
        support::{
            address::{Address, common_refusal},
            debug_fields::DebugFields,
            label::Label,
            reachability::Reachability,
        },
    },
};

impl Probe for Client {
    const GROUP: &'static str = "queue";

    async fn probe(&self) -> Result<(), ProbeError> {
        run(self, &Reachability::new()).await
    }

    fn resource(&self) -> Option<String> {
        Some(label(self).to_string())
    }

    fn shared_session(this: &Arc<Self>) -> Option<Session> {
        Some(Session::of_library(ClientProbe { client: Arc::clone(this), reachability: Reachability::new() }))
    }
}

/// A client, and what its probe remembers between runs.
struct ClientProbe {
    client: Arc<Client>,
    reachability: Reachability,
}

impl LibraryProbe for ClientProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        run(&self.client, &self.reachability).await
    }

    fn resource(&self) -> Option<String> {
        Probe::resource(&*self.client)
    }
}

/// Why a run fails.
#[derive(Debug, Display, Error, From)]
enum Failure {
    Driver(DriverError),
    /// All brokers refuse a connection, which the client retries without an error.
    Refused(io::Error),
}

async fn run(client: &Client, reachability: &Reachability) -> Result<(), ProbeError> {
    // If this is dropped, the connection stays usable.
    let query = async { Ok(client.list_topics().await?.len()) };
    let refusal = || async { common_refusal(&brokers(client)).await.map(|(_, error)| Failure::Refused(error)) };
    let topics = reachability.or_refusal(query, refusal).await.map_err(|failure| label(client).error(failure))?;
    observe("topics", topics);
    Ok(())
}

fn label(client: &Client) -> Label {
    Label::new("kafka").at_only(&brokers(client))
}

/// Returns the brokers that the client has learned of, which have no accessor.
fn brokers(client: &Client) -> Vec<Address> {
    let fields = DebugFields::of(client);
    let topology = fields.0.split_once("topology: ").map_or("", |(_, rest)| rest);
    let address = |broker: &str| DebugFields(broker.to_owned()).address("host: ", "port: ");
    topology.split("Broker {").filter_map(address).collect()
}

impl Classify for Failure {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::Driver(error) => error.classify(),
            Self::Refused(error) => classify_io(error),
        }
    }
}

impl Classify for DriverError {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::Connection(ConnectionError::SaslFailed(_)) => ProbeErrorKind::Rejected,
            Self::Connection(ConnectionError::Metadata(error)) | Self::Request(error) => classify_request(error),
            Self::Connection(_) | Self::RetryFailed(_) => ProbeErrorKind::Unreachable,
            Self::ServerError { protocol_error, .. } => classify_code(*protocol_error),
            Self::Timeout => ProbeErrorKind::TimedOut,
            _ => ProbeErrorKind::Failed,
        }
    }
}

fn classify_request(error: &RequestError) -> ProbeErrorKind {
    match error {
        RequestError::IO(error) => classify_io(error),
        RequestError::Poisoned(_) => ProbeErrorKind::Unreachable,
        _ => ProbeErrorKind::Failed,
    }
}

/// Returns the kind of an error code of the broker.
fn classify_code(error: ProtocolError) -> ProbeErrorKind {
    match error {
        ProtocolError::ClusterAuthorizationFailed
        | ProtocolError::GroupAuthorizationFailed
        | ProtocolError::SaslAuthenticationFailed
        | ProtocolError::TopicAuthorizationFailed
        | ProtocolError::TransactionalIdAuthorizationFailed => ProbeErrorKind::Rejected,
        ProtocolError::RequestTimedOut => ProbeErrorKind::TimedOut,
        ProtocolError::NotEnoughReplicas | ProtocolError::NotEnoughReplicasAfterAppend => ProbeErrorKind::ReadOnly,
        _ => ProbeErrorKind::Failed,
    }
}
