//! [`FreeSpace`]: room on a file system. On Unix alone.
//!
//! Each round asks the file system of a path (`statvfs`) how much is free for a process without privileges: what is reserved
//! for root does not count. Nothing is written. The call blocks for ever on a network file system whose server is gone; it has
//! a thread of the blocking pool for itself, and no more than that one, however often it is asked.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | less than 10 % free, and less than 5 GiB | [`ProbeErrorKind::Failed`] | DEGRADED |
//! | less than 1 % free, and less than 100 MiB | [`ProbeErrorKind::Failed`] | DOWN |
//! | less than 10 %, or 1 %, of its inodes free, where it has a fixed number of them | [`ProbeErrorKind::Failed`] | DEGRADED, or DOWN |
//! | nothing is free; mounted read-only | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | the path is gone | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the path may not be entered | [`ProbeErrorKind::Rejected`] | DOWN |
//! | the file system hangs: no answer by the deadline | [`ProbeErrorKind::TimedOut`] | DOWN |
//!
//! DEGRADED leaves people the time to make room. DOWN takes the service out of rotation, so by default it waits until the
//! next writes may fail: one per cent of a disk of terabytes would hold for weeks, and a hundred MiB is more than a small volume
//! has, so the lesser of both counts.
//!
//! The path is in the log and not in an answer. Where another file system was mounted over or under the path, that one is
//! asked: a volume that is not mounted looks like the folder that it should be mounted on.

use std::{fmt, io, path::Path, sync::Arc};

use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};

use super::{Amount, amount::left_of, one_thread::OneThread};
use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    probe::Probe,
};

/// Looks how much room there is on the file system of a path.
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
    degraded: Amount,
    down: Amount,
    counts_inodes: bool,
    asked: OneThread<io::Result<StatVfs>>,
}

impl FreeSpace {
    /// The file system that this path is on: a folder or a file that is there while all is well.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().into(),
            degraded: Amount::percent(10).at_most(5 << 30),
            down: Amount::percent(1).at_most(100 << 20),
            counts_inodes: true,
            asked: OneThread::new(),
        }
    }

    /// DEGRADED if less than this is free. Default is 10 %, but at most 5 GiB.
    pub fn degraded_below(mut self, free: Amount) -> Self {
        self.degraded = free;
        self
    }

    /// DOWN if less than this is free. Default is 1 %, but at most 100 MiB.
    pub fn down_below(mut self, free: Amount) -> Self {
        self.down = free;
        self
    }

    /// Does not look at the number of free inodes. Default is to do so.
    pub fn without_inodes(mut self) -> Self {
        self.counts_inodes = false;
        self
    }

    fn judge(&self, found: &Found) -> Result<(), ProbeError> {
        let Found { free, whole, free_inodes, inodes, read_only } = *found;
        if read_only {
            return Err(ProbeError::new(ProbeErrorKind::ReadOnly, "the disk is read-only"));
        }
        let space = || format!("only {} of the disk is free", left_of(free, whole));
        // Some file systems make inodes as they need them, and say that they have none.
        let counts_inodes = self.counts_inodes && inodes > 0;
        let inodes_below = |percent| counts_inodes && free_inodes < Amount::percent(percent).of(inodes).max(1);
        let few_inodes = || format!("only {free_inodes} of the disk's {inodes} inodes are free");

        if whole > 0 && free == 0 {
            Err(ProbeError::new(ProbeErrorKind::ReadOnly, "the disk is full"))
        } else if counts_inodes && free_inodes == 0 {
            Err(ProbeError::new(ProbeErrorKind::ReadOnly, "the disk has no free inode"))
        } else if free < self.down.of(whole) {
            Err(ProbeError::new(ProbeErrorKind::Failed, space()))
        } else if inodes_below(1) {
            Err(ProbeError::new(ProbeErrorKind::Failed, few_inodes()))
        } else if free < self.degraded.of(whole) {
            Err(ProbeError::new(ProbeErrorKind::Failed, space()).degraded())
        } else if inodes_below(10) {
            Err(ProbeError::new(ProbeErrorKind::Failed, few_inodes()).degraded())
        } else {
            Ok(())
        }
    }
}

impl Probe for FreeSpace {
    const GROUP: &'static str = "system";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        let path = self.path.clone();
        match self.asked.ask(move || Ok(statvfs(&*path)?)).await.flatten() {
            Ok(found) => self.judge(&Found::from(found)),
            Err(error) => {
                let message = match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "the disk's path is not there".to_owned(),
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
            .field("degraded_below", &self.degraded)
            .field("down_below", &self.down)
            .finish_non_exhaustive()
    }
}

/// What a file system says of itself, in bytes.
struct Found {
    free: u64,
    whole: u64,
    free_inodes: u64,
    inodes: u64,
    read_only: bool,
}

impl From<StatVfs> for Found {
    fn from(found: StatVfs) -> Self {
        Self {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            whole: found.f_blocks.saturating_mul(found.f_frsize),
            free_inodes: found.f_favail,
            inodes: found.f_files,
            read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    const GIB: u64 = 1 << 30;

    fn judged(disk: &FreeSpace, free: u64, whole: u64, free_inodes: u64, inodes: u64) -> Option<(Status, String)> {
        let found = Found { free, whole, free_inodes, inodes, read_only: false };
        disk.judge(&found).err().map(|error| (error.status(), error.to_string()))
    }

    #[test]
    fn a_large_disk_is_judged_by_bytes_and_a_small_one_by_per_cent() {
        let disk = FreeSpace::new("/");
        let space = |free, whole| judged(&disk, free, whole, 0, 0).map(|(status, _)| status);
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
        assert_eq!(judged(&disk, 500, 1000, 0, 0), None);
        assert_eq!(judged(&disk, 499, 1000, 0, 0).unwrap().0, Status::Degraded);
        assert_eq!(judged(&disk, 199, 1000, 0, 0).unwrap().0, Status::Down);
    }

    #[test]
    fn inodes_count_where_there_is_a_number_of_them() {
        let disk = FreeSpace::new("/");
        let (status, message) = judged(&disk, 1, 1, 99, 1000).unwrap();
        assert_eq!((status, &*message), (Status::Degraded, "only 99 of the disk's 1000 inodes are free"));
        assert_eq!(judged(&disk, 1, 1, 9, 1000).unwrap().0, Status::Down);
        assert_eq!(judged(&disk, 1, 1, 0, 0), None, "btrfs has no number of them");
        assert_eq!(judged(&disk.without_inodes(), 1, 1, 0, 1000), None);
    }

    #[test]
    fn a_file_system_without_blocks_has_nothing_to_be_judged_by() {
        assert_eq!(judged(&FreeSpace::new("/proc"), 0, 0, 0, 0), None);
    }
}
