//! `redis::aio::ConnectionManager`: what else is asked of it, and of the other handles of redis, is in `tests/caches.rs`.

use std::{any::Any, time::Duration};

use redis::{
    Client,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use crate::{
    acceptance::{Backend, Not, Password, Told, WRONG, acceptance},
    common::{
        PASSWORD,
        servers::{Kind, Server},
    },
};

struct Manager;

acceptance!(manager, Manager);

impl Backend for Manager {
    type Resource = ConnectionManager;
    type Server = Server;

    fn prepare() -> Server {
        Server::prepared(Kind::Redis, &[])
    }

    async fn open(server: &Server, password: Password) -> Result<ConnectionManager, Not> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        // One whose pauses between attempts don't grow: what the suite measures is the check.
        let config =
            ConnectionManagerConfig::new().set_max_delay(Duration::from_millis(100)).set_number_of_retries(1000);
        let client = Client::open(server.url_with(password)).unwrap();
        Ok(ConnectionManager::new_lazy_with_config(client, config).unwrap())
    }

    fn unreachable(server: &Server) -> (Told, &'static str) {
        let sentence = format!("unable to connect to redis at 127.0.0.1:{}", server.port());
        (Told::Sentence(sentence), "Connection refused")
    }

    fn rejected(_: &Server) -> Result<(Told, &'static str), Not> {
        // It tries again and again before it says what it was.
        Ok((Told::Sentence("no answer within 800 ms".to_owned()), "health check cache.resource is DOWN"))
    }

    fn frozen(server: &Server) -> Told {
        // The driver gives up after 500 ms by itself on a connection that it has, and not on one that it opens.
        let sentence = format!("no answer from redis at 127.0.0.1:{}", server.port());
        Told::OneOf(vec![sentence, "no answer within 800 ms".to_owned()])
    }

    async fn saturate(_: &ConnectionManager) -> Result<(Box<dyn Any>, u32), Not> {
        Err("a manager shares one connection among all who ask: there is nothing to use up")
    }

    async fn questions(server: &Server) -> Result<u64, Not> {
        values_written(server).await
    }

    async fn connections(server: &Server) -> Result<usize, Not> {
        connections_of_redis(server).await
    }
}

/// How many values a Redis was told to keep.
pub(crate) async fn values_written(server: &Server) -> Result<u64, Not> {
    let statistics = asked(server, "INFO", "commandstats").await;
    let line = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls="));
    Ok(line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap()))
}

/// How many connections a Redis has, but for the one that asks.
pub(crate) async fn connections_of_redis(server: &Server) -> Result<usize, Not> {
    Ok(asked(server, "CLIENT", "LIST").await.lines().count() - 1)
}

async fn asked(server: &Server, command: &str, argument: &str) -> String {
    let client = Client::open(server.url()).unwrap();
    let mut admin = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd(command).arg(argument).query_async(&mut admin).await.unwrap()
}
