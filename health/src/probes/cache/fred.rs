//! `fred::clients::Client` and `fred::clients::Pool`.
//!
//! Each run writes a unique value that expires after 10 s and reads it back, in one round trip, under a key that begins with `health:`
//! and that no other process uses. Each client of a pool has its own connection, and all of them are queried concurrently, because some
//! operations of the application fail if one is dead. On a cluster, 16 keys are used concurrently, which reach all of three masters in
//! 199 of 200 processes.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, not connected (yet), no such host | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no response within the client's own time, or by the deadline | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | `READONLY`, `OOM`, `MISCONF`, `NOREPLICAS` | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | `LOADING`, another value read than written, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! By default, commands wait until the client has reconnected; those of a run do not. A client without a `ReconnectPolicy` never
//! reconnects, though it still reports itself as connected: once its connection is lost it is DOWN until the process is restarted.
//!
//! What a run costs the server: one pipelined `SET` and `GET` on each connection. No connection is opened while the server
//! responds. While it is silent for longer than twice the longest run before, and at least 300 ms, a TCP connection is opened
//! and closed, at most every 2 s.

use std::time::Duration;

use fred::{
    clients::{Client, Pool},
    error::{Error, ErrorKind},
    interfaces::{ClientLike as _, EventInterface as _, KeysInterface as _},
    types::{
        Expiration,
        config::{Options, Server},
    },
};
use futures_util::future::try_join_all;
use tokio::{
    sync::{
        Mutex,
        broadcast::{Receiver, error::TryRecvError},
    },
    time::timeout,
};

use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        support::{
            address::{Address, common_refusal},
            label::Label,
            reachability::Reachability,
            round_trip::{RoundTripError, nonce, unique_key},
            single_flight::SingleFlight,
        },
    },
};

/// How long the server keeps a written value.
const EXPIRY_MS: i64 = 10_000;

/// How long a run waits for a client that is connecting, and fails every command meanwhile. A far server takes a few round trips.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(550);

/// How long a client that failed to connect may take to report the error.
const ERROR_TIMEOUT: Duration = Duration::from_millis(100);

/// The number of keys that a run writes on a cluster.
const KEYS: usize = 16;

library_probe! { "cache", Client => |client: &Client| ClientsProbe::new([client]) }
library_probe! { "cache", Pool => |pool: &Pool| ClientsProbe::new(pool.clients()) }

type Failure = RoundTripError<Error>;

/// The clients of a pool, or a single one, and what their probe remembers between runs.
struct ClientsProbe {
    connections: Vec<Connection>,
    reachability: Reachability,
}

/// A client, and what its probe remembers between runs.
struct Connection {
    client: Client,
    /// The same in each run, so that all runs query the same nodes of a cluster.
    keys: Vec<String>,
    /// fred keeps a command until it has a response, even if its future is dropped.
    in_flight: SingleFlight<Result<(), Failure>>,
    /// A command's own error only says that there is no connection.
    connect_errors: Mutex<ConnectErrors>,
}

/// Why a client fails to connect.
struct ConnectErrors {
    events: Receiver<(Error, Option<Server>)>,
    last: Option<Error>,
}

impl ClientsProbe {
    fn new<'a>(clients: impl IntoIterator<Item = &'a Client>) -> Self {
        let connections = clients.into_iter().map(Connection::new).collect();
        Self { connections, reachability: Reachability::new() }
    }

    fn servers(&self) -> Vec<Address> {
        self.connections.first().map(|connection| servers(&connection.client)).unwrap_or_default()
    }

    fn label(&self) -> Label {
        let password = self.connections.first().and_then(|first| first.client.client_config().password);
        Label::new("redis").at_only(&self.servers()).with_password(password)
    }

    async fn query(&self) -> Result<(), Failure> {
        try_join_all(self.connections.iter().map(Connection::query)).await.map(drop)
    }

    /// Connects to all servers, and returns an error if all of them refuse.
    async fn refusal(&self) -> Option<Failure> {
        common_refusal(&self.servers()).await.map(|(_, error)| Error::from(error).into())
    }
}

