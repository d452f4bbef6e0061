//! A mosquitto of the test's own, which tells its log of every message.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::common::{
    PASSWORD, USER,
    process::{Process, chown, run},
    servers::{FaultInjection, free_port},
};

/// The user that Debian's package makes.
const OWNER: &str = "mosquitto";

pub(crate) struct Mosquitto {
    port: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl Mosquitto {
    /// It is not started.
    pub(crate) fn prepared() -> Self {
        let mosquitto = Self {
            port: free_port(),
            folder: tempfile::Builder::new().prefix("health-").tempdir().unwrap(),
            process: None,
        };
        run(Command::new("mosquitto_passwd")
            .arg("-b")
            .arg("-c")
            .arg(mosquitto.path("passwords"))
            .args([USER, PASSWORD]));
        mosquitto.allow("topic readwrite #");
        let configuration = format!(
            "listener {} 127.0.0.1\nallow_anonymous false\npassword_file {}\nacl_file {}\npersistence false\n\
             log_dest stderr\nlog_type all\n",
            mosquitto.port,
            mosquitto.path("passwords").display(),
            mosquitto.path("access").display(),
        );
        fs::write(mosquitto.path("configuration"), configuration).unwrap();
        chown(mosquitto.folder.path(), OWNER);
        mosquitto
    }

    /// All that its user may do, in a line of an access file.
    pub(crate) fn allow(&self, line: &str) {
        fs::write(self.path("access"), format!("user {USER}\n{line}\n")).unwrap();
    }

    /// Ends it at once, also when it is frozen.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many messages it received since it was started.
    pub(crate) fn received(&self) -> u64 {
        let log = self.log_text();
        log.lines().filter(|line| line.contains("Received PUBLISH from")).count().try_into().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log_text(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl FaultInjection for Mosquitto {
    fn restart(&mut self) {
        assert!(self.process.is_none(), "stop it first");
        let args = ["-c".to_owned(), self.path("configuration").display().to_string()];
        // Debian keeps it off the path of those who are not root.
        let sbin = "/usr/sbin/mosquitto";
        let program = if Path::new(sbin).exists() { sbin } else { "mosquitto" };
        self.process = Some(Process::start(OWNER, program, &args, &self.path("log")));
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "mosquitto does not start: {}", self.log_text());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        self.process.take().expect("it runs").stop("TERM");
    }

    fn freeze(&self) {
        self.process.as_ref().expect("it runs").freeze();
    }

    fn resume(&self) {
        self.process.as_ref().expect("it runs").resume();
    }
}
