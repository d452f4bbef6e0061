//! [`serve`]: a scope on a thread and a listener of its own, which responds whatever the workers of the main server do.

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    pin::pin,
    sync::mpsc::{self, Sender},
    thread::{self, JoinHandle},
};

use actix_web::{
    App, HttpServer,
    dev::{Server, ServerHandle},
};
use futures_util::future::{Either, select};
use tokio::runtime::Builder;

use crate::scope::Scope;

/// Serves a scope on its own threads and addresses, so that it responds in time while every worker of the main server is busy or
/// blocked. `scope` may be called more than once.
///
/// All addresses are bound when this returns. It needs no runtime, so call it before the main `HttpServer` starts, or before a runtime
/// does. The server runs until [`ManagementServer::stop`] or the end of the process; it handles no signals, and
/// [`drain`](crate::drain) does not stop it.
///
/// A scope here sees no `app_data`: pass states with [`Scope::state`], resources and checks with [`Scope::check`]. It shares runs and
/// results with a scope of the main server that has the same states, checks and settings.
///
/// `/health/live` reports the workers of all other servers of the process whose `App` has a scope or a
/// [`heartbeat`](crate::heartbeat):
///
/// | workers | `/health/live` | `/health`, `/health/ready` | `/health/startup` |
/// | --- | --- | --- | --- |
/// | none has registered yet | 503 `health.workers` | 503 `health.workers` | 503 `health.workers` |
/// | registered | 503 if one is blocked | by the checks | by the checks |
/// | stopped after a [`drain`](crate::drain) | by the checks | 503 `health.drain` | by the checks |
/// | stopped without a drain | 503 `health.workers` | 503 `health.workers` | by the checks |
///
/// After a drain the process is about to end. Liveness stays `UP`, because a restart would interrupt what the process still has to
/// finish. Without a drain nothing serves the application any more, and a restart mends that. A process whose only `HttpServer` is that
/// of its health check, such as a consumer of a queue, needs no management server: it serves a [`scope`](crate::scope) on it.
///
/// # Errors
///
/// The setting of a scope is invalid (see [`Scope`]), an address cannot be resolved or bound, or the threads cannot be started. If one of
/// several addresses cannot be bound, none is: `localhost` therefore needs IPv6 where it resolves to `::1`, too. On Linux, `[::]`
/// includes IPv4, so `0.0.0.0` next to it is in use.
///
/// # Examples
///
/// ```no_run
/// use actix_web::{App, HttpServer};
///
/// # #[actix_web::main] async fn main() -> std::io::Result<()> {
/// health::serve(("0.0.0.0", 9000), health::scope)?;
/// HttpServer::new(|| App::new().service(health::heartbeat())).bind(("0.0.0.0", 8080))?.run().await
/// # }
/// ```
pub fn serve(
    addr: impl ToSocketAddrs,
    scope: impl Fn() -> Scope + Send + Clone + 'static,
) -> io::Result<ManagementServer> {
    scope()
        .validate()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("health scope: {error}")))?;
    let mut server = HttpServer::new(move || App::new().service(scope().on_management_server()))
        .workers(1)
        .shutdown_timeout(0)
        .disable_signals();
    let resolved = addr.to_socket_addrs().map_err(|error| {
        io::Error::new(error.kind(), format!("management server: unable to resolve the address: {error}"))
    })?;
    for addr in resolved {
        server = server.bind(addr).map_err(|error| {
            io::Error::new(error.kind(), format!("management server: unable to listen on {addr}: {error}"))
        })?;
    }
    let addrs = server.addrs();
    if addrs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "management server: there is no address to listen on"));
    }
    let server = server.run();
    let handle = server.handle();
    let (started, start) = mpsc::channel();
    let thread = thread::Builder::new().name("health-management".to_owned()).spawn(move || run(server, &started))?;
    match start.recv() {
        Ok(result) => result?,
        Err(_) => return Err(io::Error::other("management server: its thread panicked while it started")),
    }
    Ok(ManagementServer { addrs, handle, thread })
}

/// A handle to the server of [`serve`]. Dropping it does not stop the server.
pub struct ManagementServer {
    addrs: Vec<SocketAddr>,
    handle: ServerHandle,
    thread: JoinHandle<()>,
}

impl ManagementServer {
    /// The addresses that the server listens on. Where it was started with port 0, they have the port that the system chose.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Stops the server. When this returns, its listeners are closed, and its addresses can be bound again; open connections are closed
    /// without waiting for their responses.
    ///
    /// It blocks the thread for a moment, and may be called in async code, because the server does not run on the runtime of the caller.
    pub fn stop(self) {
        // The call sends the command; the future only waits for its end.
        drop(self.handle.stop(false));
        // The panic hook has printed a panic. There is then no listener either.
        let _ = self.thread.join();
    }
}

impl fmt::Debug for ManagementServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagementServer").field("addrs", &self.addrs).finish_non_exhaustive()
    }
}

/// Runs the server to its end. Reports when it has started its worker, or the error.
fn run(server: Server, started: &Sender<io::Result<()>>) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        // The server executes commands only after it has started. This one has no effect on a server that is not paused.
        let resumed = server.handle().resume();
        let result = match select(server, pin!(resumed)).await {
            Either::Left((result, _)) => {
                let _ = started.send(result);
                return;
            }
            Either::Right(((), server)) => {
                let _ = started.send(Ok(()));
                server.await
            }
        };
        if let Err(error) = result {
            tracing::error!(%error, "the management server of the health check has stopped: {error}");
        }
    });
}
