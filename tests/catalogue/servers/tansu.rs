//! A tansu for one test: a broker that speaks the protocol of Kafka, and stores everything in memory.
//!
//! Its own authentication cannot be used: this build does not offer PLAIN, stores no credentials, and accepts no token.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};

use super::tool;
use crate::common::{PASSWORD, USER, daemon::Daemon, servers::FaultInjection as _};

pub(crate) type Tansu = Daemon<Kind>;

pub(crate) struct Kind;

impl Tansu {
    /// Prepares a broker without starting it.
    pub(crate) fn prepared() -> Self {
        Self::advertised_at(None)
    }

    /// The same, for clients that connect to it by way of this address.
    fn advertised_at(address: Option<&str>) -> Self {
        let mut tansu = Self::new(Kind, "root", &tool("tansu/bin/tansu"));
        let url = |address: &str| format!("tcp://{address}");
        let own = tansu.address();
        tansu.add_args(&[
            "broker",
            "--listener-url",
            &url(&own),
            "--advertised-listener-url",
            &url(address.unwrap_or(&own)),
        ]);
        tansu
    }
}

/// A running tansu behind a proxy that authenticates each connection as Kafka does, by the mechanism PLAIN. The user is [`USER`], and the
/// password [`PASSWORD`] until another one is set.
pub(crate) struct Authenticating {
    pub(crate) address: String,
    password: watch::Sender<&'static str>,
    task: AbortHandle,
    _tansu: Tansu,
}

impl Authenticating {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut tansu = Tansu::advertised_at(Some(&address));
        tansu.restart();
        let (broker, password) = (tansu.address(), watch::Sender::new(PASSWORD));
        let passwords = password.clone();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(relay(client, broker.clone(), passwords.subscribe()));
            }
        });
        Self { address, password, task: task.abort_handle(), _tansu: tansu }
    }

    /// Sets the password, and closes all connections.
    pub(crate) fn set_password(&self, password: &'static str) {
        self.password.send_replace(password);
    }
}

impl Drop for Authenticating {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Relays a connection until the password is set.
async fn relay(mut client: TcpStream, broker: String, mut passwords: watch::Receiver<&'static str>) -> io::Result<()> {
    let password = *passwords.borrow_and_update();
    let mut broker = TcpStream::connect(broker).await?;
    let relay = async {
        authenticate(&mut client, &mut broker, password).await?;
        copy_bidirectional(&mut client, &mut broker).await.map(drop)
    };
    tokio::select! {
        result = relay => result,
        _ = passwords.changed() => Ok(()),
    }
}

/// Returns once the client has authenticated, or an error after the response that its credentials are wrong.
async fn authenticate(client: &mut TcpStream, broker: &mut TcpStream, password: &str) -> io::Result<()> {
    const SASL_HANDSHAKE: i16 = 17;
    const API_VERSIONS: i16 = 18;
    const SASL_AUTHENTICATE: i16 = 36;
    const SASL_AUTHENTICATION_FAILED: u8 = 58;

    let credentials = format!("\0{USER}\0{password}");
    loop {
        let request = receive(client).await?;
        let [key, version] = [0, 2].map(|at| i16::from_be_bytes([request[at], request[at + 1]]));
        let correlation = &request[4..8];
        match key {
            API_VERSIONS => {
                send(broker, &request).await?;
                send(client, &receive(broker).await?).await?;
            }
            // No error, and one mechanism.
            SASL_HANDSHAKE => send(client, &[correlation, b"\0\0\0\0\0\x01\0\x05PLAIN"].concat()).await?,
            SASL_AUTHENTICATE => {
                // From version 2 on there are tagged fields at the end, none of them.
                let is_flexible = version >= 2;
                let sent = if is_flexible { &request[..request.len() - 1] } else { &request[..] };
                let is_right = sent.ends_with(credentials.as_bytes());
                let error = [0, if is_right { 0 } else { SASL_AUTHENTICATION_FAILED }];
                // No message, no bytes, and the lifetime of the session.
                let rest: &[u8] =
                    if is_flexible { b"\0\x01\0\0\0\0\0\0\0\0\0" } else { b"\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0" };
                let head: &[u8] = if is_flexible { b"\0" } else { b"" };
                send(client, &[correlation, head, &error, rest].concat()).await?;
                return if is_right { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) };
            }
            _ => return Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::try_from(stream.read_u32().await?).unwrap()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    stream.write_u32(u32::try_from(message.len()).unwrap()).await?;
    stream.write_all(message).await
}
