//! `async_nats::Client` and the JetStream context.

use std::{any::Any, time::Duration};

use actix_web::web;
use async_nats::{Client, ConnectOptions, jetstream};
use health::{HealthCheck, Probe as _, ProbeError, ProbeErrorKind};

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance},
    common::{
        PASSWORD, USER, eventually, logs,
        responses::{assert_down, assert_not_leaked, assert_up},
        servers::FaultInjection as _,
        test_server::TestServer,
    },
    servers::nats::Nats,
};

pub(crate) struct Core;
struct JetStream;

acceptance!(client, Core);
acceptance!(context, JetStream);

/// With constant delays between attempts, because the tests measure the check.
fn options(password: &str) -> ConnectOptions {
    ConnectOptions::with_user_and_password(USER.to_owned(), password.to_owned())
        .reconnect_delay_callback(|_| Duration::from_millis(100))
}

/// Connects, or retries in the background if that fails.
async fn connect(nats: &Nats, password: &str) -> Client {
    match options(password).connect(nats.address()).await {
        Ok(client) => client,
        Err(_) => options(password).retry_on_initial_connect().connect(nats.address()).await.unwrap(),
    }
}

fn started() -> Nats {
    let mut nats = Nats::prepared();
    nats.restart();
    nats
}

/// The message of both, which differ in its name.
fn unreachable(word: &str, nats: &Nats) -> (ExpectedMessage, &'static str) {
    // The client does not expose its address before it is connected.
    let messages =
        [format!("unable to connect to {word} at 127.0.0.1:{}", nats.port()), format!("unable to connect to {word}")];
    (ExpectedMessage::OneOf(messages.into()), "Connection refused")
}

fn rejected(word: &str) -> (ExpectedMessage, &'static str) {
    // The client retries, and only its events contain the error.
    (
        ExpectedMessage::Message(format!("unable to connect to {word}")),
        "the client is pending; its events contain the reason",
    )
}

const SHARED: Unsupported = "all clones of a client share one connection";

/// Returns how many messages the connected clients have sent.
async fn messages(nats: &Nats) -> u64 {
    nats.connections().await.iter().map(|connection| connection["in_msgs"].as_u64().unwrap()).sum()
}

impl Backend for Core {
    type Resource = Client;
    type Server = Nats;

    fn prepare() -> Nats {
        Nats::prepared()
    }

    async fn open(nats: &Nats, password: Password) -> Result<Client, Unsupported> {
        Ok(connect(nats, if password == Password::Right { PASSWORD } else { WRONG }).await)
    }

    fn unreachable(nats: &Nats) -> (ExpectedMessage, &'static str) {
        unreachable("nats", nats)
    }

    fn rejected(_: &Nats) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Ok(rejected("nats"))
    }

    async fn saturate(_: &Client) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err(SHARED)
    }

    async fn queries(nats: &Nats) -> Result<u64, Unsupported> {
        Ok(messages(nats).await)
    }

    async fn connections(nats: &Nats) -> Result<usize, Unsupported> {
        Ok(nats.connections().await.len())
    }
}

impl Backend for JetStream {
    type Resource = jetstream::Context;
    type Server = Nats;

    fn prepare() -> Nats {
        Nats::prepared()
    }

    async fn open(nats: &Nats, password: Password) -> Result<jetstream::Context, Unsupported> {
        Core::open(nats, password).await.map(jetstream::new)
    }

    fn unreachable(nats: &Nats) -> (ExpectedMessage, &'static str) {
        unreachable("jetstream", nats)
    }

    fn rejected(_: &Nats) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Ok(rejected("jetstream"))
    }

    async fn saturate(_: &jetstream::Context) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err(SHARED)
    }

    async fn queries(nats: &Nats) -> Result<u64, Unsupported> {
        Ok(messages(nats).await)
    }

    async fn connections(nats: &Nats) -> Result<usize, Unsupported> {
        Ok(nats.connections().await.len())
    }
}

#[derive(HealthCheck)]
struct State {
    nats: Client,
}

fn serve(nats: Client) -> TestServer {
    let state = web::Data::new(State { nats });
    TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(Duration::ZERO));
    })
}

#[actix_web::test]
async fn a_server_that_was_reached_once_is_named_when_it_is_gone() {
    let mut nats = started();
    let rig = serve(connect(&nats, PASSWORD).await);
    assert_up(&rig, "queue", "nats").await;
    nats.stop();
    let message = format!("unable to connect to nats at 127.0.0.1:{}", nats.port());
    let response = assert_down(&rig, "queue", "nats", &message).await;
    assert_not_leaked(&rig, &response, &["Connection refused"]).await;
}

