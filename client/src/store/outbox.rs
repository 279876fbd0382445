//! What this device submits: messages, and changes to rooms.

use delivery::commit::{self, Change};
use delivery::outbox::{Item, State};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use protocol::api::Accepted;
use protocol::api::{Handshake, Payload};
use protocol::log::Digest;
use protocol::{DeviceId, Epoch, MessageId, Refusal, RoomId, Seq, SubmitId, Timestamp, UserId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::rooms::RoomNo;
use super::{Tx, fixed, int, nat};
use crate::Result;

/// A message's way to the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubmissionRow {
    pub(crate) item: Item,
    pub(crate) message_id: MessageId,
}

#[derive(Encode, Decode)]
struct Saved {
    #[n(0)]
    room: RoomId,
    #[n(1)]
    state: SavedState,
    #[n(2)]
    encrypted: bool,
    #[n(3)]
    attempts: u32,
    #[n(4)]
    next_at: Timestamp,
}

#[derive(Encode, Decode)]
enum SavedState {
    #[n(0)]
    Queued,
    #[n(1)]
    Sending,
    #[n(2)]
    Stored,
    #[n(3)]
    Accepted(#[n(0)] Accepted),
    #[n(4)]
    Delivered(#[n(0)] Accepted),
    #[n(5)]
    Read(#[n(0)] Accepted),
    #[n(6)]
    Failed(#[n(0)] Refusal, #[n(1)] bool),
}

impl From<&State> for SavedState {
    fn from(state: &State) -> Self {
        match state {
            State::Queued => Self::Queued,
            State::Sending => Self::Sending,
            State::Stored => Self::Stored,
            State::Accepted(a) => Self::Accepted(*a),
            State::Delivered(a) => Self::Delivered(*a),
            State::Read(a) => Self::Read(*a),
            State::Failed { refusal, retryable } => Self::Failed(refusal.clone(), *retryable),
        }
    }
}

impl From<SavedState> for State {
    fn from(state: SavedState) -> Self {
        match state {
            SavedState::Queued => Self::Queued,
            SavedState::Sending => Self::Sending,
            SavedState::Stored => Self::Stored,
            SavedState::Accepted(a) => Self::Accepted(a),
            SavedState::Delivered(a) => Self::Delivered(a),
            SavedState::Read(a) => Self::Read(a),
            SavedState::Failed(refusal, retryable) => Self::Failed { refusal, retryable },
        }
    }
}

/// What a person, or the client itself, wants changed in a room.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Action {
    /// Tell the node of a room founded here: GroupInfo and ratchet tree of epoch 0.
    #[n(0)]
    Create(#[n(0)] ByteVec, #[n(1)] ByteVec),
    /// Add every device of a person that is not in yet.
    #[n(1)]
    Add(#[n(0)] UserId),
    /// Remove a person.
    #[n(2)]
    Remove(#[n(0)] UserId),
    /// Remove one device of this person.
    #[n(3)]
    RemoveDevice(#[n(0)] DeviceId),
    /// Give a person another role, by its `role_index`.
    #[n(4)]
    SetRole(#[n(0)] UserId, #[n(1)] u32),
    /// Leave with all devices of this person.
    #[n(5)]
    Leave,
    /// Renew this device's own keys in the room.
    #[n(6)]
    Renew,
    /// Come in by external commit; the hub's key, as another device of this person knows it.
    #[n(7)]
    Join(
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        [u8; 32],
    ),
    /// Commit what others proposed.
    #[n(8)]
    Settle,
}

/// A command, as it is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandRow {
    pub(crate) submit_id: SubmitId,
    pub(crate) no: RoomNo,
    pub(crate) position: u64,
    pub(crate) room: RoomId,
    pub(crate) action: Action,
    /// How far it is.
    pub(crate) change: Change,
    /// What was handed in, or is about to be.
    pub(crate) attempt: Option<Attempt>,
    /// KeyPackages that were claimed for it and not used up.
    pub(crate) packages: Vec<ByteVec>,
    /// Tries that came to nothing because somebody could not be reached.
    pub(crate) tries: u32,
    /// What the last such try was told.
    pub(crate) waiting: Option<Refusal>,
    /// Whether our own node keeps it for a foreign hub.
    pub(crate) stored: bool,
    /// Its place, once it has one.
    pub(crate) place: Option<(Seq, Timestamp)>,
}

/// One try at a handshake. A rebuilt one has a new id: a commit that lost its epoch can never win, so nothing can happen twice.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Attempt {
    #[n(0)]
    pub(crate) submit_id: SubmitId,
    /// The MIMI `UpdateRequest`.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) bundle: Vec<u8>,
    /// The signature over it.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) signature: Vec<u8>,
    /// The epoch it was built in.
    #[n(3)]
    pub(crate) epoch: Epoch,
}

impl Attempt {
    /// What is handed in.
    pub(crate) fn payload(&self) -> Payload {
        let (bundle, signature) = (self.bundle.clone(), self.signature.clone());
        Payload::Handshake(Handshake { bundle, signature })
    }
}

#[derive(Encode, Decode)]
struct SavedCommand {
    #[n(0)]
    room: RoomId,
    #[n(1)]
    action: Action,
    #[n(2)]
    losses: u32,
    #[n(3)]
    state: SavedChange,
    #[n(4)]
    attempt: Option<Attempt>,
    #[n(5)]
    packages: Vec<ByteVec>,
    #[n(6)]
    tries: u32,
    #[n(7)]
    waiting: Option<Refusal>,
    #[n(8)]
    stored: bool,
    #[n(9)]
    place: Option<(Seq, Timestamp)>,
}

#[derive(Encode, Decode)]
enum SavedChange {
    #[n(0)]
    Build(#[n(0)] Timestamp),
    #[n(1)]
    Behind(#[n(0)] Epoch),
    #[n(2)]
    Pending(#[n(0)] Epoch, #[n(1)] Digest),
    #[n(3)]
    Done,
    #[n(4)]
    Failed(#[n(0)] Refusal),
}

impl From<&commit::State> for SavedChange {
    fn from(state: &commit::State) -> Self {
        match state {
            commit::State::Build(at) => Self::Build(*at),
            commit::State::Behind(epoch) => Self::Behind(*epoch),
            commit::State::Pending { epoch, commit } => Self::Pending(*epoch, *commit),
            commit::State::Done => Self::Done,
            commit::State::Failed(refusal) => Self::Failed(refusal.clone()),
        }
    }
}

impl From<SavedChange> for commit::State {
    fn from(state: SavedChange) -> Self {
        match state {
            SavedChange::Build(at) => Self::Build(at),
            SavedChange::Behind(epoch) => Self::Behind(epoch),
            SavedChange::Pending(epoch, commit) => Self::Pending { epoch, commit },
            SavedChange::Done => Self::Done,
            SavedChange::Failed(refusal) => Self::Failed(refusal),
        }
    }
}

impl CommandRow {
    /// Whether it has ended.
    pub(crate) fn ended(&self) -> bool {
        matches!(self.change.state(), commit::State::Done | commit::State::Failed(_))
    }
}

impl Tx<'_> {
    /// The next place in the order in which this device's person does things.
    pub(crate) async fn next_position(&mut self) -> Result<u64> {
        let (last,): (i64,) = sqlx::query_as(
            "SELECT MAX((SELECT COALESCE(MAX(position), 0) FROM submission WHERE live = 1),
                        (SELECT COALESCE(MAX(position), 0) FROM command WHERE live = 1))",
        )
        .fetch_one(self.conn())
        .await?;
        Ok(nat(last, "submission")? + 1)
    }

    /// Writes a new message's submission.
    pub(crate) async fn add_submission(&mut self, no: RoomNo, row: &SubmissionRow) -> Result<()> {
        let item = &row.item;
        let sealed = self.sealer.put("submission", item.id.as_bytes(), &saved(item));
        sqlx::query(
            "INSERT INTO submission (submit_id, room, position, message_id, live, sealed)
             VALUES ($1, $2, $3, $4, 1, $5)",
        )
        .bind(item.id.as_bytes().as_slice())
        .bind(no.0)
        .bind(int(item.order))
        .bind(row.message_id.as_bytes().as_slice())
        .bind(sealed)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Writes how far a submission is. The ciphertext of one that has its place is not needed again.
    pub(crate) async fn put_item(&mut self, item: &Item) -> Result<()> {
        let live = match &item.state {
            State::Queued | State::Sending | State::Stored => 1i64,
            State::Accepted(_) | State::Delivered(_) | State::Read(_) | State::Failed { .. } => 0,
        };
        let sealed = self.sealer.put("submission", item.id.as_bytes(), &saved(item));
        sqlx::query(
            "UPDATE submission SET live = $2, sealed = $3,
                 ciphertext = CASE WHEN $2 = 1 THEN ciphertext END WHERE submit_id = $1",
        )
        .bind(item.id.as_bytes().as_slice())
        .bind(live)
        .bind(sealed)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Writes what is going to leave for a submission.
    pub(crate) async fn put_ciphertext(&mut self, id: &SubmitId, bytes: &[u8]) -> Result<()> {
        // It names the room in the clear, so it is sealed once more.
        let sealed = self.sealer.seal("submission ciphertext", id.as_bytes(), bytes);
        sqlx::query("UPDATE submission SET ciphertext = $2, digest = $3 WHERE submit_id = $1")
            .bind(id.as_bytes().as_slice())
            .bind(sealed)
            .bind(Digest::of_bytes(bytes).as_bytes().as_slice())
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// What leaves for a submission.
    pub(crate) async fn ciphertext(&mut self, id: &SubmitId) -> Result<Option<Vec<u8>>> {
        let row = sqlx::query("SELECT ciphertext FROM submission WHERE submit_id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.conn())
            .await?;
        let sealed: Option<Vec<u8>> = row.map(|r| r.try_get("ciphertext")).transpose()?.flatten();
        let open = |sealed: Vec<u8>| {
            self.sealer.open("submission ciphertext", id.as_bytes(), &sealed).map(|b| b.to_vec())
        };
        sealed.map(open).transpose()
    }

    /// A submission.
    pub(crate) async fn submission(&mut self, id: &SubmitId) -> Result<Option<SubmissionRow>> {
        let row = sqlx::query(
            "SELECT submit_id, position, message_id, sealed FROM submission WHERE submit_id = $1",
        )
        .bind(id.as_bytes().as_slice())
        .fetch_optional(self.conn())
        .await?;
        row.map(|r| self.submission_row(&r)).transpose()
    }

    /// The submission whose ciphertext is the body of an entry: this device's own message comes back.
    pub(crate) async fn submission_of(
        &mut self,
        no: RoomNo,
        body: &Digest,
    ) -> Result<Option<SubmissionRow>> {
        let row = sqlx::query(
            "SELECT submit_id, position, message_id, sealed FROM submission
             WHERE room = $1 AND digest = $2",
        )
        .bind(no.0)
        .bind(body.as_bytes().as_slice())
        .fetch_optional(self.conn())
        .await?;
        row.map(|r| self.submission_row(&r)).transpose()
    }

    /// Submissions that have not ended, in order.
    pub(crate) async fn live_submissions(&mut self) -> Result<Vec<SubmissionRow>> {
        let rows = sqlx::query(
            "SELECT submit_id, position, message_id, sealed FROM submission
             WHERE live = 1 ORDER BY position",
        )
        .fetch_all(self.conn())
        .await?;
        rows.iter().map(|r| self.submission_row(r)).collect()
    }

    fn submission_row(&self, row: &SqliteRow) -> Result<SubmissionRow> {
        const TABLE: &str = "submission";
        let id: [u8; 16] = fixed(row.try_get("submit_id")?, TABLE)?;
        let saved: Saved = self.sealer.get(TABLE, &id, row.try_get("sealed")?)?;
        let item = Item {
            id: SubmitId::from_bytes(id),
            room: saved.room,
            order: nat(row.try_get("position")?, TABLE)?,
            state: saved.state.into(),
            encrypted: saved.encrypted,
            attempts: saved.attempts,
            next_at: saved.next_at,
        };
        let message_id = MessageId::from_bytes(fixed(row.try_get("message_id")?, TABLE)?);
        Ok(SubmissionRow { item, message_id })
    }

    /// Writes a command, new or known.
    pub(crate) async fn put_command(&mut self, row: &CommandRow) -> Result<()> {
        let saved = SavedCommand {
            room: row.room.clone(),
            action: row.action.clone(),
            losses: row.change.losses(),
            state: row.change.state().into(),
            attempt: row.attempt.clone(),
            packages: row.packages.clone(),
            tries: row.tries,
            waiting: row.waiting.clone(),
            stored: row.stored,
            place: row.place,
        };
        sqlx::query(
            "INSERT INTO command (submit_id, room, position, live, sealed)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (submit_id) DO UPDATE SET live = excluded.live, sealed = excluded.sealed",
        )
        .bind(row.submit_id.as_bytes().as_slice())
        .bind(row.no.0)
        .bind(int(row.position))
        .bind(i64::from(!row.ended()))
        .bind(self.sealer.put("command", row.submit_id.as_bytes(), &saved))
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// A command.
    pub(crate) async fn command(&mut self, id: &SubmitId) -> Result<Option<CommandRow>> {
        let row = sqlx::query(
            "SELECT submit_id, room, position, sealed FROM command WHERE submit_id = $1",
        )
        .bind(id.as_bytes().as_slice())
        .fetch_optional(self.conn())
        .await?;
        row.map(|r| self.command_row(&r)).transpose()
    }

    /// Commands that have not ended, in order.
    pub(crate) async fn live_commands(&mut self) -> Result<Vec<CommandRow>> {
        let rows = sqlx::query(
            "SELECT submit_id, room, position, sealed FROM command WHERE live = 1 ORDER BY position",
        )
        .fetch_all(self.conn())
        .await?;
        rows.iter().map(|r| self.command_row(r)).collect()
    }

    fn command_row(&self, row: &SqliteRow) -> Result<CommandRow> {
        const TABLE: &str = "command";
        let id: [u8; 16] = fixed(row.try_get("submit_id")?, TABLE)?;
        let saved: SavedCommand = self.sealer.get(TABLE, &id, row.try_get("sealed")?)?;
        Ok(CommandRow {
            submit_id: SubmitId::from_bytes(id),
            no: RoomNo(row.try_get("room")?),
            position: nat(row.try_get("position")?, TABLE)?,
            room: saved.room,
            action: saved.action,
            change: Change::restore(saved.losses, saved.state.into()),
            attempt: saved.attempt,
            packages: saved.packages,
            tries: saved.tries,
            waiting: saved.waiting,
            stored: saved.stored,
            place: saved.place,
        })
    }
}

fn saved(item: &Item) -> Saved {
    Saved {
        room: item.room.clone(),
        state: (&item.state).into(),
        encrypted: item.encrypted,
        attempts: item.attempts,
        next_at: item.next_at,
    }
}
