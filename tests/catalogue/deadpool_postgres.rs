//! `deadpool_postgres::Pool`.

use std::{any::Any, time::Duration};

use deadpool_postgres::{Manager, Pool, Runtime};
use health::{Probe as _, ProbeErrorKind};
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};

use super::sqlx::{connections_of_postgres, statements, statements_are_counted};
use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, of_server, serve},
    common::{
        PASSWORD, eventually,
        responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked},
        servers::{FaultInjection as _, Kind, Server},
    },
    pools::{Pooled, close_all_of_postgres, pools},
};

pub(crate) struct Deadpool;

acceptance!(pool, Deadpool);
pools!(as_a_pool, Deadpool);

impl Backend for Deadpool {
    type Resource = Pool;

    of_server!(statements_are_counted(), statements, connections_of_postgres);

    async fn open(server: &Server, password: Password) -> Result<Pool, Unsupported> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        Ok(pool(&server.url_with(password)))
    }

    fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message(Self::refused(server)), "Connection refused")
    }

    fn rejected(server: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        let message = format!("postgres at 127.0.0.1:{} denied access", server.port());
        Ok((ExpectedMessage::Message(message), "password authentication failed"))
    }

    async fn saturate(pool: &Pool) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Ok((Box::new([pool.get().await.unwrap(), pool.get().await.unwrap()]), 2))
    }
}

impl Pooled for Deadpool {
    async fn open_at(server: &Server, port: u16) -> Pool {
        pool(&server.url_at(port))
    }

    fn refused(server: &Server) -> String {
        format!("unable to connect to postgres at 127.0.0.1:{}", server.port())
    }

    async fn close_all(server: &Server) {
        close_all_of_postgres(server).await;
    }
}

fn pool(url: &str) -> Pool {
    let manager = Manager::new(url.parse::<Config>().unwrap(), NoTls);
    Pool::builder(manager).max_size(2).runtime(Runtime::Tokio1).build().unwrap()
}

/// A server with a maximum of five connections.
pub(crate) fn small() -> Server {
    let args = ["max_connections=5", "superuser_reserved_connections=0", "max_wal_senders=0"];
    Server::start_with(Kind::Postgres, &args.map(|arg| ["-c", arg]).concat())
}

/// Clients with one connection each.
pub(crate) async fn clients(server: &Server, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(connected(server).await.unwrap());
    }
    clients
}

async fn connected(server: &Server) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await?;
    actix_web::rt::spawn(connection);
    Ok(client)
}

#[actix_web::test]
async fn a_server_that_is_full_is_degraded_while_the_pool_has_connections_and_down_without_any() {
    let server = small();
    let pool = pool(&server.url());
    let held = pool.get().await.unwrap();
    let others = clients(&server, 4).await;
    let rig = serve(pool);
    let message = format!("postgres at 127.0.0.1:{} accepts no more connections", server.port());
    let response = assert_degraded(&rig, "database", "resource", &message).await;
    assert_not_leaked(&rig, &response, &["too many clients"]).await;

    // The pool loses its connection, and another client takes the slot.
    drop(deadpool_postgres::Object::take(held));
    let other = loop {
        match connected(&server).await {
            Ok(other) => break other,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&rig, "database", "resource", &message).await;
    drop((others, other));
    eventually("it is up", || async { rig.health().await.json()["status"] == "UP" }).await;
}

#[actix_web::test]
async fn a_pool_that_is_all_in_use_on_a_server_that_is_full_is_degraded() {
    let server = small();
    let pool = pool(&server.url());
    let _held = Deadpool::saturate(&pool).await.unwrap();
    let _others = clients(&server, 3).await;
    assert_degraded(&serve(pool), "database", "resource", "connection pool exhausted (2 of 2 in use)").await;
}

#[actix_web::test]
async fn a_missing_password_and_a_server_without_tls_are_refusals() {
    let server = Server::start(Kind::Postgres);
    let message = format!("postgres at 127.0.0.1:{} denied access", server.port());
    for (url, driver) in [
        (server.url().replace(&format!(":{PASSWORD}@"), "@"), "password missing"),
        (format!("{}?sslmode=require", server.url()), "TLS"),
        (server.url().replace("/canarybase", "/canarynobase"), "does not exist"),
    ] {
        let rig = serve(pool(&url));
        let response = assert_down(&rig, "database", "resource", &message).await;
        assert_not_leaked(&rig, &response, &[driver]).await;
    }
}

#[actix_web::test]
async fn a_connection_whose_query_was_dropped_is_closed() {
    let mut server = Deadpool::prepare();
    server.restart();
    let pool = pool(&server.url());
    pool.probe().await.unwrap();
    assert_eq!(pool.status().size, 1);
    server.freeze();
    timeout(Duration::from_millis(100), pool.probe()).await.unwrap_err();
    assert_eq!(pool.status().size, 0, "it is not given back");
}

#[actix_web::test]
async fn a_check_of_the_users_own_keeps_the_class_of_the_pools_errors() {
    async fn probe(pool: &Pool) -> Result<(), health::ProbeError> {
        pool.get().await?.batch_execute("SELECT 1").await?;
        Ok(())
    }

    let server = Deadpool::prepare();
    let error = probe(&pool(&server.url())).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ProbeErrorKind::Unreachable, "unable to connect".to_owned()));
    let closed = pool(&server.url());
    closed.close();
    assert_eq!(probe(&closed).await.unwrap_err().kind(), ProbeErrorKind::Failed);
}
