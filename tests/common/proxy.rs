//! A TCP proxy between the application and a server, to break what is between them.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::AbortHandle,
    time::sleep,
};

/// What happens to what goes through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Every piece comes so much later.
    Delay(Duration),
    /// Connections are accepted, and nothing ever comes through: not on those that lost something, even when all is mended.
    Swallow,
    /// Connections that were open before are dead without knowing it; new ones work.
    Forget,
    /// Connections, old and new, are reset.
    Cut,
    /// Half of each answer comes, then the connection is reset.
    CutMidAnswer,
    /// Answers are other bytes than the server sent.
    Garble,
}

/// A running proxy. Its connections end when it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    fault: watch::Sender<Fault>,
    task: AbortHandle,
}

impl Proxy {
    /// In front of a server on this machine.
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (fault, faults) = watch::channel(Fault::None);
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                tokio::spawn(serve(client, ([127, 0, 0, 1], server).into(), faults.clone()));
            }
        });
        Self { port, fault, task: task.abort_handle() }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(client: TcpStream, server: SocketAddr, mut faults: watch::Receiver<Fault>) {
    let fault = *faults.borrow_and_update();
    if fault == Fault::Cut {
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // Opened while connections are forgotten: this one is not.
    let is_new = fault == Fault::Forget;
    let _ = client.set_zero_linger();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let is_dead = AtomicBool::new(false);
    let up = pump(from_client, to_server, faults.clone(), is_new, &is_dead, false);
    let down = pump(from_server, to_client, faults, is_new, &is_dead, true);
    // When one direction ends so does the connection: what is dropped here is reset.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut faults: watch::Receiver<Fault>,
    is_new: bool,
    is_dead: &AtomicBool,
    answers: bool,
) {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let fault = *faults.borrow_and_update();
        if fault == Fault::Cut {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut piece) => read,
            changed = faults.changed() => if changed.is_ok() { continue } else { return },
        };
        let Ok(length @ 1..) = read else { return };
        let piece = &mut piece[..length];
        let written = match fault {
            // What TCP lost it sends again, or the connection is dead: it never goes on behind a gap.
            _ if is_dead.load(Ordering::Relaxed) => continue,
            Fault::Swallow => {
                is_dead.store(true, Ordering::Relaxed);
                continue;
            }
            Fault::Forget if !is_new => {
                is_dead.store(true, Ordering::Relaxed);
                continue;
            }
            Fault::Delay(time) => {
                sleep(time).await;
                to.write_all(piece).await
            }
            Fault::CutMidAnswer if answers => {
                let _ = to.write_all(&piece[..length / 2]).await;
                return;
            }
            Fault::Garble if answers => {
                for byte in piece.iter_mut() {
                    *byte ^= 0x55;
                }
                to.write_all(piece).await
            }
            _ => to.write_all(piece).await,
        };
        if written.is_err() {
            return;
        }
    }
}
