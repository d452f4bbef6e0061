//! A server process of the test's own: started, frozen, stopped and killed by its process id, with all its children.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A running server. It is killed when dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a server as the given user, if this is root, which the database servers refuse to be. Its output goes to a file.
    pub(crate) fn start(user: &str, program: &str, args: &[String], log: &Path) -> Self {
        let output = fs::File::create(log).unwrap();
        let child = as_user(user, program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} is not to be had ({error}): tests/run installs it"));
        Self { child }
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal to the server alone.
    pub(crate) fn signal(&self, signal: &str) {
        kill(signal, &[self.child.id()]);
    }

    /// Sends a signal to the server alone, which stops by it, and waits for that.
    pub(crate) fn stop(&mut self, signal: &str) {
        kill(signal, &[self.child.id()]);
        self.wait();
    }

    /// Ends the server and its children at once, also when they are frozen.
    pub(crate) fn kill(&mut self) {
        kill("KILL", &self.family());
        self.wait();
    }

    /// Stops the server and its children from running, with all their connections open.
    pub(crate) fn freeze(&self) {
        kill("STOP", &self.family());
    }

    /// Lets them run again.
    pub(crate) fn thaw(&self) {
        kill("CONT", &self.family());
    }

    fn wait(&mut self) {
        let started = Instant::now();
        while self.runs() {
            assert!(started.elapsed() < Duration::from_secs(30), "the server does not stop");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn family(&self) -> Vec<u32> {
        let mut family = vec![self.child.id()];
        let mut at = 0;
        while let Some(&parent) = family.get(at) {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            at += 1;
        }
        family
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.kill();
        }
    }
}

/// A command that runs as a user of its own where this is root, and dies with the thread that starts it.
pub(crate) fn as_user(user: &str, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
    }
    command.args(["--pdeathsig=KILL", program]);
    command
}

/// Runs a command to its end, which must be a success.
pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Gives a folder and all in it to a user, if this is root.
pub(crate) fn give(folder: &Path, user: &str) {
    if is_root() {
        run(Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(folder));
    }
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t"))
}

fn kill(signal: &str, pids: &[u32]) {
    // One that has just ended is no matter.
    let _ = Command::new("kill")
        .arg(format!("-{signal}"))
        .args(pids.iter().map(u32::to_string))
        .stderr(Stdio::null())
        .status();
}
