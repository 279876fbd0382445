//! How the delivery of logs to peers goes. The attempt is written down before dialling, so that a node that dies while dialling does
//! not start again at full speed. PROTOCOL §9.6.

use delivery::lane::{Parked, Row};
use protocol::{Domain, Seq, Timestamp, refusal};

use super::logs::{Log, LogId, LogRow};
use super::readers::Stay;
use super::row::{Column, execute, fetch_all, fetch_optional, int, limit, ms, row};
use super::{StoreError, Tx};

/// The delivery of one log to one peer. Its cursor is the reader's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// Attempts since the last success, the running one included.
    pub attempts: u32,
    /// Not before this.
    pub next_at: Timestamp,
    /// Why it does not go on by itself.
    pub parked: Option<Parked>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When the peer last took something.
    pub last_ok: Option<Timestamp>,
}

impl Lane {
    /// The row that [`delivery::lane::Lane`] starts from.
    #[must_use]
    pub fn row(&self, stay: &Stay) -> Row {
        let parked = self.parked.clone();
        Row {
            from: stay.from,
            cursor: stay.cursor,
            attempts: self.attempts,
            next_at: self.next_at,
            parked,
        }
    }
}

/// Writes the lane down. The cursor is moved by [`super::readers::advance`].
///
/// # Errors
/// When the database fails.
pub async fn save(tx: &mut Tx, log: LogId, peer: &Domain, lane: &Lane) -> Result<(), StoreError> {
    let parked = lane.parked.as_ref();
    let refusal = parked.map(|p| serde_json::to_string(&p.refusal.to_body())).transpose();
    let refusal = refusal.map_err(|_| Column("lane", "parked_refusal").corrupt())?;
    execute!(
        tx,
        "INSERT INTO lane (log_id, reader, attempts, next_at_ms, parked_seq, parked_refusal, last_error, last_ok_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (log_id, reader) DO UPDATE SET attempts = excluded.attempts, \
         next_at_ms = excluded.next_at_ms, parked_seq = excluded.parked_seq, parked_refusal = excluded.parked_refusal, \
         last_error = excluded.last_error, last_ok_ms = excluded.last_ok_ms",
        log.get(),
        peer.as_str(),
        i64::from(lane.attempts),
        ms(lane.next_at),
        parked.map(|p| int(p.seq.get())),
        refusal,
        lane.last_error.as_deref(),
        lane.last_ok.map(ms)
    )?;
    Ok(())
}

fn parked(seq: Option<i64>, refusal: Option<&str>) -> Result<Option<Parked>, StoreError> {
    let column = Column("lane", "parked_refusal");
    match (seq, refusal) {
        (None, None) => Ok(None),
        (Some(seq), Some(text)) => {
            let body: refusal::Body = serde_json::from_str(text).map_err(|_| column.corrupt())?;
            let seq = Column("lane", "parked_seq").seq(seq)?;
            Ok(Some(Parked { seq, refusal: body.into_refusal() }))
        }
        _ => Err(column.corrupt()),
    }
}

row! {
    struct LaneRow {
        attempts: i64, next_at_ms: i64, parked_seq: Option<i64>, parked_refusal: Option<String>,
        last_error: Option<String>, last_ok_ms: Option<i64>,
    }
}

/// How the delivery of `log` to `peer` goes; as of a new lane when nothing was tried yet.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut Tx, log: LogId, peer: &Domain) -> Result<Lane, StoreError> {
    let row = fetch_optional!(
        tx,
        LaneRow,
        "SELECT attempts, next_at_ms, parked_seq, parked_refusal, last_error, last_ok_ms FROM lane WHERE log_id = $1 AND reader = $2",
        log.get(),
        peer.as_str()
    )?;
    let Some(r) = row else { return Ok(Lane::default()) };
    Ok(Lane {
        attempts: Column("lane", "attempts").number(r.attempts)?,
        next_at: Column("lane", "next_at_ms").time(r.next_at_ms)?,
        parked: parked(r.parked_seq, r.parked_refusal.as_deref())?,
        last_error: r.last_error,
        last_ok: Column("lane", "last_ok_ms").time_opt(r.last_ok_ms)?,
    })
}

