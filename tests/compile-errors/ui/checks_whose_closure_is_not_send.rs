use std::rc::Rc;

use health::Check;

fn main() {
    let counter = Rc::new(0);
    // The closure runs on other threads.
    let _ = Check::new("system", "counter", move || {
        let _ = *counter;
        async { Ok::<_, String>(()) }
    });
}
