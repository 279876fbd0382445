//! Rooms, messages and submissions, as a program sees them.

use protocol::room::Role;
use protocol::{
    Code, DeviceId, Epoch, MessageId, Refusal, RoomId, Seq, SubmitId, Timestamp, UserId,
};

/// How a new room is to be.
#[derive(Clone, Debug, Default)]
pub struct RoomOptions {
    /// A name only this device sees; at most 256 bytes.
    pub name: Option<String>,
    /// Use the hybrid post-quantum suite 0x004F instead of the classical one.
    pub post_quantum: bool,
}

/// A room this device knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomInfo {
    /// Its id; its domain is its hub.
    pub room: RoomId,
    /// The name given on this device.
    pub name: Option<String>,
    /// Where this device stands.
    pub status: RoomStatus,
    /// The MLS cipher suite's number.
    pub suite: u16,
    /// The MLS epoch on this device.
    pub epoch: Epoch,
    /// The last entry this device has taken in.
    pub seq: Seq,
    /// Its people.
    pub members: Vec<Member>,
}

/// A person in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// As what.
    pub role: Role,
    /// With which devices.
    pub devices: Vec<DeviceId>,
}

/// Where this device stands in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoomStatus {
    /// Made here; the node does not know it yet.
    Creating,
    /// This device asked to come in and waits.
    Joining,
    /// In it.
    Active,
    /// In it, but an entry cannot be carried out: nothing after it is taken in until it can.
    Held {
        /// The entry.
        seq: Seq,
        /// Why, for a person.
        reason: String,
    },
    /// Out of it.
    Left,
}

impl RoomStatus {
    /// A stable word for programs.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Held { .. } => "held",
            Self::Left => "left",
        }
    }
}

/// How far a submission has come; later is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Durable on this device.
    Queued,
    /// Encrypted and on its way; the answer is not in yet.
    Sending,
    /// Durable on this person's own node.
    Stored,
    /// The room's hub gave it its place.
    Accepted,
}

impl Stage {
    /// A stable word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Stored => "stored",
            Self::Accepted => "accepted",
        }
    }
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The furthest it came.
    pub stage: Stage,
    /// Its place in the room's log, once accepted.
    pub seq: Option<Seq>,
    /// The hub's time, once accepted.
    pub at: Option<Timestamp>,
    /// Why it will not come further by itself.
    pub failed: Option<Failure>,
    /// Why it has not come further yet, when somebody said so; it is tried again by itself.
    pub waiting: Option<Failure>,
}

impl State {
    /// A stable word for programs: the stage's, or `failed`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        if self.failed.is_some() { "failed" } else { self.stage.as_str() }
    }
}

/// Why a submission failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The refusal's code.
    pub code: Code,
    /// What happened and what to do, for a person.
    pub sentence: String,
}

impl From<&Refusal> for Failure {
    fn from(refusal: &Refusal) -> Self {
        Self { code: refusal.code, sentence: refusal.detail.clone() }
    }
}

/// A message's place in a room's timeline, for paging. Opaque; valid on this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey {
    pub(crate) anchor: u64,
    pub(crate) counter: u64,
    pub(crate) seq: u64,
}

/// A message in a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it stands; give it to [`crate::Client::timeline`] to read on after it.
    pub key: MessageKey,
    /// Its id, the same on every device.
    pub message_id: MessageId,
    /// The submission, when this device wrote it.
    pub submit_id: Option<SubmitId>,
    /// Who wrote it.
    pub sender: UserId,
    /// With which device.
    pub device: DeviceId,
    /// The device's own number for it in this room.
    pub counter: u64,
    /// The text; empty when the content is of a kind this version does not show.
    pub text: String,
    /// Its place in the room's log; absent until the hub has accepted it.
    pub seq: Option<Seq>,
    /// The hub's time of acceptance.
    pub at: Option<Timestamp>,
    /// When its sender wrote it, by the sender's calibrated clock; for display only.
    pub written: Timestamp,
    /// It was accepted after later messages of the same device, and stands where its sender wrote it.
    pub late: bool,
    /// What is odd about it.
    pub flags: Vec<Flag>,
}

/// What is odd about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flag {
    /// Messages of the same device before this one are missing here.
    GapBefore,
    /// Its number was used before by another message of the same device.
    Repeat,
    /// It does not follow from the message its sender's device wrote before.
    BrokenChain,
    /// Its sender was shown another history of the room.
    Fork,
}

impl Flag {
    /// A stable word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GapBefore => "gap-before",
            Self::Repeat => "repeat",
            Self::BrokenChain => "broken-chain",
            Self::Fork => "fork",
        }
    }
}
