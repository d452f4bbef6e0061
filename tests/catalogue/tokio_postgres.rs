//! `Arc<tokio_postgres::Client>`.

use std::{any::Any, sync::Arc};

use tokio_postgres::{Client, NoTls};

use super::sqlx::{connections_of_postgres, statements, statements_are_counted};
use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, acceptance, of_server, serve},
    common::{
        eventually,
        responses::{MAX_AGE, assert_down, assert_recovers, assert_up},
        servers::{FaultInjection as _, Server},
    },
};

struct Connected;

acceptance!(client, Connected);

const ONLY_CONNECTED: Unsupported = "a client exists only once it is connected, and that is what fails";

impl Backend for Connected {
    type Resource = Arc<Client>;

    of_server!(statements_are_counted(), statements, connections_of_postgres);

    async fn open(server: &Server, password: Password) -> Result<Arc<Client>, Unsupported> {
        assert!(password == Password::Right);
        let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.map_err(|_| ONLY_CONNECTED)?;
        actix_web::rt::spawn(connection);
        Ok(Arc::new(client))
    }

    fn unreachable(_: &Server) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message("unable to connect to postgres".to_owned()), "connection closed")
    }

    fn rejected(_: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Err(ONLY_CONNECTED)
    }

    async fn saturate(_: &Arc<Client>) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err("a client has one connection, which executes its queries in order")
    }

    const NEVER_RECONNECTS: Option<Unsupported> =
        Some("a client whose connection is closed has no way to open another");
}

#[actix_web::test]
async fn a_client_behind_a_long_statement_is_down_until_that_is_over() {
    let mut server = Connected::prepare();
    server.restart();
    let client = Connected::open(&server, Password::Right).await.unwrap();
    let rig = serve(Arc::clone(&client));
    assert_up(&rig, "database", "resource").await;
    let busy = actix_web::rt::spawn({
        let client = Arc::clone(&client);
        async move { client.batch_execute("SELECT pg_sleep(2)").await }
    });
    let sleeps = || async {
        let (admin, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
        actix_web::rt::spawn(connection);
        let sql = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        !admin.query(sql, &[]).await.unwrap().is_empty()
    };
    eventually("the statement runs", sleeps).await;
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&rig, "database", "resource", "timed out after 800 ms").await;
    busy.await.unwrap().unwrap();
    assert_recovers(&rig, "database", "resource").await;
}
