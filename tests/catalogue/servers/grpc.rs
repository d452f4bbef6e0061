//! A gRPC server of this process, on a runtime of its own.

use std::{
    net::SocketAddr,
    thread::{self, JoinHandle},
};

use tokio::{net::TcpListener, sync::oneshot};
use tonic::transport::{
    Channel,
    server::{Router, TcpIncoming},
};

/// Its connections are closed when it is dropped.
pub(crate) struct GrpcServer {
    address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    _abort: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl GrpcServer {
    pub(crate) fn start(router: Router) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, is_shutdown) = oneshot::channel::<()>();
        let (abort, is_aborted) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let incoming = TcpIncoming::from(TcpListener::from_std(listener).unwrap());
                let signal = async { is_shutdown.await.unwrap_or_default() };
                tokio::select! {
                    result = router.serve_with_incoming_shutdown(incoming, signal) => result.unwrap(),
                    _ = is_aborted => {}
                }
            });
        });
        Self { address, shutdown: Some(shutdown), _abort: abort, thread }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A channel that connects at the first request.
    pub(crate) fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy()
    }

    /// Begins a graceful shutdown.
    pub(crate) fn shut_down(&mut self) {
        drop(self.shutdown.take());
    }

    /// Whether the server has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}
