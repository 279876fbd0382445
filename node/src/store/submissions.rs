//! What was answered to whom, so that a repetition gets the same answer. PROTOCOL §5.1 and §5.2.
//!
//! | a submission that | is remembered |
//! |---|---|
//! | has its place in a room of this node | with its entry: a message costs one row |
//! | had it, and the entry is gone | in the table `submission`, by [`outlive`] |
//! | waits for a foreign hub, or was handed over to it | in the table `submission` |

use delivery::room::RoomHead;
use protocol::api::Accepted;
use protocol::log::{Chain, Digest};
use protocol::{Cursor, Epoch, Incarnation, RoomId, Seq, SubmitId, Timestamp};

use super::logs::{self, Entry, LogId, LogName};
use super::readers::Reader;
use super::row::{Column, execute, fetch_one, fetch_optional, int, limit, ms, row};
use super::{Inner, StoreError, Tx};

/// Under which name a submission is remembered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Who handed it in: a device of this node, or a peer.
    pub origin: Reader,
    /// Where to.
    pub room: RoomId,
    /// A device's SubmitId; for a peer the SHA-256 of the exact MLS message.
    pub bytes: Vec<u8>,
}

impl Key {
    /// The key of a device's submission.
    #[must_use]
    pub fn of_device(device: protocol::DeviceId, room: RoomId, id: &SubmitId) -> Self {
        Self { origin: Reader::Device(device), room, bytes: id.as_bytes().to_vec() }
    }

    /// The key of a peer's submission.
    #[must_use]
    pub fn of_peer(peer: protocol::Domain, room: RoomId, message: &Digest) -> Self {
        Self { origin: Reader::Peer(peer), room, bytes: message.as_bytes().to_vec() }
    }
}

/// How far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for the room's foreign hub.
    Stored,
    /// It has its place in the room.
    Accepted(Accepted),
}

/// What is remembered of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submission {
    /// What was handed in: the same key with another digest is a conflict.
    pub digest: Digest,
    /// How far it got.
    pub state: State,
    /// When it came; of one with a place here, the time of its place.
    pub created: Timestamp,
}

row! {
    pub(super) struct SubmissionRow {
        digest: Vec<u8>, state: String, incarnation: Option<Vec<u8>>, seq: Option<i64>, at_ms: Option<i64>,
        chain: Option<Vec<u8>>, created_ms: i64,
    }
}

impl TryFrom<SubmissionRow> for Submission {
    type Error = StoreError;
    fn try_from(r: SubmissionRow) -> Result<Self, StoreError> {
        let state = match (r.state.as_str(), r.incarnation, r.seq, r.at_ms, r.chain) {
            ("stored", ..) => State::Stored,
            ("accepted", Some(incarnation), Some(seq), Some(at), Some(chain)) => {
                let incarnation = Column("submission", "incarnation").bytes(&incarnation)?;
                State::Accepted(Accepted {
                    place: Cursor {
                        incarnation: Incarnation::from_bytes(incarnation),
                        seq: Column("submission", "seq").seq(seq)?,
                    },
                    at: Column("submission", "at_ms").time(at)?,
                    chain: Chain::from_bytes(Column("submission", "chain").bytes(&chain)?),
                })
            }
            _ => return Err(Column("submission", "state").corrupt()),
        };
        Ok(Self {
            digest: Digest::from_bytes(Column("submission", "digest").bytes(&r.digest)?),
            state,
            created: Column("submission", "created_ms").time(r.created_ms)?,
        })
    }
}

/// All that a hub must know to give an application message its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// The room's log, held for the change as by [`logs::lock`].
    pub log: LogId,
    /// The room as it stands.
    pub head: RoomHead,
    /// What is remembered of the same submission.
    pub prior: Option<Submission>,
    /// Whether the sender is in the room.
    pub inside: bool,
}

row! {
    pub(super) struct HeadRow {
        id: i64, head: i64, chain: Vec<u8>, last_at_ms: i64, incarnation: Vec<u8>, epoch: i64,
    }
}

impl TryFrom<HeadRow> for (LogId, RoomHead) {
    type Error = StoreError;
    fn try_from(r: HeadRow) -> Result<Self, StoreError> {
        let incarnation = Column("log", "incarnation").bytes(&r.incarnation)?;
        let head = RoomHead {
            incarnation: Incarnation::from_bytes(incarnation),
            head: Column("log", "head").seq(r.head)?,
            chain: Chain::from_bytes(Column("log", "chain").bytes(&r.chain)?),
            last_at: Column("log", "last_at_ms").time(r.last_at_ms)?,
            epoch: Epoch::new(Column("room", "epoch").number(r.epoch)?),
        };
        Ok((LogId::new(r.id), head))
    }
}

