//! `async_nats::Client` and its JetStream context, and how errors of async-nats are told apart.
//!
//! Of a `Client` each round sends itself a message: it subscribes to an inbox of its own, publishes a fresh value to it and
//! waits for that, in one round trip. So the server has to route, and who subscribes to `>` changes nothing. Who is let at
//! some subjects only needs to publish and subscribe under its own inbox prefix, by default `_INBOX.>`. A client that wants
//! none of its own messages back (`no_echo`) gets the server's word instead that nobody listens; unless somebody does, with
//! `>`: such a client needs a check of its own. A `flush` would not do: async-nats only writes to the socket for it.
//!
//! Of a [`Context`] each round asks for the account's state, by the context's own prefix or domain. The server answers that
//! if JetStream is on for the account and, in a cluster, has a leader. Permission: `$JS.API.INFO`.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | not connected: refused, reset, no such host, wrong password | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no permission for the question | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | JetStream: no answer within the context's own time | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | JetStream: off, off for the account, without a leader; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! A client that has lost its connection connects anew by itself, and keeps what it is told to send until then. Why it can't
//! connect, and that a permission is missing, it tells its events alone. So nothing is asked while it is not connected; the
//! server's port is tried on the side, for the log; and a wrong password looks as if there were no server. A client that never
//! was connected does not tell where to, and where it has several servers, no message names one.
//!
//! What a run costs the server: one message to an inbox, or one request. While the client is not connected, a TCP connection is
//! opened and closed, at most every 2 s; while it is, none is opened.

use std::{
    future::Future,
    hash::{BuildHasher as _, RandomState},
    io,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::{
    Client, ConnectError, ConnectErrorKind, PublishError, PublishErrorKind, Request, RequestError, RequestErrorKind,
    connection::State,
    jetstream::{
        context::{self, Context},
        response::Response,
    },
};
use futures_util::future::{Either, join, select};
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    driver::{Address, PATIENCE},
    support::reachability::Reachability,
};
use crate::{
    error::{BoxError, ProbeError, ProbeErrorKind},
    probe::{DynProbe, Probe},
};

/// How often a client is looked at while its connection matters; it has nothing to wait for.
const LOOK: Duration = Duration::from_millis(10);

/// How long a client may take to be connected for the first time.
const FIRST_CONNECTION: Duration = Duration::from_millis(600);

impl Probe for Client {
    const GROUP: &'static str = "queue";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        Kept::new(self.clone()).ask().await
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(Kept::new(self.clone())))
    }
}

impl Probe for Context {
    const GROUP: &'static str = "queue";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        Kept::new(self.clone()).ask().await
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(Kept::new(self.clone())))
    }
}

