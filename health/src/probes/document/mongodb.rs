//! `mongodb::Client`, `Database` and `Collection`, and how errors of mongodb are classified.
//!
//! Each run sends the command `ping`, with the read preference of the client, the database or the collection, on a connection of the
//! client's own pool. So a client that reads from secondaries is UP as long as the replica set has one, and any other needs a primary. No
//! permission is needed, so a user that loses its permissions, or is removed, is noticed only when the client opens its next connection.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host, on all servers of the client | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password | [`ProbeErrorKind::Rejected`] | DOWN |
//! | the replica set has no primary, and the read preference is the default | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | no response, while the server responds on a new connection: all connections of the pool are in use, or dead | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | no response | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The driver waits up to 30 s for a suitable server (`serverSelectionTimeoutMS`). A run does not: after 100 ms it looks at what the
//! client knows, and connects to its servers if that is nothing. A query that was sent is never cancelled, because that would close its
//! connection.
//!
//! Operations of the application wait, without a limit, while all connections are in use (`maxPoolSize`, 10 by default). A client does not
//! expose that. So if a run is silent, and an earlier one was not, a new connection to the server requests `hello`, which needs no password.
//! It has no TLS: with a server that requires TLS, the check is DOWN while the pool is exhausted. So is the first run of an exhausted pool
//! whose server is more than 100 ms away, because until then the client may still be connecting.
//!
//! Observations, of a replica set: `primary`, its address, and `secondaries`, their number.
//!
//! What a run costs the server: one `ping`. While it is silent for longer than twice the longest run before, and at least 300 ms, a
//! connection is opened and closed: one in each run while the pool is exhausted, else one to each server, at most every 2 s.
//!
//! mongodb does not compile without TLS, so the feature enables the one of its default features, `rustls-tls`, which adds ring to the
//! crypto providers of rustls. An application with another provider has to install it (`CryptoProvider::install_default`).
//!
//! # Examples
//!
//! ```
//! # mod example {
//! use health::HealthCheck;
//! use mongodb::{Client, Collection, bson::Document};
//!
//! #[derive(HealthCheck)]
//! struct AppState {
//!     mongo: Client,                // probed: database.mongo
//!     #[health(skip)]
//!     orders: Collection<Document>, // a collection of the same client
//! }
//! # }
//! ```

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use derive_more::{Display, Error};
use futures_util::FutureExt as _;
use mongodb::{
    Client, Collection, Database, ServerInfo, ServerType,
    bson::doc,
    error::{Error as DriverError, ErrorKind},
    options::{ReadPreference, SelectionCriteria},
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    observe::observe,
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        support::{
            address::{Address, common_refusal},
            debug_fields::DebugFields,
            hedge::{HEDGE_DELAY, MAX_ROUND_TRIP, hedged},
            label::Label,
            reachability::Reachability,
            single_flight::SingleFlight,
        },
    },
};

/// How long a client may know only secondaries. It takes less to discover a replica set on another continent.
const DISCOVERY_TIMEOUT: Duration = Duration::from_millis(400);

/// A client connects, logs in and sends the ping in five round trips. `hello` on a new connection takes two.
const CONNECT_HELLOS: u32 = 3;

/// How long a client computes the response to the challenge of the server.
const LOGIN_TIME: Duration = Duration::from_millis(100);

const DEFAULT_PORT: u16 = 27_017;

library_probe! {
    "database", Client => |client: &Client| DatabaseProbe::new(client.database("admin"), client.selection_criteria())
}
library_probe! {
    "database", Database => |database: &Database| DatabaseProbe::new(database.clone(), database.selection_criteria())
}
library_probe! {
    "database" <T>, Collection<T> where { T: Send + Sync + 'static } => |collection: &Collection<T>| {
        let database = collection.client().database(&collection.namespace().db);
        DatabaseProbe::new(database, collection.selection_criteria())
    }
}

/// A database, and what its probe remembers between runs.
struct DatabaseProbe {
    database: Database,
    /// A command ignores the criteria of its database.
    criteria: Option<SelectionCriteria>,
    hosts: Vec<Address>,
    in_flight: SingleFlight<Result<(), DriverError>>,
    reachability: Reachability,
    /// When the ping in flight began, or the last one.
    pinged_at: Arc<Mutex<Instant>>,
    has_succeeded: AtomicBool,
    /// The server rejected the credentials. The client then tries again only at its next heartbeat, and is silent until then.
    rejected: Mutex<Option<DriverError>>,
}

