//! [`Available`]: memory that is left to this process. On Linux alone.
//!
//! Each round reads how much memory can be had without swapping (`MemAvailable` of `/proc/meminfo`), and what is left under the
//! memory limit of each control group from the process's own up to the root, of version 2 or 1. What is least of its whole
//! counts: in a container that is most often its own limit. Page cache that the kernel can drop counts as free, for it is
//! dropped before anything is killed.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | less than 10 % left, and less than 512 MiB | [`ProbeErrorKind::Failed`] | DEGRADED |
//! | less than 2 % left, and less than 64 MiB | [`ProbeErrorKind::Failed`] | DOWN |
//! | the system does not say | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! DEGRADED is for people. DOWN keeps requests away from an instance that the next large one may have killed; a process that
//! takes what it can and keeps it should set it lower, or have the check `optional`.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Amount, amount::left_of, one_thread::OneThread};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::Probe,
};

/// Looks how much memory is left to this process.
///
/// # Examples
///
/// ```
/// use health::{HealthCheck, probes::{Amount, memory::Available}};
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     memory: Available,
/// }
///
/// let state = AppState { memory: Available::new().down_below(Amount::bytes(32 << 20)) };
/// # let _ = state;
/// ```
#[derive(Clone)]
#[must_use]
pub struct Available {
    /// Where `proc` and `sys` are.
    root: Arc<Path>,
    degraded: Amount,
    down: Amount,
    asked: OneThread<io::Result<Vec<Room>>>,
}

impl Available {
    /// The memory of this machine, and of the control groups that this process is in.
    pub fn new() -> Self {
        Self::of(Path::new("/"))
    }

    fn of(root: &Path) -> Self {
        Self {
            root: root.into(),
            degraded: Amount::percent(10).at_most(512 << 20),
            down: Amount::percent(2).at_most(64 << 20),
            asked: OneThread::new(),
        }
    }

    /// DEGRADED if less than this is left. Default is 10 %, but at most 512 MiB.
    pub fn degraded_below(mut self, left: Amount) -> Self {
        self.degraded = left;
        self
    }

    /// DOWN if less than this is left. Default is 2 %, but at most 64 MiB.
    pub fn down_below(mut self, left: Amount) -> Self {
        self.down = left;
        self
    }
}

impl Default for Available {
    fn default() -> Self {
        Self::new()
    }
}

impl Probe for Available {
    const GROUP: &'static str = "system";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        let root = self.root.clone();
        // The kernel may take its time to sum up a large control group.
        let rooms = self.asked.ask(move || rooms(&root)).await.flatten().map_err(|error| {
            ProbeError::new(ProbeErrorKind::Failed, "the system does not tell its memory").with_source(error)
        })?;
        // Of the machine and each limit, for a threshold in per cent is another amount of each.
        let below = |threshold: Amount| {
            let short = rooms.iter().filter(|room| room.left < threshold.of(room.whole));
            short.min_by_key(|room| room.left).map(|room| {
                let left = left_of(room.left, room.whole);
                ProbeError::new(ProbeErrorKind::Failed, format!("only {left} of the memory is left"))
                    .with_source(format!("{} of {} bytes of {}", room.left, room.whole, room.of))
            })
        };
        if let Some(error) = below(self.down) {
            return Err(error);
        }
        below(self.degraded).map_or(Ok(()), |error| Err(error.degraded()))
    }

    fn resource(&self) -> Option<String> {
        Some("the memory".to_owned())
    }
}

impl fmt::Debug for Available {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Available")
            .field("degraded_below", &self.degraded)
            .field("down_below", &self.down)
            .finish_non_exhaustive()
    }
}

/// What is left of the machine's memory or of a limit, in bytes.
#[derive(Debug, PartialEq)]
struct Room {
    of: String,
    left: u64,
    whole: u64,
}

/// How a version of control groups calls its files, and where it is mounted.
struct Version {
    folders: &'static [&'static str],
    limit: &'static str,
    used: &'static str,
    /// Of `memory.stat`: cache that the kernel can drop, of the group and those in it.
    cache: &'static [&'static str],
}

const V2: Version = Version {
    folders: &["sys/fs/cgroup", "sys/fs/cgroup/unified"],
    limit: "memory.max",
    used: "memory.current",
    cache: &["active_file ", "inactive_file ", "slab_reclaimable "],
};

const V1: Version = Version {
    folders: &["sys/fs/cgroup/memory"],
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cache: &["total_active_file ", "total_inactive_file "],
};

fn rooms(root: &Path) -> io::Result<Vec<Room>> {
    let machine = fs::read_to_string(root.join("proc/meminfo"))?;
    let kib = |field| number_after(&machine, field).map(|kib| kib.saturating_mul(1024));
    let (Some(left), Some(whole)) = (kib("MemAvailable:"), kib("MemTotal:")) else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "/proc/meminfo has no MemAvailable or MemTotal"));
    };
    let mut rooms = vec![Room { of: "the machine".to_owned(), left, whole }];
    // Without control groups there are no limits.
    let own = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    for line in own.lines() {
        // A number, the controllers, which version 2 does not list, and the path.
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let version = match controllers {
            "" => &V2,
            _ if controllers.split(',').any(|controller| controller == "memory") => &V1,
            _ => continue,
        };
        for folder in version.folders {
            rooms.extend(limits(root, folder, path, version));
        }
    }
    // A limit above what the machine has is none.
    rooms.retain(|room| room.whole <= whole);
    Ok(rooms)
}

