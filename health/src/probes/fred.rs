//! `fred::clients::Client` and `fred::clients::Pool`.
//!
//! Each run writes a unique value that expires after 10 seconds, and reads it back, in one round trip, under a key that no
//! other process uses: `health:` and more. Each client of a pool is a connection of its own, and all of them are queried
//! concurrently: a pool with a dead one fails the application every so often. On a cluster, 16 keys are used concurrently: of
//! three masters one is left out once in 200 processes.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, not connected (yet), no such host | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no response within the client's own time, or by the deadline | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | `READONLY`, `OOM`, `MISCONF`, `NOREPLICAS` | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | `LOADING`, another value read than written, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! By default a client waits for its connection to come back, however long that takes; a run does not. A client without a
//! `ReconnectPolicy` is dead for good once its connection is lost, though it still reports itself as connected: it is DOWN
//! until the process is restarted.
//!
//! What a run costs the server: one pipelined `SET` and `GET` on each connection. No connection is opened while the server
//! responds. While it is silent for longer than twice the longest run before, and at least 300 ms, a TCP connection is opened
//! and closed, at most every 2 s.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use fred::{
    clients::{Client, Pool},
    error::{Error, ErrorKind},
    interfaces::{ClientLike as _, EventInterface as _, KeysInterface as _},
    types::{
        Expiration,
        config::{Options, Server},
    },
};
use futures_util::future::{join_all, try_join_all};
use tokio::{
    net::TcpStream,
    sync::{
        Mutex,
        broadcast::{Receiver, error::TryRecvError},
    },
    time::timeout,
};

use super::{driver::Address, key, one_at_a_time::OneAtATime, support::reachability::Reachability};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{DynProbe, Probe},
};

/// How long a written value is kept.
const EXPIRY_MS: i64 = 10_000;

/// How long a client may take to connect: a few round trips to a server that is far away, in which it refuses every command.
const CONNECTING: Duration = Duration::from_millis(550);

/// How long a client that failed to connect may take to report the reason.
const NEXT_REASON: Duration = Duration::from_millis(100);

/// How many keys a cluster is asked for.
const KEYS: usize = 16;

impl Probe for Client {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        ClientsProbe::new([self]).probe().await
    }

    fn resource(&self) -> Option<String> {
        Some(name(&servers(self)))
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(ClientsProbe::new([self])))
    }
}

impl Probe for Pool {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        ClientsProbe::new(self.clients()).probe().await
    }

    fn resource(&self) -> Option<String> {
        self.clients().first().map(|client| name(&servers(client)))
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(ClientsProbe::new(self.clients())))
    }
}

impl From<Error> for ProbeError {
    fn from(error: Error) -> Self {
        Self::from_error(error)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    AsWritten,
    Other,
}

/// The clients of a pool, or a single one, and what the runs of their check know of the server.
struct ClientsProbe {
    connections: Vec<Connection>,
    reachability: Reachability,
}

/// A client, and what its check keeps.
struct Connection {
    client: Client,
    /// The same ones in each round, so that the same nodes of a cluster are asked.
    keys: Vec<String>,
    /// fred keeps what it has sent until there is an answer, whoever has given it up.
    under_way: OneAtATime<Result<Vec<Answer>, Error>>,
    /// Why it does not connect: a command is only told that there is no connection.
    reasons: Mutex<Reasons>,
}

struct Reasons {
    told: Receiver<(Error, Option<Server>)>,
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

    async fn asked(&self) -> Result<Answer, Error> {
        let answers = try_join_all(self.connections.iter().map(Connection::asked)).await?;
        Ok(answers.into_iter().find(|answer| *answer == Answer::Other).unwrap_or(Answer::AsWritten))
    }

