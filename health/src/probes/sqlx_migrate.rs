//! `migrated`, which is re-exported by `sqlx`: it needs what sqlx has only with its own feature `migrate`.

use sqlx::{
    Database, Error, Pool,
    migrate::{AppliedMigration, Migrate, MigrateError, Migrator},
};

use super::sqlx::pool::{Query, run};
use crate::error::{ProbeError, ProbeErrorKind};

/// Whether all migrations of a `Migrator` are applied to the database, whole and unchanged.
///
/// For a service whose migrations are run by something else: it is not ready before they are. Unlike `Migrator::run`, this
/// takes no lock, makes no table and writes nothing, so it can be asked of a standby and by who may only read. Migrations that
/// this program doesn't know are no failure: in a rolling update, the newer one applies its own while the older still serves.
///
/// | what it finds | the message |
/// | --- | --- |
/// | all are applied, with the checksums of the `Migrator`'s | |
/// | some are not, or there is no table of migrations | '2 of 7 migrations are not applied' |
/// | one was begun and not finished | 'a migration was not finished' |
/// | one was applied that had another text | 'a migration was changed after it was applied' |
///
/// Their kind is [`ProbeErrorKind::Failed`]; which migrations they are is in the log.
///
/// # Errors
///
/// They are not, or there is no answer: see the table of the module.
///
/// # Examples
///
/// ```
/// use health::{HealthCheck, ProbeError, probes::sqlx::migrated};
/// use sqlx::{PgPool, migrate::Migrator};
///
/// // sqlx::migrate!();
/// static MIGRATOR: Migrator = Migrator::DEFAULT;
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     #[health(with = is_migrated, group = "database")]
///     schema: PgPool,
/// }
///
/// async fn is_migrated(pool: &PgPool) -> Result<(), ProbeError> {
///     migrated(pool, &MIGRATOR).await
/// }
/// ```
pub async fn migrated<DB>(pool: &Pool<DB>, migrator: &Migrator) -> Result<(), ProbeError>
where
    DB: Database,
    DB::Connection: Migrate,
{
    let found = run(pool, Applied { table: migrator.table_name.to_string() }).await?;
    let failed =
        |message: String, which: String| Err(ProbeError::new(ProbeErrorKind::Failed, message).with_source(which));
    if let Some(version) = found.unfinished {
        return failed("a migration was not finished".to_owned(), format!("migration {version} is dirty"));
    }
    // A reversible migration is two: the way back is never applied.
    let ours = || migrator.iter().filter(|migration| !migration.migration_type.is_down_migration());
    let mut missing = Vec::new();
    for migration in ours() {
        match found.applied.iter().find(|applied| applied.version == migration.version) {
            None => missing.push(migration.version),
            Some(applied) if applied.checksum != migration.checksum => {
                return failed(
                    "a migration was changed after it was applied".to_owned(),
                    format!("migration {} has another checksum", migration.version),
                );
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("{} of {} migrations are not applied", missing.len(), ours().count());
    failed(message, format!("not applied: {missing:?}"))
}

/// Which migrations the database has.
#[derive(Clone)]
struct Applied {
    table: String,
}

#[derive(Default)]
struct Found {
    applied: Vec<AppliedMigration>,
    unfinished: Option<i64>,
}

impl<DB> Query<DB> for Applied
where
    DB: Database,
    DB::Connection: Migrate,
{
    type Output = Found;

    async fn run(&self, connection: &mut DB::Connection) -> Result<Found, Error> {
        let asked = async {
            let unfinished = connection.dirty_version(&self.table).await?;
            Ok(Found { applied: connection.list_applied_migrations(&self.table).await?, unfinished })
        };
        match asked.await {
            Ok(found) => Ok(found),
            Err(MigrateError::Execute(error)) if is_no_such_table(&error) => Ok(Found::default()),
            Err(MigrateError::Execute(error)) => Err(error),
            Err(other) => Err(Error::Migrate(Box::new(other))),
        }
    }
}

/// PostgreSQL's code for it, MySQL's, and SQLite's for a statement that makes no sense to it.
fn is_no_such_table(error: &Error) -> bool {
    let Error::Database(error) = error else { return false };
    error.code().is_some_and(|code| matches!(&*code, "42P01" | "42S02" | "1"))
}
