//! `lettre::AsyncSmtpTransport` and `lettre::SmtpTransport`.

use std::{any::Any, time::Duration};

use ::lettre::{
    Address, AsyncSmtpTransport, AsyncTransport as _, SmtpTransport, Tokio1Executor,
    address::Envelope,
    transport::smtp::{authentication::Credentials, response::Response},
};
use actix_web::web;
use health::{Check, HealthCheck, Probe, ProbeError, ProbeErrorKind, Role, Session};
use serde_json::json;

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, serve},
    common::{
        PASSWORD, USER, eventually, logs,
        proxy::{Fault, Proxy},
        responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
        servers::FaultInjection as _,
        test_server::TestServer,
    },
    servers::{connections_to, smtp::Smtp},
};

type Mailer = AsyncSmtpTransport<Tokio1Executor>;

/// A transport whose checks have the options of any check, for tests that poll it often.
#[derive(Clone)]
struct Polled<T>(T);

impl<T: Probe> Probe for Polled<T> {
    const GROUP: &'static str = T::GROUP;

    async fn probe(&self) -> Result<(), ProbeError> {
        self.0.probe().await
    }

    fn session(&self) -> Option<Session> {
        self.0.session()
    }
}

fn credentials(password: Password) -> Credentials {
    let password = if password == Password::Right { PASSWORD } else { WRONG };
    Credentials::new(USER.to_owned(), password.to_owned())
}

fn mailer(smtp: &Smtp, password: Password) -> Mailer {
    mailer_at(smtp.port(), password)
}

fn mailer_at(port: u16, password: Password) -> Mailer {
    Mailer::builder_dangerous("127.0.0.1").port(port).credentials(credentials(password)).build()
}

fn blocking(smtp: &Smtp, password: Password) -> SmtpTransport {
    blocking_at(smtp.port(), password)
}

fn blocking_at(port: u16, password: Password) -> SmtpTransport {
    SmtpTransport::builder_dangerous("127.0.0.1").port(port).credentials(credentials(password)).build()
}

/// A backend whose resource `$open` opens.
macro_rules! backend {
    ($backend:ident, $transport:ty, $open:ident) => {
        struct $backend;

        impl Backend for $backend {
            type Resource = Polled<$transport>;
            type Server = Smtp;

            /// The pool sends one before it lends an idle connection.
            const QUERIES_PER_RUN: u64 = 2;

            fn prepare() -> Smtp {
                Smtp::prepared()
            }

            async fn open(smtp: &Smtp, password: Password) -> Result<Self::Resource, Unsupported> {
                Ok(Polled($open(smtp, password)))
            }

            fn unreachable(smtp: &Smtp) -> (ExpectedMessage, &'static str) {
                let message = format!("unable to connect to smtp at 127.0.0.1:{}", smtp.port());
                (ExpectedMessage::Message(message), "Connection refused")
            }

            fn rejected(smtp: &Smtp) -> Result<(ExpectedMessage, &'static str), Unsupported> {
                let message = format!("smtp at 127.0.0.1:{} denied access", smtp.port());
                Ok((ExpectedMessage::Message(message), "Authentication credentials invalid"))
            }

            async fn saturate(_: &Self::Resource) -> Result<(Box<dyn Any>, u32), Unsupported> {
                Err("a transport opens a connection when none is idle, so there is nothing to use up")
            }

            async fn queries(smtp: &Smtp) -> Result<u64, Unsupported> {
                Ok(smtp.received("NOOP"))
            }

            async fn connections(smtp: &Smtp) -> Result<usize, Unsupported> {
                Ok(connections_to(smtp.port()))
            }
        }
    };
}

backend!(OfAsync, Mailer, mailer);
backend!(OfBlocking, SmtpTransport, blocking);
acceptance!(asynchronous, OfAsync);
acceptance!(blocking_transport, OfBlocking);

fn started() -> Smtp {
    let mut smtp = Smtp::prepared();
    smtp.restart();
    smtp
}

#[actix_web::test]
async fn by_default_a_mail_server_is_optional_and_a_result_is_valid_for_thirty_seconds() {
    #[derive(HealthCheck)]
    struct State {
        mailer: Mailer,
        #[health(critical, max_age = "1ms")]
        blocking: SmtpTransport,
    }

    let mut smtp = started();
    let state = State { mailer: mailer(&smtp, Password::Right), blocking: blocking(&smtp, Password::Right) };
    let options = Check::probe("mailer", state.mailer.clone()).options();
    assert_eq!((options.role, options.max_age), (Role::Optional, Some(Duration::from_secs(30))));
    let state = web::Data::new(state);
    let rig = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(Duration::ZERO));
    });
    smtp.stop();
    let response = rig.health().await;
    let checks = json!({"mail": {"mailer": "DOWN", "blocking": "DOWN"}});
    assert_eq!((response.status, &response.json()["checks"]), (503, &checks), "{}", logs::text());

    smtp.restart();
    // The result of the one is older than 1 ms, that of the other is not older than 30 s.
    let checks = json!({"mail": {"mailer": "DOWN", "blocking": "UP"}});
    let response = rig.health().await;
    assert_eq!((response.status, &response.json()["checks"]), (200, &checks), "{}", logs::text());
    assert_eq!(response.json()["status"], "DEGRADED");
}

