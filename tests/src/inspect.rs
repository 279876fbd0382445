//! Looks into a node's SQLite database from outside: is it sound, is anything still waiting, what does a message look like there?

use std::path::Path;
use std::time::Duration;

use protocol::log::{Chain, Digest, EntryKind};
use protocol::{Seq, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::trouble::During as _;
use crate::{Outcome, Trouble};

/// The entry kind of an application message. PROTOCOL §4.1.
const APPLICATION: i64 = 1;

/// One stored message.
#[derive(Clone, Debug)]
pub struct Stored {
    /// `room` on the hub, `replica` elsewhere.
    pub log: String,
    /// Its place.
    pub seq: i64,
    /// What the node has of it.
    pub body: Vec<u8>,
}

async fn open(data: &Path) -> Outcome<SqliteConnection> {
    let file = data.join("node.db");
    let options = SqliteConnectOptions::new().filename(&file).read_only(true);
    options.connect().await.during(file.display())
}

/// The newest application message.
///
/// # Errors
/// When there is none.
pub async fn newest(data: &Path) -> Outcome<Stored> {
    let mut db = open(data).await?;
    let row: Option<(String, i64, Vec<u8>)> = sqlx::query_as(
        "SELECT log.kind, entry.seq, entry.body FROM entry JOIN log ON log.id = entry.log_id
         WHERE entry.kind = $1 AND entry.body IS NOT NULL AND log.kind IN ('room', 'replica')
         ORDER BY entry.at_ms DESC, entry.seq DESC LIMIT 1",
    )
    .bind(APPLICATION)
    .fetch_optional(&mut db)
    .await?;
    db.close().await?;
    let (log, seq, body) =
        row.ok_or_else(|| Trouble::new("there is no message in the database"))?;
    Ok(Stored { log, seq, body })
}

/// What is sound about a database: how much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sound {
    /// Logs.
    pub logs: usize,
    /// Entries that are still kept.
    pub entries: usize,
    /// The highest number of an entry in any log, kept or not.
    pub newest: i64,
}

/// id, name, tail, head, chain before tail, chain at head.
type LogRow = (i64, String, i64, i64, Vec<u8>, Vec<u8>);

/// That the file is whole, every log gapless, and every chain follows from its entries.
///
/// # Errors
/// What is not.
pub async fn sound(data: &Path) -> Outcome<Sound> {
    let mut db = open(data).await?;
    let whole: (String,) = sqlx::query_as("PRAGMA integrity_check").fetch_one(&mut db).await?;
    if whole.0 != "ok" {
        return Trouble::is(format!("integrity_check: {}", whole.0));
    }
    let logs: Vec<LogRow> =
        sqlx::query_as("SELECT id, name, tail, head, tail_chain, chain FROM log ORDER BY id")
            .fetch_all(&mut db)
            .await?;
    let mut found = Sound { logs: logs.len(), ..Sound::default() };
    for (id, name, tail, head, tail_chain, head_chain) in logs {
        let entries: Vec<(i64, Vec<u8>, Vec<u8>)> =
            sqlx::query_as("SELECT seq, digest, chain FROM entry WHERE log_id = $1 ORDER BY seq")
                .bind(id)
                .fetch_all(&mut db)
                .await?;
        found.entries += entries.len();
        found.newest = found.newest.max(head);
        let wrong = |what: &str| Trouble::is(format!("log {name}: {what}"));
        if !entries.iter().map(|(seq, ..)| *seq).eq(tail..=head) {
            return wrong(&format!("its entries are not {tail} to {head}"));
        }
        let mut last = chain(&tail_chain)?;
        for (seq, digest, stored) in entries {
            let digest: [u8; 32] = digest.as_slice().try_into()?;
            let seq = Seq::new(u64::try_from(seq)?);
            last = last.next(seq, &Digest::from_bytes(digest));
            if last != chain(&stored)? {
                return wrong(&format!("the chain breaks at {seq}"));
            }
        }
        if last != chain(&head_chain)? {
            return wrong("its chain is not that of its newest entry");
        }
    }
    db.close().await?;
    Ok(found)
}

fn chain(bytes: &[u8]) -> Outcome<Chain> {
    Chain::from_slice(bytes).ok_or_else(|| Trouble::new("a chain is not 32 bytes"))
}

/// Entries that some reader has still to get, all readers together.
///
/// # Errors
/// When the database cannot be read.
pub async fn waiting(data: &Path) -> Outcome<i64> {
    let mut db = open(data).await?;
    let row: (Option<i64>,) = sqlx::query_as(
        "SELECT SUM(MAX(MIN(COALESCE(reader.until_seq, log.head), log.head) - reader.cursor, 0))
         FROM reader JOIN log ON log.id = reader.log_id",
    )
    .fetch_one(&mut db)
    .await?;
    db.close().await?;
    Ok(row.0.unwrap_or_default())
}

