//! `redis::Client`, `MultiplexedConnection` and `ConnectionManager`, and how errors of redis are classified.
//!
//! Each run writes a unique value with a short expiry and reads it back, in one pipelined round trip, under a key that no
//! other process and no other run uses: `health:` and more. A user with restricted keys only needs those: `~health:*`. A
//! `PING` would not do, because a replica and a server that is out of memory respond to it. For users that can't write at all
//! there is [`ping`].
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no response within the connection's own time | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | `READONLY`, `OOM`, `MISCONF`, `NOREPLICAS` | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | `LOADING`, another value read than written, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! A `Client` connects for each use, so its check keeps a connection of its own from run to run, and opens another one every
//! 5 s: a server at its `maxclients`, or whose password was changed, is DOWN in the next run after that. Only a success counts on
//! the kept connection. A failure is retried once on a new one, which leads to the new master where the name does so after a
//! failover.
//!
//! A `ConnectionManager` keeps its connection as long as it works, for the application as for the check: one to a demoted
//! master is DOWN as read-only, because the application's writes fail there too. A connection that broke while it was idle
//! is retried once. A `MultiplexedConnection` never connects again: once broken it is DOWN for good, for the application as
//! for its check.
//!
//! What a run costs the server: one pipelined `SET` and `GET`. A `Client`'s check opens one connection every 5 s, and one in
//! each run that fails. While a `ConnectionManager` is silent for longer than twice its longest round trip, and at least
//! 300 ms, the check opens a TCP connection and closes it, at most every 2 s.

use std::{sync::Arc, time::Duration};

use redis::{
    Client, ConnectionAddr, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind,
    aio::{ConnectionLike, ConnectionManager, MultiplexedConnection},
};

use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        support::{
            address::Address,
            debug_fields::DebugFields,
            hedge::hedged,
            label::Label,
            reachability::Reachability,
            reused_connection::{Connector, ReusedConnection},
            round_trip::{MISMATCH, nonce, unique_key},
        },
    },
};

/// What messages call a server without an address.
pub(super) const LABEL: Label = Label::new("redis");

/// How long the server keeps a written value.
const EXPIRY_MS: u64 = 10_000;

/// How old the connection of a `Client`'s check is when it is renewed. The application connects more often than that.
const RENEWAL_AGE: Duration = Duration::from_secs(5);

/// How long a `PING` may take before the server is connected to directly. [`ping`] does not know the round trips of earlier runs, so
/// this is longer than drivers wait for a response.
pub(super) const PING_HEDGE_DELAY: Duration = Duration::from_millis(600);

library_probe! { "cache", ConnectionManager => ManagerProbe::of }
library_probe! { "cache", MultiplexedConnection => |connection: &MultiplexedConnection| connection.clone() }
library_probe! {
    "cache",
    Client => |client: &Client| ReusedConnection::renewed_after(RENEWAL_AGE, ClientConnector(client.clone()))
}

/// A manager, and what its probe remembers between runs.
struct ManagerProbe {
    manager: ConnectionManager,
    label: Label,
    reachability: Reachability,
}

impl ManagerProbe {
    fn of(manager: &ConnectionManager) -> Self {
        Self { manager: manager.clone(), label: label_of(manager), reachability: Reachability::new() }
    }
}

impl LibraryProbe for ManagerProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        // While it reconnects, with growing delays between the attempts, every command waits.
        let query = write_and_read_back_retried(self.manager.clone());
        let result = self.reachability.or_refusal(query, || refusal(&self.label)).await;
        result.map_err(|error| self.label.error(error))
    }

    fn resource(&self) -> Option<String> {
        Some(self.label.to_string())
    }
}

/// A manager has no accessor for its client, but its `Debug` output contains the address.
fn label_of(manager: &ConnectionManager) -> Label {
    LABEL.at(DebugFields::of(manager).address("addr: Tcp(", ", "))
}

impl LibraryProbe for MultiplexedConnection {
    async fn probe(&self) -> Result<(), ProbeError> {
        write_and_read_back(&mut self.clone(), &unique_key()).await.map_err(|error| LABEL.error(error))
    }

    fn resource(&self) -> Option<String> {
        None
    }
}

/// Connects as the application does, for each use.
struct ClientConnector(Client);

