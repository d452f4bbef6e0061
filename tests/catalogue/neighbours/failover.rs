//! Every driver that keeps a connection, behind a name or a balancer that leads new connections to another, good server, while
//! the kept one still leads to the old.

use std::time::Duration;

use super::{
    agreement::{Right, Subject, lines, observe_all},
    application::{Row, rows_of},
    drivers::Kind,
    table::{Cell, Table},
};
use crate::{
    common::{
        eventually,
        servers::{FaultInjection, Kind as ServerKind, Server},
    },
    postgres,
    servers::{
        memcached::Memcached,
        mosquitto::Mosquitto,
        nats::Nats,
        rabbitmq::RabbitMq,
        sentinel::{self, Sentinel},
        stub::{Page, Stub},
    },
};

const POLLED: Duration = Duration::from_secs(5);

/// What became of the old server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Old {
    /// It takes no writes, or responds 503; its connections stay open.
    Demoted,
    /// It ends its connections.
    Stopped,
    /// It does not respond any more; its connections stay open.
    Silent,
}

impl Old {
    const ALL: [Self; 3] = [Self::Demoted, Self::Stopped, Self::Silent];

    fn name(self) -> &'static str {
        match self {
            Self::Demoted => "the old one is demoted",
            Self::Stopped => "the old one is stopped",
            Self::Silent => "the old one is silent",
        }
    }

    fn right(self) -> Right {
        match self {
            Self::Demoted | Self::Stopped => Right::AsTheApplication,
            Self::Silent => Right::Silent,
        }
    }
}

/// A server that another one replaces.
trait Replaced: FaultInjection {
    fn prepare() -> Self;

    fn port_of(&self) -> u16;

    /// From now on it does not do what applications need, on open connections too; or why it can't be so.
    async fn demote(&self) -> Result<(), &'static str>;
}

macro_rules! replaced {
    ($server:ty, $prepare:expr, |$it:ident| $demote:expr) => {
        impl Replaced for $server {
            fn prepare() -> Self {
                $prepare
            }

            fn port_of(&self) -> u16 {
                self.port()
            }

            async fn demote(&self) -> Result<(), &'static str> {
                let $it = self;
                $demote
            }
        }
    };
}

/// The servers of the harness of one type, which differ in their kind.
macro_rules! replaced_server {
    ($name:ident, $prepared:expr, |$it:ident| $demote:expr) => {
        struct $name(Server);

        impl $name {
            fn port(&self) -> u16 {
                self.0.port()
            }
        }

        impl FaultInjection for $name {
            fn restart(&mut self) {
                self.0.restart();
            }

            fn stop(&mut self) {
                self.0.stop();
            }

            fn freeze(&self) {
                self.0.freeze();
            }

            fn resume(&self) {
                self.0.resume();
            }
        }

        replaced!($name, $name($prepared), |$it| $demote);
    };
}

const NO_ROLE: &str = "no such role";

replaced_server!(Postgres, postgres(&[]), |_it| {
    // A primary becomes a standby by a restart only, which is the next column. Read-only transactions are for `writable`.
    Err(NO_ROLE)
});
replaced_server!(MariaDb, Server::prepared(ServerKind::MariaDb, &[]), |_it| Err(NO_ROLE));
replaced_server!(Redis, Server::prepared(ServerKind::Redis, &[]), |it| {
    sentinel::ask::<redis::Value>(&it.0.url(), "REPLICAOF 127.0.0.1 1").unwrap();
    Ok(())
});
replaced!(Memcached, Memcached::prepared(&[]), |_it| Err(NO_ROLE));
replaced!(RabbitMq, RabbitMq::prepared(), |_it| Err(NO_ROLE));
replaced!(Nats, Nats::prepared(), |_it| Err(NO_ROLE));
replaced!(Mosquitto, Mosquitto::prepared(), |_it| Err(NO_ROLE));
replaced!(Stub, Stub::good(), |it| {
    it.show(Page::Plain(503, "", String::new()));
    Ok(())
});

fn started<S: Replaced>() -> S {
    let mut server = S::prepare();
    server.restart();
    server
}

/// All drivers of a kind of server, after the same thing happened to the old one.
async fn after<S: Replaced>(rows: &[Row], old: Old) -> Vec<Cell> {
    let [mut first, second] = [started::<S>(), started::<S>()];
    let subjects = Subject::all(rows, first.port_of()).await;
    for subject in &subjects {
        subject.proxy.lead_to(second.port_of());
    }
    match old {
        Old::Demoted => {
            if let Err(why) = first.demote().await {
                return rows.iter().map(|_| Cell::new(why, true)).collect();
            }
        }
        Old::Stopped => first.stop(),
        Old::Silent => first.freeze(),
    }
    observe_all(subjects, POLLED, old.right()).await
}

/// Here the sentinel leads new connections, and to the replica, once that is the master.
async fn after_by_sentinel(rows: &[Row], old: Old) -> Vec<Cell> {
    let mut servers = Sentinel::start();
    let subjects = Subject::all(rows, servers.port()).await;
    match old {
        Old::Demoted => sentinel::ask(&servers.url(), "SENTINEL FAILOVER main").unwrap(),
        Old::Stopped => servers.master.stop(),
        Old::Silent => servers.master.freeze(),
    }
    eventually("the replica is the master", || async {
        let state = sentinel::ask::<String>(&servers.replica.url(), "INFO replication");
        state.is_ok_and(|state| state.contains("role:master"))
    })
    .await;
    eventually("the sentinel leads there", || async {
        let master = sentinel::ask::<Vec<String>>(&servers.url(), "SENTINEL GET-MASTER-ADDR-BY-NAME main");
        master.is_ok_and(|master| master[1] == servers.replica.port().to_string())
    })
    .await;
    observe_all(subjects, POLLED, old.right()).await
}

async fn all_of<S: Replaced>(table: &mut Table, kind: Kind) {
    let rows = rows_of(&[kind]);
    let mut columns = Vec::new();
    for old in Old::ALL {
        columns.push(after::<S>(&rows, old).await);
    }
    lines(table, &rows, columns);
}

fn table() -> Table {
    Table::new(["driver"].into_iter().chain(Old::ALL.map(Old::name)))
}

#[actix_web::test]
async fn a_driver_of_redis_or_http_that_is_led_to_another_server_is_as_the_application() {
    let mut table = table();
    all_of::<Redis>(&mut table, Kind::Redis).await;
    all_of::<Stub>(&mut table, Kind::Http).await;
    table.finish(None);
}

#[actix_web::test]
async fn long_every_driver_that_is_led_to_another_server_is_as_the_application() {
    let mut table = table();
    all_of::<Postgres>(&mut table, Kind::Postgres).await;
    all_of::<MariaDb>(&mut table, Kind::MariaDb).await;
    all_of::<Redis>(&mut table, Kind::Redis).await;
    let rows = rows_of(&[Kind::Sentinel]);
    let mut columns = Vec::new();
    for old in Old::ALL {
        columns.push(after_by_sentinel(&rows, old).await);
    }
    lines(&mut table, &rows, columns);
    all_of::<Memcached>(&mut table, Kind::Memcached).await;
    all_of::<RabbitMq>(&mut table, Kind::RabbitMq).await;
    all_of::<Nats>(&mut table, Kind::Nats).await;
    all_of::<Mosquitto>(&mut table, Kind::Mosquitto).await;
    all_of::<Stub>(&mut table, Kind::Http).await;
    table.finish(Some("failover"));
}
