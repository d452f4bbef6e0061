//! `bb8::Pool<RedisConnectionManager>`.

use std::any::Any;

use bb8::Pool;
use bb8_redis::RedisConnectionManager;

use super::redis::{connections_of_redis, values_written};
use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, of_server, serve},
    common::{
        PASSWORD,
        responses::{MAX_AGE, assert_down, assert_not_leaked, assert_up},
        servers::{FaultInjection as _, Kind, Server},
    },
    pools::{Pooled, close_all_of_redis, pools},
};

pub(crate) struct Bb8;

acceptance!(pool, Bb8);
pools!(as_a_pool, Bb8);

impl Backend for Bb8 {
    type Resource = Pool<RedisConnectionManager>;

    // The `PING` of the pool is not counted.
    of_server!(Server::prepared(Kind::Redis, &[]), values_written, connections_of_redis);

    async fn open(server: &Server, password: Password) -> Result<Self::Resource, Unsupported> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        Ok(pool(server.url_with(password)))
    }

    fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message(Self::refused(server)), "Connection refused")
    }

    fn rejected(_: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Ok((ExpectedMessage::Message("redis denied access".to_owned()), "uthentication failed"))
    }

    async fn saturate(pool: &Self::Resource) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Ok((Box::new([pool.get_owned().await.unwrap(), pool.get_owned().await.unwrap()]), 2))
    }
}

impl Pooled for Bb8 {
    async fn open_at(server: &Server, port: u16) -> Self::Resource {
        pool(server.url_at(port))
    }

    fn refused(_: &Server) -> String {
        "unable to connect to redis".to_owned()
    }

    async fn close_all(server: &Server) {
        close_all_of_redis(server).await;
    }
}

fn pool(url: String) -> Pool<RedisConnectionManager> {
    Pool::builder().max_size(2).build_unchecked(RedisConnectionManager::new(url).unwrap())
}

#[actix_web::test]
async fn a_replica_is_read_only() {
    let mut server = Server::prepared(Kind::Redis, &["--replicaof", "127.0.0.1", "1"]);
    server.restart();
    let rig = serve(pool(server.url()));
    let response = assert_down(&rig, "cache", "resource", "redis is read-only").await;
    assert_not_leaked(&rig, &response, &["read only replica"]).await;
}

#[actix_web::test]
async fn a_pool_without_tests_never_replaces_connections_that_its_server_closed_and_stays_down() {
    let mut server = Bb8::prepare();
    server.restart();
    let manager = RedisConnectionManager::new(server.url()).unwrap();
    let pool = Pool::builder().max_size(2).test_on_check_out(false).build_unchecked(manager);
    drop(Bb8::saturate(&pool).await.unwrap());
    let rig = serve(pool.clone());
    assert_up(&rig, "cache", "resource").await;
    Bb8::close_all(&server).await;
    for _ in 0..3 {
        tokio::time::sleep(MAX_AGE).await;
        assert_down(&rig, "cache", "resource", "unable to connect to redis").await;
        let mut connection = pool.get().await.unwrap();
        let response: redis::RedisResult<()> = redis::cmd("PING").query_async(&mut *connection).await;
        response.expect_err("nor does the application get on");
    }
}
