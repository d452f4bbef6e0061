//! Clients of the crate `memcache`: `memcache::exp::AsyncMemcache`, `AsyncMetaClient` below it, and the blocking
//! `memcache::Client`.
//!
//! Each round writes fresh values that expire after 10 seconds, and reads them back, under keys that no other process has:
//! `health:` and more. Where there are several servers, each is asked, and one that fails is a failure: its keys are lost to the
//! application.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the server wants credentials that the client has not | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no answer within the client's own time | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | out of memory, where the server may not evict (`-M`) | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | another value read than written, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! An asynchronous client is asked for 16 keys in one round trip: which server a key belongs to it tells nobody, so that they
//! are many; of three servers one is left out once in 200 processes. The question does not pass by its policy: with
//! `degrade(true)` the application takes a dead server for an empty one, and the check does not. One that was given a limit of
//! connections does not tell how many are in use: where all are, for longer than the check may take, it is DOWN.
//!
//! A blocking client is asked on a thread where that harms nobody, and there is one such thread for a client, however long
//! it is blocked. By default it is so for as long as a frozen server is frozen, as are the application's own:
//! `with_read_timeout` ends that. A run takes four round trips to each server, one server after the other, because the client's
//! pool sends `version` before each use of a connection. How many connections are in use it does not tell: one that has none
//! to spare for longer than the check may take is DOWN.
//!
//! What a run costs a server: the commands above. No connection is opened outside the client while the servers respond. While
//! a run of a blocking client takes longer than twice the longest one before, and at least 300 ms, a TCP connection to each
//! server is opened and closed, at most every 2 s.

use std::{
    future::Future,
    io,
    panic::resume_unwind,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
};

use futures_util::future::{Either, select, select_ok};
use memcache::{
    Client, CommandError, MemcacheError, ServerError,
    exp::{AsyncMemcache, AsyncMetaClient, Error, Get, Op, OpResult, Set, Ttl},
};
use tokio::{
    net::TcpStream,
    sync::Mutex,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout},
};

use super::{
    key,
    support::{
        attempts::{INTERVAL, first_result},
        hedge::HedgeDelay,
        reachability::Reachability,
    },
};
use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    probe::{DynProbe, Probe},
};

/// How long a written value is kept.
const EXPIRY_S: u32 = 10;

/// How many keys an asynchronous client is asked for.
const KEYS: usize = 16;

#[derive(PartialEq)]
enum Answer {
    AsWritten,
    Other,
}

macro_rules! asynchronous {
    ($client:ty, $meta:expr) => {
        impl Probe for $client {
            const GROUP: &'static str = "cache";
            const NEVER_BLOCKS: bool = true;

            async fn probe(&self) -> Result<(), ProbeError> {
                Keys::new($meta(self)).ask().await
            }

            fn resource(&self) -> Option<String> {
                Some(name(&[]))
            }

            fn kept(&self) -> Option<Arc<dyn DynProbe>> {
                Some(Arc::new(Keys::new($meta(self))))
            }
        }
    };
}

asynchronous!(AsyncMemcache, |client: &AsyncMemcache| client.meta().clone());
asynchronous!(AsyncMetaClient, AsyncMetaClient::clone);

/// A client, and the keys that its check asks for: the same ones in each round, so that the same servers are asked.
struct Keys {
    client: AsyncMetaClient,
    keys: [String; KEYS],
    delay: HedgeDelay,
}

/// What a run on an asynchronous client found out.
enum Queried {
    RoundTrip(Answer),
    /// A connection is silent, and another one responds.
    SilentConnection,
}

impl Keys {
    fn new(client: AsyncMetaClient) -> Self {
        let prefix = key::fresh();
        let keys = std::array::from_fn(|number| format!("{prefix}:{number}"));
        Self { client, keys, delay: HedgeDelay::new() }
    }

    /// One round trip. If it is silent for longer than those before, a second one: the connections of the first are in use, so
    /// the client takes or opens others.
    async fn query(&self) -> Result<Queried, Error> {
        // Both write the same value, because they may overtake each other.
        let nonce = key::nonce().to_string();
        let started = Instant::now();
        let mut first = pin!(self.round_trip(&nonce));
        let result = match timeout(self.delay.get(), &mut first).await {
            Ok(result) => result,
            Err(_) => match select(first, pin!(first_result(INTERVAL, || self.round_trip(&nonce)))).await {
                Either::Left((result, _)) => result,
                Either::Right((Ok(Answer::AsWritten), _)) => return Ok(Queried::SilentConnection),
                Either::Right((Err(error), _)) if classify(&error) == ProbeErrorKind::Unreachable => Err(error),
                Either::Right((_, first)) => first.await,
            },
        };
        if result.is_ok() {
            self.delay.record(started.elapsed());
        }
        result.map(Queried::RoundTrip)
    }

