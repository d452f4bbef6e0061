//! `migrated`. It needs the feature `migrate` of sqlx.

use sqlx::{
    Database, Error, Pool,
    migrate::{AppliedMigration, Migrate, MigrateError, Migrator},
};

use super::pool::{Query, run};
use crate::error::{ProbeError, ProbeErrorKind};

/// Checks that all migrations of a `Migrator` are applied to the database, completely and unchanged.
///
/// For a service that is not ready before something else has run its migrations. Unlike `Migrator::run`, this takes no lock, creates no
/// table and writes nothing, so it works on a standby and with read permission only. Unknown migrations are ignored, because in a rolling
/// update the new version applies its own while the old one still serves.
///
/// | state of the database | message |
/// | --- | --- |
/// | all are applied, with the checksums of the `Migrator` | |
/// | some are not, or there is no table of migrations | '2 of 7 migrations are not applied' |
/// | one was started and not finished | 'a migration was not finished' |
/// | one was applied with another text | 'a migration was changed after it was applied' |
///
/// The kind is [`ProbeErrorKind::Failed`], and the log contains the versions.
///
/// # Errors
///
/// Returns an error for the states above, and if the query fails as in the table of the module.
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
    let state = run(pool, ReadMigrations { table: migrator.table_name.to_string() }).await?;
    let failed =
        |message: String, source: String| Err(ProbeError::new(ProbeErrorKind::Failed, message).with_source(source));
    if let Some(version) = state.unfinished {
        return failed("a migration was not finished".to_owned(), format!("migration {version} is dirty"));
    }
    // A reversible migration consists of two, of which the one that reverts it is not applied.
    let expected = || migrator.iter().filter(|migration| !migration.migration_type.is_down_migration());
    let mut missing = Vec::new();
    for migration in expected() {
        match state.applied.iter().find(|applied| applied.version == migration.version) {
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
    let message = format!("{} of {} migrations are not applied", missing.len(), expected().count());
    failed(message, format!("not applied: {missing:?}"))
}

/// Reads which migrations are applied.
#[derive(Clone)]
struct ReadMigrations {
    table: String,
}

#[derive(Default)]
struct MigrationState {
    applied: Vec<AppliedMigration>,
    unfinished: Option<i64>,
}

impl<DB> Query<DB> for ReadMigrations
where
    DB: Database,
    DB::Connection: Migrate,
{
    type Output = MigrationState;

    async fn run(&self, connection: &mut DB::Connection) -> Result<MigrationState, Error> {
        let state = async {
            let unfinished = connection.dirty_version(&self.table).await?;
            Ok(MigrationState { applied: connection.list_applied_migrations(&self.table).await?, unfinished })
        };
        match state.await {
            Ok(state) => Ok(state),
            Err(MigrateError::Execute(error)) if is_missing_table(&error) => Ok(MigrationState::default()),
            Err(MigrateError::Execute(error)) => Err(error),
            Err(other) => Err(Error::Migrate(Box::new(other))),
        }
    }
}

/// Checks for the codes of PostgreSQL and MySQL, and that of SQLite for any invalid statement.
fn is_missing_table(error: &Error) -> bool {
    let Error::Database(error) = error else { return false };
    error.code().is_some_and(|code| matches!(&*code, "42P01" | "42S02" | "1"))
}
