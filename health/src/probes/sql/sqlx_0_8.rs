//! `sqlx::Pool` of any database, of sqlx 0.8. Queries and failures are those of the module `sqlx`, which is for sqlx 0.9. `migrated` does not
//! exist for this version.

// The only `path` attributes of this crate: the files are compiled for both versions, each with its own `sqlx`. Their types and traits have
// the same names and nothing in common, so no generic code can serve both, and copies would drift apart.
#[allow(clippy::duplicate_mod)]
#[path = "sqlx/pool.rs"]
mod pool;
#[allow(clippy::duplicate_mod)]
#[path = "sqlx/queries.rs"]
mod queries;
#[allow(clippy::duplicate_mod)]
#[path = "sqlx/sqlite.rs"]
mod sqlite;

use ::sqlx_0_8 as sqlx;

pub use self::queries::{query, replication_lag, writable};
