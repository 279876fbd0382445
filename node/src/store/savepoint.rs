//! Savepoints: what lets one job of a shared transaction fail alone.
//!
//! | state | meaning | first change of the next job |
//! |---|---|---|
//! | `Off` | the transaction has one job, or is a snapshot | nothing |
//! | `None` | no savepoint yet | set it |
//! | `Clean` | set, nothing changed since | nothing |
//! | `Dirty` | set, and a job that succeeded changed something since | release it, set it anew |

use futures_util::TryStreamExt as _;
use sqlx::{Either, Executor, Sqlite, SqliteConnection};

use super::{Inner, StoreError, Tx};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Savepoint {
    Off,
    None,
    Clean,
    Dirty,
}

/// What goes before the next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    None,
    First,
    Next,
}

impl Tx {
    /// What goes before a change that is about to be made. Counts as made.
    pub(super) fn savepoint_due(&mut self) -> Due {
        let due = match self.savepoint {
            Savepoint::Off => return Due::None,
            // The job's own changes need no further one.
            Savepoint::Dirty if self.changed => Due::None,
            Savepoint::Clean => Due::None,
            Savepoint::None => Due::First,
            Savepoint::Dirty => Due::Next,
        };
        self.savepoint = Savepoint::Dirty;
        self.changed = true;
        due
    }
}

/// Sets the savepoint by itself, if one is due.
pub(super) async fn set(tx: &mut Tx) -> Result<(), StoreError> {
    let sql = match tx.savepoint_due() {
        Due::None => return Ok(()),
        Due::First => "SAVEPOINT job",
        Due::Next => "RELEASE SAVEPOINT job; SAVEPOINT job",
    };
    // Not prepared: PostgreSQL takes two statements at once only that way.
    let result = match &mut tx.inner {
        Inner::Sqlite(c) => sqlx::query(sql).execute(&mut **c).await.map(|_| ()),
        Inner::Postgres(c) => sqlx::raw_sql(sql).execute(&mut **c).await.map(|_| ()),
    };
    result.map_err(|e| tx.failed(e))
}

/// A job begins.
pub(super) async fn begin(tx: &mut Tx) -> Result<(), StoreError> {
    tx.changed = false;
    match tx.inner {
        // A failed read leaves a transaction of SQLite as it was.
        Inner::Sqlite(_) => Ok(()),
        // PostgreSQL gives up the transaction for any failed statement, such as a lock that came too late.
        Inner::Postgres(_) => set(tx).await,
    }
}

/// Undoes what the job has changed.
pub(super) async fn undo(tx: &mut Tx) -> Result<(), StoreError> {
    if tx.savepoint == Savepoint::Off || !tx.changed {
        return Ok(());
    }
    tx.savepoint = Savepoint::Clean;
    // Fails when SQLite has already given up the whole transaction (full disk).
    match &mut tx.inner {
        Inner::Sqlite(c) => sqlx::query(ROLLBACK_TO).execute(&mut **c).await.map(|_| ()),
        Inner::Postgres(c) => sqlx::query(ROLLBACK_TO).execute(&mut **c).await.map(|_| ()),
    }
    .map_err(|e| tx.failed(e))
}

const ROLLBACK_TO: &str = "ROLLBACK TO SAVEPOINT job";

/// Runs statements in one round trip; says how many rows the last of them touched.
pub(super) async fn run(
    connection: &mut SqliteConnection,
    query: sqlx::query::Query<'_, Sqlite, sqlx::sqlite::SqliteArguments>,
) -> Result<u64, sqlx::Error> {
    let mut results = connection.fetch_many(query);
    let mut touched = 0;
    while let Some(result) = results.try_next().await? {
        if let Either::Left(done) = result {
            touched = done.rows_affected();
        }
    }
    Ok(touched)
}