    async fn round_trip(&self, nonce: &str) -> Result<Answer, Error> {
        let asked = self
            .keys
            .iter()
            .flat_map(|key| [Op::from(Set::new(key, nonce).ttl(Ttl::secs(EXPIRY_S))), Op::from(Get::new(key))]);
        for answer in self.client.run_batch(asked).await? {
            match answer? {
                OpResult::Mutation(written) if written.applied() => {}
                OpResult::Get(read) if read.value.as_deref() == Some(nonce.as_bytes()) => {}
                _ => return Ok(Answer::Other),
            }
        }
        Ok(Answer::AsWritten)
    }
}

impl DynProbe for Keys {
    fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async {
            match self.query().await {
                Ok(Queried::SilentConnection) => {
                    let message = "an idle connection to memcached does not respond, another one does";
                    Err(ProbeError::new(ProbeErrorKind::TimedOut, message).degraded())
                }
                Ok(Queried::RoundTrip(answer)) => public(Ok(answer), classify, &[]),
                Err(error) => public(Err(error), classify, &[]),
            }
        })
    }

    fn resource(&self) -> Option<String> {
        Some(name(&[]))
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

impl Probe for Client {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        Blocking::new(self.clone()).ask().await
    }

    fn resource(&self) -> Option<String> {
        Some(name(&[]))
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(Blocking::new(self.clone())))
    }
}

impl From<Error> for ProbeError {
    fn from(error: Error) -> Self {
        Self::from_error(error)
    }
}

impl From<MemcacheError> for ProbeError {
    fn from(error: MemcacheError) -> Self {
        Self::from_error(error)
    }
}

/// A blocking client, and the question that is under way, perhaps since a round that is over: then that one is waited for,
/// and no other thread is blocked.
struct Blocking {
    client: Arc<Servers>,
    reachability: Reachability,
    under_way: Mutex<Option<JoinHandle<Result<Answer, MemcacheError>>>>,
}

/// A client, and where its servers are, once they have said so.
struct Servers {
    client: Client,
    addresses: OnceLock<Vec<Option<String>>>,
}

impl Blocking {
    fn new(client: Client) -> Self {
        let client = Arc::new(Servers { client, addresses: OnceLock::new() });
        Self { client, reachability: Reachability::new(), under_way: Mutex::new(None) }
    }

    async fn asked(&self) -> Result<Answer, MemcacheError> {
        let mut under_way = self.under_way.lock().await;
        if let Some(earlier) = &mut *under_way {
            // One that has ended meanwhile tells of then, not of now.
            let answer = if earlier.is_finished() { None } else { earlier.await.ok() };
            *under_way = None;
            // What failed may be what was wrong then.
            if let Some(Ok(answer)) = answer {
                return Ok(answer);
            }
        }
        let client = Arc::clone(&self.client);
        let answer = under_way.insert(spawn_blocking(move || client.ask())).await;
        *under_way = None;
        answer.unwrap_or_else(|ended| match ended.try_into_panic() {
            Ok(payload) => resume_unwind(payload),
            Err(ended) => Err(io::Error::other(ended).into()),
        })
    }

    /// Why a server can't be connected to, if one can't: the client's pool says nothing while it tries again.
    async fn refusal(&self) -> Option<MemcacheError> {
        let refused = self.client.addresses().iter().flatten().map(|address| {
            Box::pin(async move {
                match TcpStream::connect(address).await {
                    Ok(_) => Err(()),
                    Err(error) => Ok(error),
                }
            })
        });
        let refused: Vec<_> = refused.collect();
        if refused.is_empty() {
            return None;
        }
        select_ok(refused).await.ok().map(|(error, _)| error.into())
    }
}