impl LibraryProbe for ClientsProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        let result = self.reachability.or_refusal(self.query(), || self.refusal()).await;
        result.map_err(|error| self.label().error(error))
    }

    fn resource(&self) -> Option<String> {
        Some(self.label().to_string())
    }
}

impl Connection {
    fn new(client: &Client) -> Self {
        let prefix = unique_key();
        let keys = if client.client_config().server.is_clustered() { KEYS } else { 1 };
        Self {
            client: client.clone(),
            keys: (0..keys).map(|number| format!("{prefix}:{number}")).collect(),
            in_flight: SingleFlight::abandoning_lost_work(),
            connect_errors: Mutex::new(ConnectErrors { events: client.error_rx(), last: None }),
        }
    }

    async fn query(&self) -> Result<(), Failure> {
        let (client, keys) = (self.client.clone(), self.keys.clone());
        let query = async move {
            let written = keys.iter().map(|key| write_and_read_back(&client, key));
            try_join_all(written).await.map(drop)
        };
        if !self.client.is_connected() {
            // If it has not connected by then, the command fails.
            let _ = timeout(CONNECT_TIMEOUT, self.client.wait_for_connect()).await;
        }
        let result = self.in_flight.join_or_spawn(query).await;
        let mut connect_errors = self.connect_errors.lock().await;
        connect_errors.read();
        match result {
            // There is no connection.
            Err(Failure::Driver(error)) if *error.kind() == ErrorKind::Canceled => {
                Err(connect_errors.last().await.unwrap_or(error).into())
            }
            Err(error) => Err(error),
            Ok(()) => {
                connect_errors.last = None;
                Ok(())
            }
        }
    }
}

impl ConnectErrors {
    /// Reads the events since the last call.
    fn read(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok((error, _)) => self.last = Some(error),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Closed | TryRecvError::Empty) => return,
            }
        }
    }

    /// Returns the last error since the client was connected, or waits for the next one.
    async fn last(&mut self) -> Option<Error> {
        if self.last.is_none()
            && let Ok(Ok((error, _))) = timeout(ERROR_TIMEOUT, self.events.recv()).await
        {
            self.last = Some(error);
        }
        self.last.clone()
    }
}

/// Writes a unique value and reads it back, in one round trip.
async fn write_and_read_back(client: &Client, key: &str) -> Result<(), Failure> {
    let nonce = nonce().to_string();
    // Without a connection it must fail, and not be sent later.
    let options = Options { fail_fast: true, max_attempts: Some(1), ..Options::default() };
    let pipeline = client.pipeline().with_options(&options);
    let expires = Some(Expiration::PX(EXPIRY_MS));
    let () = pipeline.set(key, nonce.as_str(), expires, None, false).await?;
    let () = pipeline.get(key).await?;
    let ((), read): ((), Option<String>) = pipeline.all().await?;
    if read.as_deref() == Some(nonce.as_str()) { Ok(()) } else { Err(Failure::Mismatch) }
}

/// Returns the configured addresses of the server, the cluster's nodes or the sentinels.
fn servers(client: &Client) -> Vec<Address> {
    let servers = client.client_config().server.hosts();
    // A Unix socket has the port 0.
    servers
        .into_iter()
        .filter(|server| server.port != 0)
        .map(|server| Address { host: server.host.to_string(), port: server.port })
        .collect()
}

impl Classify for Error {
    fn classify(&self) -> ProbeErrorKind {
        match self.kind() {
            ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Sentinel => {
                ProbeErrorKind::Unreachable
            }
            ErrorKind::Auth => ProbeErrorKind::Rejected,
            ErrorKind::Timeout => ProbeErrorKind::TimedOut,
            // The code that the server's text begins with.
            _ => match self.details().split(' ').next() {
                Some("READONLY" | "OOM" | "MISCONF" | "NOREPLICAS") => ProbeErrorKind::ReadOnly,
                Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED") => ProbeErrorKind::Rejected,
                _ => ProbeErrorKind::Failed,
            },
        }
    }
}
