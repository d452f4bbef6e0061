//! PostgreSQL, MariaDB and Redis, each on a free loopback port and in a temporary folder.
//!
//! Initializing a database takes seconds, so it is done once per machine, and each test gets a copy.

use std::{
    fs::{self, File},
    io::Write as _,
    net::TcpListener,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use super::{
    DATABASE, PASSWORD, USER,
    daemon::Daemon,
    process::{as_user, chown, run},
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Postgres,
    MariaDb,
    Redis,
}

/// A server that can be stopped, paused and restarted.
pub(crate) trait FaultInjection {
    /// Starts the server on its port with its data, and waits until it is ready.
    fn restart(&mut self);

    /// Stops the server; its port is free.
    fn stop(&mut self);

    /// Pauses the server; its connections stay open.
    fn freeze(&self);

    /// Resumes the server.
    fn resume(&self);
}

/// A server of a test.
pub(crate) type Server = Daemon<Kind>;

impl Server {
    pub(crate) fn start(kind: Kind) -> Self {
        Self::start_with(kind, &[])
    }

    /// Starts a server with further arguments.
    pub(crate) fn start_with(kind: Kind, args: &[&str]) -> Self {
        let mut server = Self::prepared(kind, args);
        server.restart();
        server
    }

    /// A server that was never started: nothing listens on its port.
    pub(crate) fn prepared(kind: Kind, args: &[&str]) -> Self {
        let mut server = Self::new(kind, kind.user(), &kind.program());
        let [folder, data, port] = [server.path(""), server.path("data"), server.port().to_string()];
        if let Some(template) = kind.template() {
            run(Command::new("cp").arg("-a").arg(template).arg(&data));
        }
        match kind {
            Kind::Postgres => {
                server.add_args(&["-D", &data, "-p", &port, "-h", "127.0.0.1", "-k", &folder, "-F"]);
                // Listens before it is ready.
                server.serves = |server| {
                    let port = server.port().to_string();
                    let mut command = Command::new("pg_isready");
                    command.args(["-q", "-h", "127.0.0.1", "-p", &port]).status().is_ok_and(|status| status.success())
                };
                // A fast shutdown, which does not wait for clients.
                server.stop_signal = "INT";
            }
            Kind::MariaDb => server.add_args(&[
                "--no-defaults",
                &format!("--datadir={data}"),
                &format!("--socket={}", server.path("socket")),
                &format!("--pid-file={}", server.path("pid")),
                &format!("--port={port}"),
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                "--innodb-buffer-pool-size=16M",
                "--innodb-flush-log-at-trx-commit=0",
            ]),
            Kind::Redis => {
                server.add_args(&["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", &folder]);
                server.add_args(&["--user", USER, "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"]);
                server.add_args(&["--user", "default", "off"]);
            }
        }
        server.add_args(args);
        server
    }

    pub(crate) fn url(&self) -> String {
        self.url_with(PASSWORD)
    }

    pub(crate) fn url_with(&self, password: &str) -> String {
        self.url_of(password, self.port())
    }

    /// The URL through a proxy on the given port.
    pub(crate) fn url_at(&self, port: u16) -> String {
        self.url_of(PASSWORD, port)
    }

    fn url_of(&self, password: &str, port: u16) -> String {
        match self.kind {
            Kind::Postgres => format!("postgres://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"),
            Kind::MariaDb => format!("mysql://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"),
            Kind::Redis => format!("redis://{USER}:{password}@127.0.0.1:{port}/"),
        }
    }
}

impl Kind {
    fn user(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MariaDb => "mysql",
            Self::Redis => "redis",
        }
    }

    fn program(self) -> String {
        match self {
            Self::Postgres => postgres_program("postgres"),
            Self::MariaDb => "mariadbd".to_owned(),
            Self::Redis => "redis-server".to_owned(),
        }
    }

    /// The folder that data is copied from; created if it does not exist.
    fn template(self) -> Option<PathBuf> {
        if self == Self::Redis {
            return None;
        }
        let templates = std::env::temp_dir().join("health-test-templates");
        fs::create_dir_all(&templates).unwrap();
        let template = templates.join(self.user());
        // Each test is a process; the first one creates the folder for all.
        let lock = fs::File::create(templates.join(format!("{}.lock", self.user()))).unwrap();
        lock.lock().unwrap();
        if !template.exists() {
            let unfinished = templates.join(format!("{}.unfinished", self.user()));
            let _ = fs::remove_dir_all(&unfinished);
            fs::create_dir(&unfinished).unwrap();
            chown(&unfinished, self.user());
            match self {
                Self::Postgres => make_postgres(&unfinished),
                Self::MariaDb => make_mariadb(&unfinished),
                Self::Redis => unreachable!("it starts without data"),
            }
            fs::rename(unfinished, &template).unwrap();
        }
        Some(template)
    }
}

fn make_postgres(data: &Path) {
    let mut password = tempfile::NamedTempFile::new().unwrap();
    writeln!(password, "{PASSWORD}").unwrap();
    chown(password.path(), "postgres");
    run(as_user("postgres", &postgres_program("initdb"))
        .args(["--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "-U", USER, "-D"])
        .arg(data)
        .arg("--pwfile")
        .arg(password.path()));
    run_with_stdin(
        as_user("postgres", &postgres_program("postgres")).args(["--single", "-F", "-D"]).arg(data).arg("postgres"),
        &format!("CREATE DATABASE {DATABASE};\n"),
    );
}

fn make_mariadb(data: &Path) {
    run(as_user("mysql", "mariadb-install-db")
        .args([
            "--no-defaults",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
            "--innodb-log-file-size=8M",
        ])
        .arg(format!("--datadir={}", data.display())));
    run_with_stdin(
        as_user("mysql", "mariadbd")
            .args(["--no-defaults", "--bootstrap", "--innodb-log-file-size=8M"])
            .arg(format!("--datadir={}", data.display())),
        &format!(
            "FLUSH PRIVILEGES;\nCREATE DATABASE {DATABASE};\nCREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n\
             GRANT ALL ON *.* TO '{USER}'@'127.0.0.1';\n"
        ),
    );
}

/// Runs a command with the given standard input.
fn run_with_stdin(command: &mut Command, input: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{e}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Debian installs the programs of the server in a folder for their version, which is not in `PATH`.
pub(crate) fn postgres_program(name: &str) -> String {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("postgresql is not installed: tests/run does it");
    let programs = versions.map(|version| version.unwrap().path().join("bin").join(name));
    let program =
        programs.filter(|program| program.exists()).max().expect("postgresql is not installed: tests/run does it");
    program.display().to_string()
}

/// A port for a server that has to know it before it starts, and keeps it when it is started again.
///
/// No other test gets it before this process ends, because a file lock claims it; nor does an outgoing connection, because the
/// system takes their ports from 32768 upwards.
pub(crate) fn free_port() -> u16 {
    static CLAIMS: Mutex<Vec<File>> = Mutex::new(Vec::new());
    const PORTS: Range<u16> = 12_000..32_000;

    let claims = std::env::temp_dir().join("health-ports");
    fs::create_dir_all(&claims).unwrap();
    // Each process begins elsewhere, so that few claims are tried.
    let skipped = std::process::id() as usize * 31 % PORTS.len();
    for port in PORTS.cycle().skip(skipped).take(PORTS.len()) {
        let claim = File::create(claims.join(port.to_string())).unwrap();
        if claim.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            CLAIMS.lock().unwrap().push(claim);
            return port;
        }
    }
    panic!("no port is free");
}
