use health::HealthCheck;

#[derive(HealthCheck)]
struct State(sqlx::PgPool, String);

fn main() {}
