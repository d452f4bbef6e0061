//! Functions whose errors are neither `Send` nor an `std::error::Error`.
use health::HealthCheck;

struct Failed;

#[derive(HealthCheck)]
struct State {
    #[health(with = checks::response)]
    response: String,
    #[health(with = checks::own)]
    own: String,
}

mod checks {
    pub async fn response(_: &String) -> actix_web::Result<()> {
        Err(actix_web::error::ErrorInternalServerError("down"))
    }

    pub async fn own(_: &String) -> Result<(), super::Failed> {
        Err(super::Failed)
    }
}

fn main() {}
