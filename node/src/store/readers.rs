//! Who must get the entries of a log, and how far each of them got.

use std::fmt;
use std::str::FromStr;

use protocol::{DeviceId, Domain, Seq};

use super::logs::{Log, LogId};
use super::row::{Column, execute, fetch_all, fetch_one, int, limit, row};
use super::{StoreError, Tx};

/// A reader of a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reader {
    /// A device of this node.
    Device(DeviceId),
    /// A peer: follower of a room, or hub that takes an uplink.
    Peer(Domain),
}

impl Reader {
    /// As in the column `reader`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Device(d) => d.as_str(),
            Self::Peer(p) => p.as_str(),
        }
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reader {
    type Err = protocol::id::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("mimi://") {
            text.parse().map(Self::Device)
        } else {
            text.parse().map(Self::Peer)
        }
    }
}

impl From<DeviceId> for Reader {
    fn from(device: DeviceId) -> Self {
        Self::Device(device)
    }
}

impl From<Domain> for Reader {
    fn from(peer: Domain) -> Self {
        Self::Peer(peer)
    }
}

/// One stay of a reader in a log. A device that was removed and added again has two, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// The first entry for it.
    pub from: Seq,
    /// The last entry it has acknowledged.
    pub cursor: Seq,
    /// The last entry for it, once it is known.
    pub until: Option<Seq>,
}

impl From<Stay> for delivery::reader::Reader {
    fn from(stay: Stay) -> Self {
        Self { from: stay.from, cursor: stay.cursor, until: stay.until }
    }
}

impl Stay {
    pub(super) fn from_columns(
        from: i64,
        cursor: i64,
        until: Option<i64>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            from: Column("reader", "from_seq").seq(from)?,
            cursor: Column("reader", "cursor").seq(cursor)?,
            until: until.map(|n| Column("reader", "until_seq").seq(n)).transpose()?,
        })
    }
}

/// Makes `reader` a reader from the entry `from` on. Changes nothing if it is one from there already.
///
/// # Errors
/// When the database fails.
pub async fn add(tx: &mut Tx, log: LogId, reader: &Reader, from: Seq) -> Result<(), StoreError> {
    execute!(
        tx,
        "INSERT INTO reader (log_id, reader, from_seq, cursor, until_seq) VALUES ($1, $2, $3, $4, NULL) ON CONFLICT (log_id, reader, from_seq) DO NOTHING",
        log.get(),
        reader.as_str(),
        int(from.get()),
        int(from.prev().get())
    )?;
    Ok(())
}

/// Ends the open stay of `reader`: `until` is its last entry. Says whether there was one.
///
/// # Errors
/// When the database fails.
pub async fn end(tx: &mut Tx, log: LogId, reader: &Reader, until: Seq) -> Result<bool, StoreError> {
    let ended = execute!(
        tx,
        "UPDATE reader SET until_seq = $3 WHERE log_id = $1 AND reader = $2 AND until_seq IS NULL",
        log.get(),
        reader.as_str(),
        int(until.get())
    )?;
    Ok(ended > 0)
}

/// Acknowledges everything up to `seq`. A cursor only moves forward, never past the head, and in each stay never past its end. Says
/// whether anything moved.
///
/// # Errors
/// When the database fails.
pub async fn advance(
    tx: &mut Tx,
    log: LogId,
    reader: &Reader,
    seq: Seq,
) -> Result<bool, StoreError> {
    let moved = execute!(
        tx,
        "UPDATE reader SET cursor = CASE WHEN until_seq < $3 THEN until_seq ELSE $3 END \
         WHERE log_id = $1 AND reader = $2 AND from_seq <= $3 AND cursor < $3 AND (until_seq IS NULL OR cursor < until_seq) \
         AND $3 <= (SELECT head FROM log WHERE id = $1)",
        log.get(),
        reader.as_str(),
        int(seq.get())
    )?;
    Ok(moved > 0)
}

/// Whether anybody must get entries of `log` after `seq`.
///
/// # Errors
/// When the database fails.
pub async fn any_after(tx: &mut Tx, log: LogId, seq: Seq) -> Result<bool, StoreError> {
    let (any,) = fetch_one!(
        tx,
        (i64,),
        "SELECT CAST(CASE WHEN EXISTS (SELECT 1 FROM reader WHERE log_id = $1 AND (until_seq IS NULL OR until_seq > $2)) \
         THEN 1 ELSE 0 END AS BIGINT)",
        log.get(),
        int(seq.get())
    )?;
    Ok(any != 0)
}

