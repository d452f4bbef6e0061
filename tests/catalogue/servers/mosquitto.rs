//! A mosquitto for one test, which logs every message.

use super::sbin;
use crate::common::{
    PASSWORD, USER,
    daemon::Daemon,
    process::{as_user, run},
};

/// The user of Debian's package.
const OWNER: &str = "mosquitto";

pub(crate) type Mosquitto = Daemon<Kind>;

pub(crate) struct Kind;

impl Mosquitto {
    /// Prepares a server without starting it.
    pub(crate) fn prepared() -> Self {
        let mut mosquitto = Self::new(Kind, OWNER, &sbin("mosquitto"));
        let path = |name| mosquitto.path(name);
        let [passwords, access, configuration] = ["passwords", "access", "configuration"].map(path);
        run(as_user(OWNER, "mosquitto_passwd").args(["-b", "-c", &passwords, USER, PASSWORD]));
        mosquitto.allow("topic readwrite #");
        mosquitto.write(
            "configuration",
            &format!(
                "listener {} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nacl_file {access}\n\
                 persistence false\nlog_dest stderr\nlog_type all\n",
                mosquitto.port(),
            ),
        );
        mosquitto.add_args(&["-c", &configuration]);
        mosquitto
    }

    /// Sets the permissions of its user, as a line of an access file.
    pub(crate) fn allow(&self, line: &str) {
        self.write("access", &format!("user {USER}\n{line}\n"));
    }

    /// Returns how many messages it has received since its start.
    pub(crate) fn received(&self) -> u64 {
        let log = self.log_text();
        log.lines().filter(|line| line.contains("Received PUBLISH from")).count().try_into().unwrap()
    }
}
