//! Logs and their entries: the one mechanism under rooms, replicas, inboxes and uplinks. PROTOCOL §4.

use delivery::log::Placed;
use delivery::reader::{LogEnds, Span};
use protocol::api::{Gap, GapReason};
use protocol::log::{Chain, Digest, EntryKind};
use protocol::{DeviceId, Domain, Incarnation, RoomId, Seq, Timestamp};

use super::fresh::Change;
use super::row::{
    Column, change_all, change_optional, execute, fetch_all, fetch_one, fetch_optional, int, limit,
    ms, row,
};
use super::submissions::Key;
use super::{Inner, StoreError, Tx};

/// A log's number in this database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(i64);

impl LogId {
    pub(super) const fn new(id: i64) -> Self {
        Self(id)
    }

    /// The number, for the log of what the node does.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// What a log is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogName {
    /// The history of a room that this node orders.
    Room(RoomId),
    /// The copy of the history of a room that another node orders, with the same numbers.
    Replica(RoomId),
    /// What a device must get beside its rooms.
    Inbox(DeviceId),
    /// Submissions that wait for a room's foreign hub.
    Uplink(RoomId),
}

impl LogName {
    /// The word in the column `kind`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Room(_) => "room",
            Self::Replica(_) => "replica",
            Self::Inbox(_) => "inbox",
            Self::Uplink(_) => "uplink",
        }
    }

    /// The room or device.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Room(r) | Self::Replica(r) | Self::Uplink(r) => r.as_str(),
            Self::Inbox(d) => d.as_str(),
        }
    }

    /// The room, unless it is an inbox.
    #[must_use]
    pub const fn room(&self) -> Option<&RoomId> {
        match self {
            Self::Room(r) | Self::Replica(r) | Self::Uplink(r) => Some(r),
            Self::Inbox(_) => None,
        }
    }

    pub(super) fn from_columns(kind: &str, name: &str) -> Result<Self, StoreError> {
        let column = Column("log", "name");
        Ok(match kind {
            "room" => Self::Room(column.parse(name)?),
            "replica" => Self::Replica(column.parse(name)?),
            "inbox" => Self::Inbox(column.parse(name)?),
            "uplink" => Self::Uplink(column.parse(name)?),
            _ => return Err(Column("log", "kind").corrupt()),
        })
    }
}

/// A log without its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its number here.
    pub id: LogId,
    /// What it is of.
    pub name: LogName,
    /// The node that orders the room; of an inbox this node.
    pub hub: Domain,
    /// Whose life the numbers belong to.
    pub incarnation: Incarnation,
    /// The newest entry, 0 before the first.
    pub head: Seq,
    /// The first entry still here; `head + 1` when none is.
    pub tail: Seq,
    /// The chain at `head`.
    pub chain: Chain,
    /// The chain before `tail`.
    pub tail_chain: Chain,
    /// The time of the newest entry.
    pub last_at: Timestamp,
    /// The bodies of all kept entries together.
    pub bytes: u64,
}

impl Log {
    /// How many entries are kept: of an uplink, how many submissions wait for the hub.
    #[must_use]
    pub const fn kept(&self) -> u64 {
        self.head.next().get().saturating_sub(self.tail.get())
    }
}

row! {
    pub(super) struct LogRow {
        id: i64, kind: String, name: String, hub: String, incarnation: Vec<u8>, head: i64, tail: i64,
        chain: Vec<u8>, tail_chain: Vec<u8>, last_at_ms: i64, bytes: i64,
    }
}

impl TryFrom<LogRow> for Log {
    type Error = StoreError;
    fn try_from(r: LogRow) -> Result<Self, StoreError> {
        let incarnation = Column("log", "incarnation").bytes(&r.incarnation)?;
        Ok(Self {
            id: LogId(r.id),
            name: LogName::from_columns(&r.kind, &r.name)?,
            hub: Column("log", "hub").parse(&r.hub)?,
            incarnation: Incarnation::from_bytes(incarnation),
            head: Column("log", "head").seq(r.head)?,
            tail: Column("log", "tail").seq(r.tail)?,
            chain: Chain::from_bytes(Column("log", "chain").bytes(&r.chain)?),
            tail_chain: Chain::from_bytes(Column("log", "tail_chain").bytes(&r.tail_chain)?),
            last_at: Column("log", "last_at_ms").time(r.last_at_ms)?,
            bytes: Column("log", "bytes").number(r.bytes)?,
        })
    }
}

