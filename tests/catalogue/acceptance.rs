//! The acceptance suite that every backend runs against its real server. A backend that does not support a test states the reason.

use std::{any::Any, time::Duration};

use actix_web::web;
use health::{HealthCheck, Probe};
use serde_json::{Value, json};

use crate::common::{
    eventually,
    http::Response,
    logs,
    responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
    servers::FaultInjection,
    test_server::TestServer,
};

/// Why a backend does not support a test.
pub(crate) type Unsupported = &'static str;

/// The public message of a failure.
pub(crate) enum ExpectedMessage {
    /// This message.
    Message(String),
    /// One of these messages, depending on the driver's own limits.
    OneOf(Vec<String>),
}

/// A backend under test.
pub(crate) trait Backend: 'static {
    /// The resource of an application.
    type Resource: Probe + Clone;
    /// The server, or a group of servers.
    type Server: FaultInjection;

    /// Prepares the server without starting it.
    fn prepare() -> Self::Server;

    /// Opens the resource. Returns an error if it cannot be opened while the server is stopped, or with a password.
    async fn open(server: &Self::Server, password: Password) -> Result<Self::Resource, Unsupported>;

    /// Returns the message while the server is stopped, and a part of the driver's text in the log.
    fn unreachable(server: &Self::Server) -> (ExpectedMessage, &'static str);

    /// Returns the message for a wrong password, and a part of the driver's text in the log.
    fn rejected(server: &Self::Server) -> Result<(ExpectedMessage, &'static str), Unsupported>;

    /// Returns the message for a frozen server. Defaults to a timeout.
    fn frozen(_: &Self::Server) -> Result<ExpectedMessage, Unsupported> {
        Ok(ExpectedMessage::Message("timed out after 800 ms".to_owned()))
    }

    /// Takes all connections of the resource. Returns a guard that holds them, and their number.
    async fn saturate(_: &Self::Resource) -> Result<(Box<dyn Any>, u32), Unsupported>;

    /// Returns how many queries the server has executed, without those of the test itself.
    async fn queries(_: &Self::Server) -> Result<u64, Unsupported>;

    /// The number of queries in a run. More than one if the pool or the client sends queries of its own.
    const QUERIES_PER_RUN: u64 = 1;

    /// Returns how many connections the server has, without those of the test itself.
    async fn connections(_: &Self::Server) -> Result<usize, Unsupported>;

    /// Why the resource stays DOWN after its server is back, so that the application has to open a new one.
    const NEVER_RECONNECTS: Option<Unsupported> = None;
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Password {
    Right,
    Wrong,
}

/// The wrong password, which must not appear in responses and logs.
pub(crate) const WRONG: &str = "canary-wr0ng";

#[derive(HealthCheck)]
struct State<R> {
    #[health(probe)]
    resource: R,
}

/// Serves the check `resource` of a state.
pub(crate) fn serve<R: Probe + Clone>(resource: R) -> TestServer {
    serve_with_max_age(resource, MAX_AGE)
}

/// Serves the check `resource` of a state. Each request runs it.
pub(crate) fn serve_uncached<R: Probe + Clone>(resource: R) -> TestServer {
    serve_with_max_age(resource, Duration::ZERO)
}

fn serve_with_max_age<R: Probe + Clone>(resource: R, max_age: Duration) -> TestServer {
    let state = web::Data::new(State { resource });
    TestServer::start(1, move |app| {
        app.service(health::scope().max_age(max_age).state(&state));
    })
}

fn started<B: Backend>() -> B::Server {
    let mut server = B::prepare();
    server.restart();
    server
}

async fn open<B: Backend>(server: &B::Server) -> B::Resource {
    B::open(server, Password::Right).await.expect("a resource can be opened while its server runs")
}

fn group<B: Backend>() -> &'static str {
    <B::Resource as Probe>::GROUP
}

/// Returns the values of the last run of a check.
pub(crate) async fn values(rig: &TestServer, group: &str, name: &str) -> Value {
    rig.get("/health?details").await.json()["details"][group][name]["data"].clone()
}

async fn assert_down_as_expected<B: Backend>(rig: &TestServer, expected: ExpectedMessage) -> Response {
    match expected {
        ExpectedMessage::Message(message) => assert_down(rig, group::<B>(), "resource", &message).await,
        ExpectedMessage::OneOf(messages) => {
            let response = rig.health().await;
            let message = response.json()["errors"][group::<B>()]["resource"].clone();
            assert_eq!(response.status, 503, "{response:?}\n{}", logs::text());
            assert!(messages.iter().any(|expected| message == **expected), "{message}: {messages:?}\n{}", logs::text());
            response
        }
    }
}

fn skip(row: &str, why: Unsupported) {
    println!("{row} is not tested: {why}");
    assert!(why.len() > 20, "the reason is missing");
}

async fn is_up_while_its_server_runs<B: Backend>(server: B::Server) -> B::Server {
    let rig = serve(open::<B>(&server).await);
    assert_up(&rig, group::<B>(), "resource").await;
    // The first run may open what later ones reuse.
    assert_recovers(&rig, group::<B>(), "resource").await;
    rig.stop().await;
    server
}

async fn is_down_when_its_server_stops_and_up_when_it_is_back<B: Backend>(mut server: B::Server) -> B::Server {
    let resource = open::<B>(&server).await;
    let rig = serve(resource.clone());
    assert_up(&rig, group::<B>(), "resource").await;

    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    let (expected, driver) = B::unreachable(&server);
    let response = assert_down_as_expected::<B>(&rig, expected).await;
    assert_not_leaked(&rig, &response, &[driver]).await;

    server.restart();
    if let Some(why) = B::NEVER_RECONNECTS {
        skip("the recovery", why);
        tokio::time::sleep(MAX_AGE).await;
        assert_eq!(rig.health().await.status, 503, "it must stay DOWN");
        assert_up(&serve(open::<B>(&server).await), group::<B>(), "resource").await;
    } else {
        eventually("it is up again", || async { rig.health().await.status == 200 }).await;
    }
    rig.stop().await;
    server
}

async fn is_down_by_the_deadline_when_its_server_freezes_and_up_when_it_resumes<B: Backend>(
    server: B::Server,
) -> B::Server {
    let expected = match B::frozen(&server) {
        Ok(expected) => expected,
        Err(why) => {
            skip("a frozen server", why);
            return server;
        }
    };
    let rig = serve(open::<B>(&server).await);
    assert_up(&rig, group::<B>(), "resource").await;

    server.freeze();
    tokio::time::sleep(MAX_AGE).await;
    let response = assert_down_as_expected::<B>(&rig, expected).await;
    // Generous, because machines are noisy. The timeouts of the drivers are longer.
    assert!(response.took < Duration::from_secs(5), "{:?}", response.took);
    assert_not_leaked(&rig, &response, &[]).await;

    server.resume();
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
    rig.stop().await;
    server
}

async fn is_down_with_wrong_credentials<B: Backend>(server: B::Server) -> B::Server {
    let (expected, driver) = match B::rejected(&server) {
        Ok(expected) => expected,
        Err(why) => {
            skip("wrong credentials", why);
            return server;
        }
    };
    let rig = serve(B::open(&server, Password::Wrong).await.expect("it opens with any password"));
    let response = assert_down_as_expected::<B>(&rig, expected).await;
    assert_not_leaked(&rig, &response, &[driver]).await;
    assert!(!response.body.contains(WRONG) && !logs::text().contains(WRONG), "{}", logs::text());
    rig.stop().await;
    server
}

async fn is_degraded_while_the_application_uses_all_of_it<B: Backend>(server: B::Server) -> B::Server {
    let resource = open::<B>(&server).await;
    let rig = serve(resource.clone());
    assert_up(&rig, group::<B>(), "resource").await;
    let (held, connections) = match B::saturate(&resource).await {
        Ok(held) => held,
        Err(why) => {
            skip("saturation", why);
            return server;
        }
    };
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("connection pool exhausted ({connections} of {connections} in use)");
    assert_degraded(&rig, group::<B>(), "resource", &message).await;
    let counters = json!({"connections_in_use": connections, "connections_idle": 0, "connections_max": connections});
    assert_eq!(values(&rig, group::<B>(), "resource").await, counters);
    drop(held);
    assert_recovers(&rig, group::<B>(), "resource").await;
    rig.stop().await;
    server
}

async fn is_down_while_nothing_listens_from_the_start<B: Backend>(mut server: B::Server) -> B::Server {
    let resource = match B::open(&server, Password::Right).await {
        Ok(resource) => resource,
        Err(why) => {
            skip("a server that is stopped from the start", why);
            server.restart();
            return server;
        }
    };
    let rig = serve(resource);
    let (expected, _) = B::unreachable(&server);
    let response = assert_down_as_expected::<B>(&rig, expected).await;
    assert_not_leaked(&rig, &response, &[]).await;
    server.restart();
    eventually("it is up", || async { rig.health().await.status == 200 }).await;
    rig.stop().await;
    server
}

async fn queries_once_per_run_on_the_connections_of_the_application<B: Backend>(server: B::Server) -> B::Server {
    const RUNS: u64 = 5;
    // Every request starts a run.
    let rig = serve_uncached(open::<B>(&server).await);
    // The first run may open what later ones reuse.
    assert_up(&rig, group::<B>(), "resource").await;
    assert_up(&rig, group::<B>(), "resource").await;
    // The connection of the previous run may not be back in its pool yet, which then opens another one. So the measurement is repeated; a
    // probe with two queries per run never passes.
    for attempt in 1..=5 {
        let before = (B::queries(&server).await, B::connections(&server).await);
        for _ in 0..RUNS {
            assert_up(&rig, group::<B>(), "resource").await;
        }
        let after = (B::queries(&server).await, B::connections(&server).await);
        let queries = before.0.and_then(|before| Ok(after.0? - before));
        let opened = before.1.and_then(|before| Ok(after.1? != before));
        let expected = RUNS * B::QUERIES_PER_RUN;
        if attempt < 5 && (queries.is_ok_and(|queries| queries != expected) || opened == Ok(true)) {
            continue;
        }
        match queries {
            Ok(queries) => assert_eq!(queries, expected, "{RUNS} runs"),
            Err(why) => skip("the number of queries", why),
        }
        match opened {
            Ok(opened) => assert!(!opened, "a run opened a connection"),
            Err(why) => skip("the number of connections", why),
        }
        break;
    }
    rig.stop().await;
    server
}

async fn closes_everything_when_the_state_is_dropped<B: Backend>(server: B::Server) -> B::Server {
    let before = match settled_connections::<B>(&server).await {
        Ok(before) => before,
        Err(why) => {
            skip("the closing of connections", why);
            return server;
        }
    };
    let rig = serve(open::<B>(&server).await);
    assert_up(&rig, group::<B>(), "resource").await;
    assert!(B::connections(&server).await.unwrap() > before, "there is a connection");
    rig.stop().await;
    eventually("its connections are closed", || async { B::connections(&server).await.unwrap() == before }).await;
    server
}

/// Returns the number of connections once those of the previous test are closed.
async fn settled_connections<B: Backend>(server: &B::Server) -> Result<usize, Unsupported> {
    let mut connections = B::connections(server).await?;
    let mut unchanged = 0;
    while unchanged < 5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = B::connections(server).await?;
        unchanged = if now == connections { unchanged + 1 } else { 0 };
        connections = now;
    }
    Ok(connections)
}

