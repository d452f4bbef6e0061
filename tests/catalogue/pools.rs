//! Further tests for all pools.

use std::time::Duration;

use health::Probe;
use redis::Client;
use sqlx::{Connection as _, PgConnection};

use crate::{
    acceptance::{Backend, Password, Unsupported, serve},
    common::{
        eventually,
        far::Far,
        logs,
        responses::{MAX_AGE, assert_down, assert_not_leaked, assert_up},
        servers::{FaultInjection as _, Server},
    },
};

/// A pool of connections to a server.
pub(crate) trait Pooled: Backend<Server = Server> {
    /// Opens a pool with the right password, through the proxy on this port.
    async fn open_at(server: &Server, port: u16) -> Self::Resource;

    /// The message while the server is stopped.
    fn refused(server: &Server) -> String;

    /// Makes the server close all connections.
    async fn close_all(server: &Server);

    /// Why the pool keeps a silent connection, if it does.
    const KEEPS_SILENT: Option<Unsupported> = None;
}

/// Waits until a server is full ten times in a row, because it may still be closing connections from before.
pub(crate) async fn until_it_stays_full(mut is_full: impl AsyncFnMut() -> bool) {
    let mut in_a_row = 0;
    while in_a_row < 10 {
        in_a_row = if is_full().await { in_a_row + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn group<P: Pooled>() -> &'static str {
    <P::Resource as Probe>::GROUP
}

async fn started<P: Pooled>() -> (Server, P::Resource) {
    let mut server = P::prepare();
    server.restart();
    let resource = P::open(&server, Password::Right).await.unwrap();
    (server, resource)
}

pub(crate) async fn is_down_when_its_server_froze_while_all_of_it_was_in_use<P: Pooled>() {
    let (server, resource) = started::<P>().await;
    let held = P::saturate(&resource).await.unwrap();
    server.freeze();
    let rig = serve(resource);
    let response = assert_down(&rig, group::<P>(), "resource", "timed out after 800 ms").await;
    assert_not_leaked(&rig, &response, &[]).await;
    server.resume();
    drop(held);
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
}

pub(crate) async fn is_down_when_its_server_stopped_while_all_of_it_was_in_use<P: Pooled>() {
    let (mut server, resource) = started::<P>().await;
    let held = P::saturate(&resource).await.unwrap();
    server.stop();
    let rig = serve(resource);
    let response = assert_down(&rig, group::<P>(), "resource", &P::refused(&server)).await;
    assert_not_leaked(&rig, &response, &[]).await;
    drop(held);
}

pub(crate) async fn is_up_at_once_when_its_server_closed_idle_connections<P: Pooled>() {
    let (server, resource) = started::<P>().await;
    // The maximum number of connections is open and idle.
    drop(P::saturate(&resource).await.unwrap());
    let rig = serve(resource);
    assert_up(&rig, group::<P>(), "resource").await;
    P::close_all(&server).await;
    tokio::time::sleep(MAX_AGE).await;
    assert_up(&rig, group::<P>(), "resource").await;
}

pub(crate) async fn is_degraded_while_its_idle_connections_are_silent_and_new_ones_work<P: Pooled>() {
    let mut server = P::prepare();
    server.restart();
    let far = Far::start(server.port(), Duration::ZERO).await;
    let resource = P::open_at(&server, far.port).await;
    drop(P::saturate(&resource).await.unwrap());
    let rig = serve(resource);
    assert_up(&rig, group::<P>(), "resource").await;
    far.silence();
    tokio::time::sleep(MAX_AGE).await;
    let response = rig.health().await.json();
    assert_eq!(response["status"], "DEGRADED", "{response} {}", logs::text());
    let message = response["errors"][group::<P>()]["resource"].as_str().unwrap();
    assert!(
        message.starts_with("an idle connection to ") && message.ends_with(" does not respond, a new one does"),
        "{message}"
    );
    if let Some(why) = P::KEEPS_SILENT {
        println!("that it is up again is not shown: {why}");
        return;
    }
    // They are discarded, so that the pool works again.
    eventually("it is up", || async { rig.health().await.json()["status"] == "UP" }).await;
    assert!(logs::lines().iter().all(|line| !line.contains("is DOWN")), "{:#?}", logs::lines());
}

pub(crate) async fn opens_few_connections_outside_the_pool_if_its_server_is_far<P: Pooled>() {
    let mut server = P::prepare();
    server.restart();
    for delay in [80, 150, 250] {
        let far = Far::start(server.port(), Duration::from_millis(delay)).await;
        let rig = serve(P::open_at(&server, far.port).await);
        eventually("it is up", || async { rig.health().await.json()["status"] == "UP" }).await;
        tokio::time::sleep(MAX_AGE).await;
        assert_up(&rig, group::<P>(), "resource").await;
        let opened = far.opened();
        assert!(opened <= 3, "{delay} ms: {opened} connections");
        for _ in 0..6 {
            tokio::time::sleep(MAX_AGE).await;
            assert_up(&rig, group::<P>(), "resource").await;
        }
        assert_eq!(far.opened(), opened, "{delay} ms: a warm pool is probed on its own connections");
    }
}

/// Makes a PostgreSQL close all connections.
pub(crate) async fn close_all_of_postgres(server: &Server) {
    let mut admin = PgConnection::connect(&server.url()).await.unwrap();
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> \
                 pg_backend_pid()";
    sqlx::query(sql).execute(&mut admin).await.unwrap();
    admin.close().await.unwrap();
}

/// Makes a Redis close all connections.
pub(crate) async fn close_all_of_redis(server: &Server) {
    let mut admin = Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let kill = ["KILL", "TYPE", "normal", "SKIPME", "yes"];
    let closed: usize = redis::cmd("CLIENT").arg(&kill).query_async(&mut admin).await.unwrap();
    assert!(closed > 0, "there is a connection");
}

/// Declares the tests of a pool, in a module of its own.
macro_rules! pools {
    ($module:ident, $pool:ty: $($row:ident)*) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;

            $(
                #[actix_web::test]
                async fn $row() {
                    $crate::pools::$row::<$pool>().await;
                }
            )*
        }
    };
    ($module:ident, $pool:ty) => {
        $crate::pools::pools! { $module, $pool:
            is_down_when_its_server_froze_while_all_of_it_was_in_use
            is_down_when_its_server_stopped_while_all_of_it_was_in_use
            is_up_at_once_when_its_server_closed_idle_connections
            is_degraded_while_its_idle_connections_are_silent_and_new_ones_work
            opens_few_connections_outside_the_pool_if_its_server_is_far
        }
    };
}

pub(crate) use pools;
