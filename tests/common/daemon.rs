//! A server of one process, on a free loopback port and in a temporary folder.

use std::{
    fs,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    process::{Process, chown},
    servers::{FaultInjection, free_port},
};

/// A server that may be running. `K` names the kind of server, and has what only this kind needs.
pub(crate) struct Daemon<K> {
    /// Dropped, and therefore killed, before the rest.
    process: Option<Process>,
    pub(crate) kind: K,
    user: &'static str,
    program: String,
    args: Vec<String>,
    port: u16,
    folder: TempDir,
    /// Whether the server is ready. Defaults to whether it listens.
    pub(crate) serves: fn(&Self) -> bool,
    /// The signal that stops the server. Defaults to `TERM`.
    pub(crate) stop_signal: &'static str,
}

impl<K> Daemon<K> {
    /// Prepares a server that runs as this user, without starting it.
    pub(crate) fn new(kind: K, user: &'static str, program: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("health-").tempdir().unwrap();
        chown(folder.path(), user);
        Self {
            process: None,
            kind,
            user,
            program: program.to_owned(),
            args: Vec::new(),
            port: free_port(),
            folder,
            serves: |daemon| TcpStream::connect(daemon.address()).is_ok(),
            stop_signal: "TERM",
        }
    }

    /// Appends arguments to the command that starts the server.
    pub(crate) fn add_args(&mut self, args: &[impl AsRef<str>]) {
        self.args.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
    }

    /// Writes a file of the server into its folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        chown(self.path(name).as_ref(), self.user);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the path of a file in the folder of the server, or of the folder if the name is empty.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Returns what the server has printed since its start.
    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Kills the server, even if it is frozen.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Stops the server by that signal.
    pub(crate) fn stop_by(&mut self, signal: &str) {
        self.process.take().expect("it runs").stop(signal);
    }

    /// Sends a signal to the running server.
    pub(crate) fn signal(&self, signal: &str) {
        self.running().signal(signal);
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }
}

impl<K> FaultInjection for Daemon<K> {
    fn restart(&mut self) {
        assert!(!self.runs(), "stop it first");
        self.process = Some(Process::start(self.user, &self.program, &self.args, self.path("log").as_ref()));
        let started = Instant::now();
        while !(self.serves)(self) {
            let waits = started.elapsed() < Duration::from_secs(60);
            assert!(waits, "{} {:?} does not start: {}", self.program, self.args, self.log_text());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        self.stop_by(self.stop_signal);
    }

    fn freeze(&self) {
        self.running().freeze();
    }

    fn resume(&self) {
        self.running().resume();
    }
}
