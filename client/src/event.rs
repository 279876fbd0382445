//! What a client tells whoever listens, as it happens. Everything here can also be read from the store later.

use protocol::api::{Gap, GapReason};
use protocol::{DeviceId, RoomId, Seq, SubmitId, UserId};

use crate::room::{Message, State};

/// Something happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message is new in a timeline, from somebody else or from another of one's own devices.
    Message {
        /// Where.
        room: RoomId,
        /// What.
        message: Message,
    },
    /// A submission of this device moved on.
    StateChanged {
        /// Which.
        submit_id: SubmitId,
        /// Where.
        room: RoomId,
        /// To what.
        state: State,
    },
    /// This device can read and write in a room from now on.
    RoomJoined {
        /// Which.
        room: RoomId,
    },
    /// This device is out of a room.
    RoomLeft {
        /// Which.
        room: RoomId,
    },
    /// A room's people or their devices changed.
    MemberChanged {
        /// Where.
        room: RoomId,
        /// Who came.
        added: Vec<UserId>,
        /// Who went.
        removed: Vec<UserId>,
    },
    /// Entries of a room will never come, and why.
    Gap {
        /// Where.
        room: RoomId,
        /// The first missing entry.
        first: Seq,
        /// The last missing entry.
        last: Seq,
        /// Why.
        reason: GapReason,
    },
    /// Something a person should know, because somebody may be cheating or something is broken.
    Alarm(Alarm),
    /// The stream to the node is up.
    Connected,
    /// The stream to the node is down; it is tried again by itself.
    Disconnected {
        /// Why, for a person.
        cause: String,
    },
}

impl Event {
    pub(crate) fn gap(room: RoomId, gap: &Gap) -> Self {
        Self::Gap { room, first: gap.first, last: gap.last, reason: gap.reason }
    }
}

/// See [`Event::Alarm`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What kind.
    pub kind: AlarmKind,
    /// Where, when it concerns a room.
    pub room: Option<RoomId>,
    /// Who, when it concerns a device.
    pub device: Option<DeviceId>,
    /// For a person: what was seen, what it means, what to do.
    pub sentence: String,
}

/// Kinds of [`Alarm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AlarmKind {
    /// The hub showed a member another history than it showed this device.
    Fork,
    /// The chain of entries does not fit together.
    Chain,
    /// A commit breaks the room's policy; the room is held.
    Policy,
    /// A commit could not be carried out; the room is held and tried again.
    Held,
    /// A person shows another identity key than before.
    IdentityChanged,
    /// A device without a valid certificate was to be added.
    UncertifiedDevice,
    /// A message's header does not fit its sender, or its own numbers do not fit together.
    Header,
    /// An entry could not be decrypted.
    Undecryptable,
    /// This device has lost step with a room and joins it again.
    OutOfStep,
    /// A hub was restored from a backup.
    Restored,
    /// Items for this device expired at its node before it came for them.
    Missed,
    /// This device was signed out by its node.
    SignedOut,
}

impl AlarmKind {
    /// A stable word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Chain => "chain",
            Self::Policy => "policy",
            Self::Held => "held",
            Self::IdentityChanged => "identity-changed",
            Self::UncertifiedDevice => "uncertified-device",
            Self::Header => "header",
            Self::Undecryptable => "undecryptable",
            Self::OutOfStep => "out-of-step",
            Self::Restored => "restored",
            Self::Missed => "missed",
            Self::SignedOut => "signed-out",
        }
    }
}
