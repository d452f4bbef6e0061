//! `mongodb::Client`, `Database` and `Collection`.

use std::{any::Any, future::IntoFuture as _, time::Duration};

use ::mongodb::{
    Client, Collection, Database,
    bson::{Document, doc},
};
use actix_web::web;
use health::{HealthCheck, Probe, ProbeError, ProbeErrorKind};
use serde_json::json;

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, serve},
    common::{
        DATABASE, PASSWORD, eventually, logs,
        proxy::{Fault, Proxy},
        responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
        servers::FaultInjection as _,
        test_server::TestServer,
    },
    servers::{connections_to, mongod::Mongod},
};

struct OfClient;

acceptance!(client, OfClient);

impl Backend for OfClient {
    type Resource = Client;
    type Server = Mongod;

    fn prepare() -> Mongod {
        Mongod::prepared()
    }

    async fn open(mongod: &Mongod, password: Password) -> Result<Client, Unsupported> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        Ok(Client::with_uri_str(mongod.url(password)).await.unwrap())
    }

    fn unreachable(mongod: &Mongod) -> (ExpectedMessage, &'static str) {
        let message = format!("unable to connect to mongodb at {}", mongod.address());
        (ExpectedMessage::Message(message), "Connection refused")
    }

    fn rejected(mongod: &Mongod) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        let message = format!("mongodb at {} denied access", mongod.address());
        Ok((ExpectedMessage::Message(message), "Authentication failed"))
    }

    async fn saturate(_: &Client) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err("a client does not expose how many connections are in use, so the message is another one, see below")
    }

    async fn queries(mongod: &Mongod) -> Result<u64, Unsupported> {
        Ok(mongod.received("ping"))
    }

    async fn connections(mongod: &Mongod) -> Result<usize, Unsupported> {
        Ok(connections_to(mongod.port()))
    }
}

fn started() -> Mongod {
    let mut mongod = Mongod::prepared();
    mongod.restart();
    mongod
}

async fn connect(mongod: &Mongod) -> Client {
    OfClient::open(mongod, Password::Right).await.unwrap()
}

#[actix_web::test]
async fn a_database_and_a_collection_are_probed_like_their_client() {
    #[derive(HealthCheck)]
    struct State {
        database: Database,
        collection: Collection<Document>,
    }

    let mut mongod = started();
    let database = connect(&mongod).await.database(DATABASE);
    let state = web::Data::new(State { collection: database.collection("orders"), database });
    let rig = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(MAX_AGE));
    });
    assert_eq!(rig.health().await.json()["checks"], json!({"database": {"database": "UP", "collection": "UP"}}));
    mongod.stop();
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("unable to connect to mongodb at {}", mongod.address());
    let errors = json!({"database": {"database": message, "collection": message}});
    assert_eq!(rig.health().await.json()["errors"], errors, "{}", logs::text());
}