/// Looks at the room that this node orders and that `key` names, and at the same submission. `sender` is the URI of a device, or of a user
/// when the device is not known. Nothing when there is no such room.
///
/// # Errors
/// When the database fails.
pub async fn scene(tx: &mut Tx, key: &Key, sender: &str) -> Result<Option<Scene>, StoreError> {
    // PostgreSQL would read the submission and the epoch as they were before it waited for the lock.
    if matches!(tx.inner, Inner::Postgres(_)) {
        logs::lock(tx, &LogName::Room(key.room.clone())).await?;
    }
    let found = fetch_optional!(
        tx,
        HeadRow,
        "SELECT l.id, l.head, l.chain, l.last_at_ms, l.incarnation, r.epoch FROM log l JOIN room r ON r.log_id = l.id \
         WHERE l.kind = 'room' AND l.name = $1",
        key.room.as_str()
    )?;
    let Some(found) = found else { return Ok(None) };
    let (log, head) = found.try_into()?;
    let (inside,) = fetch_one!(
        tx,
        (i64,),
        "SELECT CAST(CASE WHEN EXISTS (SELECT 1 FROM member m WHERE m.log_id = $1 AND m.device = $2) \
         OR EXISTS (SELECT 1 FROM member m WHERE m.user_id = $2 AND m.log_id = $1) THEN 1 ELSE 0 END AS BIGINT)",
        log.get(),
        sender
    )?;
    Ok(Some(Scene { log, head, prior: find(tx, key).await?, inside: inside != 0 }))
}

/// What is remembered under `key`.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut Tx, key: &Key) -> Result<Option<Submission>, StoreError> {
    fetch_optional!(
        tx,
        SubmissionRow,
        "SELECT e.submitted AS digest, 'accepted' AS state, l.incarnation, e.seq, e.at_ms, e.chain, e.at_ms AS created_ms \
         FROM entry e JOIN log l ON l.id = e.log_id WHERE e.submit_key = $3 AND e.origin = $1 AND l.kind = 'room' AND l.name = $2 \
         UNION ALL SELECT digest, state, incarnation, seq, at_ms, chain, created_ms FROM submission \
         WHERE origin = $1 AND room = $2 AND submit_key = $3 LIMIT 1",
        key.origin.as_str(),
        key.room.as_str(),
        key.bytes.as_slice()
    )?
    .map(TryInto::try_into)
    .transpose()
}

/// Remembers a submission, and how many bytes it takes while it waits for a foreign hub. False, and nothing changed, when one is
/// remembered under `key` already.
///
/// # Errors
/// When the database fails.
pub async fn record(
    tx: &mut Tx,
    key: &Key,
    submission: &Submission,
    bytes: u64,
) -> Result<bool, StoreError> {
    let (state, accepted) = match &submission.state {
        State::Stored => ("stored", None),
        State::Accepted(accepted) => ("accepted", Some(accepted)),
    };
    let recorded = execute!(
        tx,
        "INSERT INTO submission (origin, room, submit_key, digest, state, incarnation, seq, at_ms, chain, bytes, created_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (origin, room, submit_key) DO NOTHING",
        key.origin.as_str(),
        key.room.as_str(),
        key.bytes.as_slice(),
        submission.digest.as_bytes().as_slice(),
        state,
        accepted.map(|a| a.place.incarnation.as_bytes().as_slice()),
        accepted.map(|a| int(a.place.seq.get())),
        accepted.map(|a| ms(a.at)),
        accepted.map(|a| a.chain.as_bytes().as_slice()),
        int(bytes),
        ms(submission.created)
    )?;
    Ok(recorded > 0)
}

/// Appends what a submission leads to, of which the first entry is its own, after [`scene`] or [`find`]: from then on it is remembered.
///
/// # Errors
/// [`StoreError::Conflict`] when the first entry is not the one after the head, or something is remembered under `key` already; when the
/// database fails. Nothing of it may stay then: the job must fail.
pub async fn place(
    tx: &mut Tx,
    log: LogId,
    entries: &[Entry],
    key: &Key,
    digest: &Digest,
) -> Result<(), StoreError> {
    if find(tx, key).await?.is_some() {
        return Err(StoreError::Conflict { table: "submission" });
    }
    logs::append_submitted(tx, log, entries, Some((key, digest))).await
}

