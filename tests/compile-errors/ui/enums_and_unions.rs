use health::HealthCheck;

#[derive(HealthCheck)]
enum Storage {
    Local,
    Remote(sqlx::PgPool),
}

#[derive(HealthCheck)]
union Bits {
    a: u32,
    b: f32,
}

fn state(storage: Storage) -> impl HealthCheck {
    storage
}

fn main() {}
