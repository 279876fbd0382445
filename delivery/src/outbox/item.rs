//! A submission as it is saved, and what a person is told about it.

use protocol::api::Accepted;
use protocol::{Code, Refusal, RoomId, SubmitId, Timestamp};

/// One submission, as it is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name, minted once.
    pub id: SubmitId,
    /// Where to.
    pub room: RoomId,
    /// The place in the order in which this device's person did things; unique on this device.
    pub order: u64,
    /// How far it is.
    pub state: State,
    /// Whether its ciphertext is saved, to be sent as it is.
    pub encrypted: bool,
    /// Attempts that had no answer, or "later", since the last other answer.
    pub attempts: u32,
    /// Not before this time.
    pub next_at: Timestamp,
}

/// How far a submission is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Saved on this device.
    Queued,
    /// Handed to the network; nothing is known yet.
    Sending,
    /// Durable on our own node, which hands it to the room's hub.
    Stored,
    /// It has a place in the room's log.
    Accepted(Accepted),
    /// A device of every recipient has it.
    Delivered(Accepted),
    /// Every recipient who says so has read it.
    Read(Accepted),
    /// It was refused.
    Failed {
        /// Why.
        refusal: Refusal,
        /// Whether the same thing may work when the person tries again.
        retryable: bool,
    },
}

/// Whether the same thing may work when something outside it was put right: a role, a pairing, a version, a sign-in.
pub(super) const fn retryable(code: Code) -> bool {
    match code {
        Code::TooLarge | Code::Malformed | Code::Invalid | Code::InvalidCommit => false,
        Code::UnknownEndpoint
        | Code::Unauthenticated
        | Code::WrongPassword
        | Code::NotFound
        | Code::NotAllowed
        | Code::BadInvite
        | Code::NameTaken
        | Code::BadCertificate
        | Code::Conflict
        | Code::StaleEpoch
        | Code::WrongEpoch
        | Code::MissingProposal
        | Code::BadKeyPackage
        | Code::NoKeyPackages
        | Code::RateLimited
        | Code::QueueFull
        | Code::DiskFull
        | Code::Unavailable
        | Code::PeerUnreachable
        | Code::UnknownPeer
        | Code::PeerCertificate
        | Code::DomainMismatch
        | Code::SeqGap
        | Code::ChainMismatch
        | Code::WrongIncarnation
        | Code::UnknownVersion
        | Code::Internal => true,
    }
}
