//! Connections: one that writes and a few that read, with every setting that durability rests on stated.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, SqlitePool};

use super::{Inner, Location, Older, Options, StoreError, Tx, migrate};

/// Snapshots at a time.
const READ_CONNECTIONS: u32 = 4;
/// How long a transaction of another process, or a busy pool, is waited for.
const WAIT: Duration = Duration::from_secs(5);
/// The same for a server: one that is down must not hold up for longer those who could be told so.
const WAIT_SERVER: Duration = Duration::from_secs(2);
/// The first SQLite without the write-ahead-log corruption of 3.7.0 to 3.51.2.
const SQLITE_MIN: [u32; 3] = [3, 51, 3];

#[derive(Clone)]
pub(super) enum Pools {
    Sqlite { write: SqlitePool, read: SqlitePool },
    Postgres { write: PgPool, read: PgPool },
}

impl Pools {
    pub(super) async fn open(options: &Options) -> Result<Self, StoreError> {
        match &options.location {
            Location::Sqlite(path) => open_sqlite(path, options).await,
            Location::Postgres(url) => open_postgres(url, options.older).await,
        }
    }

    pub(super) async fn begin_write(&self) -> Result<Tx, StoreError> {
        let (tx, begun) = match self {
            Self::Sqlite { write, .. } => {
                let mut tx = Tx::new(Inner::Sqlite(write.acquire().await?));
                // IMMEDIATE: a transaction that reads first and then cannot write would have to be run again.
                let begun = tx.control("BEGIN IMMEDIATE").await;
                (tx, begun)
            }
            Self::Postgres { write, .. } => {
                let mut tx = Tx::new(Inner::Postgres(write.acquire().await?));
                let begun = tx.control("BEGIN").await;
                (tx, begun)
            }
        };
        settle(tx, begun)
    }

    pub(super) async fn begin_read(&self) -> Result<Tx, StoreError> {
        let (mut tx, begun) = match self {
            Self::Sqlite { read, .. } => {
                let mut tx = Tx::new(Inner::Sqlite(read.acquire().await?));
                let begun = tx.control("BEGIN DEFERRED").await;
                (tx, begun)
            }
            Self::Postgres { read, .. } => {
                let mut tx = Tx::new(Inner::Postgres(read.acquire().await?));
                let begun = tx.control("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await;
                (tx, begun)
            }
        };
        // The pool ends the snapshot when it gets the connection back.
        tx.settled = begun.is_ok();
        settle(tx, begun)
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres { write, read } => {
                read.close().await;
                write.close().await;
            }
        }
    }
}

/// A connection that could not begin is not used again, unless it only has to wait its turn.
fn settle(mut tx: Tx, begun: Result<(), StoreError>) -> Result<Tx, StoreError> {
    match begun {
        Ok(()) => Ok(tx),
        Err(error) => {
            tx.settled = matches!(error, StoreError::Busy);
            Err(error)
        }
    }
}

async fn open_sqlite(path: &Path, options: &Options) -> Result<Pools, StoreError> {
    let exists = path.try_exists().map_err(|e| StoreError::file(path, e))?;
    if !exists && !options.create {
        return Err(StoreError::Missing(path.to_owned()));
    }
    let file = SqliteConnectOptions::new().filename(path);
    let file = match &options.vfs {
        Some(name) => file.vfs(name.clone()),
        None => file,
    };
    if exists {
        // Before anything that could change the file, its journal mode included.
        let look = file.clone().pragma("query_only", "ON");
        migrate::judge_sqlite(&look.busy_timeout(WAIT), options.older).await?;
    }
    if !exists {
        // SQLite gives its other files the same mode. What it holds is nobody else's business.
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| StoreError::file(path, e))?;
    }
    let base = file
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(WAIT)
        // SQLite ignores a disk that fails during its own checkpoints; the writer makes them and does not.
        .pragma("wal_autocheckpoint", "0")
        // KiB. The two megabytes that SQLite has by default would be read again for every batch of a large database.
        .pragma("cache_size", "-16384")
        // A statement for many messages notes what it changes, to undo it alone: in a file that would double what is written.
        .pragma("temp_store", "MEMORY")
        .statement_cache_capacity(256);
    let write = SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .acquire_timeout(WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(base.clone())
        .await?;
    let (version,): (String,) = sqlx::query_as("SELECT sqlite_version()").fetch_one(&write).await?;
    if !new_enough(&version) {
        return Err(StoreError::OldSqlite { found: version });
    }
    if options.older == Older::Update {
        migrate::run_sqlite(&write).await?;
    }
    if !exists {
        sync_folder(path)?;
    }
    // All of them now: a process that has run out of file descriptors still has its database.
    let read = SqlitePoolOptions::new()
        .min_connections(READ_CONNECTIONS)
        .max_connections(READ_CONNECTIONS)
        .test_before_acquire(false)
        .acquire_timeout(WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_release(|connection, _| {
            Box::pin(async move {
                // Fails when SQLite ended the snapshot itself; then there is none to end.
                sqlx::query("ROLLBACK").execute(connection).await.ok();
                Ok(true)
            })
        })
        .connect_with(base.create_if_missing(false).pragma("query_only", "ON"))
        .await?;
    Ok(Pools::Sqlite { write, read })
}

fn new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|p| p.parse::<u32>().unwrap_or(0));
    let found = [(); 3].map(|()| parts.next().unwrap_or(0));
    found >= SQLITE_MIN
}

/// A new file is only there after a power loss if its folder was written too.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| StoreError::file(folder, e))
}

async fn open_postgres(url: &str, older: Older) -> Result<Pools, StoreError> {
    let base: PgConnectOptions = url.parse::<PgConnectOptions>()?;
    // Stated, because a server or role may be set up to answer before the disk did.
    let base = base.application_name("waxwing-node").options([
        ("synchronous_commit", "on"),
        ("lock_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "60s"),
    ]);
    let pool = |connections| {
        PgPoolOptions::new().max_connections(connections).acquire_timeout(WAIT_SERVER)
    };
    // A second connection, so that the next batch need not wait for a broken one to be noticed.
    let write = pool(2).connect_with(base.clone()).await?;
    migrate::run_postgres(&write, older).await?;
    let read = pool(READ_CONNECTIONS).after_release(|connection, _| {
        Box::pin(async move {
            sqlx::query("ROLLBACK").execute(connection).await?;
            Ok(true)
        })
    });
    let read = read.connect_lazy_with(base);
    Ok(Pools::Postgres { write, read })
}

#[cfg(test)]
mod tests {
    use super::new_enough;

    #[test]
    fn sqlite_with_the_corruption_bug_is_refused() {
        for (version, fine) in [
            ("3.51.3", true),
            ("3.52.0", true),
            ("4.0.0", true),
            ("3.51.2", false),
            ("3.40.1", false),
            ("", false),
        ] {
            assert_eq!(new_enough(version), fine, "{version}");
        }
    }
}
