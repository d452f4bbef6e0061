use health::HealthCheck;

#[derive(HealthCheck)]
#[health(strict)]
struct State {
    db: sqlx::PgPool,
    title: String,
}

fn main() {}