impl DynProbe for Blocking {
    fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async {
            let answer = self.reachability.or_refusal(self.asked(), || self.refusal()).await;
            public(answer, classify_blocking, self.client.addresses())
        })
    }

    fn resource(&self) -> Option<String> {
        Some(name(self.client.addresses()))
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

impl Servers {
    /// Blocks.
    fn ask(&self) -> Result<Answer, MemcacheError> {
        if self.addresses.get().is_none() {
            let versions = self.client.version()?;
            self.addresses.get_or_init(|| versions.iter().map(|(url, _)| address_of(url)).collect());
        }
        let servers = self.addresses().len();
        for server in 0..servers {
            let Some(key) = self.key_of(server, servers) else { continue };
            let nonce = key::nonce();
            self.client.set(&key, nonce, EXPIRY_S)?;
            if self.client.get::<u64>(&key)? != Some(nonce) {
                return Ok(Answer::Other);
            }
        }
        Ok(Answer::AsWritten)
    }

    fn addresses(&self) -> &[Option<String>] {
        self.addresses.get().map_or(&[], Vec::as_slice)
    }

    /// A key that the client keeps on the server of that number; none where its hash function sends none there.
    fn key_of(&self, server: usize, servers: usize) -> Option<String> {
        let prefix = key::fresh();
        let keys = (0..servers * KEYS).map(|number| format!("{prefix}:{number}"));
        #[allow(clippy::cast_possible_truncation, reason = "as the client does it")]
        keys.into_iter().find(|key| (self.client.hash_function)(key) as usize % servers == server)
    }
}

/// The `host:port` of a server's URL, which may hold a password; none of a Unix socket and of UDP, where a connection would
/// tell nothing.
fn address_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if scheme.contains("udp") || url.contains("udp=true") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    (!address.is_empty()).then(|| address.to_owned())
}

fn name(addresses: &[Option<String>]) -> String {
    match addresses {
        [Some(address)] => format!("memcached at {address}"),
        _ => "memcached".to_owned(),
    }
}

fn public<E>(
    answer: Result<Answer, E>,
    classify: fn(&E) -> ProbeErrorKind,
    addresses: &[Option<String>],
) -> Result<(), ProbeError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let name = name(addresses);
    match answer {
        Ok(Answer::AsWritten) => Ok(()),
        Ok(Answer::Other) => Err(ProbeError::new(ProbeErrorKind::Failed, ProbeErrorKind::Failed.message(&name))
            .with_source("the value read is not the value written")),
        Err(error) => {
            let kind = classify(&error);
            Err(ProbeError::new(kind, kind.message(&name)).with_source(error))
        }
    }
}

/// The kind of an error of the asynchronous clients.
pub(crate) fn classify(error: &Error) -> ProbeErrorKind {
    match error {
        Error::Io(error) => classify_io(error),
        Error::Timeout { .. } => ProbeErrorKind::TimedOut,
        // It was sent, and what came of it is not known.
        Error::Ambiguous { source, .. } => classify(source),
        // Words of the protocol: it has no codes.
        Error::Server(words) if words.starts_with("out of memory") => ProbeErrorKind::ReadOnly,
        Error::Rejected(words) if words.starts_with("unauthenticated") => ProbeErrorKind::Rejected,
        _ => ProbeErrorKind::Failed,
    }
}

/// The kind of an error of the blocking client.
pub(crate) fn classify_blocking(error: &MemcacheError) -> ProbeErrorKind {
    /// In the binary protocol.
    const OUT_OF_MEMORY: u16 = 0x82;

    match error {
        MemcacheError::IOError(error) => classify_io(error),
        // It gave up to connect, and says why only in words.
        MemcacheError::PoolError(_) => ProbeErrorKind::Unreachable,
        MemcacheError::CommandError(CommandError::AuthenticationRequired) => ProbeErrorKind::Rejected,
        MemcacheError::CommandError(CommandError::Unknown(OUT_OF_MEMORY)) => ProbeErrorKind::ReadOnly,
        MemcacheError::ServerError(ServerError::Error(words)) if words.contains("out of memory") => {
            ProbeErrorKind::ReadOnly
        }
        _ => ProbeErrorKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_url_has_no_credentials() {
        let address = |url| address_of(url);
        assert_eq!(address("memcache://user:p%40ss@[::1]:11211/?protocol=ascii").unwrap(), "[::1]:11211");
        assert_eq!(address("memcache+tls://cache.internal:11211?verify_mode=none").unwrap(), "cache.internal:11211");
        assert_eq!(address("memcache:///tmp/memcached.sock"), None);
        assert_eq!(address("memcache://127.0.0.1:11211?udp=true"), None);
    }
}
