//! Stub servers in a thread of the test: TCP, HTTP and TLS.

use std::{
    future::Future,
    net::Ipv4Addr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::{oneshot, watch},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use crate::common::servers::{FaultInjection, free_port};

/// An HTTP response.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Page {
    /// With `Authorization: Basic` of [`USER`](crate::common::USER) and [`PASSWORD`](crate::common::PASSWORD) 200 and `all is well`, else 401.
    Guarded,
    /// A status, a further line of the head, and a body.
    Plain(u16, &'static str, String),
    /// 200, and a body that begins with this text and never ends.
    Endless(&'static str),
    /// 200, and the first eleven bytes of a hundred: `all is well`.
    Unfinished,
    /// As [`Unfinished`](Self::Unfinished), and the connection is closed.
    CutBody,
    /// The connection is closed after each response, without a header that announces it.
    ClosesAfterwards,
    /// A head that never ends.
    EndlessHead,
    /// One byte of a good response every 200 ms.
    Slow,
    /// Another page, after this time.
    After(Duration, Box<Page>),
    Garbage,
    /// Accepts the connection and sends nothing.
    Silent,
    /// Closes the connection without a response.
    HangsUp,
}

/// The protocol of the server.
#[derive(Clone)]
pub(crate) enum Talk {
    /// Accepts, and waits until the client closes.
    Tcp,
    /// Sends a greeting first, as a mail server does.
    Greets,
    Http,
    /// HTTP over TLS.
    Tls(Arc<rustls::ServerConfig>),
}

/// The state that a server and its test share.
struct Shared {
    page: Mutex<Page>,
    talk: Mutex<Talk>,
    frozen: watch::Sender<bool>,
    accepted: AtomicU64,
    requests: AtomicU64,
    open: AtomicUsize,
    last_head: Mutex<String>,
}

impl Shared {
    async fn thawed(&self) {
        let _ = self.frozen.subscribe().wait_for(|frozen| !frozen).await;
    }
}

pub(crate) struct Stub {
    port: u16,
    shared: Arc<Shared>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Stub {
    /// Prepares a server without starting it.
    pub(crate) fn prepared(talk: Talk) -> Self {
        let shared = Shared {
            page: Mutex::new(Page::Guarded),
            talk: Mutex::new(talk),
            frozen: watch::Sender::new(false),
            accepted: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            last_head: Mutex::default(),
        };
        Self { port: free_port(), shared: Arc::new(shared), running: None }
    }

    pub(crate) fn start(talk: Talk) -> Self {
        let mut stub = Self::prepared(talk);
        stub.restart();
        stub
    }

    /// Starts an HTTP server with this page.
    pub(crate) fn page(page: Page) -> Self {
        let stub = Self::start(Talk::Http);
        stub.show(page);
        stub
    }

    /// Prepares an HTTP server that responds 200 to all requests.
    pub(crate) fn good() -> Self {
        let stub = Self::prepared(Talk::Http);
        stub.show(Page::Plain(200, "", "all is well".to_owned()));
        stub
    }

    pub(crate) fn show(&self, page: Page) {
        *self.shared.page.lock().unwrap() = page;
    }

    /// Changes the page, from the next connection on.
    pub(crate) fn talk(&self, talk: Talk) {
        *self.shared.talk.lock().unwrap() = talk;
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns how many connections it has accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Returns how many requests it has read, or TLS handshakes performed.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Returns how many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Returns the head of the last request.
    pub(crate) fn last_head(&self) -> String {
        self.shared.last_head.lock().unwrap().clone()
    }
}

impl FaultInjection for Stub {
    fn restart(&mut self) {
        assert!(self.running.is_none(), "stop it first");
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (port, shared) = (self.port, self.shared.clone());
        let thread = thread::spawn(move || {
            // All its connections end with the runtime.
            Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
                ready.send(()).unwrap();
                tokio::select! {
                    () = accept(listener, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().expect("its port is free");
        self.running = Some((stop, thread));
    }

    fn stop(&mut self) {
        let (stop, thread) = self.running.take().expect("it runs");
        drop(stop);
        thread.join().unwrap();
    }

    fn freeze(&self) {
        self.shared.frozen.send_replace(true);
    }

    fn resume(&self) {
        self.shared.frozen.send_replace(false);
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.stop();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    struct Open(Arc<Shared>);

    impl Drop for Open {
        fn drop(&mut self) {
            self.0.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    loop {
        shared.thawed().await;
        let Ok((stream, _)) = listener.accept().await else { return };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(shared.clone());
        tokio::spawn(async move {
            let shared = &open.0;
            // The system accepts connections of a frozen server.
            shared.thawed().await;
            let talk = shared.talk.lock().unwrap().clone();
            serve(stream, talk, shared).await;
        });
    }
}

async fn serve(mut stream: TcpStream, talk: Talk, shared: &Shared) {
    match talk {
        Talk::Tcp => while stream.read(&mut [0; 64]).await.is_ok_and(|length| length > 0) {},
        Talk::Greets => {
            let _ = stream.write_all(b"220 canary ESMTP\r\n").await;
            while stream.read(&mut [0; 64]).await.is_ok_and(|length| length > 0) {}
        }
        Talk::Http => http(stream, shared).await,
        Talk::Tls(config) => {
            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                http(stream, shared).await;
            }
        }
    }
}

async fn http(mut stream: impl AsyncRead + AsyncWrite + Unpin + Send, shared: &Shared) {
    while let Some(head) = head(&mut stream).await {
        shared.thawed().await;
        shared.requests.fetch_add(1, Ordering::SeqCst);
        shared.last_head.lock().unwrap().clone_from(&head);
        let page = shared.page.lock().unwrap().clone();
        if response(&mut stream, page, &head).await.is_none() {
            return;
        }
    }
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// Returns `None` at the end of the connection.
fn response<'a>(
    stream: &'a mut (impl AsyncWrite + Unpin + Send),
    page: Page,
    head: &'a str,
) -> Pin<Box<dyn Future<Output = Option<()>> + Send + 'a>> {
    /// Of `canaryuser:canary-5ecret`.
    const CREDENTIALS: &str = "authorization: Basic Y2FuYXJ5dXNlcjpjYW5hcnktNWVjcmV0\r\n";
    const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nall is well";

    Box::pin(async move {
        match page {
            Page::Guarded if head.contains(CREDENTIALS) => stream.write_all(GOOD.as_bytes()).await.ok(),
            Page::Guarded => response(stream, Page::Plain(401, "www-authenticate: Basic", String::new()), head).await,
            Page::Plain(status, line, body) => {
                let line = if line.is_empty() { String::new() } else { format!("{line}\r\n") };
                let head = format!("HTTP/1.1 {status} Canary\r\n{line}content-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.ok()
            }
            Page::Endless(begin) => {
                let head =
                    format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{begin}\r\n", begin.len());
                stream.write_all(head.as_bytes()).await.ok()?;
                let chunk = format!("{:x}\r\n{}\r\n", 4096, "x".repeat(4096));
                loop {
                    stream.write_all(chunk.as_bytes()).await.ok()?;
                }
            }
            Page::Unfinished => {
                let part = GOOD.replace("content-length: 11", "content-length: 100");
                stream.write_all(part.as_bytes()).await.ok()?;
                std::future::pending().await
            }
            Page::CutBody => {
                let part = GOOD.replace("content-length: 11", "content-length: 100");
                stream.write_all(part.as_bytes()).await.ok()?;
                None
            }
            Page::ClosesAfterwards => {
                stream.write_all(GOOD.as_bytes()).await.ok()?;
                stream.shutdown().await.ok()?;
                None
            }
            Page::EndlessHead => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await.ok()?;
                loop {
                    stream.write_all(format!("x-filler: {}\r\n", "x".repeat(1000)).as_bytes()).await.ok()?;
                }
            }
            Page::Slow => {
                for byte in GOOD.bytes() {
                    stream.write_all(&[byte]).await.ok()?;
                    stream.flush().await.ok()?;
                    sleep(Duration::from_millis(200)).await;
                }
                Some(())
            }
            Page::After(delay, page) => {
                sleep(delay).await;
                response(stream, *page, head).await
            }
            Page::Garbage => stream.write_all(b"220 canary ESMTP\r\n\r\n").await.ok(),
            Page::Silent => std::future::pending().await,
            Page::HangsUp => None,
        }
    })
}