/// Runs all tests of a backend in sequence on one server, and names those that fail. Each of them leaves the server running.
pub(crate) async fn run<B: Backend>() {
    let mut server = B::prepare();
    let mut failed = Vec::new();
    macro_rules! rows {
        ($($row:ident)*) => {$(
            println!("{}", stringify!($row));
            logs::clear();
            server = match actix_web::rt::spawn($row::<B>(server)).await {
                Ok(server) => server,
                Err(_) => {
                    failed.push(stringify!($row));
                    started::<B>()
                }
            };
        )*};
    }
    rows! {
        is_down_while_nothing_listens_from_the_start
        is_up_while_its_server_runs
        closes_everything_when_the_state_is_dropped
        queries_once_per_run_on_the_connections_of_the_application
        is_degraded_while_the_application_uses_all_of_it
        is_down_with_wrong_credentials
        is_down_by_the_deadline_when_its_server_freezes_and_up_when_it_resumes
        is_down_when_its_server_stops_and_up_when_it_is_back
    }
    drop(server);
    assert!(failed.is_empty(), "{failed:#?} failed, see above");
}

/// The part of an `impl Backend` that is the same for all drivers of a server: how to prepare it, and what it counts.
macro_rules! of_server {
    ($prepared:expr, $queries:path, $connections:path) => {
        type Server = Server;

        fn prepare() -> Server {
            $prepared
        }

        async fn queries(server: &Server) -> Result<u64, Unsupported> {
            $queries(server).await
        }

        async fn connections(server: &Server) -> Result<usize, Unsupported> {
            $connections(server).await
        }
    };
}

pub(crate) use of_server;

/// Declares the test of a backend, in a module of its own.
macro_rules! acceptance {
    ($module:ident, $backend:ident) => {
        mod $module {
            #[actix_web::test]
            async fn passes_the_acceptance_tests() {
                $crate::acceptance::run::<super::$backend>().await;
            }
        }
    };
}

pub(crate) use acceptance;
