//! `bb8::Pool<PostgresConnectionManager<_>>`.

use std::{any::Any, time::Duration};

use bb8::{Builder, Pool};
use bb8_postgres::PostgresConnectionManager;
use health::{Probe as _, ProbeError, ProbeErrorKind};
use tokio::time::timeout;
use tokio_postgres::NoTls;

use super::{
    deadpool_postgres::{clients, small},
    sqlx::{connections_of_postgres, statements, statements_are_counted},
};
use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, of_server, serve},
    common::{
        PASSWORD,
        responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_up},
        servers::{FaultInjection as _, Kind, Server},
    },
    pools::{Pooled, close_all_of_postgres, pools},
};

type Manager = PostgresConnectionManager<NoTls>;

struct Bb8;

acceptance!(pool, Bb8);
pools!(as_a_pool, Bb8);

impl Backend for Bb8 {
    type Resource = Pool<Manager>;

    // The empty query of the pool is not counted.
    of_server!(statements_are_counted(), statements, connections_of_postgres);

    async fn open(server: &Server, password: Password) -> Result<Self::Resource, Unsupported> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        Ok(pool(&server.url_with(password)))
    }

    fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message(Self::refused(server)), "Connection refused")
    }

    fn rejected(_: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Ok((ExpectedMessage::Message("postgres denied access".to_owned()), "password authentication failed"))
    }

    async fn saturate(pool: &Self::Resource) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Ok((Box::new([pool.get_owned().await.unwrap(), pool.get_owned().await.unwrap()]), 2))
    }
}

impl Pooled for Bb8 {
    async fn open_at(server: &Server, port: u16) -> Self::Resource {
        pool(&server.url_at(port))
    }

    fn refused(_: &Server) -> String {
        "unable to connect to postgres".to_owned()
    }

    async fn close_all(server: &Server) {
        close_all_of_postgres(server).await;
    }

    const KEEPS_SILENT: Option<Unsupported> = Some("tokio-postgres has no method that closes a silent connection");
}

fn manager(url: &str) -> Manager {
    PostgresConnectionManager::new(url.parse().unwrap(), NoTls)
}

fn builder() -> Builder<Manager> {
    Pool::builder().max_size(2)
}

fn pool(url: &str) -> Pool<Manager> {
    builder().build_unchecked(manager(url))
}

#[actix_web::test]
async fn a_server_that_is_full_is_degraded_while_the_pool_has_a_connection_and_down_without_any() {
    let server = small();
    let (with, without) = (pool(&server.url()), pool(&server.url()));
    let _held = with.get_owned().await.unwrap();
    let _others = clients(&server, 4).await;
    let message = "postgres accepts no more connections";
    let rig = serve(with);
    let response = assert_degraded(&rig, "database", "resource", message).await;
    assert_not_leaked(&rig, &response, &["too many clients"]).await;
    assert_down(&serve(without), "database", "resource", message).await;
}

#[actix_web::test]
async fn a_pool_that_is_all_in_use_on_a_server_that_is_full_is_degraded() {
    let server = small();
    let pool = pool(&server.url());
    let _held = Bb8::saturate(&pool).await.unwrap();
    let _others = clients(&server, 3).await;
    assert_degraded(&serve(pool), "database", "resource", "connection pool exhausted (2 of 2 in use)").await;
}

#[actix_web::test]
async fn a_missing_password_and_a_server_without_tls_are_refusals() {
    let server = Server::start(Kind::Postgres);
    for (url, driver) in [
        (server.url().replace(&format!(":{PASSWORD}@"), "@"), "password missing"),
        (format!("{}?sslmode=require", server.url()), "TLS"),
        (server.url().replace("/canarybase", "/canarynobase"), "does not exist"),
    ] {
        let rig = serve(pool(&url));
        let response = assert_down(&rig, "database", "resource", "postgres denied access").await;
        assert_not_leaked(&rig, &response, &[driver]).await;
    }
}

#[actix_web::test]
async fn a_pool_without_tests_is_up_at_once_when_its_server_closed_idle_connections() {
    let mut server = Bb8::prepare();
    server.restart();
    let pool = builder().test_on_check_out(false).build_unchecked(manager(&server.url()));
    drop(Bb8::saturate(&pool).await.unwrap());
    let rig = serve(pool);
    assert_up(&rig, "database", "resource").await;
    Bb8::close_all(&server).await;
    tokio::time::sleep(MAX_AGE).await;
    assert_up(&rig, "database", "resource").await;
}

#[actix_web::test]
async fn a_connection_whose_query_was_dropped_stays_in_the_pool_and_works_again_with_its_server() {
    let mut server = Bb8::prepare();
    server.restart();
    let pool = builder().test_on_check_out(false).build_unchecked(manager(&server.url()));
    pool.probe().await.unwrap();
    server.freeze();
    timeout(Duration::from_millis(100), pool.probe()).await.unwrap_err();
    server.resume();
    pool.probe().await.unwrap();
    let state = pool.state();
    assert_eq!((state.connections, state.idle_connections), (1, 1));
}

#[actix_web::test]
async fn a_check_of_the_users_own_keeps_the_class_of_the_pools_errors() {
    let server = Bb8::prepare();
    let pool = builder().connection_timeout(Duration::from_millis(100)).build_unchecked(manager(&server.url()));
    let error = ProbeError::from(pool.get().await.unwrap_err());
    assert_eq!(error.kind(), ProbeErrorKind::TimedOut);
    let error = ProbeError::from(pool.dedicated_connection().await.unwrap_err());
    assert_eq!((error.kind(), error.to_string()), (ProbeErrorKind::Unreachable, "unable to connect".to_owned()));
}