impl Connector for ClientConnector {
    type Connection = MultiplexedConnection;
    type Error = RedisError;

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        self.0.get_multiplexed_async_connection().await
    }

    async fn query(&self, connection: &mut MultiplexedConnection) -> RedisResult<bool> {
        write_and_read_back(connection, &unique_key()).await.map(|()| true)
    }
}

impl LibraryProbe for ReusedConnection<ClientConnector> {
    async fn probe(&self) -> Result<(), ProbeError> {
        self.query().await.map_err(|error| label_of_client(&self.connector().0).error(error))
    }

    fn resource(&self) -> Option<String> {
        Some(label_of_client(&self.connector().0).to_string())
    }
}

/// Returns what messages call the server of a client, without the path of a Unix socket.
pub(super) fn label_of_client(client: &Client) -> Label {
    let info = client.get_connection_info();
    let address = match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some(Address { host: host.clone(), port: *port })
        }
        _ => None,
    };
    LABEL.at(address).with_password(info.redis_settings().password().map(str::to_owned))
}

/// Sends a `PING`, for applications that have no permission to write keys. Works on every type of redis that implements
/// [`Probe`](crate::Probe), as `#[health(with = health::probes::redis::ping)]`.
///
/// It detects a server that is stopped, frozen, loading its data or unable to save it, and a wrong password. It does **not** detect a
/// replica, a server that is out of memory or has too few replicas to write, revoked permissions, and unassigned slots of a cluster.
/// Where keys can be written, do not use it: the field's own probe detects more.
///
/// For a [`Client`], each run opens a connection. `ConnectionManager` and `MultiplexedConnection` use their own.
///
/// # Errors
///
/// Returns an error if the server does not respond or denies access. The kinds are those of this module.
///
/// # Examples
///
/// ```
/// use health::HealthCheck;
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     #[health(with = health::probes::redis::ping, group = "cache")]
///     sessions: redis::aio::ConnectionManager,
/// }
/// ```
pub async fn ping<R: Ping>(redis: &R) -> Result<(), ProbeError> {
    redis.ping().await
}

pub(super) mod sealed {
    /// A handle of redis that [`ping`](super::ping) accepts.
    pub trait Ping: Send + Sync {
        #[doc(hidden)]
        fn ping(&self) -> impl Future<Output = Result<(), crate::ProbeError>> + Send;
    }
}

use sealed::Ping;

impl<R: Ping> Ping for Arc<R> {
    async fn ping(&self) -> Result<(), ProbeError> {
        R::ping(self).await
    }
}

impl Ping for ConnectionManager {
    async fn ping(&self) -> Result<(), ProbeError> {
        let label = label_of(self);
        let ping = async {
            match ping_on(&mut self.clone()).await {
                Err(error) if error.is_unrecoverable_error() => ping_on(&mut self.clone()).await,
                result => result,
            }
        };
        let result = hedged(ping, PING_HEDGE_DELAY, async { refusal(&label).await.map(Err) }).await;
        result.map_err(|error| label.error(error))
    }
}

impl Ping for MultiplexedConnection {
    async fn ping(&self) -> Result<(), ProbeError> {
        ping_on(&mut self.clone()).await.map_err(|error| LABEL.error(error))
    }
}

impl Ping for Client {
    async fn ping(&self) -> Result<(), ProbeError> {
        let ping = async { ping_on(&mut self.get_multiplexed_async_connection().await?).await };
        ping.await.map_err(|error| label_of_client(self).error(error))
    }
}

pub(super) async fn ping_on(connection: &mut impl ConnectionLike) -> RedisResult<()> {
    let response: String = redis::cmd("PING").query_async(connection).await?;
    match response.as_str() {
        "PONG" => Ok(()),
        _ => Err((ErrorKind::UnexpectedReturnType, "the response to PING is not PONG").into()),
    }
}

/// Writes a unique value and reads it back, in one round trip.
pub(super) async fn write_and_read_back(connection: &mut impl ConnectionLike, key: &str) -> RedisResult<()> {
    let nonce = nonce();
    let read = write_and_read(key, nonce).query_async(connection).await?;
    verify(read, nonce)
}

/// The commands that write a value and read it back.
pub(super) fn write_and_read(key: &str, nonce: u64) -> Pipeline {
    let mut commands = redis::pipe();
    commands.cmd("SET").arg(key).arg(nonce).arg("PX").arg(EXPIRY_MS).ignore().cmd("GET").arg(key);
    commands
}