#[actix_web::test]
async fn a_server_that_dies_during_a_run_is_not_waited_for() {
    let mut nats = started();
    let state = web::Data::new(State { nats: connect(&nats, PASSWORD).await });
    let rig = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(Duration::ZERO).deadline(Duration::from_secs(20)));
    });
    assert_up(&rig, "queue", "nats").await;
    nats.freeze();
    let message = format!("unable to connect to nats at 127.0.0.1:{}", nats.port());
    let dies = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        nats.kill();
    };
    tokio::join!(assert_down(&rig, "queue", "nats", &message), dies);
}

#[actix_web::test]
async fn an_outage_leaves_no_messages_behind() {
    const RUNS: u64 = 10;
    let mut nats = started();
    let client = connect(&nats, PASSWORD).await;
    let rig = serve(client.clone());
    assert_up(&rig, "queue", "nats").await;
    nats.stop();
    eventually("the client knows", || async { client.connection_state() != async_nats::connection::State::Connected })
        .await;
    for _ in 0..RUNS {
        assert_eq!(rig.health().await.status, 503);
    }
    nats.restart();
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
    // On the new connection: one message per run, and a run may have been lost with the old one.
    assert!(messages(&nats).await < RUNS / 2, "{:?}", nats.connections().await);
    let subscriptions = || async { nats.connections().await[0]["subscriptions"].as_u64().unwrap() };
    eventually("it is subscribed to nothing", || async { subscriptions().await == 0 }).await;
}

#[actix_web::test]
async fn a_reader_of_all_subjects_and_a_client_that_hears_nothing_of_itself_change_nothing() {
    let nats = started();
    let quiet = options(PASSWORD).no_echo().connect(nats.address()).await.unwrap();
    assert_up(&serve(quiet), "queue", "nats").await;
    let client = connect(&nats, PASSWORD).await;
    let _all = client.subscribe(">").await.unwrap();
    assert_up(&serve(client.clone()), "queue", "nats").await;
}

#[actix_web::test]
async fn a_server_without_jetstream_is_up_for_a_client_and_down_for_a_context() {
    #[derive(HealthCheck)]
    struct State {
        nats: Client,
        jobs: jetstream::Context,
    }

    let mut nats = Nats::without_jetstream();
    nats.restart();
    let client = connect(&nats, PASSWORD).await;
    let state = web::Data::new(State { jobs: jetstream::new(client.clone()), nats: client });
    let rig = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope());
    });
    let response = rig.health().await;
    let message = format!("unexpected response from jetstream at 127.0.0.1:{}", nats.port());
    assert_eq!(response.json()["checks"]["queue"], serde_json::json!({"nats": "UP", "jobs": "DOWN"}), "{response:?}");
    assert_eq!(response.json()["errors"]["queue"], serde_json::json!({"jobs": message}));
    eventually("the log contains the error", || async {
        logs::text().contains("requested JetStream resource does not exist")
    })
    .await;
}

#[actix_web::test]
async fn a_user_without_permission_to_publish_to_its_inbox_is_down() {
    let mut nats = Nats::prepared();
    nats.authorize(&format!(
        "{{user: {USER}, password: \"{PASSWORD}\", permissions: {{publish: \"orders\", subscribe: \"_INBOX.>\"}}}}"
    ));
    nats.restart();
    let rig = serve(connect(&nats, PASSWORD).await);
    assert_down(&rig, "queue", "nats", "timed out after 800 ms").await;
}

#[actix_web::test]
async fn a_client_that_reconnects_is_up() {
    let nats = started();
    let options = ConnectOptions::with_user_and_password(USER.to_owned(), PASSWORD.to_owned());
    let client = options.connect(nats.address()).await.unwrap();
    let rig = serve(client.clone());
    for _ in 0..50 {
        client.force_reconnect().await.unwrap();
        assert_up(&rig, "queue", "nats").await;
    }
}

#[actix_web::test]
async fn the_class_of_an_error_survives_a_check_of_the_users() {
    let nats = started();
    let refused = options(WRONG).connect(nats.address()).await.map(drop).unwrap_err();
    assert_eq!(ProbeError::from(refused).kind(), ProbeErrorKind::Rejected);
    let stopped = Nats::prepared();
    let unreachable = options(PASSWORD).connect(stopped.address()).await.map(drop).unwrap_err();
    let unreachable = anyhow::Error::from(unreachable).context("while an order is sent");
    assert_eq!(ProbeError::from_error(unreachable).kind(), ProbeErrorKind::Unreachable);
    let client = connect(&nats, PASSWORD).await;
    let unanswered = client.request("no.subscribers", "".into()).await.map(drop).unwrap_err();
    assert_eq!(ProbeError::from(unanswered).kind(), ProbeErrorKind::Failed);
    client.probe().await.unwrap();
}
