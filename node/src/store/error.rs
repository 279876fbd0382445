//! What can go wrong with the database, and what of it is worth trying again.

use std::path::PathBuf;
use std::sync::Arc;

/// Our own failure, never the caller's. Cheap to clone: one failed commit answers many submissions.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database was written by a newer program. Nothing in it was touched.
    #[error(
        "the database has schema {found}, this program knows only up to {known}: it was written by a newer version; run that one, or restore a backup"
    )]
    NewerSchema {
        /// The newest migration in the database.
        found: i64,
        /// The newest migration of this program.
        known: i64,
    },
    /// The database was written by an older program, and was not to be changed. Nothing in it was touched.
    #[error(
        "the database has schema {found}, this program needs {known}: it was written by an older version"
    )]
    OlderSchema {
        /// The newest migration in the database; 0 when there is none.
        found: i64,
        /// The newest migration of this program.
        known: i64,
    },
    /// The database belongs to another node.
    #[error("the database belongs to {found}, not to {wanted}")]
    OtherNode {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// There is no database yet and it was not to be made.
    #[error("there is no database at {}; `waxwing-node init` makes one", .0.display())]
    Missing(PathBuf),
    /// The SQLite library has the write-ahead-log corruption bug that 3.51.3 mended.
    #[error("SQLite {found} is too old: 3.51.3 or newer is needed")]
    OldSqlite {
        /// What `sqlite_version()` says.
        found: String,
    },
    /// Too much is waiting, or another process held the database for too long. Worth trying again.
    #[error("the database did not answer in time: it is busy or cannot be reached")]
    Busy,
    /// The connection to the database broke, or its server takes nothing for now. Worth trying again, and idempotently: a connection that
    /// breaks while a commit is under way leaves open whether it happened.
    #[error("the database cannot be reached or takes nothing for now: {0}")]
    Unreachable(#[source] Arc<sqlx::Error>),
    /// The disk is full. Nothing was changed; worth trying again after space was made.
    #[error("the disk of the database is full")]
    Full,
    /// The disk failed while a commit was made durable. What the operating system holds and what the disk holds may differ from
    /// then on, so nothing is written any more until the node is started again and has read the file back.
    #[error(
        "the disk failed under the database; nothing is written any more until the node is started again"
    )]
    Broken,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A job panicked. Its changes were rolled back.
    #[error("a database job failed: {0}")]
    Panicked(String),
    /// A row holds what this program never wrote.
    #[error("the table {table} holds a broken {column}")]
    Corrupt {
        /// Which table.
        table: &'static str,
        /// Which column.
        column: &'static str,
    },
    /// The row that the caller had read is no longer as it was: another process wrote in between, without its lock. Nothing was changed.
    #[error("the table {table} changed in between")]
    Conflict {
        /// Which table.
        table: &'static str,
    },
    /// The database refused a statement, or the connection broke.
    #[error("database: {0}")]
    Database(#[source] Arc<sqlx::Error>),
    /// The migrations could not run.
    #[error("database schema: {0}")]
    Migrate(#[source] Arc<sqlx::migrate::MigrateError>),
    /// The writer's thread could not be started.
    #[error("cannot start the writer: {0}")]
    Thread(#[source] Arc<std::io::Error>),
    /// A file next to the database.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Arc<std::io::Error>,
    },
}

impl StoreError {
    /// Whether the disk can no longer be trusted.
    pub(super) fn is_fatal(&self) -> bool {
        match self {
            Self::Broken => true,
            Self::Database(e) => e.as_database_error().is_some_and(disk_failed),
            _ => false,
        }
    }

    pub(super) fn file(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source: Arc::new(source) }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::PoolTimedOut) {
            return Self::Busy;
        }
        if matches!(error, sqlx::Error::Io(_)) {
            return Self::Unreachable(Arc::new(error));
        }
        match error.as_database_error().map(fate) {
            Some(Fate::Busy) => Self::Busy,
            Some(Fate::Unreachable) => Self::Unreachable(Arc::new(error)),
            Some(Fate::Full) => Self::Full,
            Some(Fate::Other) | None => Self::Database(Arc::new(error)),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Migrate(Arc::new(error))
    }
}

enum Fate {
    Busy,
    Unreachable,
    Full,
    Other,
}

/// The primary result code of SQLite, or nothing for PostgreSQL.
fn sqlite_code(error: &dyn sqlx::error::DatabaseError) -> Option<i32> {
    error.try_downcast_ref::<sqlx::sqlite::SqliteError>()?;
    // Extended codes carry the primary one in their low byte.
    error.code()?.parse::<i32>().ok().map(|code| code & 0xff)
}

fn fate(error: &dyn sqlx::error::DatabaseError) -> Fate {
    if let Some(code) = sqlite_code(error) {
        // SQLITE_IOERR_SHMSIZE: the file that the processes share cannot grow, and nothing was written yet.
        if error.code().as_deref() == Some("4874") {
            return Fate::Full;
        }
        // SQLITE_BUSY, SQLITE_LOCKED; SQLITE_FULL.
        return match code {
            5 | 6 => Fate::Busy,
            13 => Fate::Full,
            _ => Fate::Other,
        };
    }
    match error.code().as_deref() {
        // serialization_failure, deadlock_detected, lock_not_available, too_many_connections.
        Some("40001" | "40P01" | "55P03" | "53300") => Fate::Busy,
        Some("53100") => Fate::Full,
        // read_only_sql_transaction: set so by an operator, or a standby that has not taken over yet. The two timeouts of a transaction that
        // stood still, out_of_memory, and whatever an operator, a shutdown, a crash or a start does to connections.
        Some("25006" | "25P03" | "25P04" | "53200") => Fate::Unreachable,
        Some(code) if code.starts_with("08") || code.starts_with("57") => Fate::Unreachable,
        _ => Fate::Other,
    }
}

fn disk_failed(error: &dyn sqlx::error::DatabaseError) -> bool {
    if let Some(code) = sqlite_code(error) {
        // SQLITE_IOERR, SQLITE_CORRUPT, SQLITE_NOTADB.
        return matches!(code, 10 | 11 | 26);
    }
    // io_error, data_corrupted, index_corrupted. (PostgreSQL itself stops after a failed fsync.)
    matches!(error.code().as_deref(), Some("58030" | "XX001" | "XX002"))
}
