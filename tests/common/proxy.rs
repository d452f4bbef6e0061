//! A TCP proxy between the application and a server that injects faults.

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

/// A test that starts or stops a server blocks its thread, which must not block the connections of concurrent rows.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).thread_name("proxy").enable_all().build().unwrap());

/// What the proxy does to the connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Data is delayed by this time, in both directions.
    Delay(Duration),
    /// A network distance: each reply of the server is delayed by this time, also if several are in flight. Requests are not
    /// delayed, so this is the time of a round trip.
    Distance(Duration),
    /// Connections are accepted, and no data is forwarded. A connection that lost data stays dead after the fault.
    Blackhole,
    /// Connections that were open before are silently dead; new ones work.
    HalfOpen,
    /// Open and new connections are reset.
    Reset,
    /// Half of a response is forwarded, then the connection is reset.
    ResetMidResponse,
    /// The bytes of responses are altered.
    Corrupt,
}

/// A running proxy. Its connections end when it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    fault: watch::Sender<Fault>,
    route: Arc<Route>,
    task: AbortHandle,
}

/// The destination of new connections, and their number.
struct Route {
    server: AtomicU16,
    opened: AtomicU64,
}

impl Proxy {
    /// Starts a proxy in front of a server on this machine.
    pub(crate) async fn start(server: u16) -> Self {
        Self::start_with(server, Fault::None)
    }

    /// Starts a proxy with a fault that affects the first connection, too.
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

    /// Leads new connections to another server; open ones are not changed.
    pub(crate) fn lead_to(&self, server: u16) {
        self.route.server.store(server, Ordering::SeqCst);
    }

    /// How many connections were opened until now.
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
    /// Closed by the server or the client, after all data was forwarded.
    Closed,
    Reset,
}

async fn serve(client: TcpStream, server: u16, mut faults: watch::Receiver<Fault>) {
    let fault = *faults.borrow_and_update();
    if fault == Fault::Reset {
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // A connection that is opened during the fault is not affected.
    let is_new = fault == Fault::HalfOpen;
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
    answers: bool,
) -> End {
    let (under_way, mut arriving) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let arrive = async {
        while let Some((time, piece)) = arriving.recv().await {
            sleep_until(time).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(arrive);
    let end = tokio::select! {
        end = read(from, under_way, faults, is_new, is_dead, answers) => end,
        () = &mut arrive => return End::Closed,
    };
    if end == End::Closed || answers {
        arrive.await;
    }
    end
}

/// Forwards data until the end of the stream.
async fn read(
    from: &mut OwnedReadHalf,
    under_way: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
    mut faults: watch::Receiver<Fault>,
    is_new: bool,
    is_dead: &AtomicBool,
    answers: bool,
) -> End {
    let mut piece = vec![0; 64 * 1024];
    let arrive = |time: Instant, piece: &[u8]| {
        // The receiving connection has ended.
        let _ = under_way.send((time, piece.to_vec()));
    };
    loop {
        let fault = *faults.borrow_and_update();
        if fault == Fault::Reset {
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
            // TCP never continues after a gap, so a connection that lost data is dead.
            _ if is_dead.load(Ordering::Relaxed) => {}
            Fault::Blackhole => is_dead.store(true, Ordering::Relaxed),
            Fault::HalfOpen if !is_new => is_dead.store(true, Ordering::Relaxed),
            Fault::Delay(time) => {
                sleep(time).await;
                arrive(Instant::now(), piece);
            }
            Fault::Distance(time) if answers => arrive(now + time, piece),
            Fault::ResetMidResponse if answers => {
                arrive(now, &piece[..length / 2]);
                return End::Reset;
            }
            Fault::Corrupt if answers => {
                for byte in piece.iter_mut() {
                    *byte ^= 0x55;
                }
                arrive(now, piece);
            }
            _ => arrive(now, piece),
        }
    }
}