/// Where a log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Whose life the numbers belong to.
    pub incarnation: Incarnation,
    /// The last entry that is not in it: 0, or where a follower comes in.
    pub seq: Seq,
    /// The chain there.
    pub chain: Chain,
    /// The time there.
    pub at: Timestamp,
}

/// Makes a log; says nothing and changes nothing if it exists.
///
/// # Errors
/// When the database fails.
pub async fn create(
    tx: &mut Tx,
    name: &LogName,
    hub: &Domain,
    start: &Start,
    now: Timestamp,
) -> Result<Option<LogId>, StoreError> {
    let id = change_optional!(
        tx,
        (i64,),
        "INSERT INTO log (kind, name, hub, incarnation, head, tail, chain, tail_chain, last_at_ms, bytes, created_ms) \
         VALUES ($1, $2, $3, $4, $5, $9, $6, $6, $7, 0, $8) ON CONFLICT (kind, name) DO NOTHING RETURNING id",
        name.kind(),
        name.name(),
        hub.as_str(),
        start.incarnation.as_bytes().as_slice(),
        int(start.seq.get()),
        start.chain.as_bytes().as_slice(),
        ms(start.at),
        ms(now),
        int(start.seq.next().get())
    )?;
    Ok(id.map(|(id,)| LogId(id)))
}

/// The log of that name.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut Tx, name: &LogName) -> Result<Option<Log>, StoreError> {
    fetch_optional!(
        tx,
        LogRow,
        "SELECT id, kind, name, hub, incarnation, head, tail, chain, tail_chain, last_at_ms, bytes FROM log WHERE kind = $1 AND name = $2",
        name.kind(),
        name.name()
    )?
    .map(TryInto::try_into)
    .transpose()
}

/// The log of that number.
///
/// # Errors
/// When the database fails, or there is none.
pub async fn get(tx: &mut Tx, log: LogId) -> Result<Log, StoreError> {
    fetch_one!(
        tx,
        LogRow,
        "SELECT id, kind, name, hub, incarnation, head, tail, chain, tail_chain, last_at_ms, bytes FROM log WHERE id = $1",
        log.0
    )?
    .try_into()
}

/// The log of that name, for a change: whoever else wants to change it, in whatever process, waits until the transaction ends.
/// Take it before reading anything that the change depends on.
///
/// # Errors
/// When the database fails.
pub async fn lock(tx: &mut Tx, name: &LogName) -> Result<Option<Log>, StoreError> {
    // In SQLite the transaction holds the only write lock already.
    if matches!(tx.inner, Inner::Sqlite(_)) {
        return find(tx, name).await;
    }
    fetch_optional!(
        tx,
        LogRow,
        "SELECT id, kind, name, hub, incarnation, head, tail, chain, tail_chain, last_at_ms, bytes FROM log WHERE kind = $1 AND name = $2 FOR UPDATE",
        name.kind(),
        name.name()
    )?
    .map(TryInto::try_into)
    .transpose()
}

/// An entry, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub seq: Seq,
    /// The hub's time of acceptance.
    pub at: Timestamp,
    /// What it is.
    pub kind: EntryKind,
    /// The content; absent where this node holds, or the caller asked for, only the digest.
    pub body: Option<Vec<u8>>,
    /// The digest of kind, time and content.
    pub digest: Digest,
    /// The chain at this entry.
    pub chain: Chain,
    /// What goes with it to followers, in the node's own encoding.
    pub note: Option<Vec<u8>>,
}

impl Entry {
    /// The entry that a rule gave a place to.
    #[must_use]
    pub fn new(placed: &Placed, body: Vec<u8>, note: Option<Vec<u8>>) -> Self {
        let Placed { kind, seq, at, digest, chain } = *placed;
        Self { seq, at, kind, body: Some(body), digest, chain, note }
    }
}

row! {
    struct EntryRow {
        seq: i64, at_ms: i64, kind: i64, body: Option<Vec<u8>>, digest: Vec<u8>, chain: Vec<u8>, note: Option<Vec<u8>>,
    }
}

impl TryFrom<EntryRow> for Entry {
    type Error = StoreError;
    fn try_from(r: EntryRow) -> Result<Self, StoreError> {
        let kind = Column("entry", "kind");
        let kind = EntryKind::from_code(kind.number(r.kind)?).ok_or(kind.corrupt())?;
        let at = Column("entry", "at_ms").time(r.at_ms)?;
        let digest = Digest::from_bytes(Column("entry", "digest").bytes(&r.digest)?);
        // SQLite does not check what it reads back. A disk that turned a bit must not turn it in what others get.
        if r.body.as_ref().is_some_and(|body| Digest::of_entry(kind, at, body) != digest) {
            return Err(Column("entry", "body").corrupt());
        }
        Ok(Self {
            seq: Column("entry", "seq").seq(r.seq)?,
            at,
            kind,
            body: r.body,
            digest,
            chain: Chain::from_bytes(Column("entry", "chain").bytes(&r.chain)?),
            note: r.note,
        })
    }
}

