//! Ten kinds of resources in one state. Each is probed because of its type, without an attribute. Environment variables override
//! their default addresses.

use std::{env, error::Error, time::Duration};

use actix_web::{App, HttpServer, web};
use health::{HealthCheck, probes::reqwest::Get};
use rumqttc::{AsyncClient, MqttOptions};

#[derive(HealthCheck)]
struct AppState {
    orders: sqlx::PgPool,
    legacy: sqlx::MySqlPool,
    reports: deadpool_postgres::Pool,
    sessions: redis::aio::ConnectionManager,
    limits: deadpool_redis::Pool,
    pages: memcache::exp::AsyncMemcache,
    events: async_nats::Client,
    jobs: deadpool_lapin::Pool,
    sensors: AsyncClient,
    payments: Get,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // For the TLS of reqwest and async-nats.
    rustls::crypto::ring::default_provider().install_default().expect("it is the first one");
    let url = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let state = web::Data::new(AppState {
        orders: sqlx::PgPool::connect_lazy(&url("ORDERS", "postgres://localhost/orders"))?,
        legacy: sqlx::MySqlPool::connect_lazy(&url("LEGACY", "mysql://localhost/legacy"))?,
        reports: {
            let config = url("REPORTS", "postgres://localhost/reports").parse()?;
            let manager = deadpool_postgres::Manager::new(config, tokio_postgres::NoTls);
            deadpool_postgres::Pool::builder(manager).build()?
        },
        sessions: {
            // Tries to reconnect every second. By default the delay between attempts grows without a limit.
            let config = redis::aio::ConnectionManagerConfig::new().set_max_delay(Duration::from_secs(1));
            let client = redis::Client::open(url("SESSIONS", "redis://localhost"))?;
            redis::aio::ConnectionManager::new_lazy_with_config(client, config)?
        },
        limits: deadpool_redis::Config::from_url(url("LIMITS", "redis://localhost:6380")).create_pool(None)?,
        pages: memcache::exp::AsyncMemcache::connect([url("PAGES", "localhost:11211")]).await?,
        events: {
            let url: url::Url = url("EVENTS", "nats://localhost").parse()?;
            let (user, password) = (url.username(), url.password().unwrap_or_default());
            let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
            options.retry_on_initial_connect().connect(url.as_str()).await?
        },
        jobs: {
            let url = url("JOBS", "amqp://localhost");
            let config = deadpool_lapin::Config { url: Some(url), ..Default::default() };
            config.create_pool(deadpool_lapin::lapin::ConnectionProperties::default, deadpool_lapin::Runtime::Tokio1)?
        },
        sensors: connect_to_mqtt(&url("SENSORS", "mqtt://localhost:1883").parse()?),
        payments: Get::new(reqwest::Client::new(), url("PAYMENTS", "http://localhost:8081/health/live").parse()?),
    });
    let app = move || App::new().app_data(state.clone()).service(health::scope());
    let server = HttpServer::new(app).bind(("127.0.0.1", 0))?;
    println!("listening on http://{0}; try: curl -i http://{0}/health", server.addrs()[0]);
    Ok(server.run().await?)
}

/// Creates the client and spawns its event loop.
fn connect_to_mqtt(url: &url::Url) -> AsyncClient {
    let broker = (url.host_str().unwrap_or_default(), url.port().unwrap_or(1883));
    let mut options = MqttOptions::new("everything", broker);
    options.set_credentials(url.username(), url.password().unwrap_or_default().to_owned());
    let (client, mut events) = AsyncClient::builder(options).capacity(10).build();
    actix_web::rt::spawn(async move {
        loop {
            if events.poll().await.is_err() {
                actix_web::rt::time::sleep(Duration::from_millis(500)).await;
            }
        }
    });
    client
}
