use actix_web::web;

struct State;

fn main() {
    let _ = health::scope().state(&web::Data::new(State));
}
