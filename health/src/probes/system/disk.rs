//! [`FreeSpace`]: free space on a file system. Only on Unix.
//!
//! Each run queries the file system of a path (`statvfs`) for the space that a process without privileges can use, which excludes
//! what is reserved for root. Nothing is written. The call blocks forever on a network file system whose server is gone. It runs on
//! one thread of the blocking pool, and no second call starts while one hangs.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | less than 10 % free, and less than 5 GiB | [`ProbeErrorKind::Failed`] | DEGRADED |
//! | less than 1 % free, and less than 100 MiB | [`ProbeErrorKind::Failed`] | DOWN |
//! | less than 10 %, or 1 %, of the inodes free, on file systems with a fixed number of them | [`ProbeErrorKind::Failed`] | DEGRADED, or DOWN |
//! | nothing free; mounted read-only | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | the path does not exist | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no permission for the path | [`ProbeErrorKind::Rejected`] | DOWN |
//! | the file system hangs: no response by the deadline | [`ProbeErrorKind::TimedOut`] | DOWN |
//!
//! DEGRADED leaves time to free space. DOWN takes the service out of rotation, so the default threshold is where the next writes may
//! fail. It is the smaller of two limits: 1 % of a disk of terabytes lasts for weeks, and 100 MiB is more than a small volume has.
//!
//! The free space is a value of the run, `free_bytes` and, rounded down, `free_percent`. On file systems with a fixed number of inodes,
//! `free_inodes` is one, too. A run costs one system call.
//!
//! The log contains the path, responses do not. A volume that is not mounted is not detected: the query then returns the file system
//! of the mount point.

use std::{fmt, io, path::Path, sync::Arc};

use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};

use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    observe::observe,
    probe::{LibraryProbe, library_probe},
    probes::support::{
        amount::{Amount, format_left, percent},
        blocking_single_flight::BlockingSingleFlight,
        thresholds::Thresholds,
    },
};

/// Checks the free space on the file system of a path.
///
/// # Examples
///
/// ```
/// use health::{HealthCheck, probes::{Amount, disk::FreeSpace}};
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     uploads: FreeSpace,
/// }
///
/// let state = AppState {
///     uploads: FreeSpace::new("/var/lib/shop/uploads")
///         .degraded_below(Amount::percent(20))
///         .down_below(Amount::bytes(1 << 30)),
/// };
/// # let _ = state;
/// ```
#[derive(Clone)]
#[must_use]
pub struct FreeSpace {
    path: Arc<Path>,
    thresholds: Thresholds<Minimum>,
    counts_inodes: bool,
    query: BlockingSingleFlight<io::Result<StatVfs>>,
}

/// What has to be free.
#[derive(Clone, Copy, Debug)]
struct Minimum {
    space: Amount,
    inodes: Amount,
}

impl FreeSpace {
    /// Checks the file system of this path, which is a directory or a file that exists during normal operation.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().into(),
            thresholds: Thresholds {
                degraded: Minimum { space: Amount::percent(10).at_most(5 << 30), inodes: Amount::percent(10) },
                down: Minimum { space: Amount::percent(1).at_most(100 << 20), inodes: Amount::percent(1) },
            },
            counts_inodes: true,
            query: BlockingSingleFlight::new(),
        }
    }

    /// Sets the free space below which the check is DEGRADED. Defaults to 10 %, but at most 5 GiB.
    pub fn degraded_below(mut self, free: Amount) -> Self {
        self.thresholds.degraded.space = free;
        self
    }

    /// Sets the free space below which the check is DOWN. Defaults to 1 %, but at most 100 MiB.
    pub fn down_below(mut self, free: Amount) -> Self {
        self.thresholds.down.space = free;
        self
    }

    /// Ignores the number of free inodes. Checked by default.
    pub fn without_inodes(mut self) -> Self {
        self.counts_inodes = false;
        self
    }

    fn evaluate(&self, stats: &FsStats) -> Result<(), ProbeError> {
        let FsStats { free, whole, free_inodes, inodes, read_only } = *stats;
        if read_only {
            return Err(ProbeError::new(ProbeErrorKind::ReadOnly, "the disk is read-only"));
        }
        // File systems that allocate inodes dynamically report none.
        let counts_inodes = self.counts_inodes && inodes > 0;
        if whole > 0 && free == 0 {
            return Err(ProbeError::new(ProbeErrorKind::ReadOnly, "the disk is full"));
        }
        if counts_inodes && free_inodes == 0 {
            return Err(ProbeError::new(ProbeErrorKind::ReadOnly, "the disk has no free inode"));
        }
        self.thresholds.evaluate(|threshold| {
            let message = if free < threshold.space.of(whole) {
                format!("only {} of the disk is free", format_left(free, whole))
            } else if counts_inodes && free_inodes < threshold.inodes.of(inodes).max(1) {
                format!("only {free_inodes} of the disk's {inodes} inodes are free")
            } else {
                return None;
            };
            Some(ProbeError::new(ProbeErrorKind::Failed, message))
        })
    }
}

