use std::{cell::Cell, rc::Rc};

use health::HealthCheck;

struct Unclonable;

#[derive(HealthCheck)]
struct State {
    #[health(with = no_such_function)]
    a: String,
    #[health(with = of_another_type)]
    b: String,
    #[health(with = not_async)]
    c: String,
    #[health(with = ok)]
    d: Unclonable,
    #[health(with = ok)]
    e: Rc<Cell<u8>>,
    #[health(with = number)]
    f: String,
}

async fn of_another_type(_: &u8) -> Result<(), String> {
    Ok(())
}

fn not_async(_: &String) -> Result<(), String> {
    Ok(())
}

async fn ok<T>(_: &T) -> Result<(), String> {
    Ok(())
}

async fn number(_: &String) -> Result<u8, String> {
    Ok(1)
}

fn main() {}
