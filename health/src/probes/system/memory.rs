//! [`Available`]: memory that is available to this process. Only on Linux.
//!
//! Each run reads the memory that is available without swapping (`MemAvailable` of `/proc/meminfo`), and what is left of the memory
//! limit of each control group from the process's own up to the root, in version 2 or 1. The limit with the least left decides; in a
//! container that is usually its own. Page cache that the kernel can drop counts as available, because the kernel drops it before it
//! kills a process.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | less than 10 % left, and less than 512 MiB | [`ProbeErrorKind::Failed`] | DEGRADED |
//! | less than 2 % left, and less than 64 MiB | [`ProbeErrorKind::Failed`] | DOWN |
//! | the files are missing or malformed | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! What is left of the limit with the least left is a value of the run, `left_bytes` and, rounded down, `left_percent`. A run reads a few
//! files of the kernel.
//!
//! DEGRADED warns operators. DOWN keeps requests away from an instance that the next large one may get killed. For a process that
//! allocates all the memory it can and keeps it, set lower thresholds or make the check `optional`.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::{ProbeError, ProbeErrorKind},
    observe::observe,
    probe::{LibraryProbe, library_probe},
    probes::support::{
        amount::{Amount, format_left, percent},
        blocking_single_flight::BlockingSingleFlight,
        thresholds::Thresholds,
    },
};

/// Checks how much memory is available to this process.
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
    /// The directory that contains `proc` and `sys`.
    root: Arc<Path>,
    thresholds: Thresholds<Amount>,
    reading: BlockingSingleFlight<io::Result<Vec<MemoryLimit>>>,
}

impl Available {
    /// Checks the memory of this machine, and the limits of the control groups of this process.
    pub fn new() -> Self {
        Self::with_root(Path::new("/"))
    }

    fn with_root(root: &Path) -> Self {
        Self {
            root: root.into(),
            thresholds: Thresholds {
                degraded: Amount::percent(10).at_most(512 << 20),
                down: Amount::percent(2).at_most(64 << 20),
            },
            reading: BlockingSingleFlight::new(),
        }
    }

    /// Sets the available memory below which the check is DEGRADED. Defaults to 10 %, but at most 512 MiB.
    pub fn degraded_below(mut self, left: Amount) -> Self {
        self.thresholds.degraded = left;
        self
    }

    /// Sets the available memory below which the check is DOWN. Defaults to 2 %, but at most 64 MiB.
    pub fn down_below(mut self, left: Amount) -> Self {
        self.thresholds.down = left;
        self
    }
}

impl Default for Available {
    fn default() -> Self {
        Self::new()
    }
}

library_probe! { "system", Available => Available::clone }

impl LibraryProbe for Available {
    async fn probe(&self) -> Result<(), ProbeError> {
        let root = self.root.clone();
        // The kernel may take long to sum up a large control group.
        let limits = self.reading.run(move || read_limits(&root)).await.flatten().map_err(|error| {
            ProbeError::new(ProbeErrorKind::Failed, "unable to read the available memory").with_source(error)
        })?;
        if let Some(MemoryLimit { left, whole, .. }) = limits.iter().min_by_key(|limit| limit.left) {
            observe("left_bytes", *left);
            observe("left_percent", percent(*left, *whole));
        }
        // Compared with each limit, because a threshold in percent is another number of bytes of each.
        self.thresholds.evaluate(|threshold| {
            let exceeded = limits.iter().filter(|limit| limit.left < threshold.of(limit.whole));
            exceeded.min_by_key(|limit| limit.left).map(|limit| {
                let left = format_left(limit.left, limit.whole);
                ProbeError::new(ProbeErrorKind::Failed, format!("only {left} of the memory is left"))
                    .with_source(format!("{} of {} bytes of {}", limit.left, limit.whole, limit.name))
            })
        })
    }

    fn resource(&self) -> Option<String> {
        Some("the memory".to_owned())
    }
}

impl fmt::Debug for Available {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Available").field("thresholds", &self.thresholds).finish_non_exhaustive()
    }
}

/// The machine's memory or the limit of a control group, in bytes.
#[derive(Debug, PartialEq)]
struct MemoryLimit {
    name: String,
    left: u64,
    whole: u64,
}

/// The files of a version of control groups, and the directories where it may be mounted.
struct Version {
    mount_points: &'static [&'static str],
    limit: &'static str,
    used: &'static str,
    /// The fields of `memory.stat` for cache that the kernel can drop, of the group and its children.
    cache: &'static [&'static str],
}

const V2: Version = Version {
    mount_points: &["sys/fs/cgroup", "sys/fs/cgroup/unified"],
    limit: "memory.max",
    used: "memory.current",
    cache: &["active_file ", "inactive_file ", "slab_reclaimable "],
};

const V1: Version = Version {
    mount_points: &["sys/fs/cgroup/memory"],
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cache: &["total_active_file ", "total_inactive_file "],
};

fn read_limits(root: &Path) -> io::Result<Vec<MemoryLimit>> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo"))?;
    let kib = |field| number_after(&meminfo, field).map(|kib| kib.saturating_mul(1024));
    let (Some(left), Some(whole)) = (kib("MemAvailable:"), kib("MemTotal:")) else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "/proc/meminfo has no MemAvailable or MemTotal"));
    };
    let mut limits = vec![MemoryLimit { name: "the machine".to_owned(), left, whole }];
    // A system without control groups has no such file.
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    for line in groups.lines() {
        // A number, the controllers, which version 2 does not list, and the path.
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let version = match controllers {
            "" => &V2,
            _ if controllers.split(',').any(|controller| controller == "memory") => &V1,
            _ => continue,
        };
        for mount_point in version.mount_points {
            limits.extend(limits_of_groups(root, mount_point, path, version));
        }
    }
    // A limit that is larger than the machine's memory has no effect.
    limits.retain(|limit| limit.whole <= whole);
    Ok(limits)
}

