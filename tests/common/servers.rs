//! PostgreSQL, MariaDB and Redis, each on a free loopback port and in a temporary folder.
//!
//! Initializing a database takes seconds, so it is done once per machine, and each test gets a copy.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    DATABASE, PASSWORD, USER,
    process::{Process, as_user, chown, run},
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
pub(crate) struct Server {
    kind: Kind,
    port: u16,
    folder: TempDir,
    args: Vec<String>,
    process: Option<Process>,
}

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
        let folder = tempfile::Builder::new().prefix("health-").tempdir().unwrap();
        if let Some(template) = kind.template() {
            run(Command::new("cp").arg("-a").arg(template).arg(folder.path().join("data")));
        }
        chown(folder.path(), kind.user());
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Self { kind, port: free_port(), folder, args, process: None }
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Sends a signal to the running server.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    /// Stops the server by that signal.
    pub(crate) fn stop_by(&mut self, signal: &str) {
        self.process.take().expect("it runs").stop(signal);
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        self.url_with(PASSWORD)
    }

    pub(crate) fn url_with(&self, password: &str) -> String {
        self.url_of(password, self.port)
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

    fn serves(&self) -> bool {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        match self.kind {
            // Listens before it is ready.
            Kind::Postgres => Command::new("pg_isready")
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .is_ok_and(|status| status.success()),
            Kind::MariaDb | Kind::Redis => TcpStream::connect(address).is_ok(),
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }
}

impl FaultInjection for Server {
    fn restart(&mut self) {
        assert!(self.process.is_none(), "stop it first");
        let mut args = self.kind.args(self.folder.path(), self.port);
        args.extend(self.args.iter().cloned());
        self.process = Some(Process::start(self.kind.user(), &self.kind.program(), &args, &self.log()));
        let started = Instant::now();
        while !self.serves() {
            assert!(started.elapsed() < Duration::from_secs(60), "{:?} does not start: {}", self.kind, self.log_text());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        let signal = match self.kind {
            // A fast shutdown, which does not wait for clients.
            Kind::Postgres => "INT",
            Kind::MariaDb | Kind::Redis => "TERM",
        };
        self.process.take().expect("it runs").stop(signal);
    }

    fn freeze(&self) {
        self.process.as_ref().expect("it runs").freeze();
    }

    fn resume(&self) {
        self.process.as_ref().expect("it runs").resume();
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

    fn args(self, folder: &Path, port: u16) -> Vec<String> {
        let path = |name: &str| folder.join(name).display().to_string();
        match self {
            Self::Postgres => vec![
                "-D".into(),
                path("data"),
                "-p".into(),
                port.to_string(),
                "-h".into(),
                "127.0.0.1".into(),
                "-k".into(),
                path(""),
                "-F".into(),
            ],
            Self::MariaDb => vec![
                "--no-defaults".into(),
                format!("--datadir={}", path("data")),
                format!("--socket={}", path("socket")),
                format!("--pid-file={}", path("pid")),
                format!("--port={port}"),
                "--bind-address=127.0.0.1".into(),
                "--skip-name-resolve".into(),
                "--innodb-buffer-pool-size=16M".into(),
                "--innodb-flush-log-at-trx-commit=0".into(),
            ],
            Self::Redis => {
                let user = format!("{USER} on >{PASSWORD} ~* &* +@all");
                let mut args: Vec<String> =
                    ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir", &path("")]
                        .map(Into::into)
                        .into();
                args.push("--user".into());
                args.extend(user.split(' ').map(Into::into));
                args.extend(["--user", "default", "off"].map(Into::into));
                args
            }
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

pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
