//! `rdkafka::producer::{FutureProducer, ThreadedProducer}` and `Arc<rdkafka::consumer::StreamConsumer>`, and how errors of rdkafka are
//! classified.
//!
//! Each run requests the metadata of all topics from any broker, on a connection of the client. It creates no topic. The call blocks, so it
//! has a thread of tokio's blocking pool, at most one at a time.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, no such host, on all brokers | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no response | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | wrong or missing credentials | [`ProbeErrorKind::Unreachable`] or [`ProbeErrorKind::TimedOut`] | DOWN |
//! | no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! librdkafka connects in the background. Only its log and the context of its client contain the reason of a failure. A call that finds
//! no broker blocks until its limit, which is 5 s, and 600 ms before the first success. A client does not expose its brokers before that,
//! so messages do not contain an address until then.
//!
//! So a run cannot distinguish a broker that rejects the credentials from one that it cannot connect to, or that is silent. The
//! `ClientContext` of the application can: its `error` receives `RDKafkaErrorCode::Authentication`, and logs it by default.
//!
//! One broker is enough for a run. Whether each partition has a leader is not checked: use a [`Check::new`](crate::Check::new) that fetches the
//! watermarks of the partitions that the service needs.
//!
//! Observations: `brokers` and `topics`, their numbers.
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
//! use rdkafka::{consumer::StreamConsumer, producer::FutureProducer};
//!
//! #[derive(HealthCheck)]
//! struct AppState {
//!     events: FutureProducer,      // probed: queue.events
//!     orders: Arc<StreamConsumer>, // probed: queue.orders
//! }
//! # }
//! ```

use std::{io, sync::Arc, time::Duration};

use derive_more::{Display, Error, From};
use parking_lot::Mutex;
use rdkafka::{
    client::ClientContext,
    consumer::{Consumer as _, ConsumerContext, StreamConsumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    metadata::Metadata,
    producer::{FutureProducer, Producer as _, ProducerContext, ThreadedProducer},
    util::AsyncRuntime,
};

use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    observe::observe,
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        support::{
            address::{Address, common_refusal},
            blocking_single_flight::BlockingSingleFlight,
            label::Label,
            reachability::Reachability,
        },
    },
};

/// How long a call may block.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The same while no broker is known, so that the call returns its reason before the deadline of a scope.
const FIRST_CALL_TIMEOUT: Duration = Duration::from_millis(600);

library_probe! {
    "queue" <C, R>,
    FutureProducer<C, R> where { C: ClientContext + 'static, R: AsyncRuntime + Send + Sync + 'static } =>
    |producer: &FutureProducer<C, R>| {
        let producer = producer.clone();
        ClientProbe::new(move |timeout| producer.client().fetch_metadata(None, timeout))
    }
}
library_probe! {
    "queue" <C>,
    ThreadedProducer<C> where { C: ProducerContext + 'static } => |producer: &ThreadedProducer<C>| {
        let producer = producer.clone();
        ClientProbe::new(move |timeout| producer.client().fetch_metadata(None, timeout))
    }
}
library_probe! {
    "queue" <C, R>,
    Arc<StreamConsumer<C, R>> where { C: ConsumerContext + 'static, R: Send + Sync + 'static } =>
    |consumer: &Arc<StreamConsumer<C, R>>| {
        let consumer = Arc::clone(consumer);
        ClientProbe::new(move |timeout| consumer.client().fetch_metadata(None, timeout))
    }
}

type Fetch = Arc<dyn Fn(Duration) -> KafkaResult<Metadata> + Send + Sync>;

/// A client, and what its probe remembers between runs.
struct ClientProbe {
    fetch: Fetch,
    in_flight: BlockingSingleFlight<KafkaResult<Cluster>>,
    reachability: Reachability,
    /// Those of the last run that succeeded.
    brokers: Mutex<Vec<Address>>,
}

/// What the metadata contains.
struct Cluster {
    brokers: Vec<Address>,
    topics: usize,
}

/// Why a run fails.
#[derive(Debug, Display, Error, From)]
enum Failure {
    Driver(KafkaError),
    /// All brokers refuse a connection, which the client retries without an error.
    Refused(io::Error),
}

impl ClientProbe {
    fn new(fetch: impl Fn(Duration) -> KafkaResult<Metadata> + Send + Sync + 'static) -> Self {
        Self {
            fetch: Arc::new(fetch),
            in_flight: BlockingSingleFlight::new(),
            reachability: Reachability::new(),
            brokers: Mutex::default(),
        }
    }

    async fn query(&self) -> Result<Cluster, Failure> {
        let timeout = if self.brokers().is_empty() { FIRST_CALL_TIMEOUT } else { CALL_TIMEOUT };
        let fetch = Arc::clone(&self.fetch);
        // The metadata itself is only valid in its thread.
        Ok(self.in_flight.run(move || fetch(timeout).map(|metadata| Cluster::of(&metadata))).await??)
    }

    fn brokers(&self) -> Vec<Address> {
        self.brokers.lock().clone()
    }

    fn label(&self) -> Label {
        Label::new("kafka").at_only(&self.brokers())
    }
}

impl Cluster {
    fn of(metadata: &Metadata) -> Self {
        let address = |host: &str, port| Some(Address { host: host.to_owned(), port: u16::try_from(port).ok()? });
        Self {
            brokers: metadata.brokers().iter().filter_map(|broker| address(broker.host(), broker.port())).collect(),
            topics: metadata.topics().len(),
        }
    }
}

impl LibraryProbe for ClientProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        let refusal = || async { common_refusal(&self.brokers()).await.map(|(_, error)| Failure::Refused(error)) };
        let result = self.reachability.or_refusal(self.query(), refusal).await;
        let cluster = result.map_err(|failure| self.label().error(failure))?;
        observe("brokers", cluster.brokers.len());
        observe("topics", cluster.topics);
        *self.brokers.lock() = cluster.brokers;
        Ok(())
    }

    fn resource(&self) -> Option<String> {
        Some(self.label().to_string())
    }
}

impl Classify for Failure {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::Driver(error) => error.classify(),
            Self::Refused(error) => classify_io(error),
        }
    }
}

impl Classify for KafkaError {
    fn classify(&self) -> ProbeErrorKind {
        match self.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve,
            ) => ProbeErrorKind::Unreachable,
            Some(
                RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::TopicAuthorizationFailed,
            ) => ProbeErrorKind::Rejected,
            Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut) => ProbeErrorKind::TimedOut,
            Some(RDKafkaErrorCode::NotEnoughReplicas | RDKafkaErrorCode::NotEnoughReplicasAfterAppend) => {
                ProbeErrorKind::ReadOnly
            }
            _ => ProbeErrorKind::Failed,
        }
    }
}
