//! The log of this process as text.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        mpsc::{self, Sender},
    },
    thread,
};

use tracing_subscriber::fmt::MakeWriter;

static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Starts recording the log at level info and above.
pub(crate) fn keep() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        tracing_subscriber::fmt().with_writer(Keep).with_ansi(false).with_target(true).init();
    });
}

/// The log so far.
pub(crate) fn text() -> String {
    String::from_utf8(logged().clone()).expect("logs are text")
}

/// The lines that the crate itself has logged so far.
pub(crate) fn lines() -> Vec<String> {
    text().lines().filter(|line| line.contains(" health::")).map(str::to_owned).collect()
}

/// The warnings of the crate that contain `part`.
#[allow(dead_code, reason = "only one of the test binaries uses it")]
pub(crate) fn warnings(part: &str) -> Vec<String> {
    lines().into_iter().filter(|line| line.contains("WARN") && line.contains(part)).collect()
}

/// Forgets the log so far.
#[allow(dead_code, reason = "only one of the test binaries runs several tests in one process")]
pub(crate) fn clear() {
    logged().clear();
}

/// Blocks each thread that logs until the returned handle is dropped.
#[allow(dead_code, reason = "only one of the test binaries blocks its log")]
pub(crate) fn hold() -> Sender<()> {
    let (handle, dropped) = mpsc::channel::<()>();
    let (held, is_held) = mpsc::channel();
    thread::spawn(move || {
        let _lock = logged();
        held.send(()).unwrap();
        dropped.recv().unwrap_err();
    });
    is_held.recv().unwrap();
    handle
}

fn logged() -> MutexGuard<'static, Vec<u8>> {
    LOGGED.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Keep;

impl io::Write for Keep {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        logged().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Keep {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}