library_probe! { "system", FreeSpace => FreeSpace::clone }

impl LibraryProbe for FreeSpace {
    async fn probe(&self) -> Result<(), ProbeError> {
        let path = self.path.clone();
        match self.query.run(move || Ok(statvfs(&*path)?)).await.flatten() {
            Ok(stats) => {
                let stats = FsStats::from(stats);
                observe("free_bytes", stats.free);
                observe("free_percent", percent(stats.free, stats.whole));
                if stats.inodes > 0 {
                    observe("free_inodes", stats.free_inodes);
                }
                self.evaluate(&stats)
            }
            Err(error) => {
                let message = match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                        "the disk's path does not exist".to_owned()
                    }
                    _ => classify_io(&error).message("the disk"),
                };
                Err(ProbeError::new(classify_io(&error), message).with_source(error))
            }
        }
    }

    fn resource(&self) -> Option<String> {
        Some(format!("the disk of {}", self.path.display()))
    }
}

impl fmt::Debug for FreeSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreeSpace")
            .field("path", &self.path)
            .field("thresholds", &self.thresholds)
            .finish_non_exhaustive()
    }
}

/// The size of a file system in bytes, and its inodes.
struct FsStats {
    free: u64,
    whole: u64,
    free_inodes: u64,
    inodes: u64,
    read_only: bool,
}

impl From<StatVfs> for FsStats {
    fn from(stats: StatVfs) -> Self {
        Self {
            free: stats.f_bavail.saturating_mul(stats.f_frsize),
            whole: stats.f_blocks.saturating_mul(stats.f_frsize),
            free_inodes: stats.f_favail,
            inodes: stats.f_files,
            read_only: stats.f_flag.contains(StatVfsMountFlags::RDONLY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    const GIB: u64 = 1 << 30;

    fn evaluated(disk: &FreeSpace, free: u64, whole: u64, free_inodes: u64, inodes: u64) -> Option<(Status, String)> {
        let stats = FsStats { free, whole, free_inodes, inodes, read_only: false };
        disk.evaluate(&stats).err().map(|error| (error.status(), error.to_string()))
    }

    #[test]
    fn a_large_disk_is_limited_by_bytes_and_a_small_one_by_percent() {
        let disk = FreeSpace::new("/");
        let space = |free, whole| evaluated(&disk, free, whole, 0, 0).map(|(status, _)| status);
        assert_eq!(space(5 * GIB, 10_000 * GIB), None);
        assert_eq!(space(5 * GIB - 1, 10_000 * GIB), Some(Status::Degraded));
        assert_eq!(space(100 << 20, 10_000 * GIB), Some(Status::Degraded));
        assert_eq!(space((100 << 20) - 1, 10_000 * GIB), Some(Status::Down));
        assert_eq!(space(100, 1000), None);
        assert_eq!(space(99, 1000), Some(Status::Degraded));
        assert_eq!(space(9, 1000), Some(Status::Down));
    }

    #[test]
    fn the_thresholds_can_be_set() {
        let disk = FreeSpace::new("/").degraded_below(Amount::bytes(500)).down_below(Amount::percent(20));
        assert_eq!(evaluated(&disk, 500, 1000, 0, 0), None);
        assert_eq!(evaluated(&disk, 499, 1000, 0, 0).unwrap().0, Status::Degraded);
        assert_eq!(evaluated(&disk, 199, 1000, 0, 0).unwrap().0, Status::Down);
    }

    #[test]
    fn inodes_are_checked_on_file_systems_with_a_fixed_number_of_them() {
        let disk = FreeSpace::new("/");
        let (status, message) = evaluated(&disk, 1, 1, 99, 1000).unwrap();
        assert_eq!((status, &*message), (Status::Degraded, "only 99 of the disk's 1000 inodes are free"));
        assert_eq!(evaluated(&disk, 1, 1, 9, 1000).unwrap().0, Status::Down);
        assert_eq!(evaluated(&disk, 1, 1, 0, 0), None, "btrfs has no fixed number");
        assert_eq!(evaluated(&disk.without_inodes(), 1, 1, 0, 1000), None);
    }

    #[test]
    fn a_file_system_without_blocks_is_up() {
        assert_eq!(evaluated(&FreeSpace::new("/proc"), 0, 0, 0, 0), None);
    }
}
