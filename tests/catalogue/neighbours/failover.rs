//! Every driver behind a name or a load balancer from which new connections reach another, working server, while open ones still reach
//! the old one.

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

/// The state of the old server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Old {
    /// It is read-only, or responds 503. Its connections stay open.
    Demoted,
    /// It closes its connections.
    Stopped,
    /// It is frozen. Its connections stay open.
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

    /// Demotes the server, also for open connections. Returns an error if it has no such role.
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

/// Declares a type for a server of the harness, all of which have the same type.
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
    // A primary becomes a standby only by a restart, which is the next column. `writable` detects read-only transactions.
    Err(NO_ROLE)
});
replaced_server!(MariaDb, Server::prepared(ServerKind::MariaDb, &[]), |_it| Err(NO_ROLE));
replaced_server!(Redis, Server::prepared(ServerKind::Redis, &[]), |it| {
    sentinel::query::<redis::Value>(&it.0.url(), "REPLICAOF 127.0.0.1 1").unwrap();
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

/// Observes all drivers of a kind of server while the old server has this state.
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

/// Observes the driver of sentinels, which lead new connections to the promoted replica.
async fn after_by_sentinel(rows: &[Row], old: Old) -> Vec<Cell> {
    let mut servers = Sentinel::start();
    let subjects = Subject::all(rows, servers.monitor.port()).await;
    match old {
        Old::Demoted => sentinel::query(&servers.url(), "SENTINEL FAILOVER main").unwrap(),
        Old::Stopped => servers.master.stop(),
        Old::Silent => servers.master.freeze(),
    }
    eventually("the replica is the master", || async {
        let state = sentinel::query::<String>(&servers.replica.url(), "INFO replication");
        state.is_ok_and(|state| state.contains("role:master"))
    })
    .await;
    eventually("the sentinel leads there", || async {
        let master = sentinel::query::<Vec<String>>(&servers.url(), "SENTINEL GET-MASTER-ADDR-BY-NAME main");
        master.is_ok_and(|master| master[1] == servers.replica.port().to_string())
    })
    .await;
    observe_all(subjects, POLLED, old.right()).await
}

async fn all_of<S: Replaced>(table: &mut Table, kind: Kind) {
    let rows = rows_of(&[kind]);
    if rows.is_empty() {
        return;
    }
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
async fn drivers_of_redis_and_http_agree_with_the_application_after_a_failover() {
    let mut table = table();
    all_of::<Redis>(&mut table, Kind::Redis).await;
    all_of::<Stub>(&mut table, Kind::Http).await;
    table.finish(None);
}

#[actix_web::test]
async fn long_every_driver_agrees_with_the_application_after_a_failover() {
    let mut table = table();
    all_of::<Postgres>(&mut table, Kind::Postgres).await;
    all_of::<MariaDb>(&mut table, Kind::MariaDb).await;
    all_of::<Redis>(&mut table, Kind::Redis).await;
    let rows = rows_of(&[Kind::Sentinel]);
    if !rows.is_empty() {
        let mut columns = Vec::new();
        for old in Old::ALL {
            columns.push(after_by_sentinel(&rows, old).await);
        }
        lines(&mut table, &rows, columns);
    }
    all_of::<Memcached>(&mut table, Kind::Memcached).await;
    all_of::<RabbitMq>(&mut table, Kind::RabbitMq).await;
    all_of::<Nats>(&mut table, Kind::Nats).await;
    all_of::<Mosquitto>(&mut table, Kind::Mosquitto).await;
    all_of::<Stub>(&mut table, Kind::Http).await;
    table.finish(Some("failover"));
}
