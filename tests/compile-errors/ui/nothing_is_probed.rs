use health::HealthCheck;

#[derive(HealthCheck)]
struct State {
    title: String,
    numbers: Option<Vec<u8>>,
}

#[derive(HealthCheck)]
struct Title(String);

fn main() {}
