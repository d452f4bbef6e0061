//! `async_nats::Client` and its JetStream context, and how errors of async-nats are classified.
//!
//! On a `Client`, each run sends itself a message in one round trip: it subscribes to an inbox of its own and publishes a unique value to
//! it, so the server has to route. Subscribers of `>` make no difference. Permission is needed only to publish and subscribe below the
//! inbox prefix, by default `_INBOX.>`. A client with `no_echo` gets the server's response that there are no subscribers instead, unless
//! there is one of `>`: then write a check of your own. A `flush` would not do, because async-nats only writes to the socket for it.
//!
//! On a [`Context`], each run requests the account's state, with the prefix or domain of the context. The server responds if JetStream is
//! enabled for the account and, in a cluster, has a leader. Permission: `$JS.API.INFO`.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | not connected: refused, reset, no such host, wrong password | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no permission for the subjects above | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | JetStream: no response within the context's own timeout | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | JetStream: disabled, disabled for the account, without a leader; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! A client that has lost its connection reconnects by itself, and sends then what was published meanwhile. So a run sends nothing while the
//! client is not connected. Only the client's events contain why it cannot connect, and that a permission is missing. For the log, the run
//! opens a TCP connection to the server; a wrong password is reported as a server that cannot be connected to. A client that was never
//! connected does not expose its address. With several servers, messages do not contain one.
//!
//! What a run costs the server: one message to an inbox, or one request. While the client is not connected, a TCP connection is opened and
//! closed at most every 2 s.

use std::{future::Future, io, pin::pin, sync::atomic::Ordering, time::Duration};

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
use tokio::time::{sleep, timeout};

use crate::{
    error::{BoxError, ProbeError, ProbeErrorKind},
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        support::{address::Address, hedge::HEDGE_DELAY, label::Label, reachability::Reachability, round_trip::nonce},
    },
};

library_probe! { "queue", Client => |client: &Client| HandleProbe::new(client.clone()) }
library_probe! { "queue", Context => |context: &Context| HandleProbe::new(context.clone()) }

/// How often the state of a client is read, which cannot be awaited.
const STATE_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long a run waits for the first connection of a client. To a far server it takes a few round trips.
const FIRST_CONNECT_TIMEOUT: Duration = Duration::from_millis(600);

/// A client or a context.
trait Handle: Send + Sync + 'static {
    /// What messages call the resource without an address.
    const LABEL: Label;

    fn client(&self) -> Client;

    fn query(&self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Why a run fails, before it has a public message.
struct Failure {
    kind: ProbeErrorKind,
    source: BoxError,
}

impl Failure {
    fn new(kind: ProbeErrorKind, source: impl Into<BoxError>) -> Self {
        Self { kind, source: source.into() }
    }
}

impl<E: Classify> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.classify(), error)
    }
}

impl Handle for Client {
    const LABEL: Label = Label::new("nats");

    fn client(&self) -> Client {
        self.clone()
    }

