//! `deadpool_redis::Pool`.

use std::{any::Any, time::Duration};

use deadpool_redis::{Config, Pool, Runtime};
use health::Probe as _;
use redis::Client;
use tokio::time::timeout;

use super::redis::{connections_of_redis, values_written};
use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, of_server, serve},
    common::{
        PASSWORD,
        responses::{assert_down, assert_not_leaked},
        servers::{FaultInjection as _, Kind, Server},
    },
    pools::{Pooled, close_all_of_redis, pools},
};

pub(crate) struct Deadpool;

acceptance!(pool, Deadpool);
pools!(as_a_pool, Deadpool);

impl Backend for Deadpool {
    type Resource = Pool;

    // The `PING` of the pool is not counted.
    of_server!(Server::prepared(Kind::Redis, &[]), values_written, connections_of_redis);

    async fn open(server: &Server, password: Password) -> Result<Pool, Unsupported> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        Ok(pool(server.url_with(password)))
    }

    fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message(Self::refused(server)), "Connection refused")
    }

    fn rejected(server: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        let message = format!("redis at 127.0.0.1:{} denied access", server.port());
        Ok((ExpectedMessage::Message(message), "uthentication failed"))
    }

    async fn saturate(pool: &Pool) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Ok((Box::new([pool.get().await.unwrap(), pool.get().await.unwrap()]), 2))
    }
}

impl Pooled for Deadpool {
    async fn open_at(server: &Server, port: u16) -> Pool {
        pool(server.url_at(port))
    }

    fn refused(server: &Server) -> String {
        format!("unable to connect to redis at 127.0.0.1:{}", server.port())
    }

    async fn close_all(server: &Server) {
        close_all_of_redis(server).await;
    }
}

fn pool(url: String) -> Pool {
    Config::from_url(url).builder().unwrap().max_size(2).runtime(Runtime::Tokio1).build().unwrap()
}

#[actix_web::test]
async fn a_replica_is_read_only() {
    let mut server = Server::prepared(Kind::Redis, &["--replicaof", "127.0.0.1", "1"]);
    server.restart();
    let rig = serve(pool(server.url()));
    let message = format!("redis at 127.0.0.1:{} is read-only", server.port());
    let response = assert_down(&rig, "cache", "resource", &message).await;
    assert_not_leaked(&rig, &response, &["read only replica"]).await;
}

#[actix_web::test]
async fn a_connection_whose_query_was_dropped_is_closed() {
    let mut server = Deadpool::prepare();
    server.restart();
    let pool = pool(server.url());
    pool.probe().await.unwrap();
    assert_eq!(pool.status().size, 1);
    // The pool's `PING` gets a response, and the query of the probe does not.
    let mut admin = Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("CLIENT").arg(&["PAUSE", "5000", "WRITE"]).query_async(&mut admin).await.unwrap();
    timeout(Duration::from_millis(100), pool.probe()).await.unwrap_err();
    assert_eq!(pool.status().size, 0, "it is not given back");
}
