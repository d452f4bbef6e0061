//! `rdkafka::producer::{FutureProducer, ThreadedProducer}` and `rdkafka::consumer::StreamConsumer`.

use std::{
    any::Any,
    convert::identity,
    sync::{Arc, Mutex},
    time::Duration,
};

use ::rdkafka::{
    ClientConfig, ClientContext,
    config::FromClientConfig,
    consumer::{Consumer as _, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DefaultProducerContext, FutureProducer, Producer as _, ThreadedProducer},
};
use health::{ProbeError, ProbeErrorKind};
use serde_json::json;

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, serve},
    common::{
        PASSWORD, USER, eventually,
        http::Response,
        logs,
        responses::{MAX_AGE, assert_down, assert_not_leaked, assert_up},
        servers::FaultInjection as _,
        test_server::TestServer,
    },
    servers::{
        connections_to,
        tansu::{Authenticating, Tansu},
    },
};

fn connect<T: FromClientConfig>(tansu: &Tansu) -> T {
    let mut config = ClientConfig::new();
    // By default librdkafka waits up to 10 s before it connects again.
    config.set("bootstrap.servers", tansu.address()).set("group.id", "orders").set("reconnect.backoff.max.ms", "500");
    config.create().unwrap()
}

/// A backend whose resource `$open` makes of the type of a client, and whose connections `$connections` counts.
macro_rules! backend {
    ($backend:ident, $resource:ty, $open:expr, $connections:expr) => {
        struct $backend;

        impl Backend for $backend {
            type Resource = $resource;
            type Server = Tansu;

            fn prepare() -> Tansu {
                Tansu::prepared()
            }

            async fn open(tansu: &Tansu, _: Password) -> Result<$resource, Unsupported> {
                Ok($open(connect(tansu)))
            }

            fn unreachable(tansu: &Tansu) -> (ExpectedMessage, &'static str) {
                // Without the address while no run has succeeded.
                let messages = ["kafka".to_owned(), format!("kafka at {}", tansu.address())];
                let messages = messages.map(|name| format!("unable to connect to {name}"));
                (ExpectedMessage::OneOf(messages.into()), "health check queue.resource is DOWN")
            }

            fn rejected(_: &Tansu) -> Result<(ExpectedMessage, &'static str), Unsupported> {
                Err("the broker has no credentials, so the tests below have a proxy that authenticates its clients")
            }

            async fn saturate(_: &$resource) -> Result<(Box<dyn Any>, u32), Unsupported> {
                Err("a client sends all requests on one connection to a broker, so there is nothing to use up")
            }

            async fn queries(_: &Tansu) -> Result<u64, Unsupported> {
                Err("the broker does not count its requests")
            }

            async fn connections(tansu: &Tansu) -> Result<usize, Unsupported> {
                $connections(tansu)
            }
        }
    };
}

#[expect(clippy::unnecessary_wraps, reason = "the other one returns an error")]
fn connections(tansu: &Tansu) -> Result<usize, Unsupported> {
    Ok(connections_to(tansu.port()))
}

fn connections_of_a_consumer(_: &Tansu) -> Result<usize, Unsupported> {
    Err("a consumer leaves its group in the background before it closes its connections, which takes a while")
}

backend!(OfFuture, FutureProducer, identity, connections);
backend!(OfThreaded, ThreadedProducer<DefaultProducerContext>, identity, connections);
backend!(OfConsumer, Arc<StreamConsumer>, Arc::new, connections_of_a_consumer);
acceptance!(future_producer, OfFuture);
acceptance!(threaded_producer, OfThreaded);
acceptance!(stream_consumer, OfConsumer);

fn started() -> Tansu {
    let mut tansu = Tansu::prepared();
    tansu.restart();
    tansu
}

#[actix_web::test]
async fn a_run_observes_brokers_and_topics_and_creates_no_topic() {
    let tansu = started();
    let rig = serve(connect::<FutureProducer>(&tansu));
    for _ in 0..2 {
        let data = rig.get("/health?details").await.json()["details"]["queue"]["resource"]["data"].clone();
        assert_eq!(data, json!({"brokers": 1, "topics": 0}), "{}", logs::text());
        tokio::time::sleep(MAX_AGE).await;
    }
}