/// Entries that a node may not have removed: those of its own rooms, however old, and those that `reader` has still to get.
///
/// # Errors
/// When the database cannot be read.
pub async fn kept(data: &Path, reader: &str) -> Outcome<i64> {
    let mut db = open(data).await?;
    let row: (i64,) = sqlx::query_as(
        "SELECT COUNT(*) FROM entry JOIN log ON log.id = entry.log_id
         WHERE log.kind = 'room' OR EXISTS (
             SELECT 1 FROM reader WHERE reader.log_id = entry.log_id AND reader.reader = $1
             AND entry.seq > reader.cursor AND entry.seq <= COALESCE(reader.until_seq, log.head))",
    )
    .bind(reader)
    .fetch_one(&mut db)
    .await?;
    db.close().await?;
    Ok(row.0)
}

/// Moves what is in a database's write-ahead log into its file; nobody else may have it open.
///
/// # Errors
/// When the database cannot be written.
pub async fn fold(file: &Path) -> Outcome<()> {
    let mut db = SqliteConnectOptions::new().filename(file).connect().await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut db).await?;
    Ok(db.close().await?)
}

/// Makes a database look as if a program with that schema had written it; the node must not run.
///
/// # Errors
/// When the database cannot be written.
pub async fn set_schema(data: &Path, version: i64) -> Outcome<()> {
    let file = data.join("node.db");
    let mut db = SqliteConnectOptions::new().filename(&file).connect().await?;
    sqlx::query("UPDATE _sqlx_migrations SET version = $1").bind(version).execute(&mut db).await?;
    db.close().await?;
    fold(&file).await
}

/// Makes every entry of every log look as if it had been accepted so much earlier; the node must not run. How many that are.
///
/// # Errors
/// When the database cannot be written.
pub async fn age(data: &Path, by: Duration) -> Outcome<u64> {
    let mut db = SqliteConnectOptions::new().filename(data.join("node.db")).connect().await?;
    let aged = sqlx::query("UPDATE entry SET at_ms = at_ms - $1")
        .bind(i64::try_from(by.as_millis())?)
        .execute(&mut db)
        .await?;
    db.close().await?;
    Ok(aged.rows_affected())
}

/// Appends to a room's log, on its hub, a commit that is none; the node must not run. Its chain is right, so only whoever carries it out
/// finds out.
///
/// # Errors
/// When there is no such room, or the database cannot be written.
pub async fn add_no_commit(data: &Path, room: &str) -> Outcome<()> {
    let mut db = SqliteConnectOptions::new().filename(data.join("node.db")).connect().await?;
    let (log, head, before, last_at): (i64, i64, Vec<u8>, i64) = sqlx::query_as(
        "SELECT id, head, chain, last_at_ms FROM log WHERE kind = 'room' AND name = $1",
    )
    .bind(room)
    .fetch_one(&mut db)
    .await
    .during(room.to_owned())?;
    let (body, at) = (b"no commit at all", last_at + 1);
    let digest = Digest::of_entry(EntryKind::Commit, Timestamp::from_ms(u64::try_from(at)?), body);
    let next = chain(&before)?.next(Seq::new(u64::try_from(head + 1)?), &digest);
    sqlx::query("INSERT INTO entry (log_id, seq, at_ms, kind, body, digest, chain) VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(log)
        .bind(head + 1)
        .bind(at)
        .bind(i64::from(EntryKind::Commit.code()))
        .bind(body.as_slice())
        .bind(digest.as_bytes().as_slice())
        .bind(next.as_bytes().as_slice())
        .execute(&mut db)
        .await?;
    sqlx::query("UPDATE log SET head = head + 1, chain = $2, last_at_ms = $3, bytes = bytes + $4 WHERE id = $1")
        .bind(log)
        .bind(next.as_bytes().as_slice())
        .bind(at)
        .bind(i64::try_from(body.len())?)
        .execute(&mut db)
        .await?;
    Ok(db.close().await?)
}

/// Everything in the room logs and replicas of a node: `(log, head, chain at the head)`, by name.
///
/// # Errors
/// When the database cannot be read.
pub async fn heads(data: &Path) -> Outcome<Vec<(String, i64, Vec<u8>)>> {
    let mut db = open(data).await?;
    let rows = sqlx::query_as("SELECT kind || ' ' || name, head, chain FROM log WHERE kind <> 'inbox' ORDER BY kind, name")
        .fetch_all(&mut db)
        .await?;
    db.close().await?;
    Ok(rows)
}

/// Bytes as people look at them: 16 a line, with what is printable beside them.
#[must_use]
pub fn hex_dump(bytes: &[u8]) -> String {
    let line = |(i, row): (usize, &[u8])| {
        let hex: Vec<String> = row.iter().map(|b| format!("{b:02x}")).collect();
        let printable = |b: &u8| b.is_ascii_graphic() || *b == b' ';
        let text: String =
            row.iter().map(|b| if printable(b) { char::from(*b) } else { '.' }).collect();
        format!("{:06x}  {:<47}  {text}", i * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_shows_every_byte() {
        let dump = hex_dump(b"Letters sealed\x00\xff!");
        assert_eq!(
            dump,
            "000000  4c 65 74 74 65 72 73 20 73 65 61 6c 65 64 00 ff  Letters sealed..\n\
             000010  21                                               !"
        );
    }
}