/// Appends consecutive entries right after the head, and moves the head to the last of them.
///
/// # Errors
/// [`StoreError::Conflict`] when the first is not the one after the head; when the database fails.
pub async fn append(tx: &mut Tx, log: LogId, entries: &[Entry]) -> Result<(), StoreError> {
    append_submitted(tx, log, entries, None).await
}

/// The same; the first of them is what was handed in under that key with that digest.
pub(super) async fn append_submitted(
    tx: &mut Tx,
    log: LogId,
    entries: &[Entry],
    mut submitted: Option<(&Key, &Digest)>,
) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
    let bytes: usize = entries.iter().map(|e| e.body.as_ref().map_or(0, Vec::len)).sum();
    let moved = change_optional!(
        tx,
        (Vec<u8>,),
        "UPDATE log SET head = $2, chain = $3, last_at_ms = $4, bytes = bytes + $5 WHERE id = $1 AND head = $6 RETURNING incarnation",
        log.0,
        int(last.seq.get()),
        last.chain.as_bytes().as_slice(),
        ms(last.at),
        limit(bytes),
        int(first.seq.prev().get())
    )?;
    let Some((incarnation,)) = moved else { return Err(StoreError::Conflict { table: "log" }) };
    let incarnation = Column("log", "incarnation").bytes(&incarnation)?;
    let mut expected = first.seq;
    for entry in entries {
        if entry.seq != expected {
            return Err(StoreError::Conflict { table: "entry" });
        }
        insert(tx, log, entry, submitted.take()).await?;
        expected = expected.next();
    }
    tx.changed(Change::grew(log, Incarnation::from_bytes(incarnation), entries));
    Ok(())
}

async fn insert(
    tx: &mut Tx,
    log: LogId,
    entry: &Entry,
    submitted: Option<(&Key, &Digest)>,
) -> Result<(), StoreError> {
    execute!(
        tx,
        "INSERT INTO entry (log_id, seq, at_ms, kind, body, digest, chain, note, origin, submit_key, submitted) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        log.0,
        int(entry.seq.get()),
        ms(entry.at),
        i64::from(entry.kind.code()),
        entry.body.as_deref(),
        entry.digest.as_bytes().as_slice(),
        entry.chain.as_bytes().as_slice(),
        entry.note.as_deref(),
        submitted.map(|(key, _)| key.origin.as_str()),
        submitted.map(|(key, _)| key.bytes.as_slice()),
        submitted.map(|(_, digest)| digest.as_bytes().as_slice())
    )?;
    Ok(())
}

/// Which bodies to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// All that are kept.
    All,
    /// Not those of Welcomes: they are for others.
    NoWelcomes,
}

type ChainRow = (Vec<u8>,);

/// Reasons of gaps.
const EXPIRED: &str = "expired";
const LOST: &str = "lost";

/// The ends of a log as [`delivery::reader::window`] asks for them, with the first hole after `position`.
///
/// # Errors
/// When the database fails.
pub async fn ends(tx: &mut Tx, log: &Log, position: Seq) -> Result<LogEnds, StoreError> {
    let hole = fetch_optional!(
        tx,
        (i64, i64, String),
        "SELECT first, last, reason FROM gap WHERE log_id = $1 AND last > $2 ORDER BY first LIMIT 1",
        log.id.0,
        int(position.get())
    )?;
    let gap = |(first, last, reason): (i64, i64, String)| {
        let reason = match reason.as_str() {
            EXPIRED => GapReason::Expired,
            LOST => GapReason::Lost,
            _ => return Err(Column("gap", "reason").corrupt()),
        };
        let place = |column, n| Column("gap", column).seq(n);
        Ok(Gap { first: place("first", first)?, last: place("last", last)?, reason })
    };
    let hole = hole.map(gap).transpose()?;
    Ok(LogEnds { incarnation: log.incarnation, tail: log.tail, head: log.head, hole })
}

