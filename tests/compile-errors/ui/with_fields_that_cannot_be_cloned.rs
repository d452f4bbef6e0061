use std::rc::Rc;

use health::HealthCheck;

struct Unclonable;

#[derive(HealthCheck)]
struct State {
    #[health(with = ok)]
    unclonable: Unclonable,
    #[health(with = ok)]
    of_one_thread: Rc<u8>,
}

async fn ok<T>(_: &T) -> Result<(), String> {
    Ok(())
}

fn main() {}
