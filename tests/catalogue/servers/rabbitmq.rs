//! A RabbitMQ of the test's own, and the name service (epmd) that it needs: both end with it.

use std::{
    cell::RefCell,
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    rc::{Rc, Weak},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::common::{
    PASSWORD, USER,
    process::{Process, as_user, chown},
    servers::{FaultInjection, free_port},
};

/// The user that Debian's package makes.
const OWNER: &str = "rabbitmq";

/// Debian's wrappers in `/usr/sbin` are for the system's own RabbitMQ.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

pub(crate) struct RabbitMq {
    port: u16,
    /// Between nodes, and their tools.
    distribution: u16,
    /// Of epmd.
    names: u16,
    folder: TempDir,
    /// Dropped, and so ended, in this order.
    node: Option<Process>,
    epmd: Option<Process>,
}

impl RabbitMq {
    /// It is not started.
    pub(crate) fn prepared() -> Self {
        let folder = tempfile::Builder::new().prefix("health-").tempdir().unwrap();
        let port = free_port();
        let configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\ndefault_user = {USER}\ndefault_pass = {PASSWORD}\n\
             log.console = true\nlog.file = false\n"
        );
        fs::write(folder.path().join("rabbitmq.conf"), configuration).unwrap();
        chown(folder.path(), OWNER);
        Self { port, distribution: free_port(), names: free_port(), folder, node: None, epmd: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn runs(&self) -> bool {
        self.node.is_some()
    }

    pub(crate) fn url_with(&self, password: &str) -> String {
        url(password, self.port)
    }

    /// By way of a proxy on that port.
    pub(crate) fn url_at(port: u16) -> String {
        url(PASSWORD, port)
    }

    pub(crate) fn url(&self) -> String {
        self.url_with(PASSWORD)
    }

    /// Asks it by its own tool, and returns what that prints.
    pub(crate) fn control(&self, args: &[&str]) -> String {
        let node = self.node_name();
        let output = as_user(OWNER, "env")
            .args(self.environment())
            .args([&format!("{PROGRAMS}/rabbitmqctl"), "-q", "-n", &node])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "rabbitmqctl {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// How many bytes it received on the connections that it has.
    pub(crate) fn received(&self) -> u64 {
        let listed = self.control(&["list_connections", "--no-table-headers", "recv_oct"]);
        listed.lines().filter(|line| !line.is_empty()).map(|line| line.trim().parse::<u64>().unwrap()).sum()
    }

    /// No memory is enough any more; or again as by default.
    pub(crate) fn alarm(&self, on: bool) {
        let limit: &[&str] = if on { &["absolute", "1000"] } else { &["0.4"] };
        self.control(&[&["set_vm_memory_high_watermark"], limit].concat());
    }

    fn node_name(&self) -> String {
        format!("health-{}@localhost", self.port)
    }

    /// As arguments of `env`: nothing else of ours, and its cookie in its own folder.
    fn environment(&self) -> Vec<String> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let home = path("");
        let mut args = vec!["-i".to_owned(), "-C".to_owned(), home.clone()];
        args.extend([
            format!("HOME={home}"),
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            "LANG=C.UTF-8".to_owned(),
            format!("RABBITMQ_NODENAME={}", self.node_name()),
            format!("RABBITMQ_DIST_PORT={}", self.distribution),
            format!("ERL_EPMD_PORT={}", self.names),
            "ERL_EPMD_ADDRESS=127.0.0.1".to_owned(),
            format!("RABBITMQ_CONFIG_FILE={}", path("rabbitmq.conf")),
            format!("RABBITMQ_MNESIA_BASE={}", path("mnesia")),
            "RABBITMQ_LOGS=-".to_owned(),
            format!("RABBITMQ_ENABLED_PLUGINS_FILE={}", path("enabled_plugins")),
            format!("RABBITMQ_PID_FILE={}", path("pid")),
            // One scheduler that does not spin, and no other address than the loopback's.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
                .to_owned(),
            // The script becomes the server, instead of waiting for it: so that what is killed is the server.
            "RUNNING_UNDER_SYSTEMD=true".to_owned(),
        ]);
        args
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }
}

impl FaultInjection for RabbitMq {
    fn restart(&mut self) {
        assert!(self.node.is_none(), "stop it first");
        if self.epmd.is_none() {
            // The node would start one itself, which would outlive it.
            let args = ["-port", &self.names.to_string(), "-address", "127.0.0.1"].map(str::to_owned);
            let log = self.folder.path().join("epmd");
            self.epmd = Some(Process::start(OWNER, "epmd", &args, &log));
            let names = SocketAddr::from(([127, 0, 0, 1], self.names));
            let listens = || TcpStream::connect(names).is_ok();
            wait_for(listens, || format!("epmd does not start: {}", fs::read_to_string(&log).unwrap_or_default()));
        }
        let mut args = self.environment();
        args.push(format!("{PROGRAMS}/rabbitmq-server"));
        self.node = Some(Process::start(OWNER, "env", &args, &self.log()));
        let serves = || self.log_text().contains("Server startup complete");
        wait_for(serves, || format!("rabbitmq-server does not start: {}", self.log_text()));
    }

    fn stop(&mut self) {
        self.node.take().expect("it runs").stop("TERM");
    }

    fn freeze(&self) {
        self.node.as_ref().expect("it runs").freeze();
    }

    fn resume(&self) {
        self.node.as_ref().expect("it runs").resume();
    }
}

fn url(password: &str, port: u16) -> String {
    format!("amqp://{USER}:{password}@127.0.0.1:{port}/%2f")
}

fn wait_for(mut holds: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", otherwise());
        thread::sleep(Duration::from_millis(20));
    }
}

/// One RabbitMQ for all who ask on this thread while somebody holds it: it takes seconds to start.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<RabbitMq>>);

impl Shared {
    pub(crate) fn prepared() -> Self {
        thread_local!(static SHARED: RefCell<Weak<RefCell<RabbitMq>>> = const { RefCell::new(Weak::new()) });
        SHARED.with_borrow_mut(|shared| {
            Self(shared.upgrade().unwrap_or_else(|| {
                let rabbit = Rc::new(RefCell::new(RabbitMq::prepared()));
                *shared = Rc::downgrade(&rabbit);
                rabbit
            }))
        })
    }

    pub(crate) fn started() -> Self {
        let mut shared = Self::prepared();
        shared.restart();
        shared
    }

    pub(crate) fn with<T>(&self, ask: impl FnOnce(&RabbitMq) -> T) -> T {
        ask(&self.0.borrow())
    }
}

impl FaultInjection for Shared {
    /// Also when it runs already.
    fn restart(&mut self) {
        if !self.0.borrow().runs() {
            self.0.borrow_mut().restart();
        }
    }

    fn stop(&mut self) {
        self.0.borrow_mut().stop();
    }

    fn freeze(&self) {
        self.0.borrow().freeze();
    }

    fn resume(&self) {
        self.0.borrow().resume();
    }
}