/// Evaluates the response to [`write_and_read`].
pub(super) fn verify((read,): (Option<u64>,), written: u64) -> RedisResult<()> {
    if read == Some(written) { Ok(()) } else { Err((ErrorKind::UnexpectedReturnType, MISMATCH).into()) }
}

/// Retries once, because the driver notices only by a failed query that its idle connection was closed, and then replaces it.
async fn write_and_read_back_retried(mut connection: impl ConnectionLike) -> RedisResult<()> {
    match write_and_read_back(&mut connection, &unique_key()).await {
        Err(error) if error.is_unrecoverable_error() => write_and_read_back(&mut connection, &unique_key()).await,
        result => result,
    }
}

/// Connects to the server, and returns the error if that fails.
async fn refusal(label: &Label) -> Option<RedisError> {
    label.address()?.refusal().await.map(RedisError::from)
}

impl Classify for RedisError {
    fn classify(&self) -> ProbeErrorKind {
        match self.kind() {
            ErrorKind::Io if self.is_timeout() => ProbeErrorKind::TimedOut,
            ErrorKind::Io | ErrorKind::ClusterConnectionNotFound | ErrorKind::MasterNameNotFoundBySentinel => {
                ProbeErrorKind::Unreachable
            }
            ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => ProbeErrorKind::Rejected,
            ErrorKind::Server(ServerErrorKind::ReadOnly) => ProbeErrorKind::ReadOnly,
            // Only this returns the code of a failure inside a pipeline.
            _ => match self
                .clone()
                .into_server_errors()
                .iter()
                .flat_map(|errors| errors.iter())
                .map(|(_, error)| error.code())
                .next()
            {
                Some("OOM" | "MISCONF" | "NOREPLICAS") => ProbeErrorKind::ReadOnly,
                Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED") => ProbeErrorKind::Rejected,
                _ => ProbeErrorKind::Failed,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::Path,
        process::{Child, Command, Stdio},
    };

    use tempfile::TempDir;
    use tokio::time::{sleep, timeout};

    use super::*;

    const AGE: Duration = Duration::from_millis(200);

    /// A Redis on a Unix socket.
    struct Server(Child, TempDir);

    impl Server {
        fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("socket");
            let server = Command::new("redis-server")
                .args(["--port", "0", "--save", "", "--unixsocket"])
                .arg(&socket)
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server is not installed: tests/run does it");
            Self(server, folder)
        }

        fn socket(&self) -> &Path {
            self.1.path()
        }

        /// The connection of the test itself, which stays open.
        async fn admin(&self) -> MultiplexedConnection {
            let connect = async {
                loop {
                    if fs::exists(self.socket().join("socket")).unwrap()
                        && let Ok(admin) = self.client("").get_multiplexed_async_connection().await
                    {
                        return admin;
                    }
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(Duration::from_secs(30), connect).await.expect("redis-server has started")
        }

        fn client(&self, query: &str) -> Client {
            Client::open(format!("redis+unix://{}/socket{query}", self.socket().display())).unwrap()
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    async fn config(admin: &mut MultiplexedConnection, option: &str, value: &str) {
        redis::cmd("CONFIG").arg("SET").arg(option).arg(value).exec_async(admin).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_at_its_maxclients_is_down_when_the_kept_connection_is_old() {
        let server = Server::start();
        let mut admin = server.admin().await;
        let kept = ReusedConnection::renewed_after(AGE, ClientConnector(server.client("")));
        kept.probe().await.unwrap();
        config(&mut admin, "maxclients", "1").await;
        sleep(AGE).await;
        kept.connector().connect().await.map(drop).unwrap_err();
        for _ in 0..3 {
            // The server sends an error and resets the connection; the driver returns the one or the other.
            kept.probe().await.unwrap_err();
        }
        config(&mut admin, "maxclients", "100").await;
        kept.probe().await.unwrap();
    }

    #[tokio::test]
    async fn a_password_that_was_changed_is_down_when_the_kept_connection_is_old() {
        let server = Server::start();
        let mut admin = server.admin().await;
        config(&mut admin, "requirepass", "first").await;
        let kept = ReusedConnection::renewed_after(AGE, ClientConnector(server.client("?pass=first")));
        kept.probe().await.unwrap();
        config(&mut admin, "requirepass", "second").await;
        sleep(AGE).await;
        for _ in 0..3 {
            let error = kept.probe().await.unwrap_err();
            assert_eq!(error.kind(), ProbeErrorKind::Rejected, "{error}");
        }
    }
}
