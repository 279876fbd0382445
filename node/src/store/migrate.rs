//! The schema: forward-only migrations, embedded in the program. A database from the future is refused untouched, and one from the past
//! where it is not this program's to change.

use std::borrow::Cow;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgPool, SqlSafeStr as _, SqlitePool};

use super::{Older, StoreError};

/// `(version, name, text for SQLite, text for PostgreSQL)`. Never edited once released; only added to.
const MIGRATIONS: &[(i64, &str, &str, &str)] = &[(
    1,
    "init",
    include_str!("../../../migrations/node/sqlite/0001_init.sql"),
    include_str!("../../../migrations/node/postgres/0001_init.sql"),
)];

fn migrator(
    text: fn(&(i64, &'static str, &'static str, &'static str)) -> &'static str,
) -> Migrator {
    let migrations = MIGRATIONS.iter().map(|m| {
        let (version, name) = (m.0, Cow::Borrowed(m.1));
        Migration::new(version, name, MigrationType::Simple, text(m).into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// The newest schema that this program knows.
#[must_use]
pub fn known() -> i64 {
    MIGRATIONS.iter().map(|m| m.0).max().unwrap_or(0)
}

/// Refuses a database that was not made by this version of the program, unless it may be brought up to date.
fn judge(found: Option<i64>, older: Older) -> Result<(), StoreError> {
    let (found, known) = (found.unwrap_or(0), known());
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    if found < known && older == Older::Refuse {
        return Err(StoreError::OlderSchema { found, known });
    }
    Ok(())
}

/// Looks at the file without changing a byte of it.
pub(super) async fn judge_sqlite(
    options: &SqliteConnectOptions,
    older: Older,
) -> Result<(), StoreError> {
    let mut connection = options.connect().await?;
    let (tables,): (i64,) = sqlx::query_as(
        "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'",
    )
    .fetch_one(&mut connection)
    .await?;
    let found = if tables == 0 {
        None
    } else {
        let (found,): (Option<i64>,) = sqlx::query_as("SELECT MAX(version) FROM _sqlx_migrations")
            .fetch_one(&mut connection)
            .await?;
        found
    };
    connection.close().await?;
    judge(found, older)
}

pub(super) async fn run_sqlite(pool: &SqlitePool) -> Result<(), StoreError> {
    Ok(migrator(|m| m.2).run(pool).await?)
}

pub(super) async fn run_postgres(pool: &PgPool, older: Older) -> Result<(), StoreError> {
    let (there,): (bool,) = sqlx::query_as("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(pool)
        .await?;
    let found = if there {
        let (found,): (Option<i64>,) =
            sqlx::query_as("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(pool).await?;
        found
    } else {
        None
    };
    judge(found, older)?;
    if found == Some(known()) && older == Older::Refuse {
        return Ok(());
    }
    Ok(migrator(|m| m.3).run(pool).await?)
}
