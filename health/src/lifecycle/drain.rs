//! [`drain`]: takes a server out of rotation before it stops.

use std::{
    fmt,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix_web::dev::ServerHandle;
use futures_util::future::{Either, select};
use tokio::{sync::Notify, time::sleep};

use super::workers;
use crate::{
    process::{DRAINED, DRAINING, DRAINING_AND_SERVING, generation},
    runtime::Executor,
};

/// Whether a server is draining, or has stopped after its drain and none is left. Then only a management server still responds, and
/// the process is out of rotation until it ends.
pub(crate) fn is_draining() -> bool {
    DRAINING.load(Ordering::Acquire) > 0 || (DRAINED.load(Ordering::Acquire) && workers::missing_workers().is_some())
}

/// Takes a server out of rotation at SIGTERM, or at [`Drain::start`], before it stops.
///
/// From then on, `/health` and `/health/ready` of this process respond with 503, so that load balancers and Kubernetes send
/// requests elsewhere; `/health/live` is not affected. The server keeps serving open and new requests for `time`, then stops
/// gracefully. A management server ([`serve`](crate::serve)) keeps serving, and reports the drain until the process ends. `time` should be a little longer than a balancer needs to notice: the period of its checks times their failure
/// threshold. A second SIGTERM stops the server at once.
///
/// Call [`disable_signals`](actix_web::HttpServer::disable_signals) on the `HttpServer`, because its own handler stops accepting
/// connections at SIGTERM; without it, the log has a warning when the workers end too early. Ctrl-C then ends the process without a
/// graceful stop.
///
/// If the thread for the drain cannot be started, that is logged, and SIGTERM is not handled.
///
/// # Examples
///
/// ```no_run
/// # use std::time::Duration;
/// # use actix_web::{App, HttpServer};
/// # #[actix_web::main] async fn main() -> std::io::Result<()> {
/// let server = HttpServer::new(|| App::new().service(health::scope().allow_empty()))
///     .disable_signals()
///     .bind(("0.0.0.0", 8080))?
///     .run();
/// health::drain(server.handle(), Duration::from_secs(15));
/// server.await
/// # }
/// ```
pub fn drain(server: ServerHandle, time: Duration) -> Drain {
    let drain = Drain { started: Arc::new(Notify::new()) };
    let started = Arc::clone(&drain.started);
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
        let cause = match select(pin!(started.notified()), pin!(sigterm.received())).await {
            Either::Left(_) => "Drain::start was called",
            Either::Right(_) => "received SIGTERM",
        };
        DRAINING.fetch_add(1, Ordering::AcqRel);
        DRAINING_AND_SERVING.fetch_add(1, Ordering::SeqCst);
        generation::bump();
        logger.defer(move || {
            tracing::info!("{cause}: draining: readiness is DOWN, and the server stops in {} s", time.as_secs_f32());
        });
        logger.defer(workers::warn_if_ended_before_drain);
        let is_cut_short = matches!(select(pin!(sleep(time)), pin!(sigterm.received())).await, Either::Right(_));
        DRAINING_AND_SERVING.fetch_sub(1, Ordering::SeqCst);
        if is_cut_short {
            logger.defer(|| tracing::info!("received a second SIGTERM while draining: the server stops now"));
            server.stop(false).await;
        } else {
            server.stop(true).await;
        }
        DRAINED.store(true, Ordering::Release);
        DRAINING.fetch_sub(1, Ordering::AcqRel);
        generation::bump();
    });
    drain
}

/// A handle to start a drain without a signal: see [`drain`]. Dropping it has no effect.
#[derive(Clone)]
pub struct Drain {
    started: Arc<Notify>,
}

impl Drain {
    /// Starts the drain now, as SIGTERM does. Has no effect if it has already started.
    pub fn start(&self) {
        self.started.notify_one();
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").finish_non_exhaustive()
    }
}

/// The stream of SIGTERM signals; empty on platforms without them, and if the handler cannot be installed.
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
            tracing::error!(%error, "unable to handle SIGTERM, so it does not start a drain: {error}");
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