#[actix_web::test]
async fn a_frozen_broker_is_down_in_each_run_though_the_client_still_returns_the_id_of_the_cluster() {
    let tansu = started();
    let producer: FutureProducer = connect(&tansu);
    let rig = serve(producer.clone());
    assert_up(&rig, "queue", "resource").await;
    tansu.freeze();
    let id = tokio::task::spawn_blocking(move || producer.client().fetch_cluster_id(Duration::from_millis(100)));
    assert!(id.await.unwrap().is_some());
    for _ in 0..3 {
        tokio::time::sleep(MAX_AGE).await;
        assert_down(&rig, "queue", "resource", "timed out after 800 ms").await;
    }
    tansu.resume();
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
}

/// Collects the errors that librdkafka reports to the context of its client.
#[derive(Clone, Debug, Default)]
struct Reported(Arc<Mutex<Vec<RDKafkaErrorCode>>>);

impl ClientContext for Reported {
    fn error(&self, error: KafkaError, _: &str) {
        self.0.lock().unwrap().extend(error.rdkafka_error_code());
    }
}

fn log_in(tansu: &Authenticating, password: &str) -> (FutureProducer<Reported>, Reported) {
    let reported = Reported::default();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &tansu.address).set("reconnect.backoff.max.ms", "500");
    config.set("security.protocol", "sasl_plaintext").set("sasl.mechanism", "PLAIN");
    config.set("sasl.username", USER).set("sasl.password", password);
    (config.create_with_context(reported.clone()).unwrap(), reported)
}

async fn assert_down_with_one_of(rig: &TestServer, messages: &[&str]) -> Response {
    let response = rig.health().await;
    let message = response.json()["errors"]["queue"]["resource"].clone();
    assert_eq!(response.status, 503, "{response:?}");
    assert!(messages.iter().any(|expected| message == *expected), "{message}: {messages:?}\n{}", logs::text());
    response
}

#[actix_web::test]
async fn a_client_with_a_wrong_password_is_down_and_only_its_context_has_the_reason() {
    let tansu = Authenticating::start().await;
    let (producer, reported) = log_in(&tansu, WRONG);
    let rig = serve(producer);
    for _ in 0..3 {
        let response = assert_down(&rig, "queue", "resource", "unable to connect to kafka").await;
        assert_not_leaked(&rig, &response, &["Broker transport failure"]).await;
        assert!(!response.body.contains(WRONG) && !logs::text().contains(WRONG), "{}", logs::text());
        tokio::time::sleep(MAX_AGE).await;
    }
    assert!(reported.0.lock().unwrap().contains(&RDKafkaErrorCode::Authentication), "{reported:?}");
}

#[actix_web::test]
async fn a_password_that_is_no_longer_right_is_down() {
    let tansu = Authenticating::start().await;
    let (producer, reported) = log_in(&tansu, PASSWORD);
    let rig = serve(producer);
    assert_up(&rig, "queue", "resource").await;
    assert!(reported.0.lock().unwrap().is_empty(), "{reported:?}");

    tansu.set_password("another");
    for _ in 0..3 {
        tokio::time::sleep(MAX_AGE).await;
        // A call that finds no broker takes longer than a run, and a later run may have its result.
        let unreachable = format!("unable to connect to kafka at {}", tansu.address);
        let response = assert_down_with_one_of(&rig, &["timed out after 800 ms", &unreachable]).await;
        assert_not_leaked(&rig, &response, &[]).await;
    }
    assert!(reported.0.lock().unwrap().contains(&RDKafkaErrorCode::Authentication), "{reported:?}");

    tansu.set_password(PASSWORD);
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_client_without_credentials_is_down() {
    let tansu = Authenticating::start().await;
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", &tansu.address).create().unwrap();
    let rig = serve(producer);
    for _ in 0..3 {
        // The broker closes the connection only after the request.
        assert_down_with_one_of(&rig, &["no response from kafka", "unable to connect to kafka"]).await;
        tokio::time::sleep(MAX_AGE).await;
    }
}

#[actix_web::test]
async fn the_class_of_an_error_survives_a_check_of_the_users() {
    let stopped = Tansu::prepared();
    let consumer: StreamConsumer = connect(&stopped);
    let fetch = move || consumer.fetch_metadata(None, Duration::from_millis(500)).map(drop);
    let refused = tokio::task::spawn_blocking(fetch).await.unwrap().unwrap_err();
    assert_eq!(ProbeError::from(refused.clone()).kind(), ProbeErrorKind::Unreachable);
    let error = anyhow::Error::from(refused).context("while the topics are listed");
    assert_eq!(ProbeError::from_error(error).kind(), ProbeErrorKind::Unreachable);
}
