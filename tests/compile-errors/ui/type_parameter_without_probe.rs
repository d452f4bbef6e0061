use std::sync::Arc;

use health::HealthCheck;

#[derive(HealthCheck)]
struct State<T> {
    #[health(probe)]
    repository: T,
    #[health(probe)]
    pool: Option<Arc<T>>,
}

fn is_checked(_: impl HealthCheck) {}

fn main() {
    is_checked(State { repository: String::new(), pool: None });
}
