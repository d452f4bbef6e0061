use health::Check;

fn main() {
    // The type of the error is not written anywhere.
    let _ = Check::new("queue", "orders", || async { Ok(()) });
}
