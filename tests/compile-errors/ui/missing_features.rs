//! Without its feature a type does not implement `Probe`, like the types here, and the error names the feature.

mod sqlx {
    pub struct PgPool;
}

mod sqlx_0_8 {
    pub struct PgPool;
}

mod sea_orm {
    pub struct DatabaseConnection;
}

mod diesel {
    pub struct SqliteConnection;

    pub mod r2d2 {
        pub struct ConnectionManager<C>(C);
        pub struct Pool<M>(M);
    }
}

mod diesel_async {
    pub struct AsyncPgConnection;

    pub mod pooled_connection {
        pub mod bb8 {
            pub struct Pool<C>(C);
        }

        pub mod deadpool {
            pub struct Pool<C>(C);
        }
    }
}

mod tokio_postgres {
    pub struct Client;
    pub struct NoTls;
}

mod deadpool_postgres {
    pub struct Pool;
}

mod bb8_postgres {
    pub struct PostgresConnectionManager<T>(T);

    pub mod bb8 {
        pub struct Pool<M>(M);
    }
}

mod redis {
    pub struct Client;

    pub mod aio {
        pub struct ConnectionManager;
        pub struct MultiplexedConnection;
    }

    pub mod cluster {
        pub struct ClusterClient;
    }

    pub mod cluster_async {
        pub struct ClusterConnection;
    }

    pub mod sentinel {
        pub struct SentinelClient;
    }
}

mod deadpool_redis {
    pub struct Pool;
}

mod bb8_redis {
    pub struct RedisConnectionManager;

    pub mod bb8 {
        pub struct Pool<M>(M);
    }
}

mod fred {
    pub mod clients {
        pub struct Client;
        pub struct Pool;
    }
}

mod memcache {
    pub struct Client;

    pub mod exp {
        pub struct AsyncMemcache;
        pub struct AsyncMetaClient;
    }
}

mod lapin {
    pub struct Channel;
    pub struct Connection;
}

mod deadpool_lapin {
    pub struct Pool;
}

mod async_nats {
    pub struct Client;

    pub mod jetstream {
        pub struct Context;
    }
}

mod rumqttc {
    pub struct AsyncClient;
}

mod mysql {
    pub struct Pool;
}

mod mysql_async {
    pub struct Pool;
}

mod r2d2 {
    pub struct Pool<M>(M);
}

mod tonic {
    pub mod transport {
        pub struct Channel;
    }
}

mod mongodb {
    pub struct Client;
    pub struct Collection<T>(T);
    pub struct Database;
}

mod lettre {
    pub struct AsyncSmtpTransport<E>(E);
    pub struct SmtpTransport;
    pub struct Tokio1Executor;
}

mod rdkafka {
    pub mod consumer {
        pub struct StreamConsumer;
    }

    pub mod producer {
        pub struct DefaultProducerContext;
        pub struct FutureProducer;
        pub struct ThreadedProducer<C>(C);
    }
}

mod rskafka {
    pub mod client {
        pub struct Client;
    }
}

mod object_store {
    pub trait ObjectStore {}
}

mod rusqlite {
    pub struct Connection;
}

mod r2d2_sqlite {
    pub struct SqliteConnectionManager;
}

include!("shared/every_backend.rs");

fn main() {}