/// What is left under each limit from a control group up to the root. Inside of a container, the path may be the one outside,
/// and only the root be there.
fn limits(root: &Path, folder: &str, path: &str, version: &Version) -> Vec<Room> {
    let mut group = PathBuf::from(path.trim_start_matches('/'));
    let mut found = Vec::new();
    loop {
        let at = root.join(folder).join(&group);
        let number = |file: &str| fs::read_to_string(at.join(file)).ok()?.trim().parse::<u64>().ok();
        // `max` is no number, and the root has no such file.
        if let (Some(whole), Some(used)) = (number(version.limit), number(version.used)) {
            let statistics = fs::read_to_string(at.join("memory.stat")).unwrap_or_default();
            let cache: u64 = version.cache.iter().filter_map(|field| number_after(&statistics, field)).sum();
            let left = whole.saturating_sub(used.saturating_sub(cache));
            found.push(Room { of: format!("the limit in /{folder}/{}", group.display()), left, whole });
        }
        if !group.pop() {
            return found;
        }
    }
}

/// The number that comes after a field's name at the start of a line.
fn number_after(text: &str, field: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?.trim_start();
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::status::Status;

    const MIB: u64 = 1 << 20;

    /// A machine of 8 GiB, half of it available, with a process in a control group.
    fn machine(own: &str, files: &[(&str, String)]) -> TempDir {
        let root = TempDir::new().unwrap();
        let meminfo =
            "MemTotal:        8388608 kB\nMemFree:          100000 kB\nMemAvailable:    4194304 kB\n".to_owned();
        for (path, text) in [("proc/meminfo", meminfo), ("proc/self/cgroup", own.to_owned())].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    async fn told(root: &TempDir) -> Option<(Status, String)> {
        Available::of(root.path()).probe().await.err().map(|error| (error.status(), error.to_string()))
    }

    fn group(folder: &str, max: u64, used: u64, cache: u64) -> [(String, String); 3] {
        [
            (format!("{folder}/memory.max"), format!("{max}\n")),
            (format!("{folder}/memory.current"), format!("{used}\n")),
            (format!("{folder}/memory.stat"), format!("anon 1\nactive_file {cache}\ninactive_file 0\n")),
        ]
    }

    fn files(groups: &[[(String, String); 3]]) -> Vec<(&str, String)> {
        groups.iter().flatten().map(|(path, text)| (path.as_str(), text.clone())).collect()
    }

    #[tokio::test]
    async fn without_a_limit_the_machine_counts() {
        let unlimited = [("sys/fs/cgroup/app/memory.max", "max\n".to_owned())];
        let root = machine("0::/app\n", &unlimited);
        assert_eq!(told(&root).await, None);
        fs::write(root.path().join("proc/meminfo"), "MemTotal: 8388608 kB\nMemAvailable: 300000 kB\n").unwrap();
        assert_eq!(told(&root).await.unwrap(), (Status::Degraded, "only 3% (292.9 MiB) of the memory is left".into()));
        fs::write(root.path().join("proc/meminfo"), "MemTotal: 8388608 kB\nMemAvailable: 60000 kB\n").unwrap();
        assert_eq!(told(&root).await.unwrap().0, Status::Down);
    }

    #[tokio::test]
    async fn the_smallest_limit_from_the_own_group_to_the_root_counts() {
        let own = "sys/fs/cgroup/pods/app";
        let roomy = group(own, 200 * MIB, 100 * MIB, 0);
        let above = group("sys/fs/cgroup/pods", 1000 * MIB, 950 * MIB, 0);
        let root = machine("0::/pods/app\n", &files(&[roomy, above]));
        assert_eq!(told(&root).await.unwrap(), (Status::Degraded, "only 5% (50.0 MiB) of the memory is left".into()));

        let tight = group(own, 200 * MIB, 198 * MIB, 0);
        let root = machine("0::/pods/app\n", &files(&[tight]));
        assert_eq!(told(&root).await.unwrap(), (Status::Down, "only 1% (2.0 MiB) of the memory is left".into()));
    }

    #[tokio::test]
    async fn cache_that_can_be_dropped_is_not_used_up() {
        let root = machine("0::/app\n", &files(&[group("sys/fs/cgroup/app", 200 * MIB, 198 * MIB, 100 * MIB)]));
        assert_eq!(told(&root).await, None);
    }

    #[tokio::test]
    async fn a_container_that_sees_a_path_of_outside_has_its_limit_in_the_root() {
        let root = machine("0::/docker/0123abcd\n", &files(&[group("sys/fs/cgroup", 100 * MIB, 99 * MIB, 0)]));
        assert_eq!(told(&root).await.unwrap().0, Status::Down);
    }

    #[tokio::test]
    async fn limits_of_version_1_count_too() {
        let limit = |bytes: u64| {
            [
                ("sys/fs/cgroup/memory/app/memory.limit_in_bytes", format!("{bytes}\n")),
                ("sys/fs/cgroup/memory/app/memory.usage_in_bytes", format!("{}\n", 95 * MIB)),
                ("sys/fs/cgroup/memory/app/memory.stat", "total_inactive_file 0\n".to_owned()),
            ]
        };
        let own = "5:cpu,cpuacct:/app\n4:memory:/app\n0::/\n";
        assert_eq!(told(&machine(own, &limit(100 * MIB))).await.unwrap().0, Status::Degraded);
        // What version 1 says for 'none'.
        assert_eq!(told(&machine(own, &limit(9_223_372_036_854_771_712))).await, None);
    }

    #[tokio::test]
    async fn a_system_that_does_not_say_is_down() {
        let root = machine("", &[]);
        fs::write(root.path().join("proc/meminfo"), "MemTotal: 1 kB\nMemAvailable: many kB\n").unwrap();
        assert_eq!(told(&root).await.unwrap().0, Status::Down);
        fs::remove_file(root.path().join("proc/meminfo")).unwrap();
        assert_eq!(told(&root).await.unwrap(), (Status::Down, "the system does not tell its memory".into()));
    }
}