/// The stays of `reader` in `log`, oldest first. Empty: it is none.
///
/// # Errors
/// When the database fails.
pub async fn stays(tx: &mut Tx, log: LogId, reader: &Reader) -> Result<Vec<Stay>, StoreError> {
    let rows = fetch_all!(
        tx,
        (i64, i64, Option<i64>),
        "SELECT from_seq, cursor, until_seq FROM reader WHERE log_id = $1 AND reader = $2 ORDER BY from_seq",
        log.get(),
        reader.as_str()
    )?;
    rows.into_iter().map(|(from, cursor, until)| Stay::from_columns(from, cursor, until)).collect()
}

row! {
    struct OfReaderRow {
        id: i64, kind: String, name: String, hub: String, incarnation: Vec<u8>, head: i64, tail: i64, chain: Vec<u8>,
        tail_chain: Vec<u8>, last_at_ms: i64, bytes: i64, from_seq: i64, cursor: i64, until_seq: Option<i64>,
    }
}

/// Every stay of `reader`, by log and oldest first; in the first `max` logs.
///
/// # Errors
/// When the database fails.
pub async fn of_reader(
    tx: &mut Tx,
    reader: &Reader,
    max: usize,
) -> Result<Vec<(Log, Stay)>, StoreError> {
    let rows = fetch_all!(
        tx,
        OfReaderRow,
        "SELECT l.id, l.kind, l.name, l.hub, l.incarnation, l.head, l.tail, l.chain, l.tail_chain, l.last_at_ms, l.bytes, \
         r.from_seq, r.cursor, r.until_seq FROM reader r JOIN log l ON l.id = r.log_id \
         WHERE r.reader = $1 AND r.log_id IN (SELECT DISTINCT log_id FROM reader WHERE reader = $1 ORDER BY log_id LIMIT $2) \
         ORDER BY r.log_id, r.from_seq",
        reader.as_str(),
        limit(max)
    )?;
    rows.into_iter().map(TryInto::try_into).collect()
}

impl TryFrom<OfReaderRow> for (Log, Stay) {
    type Error = StoreError;
    fn try_from(r: OfReaderRow) -> Result<Self, StoreError> {
        let stay = Stay::from_columns(r.from_seq, r.cursor, r.until_seq)?;
        let log = super::logs::LogRow {
            id: r.id,
            kind: r.kind,
            name: r.name,
            hub: r.hub,
            incarnation: r.incarnation,
            head: r.head,
            tail: r.tail,
            chain: r.chain,
            tail_chain: r.tail_chain,
            last_at_ms: r.last_at_ms,
            bytes: r.bytes,
        };
        Ok((log.try_into()?, stay))
    }
}

/// The least cursor of all who still need something of a log; nothing when nobody does.
///
/// # Errors
/// When the database fails.
pub async fn least_cursor(tx: &mut Tx, log: LogId) -> Result<Option<Seq>, StoreError> {
    let (seq,) = fetch_one!(
        tx,
        (Option<i64>,),
        "SELECT MIN(cursor) FROM reader WHERE log_id = $1 AND (until_seq IS NULL OR cursor < until_seq)",
        log.get()
    )?;
    seq.map(|seq| Column("reader", "cursor").seq(seq)).transpose()
}

/// Forgets stays that are over and whose entries were all removed.
///
/// # Errors
/// When the database fails.
pub async fn forget_over(tx: &mut Tx, log: LogId) -> Result<u64, StoreError> {
    execute!(
        tx,
        "DELETE FROM reader WHERE log_id = $1 AND until_seq IS NOT NULL AND cursor >= until_seq \
         AND until_seq < (SELECT tail FROM log WHERE id = $1)",
        log.get()
    )
}

/// Ends every stay of `reader` for good, without delivering the rest: a revoked device.
///
/// # Errors
/// When the database fails.
pub async fn remove(tx: &mut Tx, reader: &Reader) -> Result<u64, StoreError> {
    execute!(tx, "DELETE FROM reader WHERE reader = $1", reader.as_str())
}