/// A lane with something to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The log.
    pub log: Log,
    /// Where the peer stands in it.
    pub stay: Stay,
    /// How its delivery goes.
    pub lane: Lane,
}

impl Behind {
    /// The last entry to deliver, as far as the log reaches.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.stay.until.map_or(self.log.head, |until| until.min(self.log.head))
    }
}

row! {
    struct BehindRow {
        id: i64, kind: String, name: String, hub: String, incarnation: Vec<u8>, head: i64, tail: i64, chain: Vec<u8>,
        tail_chain: Vec<u8>, last_at_ms: i64, bytes: i64, from_seq: i64, cursor: i64, until_seq: Option<i64>,
        attempts: i64, next_at_ms: i64, parked_seq: Option<i64>,
        parked_refusal: Option<String>, last_error: Option<String>, last_ok_ms: Option<i64>,
    }
}

impl TryFrom<BehindRow> for Behind {
    type Error = StoreError;
    fn try_from(r: BehindRow) -> Result<Self, StoreError> {
        let stay = Stay::from_columns(r.from_seq, r.cursor, r.until_seq)?;
        let lane = Lane {
            attempts: Column("lane", "attempts").number(r.attempts)?,
            next_at: Column("lane", "next_at_ms").time(r.next_at_ms)?,
            parked: parked(r.parked_seq, r.parked_refusal.as_deref())?,
            last_error: r.last_error,
            last_ok: Column("lane", "last_ok_ms").time_opt(r.last_ok_ms)?,
        };
        let log = LogRow {
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
        Ok(Self { log: log.try_into()?, stay, lane })
    }
}

/// The lanes of `peer` with something to deliver, those that may go first in front, parked ones last; at most `max`.
///
/// # Errors
/// When the database fails.
pub async fn behind(tx: &mut Tx, peer: &Domain, max: usize) -> Result<Vec<Behind>, StoreError> {
    let rows = fetch_all!(
        tx,
        BehindRow,
        "SELECT l.id, l.kind, l.name, l.hub, l.incarnation, l.head, l.tail, l.chain, l.tail_chain, l.last_at_ms, l.bytes, \
         r.from_seq, r.cursor, r.until_seq, COALESCE(a.attempts, 0) AS attempts, COALESCE(a.next_at_ms, 0) AS next_at_ms, \
         a.parked_seq, a.parked_refusal, a.last_error, a.last_ok_ms \
         FROM reader r JOIN log l ON l.id = r.log_id LEFT JOIN lane a ON a.log_id = r.log_id AND a.reader = r.reader \
         WHERE r.reader = $1 AND r.cursor < l.head AND (r.until_seq IS NULL OR r.cursor < r.until_seq) \
         ORDER BY CASE WHEN a.parked_seq IS NULL THEN 0 ELSE 1 END, COALESCE(a.next_at_ms, 0), l.id, r.from_seq LIMIT $2",
        peer.as_str(),
        limit(max)
    )?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Peers that have something to get, for the start of a node: lanes are drained without being kicked.
///
/// # Errors
/// When the database fails.
pub async fn peers_behind(tx: &mut Tx) -> Result<Vec<Domain>, StoreError> {
    let rows = fetch_all!(
        tx,
        (String,),
        "SELECT p.domain FROM peer p WHERE EXISTS (SELECT 1 FROM reader r JOIN log l ON l.id = r.log_id \
         WHERE r.reader = p.domain AND r.cursor < l.head AND (r.until_seq IS NULL OR r.cursor < r.until_seq)) ORDER BY p.domain"
    )?;
    rows.iter().map(|(domain,)| Column("peer", "domain").parse(domain)).collect()
}

/// A person has looked at it: parked lanes of `peer` go on.
///
/// # Errors
/// When the database fails.
pub async fn unpark(tx: &mut Tx, peer: &Domain, now: Timestamp) -> Result<u64, StoreError> {
    execute!(
        tx,
        "UPDATE lane SET parked_seq = NULL, parked_refusal = NULL, attempts = 0, next_at_ms = $2 WHERE reader = $1 AND parked_seq IS NOT NULL",
        peer.as_str(),
        ms(now)
    )
}