/// Remembers by themselves the submissions since `since` that are remembered with the entries of `log` up to `last`: before those go.
///
/// # Errors
/// When the database fails.
pub async fn outlive(
    tx: &mut Tx,
    log: LogId,
    last: Seq,
    since: Timestamp,
) -> Result<(), StoreError> {
    execute!(
        tx,
        "INSERT INTO submission (origin, room, submit_key, digest, state, incarnation, seq, at_ms, chain, created_ms) \
         SELECT e.origin, l.name, e.submit_key, e.submitted, 'accepted', l.incarnation, e.seq, e.at_ms, e.chain, e.at_ms \
         FROM entry e JOIN log l ON l.id = e.log_id \
         WHERE e.log_id = $1 AND e.seq <= $2 AND e.at_ms >= $3 AND e.submit_key IS NOT NULL ON CONFLICT DO NOTHING",
        log.get(),
        int(last.get()),
        ms(since)
    )?;
    Ok(())
}

/// What one device has waiting for foreign hubs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Submissions.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them are for rooms that the device does not read.
    pub joining: u64,
}

/// What `device` has waiting for foreign hubs, over all rooms.
///
/// # Errors
/// When the database fails.
pub async fn waiting(tx: &mut Tx, device: &protocol::DeviceId) -> Result<Waiting, StoreError> {
    let (count, bytes, joining) = fetch_one!(
        tx,
        (i64, i64, i64),
        "SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT), CAST(COALESCE(SUM(CASE WHEN EXISTS \
         (SELECT 1 FROM log l JOIN reader r ON r.log_id = l.id WHERE l.kind = 'replica' AND l.name = s.room AND r.reader = $1 AND r.until_seq IS NULL) \
         THEN 0 ELSE 1 END), 0) AS BIGINT) FROM submission s WHERE origin = $1 AND state = 'stored'",
        device.as_str()
    )?;
    let number = |n| Column("submission", "bytes").number(n);
    Ok(Waiting { count: number(count)?, bytes: number(bytes)?, joining: number(joining)? })
}

/// The hub gave a stored submission its place. False when nothing stored is remembered under `key`.
///
/// # Errors
/// When the database fails.
pub async fn accept(tx: &mut Tx, key: &Key, accepted: &Accepted) -> Result<bool, StoreError> {
    let changed = execute!(
        tx,
        "UPDATE submission SET state = 'accepted', incarnation = $4, seq = $5, at_ms = $6, chain = $7 \
         WHERE origin = $1 AND room = $2 AND submit_key = $3 AND state = 'stored'",
        key.origin.as_str(),
        key.room.as_str(),
        key.bytes.as_slice(),
        accepted.place.incarnation.as_bytes().as_slice(),
        int(accepted.place.seq.get()),
        ms(accepted.at),
        accepted.chain.as_bytes().as_slice()
    )?;
    Ok(changed > 0)
}

/// Forgets a submission that the hub refused, so that the device may hand in another body under the same SubmitId.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut Tx, key: &Key) -> Result<bool, StoreError> {
    let deleted = execute!(
        tx,
        "DELETE FROM submission WHERE origin = $1 AND room = $2 AND submit_key = $3",
        key.origin.as_str(),
        key.room.as_str(),
        key.bytes.as_slice()
    )?;
    Ok(deleted > 0)
}

/// Forgets the submissions for `room` that came after `after` and were handed over to its hub, which may have lost them.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut Tx, room: &RoomId, after: Timestamp) -> Result<u64, StoreError> {
    execute!(
        tx,
        "DELETE FROM submission WHERE room = $1 AND created_ms > $2 AND seq = 0",
        room.as_str(),
        ms(after)
    )
}

/// Forgets submissions accepted before `before`, oldest first, at most `max`. Those that still wait for a hub are kept.
///
/// # Errors
/// When the database fails.
pub async fn purge(tx: &mut Tx, before: Timestamp, max: usize) -> Result<u64, StoreError> {
    execute!(
        tx,
        "DELETE FROM submission WHERE (origin, room, submit_key) IN (SELECT origin, room, submit_key FROM submission \
         WHERE created_ms < $1 AND state = 'accepted' ORDER BY created_ms LIMIT $2)",
        ms(before),
        limit(max)
    )
}
