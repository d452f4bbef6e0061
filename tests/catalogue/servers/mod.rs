//! The servers that only the catalogue needs.

pub(crate) mod balancer;
pub(crate) mod cluster;
pub(crate) mod etcd;
pub(crate) mod grpc;
pub(crate) mod memcached;
pub(crate) mod mongod;
pub(crate) mod mosquitto;
pub(crate) mod nats;
pub(crate) mod rabbitmq;
pub(crate) mod s3;
pub(crate) mod sentinel;
pub(crate) mod smtp;
pub(crate) mod standby;
pub(crate) mod stub;
pub(crate) mod tansu;

/// Returns the number of connections to a port of this machine, from the kernel.
pub(crate) fn connections_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let established = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|address| address.ends_with(&local)) && fields.nth(1) == Some("01")
    };
    table.lines().filter(established).count()
}

/// The path of a program that `tests/install` installs for this project.
pub(crate) fn tool(path: &str) -> String {
    let program = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools").join(path);
    assert!(program.exists(), "{} is missing: tests/install installs it", program.display());
    program.display().to_string()
}

/// The path of a program that Debian installs in a folder that is in the `PATH` of root only.
pub(crate) fn sbin(name: &str) -> String {
    let path = format!("/usr/sbin/{name}");
    if std::path::Path::new(&path).exists() { path } else { name.to_owned() }
}
