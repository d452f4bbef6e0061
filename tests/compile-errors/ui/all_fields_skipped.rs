use health::HealthCheck;

#[derive(HealthCheck)]
struct Skipped {
    #[health(skip)]
    db: sqlx::PgPool,
}

#[derive(HealthCheck)]
struct Empty;

fn main() {}
