//! What the device keeps: one SQLite file, its values sealed, one connection, one process.
//!
//! WAL and `synchronous=FULL`: what a transaction wrote is on disk when its commit returns. Everything that belongs
//! together is written through one [`Tx`]; a `Tx` that is dropped leaves no trace.
//!
//! | file | holds |
//! |---|---|
//! | `client.db` | the store (`migrations/client`) |
//! | `seal.key` | the key, with [`crate::Seal::KeyFile`] |
//! | `lock` | nothing; whoever has locked it may open the store |

mod account;
mod keypackages;
mod messages;
mod outbox;
mod rooms;
mod sealing;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, Row as _, Sqlite, SqliteConnection, Transaction};

pub(crate) use account::{Account, NewAccount, Stage};
pub(crate) use keypackages::suite;
pub(crate) use messages::{Echo, Inserted, MessageRow, NewMessage, PENDING};
pub(crate) use outbox::{Action, Attempt, CommandRow, SubmissionRow};
pub(crate) use rooms::{PinRow, Place as LogPlace, RoomNo, RoomRow};
use sealing::Sealer;

use crate::{Error, Place, Result};

/// Every change of the schema, in order. Forward only.
const MIGRATIONS: &[&str] = &[include_str!("../../migrations/client/0001_init.sql")];
/// The first SQLite without the WAL-reset bug.
const SQLITE_MIN: (u32, u32, u32) = (3, 51, 3);

/// An open store.
pub(crate) struct Store {
    conn: SqliteConnection,
    sealer: Sealer,
    dir: PathBuf,
    // Let go last: fields are dropped in order.
    _lock: File,
}

/// One transaction. Without [`Tx::commit`] nothing happened.
pub(crate) struct Tx<'a> {
    tx: Transaction<'a, Sqlite>,
    sealer: &'a Sealer,
}

impl Store {
    /// Opens the store in `place`, made when missing.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::WrongSeal`], [`Error::NewerStore`], [`Error::Damaged`], or the disk's.
    pub(crate) async fn open(place: &Place) -> Result<Self> {
        make_dir(&place.dir)?;
        let lock = lock(&place.dir)?;
        let mut conn = connect(&place.dir.join(DATABASE)).await.map_err(Error::opening)?;
        migrate(&mut conn).await.map_err(Error::opening)?;
        let sealer = sealing::open(&mut conn, place).await.map_err(Error::opening)?;
        Ok(Self { conn, sealer, dir: place.dir.clone(), _lock: lock })
    }

    /// Whether there is a store in `dir`.
    pub(crate) fn exists(dir: &Path) -> bool {
        dir.join(DATABASE).is_file()
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn tx(&mut self) -> Result<Tx<'_>> {
        let tx = self.conn.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Tx { tx, sealer: &self.sealer })
    }

    /// Deletes everything: an account that never came to be.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn discard(self) -> Result<()> {
        self.conn.close().await?;
        for name in [DATABASE, "client.db-wal", "client.db-shm", sealing::KEY_FILE] {
            match std::fs::remove_file(self.dir.join(name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(file_error(&self.dir.join(name), e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Tx<'_> {
    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// The disk's; nothing is written then.
    pub(crate) async fn commit(self) -> Result<()> {
        Ok(self.tx.commit().await?)
    }

    fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }
}

const DATABASE: &str = "client.db";

fn make_dir(dir: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|e| file_error(dir, e))
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    let file = options.open(&path).map_err(|e| file_error(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(dir.display().to_string())),
        Err(TryLockError::Error(e)) => Err(file_error(&path, e)),
    }
}

async fn connect(path: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::from_str("sqlite:")?
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // What was deleted is not to be found in the file afterwards.
        .pragma("secure_delete", "ON");
    private_file(path)?;
    let mut conn = SqliteConnection::connect_with(&options).await?;
    let (version,): (String,) =
        sqlx::query_as("SELECT sqlite_version()").fetch_one(&mut conn).await?;
    let mut parts = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    if (part(), part(), part()) < SQLITE_MIN {
        return Err(Error::Invalid("the SQLite in this program has a known bug; rebuild it"));
    }
    Ok(conn)
}

/// Makes the file with mode 0600 before SQLite would make it with the umask's.
fn private_file(path: &Path) -> Result<()> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(|_| ()).map_err(|e| file_error(path, e))
}

async fn migrate(conn: &mut SqliteConnection) -> Result<()> {
    let row = sqlx::query("PRAGMA user_version").fetch_one(&mut *conn).await?;
    let done = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        return Err(Error::NewerStore);
    }
    let (tables,): (i64,) =
        sqlx::query_as("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *conn).await?;
    if done == 0 && tables > 0 {
        // Somebody else's database: nothing of ours goes into it.
        let source = sqlx::Error::Protocol("a database of another program".to_owned());
        return Err(Error::Damaged { source });
    }
    for sql in MIGRATIONS.iter().skip(done) {
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::raw_sql(*sql).execute(&mut *tx).await?;
        tx.commit().await?;
    }
    Ok(())
}

fn file_error(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: path.display().to_string(), source }
}

/// A number as SQLite holds it. Ours stay far below 2^63.
fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A number as we hold it.
fn nat(n: i64, table: &'static str) -> Result<u64> {
    u64::try_from(n).map_err(|_| Error::Corrupt { table })
}

/// A hash or id of fixed length.
fn fixed<const N: usize>(bytes: &[u8], table: &'static str) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Error::Corrupt { table })
}

#[cfg(test)]
#[expect(clippy::large_futures, reason = "a test's own future may be large")]
mod tests;
