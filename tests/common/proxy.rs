//! A TCP proxy between the application and a server, which injects faults.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};

/// The runtime of all proxies. Tests block their own threads while they start or stop a server, which must not block connections.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).thread_name("proxy").enable_all().build().unwrap());

/// The fault of connections through the proxy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Every chunk is delayed, and the next one is read after it was sent.
    Delay(Duration),
    /// Each reply of the server is delayed, independent of others in transit. Requests are not delayed, so this is the additional
    /// time of a round trip.
    Distance(Duration),
    /// Connections are accepted, and data is lost. A connection that has lost data stays dead when the fault is over.
    Swallow,
    /// Connections that were open before are silently dead. New connections work.
    Forget,
    /// Open and new connections are reset.
    Cut,
    /// The connection is reset after half of a reply.
    CutMidAnswer,
    /// The bytes of replies are corrupted.
    Garble,
}

/// A running proxy. Its connections end when it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    fault: watch::Sender<Fault>,
    route: Arc<Route>,
    task: AbortHandle,
}

/// The server of new connections, and their number.
struct Route {
    server: AtomicU16,
    opened: AtomicU64,
}

impl Proxy {
    /// Starts a proxy in front of a server on this machine.
    pub(crate) async fn start(server: u16) -> Self {
        Self::start_with(server, Fault::None)
    }

    /// Starts a proxy with a fault from the first connection on.
    pub(crate) fn start_with(server: u16, fault: Fault) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (fault, faults) = watch::channel(fault);
        let route = Arc::new(Route { server: server.into(), opened: 0.into() });
        let task = RUNTIME.spawn({
            let route = Arc::clone(&route);
            async move {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let Ok((client, _)) = listener.accept().await else { return };
                    route.opened.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(serve(client, route.server.load(Ordering::SeqCst), faults.clone()));
                }
            }
        });
        Self { port, fault, route, task: task.abort_handle() }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Sets the server of new connections. Open connections are unchanged.
    pub(crate) fn lead_to(&self, server: u16) {
        self.route.server.store(server, Ordering::SeqCst);
    }

    /// The number of connections that were opened so far, whether they failed or not.
    pub(crate) fn opened(&self) -> u64 {
        self.route.opened.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a connection ends.
#[derive(PartialEq)]
enum End {
    /// The server or the client closed it, and all data was transferred.
    Closed,
    Reset,
}

async fn serve(client: TcpStream, server: u16, mut faults: watch::Receiver<Fault>) {
    let fault = *faults.borrow_and_update();
    if fault == Fault::Cut {
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // Opened during the fault, which concerns only earlier connections.
    let is_new = fault == Fault::Forget;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let is_dead = AtomicBool::new(false);
    let end = tokio::select! {
        end = pump(&mut from_client, &mut to_server, faults.clone(), is_new, &is_dead, false) => end,
        end = pump(&mut from_server, &mut to_client, faults, is_new, &is_dead, true) => end,
    };
    if end == End::Reset {
        let _ = to_client.as_ref().set_zero_linger();
    }
}

async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    faults: watch::Receiver<Fault>,
    is_new: bool,
    is_dead: &AtomicBool,
    is_reply: bool,
) -> End {
    let (in_transit, mut arrivals) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let arrive = async {
        while let Some((time, piece)) = arrivals.recv().await {
            sleep_until(time).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(arrive);
    let end = tokio::select! {
        end = read(from, in_transit, faults, is_new, is_dead, is_reply) => end,
        () = &mut arrive => return End::Closed,
    };
    if end == End::Closed || is_reply {
        arrive.await;
    }
    end
}

/// Reads until the connection ends, and forwards what the fault does not drop.
async fn read(
    from: &mut OwnedReadHalf,
    in_transit: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
    mut faults: watch::Receiver<Fault>,
    is_new: bool,
    is_dead: &AtomicBool,
    is_reply: bool,
) -> End {
    let mut piece = vec![0; 64 * 1024];
    let arrive = |time: Instant, piece: &[u8]| {
        // It fails if the other side has ended.
        let _ = in_transit.send((time, piece.to_vec()));
    };
    loop {
        let fault = *faults.borrow_and_update();
        if fault == Fault::Cut {
            return End::Reset;
        }
        let read = tokio::select! {
            read = from.read(&mut piece) => read,
            changed = faults.changed() => if changed.is_ok() { continue } else { return End::Reset },
        };
        let length = match read {
            Ok(0) => return End::Closed,
            Ok(length) => length,
            Err(_) => return End::Reset,
        };
        let piece = &mut piece[..length];
        let now = Instant::now();
        match fault {
            // TCP has no gaps: after lost data, a connection transfers nothing.
            _ if is_dead.load(Ordering::Relaxed) => {}
            Fault::Swallow => is_dead.store(true, Ordering::Relaxed),
            Fault::Forget if !is_new => is_dead.store(true, Ordering::Relaxed),
            Fault::Delay(time) => {
                sleep(time).await;
                arrive(Instant::now(), piece);
            }
            Fault::Distance(time) if is_reply => arrive(now + time, piece),
            Fault::CutMidAnswer if is_reply => {
                arrive(now, &piece[..length / 2]);
                return End::Reset;
            }
            Fault::Garble if is_reply => {
                for byte in piece.iter_mut() {
                    *byte ^= 0x55;
                }
                arrive(now, piece);
            }
            _ => arrive(now, piece),
        }
    }
}
