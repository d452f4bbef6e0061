//! nginx and `HAProxy` in front of an application, each with the documented configuration for forwarding the client's address, on
//! free loopback ports and in a temporary folder.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    process::{Process, chown},
    servers::free_port,
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Nginx,
    HaProxy,
}

/// The header that the proxy writes. It passes on the other one unchanged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Header {
    XForwardedFor,
    Forwarded,
}

/// The application behind the proxy.
#[derive(Clone, Copy)]
pub(crate) enum Upstream<'a> {
    /// A server, to which the proxy connects from a given address, so that proxies and clients have different addresses.
    Tcp {
        server: SocketAddr,
        from: Ipv4Addr,
    },
    Unix(&'a Path),
}

/// Debian's user for web servers.
pub(crate) const USER: &str = "www-data";

/// A running proxy. It is killed when dropped.
pub(crate) struct ReverseProxy {
    pub(crate) v4: SocketAddr,
    pub(crate) v6: SocketAddr,
    /// An IPv4 address of an IPv6 socket, which knows its clients as `::ffff:a.b.c.d`.
    pub(crate) dual: SocketAddr,
    /// Dropped before its folder.
    _process: Process,
    _folder: TempDir,
}

impl ReverseProxy {
    /// Starts a proxy and waits until it accepts.
    pub(crate) fn start(kind: Kind, header: Header, upstream: Upstream<'_>) -> Self {
        Self::start_with(kind, header, upstream, "")
    }

    /// Starts a proxy with a further line of configuration.
    pub(crate) fn start_with(kind: Kind, header: Header, upstream: Upstream<'_>, further: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("health-").tempdir().unwrap();
        let [port, dual] = [free_port(), free_port()];
        let config = folder.path().join("config");
        let path = config.display().to_string();
        let (program, text, args) = match kind {
            Kind::Nginx => {
                let text = nginx(folder.path(), port, dual, header, upstream, further);
                ("nginx", text, ["-e", "stderr", "-c", &path].map(str::to_owned))
            }
            Kind::HaProxy => (
                "haproxy",
                haproxy(port, dual, header, upstream, further),
                ["-q", "-db", "-f", &path].map(str::to_owned),
            ),
        };
        fs::write(&config, text).unwrap();
        chown(folder.path(), USER);
        let log = folder.path().join("log");
        let mut process = Process::start(USER, program, &args, &log);
        let [v4, v6, dual]: [SocketAddr; 3] = [
            (Ipv4Addr::LOCALHOST, port).into(),
            (Ipv6Addr::LOCALHOST, port).into(),
            (Ipv4Addr::LOCALHOST, dual).into(),
        ];
        let started = Instant::now();
        while ![v4, v6, dual].iter().all(|address| TcpStream::connect(address).is_ok()) {
            let waits = started.elapsed() < Duration::from_secs(60) && process.runs();
            assert!(waits, "{kind:?} does not start: {}", fs::read_to_string(&log).unwrap_or_default());
            thread::sleep(Duration::from_millis(20));
        }
        Self { v4, v6, dual, _process: process, _folder: folder }
    }

    /// The listeners at which a client has the given address.
    pub(crate) fn listeners(&self, client: IpAddr) -> Vec<SocketAddr> {
        if client.is_ipv4() { vec![self.v4, self.dual] } else { vec![self.v6] }
    }
}

fn nginx(folder: &Path, port: u16, dual: u16, header: Header, upstream: Upstream<'_>, further: &str) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};"))
        .join(" ");
    let to = match upstream {
        Upstream::Tcp { server, from } => format!("proxy_pass http://{server}; proxy_bind {from};"),
        Upstream::Unix(socket) => format!("proxy_pass http://unix:{}:;", socket.display()),
    };
    let writes = match header {
        Header::XForwardedFor => "X-Forwarded-For $proxy_add_x_forwarded_for",
        Header::Forwarded => "Forwarded $forwarded",
    };
    // A single process, so that none outlives the test. The client's `Forwarded` header is kept even if it is malformed, without the
    // validation in nginx's documentation, because that is the harder case.
    format!(
        r#"
daemon off; master_process off; pid {folder}/pid;
events {{}}
http {{
    access_log off; {temporary}
    map $remote_addr $element {{
        ~:      'for="[$remote_addr]"';
        default for=$remote_addr;
    }}
    map $http_forwarded $forwarded {{
        ""      $element;
        default "$http_forwarded, $element";
    }}
    server {{
        listen 127.0.0.1:{port};
        listen [::1]:{port};
        listen [::]:{dual} ipv6only=off;
        location / {{
            {to}
            {further}
            proxy_set_header {writes};
        }}
    }}
}}
"#
    )
}

fn haproxy(port: u16, dual: u16, header: Header, upstream: Upstream<'_>, further: &str) -> String {
    let to = match upstream {
        Upstream::Tcp { server, from } => format!("{server} source {from}"),
        Upstream::Unix(socket) => format!("unix@{}", socket.display()),
    };
    let writes = match header {
        Header::XForwardedFor => "option forwardfor",
        // Debian 12 has HAProxy 2.6, which has no option for this header.
        Header::Forwarded => {
            "
    .if version_atleast(2.8)
    option forwarded
    .else
    acl v6 src -m sub :
    http-request add-header Forwarded for=%[src] unless v6
    http-request add-header Forwarded 'for=\"[%[src]]\"' if v6
    .endif"
        }
    };
    format!(
        "
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen front
    bind 127.0.0.1:{port}
    bind [::1]:{port}
    bind [::]:{dual} v4v6
    {further}
    {writes}
    server app {to}
"
    )
}
