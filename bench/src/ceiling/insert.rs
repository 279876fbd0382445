//! A bare insert: messages into one table of SQLite, so many to a transaction, each transaction on the disk before the next.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::{Outcome, float, process};

/// Rows of one transaction.
pub const ROWS: u64 = 64;

/// What it gave.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Inserted {
    /// Rows per second.
    pub rows_per_s: f64,
    /// Processor microseconds per row.
    pub cpu_us: f64,
    /// Bytes written to the disk per row.
    pub written: f64,
}

/// Inserts rows of `bytes` for so long; prints what it gave. This is the child's side.
///
/// # Errors
/// When the database fails.
pub async fn serve(folder: &Path, bytes: usize, time: Duration) -> Outcome<()> {
    let options = SqliteConnectOptions::new()
        .filename(folder.join("insert.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut db = options.connect().await?;
    sqlx::query("CREATE TABLE entry (log INTEGER, seq INTEGER, body BLOB, PRIMARY KEY (log, seq))")
        .execute(&mut db)
        .await?;
    let body = vec![0x5a_u8; bytes];
    let (before, begun) = (process::own(), tokio::time::Instant::now());
    let mut rows = 0_u64;
    while begun.elapsed() < time {
        let mut tx = db.begin().await?;
        for _ in 0..ROWS {
            sqlx::query("INSERT INTO entry (log, seq, body) VALUES ($1, $2, $3)")
                .bind(i64::try_from(rows % 100)?)
                .bind(i64::try_from(rows)?)
                .bind(body.as_slice())
                .execute(&mut *tx)
                .await?;
            rows += 1;
        }
        tx.commit().await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let used = process::own().since(before);
    let per_row = |total: f64| total / float(rows.max(1));
    let inserted = Inserted {
        rows_per_s: float(rows) / seconds,
        cpu_us: per_row(used.cpu.as_secs_f64() * 1e6),
        written: per_row(float(used.written)),
    };
    println!("{}", serde_json::to_string(&inserted)?);
    Ok(())
}

/// Runs it as a child.
///
/// # Errors
/// When the child fails.
pub fn measure(folder: &Path, bytes: usize, time: Duration) -> Outcome<Inserted> {
    std::fs::create_dir_all(folder)?;
    let mut command = Command::new(process::program("waxwing-bench")?);
    command.arg("--serve-insert").arg(folder).arg("--bytes").arg(bytes.to_string());
    command.arg("--seconds").arg(time.as_secs_f64().to_string());
    Ok(serde_json::from_str(&process::output(&mut command)?)?)
}
