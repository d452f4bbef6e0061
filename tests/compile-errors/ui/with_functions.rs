//! Functions with another signature than `with` takes.
use health::HealthCheck;

#[derive(HealthCheck)]
struct State {
    #[health(with = no_such_function)]
    missing: String,
    #[health(with = of_another_type)]
    other: String,
    #[health(with = not_async)]
    blocking: String,
    #[health(with = number)]
    number: String,
}

async fn of_another_type(_: &u8) -> Result<(), String> {
    Ok(())
}

fn not_async(_: &String) -> Result<(), String> {
    Ok(())
}

async fn number(_: &String) -> Result<u8, String> {
    Ok(1)
}

fn main() {}
