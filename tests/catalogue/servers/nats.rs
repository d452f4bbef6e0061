//! A nats-server of the test's own, with JetStream, a user with a password, and a port to ask it how it is.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::common::{
    PASSWORD, USER, http,
    process::{Process, chown},
    servers::{FaultInjection, free_port},
};

pub(crate) struct Nats {
    port: u16,
    monitor: u16,
    folder: TempDir,
    args: Vec<String>,
    process: Option<Process>,
}

impl Nats {
    /// With JetStream. It is not started.
    pub(crate) fn prepared() -> Self {
        let mut nats = Self::without_jetstream();
        let store = nats.folder.path().join("jetstream").display().to_string();
        nats.args.extend(["-js".into(), "-sd".into(), store]);
        nats
    }

    pub(crate) fn without_jetstream() -> Self {
        let folder = tempfile::Builder::new().prefix("health-").tempdir().unwrap();
        let configuration = folder.path().join("configuration").display().to_string();
        let args = vec!["-c".into(), configuration];
        let nats = Self { port: free_port(), monitor: free_port(), folder, args, process: None };
        nats.authorize(&format!("{{user: {USER}, password: \"{PASSWORD}\"}}"));
        chown(nats.folder.path(), "nats");
        nats
    }

    /// Lets in that user alone, as its configuration describes one.
    pub(crate) fn authorize(&self, user: &str) {
        let configuration = format!("authorization {{ users: [{user}] }}");
        fs::write(self.folder.path().join("configuration"), configuration).unwrap();
    }

    /// Ends it at once, also when it is frozen.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Sends a signal to the running server.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    /// Further settings, beside its one user.
    pub(crate) fn configure(&self, settings: &str) {
        self.authorize(&format!("{{user: {USER}, password: \"{PASSWORD}\"}}"));
        let mut file = fs::OpenOptions::new().append(true).open(self.folder.path().join("configuration")).unwrap();
        writeln!(file, "\n{settings}").unwrap();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The open connections of drivers, each with what it did.
    pub(crate) async fn connections(&self) -> Vec<serde_json::Value> {
        let monitor = SocketAddr::from(([127, 0, 0, 1], self.monitor));
        let answer = http::get(monitor, "/connz").await.json();
        let mut connections = answer["connections"].as_array().expect("a list of connections").clone();
        // Those that only saw whether the server is there, and may be listed for a moment yet, don't say what they are.
        connections.retain(|connection| connection["lang"] == "rust");
        connections
    }

    /// It greets who connects.
    fn serves(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address()) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).is_ok() && greeting == *b"INFO"
    }
}

impl FaultInjection for Nats {
    fn restart(&mut self) {
        assert!(self.process.is_none(), "stop it first");
        let (port, monitor) = (self.port.to_string(), self.monitor.to_string());
        let fixed = ["-a", "127.0.0.1", "-p", &port, "-m", &monitor];
        let args: Vec<_> = fixed.iter().map(|&arg| arg.to_owned()).chain(self.args.clone()).collect();
        let log = self.folder.path().join("log");
        // Debian keeps it off the path of those who are not root.
        let sbin = "/usr/sbin/nats-server";
        let program = if Path::new(sbin).exists() { sbin } else { "nats-server" };
        self.process = Some(Process::start("nats", program, &args, &log));
        let started = Instant::now();
        while !self.serves() {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "nats-server does not start: {}",
                fs::read_to_string(&log).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        self.process.take().expect("it runs").stop("TERM");
    }

    fn freeze(&self) {
        self.process.as_ref().expect("it runs").freeze();
    }

    fn resume(&self) {
        self.process.as_ref().expect("it runs").resume();
    }
}