#[actix_web::test]
async fn without_a_primary_only_a_client_that_reads_from_secondaries_is_up() {
    let [mut primary, secondary] = Mongod::replica_set();
    let url = format!("mongodb://{},{}/?replicaSet=canaryset", primary.address(), secondary.address());
    let client = Client::with_uri_str(&url).await.unwrap();
    let reader = Client::with_uri_str(format!("{url}&readPreference=secondaryPreferred")).await.unwrap();
    let (rig, of_reader) = (serve(client), serve(reader));
    let data = async |rig: &TestServer| {
        rig.get("/health?details").await.json()["details"]["database"]["resource"]["data"].clone()
    };
    let both = json!({"primary": primary.address(), "secondaries": 1});
    eventually("both members are observed", || async { data(&rig).await == both }).await;

    primary.stop();
    let has_no_primary = || async {
        let response = rig.health().await;
        response.status == 503 && response.body.contains("mongodb has no primary")
    };
    eventually("there is no primary", has_no_primary).await;
    let response = assert_down(&rig, "database", "resource", "mongodb has no primary").await;
    assert_not_leaked(&rig, &response, &["only the secondaries", &secondary.address()]).await;
    assert_up(&of_reader, "database", "resource").await;
    // A primary is a secondary for a moment before it stops.
    let one = json!({"secondaries": 1});
    eventually("the other member is gone", || async { data(&of_reader).await == one }).await;

    primary.restart();
    eventually("there is a primary again", || async { rig.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_wrong_password_is_denied_in_each_run_though_the_client_waits_for_its_next_heartbeat() {
    let mongod = started();
    let rig = serve(OfClient::open(&mongod, Password::Wrong).await.unwrap());
    for _ in 0..3 {
        let message = format!("mongodb at {} denied access", mongod.address());
        assert_down(&rig, "database", "resource", &message).await;
        tokio::time::sleep(MAX_AGE).await;
    }
}

#[actix_web::test]
async fn a_connection_that_was_reset_while_it_was_idle_is_no_outage() {
    let mut mongod = Mongod::without_password();
    mongod.restart();
    let proxy = Proxy::start(mongod.port()).await;
    let client = Client::with_uri_str(format!("mongodb://127.0.0.1:{}/", proxy.port)).await.unwrap();
    let session = client.session().unwrap();
    // The client notices sooner or later on its own, too.
    for _ in 0..10 {
        session.probe().await.unwrap();
        proxy.set(Fault::Reset);
        tokio::time::sleep(Duration::from_millis(1)).await;
        proxy.set(Fault::None);
    }
}

#[actix_web::test]
async fn a_server_far_away_is_up_and_gets_no_connection_outside_the_pool() {
    let mut mongod = Mongod::without_password();
    mongod.restart();
    let proxy = Proxy::start_with(mongod.port(), Fault::Distance(Duration::from_millis(200)));
    let rig = serve(Client::with_uri_str(format!("mongodb://127.0.0.1:{}/", proxy.port)).await.unwrap());
    assert_up(&rig, "database", "resource").await;
    let opened = proxy.opened();
    for _ in 0..4 {
        tokio::time::sleep(MAX_AGE).await;
        assert_up(&rig, "database", "resource").await;
    }
    assert_eq!(proxy.opened(), opened);
}

#[actix_web::test]
async fn a_far_client_without_a_free_connection_is_degraded_also_after_its_server_was_frozen() {
    for distance in [30, 150] {
        let mut mongod = Mongod::without_password();
        mongod.restart();
        let proxy = Proxy::start_with(mongod.port(), Fault::Distance(Duration::from_millis(distance)));
        let address = format!("127.0.0.1:{}", proxy.port);
        let client = Client::with_uri_str(format!("mongodb://{address}/?maxPoolSize=2")).await.unwrap();
        let rig = serve(client.clone());
        assert_up(&rig, "database", "resource").await;
        mongod.freeze();
        tokio::time::sleep(MAX_AGE).await;
        assert_down(&rig, "database", "resource", "timed out after 800 ms").await;
        // A run that begins now ends when the server continues.
        tokio::time::sleep(Duration::from_secs(3)).await;
        mongod.resume();
        assert_recovers(&rig, "database", "resource").await;

        let occupied = occupy(&client, Duration::from_secs(6)).await;
        let message = format!("no connection of the pool to mongodb at {address} responds, a new one does");
        // The client may still be connecting in the first run.
        eventually("it is degraded", || async { rig.health().await.body.contains(&message) }).await;
        for _ in 0..3 {
            tokio::time::sleep(MAX_AGE).await;
            assert_degraded(&rig, "database", "resource", &message).await;
        }
        assert!(occupied.iter().any(|task| !task.is_finished()), "{distance} ms away: it is degraded too late");
    }
}

/// Occupies both connections of a client for this time.
async fn occupy(client: &Client, time: Duration) -> Vec<tokio::task::JoinHandle<()>> {
    let orders = client.database(DATABASE).collection::<Document>("orders");
    orders.insert_one(doc! { "number": 1 }).await.unwrap();
    // The server runs it for each document.
    let code = format!("sleep({}) || true", time.as_millis());
    let occupy = |orders: Collection<Document>| {
        let code = code.clone();
        async move {
            let _ = orders.find_one(doc! { "$where": code }).await;
        }
    };
    (0..2).map(|_| tokio::spawn(occupy(orders.clone()))).collect()
}

#[actix_web::test]
async fn a_client_without_a_free_connection_is_degraded_and_down_if_its_server_is_frozen_too() {
    let mut mongod = Mongod::without_password();
    mongod.restart();
    let address = mongod.address();
    let client = Client::with_uri_str(format!("mongodb://{address}/?maxPoolSize=2")).await.unwrap();
    let rig = serve(client.clone());
    assert_up(&rig, "database", "resource").await;
    let occupied = occupy(&client, Duration::from_secs(12)).await;
    let database = client.database(DATABASE);
    let has_no_connection = || async {
        let ping = database.run_command(doc! { "ping": 1 });
        tokio::time::timeout(Duration::from_millis(100), ping.into_future()).await.is_err()
    };
    eventually("the pool is exhausted", has_no_connection).await;
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("no connection of the pool to mongodb at {address} responds, a new one does");
    for _ in 0..2 {
        assert_degraded(&rig, "database", "resource", &message).await;
        tokio::time::sleep(MAX_AGE).await;
    }

    mongod.freeze();
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&rig, "database", "resource", "timed out after 800 ms").await;
    // A run that begins now opens a connection to the server, which responds when it continues.
    tokio::time::sleep(Duration::from_secs(3)).await;
    mongod.resume();
    eventually("it is degraded again", || async { rig.health().await.body.contains(&message) }).await;
    assert!(occupied.iter().any(|task| !task.is_finished()), "it is degraded too late");
    for task in occupied {
        task.await.unwrap();
    }
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
    assert_recovers(&rig, "database", "resource").await;
}

#[actix_web::test]
async fn the_class_of_an_error_survives_a_check_of_the_users() {
    let stopped = Mongod::prepared();
    let url = format!("{}?serverSelectionTimeoutMS=1", stopped.url(PASSWORD));
    let client = Client::with_uri_str(url).await.unwrap();
    let error = client.list_database_names().await.unwrap_err();
    assert_eq!(ProbeError::from(error.clone()).kind(), ProbeErrorKind::Unreachable);
    let error = anyhow::Error::from(error).context("while the orders are listed");
    assert_eq!(ProbeError::from_error(error).kind(), ProbeErrorKind::Unreachable);
}

#[actix_web::test]
async fn runs_that_are_dropped_leave_one_query_behind() {
    let mongod = started();
    let client = connect(&mongod).await;
    let session = client.session().unwrap();
    session.probe().await.unwrap();
    let connections = connections_to(mongod.port());
    mongod.freeze();
    for _ in 0..5 {
        let dropped = tokio::time::timeout(Duration::from_millis(100), session.probe()).await;
        assert!(dropped.is_err(), "{dropped:?}");
    }
    mongod.resume();
    session.probe().await.unwrap();
    assert_eq!(connections_to(mongod.port()), connections);
    // The first run, those that were dropped, and the last one, which may have had the result of the former.
    let queries = mongod.received("ping");
    assert!((2..=3).contains(&queries), "{queries}");
}
