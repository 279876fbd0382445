//! Whether a hub admits a submission to a room, and at which place. PROTOCOL §5.3.
//!
//! Rule, in this order, because a lost reply must never cost anything:
//!
//! 1. the same submission before? same bytes: the same answer; other bytes: `Conflict`. A submission that the hub refused later counts as never made;
//! 2. the epoch: an application message must be for the current one (older: `StaleEpoch`, encrypt again; newer: `WrongEpoch`, which
//!    MIMI's wire calls `notAllowed`); a commit or proposal too (else `WrongEpoch`);
//! 3. the hub's time `at = max(now, last + 1)`, refused as `Unavailable` when that runs more than `HUB_TIME_AHEAD` ahead of the clock;
//! 4. the place: seq, digest, chain. A commit moves the epoch by one, and its Welcome takes the next seq in the same step.
//!
//! What is cryptographically valid and allowed is settled elsewhere ([`crate::policy`], `crypto`) in the same transaction.

use protocol::api::Accepted;
use protocol::log::{Chain, Digest};
use protocol::{Cursor, Epoch, Incarnation, Refusal, Seq, Timestamp};

use crate::log::Placed;
use crate::quota::Amount;

/// A room as its hub knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomHead {
    /// The hub's incarnation.
    pub incarnation: Incarnation,
    /// The last entry.
    pub head: Seq,
    /// The chain at it.
    pub chain: Chain,
    /// The time of it.
    pub last_at: Timestamp,
    /// The group's current epoch.
    pub epoch: Epoch,
}

/// A submission with the same SubmitId of the same device, or the same bytes of the same peer, that came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prior {
    /// The digest of its payload.
    pub digest: Digest,
    /// What it was answered.
    pub known: Known,
}

/// What became of an earlier submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It has a place.
    Accepted(Accepted),
    /// It waits for a foreign hub.
    Stored,
    /// It was stored, and the foreign hub refused it: it may come again, encrypted anew.
    Refused,
}

/// A submission, as far as the order of things depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// [`protocol::api::Payload::digest`] of a device's submission, [`Digest::of_bytes`] of a peer's message.
    pub digest: Digest,
    /// The epoch it was made for.
    pub epoch: Epoch,
    /// What it is, with the bytes that go into the log.
    pub what: What<'a>,
}

/// What is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// An application message.
    Application(&'a [u8]),
    /// Proposals that somebody else will commit.
    Proposal(&'a [u8]),
    /// A commit, and the Welcome for those it adds.
    Commit {
        /// The commit.
        body: &'a [u8],
        /// The Welcome.
        welcome: Option<&'a [u8]>,
    },
}

/// What the hub does with a submission that it does not refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// It came before: give the same answer, change nothing.
    Again(Known),
    /// Append it.
    New(Admitted),
}

/// A place in the room's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Admitted {
    /// The entry.
    pub entry: Placed,
    /// The entry of the Welcome, right after it.
    pub welcome: Option<Placed>,
    /// The room after it.
    pub head_after: RoomHead,
}

impl Admitted {
    /// The answer to the submitter.
    #[must_use]
    pub const fn accepted(&self) -> Accepted {
        Accepted {
            place: Cursor { incarnation: self.head_after.incarnation, seq: self.entry.seq },
            at: self.entry.at,
            chain: self.entry.chain,
        }
    }
}

/// Decides about `event` in the room with this `head`.
///
/// # Errors
/// `Conflict`, `StaleEpoch`, `WrongEpoch` or `Unavailable`, as the module says.
pub fn admit(
    head: &RoomHead,
    prior: Option<&Prior>,
    event: &Event<'_>,
    now: Timestamp,
) -> Result<Admission, Refusal> {
    let _ = (head, prior, event, now);
    todo!()
}

/// What the submitter's own node does with a submission for a room whose hub is elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Uplink {
    /// It came before: give the same answer, change nothing.
    Again(Known),
    /// Append it to the room's uplink log and answer `Stored`.
    New,
}

/// Decides about a submission of `bytes` bytes for a foreign hub, when the room's uplink holds `held`. PROTOCOL §5.4.
///
/// # Errors
/// `Conflict` as in [`admit`], `QueueFull` when the uplink is at its bound.
pub fn uplink(
    prior: Option<&Prior>,
    digest: &Digest,
    held: Amount,
    bytes: u64,
) -> Result<Uplink, Refusal> {
    let _ = (prior, digest, held, bytes);
    todo!()
}