#[actix_web::test]
async fn a_server_that_refuses_noop_is_down_though_the_transport_returns_no_error() {
    let smtp = started();
    smtp.refuse_noop();
    let transport = mailer(&smtp, Password::Right);
    assert!(!transport.test_connection().await.unwrap(), "lettre returns no error");
    let state = web::Data::new(State { mailer: Polled(transport) });
    let rig = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(MAX_AGE));
    });
    let message = format!("unexpected response from smtp at 127.0.0.1:{}", smtp.port());
    let response = assert_down(&rig, "mail", "mailer", &message).await;
    assert_not_leaked(&rig, &response, &["why NOOP failed on a new connection"]).await;
}

#[derive(HealthCheck)]
struct State {
    mailer: Polled<Mailer>,
}

#[actix_web::test]
async fn a_run_reuses_the_connection_of_the_one_before() {
    let smtp = started();
    let state = web::Data::new(State { mailer: Polled(mailer(&smtp, Password::Right)) });
    let rig = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(Duration::ZERO));
    });
    for _ in 0..5 {
        assert_up(&rig, "mail", "mailer").await;
        // The connection is returned to the pool by a task.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(smtp.received("AUTH"), 1);
}

#[actix_web::test]
async fn a_connection_that_died_silently_is_degraded_once_and_then_replaced() {
    let smtp = started();
    let proxy = Proxy::start(smtp.port()).await;
    let rigs = [
        serve(Polled(mailer_at(proxy.port, Password::Right))),
        serve(Polled(blocking_at(proxy.port, Password::Right))),
    ];
    for rig in &rigs {
        assert_up(rig, "mail", "resource").await;
    }
    tokio::time::sleep(MAX_AGE).await;
    proxy.set(Fault::HalfOpen);
    let message = format!("an idle connection to smtp at 127.0.0.1:{} does not respond, a new one does", proxy.port);
    for rig in &rigs {
        assert_degraded(rig, "mail", "resource", &message).await;
        tokio::time::sleep(MAX_AGE).await;
        assert_up(rig, "mail", "resource").await;
    }
}

#[actix_web::test]
async fn several_connections_that_died_silently_are_replaced_while_the_transport_works() {
    let smtp = started();
    let proxy = Proxy::start(smtp.port()).await;
    let mailer = mailer_at(proxy.port, Password::Right);
    let connected = futures_util::future::join_all((0..4).map(|_| mailer.test_connection())).await;
    assert!(connected.into_iter().all(Result::unwrap));
    let blocking = blocking_at(proxy.port, Password::Right);
    let connect = |_| {
        let transport = blocking.clone();
        actix_web::web::block(move || transport.test_connection().unwrap())
    };
    let connected = futures_util::future::join_all((0..3).map(connect)).await;
    assert!(connected.into_iter().all(Result::unwrap));
    let rigs = [serve(Polled(mailer)), serve(Polled(blocking))];
    for rig in &rigs {
        assert_up(rig, "mail", "resource").await;
    }
    proxy.set(Fault::HalfOpen);
    tokio::time::sleep(MAX_AGE).await;
    for rig in &rigs {
        eventually("it is up", || async { rig.health().await.status == 200 }).await;
        assert_recovers(rig, "mail", "resource").await;
    }
}

/// Sends a mail. Returns the server's response to it.
async fn send(mailer: &Mailer) -> Result<Response, lettre::transport::smtp::Error> {
    let address = |name: &str| Address::new(name, "example.com").unwrap();
    let envelope = Envelope::new(Some(address("orders")), vec![address("customer")]).unwrap();
    mailer.send_raw(&envelope, b"Subject: Order\r\n\r\nThank you").await
}

#[actix_web::test]
async fn the_response_of_a_dropped_run_is_not_read_as_that_of_a_mail() {
    let smtp = started();
    smtp.delay_noop();
    let mailer = mailer(&smtp, Password::Right);
    let session = mailer.session().unwrap();
    // On new connections, so each NOOP is that of the run.
    let dropped = tokio::time::timeout(Duration::from_millis(500), session.probe()).await;
    assert!(dropped.is_err(), "{dropped:?}");
    // A second one is sent while the first is silent.
    let noops = smtp.received("NOOP");
    assert!((1..=2).contains(&noops) && noops == smtp.received("AUTH"), "{noops}");
    for mails in 1..=3 {
        // Not 354, the response to the command before.
        assert_eq!(send(&mailer).await.unwrap().code().to_string(), "250");
        assert_eq!(smtp.received("DATA"), mails);
    }
}

#[actix_web::test]
async fn a_transport_that_was_shut_down_is_down() {
    let smtp = started();
    let mailer = mailer(&smtp, Password::Right);
    mailer.shutdown().await;
    let error = mailer.probe().await.unwrap_err();
    assert_eq!(error.kind(), ProbeErrorKind::Unreachable);
}

#[actix_web::test]
async fn the_class_of_an_error_survives_a_check_of_the_users() {
    let smtp = started();
    let rejected = send(&mailer(&smtp, Password::Wrong)).await.unwrap_err();
    assert_eq!(ProbeError::from(rejected).kind(), ProbeErrorKind::Rejected);
    let stopped = Smtp::prepared();
    let refused = send(&mailer(&stopped, Password::Right)).await.unwrap_err();
    let error = anyhow::Error::from(refused).context("while a mail is sent");
    assert_eq!(ProbeError::from_error(error).kind(), ProbeErrorKind::Unreachable);
}