/// Reads the entries of `span` that are here, in order, until their bodies make more than `bytes`; a first one that is larger comes alone.
/// It also ends before an entry that is damaged.
///
/// # Errors
/// [`StoreError::Corrupt`] when the very first is damaged; when the database fails.
pub async fn read(
    tx: &mut Tx,
    log: LogId,
    span: Span,
    bytes: usize,
    bodies: Bodies,
) -> Result<Vec<Entry>, StoreError> {
    // Lengths first, so that no more bodies are fetched than may be kept in memory.
    let hidden = match bodies {
        Bodies::All => 0,
        Bodies::NoWelcomes => i64::from(EntryKind::Welcome.code()),
    };
    let rows = fetch_all!(
        tx,
        EntryRow,
        "SELECT e.seq, e.at_ms, e.kind, CASE WHEN e.kind = $5 THEN NULL ELSE e.body END AS body, e.digest, e.chain, e.note \
         FROM (SELECT seq, SUM(CASE WHEN kind = $5 THEN 0 ELSE COALESCE(length(body), 0) END) OVER (ORDER BY seq) AS total \
               FROM entry WHERE log_id = $1 AND seq >= $2 AND seq <= $3) run \
         JOIN entry e ON e.log_id = $1 AND e.seq = run.seq WHERE run.total <= $4 OR e.seq = $2 ORDER BY e.seq",
        log.0,
        int(span.first().get()),
        int(span.last().get()),
        limit(bytes),
        hidden
    )?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        match Entry::try_from(row) {
            Ok(entry) => entries.push(entry),
            Err(damaged) if entries.is_empty() => return Err(damaged),
            // What comes before it is whole and goes its way.
            Err(_) => break,
        }
    }
    Ok(entries)
}

/// One entry, body included.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is damaged; when the database fails.
pub async fn entry(tx: &mut Tx, log: LogId, seq: Seq) -> Result<Option<Entry>, StoreError> {
    fetch_optional!(
        tx,
        EntryRow,
        "SELECT seq, at_ms, kind, body, digest, chain, note FROM entry WHERE log_id = $1 AND seq = $2",
        log.0,
        int(seq.get())
    )?
    .map(TryInto::try_into)
    .transpose()
}

/// The chain at `seq`, when it is still known.
///
/// # Errors
/// When the database fails.
pub async fn chain_at(tx: &mut Tx, log: &Log, seq: Seq) -> Result<Option<Chain>, StoreError> {
    if seq == log.head {
        return Ok(Some(log.chain));
    }
    if seq.next() == log.tail {
        return Ok(Some(log.tail_chain));
    }
    let row = fetch_optional!(
        tx,
        ChainRow,
        "SELECT chain FROM entry WHERE log_id = $1 AND seq = $2 \
         UNION ALL SELECT chain FROM gap WHERE log_id = $1 AND last = $2",
        log.id.0,
        int(seq.get())
    )?;
    row.map(|(chain,)| Ok(Chain::from_bytes(Column("entry", "chain").bytes(&chain)?))).transpose()
}

/// Goes past entries that this node will never have: those right after the head, up to `gap.last`, where the chain is `chain`.
///
/// # Errors
/// [`StoreError::Conflict`] when the gap does not begin right after the head; when the database fails.
pub async fn skip(
    tx: &mut Tx,
    log: LogId,
    gap: &Gap,
    chain: &Chain,
    now: Timestamp,
) -> Result<(), StoreError> {
    let moved = execute!(
        tx,
        "UPDATE log SET head = $2, chain = $3 WHERE id = $1 AND head = $4 AND head < $2",
        log.0,
        int(gap.last.get()),
        chain.as_bytes().as_slice(),
        int(gap.first.prev().get())
    )?;
    if moved != 1 {
        return Err(StoreError::Conflict { table: "log" });
    }
    tx.changed(Change::Moved(log));
    let reason = match gap.reason {
        GapReason::Expired => EXPIRED,
        GapReason::Lost => LOST,
    };
    execute!(
        tx,
        "INSERT INTO gap (log_id, first, last, chain, reason, at_ms) VALUES ($1, $2, $3, $4, $5, $6)",
        log.0,
        int(gap.first.get()),
        int(gap.last.get()),
        chain.as_bytes().as_slice(),
        reason,
        ms(now)
    )?;
    Ok(())
}

