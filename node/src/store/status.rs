//! What an operator asks: how much waits for whom, and for how long.

use protocol::{Domain, Timestamp};

use super::row::{Column, fetch_all, fetch_one, row};
use super::{StoreError, Tx};

/// What waits for one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The peer.
    pub peer: Domain,
    /// Logs with something for it.
    pub lanes: u64,
    /// How many of them wait for a person.
    pub parked: u64,
    /// Entries, all lanes together.
    pub entries: u64,
    /// The time of the oldest of them that is still kept.
    pub oldest_at: Option<Timestamp>,
}

row! { struct WaitingRow { peer: String, lanes: i64, parked: i64, entries: i64, oldest_at_ms: Option<i64> } }

/// What waits for each peer, by name; peers with nothing waiting are not in it.
///
/// # Errors
/// When the database fails.
pub async fn waiting(tx: &mut Tx) -> Result<Vec<Waiting>, StoreError> {
    let rows = fetch_all!(
        tx,
        WaitingRow,
        "SELECT peer, COUNT(*) AS lanes, CAST(SUM(parked) AS BIGINT) AS parked, CAST(SUM(last - cursor) AS BIGINT) AS entries, \
         MIN(oldest_at_ms) AS oldest_at_ms FROM (\
           SELECT p.domain AS peer, r.cursor AS cursor, CASE WHEN r.until_seq < l.head THEN r.until_seq ELSE l.head END AS last, \
           CASE WHEN a.parked_seq IS NULL THEN 0 ELSE 1 END AS parked, \
           (SELECT MIN(e.at_ms) FROM entry e WHERE e.log_id = r.log_id \
            AND e.seq = CASE WHEN r.cursor < l.tail THEN l.tail ELSE r.cursor + 1 END) AS oldest_at_ms \
           FROM peer p JOIN reader r ON r.reader = p.domain JOIN log l ON l.id = r.log_id \
           LEFT JOIN lane a ON a.log_id = r.log_id AND a.reader = r.reader \
           WHERE r.cursor < l.head AND (r.until_seq IS NULL OR r.cursor < r.until_seq)) lanes \
         GROUP BY peer ORDER BY peer"
    )?;
    rows.into_iter()
        .map(|r| {
            Ok(Waiting {
                peer: Column("peer", "domain").parse(&r.peer)?,
                lanes: Column("lane", "reader").number(r.lanes)?,
                parked: Column("lane", "parked_seq").number(r.parked)?,
                entries: Column("reader", "cursor").number(r.entries)?,
                oldest_at: Column("entry", "at_ms").time_opt(r.oldest_at_ms)?,
            })
        })
        .collect()
}

/// How much a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// People.
    pub accounts: u64,
    /// Their devices, revoked ones not counted.
    pub devices: u64,
    /// Rooms, ended ones not counted.
    pub rooms: u64,
    /// Kept entries of all logs.
    pub entries: u64,
    /// Their bodies.
    pub bytes: u64,
}

row! { struct TotalsRow { accounts: i64, devices: i64, rooms: i64, entries: i64, bytes: i64 } }

/// How much this node holds.
///
/// # Errors
/// When the database fails.
pub async fn totals(tx: &mut Tx) -> Result<Totals, StoreError> {
    let r = fetch_one!(
        tx,
        TotalsRow,
        "SELECT (SELECT COUNT(*) FROM account) AS accounts, (SELECT COUNT(*) FROM device WHERE revoked_ms IS NULL) AS devices, \
         (SELECT COUNT(*) FROM room) AS rooms, \
         (SELECT CAST(COALESCE(SUM(head - tail + 1), 0) AS BIGINT) FROM log) AS entries, \
         (SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM log) AS bytes"
    )?;
    Ok(Totals {
        accounts: Column("account", "user_id").number(r.accounts)?,
        devices: Column("device", "device").number(r.devices)?,
        rooms: Column("room", "uri").number(r.rooms)?,
        entries: Column("log", "head").number(r.entries)?,
        bytes: Column("log", "bytes").number(r.bytes)?,
    })
}
