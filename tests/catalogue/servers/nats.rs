//! A nats-server for one test, with JetStream, a user with a password, and a monitoring port.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::sbin;
use crate::common::{PASSWORD, USER, daemon::Daemon, http, servers::free_port};

pub(crate) type Nats = Daemon<Kind>;

pub(crate) struct Kind {
    monitor: u16,
}

impl Nats {
    /// Prepares a server with JetStream, without starting it.
    pub(crate) fn prepared() -> Self {
        let mut nats = Self::without_jetstream();
        nats.add_args(&["-js", "-sd", &nats.path("jetstream")]);
        nats
    }

    pub(crate) fn without_jetstream() -> Self {
        let mut nats = Self::new(Kind { monitor: free_port() }, "nats", &sbin("nats-server"));
        let [port, monitor] = [nats.port(), nats.kind.monitor].map(|port| port.to_string());
        nats.add_args(&["-a", "127.0.0.1", "-p", &port, "-m", &monitor, "-c", &nats.path("configuration")]);
        nats.configure("");
        nats.serves = Self::greets;
        nats
    }

    /// Allows only this user, in the format of its configuration.
    pub(crate) fn authorize(&self, user: &str) {
        self.write("configuration", &format!("authorization {{ users: [{user}] }}"));
    }

    /// Further settings.
    pub(crate) fn configure(&self, settings: &str) {
        let user = format!("{{user: {USER}, password: \"{PASSWORD}\"}}");
        self.write("configuration", &format!("authorization {{ users: [{user}] }}\n{settings}\n"));
    }

    /// Returns the open connections of drivers, with their counters.
    pub(crate) async fn connections(&self) -> Vec<serde_json::Value> {
        let monitor = SocketAddr::from(([127, 0, 0, 1], self.kind.monitor));
        let response = http::get(monitor, "/connz").await.json();
        let mut connections = response["connections"].as_array().expect("a list of connections").clone();
        // Connections that only checked whether the server listens, and may be listed for a moment, have no name.
        connections.retain(|connection| connection["lang"] == "rust");
        connections
    }

    /// The server greets new connections.
    fn greets(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address()) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).is_ok() && greeting == *b"INFO"
    }
}
