//! The servers that only the catalogue needs.

pub(crate) mod balancer;
pub(crate) mod cluster;
pub(crate) mod etcd;
pub(crate) mod grpc;
pub(crate) mod memcached;
pub(crate) mod mosquitto;
pub(crate) mod nats;
pub(crate) mod rabbitmq;
pub(crate) mod sentinel;
pub(crate) mod standby;
pub(crate) mod stub;

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
