//! A mail server for one test, of the Python library aiosmtpd, that requires a password.

use super::tool;
use crate::common::{PASSWORD, USER, daemon::Daemon};

pub(crate) type Smtp = Daemon<Kind>;

pub(crate) struct Kind;

impl Smtp {
    /// Prepares a server without starting it.
    pub(crate) fn prepared() -> Self {
        let mut smtp = Self::new(Kind, "root", "env");
        smtp.add_args(&[&format!("PYTHONPATH={}", tool("python")), "python3", "-c", include_str!("smtp.py")]);
        smtp.add_args(&[&smtp.port().to_string(), USER, PASSWORD, &smtp.path("")]);
        smtp
    }

    /// Returns how often it got a command since its start: `NOOP`, `AUTH` or `DATA`.
    pub(crate) fn received(&self, command: &str) -> u64 {
        self.log_text().lines().filter(|line| *line == command).count().try_into().unwrap()
    }

    /// Makes `NOOP` an unknown command.
    pub(crate) fn refuse_noop(&self) {
        self.write("no-noop", "");
    }

    /// Delays the response to `NOOP` by a second.
    pub(crate) fn delay_noop(&self) {
        self.write("slow-noop", "");
    }
}
