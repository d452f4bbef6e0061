//! A RabbitMQ for one test, and the name service (epmd) that it needs. Both end with the test.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use crate::common::{
    PASSWORD, USER,
    daemon::Daemon,
    process::as_user,
    servers::{FaultInjection, free_port},
};

/// The user of Debian's package.
const OWNER: &str = "rabbitmq";

/// Debian's wrappers in `/usr/sbin` are for the system's own RabbitMQ.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

pub(crate) type RabbitMq = Daemon<Node>;

pub(crate) struct Node {
    /// The port between nodes and their tools.
    distribution: u16,
    epmd: Daemon<()>,
}

impl RabbitMq {
    /// Prepares a server without starting it.
    pub(crate) fn prepared() -> Self {
        // The node would start one itself, which would outlive it.
        let mut epmd = Daemon::new((), OWNER, "epmd");
        epmd.add_args(&["-port", &epmd.port().to_string(), "-address", "127.0.0.1"]);
        epmd.restart();
        let mut rabbit = Self::new(Node { distribution: free_port(), epmd }, OWNER, "env");
        let configuration = format!(
            "listeners.tcp.1 = {}\ndefault_user = {USER}\ndefault_pass = {PASSWORD}\nlog.console = true\nlog.file = false\n",
            rabbit.address()
        );
        rabbit.write("rabbitmq.conf", &configuration);
        rabbit.add_args(&rabbit.environment());
        rabbit.add_args(&[format!("{PROGRAMS}/rabbitmq-server")]);
        rabbit.serves = |rabbit| rabbit.log_text().contains("Server startup complete");
        rabbit
    }

    pub(crate) fn url_with(&self, password: &str) -> String {
        url(password, self.port())
    }

    /// Returns the URL through the proxy on this port.
    pub(crate) fn url_at(port: u16) -> String {
        url(PASSWORD, port)
    }

    pub(crate) fn url(&self) -> String {
        self.url_with(PASSWORD)
    }

    /// Runs `rabbitmqctl`, and returns its output.
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

    /// Returns how many bytes it has received on its open connections.
    pub(crate) fn received(&self) -> u64 {
        let listed = self.control(&["list_connections", "--no-table-headers", "recv_oct"]);
        listed.lines().filter(|line| !line.is_empty()).map(|line| line.trim().parse::<u64>().unwrap()).sum()
    }

    /// Sets or clears the memory alarm.
    pub(crate) fn alarm(&self, on: bool) {
        let limit: &[&str] = if on { &["absolute", "1000"] } else { &["0.4"] };
        self.control(&[&["set_vm_memory_high_watermark"], limit].concat());
    }

    fn node_name(&self) -> String {
        format!("health-{}@localhost", self.port())
    }

    /// Arguments of `env`: an empty environment, and a cookie in a separate folder.
    fn environment(&self) -> Vec<String> {
        let path = |name| self.path(name);
        let home = path("");
        let mut args = vec!["-i".to_owned(), "-C".to_owned(), home.clone()];
        args.extend([
            format!("HOME={home}"),
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            "LANG=C.UTF-8".to_owned(),
            format!("RABBITMQ_NODENAME={}", self.node_name()),
            format!("RABBITMQ_DIST_PORT={}", self.kind.distribution),
            format!("ERL_EPMD_PORT={}", self.kind.epmd.port()),
            "ERL_EPMD_ADDRESS=127.0.0.1".to_owned(),
            format!("RABBITMQ_CONFIG_FILE={}", path("rabbitmq.conf")),
            format!("RABBITMQ_MNESIA_BASE={}", path("mnesia")),
            "RABBITMQ_LOGS=-".to_owned(),
            format!("RABBITMQ_ENABLED_PLUGINS_FILE={}", path("enabled_plugins")),
            format!("RABBITMQ_PID_FILE={}", path("pid")),
            // One scheduler that does not spin, and only the loopback address.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
                .to_owned(),
            // The script becomes the server, so that a signal reaches the server.
            "RUNNING_UNDER_SYSTEMD=true".to_owned(),
        ]);
        args
    }
}

fn url(password: &str, port: u16) -> String {
    format!("amqp://{USER}:{password}@127.0.0.1:{port}/%2f")
}

/// A RabbitMQ that the tests of this thread share, because it takes seconds to start.
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

    pub(crate) fn with<T>(&self, read: impl FnOnce(&RabbitMq) -> T) -> T {
        read(&self.0.borrow())
    }
}

impl FaultInjection for Shared {
    /// Does nothing if it is running.
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
