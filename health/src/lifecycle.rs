//! What a process knows of itself: whether its workers' event loops turn, and whether it is about to stop.

use std::{
    cell::RefCell,
    fmt,
    pin::pin,
    rc::{Rc, Weak},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::dev::ServerHandle;
use futures_util::future::{Either, select};
use tokio::{
    runtime::Handle,
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::{
    change,
    report::{Entry, milliseconds},
    runtime::Executor,
};

/// The longest time between two beats, and so between two wake-ups of a worker that has nothing else to do.
const BEAT: Duration = Duration::from_secs(1);

/// The shortest: a machine that is busy does not turn more often by itself.
const BRIEFEST_BEAT: Duration = Duration::from_millis(10);

/// The hearts of all workers that serve a scope, each at its number. Workers that stopped in good order have left.
static WORKERS: Mutex<Vec<Option<Arc<Heart>>>> = Mutex::new(Vec::new());

/// The time between two beats of every worker: what the most impatient scope of the process needs.
static PERIOD_MS: AtomicU64 = AtomicU64::new(1_000);

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    static OWN: RefCell<Weak<Heartbeat>> = const { RefCell::new(Weak::new()) };
}

/// When a worker's event loop turned last.
struct Heart {
    /// Since [`EPOCH`].
    turned_ms: AtomicU64,
    hastened: Notify,
}

/// The heartbeat of a worker, shared by all its scopes. When the last of them is gone, so is the worker.
pub(crate) struct Heartbeat {
    number: usize,
    heart: Arc<Heart>,
    beating: AbortHandle,
}

impl Heartbeat {
    /// The heartbeat of this worker, at least so often that a time of `stall` is told from an ordinary pause.
    pub(crate) fn of_this_worker(stall: Duration) -> Rc<Self> {
        let heartbeat = OWN.with_borrow_mut(|own| {
            own.upgrade().unwrap_or_else(|| {
                let heartbeat = Rc::new(Self::start());
                *own = Rc::downgrade(&heartbeat);
                heartbeat
            })
        });
        let period = milliseconds((stall / 4).clamp(BRIEFEST_BEAT, BEAT));
        if PERIOD_MS.fetch_min(period, Ordering::Relaxed) > period {
            workers().iter().flatten().for_each(|heart| heart.hastened.notify_one());
        }
        heartbeat
    }

    fn start() -> Self {
        let heart = Arc::new(Heart { turned_ms: AtomicU64::new(now_ms()), hastened: Notify::new() });
        let beating = Arc::clone(&heart);
        // On the runtime of the worker itself: it is that one's turning that is told.
        let beating = Handle::current().spawn(async move {
            loop {
                beating.beat();
                let period = Duration::from_millis(PERIOD_MS.load(Ordering::Relaxed));
                select(pin!(sleep(period)), pin!(beating.hastened.notified())).await;
            }
        });
        let mut workers = workers();
        let number = workers.iter().position(Option::is_none).unwrap_or_else(|| {
            workers.push(None);
            workers.len() - 1
        });
        workers[number] = Some(Arc::clone(&heart));
        Self { number, heart, beating: beating.abort_handle() }
    }

    /// Whether each worker's event loop has turned within `stall`. That of who asks turns, or it could not ask; and where it
    /// has only just begun to turn again itself, the process as a whole stood still, and the others get the time to beat.
    pub(crate) fn of_all_workers(&self, stall: Duration) -> Vec<Entry> {
        let allowed = milliseconds(stall).max(4 * PERIOD_MS.load(Ordering::Relaxed));
        let stood_still = self.heart.stands_ms() > allowed;
        self.heart.beat();
        let entry = |(number, heart): (usize, &Option<Arc<Heart>>)| {
            let stands_ms = heart.as_ref()?.stands_ms();
            let time = if stands_ms < 1_000 { format!("{stands_ms} ms") } else { format!("{} s", stands_ms / 1_000) };
            let error = format!("event loop blocked for {time}");
            let blocked = stands_ms > allowed && !stood_still;
            Some(Entry::plain("health", format!("worker.{number}"), blocked.then(|| error.into())))
        };
        workers().iter().enumerate().filter_map(entry).collect()
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.beating.abort();
        workers()[self.number] = None;
    }
}

impl Heart {
    fn stands_ms(&self) -> u64 {
        now_ms().saturating_sub(self.turned_ms.load(Ordering::Relaxed))
    }

    fn beat(&self) {
        self.turned_ms.store(now_ms(), Ordering::Relaxed);
    }
}

fn workers() -> MutexGuard<'static, Vec<Option<Arc<Heart>>>> {
    WORKERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> u64 {
    let epoch = *EPOCH;
    milliseconds(Instant::now().duration_since(epoch))
}

/// How many servers of this process are draining.
static DRAINING: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn is_draining() -> bool {
    DRAINING.load(Ordering::Acquire) > 0
}

/// Takes a server out of rotation before it stops: at SIGTERM, or at [`Drain::start`].
///
/// From then on `/health` and `/health/ready` of this process answer 503, so that load balancers and Kubernetes send their
/// requests elsewhere; `/health/live` answers as before. Open and new requests are served for the given time, which should
/// be a little longer than the time in which they notice: their period times their failure threshold. Then the server stops
/// gracefully. A second SIGTERM stops it at once.
///
/// Call [`disable_signals`](actix_web::HttpServer::disable_signals) on the `HttpServer`: else it has a handler of its own,
/// and stops accepting at SIGTERM. Without it, Ctrl-C ends the process as it ends any other.
///
/// # Examples
///
/// ```no_run
/// # use std::time::Duration;
/// # use actix_web::{App, HttpServer};
/// # #[actix_web::main] async fn main() -> std::io::Result<()> {
/// let server = HttpServer::new(|| App::new().service(health::scope()))
///     .disable_signals()
///     .bind(("0.0.0.0", 8080))?
///     .run();
/// health::drain(server.handle(), Duration::from_secs(15));
/// server.await
/// # }
/// ```
pub fn drain(server: ServerHandle, time: Duration) -> Drain {
    let drain = Drain { called: Arc::new(Notify::new()) };
    let called = Arc::clone(&drain.called);
    let runtime = match Executor::Global.runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the server cannot be drained, because the thread for it cannot be started: {error}");
            return drain;
        }
    };
    let mut sigterm = {
        let _entered = runtime.handle().enter();
        Sigterm::new()
    };
    let logger = Arc::clone(&runtime);
    runtime.spawn_background(async move {
        let cause = match select(pin!(called.notified()), pin!(sigterm.received())).await {
            Either::Left(_) => "Drain::start was called",
            Either::Right(_) => "received SIGTERM",
        };
        DRAINING.fetch_add(1, Ordering::AcqRel);
        change::happened();
        logger.defer(move || {
            tracing::info!("{cause}: draining: readiness is DOWN, and the server stops in {} s", time.as_secs_f32());
        });
        if let Either::Right(_) = select(pin!(sleep(time)), pin!(sigterm.received())).await {
            logger.defer(|| tracing::info!("received a second SIGTERM while draining: the server stops now"));
            server.stop(false).await;
        } else {
            server.stop(true).await;
        }
        DRAINING.fetch_sub(1, Ordering::AcqRel);
        change::happened();
    });
    drain
}

/// Begins a drain by hand: see [`drain`]. To drop it changes nothing.
#[derive(Clone)]
pub struct Drain {
    called: Arc<Notify>,
}

impl Drain {
    /// Begins the drain now, as SIGTERM does. Once it has begun, this does nothing.
    pub fn start(&self) {
        self.called.notify_one();
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").finish_non_exhaustive()
    }
}

/// The signal, where there is one and it can be had.
struct Sigterm {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Sigterm {
    #[cfg(unix)]
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};

        let signal = signal(SignalKind::terminate());
        if let Err(error) = &signal {
            tracing::error!(%error, "SIGTERM can't be listened for, so it does not begin a drain");
        }
        Self { signal: signal.ok() }
    }

    #[cfg(not(unix))]
    fn new() -> Self {
        Self {}
    }

    async fn received(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal {
            signal.recv().await;
            return;
        }
        std::future::pending::<()>().await;
    }
}