    /// Why no server can be connected to, if none can.
    async fn refusal(&self) -> Option<Error> {
        let refused = self
            .servers()
            .into_iter()
            .map(async |server| TcpStream::connect((server.host.as_str(), server.port)).await.err());
        let refused: Option<Vec<_>> = join_all(refused).await.into_iter().collect();
        refused?.into_iter().next().map(Error::from)
    }
}

impl DynProbe for ClientsProbe {
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async {
            let answer = self.reachability.or_refusal(self.asked(), || self.refusal()).await;
            let name = name(&self.servers());
            match answer {
                Ok(Answer::AsWritten) => Ok(()),
                Ok(Answer::Other) => {
                    Err(ProbeError::new(ProbeErrorKind::Failed, ProbeErrorKind::Failed.message(&name))
                        .with_source("the value read is not the value written"))
                }
                Err(error) => {
                    let kind = classify(&error);
                    let password = self.connections.first().and_then(|kept| kept.client.client_config().password);
                    Err(ProbeError::new(kind, kind.message(&name)).with_source(error).with_secret(password))
                }
            }
        })
    }

    fn resource(&self) -> Option<String> {
        Some(name(&self.servers()))
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

impl Connection {
    fn new(client: &Client) -> Self {
        let prefix = key::fresh();
        let keys = if client.client_config().server.is_clustered() { KEYS } else { 1 };
        Self {
            client: client.clone(),
            keys: (0..keys).map(|number| format!("{prefix}:{number}")).collect(),
            under_way: OneAtATime::that_may_be_lost(),
            reasons: Mutex::new(Reasons { told: client.error_rx(), last: None }),
        }
    }

    async fn asked(&self) -> Result<Answer, Error> {
        let (client, keys) = (self.client.clone(), self.keys.clone());
        let question = async move { try_join_all(keys.iter().map(|key| ask(&client, key))).await };
        if !self.client.is_connected() {
            // Whether it has succeeded, the command shows.
            let _ = timeout(CONNECTING, self.client.wait_for_connect()).await;
        }
        let answers = self.under_way.answer(question).await;
        let mut reasons = self.reasons.lock().await;
        reasons.read();
        match answers {
            Ok(answers) => {
                reasons.last = None;
                Ok(if answers.contains(&Answer::Other) { Answer::Other } else { Answer::AsWritten })
            }
            // There is no connection, and that is all that the command knows.
            Err(error) if *error.kind() == ErrorKind::Canceled => Err(reasons.last().await.unwrap_or(error)),
            Err(error) => Err(error),
        }
    }
}

impl Reasons {
    /// Reads what was told meanwhile.
    fn read(&mut self) {
        loop {
            match self.told.try_recv() {
                Ok((error, _)) => self.last = Some(error),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Closed | TryRecvError::Empty) => return,
            }
        }
    }

    /// Why the client last failed to connect since it was connected, or why it does so now.
    async fn last(&mut self) -> Option<Error> {
        if self.last.is_none()
            && let Ok(Ok((error, _))) = timeout(NEXT_REASON, self.told.recv()).await
        {
            self.last = Some(error);
        }
        self.last.clone()
    }
}

/// Writes and reads back.
async fn ask(client: &Client, key: &str) -> Result<Answer, Error> {
    let nonce = key::nonce().to_string();
    // A question that nobody waits for any more is not to be sent later.
    let options = Options { fail_fast: true, max_attempts: Some(1), ..Options::default() };
    let asked = client.pipeline().with_options(&options);
    let expires = Some(Expiration::PX(EXPIRY_MS));
    let () = asked.set(key, nonce.as_str(), expires, None, false).await?;
    let () = asked.get(key).await?;
    let ((), read): ((), Option<String>) = asked.all().await?;
    Ok(if read.as_deref() == Some(nonce.as_str()) { Answer::AsWritten } else { Answer::Other })
}

/// Where a client looks for its server, its cluster or its sentinels.
fn servers(client: &Client) -> Vec<Address> {
    let servers = client.client_config().server.hosts();
    // A socket has a path, and the port 0.
    servers
        .into_iter()
        .filter(|server| server.port != 0)
        .map(|server| Address { host: server.host.to_string(), port: server.port })
        .collect()
}

fn name(servers: &[Address]) -> String {
    match servers {
        [server] => format!("redis at {server}"),
        _ => "redis".to_owned(),
    }
}

/// The kind of an error, by its kind, or by the code that the server's words begin with.
pub(crate) fn classify(error: &Error) -> ProbeErrorKind {
    match error.kind() {
        ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Sentinel => ProbeErrorKind::Unreachable,
        ErrorKind::Auth => ProbeErrorKind::Rejected,
        ErrorKind::Timeout => ProbeErrorKind::TimedOut,
        _ => match error.details().split(' ').next() {
            Some("READONLY" | "OOM" | "MISCONF" | "NOREPLICAS") => ProbeErrorKind::ReadOnly,
            Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED") => ProbeErrorKind::Rejected,
            _ => ProbeErrorKind::Failed,
        },
    }
}
