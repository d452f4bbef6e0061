//! `sqlx::Pool` of PostgreSQL: what else is asked of it, and of MariaDB, is in `tests/databases.rs`.

use std::any::Any;

use sqlx::{Connection as _, PgConnection, PgPool, postgres::PgPoolOptions};

use crate::{
    acceptance::{Backend, Not, Password, Told, WRONG, acceptance},
    common::{
        PASSWORD,
        servers::{Kind, Server},
    },
};

struct Postgres;

acceptance!(postgres, Postgres);

impl Backend for Postgres {
    type Resource = PgPool;
    type Server = Server;

    fn prepare() -> Server {
        statements_are_counted()
    }

    async fn open(server: &Server, password: Password) -> Result<PgPool, Not> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        Ok(PgPoolOptions::new().max_connections(2).connect_lazy(&server.url_with(password)).unwrap())
    }

    fn unreachable(server: &Server) -> (Told, &'static str) {
        let sentence = format!("unable to connect to postgres at 127.0.0.1:{}", server.port());
        (Told::Sentence(sentence), "Connection refused")
    }

    fn rejected(server: &Server) -> Result<(Told, &'static str), Not> {
        let sentence = format!("postgres at 127.0.0.1:{} refused access", server.port());
        Ok((Told::Sentence(sentence), "password authentication failed"))
    }

    async fn saturate(pool: &PgPool) -> Result<(Box<dyn Any>, u32), Not> {
        let held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        Ok((Box::new(held), 2))
    }

    async fn questions(server: &Server) -> Result<u64, Not> {
        statements(server).await
    }

    async fn connections(server: &Server) -> Result<usize, Not> {
        connections_of_postgres(server).await
    }
}

/// A PostgreSQL that counts statements.
pub(crate) fn statements_are_counted() -> Server {
    Server::prepared(Kind::Postgres, &["-c", "shared_preload_libraries=pg_stat_statements"])
}

/// How often `SELECT 1` was run on such a server.
pub(crate) async fn statements(server: &Server) -> Result<u64, Not> {
    let mut admin = PgConnection::connect(&server.url()).await.unwrap();
    sqlx::query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").execute(&mut admin).await.unwrap();
    let asked = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements WHERE query = 'SELECT $1'";
    let count: i64 = sqlx::query_scalar(asked).fetch_one(&mut admin).await.unwrap();
    admin.close().await.unwrap();
    Ok(count.try_into().unwrap())
}

/// How many connections a PostgreSQL has, but for the one that asks.
pub(crate) async fn connections_of_postgres(server: &Server) -> Result<usize, Not> {
    let mut admin = PgConnection::connect(&server.url()).await.unwrap();
    let asked =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let count: i64 = sqlx::query_scalar(asked).fetch_one(&mut admin).await.unwrap();
    admin.close().await.unwrap();
    Ok(count.try_into().unwrap())
}
