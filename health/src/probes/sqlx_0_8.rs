//! `sqlx::Pool` of any database, of sqlx 0.8: what is asked, what each failure means, and the other questions are those of
//! sqlx 0.9, see the module `sqlx` beside this one. There is no `migrated`.

// One body for two versions: each reads the files with its own `sqlx`.
#[allow(clippy::duplicate_mod)]
#[path = "sqlx/pool.rs"]
mod pool;
#[allow(clippy::duplicate_mod)]
#[path = "sqlx/questions.rs"]
mod questions;
#[allow(clippy::duplicate_mod)]
#[path = "sqlx/sqlite.rs"]
mod sqlite;

use ::sqlx_0_8 as sqlx;

pub(crate) use self::pool::classify;
pub use self::questions::{query, replication_lag, writable};
