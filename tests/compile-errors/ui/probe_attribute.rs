use health::HealthCheck;

struct Mailer;

#[derive(HealthCheck)]
struct State {
    #[health(probe)]
    mailer: Mailer,
    #[health(probe)]
    mailers: Option<Vec<Mailer>>,
}

fn main() {}
