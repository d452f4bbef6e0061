//! A server process of a test: started, frozen, stopped and killed by its process id, with all its children.

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
    /// Starts a server, as the given user if this is root, because database servers refuse to run as root. Its output is written to a
    /// file.
    pub(crate) fn start(user: &str, program: &str, args: &[String], log: &Path) -> Self {
        let output = fs::File::create(log).unwrap();
        let child = as_user(user, program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} cannot be started ({error}); tests/run installs it"));
        Self { child }
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal to the server, not to its children.
    pub(crate) fn signal(&self, signal: &str) {
        kill(signal, &[self.child.id()]);
    }

    /// Stops the server by a signal, not sent to its children, and waits until it has ended.
    pub(crate) fn stop(&mut self, signal: &str) {
        kill(signal, &[self.child.id()]);
        self.wait();
    }

    /// Kills the server and its children, even if they are frozen.
    pub(crate) fn kill(&mut self) {
        kill("KILL", &self.process_tree());
        self.wait();
    }

    /// Pauses the server and its children; their connections stay open. Returns when all their threads are paused.
    pub(crate) fn freeze(&self) {
        let started = Instant::now();
        loop {
            let process_tree = self.process_tree();
            kill("STOP", &process_tree);
            // A thread that runs on another core is paused a moment later, and may start a child until then.
            if process_tree.iter().all(|&pid| is_paused(pid)) && self.process_tree() == process_tree {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "the server does not pause");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Resumes the server and its children.
    pub(crate) fn resume(&self) {
        kill("CONT", &self.process_tree());
    }

    fn wait(&mut self) {
        let started = Instant::now();
        while self.runs() {
            assert!(started.elapsed() < Duration::from_secs(30), "the server does not stop");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn process_tree(&self) -> Vec<u32> {
        let mut process_tree = vec![self.child.id()];
        let mut at = 0;
        while let Some(&parent) = process_tree.get(at) {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
            process_tree.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            at += 1;
        }
        process_tree
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.kill();
        }
    }
}

/// A command that runs as the given user if this is root, and is killed when the thread that starts it ends.
pub(crate) fn as_user(user: &str, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
    }
    command.args(["--pdeathsig=KILL", program]);
    command
}

/// Runs a command, which must succeed.
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

/// Changes the owner of a folder and its content, if this is root.
pub(crate) fn chown(folder: &Path, user: &str) {
    if is_root() {
        run(Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(folder));
    }
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t"))
}

/// Whether all threads of a process are paused, or have ended.
fn is_paused(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok()).all(|stat| {
        // The state follows the name of the program, which is in parentheses and may contain any character.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
    })
}

fn kill(signal: &str, pids: &[u32]) {
    // A process may have ended meanwhile.
    let _ = Command::new("kill")
        .arg(format!("-{signal}"))
        .args(pids.iter().map(u32::to_string))
        .stderr(Stdio::null())
        .status();
}
