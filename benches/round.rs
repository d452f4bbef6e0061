//! A request that probes PostgreSQL and Redis, compared with a handler that runs the same two queries on warm connections.

use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use health::HealthCheck;
use redis::aio::MultiplexedConnection;
use sqlx::{Executor as _, PgPool, postgres::PgPoolOptions};

use crate::{
    Measured, median,
    response::Connection,
    serve,
    servers::{Kind, Server},
};

#[derive(HealthCheck)]
struct State {
    db: PgPool,
    cache: MultiplexedConnection,
}

/// A handler without limits, error messages and panic handling.
async fn by_hand(state: web::Data<State>) -> HttpResponse {
    let database = async {
        let mut connection = state.db.acquire().await?;
        connection.execute(sqlx::raw_sql("SELECT 1")).await
    };
    let mut cache = state.cache.clone();
    let cache = async {
        redis::pipe()
            .cmd("SET")
            .arg("by-hand")
            .arg(1)
            .arg("PX")
            .arg(10_000)
            .ignore()
            .cmd("GET")
            .arg("by-hand")
            .query_async::<(u64,)>(&mut cache)
            .await
    };
    match tokio::join!(database, cache) {
        (Ok(_), Ok(_)) => HttpResponse::Ok().finish(),
        _ => HttpResponse::ServiceUnavailable().finish(),
    }
}

pub(crate) async fn measure() -> Vec<Measured> {
    let (postgres, redis) = (Server::start(Kind::Postgres), Server::start(Kind::Redis));
    let client = redis::Client::open(redis.url()).unwrap();
    // By default, the pool tests a connection with a further round trip before the handler gets it. Not here, to be fair.
    let db = PgPoolOptions::new().test_before_acquire(false).connect(&postgres.url()).await.unwrap();
    let state = web::Data::new(State { db, cache: client.get_multiplexed_async_connection().await.unwrap() });
    let (address, handle) = serve(move |app| {
        app.app_data(state.clone())
            .route("/by-hand", web::get().to(by_hand))
            .service(health::scope().max_age(Duration::ZERO));
    });

    let mut connection = Connection::open(address).await;
    let mut ratios = Vec::new();
    let mut latencies = (Vec::new(), Vec::new());
    for path in ["/health", "/by-hand"] {
        latency(&mut connection, path, 200).await;
    }
    for _ in 0..15 {
        let (round, by_hand) =
            (latency(&mut connection, "/health", 200).await, latency(&mut connection, "/by-hand", 200).await);
        ratios.push(round / by_hand);
        latencies.0.push(round);
        latencies.1.push(by_hand);
    }
    let ratio = median(ratios);
    handle.stop(false).await;
    vec![Measured {
        what: "a request that probes PostgreSQL and Redis ÷ one that runs the same queries with `join!`".into(),
        value: format!("{ratio:.2} ({:.0} µs, {:.0} µs)", median(latencies.0), median(latencies.1)),
        bound: "at most 1.10".into(),
        holds: Some(ratio <= 1.10),
    }]
}

/// The median time of some sequential requests, in microseconds.
async fn latency(connection: &mut Connection, path: &str, times: usize) -> f64 {
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let started = Instant::now();
        connection.request(path).await;
        taken.push(started.elapsed().as_secs_f64() * 1e6);
        // The connection of the probe is returned to its pool after the response.
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    median(taken)
}
