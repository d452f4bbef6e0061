//! A proxy in front of a server that is far away: each reply comes later, and connections are counted.

#![allow(dead_code, reason = "each of the two test binaries uses a part of it")]

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
    time::sleep,
};

/// A running proxy. Its connections end when it is dropped.
pub(crate) struct Far {
    pub(crate) port: u16,
    opened: Arc<AtomicUsize>,
    settings: watch::Sender<Settings>,
    task: AbortHandle,
}

#[derive(Clone, Copy)]
struct Settings {
    /// How much later each reply comes.
    delay: Duration,
    /// New connections are reset.
    refuses: bool,
    /// That many connections, the first ones, are silent for ever, and stay open.
    silent: usize,
}

impl Far {
    /// In front of a server on this machine.
    pub(crate) async fn start(server: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (settings, seen) = watch::channel(Settings { delay, refuses: false, silent: 0 });
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                let earlier = count.fetch_add(1, Ordering::SeqCst);
                if seen.borrow().refuses {
                    let _ = client.set_zero_linger();
                    continue;
                }
                tokio::spawn(serve(client, server, earlier, seen.clone()));
            }
        });
        Self { port, opened, settings, task: task.abort_handle() }
    }

    /// How many connections were opened until now.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    /// From now on the connections that were opened until now are silent for ever; new ones work.
    pub(crate) fn silence(&self) {
        self.silence_first(self.opened());
    }

    /// Only the first ones are.
    pub(crate) fn silence_first(&self, connections: usize) {
        self.settings.send_modify(|settings| settings.silent = connections);
    }

    /// Whether new connections are reset.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.settings.send_modify(|settings| settings.refuses = refuses);
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(client: TcpStream, server: u16, earlier: usize, mut settings: watch::Receiver<Settings>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let delay = settings.borrow().delay;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut piece).await {
            if to_server.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
    };
    let replies = async {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_server.read(&mut piece).await {
            sleep(delay).await;
            if to_client.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
    };
    let silenced = async {
        drop(settings.wait_for(|settings| settings.silent > earlier).await);
    };
    tokio::select! {
        () = requests => {}
        () = replies => {}
        () = silenced => pending().await,
    }
}
