//! `rskafka::client::Client`.

use std::{any::Any, sync::Arc, time::Duration};

use ::rskafka::{
    BackoffConfig,
    client::{Client, ClientBuilder, Credentials, SaslConfig},
};
use actix_web::web;
use health::{HealthCheck, Probe as _, ProbeError, ProbeErrorKind};
use serde_json::json;

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance},
    common::{
        PASSWORD, USER, eventually, logs,
        responses::{MAX_AGE, assert_down, assert_not_leaked, assert_up},
        servers::FaultInjection as _,
        test_server::TestServer,
    },
    servers::{
        connections_to,
        tansu::{Authenticating, Tansu},
    },
};

struct OfClient;

acceptance!(client, OfClient);

impl Backend for OfClient {
    type Resource = Arc<Client>;
    type Server = Tansu;

    fn prepare() -> Tansu {
        Tansu::prepared()
    }

    async fn open(tansu: &Tansu, _: Password) -> Result<Arc<Client>, Unsupported> {
        let open = ClientBuilder::new(vec![tansu.address()]).build();
        let opened = tokio::time::timeout(Duration::from_secs(5), open).await;
        opened.map(|client| Arc::new(client.unwrap())).map_err(|_| "a client waits for its broker without a limit")
    }

    fn unreachable(tansu: &Tansu) -> (ExpectedMessage, &'static str) {
        let message = format!("unable to connect to kafka at {}", tansu.address());
        (ExpectedMessage::Message(message), "Connection refused")
    }

    fn rejected(_: &Tansu) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Err(
            "a client cannot be opened with a wrong password, so the tests below change the password of the broker after that",
        )
    }

    async fn saturate(_: &Arc<Client>) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err("a client sends all requests on one connection, so there is nothing to use up")
    }

    async fn queries(_: &Tansu) -> Result<u64, Unsupported> {
        Err("the broker does not count its requests")
    }

    async fn connections(tansu: &Tansu) -> Result<usize, Unsupported> {
        Ok(connections_to(tansu.port()))
    }
}

fn started() -> Tansu {
    let mut tansu = Tansu::prepared();
    tansu.restart();
    tansu
}

async fn connect(tansu: &Tansu) -> Arc<Client> {
    OfClient::open(tansu, Password::Right).await.unwrap()
}

#[derive(HealthCheck)]
struct State {
    kafka: Arc<Client>,
}

fn serve(kafka: Arc<Client>) -> TestServer {
    let state = web::Data::new(State { kafka });
    TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(MAX_AGE));
    })
}

#[actix_web::test]
async fn a_run_observes_the_number_of_topics_and_creates_none() {
    let tansu = started();
    let client = connect(&tansu).await;
    let rig = serve(Arc::clone(&client));
    let topics =
        async || rig.get("/health?details").await.json()["details"]["queue"]["kafka"]["data"]["topics"].clone();
    assert_eq!(topics().await, 0);
    client.controller_client().unwrap().create_topic("orders", 2, 1, 5_000).await.unwrap();
    eventually("the topic is observed", || async { topics().await == 1 }).await;
    assert_eq!(client.list_topics().await.unwrap().len(), 1);
}

#[actix_web::test]
async fn after_an_outage_a_run_does_not_wait_for_the_pauses_of_the_client() {
    let mut tansu = started();
    let rig = serve(connect(&tansu).await);
    assert_up(&rig, "queue", "kafka").await;
    tansu.stop();
    // Each attempt of the client triples the pause, at random.
    for _ in 0..8 {
        tokio::time::sleep(MAX_AGE).await;
        assert_eq!(rig.health().await.status, 503, "{}", logs::text());
    }
    tansu.restart();
    tokio::time::sleep(MAX_AGE).await;
    assert_up(&rig, "queue", "kafka").await;
}

#[actix_web::test]
async fn a_frozen_broker_is_down_in_each_run_though_the_client_has_its_metadata() {
    let tansu = started();
    let rig = serve(connect(&tansu).await);
    assert_up(&rig, "queue", "kafka").await;
    tansu.freeze();
    for _ in 0..3 {
        tokio::time::sleep(MAX_AGE).await;
        assert_down(&rig, "queue", "kafka", "timed out after 800 ms").await;
    }
    assert_eq!(rig.health().await.json()["checks"], json!({"queue": {"kafka": "DOWN"}}));
}

