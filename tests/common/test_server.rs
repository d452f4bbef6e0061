//! An application under test: a real `HttpServer` on a free port, and optionally on a Unix socket.

use std::{net::SocketAddr, os::unix::net::UnixListener, path::Path, sync::Arc};

use actix_web::{App, HttpServer, dev::ServerHandle, web::ServiceConfig};

use super::{http, logs};

/// Adds the services of an application, once for each worker.
type Configure = dyn Fn(&mut ServiceConfig) + Send + Sync;

/// A running application. It is stopped when dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    handle: ServerHandle,
}

impl TestServer {
    /// Starts an application with the given number of workers.
    pub(crate) fn start(workers: usize, configure: impl Fn(&mut ServiceConfig) + Send + Sync + 'static) -> Self {
        Self::start_on(0, workers, configure)
    }

    /// Starts an application on a given port.
    pub(crate) fn start_on(
        port: u16,
        workers: usize,
        configure: impl Fn(&mut ServiceConfig) + Send + Sync + 'static,
    ) -> Self {
        Self::bind(port, None, workers, Arc::new(configure))
    }

    /// Starts an application that also listens on a Unix socket.
    pub(crate) fn start_at(
        socket: Option<&Path>,
        workers: usize,
        configure: impl Fn(&mut ServiceConfig) + Send + Sync + 'static,
    ) -> Self {
        Self::bind(0, socket, workers, Arc::new(configure))
    }

    // One type for all applications: the compiler generates code for each type of an `HttpServer`, which takes a second.
    fn bind(port: u16, socket: Option<&Path>, workers: usize, configure: Arc<Configure>) -> Self {
        logs::keep();
        let mut server = HttpServer::new(move || App::new().configure(|app| configure(app)))
            .on_connect(health::on_connect)
            .workers(workers)
            .disable_signals()
            .shutdown_timeout(0)
            .bind(("127.0.0.1", port))
            .unwrap();
        let address = server.addrs()[0];
        if let Some(socket) = socket {
            server = server.listen_uds(UnixListener::bind(socket).unwrap()).unwrap();
        }
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { address, handle }
    }

    /// Stops the application. Its state is dropped when this returns.
    #[allow(dead_code, reason = "only one of the two test binaries stops one before its end")]
    pub(crate) async fn stop(self) {
        self.handle.stop(false).await;
    }

    pub(crate) async fn get(&self, path: &str) -> http::Response {
        http::get(self.address, path).await
    }

    pub(crate) async fn health(&self) -> http::Response {
        self.get("/health").await
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}
