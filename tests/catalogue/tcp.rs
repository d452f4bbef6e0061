//! `probes::tcp::Connect`, against a server in the test's process.
//!
//! The acceptance suite applies without a frozen server (the system accepts its connections, which a separate test covers), wrong
//! credentials, saturation and open connections.

use std::{any::Any, time::Duration};

use actix_web::web;
use health::{HealthCheck, probes::tcp::Connect};

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, acceptance},
    common::{eventually, responses::assert_up, servers::FaultInjection as _, test_server::TestServer},
    servers::stub::{Stub, Talk},
};

struct Tcp;

acceptance!(connect, Tcp);

impl Backend for Tcp {
    type Resource = Connect;
    type Server = Stub;

    fn prepare() -> Stub {
        Stub::prepared(Talk::Tcp)
    }

    async fn open(server: &Stub, _: Password) -> Result<Connect, Unsupported> {
        Ok(Connect::new(format!("127.0.0.1:{}", server.port())).unwrap())
    }

    fn unreachable(server: &Stub) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message(format!("unable to connect to 127.0.0.1:{}", server.port())), "Connection refused")
    }

    fn rejected(_: &Stub) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Err("a TCP connection has no credentials")
    }

    fn frozen(_: &Stub) -> Result<ExpectedMessage, Unsupported> {
        Err("the system accepts the connections of a frozen server, which a test of its own covers")
    }

    async fn saturate(_: &Connect) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err("it has no connections that could be used up")
    }

    async fn queries(server: &Stub) -> Result<u64, Unsupported> {
        // The system may have accepted a connection that the server has not accepted yet.
        let mut before = server.accepted();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = server.accepted();
            if now == before {
                return Ok(now);
            }
            before = now;
        }
    }

    async fn connections(_: &Stub) -> Result<usize, Unsupported> {
        Err("each run opens a connection and closes it: none is kept")
    }
}

#[derive(HealthCheck)]
struct State {
    mail: Connect,
}

fn serve(stub: &Stub) -> TestServer {
    let mail = Connect::new(format!("localhost:{}", stub.port())).unwrap();
    let state = web::Data::new(State { mail });
    TestServer::start(1, move |app| {
        app.service(health::scope().max_age(Duration::ZERO).state(&state));
    })
}

#[actix_web::test]
async fn a_frozen_server_is_up_for_the_system_accepts_for_it() {
    let stub = Stub::start(Talk::Tcp);
    let rig = serve(&stub);
    assert_up(&rig, "service", "mail").await;
    stub.freeze();
    assert_up(&rig, "service", "mail").await;
}

#[actix_web::test]
async fn a_name_with_several_addresses_is_up_if_one_of_them_accepts() {
    // `localhost` may be `::1` first, where nothing listens.
    let stub = Stub::start(Talk::Tcp);
    assert_up(&serve(&stub), "service", "mail").await;
}

#[actix_web::test]
async fn no_connection_stays_open() {
    let stub = Stub::start(Talk::Tcp);
    let rig = serve(&stub);
    for _ in 0..5 {
        assert_up(&rig, "service", "mail").await;
    }
    eventually("all are closed", || async { stub.accepted() == 5 && stub.open() == 0 }).await;
}

#[test]
fn an_invalid_address_is_an_error() {
    for address in ["", "mail.internal", "mail.internal:smtp", "tcp://mail.internal:25", "bob:pw@mail.internal:25"] {
        let error = Connect::new(address).unwrap_err();
        assert!(!error.to_string().contains("pw"));
    }
}