#[actix_web::test]
async fn a_run_that_is_dropped_leaves_the_connection_usable() {
    let tansu = started();
    let client = connect(&tansu).await;
    let session = client.session().unwrap();
    session.probe().await.unwrap();
    let connections = connections_to(tansu.port());
    tansu.freeze();
    for _ in 0..5 {
        let dropped = tokio::time::timeout(Duration::from_millis(100), session.probe()).await;
        assert!(dropped.is_err(), "{dropped:?}");
    }
    tansu.resume();
    session.probe().await.unwrap();
    assert_eq!(connections_to(tansu.port()), connections);
}

fn log_in(tansu: &Authenticating, password: &str, deadline: Option<Duration>) -> ClientBuilder {
    let credentials = Credentials::new(USER.to_owned(), password.to_owned());
    ClientBuilder::new(vec![tansu.address.clone()])
        .sasl_config(SaslConfig::Plain(credentials))
        .backoff_config(BackoffConfig { deadline, ..BackoffConfig::default() })
}

/// A client that is UP with its password, DOWN with this message while the broker expects another one, and UP again.
async fn is_down_while_its_password_is_wrong(deadline: Option<Duration>, message: impl Fn(&str) -> String) {
    let tansu = Authenticating::start().await;
    tansu.set_password(WRONG);
    let rig = serve(Arc::new(log_in(&tansu, WRONG, deadline).build().await.unwrap()));
    assert_up(&rig, "queue", "kafka").await;
    tansu.set_password(PASSWORD);
    for _ in 0..3 {
        tokio::time::sleep(MAX_AGE).await;
        let response = assert_down(&rig, "queue", "kafka", &message(&tansu.address)).await;
        assert_not_leaked(&rig, &response, &[]).await;
        assert!(!response.body.contains(WRONG) && !logs::text().contains(WRONG), "{}", logs::text());
    }
    assert!(logs::text().contains("SaslAuthenticationFailed"), "the client logs the reason: {}", logs::text());
    tansu.set_password(WRONG);
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_password_that_is_no_longer_right_is_down_by_the_deadline_because_the_client_retries_without_a_limit() {
    is_down_while_its_password_is_wrong(None, |_| "timed out after 800 ms".to_owned()).await;
}

#[actix_web::test]
async fn a_password_that_is_no_longer_right_is_unreachable_if_the_client_retries_with_a_limit() {
    let limit = Some(Duration::from_millis(100));
    is_down_while_its_password_is_wrong(limit, |address| format!("unable to connect to kafka at {address}")).await;
}

#[actix_web::test]
async fn a_client_cannot_be_opened_with_a_wrong_password() {
    let tansu = Authenticating::start().await;
    let error = log_in(&tansu, WRONG, Some(Duration::ZERO)).build().await.unwrap_err();
    assert!(error.to_string().contains("SaslAuthenticationFailed"), "{error}");
    assert_eq!(ProbeError::from(error).kind(), ProbeErrorKind::Unreachable);
}

#[actix_web::test]
async fn the_class_of_an_error_survives_a_check_of_the_users() {
    let stopped = Tansu::prepared();
    let backoff = BackoffConfig { deadline: Some(Duration::ZERO), ..BackoffConfig::default() };
    let refused = ClientBuilder::new(vec![stopped.address()]).backoff_config(backoff).build().await.unwrap_err();
    assert_eq!(ProbeError::from(refused).kind(), ProbeErrorKind::Unreachable);

    let tansu = started();
    let client = connect(&tansu).await;
    let controller = client.controller_client().unwrap();
    controller.create_topic("orders", 1, 1, 5_000).await.unwrap();
    let exists = controller.create_topic("orders", 1, 1, 5_000).await.unwrap_err();
    let error = anyhow::Error::from(exists).context("while the topics are created");
    assert_eq!(ProbeError::from_error(error).kind(), ProbeErrorKind::Failed);
}
