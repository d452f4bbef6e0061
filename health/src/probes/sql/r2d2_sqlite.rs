//! `r2d2::Pool<SqliteConnectionManager>` of the crate of that name. See [`rusqlite`](super::rusqlite).

use ::rusqlite::{Connection, Error};
use r2d2::Pool;
use r2d2_sqlite::SqliteConnectionManager;

use super::rusqlite::{LABEL, read};
use crate::{
    probe::library_probe,
    probes::{
        pool::r2d2::{BlockingDriver, R2d2Probe},
        support::label::Label,
    },
};

library_probe! { "database", Pool<SqliteConnectionManager> => R2d2Probe::<Read>::of }

struct Read;

impl BlockingDriver for Read {
    type Manager = SqliteConnectionManager;
    type Error = Error;

    fn query(connection: &mut Connection) -> Result<(), Error> {
        read(connection)
    }

    fn label() -> Label {
        LABEL
    }
}