/// Returns the limits from a control group up to the root. Inside a container the path may be the one outside, where only the root
/// exists.
fn limits_of_groups(root: &Path, mount_point: &str, path: &str, version: &Version) -> Vec<MemoryLimit> {
    let mut group = PathBuf::from(path.trim_start_matches('/'));
    let mut limits = Vec::new();
    loop {
        let directory = root.join(mount_point).join(&group);
        let number = |file: &str| fs::read_to_string(directory.join(file)).ok()?.trim().parse::<u64>().ok();
        // `max` is not a number, and the root has no such file.
        if let (Some(whole), Some(used)) = (number(version.limit), number(version.used)) {
            let statistics = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
            let cache: u64 = version.cache.iter().filter_map(|field| number_after(&statistics, field)).sum();
            let left = whole.saturating_sub(used.saturating_sub(cache));
            limits.push(MemoryLimit { name: format!("the limit in /{mount_point}/{}", group.display()), left, whole });
        }
        if !group.pop() {
            return limits;
        }
    }
}

/// Returns the number after a field's name at the start of a line.
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
    fn machine(groups: &str, files: &[(&str, String)]) -> TempDir {
        let root = TempDir::new().unwrap();
        let meminfo =
            "MemTotal:        8388608 kB\nMemFree:          100000 kB\nMemAvailable:    4194304 kB\n".to_owned();
        for (path, text) in [("proc/meminfo", meminfo), ("proc/self/cgroup", groups.to_owned())].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    async fn failure(root: &TempDir) -> Option<(Status, String)> {
        Available::with_root(root.path()).probe().await.err().map(|error| (error.status(), error.to_string()))
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
    async fn without_a_limit_the_memory_of_the_machine_decides() {
        let unlimited = [("sys/fs/cgroup/app/memory.max", "max\n".to_owned())];
        let root = machine("0::/app\n", &unlimited);
        assert_eq!(failure(&root).await, None);
        fs::write(root.path().join("proc/meminfo"), "MemTotal: 8388608 kB\nMemAvailable: 300000 kB\n").unwrap();
        assert_eq!(
            failure(&root).await.unwrap(),
            (Status::Degraded, "only 3% (292.9 MiB) of the memory is left".into())
        );
        fs::write(root.path().join("proc/meminfo"), "MemTotal: 8388608 kB\nMemAvailable: 60000 kB\n").unwrap();
        assert_eq!(failure(&root).await.unwrap().0, Status::Down);
    }

    #[tokio::test]
    async fn the_limit_with_the_least_left_from_the_own_group_to_the_root_decides() {
        let own = "sys/fs/cgroup/pods/app";
        let roomy = group(own, 200 * MIB, 100 * MIB, 0);
        let above = group("sys/fs/cgroup/pods", 1000 * MIB, 950 * MIB, 0);
        let root = machine("0::/pods/app\n", &files(&[roomy, above]));
        assert_eq!(
            failure(&root).await.unwrap(),
            (Status::Degraded, "only 5% (50.0 MiB) of the memory is left".into())
        );

        let tight = group(own, 200 * MIB, 198 * MIB, 0);
        let root = machine("0::/pods/app\n", &files(&[tight]));
        assert_eq!(failure(&root).await.unwrap(), (Status::Down, "only 1% (2.0 MiB) of the memory is left".into()));
    }

    #[tokio::test]
    async fn cache_that_the_kernel_can_drop_counts_as_available() {
        let root = machine("0::/app\n", &files(&[group("sys/fs/cgroup/app", 200 * MIB, 198 * MIB, 100 * MIB)]));
        assert_eq!(failure(&root).await, None);
    }

    #[tokio::test]
    async fn a_container_that_sees_the_path_outside_has_its_limit_in_the_root() {
        let root = machine("0::/docker/0123abcd\n", &files(&[group("sys/fs/cgroup", 100 * MIB, 99 * MIB, 0)]));
        assert_eq!(failure(&root).await.unwrap().0, Status::Down);
    }

    #[tokio::test]
    async fn limits_of_version_1_are_read() {
        let limit = |bytes: u64| {
            [
                ("sys/fs/cgroup/memory/app/memory.limit_in_bytes", format!("{bytes}\n")),
                ("sys/fs/cgroup/memory/app/memory.usage_in_bytes", format!("{}\n", 95 * MIB)),
                ("sys/fs/cgroup/memory/app/memory.stat", "total_inactive_file 0\n".to_owned()),
            ]
        };
        let own = "5:cpu,cpuacct:/app\n4:memory:/app\n0::/\n";
        assert_eq!(failure(&machine(own, &limit(100 * MIB))).await.unwrap().0, Status::Degraded);
        // The value of version 1 for no limit.
        assert_eq!(failure(&machine(own, &limit(9_223_372_036_854_771_712))).await, None);
    }

    #[tokio::test]
    async fn missing_and_malformed_files_are_down() {
        let root = machine("", &[]);
        fs::write(root.path().join("proc/meminfo"), "MemTotal: 1 kB\nMemAvailable: many kB\n").unwrap();
        assert_eq!(failure(&root).await.unwrap().0, Status::Down);
        fs::remove_file(root.path().join("proc/meminfo")).unwrap();
        assert_eq!(failure(&root).await.unwrap(), (Status::Down, "unable to read the available memory".into()));
    }
}
