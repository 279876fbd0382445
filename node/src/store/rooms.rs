//! Rooms: what a node knows of their MLS groups, and the compare-and-set that gives each epoch to one commit.

use protocol::{Domain, Epoch, RoomId, Seq, Timestamp};

use super::logs::LogId;
use super::row::{Column, execute, fetch_all, fetch_one, fetch_optional, int, limit, ms, row};
use super::{StoreError, Tx};

/// A room without its MLS state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its log: a room log on the hub, a replica elsewhere.
    pub log: LogId,
    /// Its name.
    pub room: RoomId,
    /// Who orders it.
    pub hub: Domain,
    /// The MLS cipher suite.
    pub suite: u16,
    /// The present epoch.
    pub epoch: Epoch,
    /// When it was made here.
    pub created: Timestamp,
}

row! {
    pub(super) struct RoomRow {
        log_id: i64, uri: String, hub: String, suite: i64, epoch: i64, created_ms: i64,
    }
}

impl TryFrom<RoomRow> for Room {
    type Error = StoreError;
    fn try_from(r: RoomRow) -> Result<Self, StoreError> {
        Ok(Self {
            log: LogId::new(r.log_id),
            room: Column("room", "uri").parse(&r.uri)?,
            hub: Column("room", "hub").parse(&r.hub)?,
            suite: Column("room", "suite").number(r.suite)?,
            epoch: Epoch::new(Column("room", "epoch").number(r.epoch)?),
            created: Column("room", "created_ms").time(r.created_ms)?,
        })
    }
}

/// Writes a new room, on its hub with the public MLS state, opaque here; says whether it was new.
///
/// # Errors
/// When the database fails.
pub async fn create(tx: &mut Tx, room: &Room, group: Option<&[u8]>) -> Result<bool, StoreError> {
    let made = execute!(
        tx,
        "INSERT INTO room (log_id, uri, hub, suite, epoch, created_ms, group_state) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (uri) DO NOTHING",
        room.log.get(),
        room.room.as_str(),
        room.hub.as_str(),
        i64::from(room.suite),
        int(room.epoch.get()),
        ms(room.created),
        group
    )?;
    Ok(made > 0)
}

/// The room of that name.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut Tx, room: &RoomId) -> Result<Option<Room>, StoreError> {
    fetch_optional!(
        tx,
        RoomRow,
        "SELECT log_id, uri, hub, suite, epoch, created_ms FROM room WHERE uri = $1",
        room.as_str()
    )?
    .map(TryInto::try_into)
    .transpose()
}

/// Rooms by number of their log after `after`, at most `max`.
///
/// # Errors
/// When the database fails.
pub async fn list(tx: &mut Tx, after: Option<LogId>, max: usize) -> Result<Vec<Room>, StoreError> {
    let rows = fetch_all!(
        tx,
        RoomRow,
        "SELECT log_id, uri, hub, suite, epoch, created_ms FROM room WHERE log_id > $1 ORDER BY log_id LIMIT $2",
        after.map_or(0, LogId::get),
        limit(max)
    )?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// How many rooms are kept here that `hub`, another node, orders; at most `max`.
///
/// # Errors
/// When the database fails.
pub async fn of_hub(tx: &mut Tx, hub: &Domain, max: u32) -> Result<u64, StoreError> {
    let (count,) = fetch_one!(
        tx,
        (i64,),
        "SELECT COUNT(*) FROM (SELECT 1 FROM room WHERE hub = $1 AND group_state IS NULL LIMIT $2) held",
        hub.as_str(),
        i64::from(max)
    )?;
    Column("room", "hub").number(count)
}

/// The public MLS state of a room, on its hub.
///
/// # Errors
/// When the database fails, or there is no such room.
pub async fn group(tx: &mut Tx, log: LogId) -> Result<Option<Vec<u8>>, StoreError> {
    let (state,) = fetch_one!(
        tx,
        (Option<Vec<u8>>,),
        "SELECT group_state FROM room WHERE log_id = $1",
        log.get()
    )?;
    Ok(state)
}

/// Moves a room from the epoch `from` to the next with its new MLS state. False, and nothing changed, when it is no longer at `from`:
/// another commit was first.
///
/// # Errors
/// When the database fails.
pub async fn next_epoch(
    tx: &mut Tx,
    log: LogId,
    from: Epoch,
    group: &[u8],
) -> Result<bool, StoreError> {
    let moved = execute!(
        tx,
        "UPDATE room SET epoch = $3, group_state = $4 WHERE log_id = $1 AND epoch = $2",
        log.get(),
        int(from.get()),
        int(from.next().get()),
        group
    )?;
    Ok(moved > 0)
}

/// Replaces the MLS state within an epoch: a proposal was taken in. False when the room is no longer at `epoch`.
///
/// # Errors
/// When the database fails.
pub async fn save_group(
    tx: &mut Tx,
    log: LogId,
    epoch: Epoch,
    group: &[u8],
) -> Result<bool, StoreError> {
    let saved = execute!(
        tx,
        "UPDATE room SET group_state = $3 WHERE log_id = $1 AND epoch = $2",
        log.get(),
        int(epoch.get()),
        group
    )?;
    Ok(saved > 0)
}

/// Sets the epoch a follower has seen; never backwards.
///
/// # Errors
/// When the database fails.
pub async fn follow_epoch(tx: &mut Tx, log: LogId, epoch: Epoch) -> Result<(), StoreError> {
    execute!(
        tx,
        "UPDATE room SET epoch = $2 WHERE log_id = $1 AND epoch < $2",
        log.get(),
        int(epoch.get())
    )?;
    Ok(())
}

/// A proposal that no commit has taken yet. The message itself is in its entry, and in the MLS state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its entry.
    pub seq: Seq,
    /// The epoch it is for.
    pub epoch: Epoch,
    /// The MLS `ProposalRef`.
    pub reference: Vec<u8>,
}

/// Keeps a proposal; once, however often it comes.
///
/// # Errors
/// When the database fails.
pub async fn add_proposal(tx: &mut Tx, log: LogId, proposal: &Proposal) -> Result<(), StoreError> {
    execute!(
        tx,
        "INSERT INTO pending_proposal (log_id, seq, epoch, reference) VALUES ($1, $2, $3, $4) ON CONFLICT (log_id, reference) DO NOTHING",
        log.get(),
        int(proposal.seq.get()),
        int(proposal.epoch.get()),
        proposal.reference.as_slice()
    )?;
    Ok(())
}

/// The entry of the newest pending proposal of a room; 0 when there is none. Within an epoch they only become more.
///
/// # Errors
/// When the database fails.
pub async fn newest_proposal(tx: &mut Tx, log: LogId) -> Result<Seq, StoreError> {
    let (seq,) = fetch_one!(
        tx,
        (i64,),
        "SELECT COALESCE(MAX(seq), 0) FROM pending_proposal WHERE log_id = $1",
        log.get()
    )?;
    Column("pending_proposal", "seq").seq(seq)
}

/// Forgets the proposals of all epochs before `epoch`: a commit ended them.
///
/// # Errors
/// When the database fails.
pub async fn clear_proposals(tx: &mut Tx, log: LogId, epoch: Epoch) -> Result<(), StoreError> {
    execute!(
        tx,
        "DELETE FROM pending_proposal WHERE log_id = $1 AND epoch < $2",
        log.get(),
        int(epoch.get())
    )?;
    Ok(())
}
