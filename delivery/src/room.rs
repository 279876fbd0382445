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

use std::cmp::Ordering;

use protocol::api::Accepted;
use protocol::log::{Chain, Digest, EntryKind};
use protocol::{Code, Cursor, Epoch, Incarnation, Refusal, Seq, Timestamp, limit};

use crate::log::{Head, Placed};
use crate::quota::{self, Amount};

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
    if let Some(known) = repeated(prior, &event.digest)? {
        return Ok(Admission::Again(known));
    }
    in_epoch(head.epoch, event)?;
    let at = now.max(Timestamp::from_ms(head.last_at.ms().saturating_add(1)));
    let start = Head { seq: head.head, chain: head.chain };
    let (kind, body) = match event.what {
        What::Application(body) => (EntryKind::Application, body),
        What::Proposal(body) => (EntryKind::Proposal, body),
        What::Commit { body, .. } => (EntryKind::Commit, body),
    };
    let entry = start.append(kind, at, body);
    let welcome = match event.what {
        What::Commit { welcome: Some(body), .. } => {
            let at = Timestamp::from_ms(at.ms().saturating_add(1));
            Some(Head::after(&entry).append(EntryKind::Welcome, at, body))
        }
        _ => None,
    };
    let last = welcome.unwrap_or(entry);
    in_time(last.at, now)?;
    let epoch = if kind == EntryKind::Commit { head.epoch.next() } else { head.epoch };
    let incarnation = head.incarnation;
    let head_after =
        RoomHead { incarnation, head: last.seq, chain: last.chain, last_at: last.at, epoch };
    Ok(Admission::New(Admitted { entry, welcome, head_after }))
}

/// The answer that the same submission got before. PROTOCOL §5.1.
fn repeated(prior: Option<&Prior>, digest: &Digest) -> Result<Option<Known>, Refusal> {
    match prior {
        None | Some(Prior { known: Known::Refused, .. }) => Ok(None),
        Some(prior) if prior.digest == *digest => Ok(Some(prior.known)),
        Some(_) => Err(Code::Conflict.into()),
    }
}

fn in_epoch(current: Epoch, event: &Event<'_>) -> Result<(), Refusal> {
    let code = match (event.what, event.epoch.cmp(&current)) {
        (_, Ordering::Equal) => return Ok(()),
        (What::Application(_), Ordering::Less) => Code::StaleEpoch,
        // An epoch that this hub has not given out: it was restored from a backup, or the sender is confused. Not for good, so that the message waits for the answer.
        (What::Application(_), Ordering::Greater)
        | (What::Proposal(_) | What::Commit { .. }, _) => Code::WrongEpoch,
    };
    Err(Refusal::new(code).at_epoch(current))
}

/// PROTOCOL §4.2.
fn in_time(at: Timestamp, now: Timestamp) -> Result<(), Refusal> {
    let ahead = at.since(now);
    let Some(wait) = ahead.checked_sub(limit::HUB_TIME_AHEAD).filter(|w| !w.is_zero()) else {
        return Ok(());
    };
    let ms = u32::try_from(wait.min(limit::HUB_TIME_RETRY).as_millis()).unwrap_or(u32::MAX);
    let detail = "The hub's clock went back. It takes nothing until its clock has caught up.";
    Err(Refusal::because(Code::Unavailable, detail).retry_after_ms(ms))
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

/// When to hand in again what an earlier attempt of the same name stands before, in milliseconds.
const OVERTAKEN_MS: u32 = 1_000;

/// Decides about a submission of `bytes` bytes for a foreign hub, when the room's uplink holds `held`. PROTOCOL §5.4.
///
/// # Errors
/// `Conflict` as in [`admit`], `Unavailable` while other bytes of the same name wait, `QueueFull` when the uplink is at its bound.
pub fn uplink(
    prior: Option<&Prior>,
    digest: &Digest,
    held: Amount,
    bytes: u64,
) -> Result<Uplink, Refusal> {
    if prior.is_some_and(|p| p.known == Known::Stored && p.digest != *digest) {
        // The device was told of a refusal that its own repetition overtook: that one is refused too, and the name is free again.
        let detail = "An earlier attempt of this submission waits for the room's hub.";
        return Err(Refusal::because(Code::Unavailable, detail).retry_after_ms(OVERTAKEN_MS));
    }
    if let Some(known) = repeated(prior, digest)? {
        return Ok(Uplink::Again(known));
    }
    quota::UPLINK.admit(held, Amount::one(bytes))?;
    Ok(Uplink::New)
}

#[cfg(test)]
mod tests;
