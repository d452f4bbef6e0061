//! `rumqttc::AsyncClient` of rumqttc-next.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::rumqttc::{AsyncClient, MqttOptions, PublishOptions, QoS};
use actix_web::web;
use health::{HealthCheck, Probe as _, ProbeError, ProbeErrorKind};

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance},
    common::{
        PASSWORD, USER, eventually,
        responses::{assert_down, assert_not_leaked, assert_up},
        servers::FaultInjection as _,
        test_server::TestServer,
    },
    servers::{connections_to, mosquitto::Mosquitto},
};

struct OfClient;

acceptance!(client, OfClient);

fn options(mosquitto: &Mosquitto, password: &str) -> MqttOptions {
    let mut options = MqttOptions::new("application", ("127.0.0.1", mosquitto.port()));
    options.set_credentials(USER, password.to_owned());
    options
}

/// A client, and an event loop that is polled as applications do: it reconnects after a pause, until there is no
/// client any more.
fn connect(mosquitto: &Mosquitto, password: &str) -> AsyncClient {
    connect_until(mosquitto, password, Arc::default())
}

/// It also ends when the application ends it.
fn connect_until(mosquitto: &Mosquitto, password: &str, ended: Arc<AtomicBool>) -> AsyncClient {
    let (client, mut events) = AsyncClient::builder(options(mosquitto, password)).capacity(10).build();
    actix_web::rt::spawn(async move {
        while !ended.load(Ordering::Relaxed) {
            match tokio::time::timeout(Duration::from_millis(100), events.poll()).await {
                Ok(Err(rumqttc::ConnectionError::RequestsDone)) => break,
                Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                Ok(Ok(_)) | Err(_) => {}
            }
        }
    });
    client
}

impl Backend for OfClient {
    type Resource = AsyncClient;
    type Server = Mosquitto;

    fn prepare() -> Mosquitto {
        Mosquitto::prepared()
    }

    async fn open(mosquitto: &Mosquitto, password: Password) -> Result<AsyncClient, Unsupported> {
        Ok(connect(mosquitto, if password == Password::Right { PASSWORD } else { WRONG }))
    }

    fn unreachable(_: &Mosquitto) -> (ExpectedMessage, &'static str) {
        // The client queues messages, and only its event loop returns the error.
        (ExpectedMessage::Message("timed out after 800 ms".to_owned()), "health check queue.resource is DOWN")
    }

    fn rejected(mosquitto: &Mosquitto) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Ok(Self::unreachable(mosquitto))
    }

    async fn saturate(_: &AsyncClient) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err("a client has one connection, which all share: there is nothing to use up")
    }

    async fn queries(mosquitto: &Mosquitto) -> Result<u64, Unsupported> {
        Ok(mosquitto.received())
    }

    async fn connections(mosquitto: &Mosquitto) -> Result<usize, Unsupported> {
        Ok(connections_to(mosquitto.port()))
    }
}

#[derive(HealthCheck)]
struct State {
    mqtt: AsyncClient,
}

fn serve(mqtt: AsyncClient) -> TestServer {
    let state = web::Data::new(State { mqtt });
    TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(Duration::ZERO));
    })
}

fn started() -> Mosquitto {
    let mut mosquitto = Mosquitto::prepared();
    mosquitto.restart();
    mosquitto
}

/// Runs a probe and drops it soon, as the engine does at its hard limit.
macro_rules! assert_no_response {
    ($kept:expr) => {
        let result = tokio::time::timeout(Duration::from_millis(100), $kept.probe()).await;
        assert!(result.is_err(), "{result:?}");
    };
}

#[actix_web::test]
async fn an_outage_leaves_one_message_behind_however_many_runs_there_are() {
    let mut mosquitto = started();
    let client = connect(&mosquitto, PASSWORD);
    let kept = client.session().unwrap();
    kept.probe().await.unwrap();
    mosquitto.stop();
    // More runs than the queue of the client has slots.
    for _ in 0..12 {
        assert_no_response!(kept);
    }
    mosquitto.restart();
    kept.probe().await.unwrap();
    assert_eq!(mosquitto.received(), 2, "the one that was left, and the one of now");
}

#[actix_web::test]
async fn the_acknowledgement_of_an_earlier_run_does_not_count() {
    let mosquitto = started();
    let client = connect(&mosquitto, PASSWORD);
    let kept = client.session().unwrap();
    kept.probe().await.unwrap();
    mosquitto.freeze();
    assert_no_response!(kept);
    mosquitto.resume();
    // The client gets this acknowledgement before that of a later message.
    let later = client.publish_tracked("orders", "1", PublishOptions::new(QoS::AtLeastOnce)).await.unwrap();
    later.wait_async().await.unwrap();
    mosquitto.freeze();
    assert_no_response!(kept);
    mosquitto.resume();
    kept.probe().await.unwrap();
}

#[actix_web::test]
async fn a_message_that_was_lost_with_its_connection_is_sent_again() {
    let mut mosquitto = started();
    let client = connect(&mosquitto, PASSWORD);
    let kept = client.session().unwrap();
    kept.probe().await.unwrap();
    mosquitto.freeze();
    let restarted = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        mosquitto.kill();
        mosquitto.restart();
    };
    let (result, ()) = tokio::join!(kept.probe(), restarted);
    result.unwrap();
}

#[actix_web::test]
async fn a_user_without_permission_for_the_topic_is_denied() {
    let mut mosquitto = Mosquitto::prepared();
    mosquitto.allow("topic readwrite orders/#");
    mosquitto.restart();
    let rig = serve(connect(&mosquitto, PASSWORD));
    let response = assert_down(&rig, "queue", "mqtt", "mqtt denied access").await;
    assert_not_leaked(&rig, &response, &["NotAuthorized"]).await;
}

#[actix_web::test]
async fn an_event_loop_that_has_ended_is_no_connection() {
    let mosquitto = started();
    let ended = Arc::new(AtomicBool::new(false));
    let rig = serve(connect_until(&mosquitto, PASSWORD, Arc::clone(&ended)));
    assert_up(&rig, "queue", "mqtt").await;
    ended.store(true, Ordering::Relaxed);
    eventually("it has ended", || async { connections_to(mosquitto.port()) == 0 }).await;
    let response = assert_down(&rig, "queue", "mqtt", "unable to connect to mqtt").await;
    assert_not_leaked(&rig, &response, &["Request channel is disconnected"]).await;
}

#[actix_web::test]
async fn the_class_of_an_error_survives_a_check_of_the_users() {
    let stopped = Mosquitto::prepared();
    let (client, events) = AsyncClient::builder(options(&stopped, PASSWORD)).capacity(1).build();
    let publish = || client.try_publish("orders", "1", PublishOptions::new(QoS::AtLeastOnce));
    publish().unwrap();
    assert_eq!(ProbeError::from(publish().unwrap_err()).kind(), ProbeErrorKind::TimedOut);
    drop(events);
    let gone = anyhow::Error::from(publish().unwrap_err()).context("while an order is sent");
    assert_eq!(ProbeError::from_error(gone).kind(), ProbeErrorKind::Unreachable);
}