    async fn query(&self) -> Result<(), Failure> {
        let inbox = self.new_inbox();
        let nonce = nonce().to_string();
        // The inbox is also the reply subject, for the response of a server that does not echo the message.
        let request = Request::new().payload(nonce.clone().into()).inbox(inbox.clone()).timeout(None);
        match self.send_request(inbox, request).await {
            Ok(message) if message.payload == nonce.as_bytes() => Ok(()),
            Ok(_) => Err(Failure::new(ProbeErrorKind::Failed, "the message received is not the message sent")),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Handle for Context {
    const LABEL: Label = Label::new("jetstream");

    fn client(&self) -> Client {
        Self::client(self)
    }

    async fn query(&self) -> Result<(), Failure> {
        // As `query_account`, which fails to parse the response of servers before 2.10.
        match self.request::<_, _, Response<IgnoredAny>>("INFO", b"").await {
            Ok(Response::Ok(IgnoredAny)) => Ok(()),
            Ok(Response::Err { error }) => Err(Failure::new(ProbeErrorKind::Failed, error)),
            Err(error) => Err(error.into()),
        }
    }
}

/// A handle, and what its probe remembers between runs: a client exposes its address only while it is connected.
struct HandleProbe<H> {
    handle: H,
    address: Mutex<Option<Address>>,
    reachability: Reachability,
}

impl<H: Handle> HandleProbe<H> {
    fn new(handle: H) -> Self {
        Self { handle, address: Mutex::default(), reachability: Reachability::new() }
    }

    async fn query(&self) -> Result<(), Failure> {
        let client = self.handle.client();
        loop {
            self.wait_until_connected(&client).await?;
            let connects = connects(&client);
            // In this order, because the client processes them in order.
            let query = pin!(join(self.update_address(&client), self.handle.query()));
            let lost = pin!(async {
                while is_connected(&client) && self::connects(&client) == connects {
                    sleep(STATE_POLL_INTERVAL).await;
                }
            });
            match select(query, lost).await {
                Either::Left((((), result), _)) => return result,
                // There will be no response. The client reconnects, and the query is repeated.
                Either::Right(_) => {}
            }
        }
    }

    /// Waits for the client to be connected, because it would queue the messages of each run and send all of them later.
    async fn wait_until_connected(&self, client: &Client) -> Result<(), Failure> {
        let connected = async {
            while !is_connected(client) {
                sleep(STATE_POLL_INTERVAL).await;
            }
        };
        let limit = if connects(client) == 0 { FIRST_CONNECT_TIMEOUT } else { HEDGE_DELAY };
        if timeout(limit, connected).await.is_ok() {
            return Ok(());
        }
        let refused = match self.address() {
            Some(address) => self.reachability.refusal(address.refusal()).await,
            None => None,
        };
        let state = client.connection_state();
        let source = refused.unwrap_or_else(|| {
            io::Error::new(io::ErrorKind::NotConnected, format!("the client is {state}; its events contain the reason"))
        });
        Err(Failure::new(ProbeErrorKind::Unreachable, source))
    }

    async fn update_address(&self, client: &Client) {
        let Ok(servers) = client.server_pool().await else { return };
        let mut configured = servers.iter().filter(|server| !server.is_discovered);
        let address = match (configured.next(), configured.next()) {
            (Some(server), None) => Some(Address { host: server.addr.host().to_owned(), port: server.addr.port() }),
            _ => None,
        };
        *self.address.lock() = address;
    }

    fn address(&self) -> Option<Address> {
        self.address.lock().clone()
    }

    fn label(&self) -> Label {
        H::LABEL.at(self.address())
    }
}

impl<H: Handle> LibraryProbe for HandleProbe<H> {
    async fn probe(&self) -> Result<(), ProbeError> {
        self.query().await.map_err(|Failure { kind, source }| self.label().error_of_kind(kind, source))
    }

    fn resource(&self) -> Option<String> {
        Some(self.label().to_string())
    }
}

fn is_connected(client: &Client) -> bool {
    client.connection_state() == State::Connected
}

fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

impl Classify for RequestError {
    fn classify(&self) -> ProbeErrorKind {
        match self.kind() {
            RequestErrorKind::TimedOut => ProbeErrorKind::TimedOut,
            // The client was closed.
            RequestErrorKind::Other => ProbeErrorKind::Unreachable,
            RequestErrorKind::NoResponders
            | RequestErrorKind::InvalidSubject
            | RequestErrorKind::MaxPayloadExceeded => ProbeErrorKind::Failed,
        }
    }
}

impl Classify for context::RequestError {
    fn classify(&self) -> ProbeErrorKind {
        match self.kind() {
            context::RequestErrorKind::TimedOut => ProbeErrorKind::TimedOut,
            _ => ProbeErrorKind::Failed,
        }
    }
}

impl Classify for ConnectError {
    fn classify(&self) -> ProbeErrorKind {
        match self.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Tls => {
                ProbeErrorKind::Rejected
            }
            ConnectErrorKind::Dns | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
                ProbeErrorKind::Unreachable
            }
            ConnectErrorKind::TimedOut => ProbeErrorKind::TimedOut,
            ConnectErrorKind::ServerParse => ProbeErrorKind::Failed,
        }
    }
}

impl Classify for PublishError {
    fn classify(&self) -> ProbeErrorKind {
        if self.kind() == PublishErrorKind::Send { ProbeErrorKind::Unreachable } else { ProbeErrorKind::Failed }
    }
}
