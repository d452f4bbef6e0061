//! A service that people and machines look at: the page `/health/page`, metrics for Prometheus at `/health/metrics`, and the same values
//! as gauges of OpenTelemetry, which are written to the output here.
//!
//! It listens on `PORT` (8080). `OTEL_METRIC_EXPORT_INTERVAL` (60000) is the time between two exports, in milliseconds.

use std::{env, error::Error, time::Duration};

use actix_web::{App, HttpServer, web};
use health::{Check, HealthCheck, Status};
use opentelemetry::{
    KeyValue,
    metrics::{Meter, MeterProvider as _},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_stdout::MetricExporter;
use sqlx::SqlitePool;

#[derive(HealthCheck)]
struct AppState {
    #[health(name = "default")]
    db: SqlitePool,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let state = web::Data::new(AppState { db: SqlitePool::connect_lazy("sqlite::memory:")? });
    health::register(Check::new("queue", "orders", depth_of_orders).optional())?;

    let meters = SdkMeterProvider::builder().with_periodic_exporter(MetricExporter::default()).build();
    register_gauges(&meters.meter("health"), &state);

    let app = move || {
        App::new().app_data(state.clone()).route("/", web::get().to(index)).service(
            health::scope()
                .release(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
                // The gauges read results and run nothing, so the checks run in the background.
                .refresh(Duration::from_secs(5)),
        )
    };
    let port = env::var("PORT").unwrap_or_else(|_| "8080".to_owned()).parse()?;
    let server = HttpServer::new(app).bind(("127.0.0.1", port))?;
    let address = server.addrs()[0];
    println!(
        "listening on http://{address}; open http://{address}/health/page, and try: curl -i http://{address}/health/metrics"
    );
    server.run().await?;
    meters.shutdown()?;
    Ok(())
}

async fn index(state: web::Data<AppState>) -> String {
    format!("database connections: {}\n", state.db.size())
}

async fn depth_of_orders() -> Result<(), String> {
    let depth = 1204;
    // On the page, in `?details`, and the metric `health_check_observation`.
    health::observe("depth", depth);
    if depth < 10_000 { Ok(()) } else { Err(format!("{depth} orders are waiting")) }
}

/// Gauges of the latest results, which are read at each export. That runs no check.
fn register_gauges(meter: &Meter, state: &web::Data<AppState>) {
    let labels = |check: &health::Entry| {
        [KeyValue::new("group", check.group().to_owned()), KeyValue::new("name", check.name().to_owned())]
    };

    let data = state.clone();
    meter
        .u64_observable_gauge("health.check.up")
        .with_description("Whether the check is UP or DEGRADED (1) or DOWN (0).")
        .with_callback(move |gauge| {
            for check in health::snapshot(&data).checks() {
                gauge.observe(u64::from(check.status() != Status::Down), &labels(check));
            }
        })
        .build();

    let data = state.clone();
    meter
        .f64_observable_gauge("health.check.latency")
        .with_unit("s")
        .with_description("Duration of the latest run.")
        .with_callback(move |gauge| {
            for check in health::snapshot(&data).checks() {
                if let Some(details) = check.details() {
                    gauge.observe(details.latency.as_secs_f64(), &labels(check));
                }
            }
        })
        .build();
}
