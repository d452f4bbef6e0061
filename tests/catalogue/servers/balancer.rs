//! A TCP load balancer between a client and its servers, which leads new connections to another server while the old ones stay, delays
//! replies, and counts connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Builder,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

/// A running balancer.
pub(crate) struct Balancer {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    /// Its connections end when this is dropped.
    _running: oneshot::Sender<()>,
}

struct Shared {
    server: AtomicU16,
    delay_ms: AtomicU64,
    accepted: AtomicUsize,
}

impl Balancer {
    /// Starts a balancer in front of the server on this port.
    pub(crate) fn start(server: u16) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server: AtomicU16::new(server),
            delay_ms: AtomicU64::new(0),
            accepted: AtomicUsize::new(0),
        });
        let (running, stopped) = oneshot::channel();
        // A separate thread, which clients that block their thread do not block.
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                    let listener = TcpListener::from_std(listener).unwrap();
                    tokio::select! {
                        () = accept(listener, shared) => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        Self { port, shared, _running: running }
    }

    /// Leads new connections to the server on this port.
    pub(crate) fn lead_to(&self, server: u16) {
        self.shared.server.store(server, Ordering::SeqCst);
    }

    /// Delays each reply of the server, on every connection.
    pub(crate) fn delay_replies(&self, delay: Duration) {
        self.shared.delay_ms.store(delay.as_millis().try_into().unwrap(), Ordering::SeqCst);
    }

    /// Returns how many connections were opened.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(serve(client, Arc::clone(&shared)));
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", shared.server.load(Ordering::SeqCst))).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => {}
        () = delayed(from_server, to_client, shared) => {}
    }
}

/// Continues to read while a reply is delayed, as a long line does.
async fn delayed(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: Arc<Shared>) {
    let (send, mut receive) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            let delay = Duration::from_millis(shared.delay_ms.load(Ordering::SeqCst));
            let _ = send.send((Instant::now() + delay, piece[..length].to_vec()));
        }
    };
    let write = async {
        while let Some((due, piece)) = receive.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    // `read` drops the sender at its end, and `write` ends when all is written.
    tokio::join!(read, write);
}