/// Follows a hub into a new life: forgets what came after `start.seq` in the old one and goes on from there. Readers that were further
/// stand there again. PROTOCOL §4.4.
///
/// # Errors
/// [`StoreError::Conflict`] when the log begins after `start.seq` or does not reach it; when the database fails.
pub async fn rewind(tx: &mut Tx, log: LogId, start: &Start) -> Result<(), StoreError> {
    let to = int(start.seq.get());
    let moved = execute!(
        tx,
        "UPDATE log SET head = $2, chain = $3, last_at_ms = $4, incarnation = $5, \
         bytes = (SELECT COALESCE(SUM(length(body)), 0) FROM entry WHERE log_id = $1 AND seq <= $2) \
         WHERE id = $1 AND head >= $2 AND tail - 1 <= $2",
        log.0,
        to,
        start.chain.as_bytes().as_slice(),
        ms(start.at),
        start.incarnation.as_bytes().as_slice()
    )?;
    if moved != 1 {
        return Err(StoreError::Conflict { table: "log" });
    }
    tx.changed(Change::Moved(log));
    execute!(tx, "DELETE FROM entry WHERE log_id = $1 AND seq > $2", log.0, to)?;
    execute!(tx, "DELETE FROM gap WHERE log_id = $1 AND last > $2", log.0, to)?;
    // A stay that began or ended in what is forgotten did not, in the new life.
    execute!(tx, "DELETE FROM reader WHERE log_id = $1 AND from_seq > $2 + 1", log.0, to)?;
    execute!(
        tx,
        "UPDATE reader SET until_seq = NULL WHERE log_id = $1 AND until_seq > $2",
        log.0,
        to
    )?;
    execute!(tx, "UPDATE reader SET cursor = $2 WHERE log_id = $1 AND cursor > $2", log.0, to)?;
    Ok(())
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// How many entries.
    pub entries: u64,
    /// Their bodies together.
    pub bytes: u64,
}

/// Removes the entries up to `last`, which nobody may need any more; of a room, after [`super::submissions::outlive`].
///
/// # Errors
/// [`StoreError::Conflict`] when somebody else trimmed the log meanwhile; when the database fails.
pub async fn trim(tx: &mut Tx, log: &Log, last: Seq) -> Result<Trimmed, StoreError> {
    // The log must begin where the chain is known: after an entry or after a hole.
    let stand = fetch_optional!(
        tx,
        (i64, Vec<u8>),
        "SELECT seq, chain FROM (SELECT seq, chain FROM entry WHERE log_id = $1 AND seq >= $2 AND seq <= $3 \
         UNION ALL SELECT last AS seq, chain FROM gap WHERE log_id = $1 AND last >= $2 AND last <= $3) place \
         ORDER BY seq DESC LIMIT 1",
        log.id.0,
        int(log.tail.get()),
        int(last.min(log.head).get())
    )?;
    let Some((last, chain)) = stand else { return Ok(Trimmed::default()) };
    let sizes = change_all!(
        tx,
        (i64,),
        "DELETE FROM entry WHERE log_id = $1 AND seq <= $2 RETURNING CAST(COALESCE(length(body), 0) AS BIGINT)",
        log.id.0,
        last
    )?;
    let bytes: i64 = sizes.iter().map(|(n,)| n).sum();
    execute!(tx, "DELETE FROM gap WHERE log_id = $1 AND last <= $2", log.id.0, last)?;
    let moved = execute!(
        tx,
        "UPDATE log SET tail = $2, tail_chain = $3, bytes = bytes - $4 WHERE id = $1 AND tail = $5",
        log.id.0,
        last.saturating_add(1),
        chain.as_slice(),
        bytes,
        int(log.tail.get())
    )?;
    if moved != 1 {
        return Err(StoreError::Conflict { table: "log" });
    }
    let bytes = Column("log", "bytes").number(bytes)?;
    Ok(Trimmed { entries: sizes.len() as u64, bytes })
}

/// Logs that keep entries, by number after `after`, for the worker that trims them.
///
/// # Errors
/// When the database fails.
pub async fn kept(tx: &mut Tx, after: Option<LogId>, max: usize) -> Result<Vec<Log>, StoreError> {
    let rows = fetch_all!(
        tx,
        LogRow,
        "SELECT id, kind, name, hub, incarnation, head, tail, chain, tail_chain, last_at_ms, bytes FROM log \
         WHERE id > $1 AND head >= tail ORDER BY id LIMIT $2",
        after.map_or(0, LogId::get),
        limit(max)
    )?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The last of the oldest `max` entries that was accepted before `before`; 0 when none was.
///
/// # Errors
/// When the database fails.
pub async fn accepted_before(
    tx: &mut Tx,
    log: LogId,
    before: Timestamp,
    max: usize,
) -> Result<Seq, StoreError> {
    let (last,) = fetch_one!(
        tx,
        (i64,),
        "SELECT COALESCE(MAX(seq), 0) FROM (SELECT seq, at_ms FROM entry WHERE log_id = $1 ORDER BY seq LIMIT $2) oldest WHERE at_ms < $3",
        log.0,
        limit(max),
        ms(before)
    )?;
    Column("entry", "seq").seq(last)
}