/// What can be asked.
trait Handle: Send + Sync + 'static {
    /// What messages call it.
    const WORD: &'static str;

    fn client(&self) -> Client;

    fn question(&self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Why there is no answer, before it has a public message.
struct Failure {
    kind: ProbeErrorKind,
    source: BoxError,
}

impl Failure {
    fn new(kind: ProbeErrorKind, source: impl Into<BoxError>) -> Self {
        Self { kind, source: source.into() }
    }
}

impl Handle for Client {
    const WORD: &'static str = "nats";

    fn client(&self) -> Client {
        self.clone()
    }

    async fn question(&self) -> Result<(), Failure> {
        let inbox = self.new_inbox();
        let nonce = RandomState::new().hash_one(&inbox).to_string();
        // The inbox is where it goes, and where answers would go to: a server that must not send it back says so there.
        let request = Request::new().payload(nonce.clone().into()).inbox(inbox.clone()).timeout(None);
        match self.send_request(inbox, request).await {
            Ok(message) if message.payload == nonce.as_bytes() => Ok(()),
            Ok(_) => Err(Failure::new(ProbeErrorKind::Failed, "the message received is not the message sent")),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
            Err(error) => Err(Failure::new(classify_request(&error), error)),
        }
    }
}

impl Handle for Context {
    const WORD: &'static str = "jetstream";

    fn client(&self) -> Client {
        Self::client(self)
    }

    async fn question(&self) -> Result<(), Failure> {
        // What `query_account` sends. That reads more of the answer than servers before 2.10 tell.
        match self.request::<_, _, Response<IgnoredAny>>("INFO", b"").await {
            Ok(Response::Ok(IgnoredAny)) => Ok(()),
            Ok(Response::Err { error }) => Err(Failure::new(ProbeErrorKind::Failed, error)),
            Err(error) => Err(Failure::new(classify_jetstream(&error), error)),
        }
    }
}

/// A handle, and where its client last said that it connects to: it does not while it has no connection.
struct Kept<H> {
    handle: H,
    address: Mutex<Option<(String, u16)>>,
    reachability: Reachability,
}

impl<H: Handle> Kept<H> {
    fn new(handle: H) -> Self {
        Self { handle, address: Mutex::default(), reachability: Reachability::new() }
    }

    async fn asked(&self) -> Result<(), Failure> {
        let client = self.handle.client();
        loop {
            self.connected(&client).await?;
            let connects = connects(&client);
            // In this order: what answers the question has told the servers before.
            let asked = pin!(join(self.look_at_servers(&client), self.handle.question()));
            let lost = pin!(async {
                while is_connected(&client) && self::connects(&client) == connects {
                    sleep(LOOK).await;
                }
            });
            match select(asked, lost).await {
                Either::Left((((), answer), _)) => return answer,
                // Nobody will answer any more; the client connects anew, and so we ask anew.
                Either::Right(_) => {}
            }
        }
    }

    /// Waits a little for the client to be connected. What is asked before would be sent once it is, over and over.
    async fn connected(&self, client: &Client) -> Result<(), Failure> {
        let connected = async {
            while !is_connected(client) {
                sleep(LOOK).await;
            }
        };
        // The first connection to a server that is far away takes a few round trips.
        let patience = if connects(client) == 0 { FIRST_CONNECTION } else { PATIENCE };
        if timeout(patience, connected).await.is_ok() {
            return Ok(());
        }
        let refused = match self.address() {
            Some(Address { host, port }) => {
                let refusal = async { TcpStream::connect((host, port)).await.err() };
                self.reachability.refusal(refusal).await
            }
            None => None,
        };
        let state = client.connection_state();
        let source = refused.unwrap_or_else(|| {
            io::Error::new(io::ErrorKind::NotConnected, format!("the client is {state}: its events say why"))
        });
        Err(Failure::new(ProbeErrorKind::Unreachable, source))
    }

    async fn look_at_servers(&self, client: &Client) {
        let Ok(servers) = client.server_pool().await else { return };
        let mut configured = servers.iter().filter(|server| !server.is_discovered);
        let address = match (configured.next(), configured.next()) {
            (Some(server), None) => Some((server.addr.host().to_owned(), server.addr.port())),
            _ => None,
        };
        *self.address.lock() = address;
    }

    fn address(&self) -> Option<Address> {
        let address = self.address.lock();
        address.clone().map(|(host, port)| Address { host, port })
    }

    fn name(&self) -> String {
        self.address().map_or_else(|| H::WORD.to_owned(), |address| format!("{} at {address}", H::WORD))
    }
}

impl<H: Handle> DynProbe for Kept<H> {
    fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async {
            self.asked().await.map_err(|Failure { kind, source }| {
                ProbeError::new(kind, kind.message(&self.name())).with_source(source)
            })
        })
    }

    fn resource(&self) -> Option<String> {
        Some(self.name())
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

fn is_connected(client: &Client) -> bool {
    client.connection_state() == State::Connected
}

fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

/// The kind of an error of async-nats, by its type and kind.
pub(crate) fn classify(error: &(dyn std::error::Error + 'static)) -> Option<ProbeErrorKind> {
    if let Some(error) = error.downcast_ref() {
        return Some(classify_request(error));
    }
    if let Some(error) = error.downcast_ref() {
        return Some(classify_jetstream(error));
    }
    if let Some(error) = error.downcast_ref::<ConnectError>() {
        return Some(match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Tls => {
                ProbeErrorKind::Rejected
            }
            ConnectErrorKind::Dns | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
                ProbeErrorKind::Unreachable
            }
            ConnectErrorKind::TimedOut => ProbeErrorKind::TimedOut,
            ConnectErrorKind::ServerParse => ProbeErrorKind::Failed,
        });
    }
    let error = error.downcast_ref::<PublishError>()?;
    Some(if error.kind() == PublishErrorKind::Send { ProbeErrorKind::Unreachable } else { ProbeErrorKind::Failed })
}

fn classify_request(error: &RequestError) -> ProbeErrorKind {
    match error.kind() {
        RequestErrorKind::TimedOut => ProbeErrorKind::TimedOut,
        // The client was closed.
        RequestErrorKind::Other => ProbeErrorKind::Unreachable,
        RequestErrorKind::NoResponders | RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
            ProbeErrorKind::Failed
        }
    }
}

fn classify_jetstream(error: &context::RequestError) -> ProbeErrorKind {
    match error.kind() {
        context::RequestErrorKind::TimedOut => ProbeErrorKind::TimedOut,
        _ => ProbeErrorKind::Failed,
    }
}

/// So that `?` does it.
macro_rules! into_probe_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for ProbeError {
            fn from(error: $error) -> Self {
                Self::from_error(error)
            }
        }
    )*};
}

into_probe_errors!(ConnectError, PublishError, RequestError, context::RequestError);
