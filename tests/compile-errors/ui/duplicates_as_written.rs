use health::HealthCheck;
use sqlx::PgPool;

#[derive(HealthCheck)]
struct State {
    #[health(with = ping)]
    mail: String,
    #[health(with = ping, name = "mail")]
    other: String,
    #[health(group = "service", name = "mail")]
    db: PgPool,
}

async fn ping(_: &String) -> Result<(), String> {
    Ok(())
}

fn main() {}
