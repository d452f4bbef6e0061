//! What every backend must show against its real server, row by row. A row that a backend can't show says why instead.

use std::{any::Any, time::Duration};

use actix_web::web;
use health::{HealthCheck, Probe};

use crate::common::{
    eventually,
    http::Response,
    logs,
    responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
    servers::FaultInjection,
    test_server::TestServer,
};

/// Why a backend can't show a row.
pub(crate) type Unsupported = &'static str;

/// How a message speaks of a failure.
pub(crate) enum ExpectedMessage {
    /// To the letter.
    Message(String),
    /// One of these: which one, the driver's own limits decide.
    OneOf(Vec<String>),
}

/// What the suite has to know of a backend.
pub(crate) trait Backend: 'static {
    /// The resource as an application holds it.
    type Resource: Probe + Clone;
    /// A server of the harness, or several that are one.
    type Server: FaultInjection;

    /// The server, prepared and not started.
    fn prepare() -> Self::Server;

    /// Opens the resource. `password` is the right one or a wrong one. An error is why it can't be opened where nothing
    /// listens, or with a password at all.
    async fn open(server: &Self::Server, password: Password) -> Result<Self::Resource, Unsupported>;

    /// What is told while nothing listens, and what the log then has of the driver's text.
    fn unreachable(server: &Self::Server) -> (ExpectedMessage, &'static str);

    /// What is told of a wrong password, and what the log then has; or why there is none.
    fn rejected(server: &Self::Server) -> Result<(ExpectedMessage, &'static str), Unsupported>;

    /// What is told of a server that is frozen. Default is that nobody answered by the deadline.
    fn frozen(_: &Self::Server) -> ExpectedMessage {
        ExpectedMessage::Message("timed out after 800 ms".to_owned())
    }

    /// Uses all that the resource has to give; what comes back holds it. With it, how many connections those are; or why
    /// the resource can't be saturated.
    async fn saturate(_: &Self::Resource) -> Result<(Box<dyn Any>, u32), Unsupported>;

    /// How many questions the server was asked by the resource's connections until now; or why they can't be counted. Asked of the server by a way of the test's own, whose questions don't count.
    async fn questions(_: &Self::Server) -> Result<u64, Unsupported>;

    /// So many questions are a round; more than one where the pool or the client asks by itself, which the implementation
    /// says.
    const QUESTIONS_A_ROUND: u64 = 1;

    /// How many connections the server has, without the test's own; or why they can't be counted.
    async fn connections(_: &Self::Server) -> Result<usize, Unsupported>;

    /// Why the resource stays down when its server is back, if it does: then the application has to open a new one.
    const NEVER_RECONNECTS: Option<Unsupported> = None;
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Password {
    Right,
    Wrong,
}

/// A wrong password, to be looked for where it must not be.
pub(crate) const WRONG: &str = "canary-wr0ng";

#[derive(HealthCheck)]
struct State<R> {
    #[health(probe)]
    resource: R,
}

fn serve<R: Probe + Clone>(resource: R) -> TestServer {
    serve_asking(resource, MAX_AGE)
}

fn serve_asking<R: Probe + Clone>(resource: R, max_age: Duration) -> TestServer {
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

async fn right<B: Backend>(server: &B::Server) -> B::Resource {
    B::open(server, Password::Right).await.expect("a resource can be opened while its server runs")
}

fn group<B: Backend>() -> &'static str {
    <B::Resource as Probe>::GROUP
}

async fn down_as_told<B: Backend>(rig: &TestServer, told: ExpectedMessage) -> Response {
    match told {
        ExpectedMessage::Message(message) => assert_down(rig, group::<B>(), "resource", &message).await,
        ExpectedMessage::OneOf(messages) => {
            let answer = rig.health().await;
            let message = answer.json()["errors"][group::<B>()]["resource"].clone();
            assert_eq!(answer.status, 503, "{answer:?}\n{}", logs::text());
            assert!(messages.iter().any(|expected| message == **expected), "{message}: {messages:?}\n{}", logs::text());
            answer
        }
    }
}

fn not_shown(row: &str, why: Unsupported) {
    println!("{row} is not shown: {why}");
    assert!(why.len() > 20, "say why");
}

pub(crate) async fn is_up_while_its_server_runs<B: Backend>() {
    let server = started::<B>();
    let rig = serve(right::<B>(&server).await);
    assert_up(&rig, group::<B>(), "resource").await;
    // By the second round everything that is kept from round to round is there.
    assert_recovers(&rig, group::<B>(), "resource").await;
}

pub(crate) async fn is_down_when_its_server_stops_and_up_when_it_is_back<B: Backend>() {
    let mut server = started::<B>();
    let resource = right::<B>(&server).await;
    let rig = serve(resource.clone());
    assert_up(&rig, group::<B>(), "resource").await;

    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    let (told, driver) = B::unreachable(&server);
    let answer = down_as_told::<B>(&rig, told).await;
    assert_not_leaked(&rig, &answer, &[driver]).await;

    server.restart();
    if let Some(why) = B::NEVER_RECONNECTS {
        not_shown("that it is up again", why);
        tokio::time::sleep(MAX_AGE).await;
        assert_eq!(rig.health().await.status, 503, "nor may it be");
        assert_up(&serve(right::<B>(&server).await), group::<B>(), "resource").await;
    } else {
        eventually("it is up again", || async { rig.health().await.status == 200 }).await;
    }
}

pub(crate) async fn is_down_in_time_when_its_server_freezes_and_up_when_it_thaws<B: Backend>() {
    let server = started::<B>();
    let rig = serve(right::<B>(&server).await);
    assert_up(&rig, group::<B>(), "resource").await;

    server.freeze();
    tokio::time::sleep(MAX_AGE).await;
    let answer = down_as_told::<B>(&rig, B::frozen(&server)).await;
    // Loose, for the machines are noisy; what drivers wait by themselves is longer still.
    assert!(answer.took < Duration::from_secs(5), "{:?}", answer.took);
    assert_not_leaked(&rig, &answer, &[]).await;

    server.resume();
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
}

pub(crate) async fn is_down_with_wrong_credentials<B: Backend>() {
    let server = started::<B>();
    let (told, driver) = match B::rejected(&server) {
        Ok(told) => told,
        Err(why) => return not_shown("wrong credentials", why),
    };
    let rig = serve(B::open(&server, Password::Wrong).await.expect("there is a password"));
    let answer = down_as_told::<B>(&rig, told).await;
    assert_not_leaked(&rig, &answer, &[driver]).await;
    assert!(!answer.body.contains(WRONG) && !logs::text().contains(WRONG), "{}", logs::text());
}

pub(crate) async fn is_degraded_while_the_application_uses_all_of_it<B: Backend>() {
    let server = started::<B>();
    let resource = right::<B>(&server).await;
    let rig = serve(resource.clone());
    assert_up(&rig, group::<B>(), "resource").await;
    let (held, connections) = match B::saturate(&resource).await {
        Ok(held) => held,
        Err(why) => return not_shown("saturation", why),
    };
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("connection pool exhausted ({connections} of {connections} in use)");
    assert_degraded(&rig, group::<B>(), "resource", &message).await;
    drop(held);
    assert_recovers(&rig, group::<B>(), "resource").await;
}

pub(crate) async fn is_down_while_nothing_listens_from_the_start<B: Backend>() {
    let mut server = B::prepare();
    let resource = match B::open(&server, Password::Right).await {
        Ok(resource) => resource,
        Err(why) => return not_shown("that nothing listens from the start", why),
    };
    let rig = serve(resource);
    let (told, _) = B::unreachable(&server);
    let answer = down_as_told::<B>(&rig, told).await;
    assert_not_leaked(&rig, &answer, &[]).await;
    server.restart();
    eventually("it is up", || async { rig.health().await.status == 200 }).await;
}

pub(crate) async fn asks_once_a_round_on_the_connections_of_the_application<B: Backend>() {
    const ROUNDS: u64 = 5;
    let server = started::<B>();
    // Every request is a round.
    let rig = serve_asking(right::<B>(&server).await, Duration::ZERO);
    // What is kept from round to round is there by the second one.
    assert_up(&rig, group::<B>(), "resource").await;
    assert_up(&rig, group::<B>(), "resource").await;
    // A round that follows at once may find the last one's connection not back in its pool, which opens another: then it is
    // measured again. What queries twice in each round never passes.
    for attempt in 1..=5 {
        let before = (B::questions(&server).await, B::connections(&server).await);
        for _ in 0..ROUNDS {
            assert_up(&rig, group::<B>(), "resource").await;
        }
        let after = (B::questions(&server).await, B::connections(&server).await);
        let questions = before.0.and_then(|before| Ok(after.0? - before));
        let opened = before.1.and_then(|before| Ok(after.1? != before));
        let expected = ROUNDS * B::QUESTIONS_A_ROUND;
        if attempt < 5 && (questions.is_ok_and(|questions| questions != expected) || opened == Ok(true)) {
            continue;
        }
        match questions {
            Ok(questions) => assert_eq!(questions, expected, "{ROUNDS} rounds"),
            Err(why) => not_shown("the count of questions", why),
        }
        match opened {
            Ok(opened) => assert!(!opened, "no connection was opened for it"),
            Err(why) => not_shown("the count of connections", why),
        }
        return;
    }
}

pub(crate) async fn closes_everything_when_the_state_is_dropped<B: Backend>() {
    let server = started::<B>();
    let before = match B::connections(&server).await {
        Ok(before) => before,
        Err(why) => return not_shown("that all is closed", why),
    };
    let rig = serve(right::<B>(&server).await);
    assert_up(&rig, group::<B>(), "resource").await;
    assert!(B::connections(&server).await.unwrap() > before, "there is a connection");
    rig.stop().await;
    eventually("its connections are closed", || async { B::connections(&server).await.unwrap() == before }).await;
}

/// A test for each row, in a module of the backend's name.
macro_rules! acceptance {
    ($module:ident, $backend:ty) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;

            acceptance! { @rows $backend:
                is_up_while_its_server_runs
                is_down_when_its_server_stops_and_up_when_it_is_back
                is_down_in_time_when_its_server_freezes_and_up_when_it_thaws
                is_down_with_wrong_credentials
                is_degraded_while_the_application_uses_all_of_it
                is_down_while_nothing_listens_from_the_start
                asks_once_a_round_on_the_connections_of_the_application
                closes_everything_when_the_state_is_dropped
            }
        }
    };
    (@rows $backend:ty: $($row:ident)*) => {
        $(
            #[actix_web::test]
            async fn $row() {
                $crate::acceptance::$row::<$backend>().await;
            }
        )*
    };
}

pub(crate) use acceptance;