/// Why a run fails.
#[derive(Debug, Display, Error)]
enum Failure {
    #[display("{_0}")]
    Driver(DriverError),
    /// With the secondaries that the client knows.
    #[display("the replica set has only the secondaries {_0}")]
    NoPrimary(#[error(not(source))] String),
    /// A new connection to this server responds.
    #[display("{_0} responds on a new connection, but not on those of the client")]
    Exhausted(#[error(not(source))] Address),
}

impl DatabaseProbe {
    fn new(database: Database, criteria: Option<&SelectionCriteria>) -> Self {
        Self {
            criteria: criteria.cloned(),
            hosts: hosts(database.client()),
            database,
            in_flight: SingleFlight::abandoning_lost_work(),
            reachability: Reachability::new(),
            pinged_at: Arc::new(Mutex::new(Instant::now())),
            has_succeeded: AtomicBool::new(false),
            rejected: Mutex::default(),
        }
    }

    fn label(&self) -> Label {
        Label::new("mongodb").at_only(&self.hosts)
    }

    async fn query(&self) -> Result<(), Failure> {
        let result = match self.ping().await {
            // An idle connection that the server has closed. The client opens another one.
            Err(error) if error.breaks_connection() => self.ping().await,
            result => result,
        };
        *self.rejected.lock() =
            result.as_ref().err().filter(|error| error.classify() == ProbeErrorKind::Rejected).cloned();
        result.map_err(Failure::Driver)
    }

    async fn ping(&self) -> Result<(), DriverError> {
        let (database, criteria) = (self.database.clone(), self.criteria.clone());
        let pinged_at = Arc::clone(&self.pinged_at);
        let ping = async move {
            *pinged_at.lock() = Instant::now();
            let ping = database.run_command(doc! { "ping": 1 });
            match criteria {
                Some(criteria) => ping.selection_criteria(criteria).await.map(drop),
                None => ping.await.map(drop),
            }
        };
        self.in_flight.join_or_spawn(ping).await
    }

    /// Why the client finds no suitable server, if it finds none.
    async fn selection_failure(&self) -> Option<Failure> {
        if self.suitable_server().is_some() {
            return None;
        }
        if let Some(error) = &*self.rejected.lock() {
            return Some(Failure::Driver(error.clone()));
        }
        if let Some((_, error)) = common_refusal(&self.hosts).await {
            return Some(Failure::Driver(error.into()));
        }
        sleep(DISCOVERY_TIMEOUT).await;
        let servers = self.servers();
        let is_secondary = |server: &Server| server.kind == ServerType::RsSecondary;
        (self.suitable_server().is_none() && servers.iter().any(is_secondary)).then(|| {
            let addresses: Vec<_> = servers.into_iter().map(|server| server.address).collect();
            Failure::NoPrimary(addresses.join(", "))
        })
    }

    /// Why a ping is silent, although the client knows a suitable server: all servers refuse new connections, or that one responds on
    /// a new connection, and the ping has taken longer than the client takes to connect.
    async fn silence(&self) -> Option<Failure> {
        if let Some((_, error)) = common_refusal(&self.hosts).await {
            return Some(Failure::Driver(error.into()));
        }
        if !self.has_succeeded.load(Ordering::Relaxed) {
            return None;
        }
        let address = Address::parse(&self.suitable_server()?.address)?;
        let started = Instant::now();
        // One that began while the server was frozen says nothing about its distance.
        timeout(MAX_ROUND_TRIP, hello(&address)).await.ok()?.ok()?;
        let connects_in = started.elapsed() * CONNECT_HELLOS + LOGIN_TIME;
        let pinged_at = *self.pinged_at.lock();
        sleep_until(pinged_at + connects_in).await;
        Some(Failure::Exhausted(address))
    }

    fn suitable_server(&self) -> Option<Server> {
        self.servers().into_iter().find(|server| self.is_suitable(server))
    }

    fn is_suitable(&self, server: &Server) -> bool {
        let needs_primary =
            matches!(self.criteria, None | Some(SelectionCriteria::ReadPreference(ReadPreference::Primary)));
        server.kind != ServerType::Unknown && !(needs_primary && server.kind == ServerType::RsSecondary)
    }

    /// Returns the servers that the client knows, but for those of a replica set that it is not connected to. It exposes them only to a
    /// criterion of selection.
    fn servers(&self) -> Vec<Server> {
        let servers = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&servers);
        let none_is_suitable = move |server: &ServerInfo<'_>| {
            sink.lock().push(Server { address: server.address().to_string(), kind: server.server_type() });
            false
        };
        let criteria = SelectionCriteria::Predicate(Arc::new(none_is_suitable));
        let command = self.database.run_command(doc! { "ping": 1 }).selection_criteria(criteria);
        // When it is first polled, it looks at all servers, and sends nothing.
        let selection = async { command.await.map(drop) };
        let _ = selection.now_or_never();
        std::mem::take(&mut servers.lock())
    }

    fn observe(&self) {
        let servers = self.servers();
        let of_kind = |kind| servers.iter().filter(move |server| server.kind == kind);
        if let Some(primary) = of_kind(ServerType::RsPrimary).next() {
            observe("primary", primary.address.clone());
        }
        if servers.iter().any(|server| matches!(server.kind, ServerType::RsPrimary | ServerType::RsSecondary)) {
            observe("secondaries", of_kind(ServerType::RsSecondary).count());
        }
    }
}

