//! What was answered to whom, so that a repetition gets the same answer. PROTOCOL §5.1 and §5.2.

use protocol::api::Accepted;
use protocol::log::{Chain, Digest};
use protocol::{Cursor, Incarnation, RoomId, SubmitId, Timestamp};

use super::readers::Reader;
use super::row::{Column, execute, fetch_optional, int, limit, ms, row};
use super::{StoreError, Tx};

/// Under which name a submission is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// When it came.
    pub created: Timestamp,
}

row! {
    struct SubmissionRow {
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

/// What is remembered under `key`.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut Tx, key: &Key) -> Result<Option<Submission>, StoreError> {
    fetch_optional!(
        tx,
        SubmissionRow,
        "SELECT digest, state, incarnation, seq, at_ms, chain, created_ms FROM submission WHERE origin = $1 AND room = $2 AND submit_key = $3",
        key.origin.as_str(),
        key.room.as_str(),
        key.bytes.as_slice()
    )?
    .map(TryInto::try_into)
    .transpose()
}

/// Remembers a submission. False, and nothing changed, when one is remembered under `key` already.
///
/// # Errors
/// When the database fails.
pub async fn record(tx: &mut Tx, key: &Key, submission: &Submission) -> Result<bool, StoreError> {
    let (state, accepted) = match &submission.state {
        State::Stored => ("stored", None),
        State::Accepted(accepted) => ("accepted", Some(accepted)),
    };
    let recorded = execute!(
        tx,
        "INSERT INTO submission (origin, room, submit_key, digest, state, incarnation, seq, at_ms, chain, created_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (origin, room, submit_key) DO NOTHING",
        key.origin.as_str(),
        key.room.as_str(),
        key.bytes.as_slice(),
        submission.digest.as_bytes().as_slice(),
        state,
        accepted.map(|a| a.place.incarnation.as_bytes().as_slice()),
        accepted.map(|a| int(a.place.seq.get())),
        accepted.map(|a| ms(a.at)),
        accepted.map(|a| a.chain.as_bytes().as_slice()),
        ms(submission.created)
    )?;
    Ok(recorded > 0)
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
