//! A server of S3 for one test, with one bucket and one pair of keys.

use std::fs;

use crate::common::{PASSWORD, USER, daemon::Daemon};

/// The bucket that exists.
pub(crate) const BUCKET: &str = "canary-bucket";

pub(crate) type S3 = Daemon<Kind>;

pub(crate) struct Kind;

impl S3 {
    /// Prepares a server without starting it.
    pub(crate) fn prepared() -> Self {
        let mut s3 = Self::new(Kind, "root", env!("CARGO_BIN_EXE_s3-server"));
        fs::create_dir_all(s3.bucket()).unwrap();
        s3.add_args(&[&s3.port().to_string(), USER, PASSWORD, &s3.path("buckets")]);
        s3
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Deletes the bucket.
    pub(crate) fn delete_bucket(&self) {
        fs::remove_dir_all(self.bucket()).unwrap();
    }

    /// Returns how many requests it got since its start.
    pub(crate) fn requests(&self) -> u64 {
        self.log_text().lines().count().try_into().unwrap()
    }

    fn bucket(&self) -> String {
        self.path(&format!("buckets/{BUCKET}"))
    }
}