struct Server {
    address: String,
    kind: ServerType,
}

impl LibraryProbe for DatabaseProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        let query = hedged(self.query(), HEDGE_DELAY, async { self.selection_failure().await.map(Err) });
        let result = self.reachability.or_refusal(query, || self.silence()).await;
        if result.is_ok() {
            self.has_succeeded.store(true, Ordering::Relaxed);
            self.observe();
        }
        result.map_err(|failure| self.label().error(failure))
    }

    fn resource(&self) -> Option<String> {
        Some(self.label().to_string())
    }
}

/// Requests `hello` on a new connection, and waits until the server responds.
async fn hello(address: &Address) -> io::Result<()> {
    // The header: length, number of the request, number of the request that this responds to, `OP_MSG`; then flags, and a document.
    const REQUEST: &[u8] = b"\x34\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\
        \x1f\0\0\0\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0";
    let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    stream.write_all(REQUEST).await?;
    let mut header = [0; 16];
    stream.read_exact(&mut header).await?;
    let is_response = header[8..12] == REQUEST[4..8] && header[12..] == REQUEST[12..16];
    if is_response { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Returns the servers in the options of a client, which have no accessor. A Unix socket is not among them.
fn hosts(client: &Client) -> Vec<Address> {
    let fields = DebugFields::of(client);
    let hosts = fields.0.split_once("options: ClientOptions { hosts: [").and_then(|(_, rest)| rest.split_once(']'));
    let hosts = hosts.map_or("", |(hosts, _)| hosts);
    let address = |host: &str| {
        let fields = DebugFields(host.to_owned());
        let port = fields.number("port: Some(").unwrap_or(DEFAULT_PORT);
        fields.text("host: ").map(|host| Address { host, port })
    };
    hosts.split("Tcp {").filter_map(address).collect()
}

impl Classify for Failure {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::Driver(error) => error.classify(),
            Self::NoPrimary(_) => ProbeErrorKind::ReadOnly,
            Self::Exhausted(_) => ProbeErrorKind::Saturated,
        }
    }

    fn message(&self, name: &str) -> String {
        match self {
            Self::Driver(error) => error.message(name),
            Self::NoPrimary(_) => format!("{name} has no primary"),
            Self::Exhausted(_) => format!("no connection of the pool to {name} responds, a new one does"),
        }
    }
}

impl Classify for DriverError {
    fn classify(&self) -> ProbeErrorKind {
        match &*self.kind {
            ErrorKind::Io(error) => classify_io(error),
            ErrorKind::Command(error) => classify_code(error.code),
            ErrorKind::Authentication { .. } | ErrorKind::InvalidTlsConfig { .. } => ProbeErrorKind::Rejected,
            ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::DnsResolve { .. }
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::Shutdown => ProbeErrorKind::Unreachable,
            _ => ProbeErrorKind::Failed,
        }
    }
}

/// Returns the kind of an error code of the server.
fn classify_code(code: i32) -> ProbeErrorKind {
    match code {
        // InterruptedAtShutdown, ShutdownInProgress
        11_600 | 91 => ProbeErrorKind::Unreachable,
        // Unauthorized, AuthenticationFailed, ReauthenticationRequired
        13 | 18 | 391 => ProbeErrorKind::Rejected,
        // MaxTimeMSExpired, ExceededTimeLimit
        50 | 262 => ProbeErrorKind::TimedOut,
        // NotWritablePrimary, NotPrimaryNoSecondaryOk, PrimarySteppedDown, InterruptedDueToReplStateChange, OutOfDiskSpace
        10_107 | 13_435 | 189 | 11_602 | 14_031 => ProbeErrorKind::ReadOnly,
        _ => ProbeErrorKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hosts_of_a_client_are_those_of_its_url() {
        for (url, expected) in [
            ("mongodb://bob:secret@db.internal/orders", "db.internal:27017"),
            ("mongodb://10.0.0.1:1,[::1]:2/?replicaSet=set", "10.0.0.1:1 [::1]:2"),
        ] {
            let client = Client::with_uri_str(url).await.unwrap();
            let hosts: Vec<_> = hosts(&client).iter().map(Address::to_string).collect();
            assert_eq!(hosts.join(" "), expected);
        }
    }

    #[test]
    fn a_code_of_the_server_has_a_kind() {
        for (code, kind) in [
            (13, ProbeErrorKind::Rejected),
            (10_107, ProbeErrorKind::ReadOnly),
            (11_600, ProbeErrorKind::Unreachable),
            (50, ProbeErrorKind::TimedOut),
            (59, ProbeErrorKind::Failed),
        ] {
            assert_eq!(classify_code(code), kind, "{code}");
        }
    }
}
