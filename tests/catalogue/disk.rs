//! `probes::disk::FreeSpace`, on a small file system that the test mounts, for which it has to be root.
//!
//! The acceptance suite is about servers and connections, and does not apply. There is no portable way to make a file system hang;
//! `blocking_single_flight.rs` tests that it blocks at most one thread.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use actix_web::web;
use health::{
    HealthCheck,
    probes::{Amount, disk::FreeSpace},
};
use tempfile::TempDir;

use serde_json::json;

use crate::acceptance::values;
use crate::common::{
    http::Response,
    logs,
    process::run,
    responses::{assert_degraded, assert_down, assert_not_leaked, assert_up},
    test_server::TestServer,
};

/// A file system in memory. It is unmounted when dropped.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(options: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("health-canarybase-").tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path()).output();
        let mounted = mounted.expect("there is a program `mount`");
        assert!(
            mounted.status.success(),
            "this test mounts a tmpfs, for which it must be root and may mount: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        Self(folder)
    }

    fn remount(&self, options: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.path()));
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Leaves this number of KiB free of 1024.
    fn leave(&self, kib: usize) {
        fs::write(self.file("filler"), vec![1; (1024 - kib) * 1024]).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[derive(HealthCheck)]
struct State {
    uploads: FreeSpace,
}

fn serve(uploads: FreeSpace) -> TestServer {
    let state = web::Data::new(State { uploads });
    TestServer::start(1, move |app| {
        app.service(health::scope().max_age(Duration::ZERO).state(&state));
    })
}

async fn is_down(rig: &TestServer, message: &str) -> Response {
    assert_down(rig, "system", "uploads", message).await
}

#[actix_web::test]
async fn a_disk_is_degraded_when_it_fills_and_down_when_it_is_nearly_full_and_up_when_there_is_room() {
    let disk = Tmpfs::mount("size=1m,nr_inodes=100");
    let rig = serve(FreeSpace::new(disk.path()));
    assert_up(&rig, "system", "uploads").await;
    disk.leave(104);
    assert_up(&rig, "system", "uploads").await;
    disk.leave(100);
    let response = assert_degraded(&rig, "system", "uploads", "only 9% (100.0 KiB) of the disk is free").await;
    assert_eq!(
        values(&rig, "system", "uploads").await,
        json!({"free_bytes": 100 << 10, "free_percent": 9, "free_inodes": 98})
    );
    assert_not_leaked(&rig, &response, &[]).await;
    disk.leave(8);
    let response = is_down(&rig, "only 0% (8.0 KiB) of the disk is free").await;
    let path = disk.path().display().to_string();
    // The log contains the path, responses do not.
    assert!(!response.body.contains(&path) && !response.head.contains(&path));
    disk.leave(0);
    is_down(&rig, "the disk is full").await;
    disk.leave(1000);
    assert_up(&rig, "system", "uploads").await;
}

#[actix_web::test]
async fn the_thresholds_are_in_bytes_or_in_per_cent() {
    let disk = Tmpfs::mount("size=1m");
    disk.leave(500);
    let probe = || FreeSpace::new(disk.path());
    let rig = serve(probe().degraded_below(Amount::bytes(500 << 10)));
    assert_up(&rig, "system", "uploads").await;
    let rig = serve(probe().degraded_below(Amount::bytes((500 << 10) + 1)));
    assert_degraded(&rig, "system", "uploads", "only 48% (500.0 KiB) of the disk is free").await;
    let rig = serve(probe().down_below(Amount::percent(49)));
    is_down(&rig, "only 48% (500.0 KiB) of the disk is free").await;
}

#[actix_web::test]
async fn a_disk_without_inodes_is_down_though_it_has_room() {
    let disk = Tmpfs::mount("size=1m,nr_inodes=102");
    let rig = serve(FreeSpace::new(disk.path()));
    assert_up(&rig, "system", "uploads").await;
    // One of them is the root directory.
    for file in 0..92 {
        fs::write(disk.file(&file.to_string()), "").unwrap();
    }
    assert_degraded(&rig, "system", "uploads", "only 9 of the disk's 102 inodes are free").await;
    for file in 92..101 {
        fs::write(disk.file(&file.to_string()), "").unwrap();
    }
    is_down(&rig, "the disk has no free inode").await;
    assert_up(&serve(FreeSpace::new(disk.path()).without_inodes()), "system", "uploads").await;
}

#[actix_web::test]
async fn a_disk_that_is_mounted_read_only_is_down() {
    let disk = Tmpfs::mount("size=1m");
    let rig = serve(FreeSpace::new(disk.path()));
    assert_up(&rig, "system", "uploads").await;
    disk.remount("ro");
    is_down(&rig, "the disk is read-only").await;
    disk.remount("rw");
    assert_up(&rig, "system", "uploads").await;
}

#[actix_web::test]
async fn a_path_that_is_gone_is_down_and_up_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("canarybase");
    let rig =
        serve(FreeSpace::new(&path).degraded_below(Amount::bytes(0)).down_below(Amount::bytes(0)).without_inodes());
    let response = is_down(&rig, "the disk's path does not exist").await;
    assert_not_leaked(&rig, &response, &["No such file or directory"]).await;
    assert!(logs::text().contains("canarybase"), "the log names the path");
    fs::create_dir(&path).unwrap();
    assert_up(&rig, "system", "uploads").await;
}
