//! What a device submits next, and the state of each submission that a person sees. PROTOCOL §5.1.
//!
//! | state | fact | next state |
//! |---|---|---|
//! | queued | its turn | `Encrypt`, then `Submit` |
//! | queued, encrypted | handed to the network | sending |
//! | sending | accepted | accepted |
//! | sending | stored by our node for a foreign hub | stored |
//! | sending | reply lost, or "later" | queued, encrypted: the same bytes again |
//! | sending, stored | stale epoch, another commit first | queued, to be encrypted again under the same SubmitId |
//! | sending, stored | refused for good | failed |
//! | any but read | the room's log shows it | accepted |
//! | accepted | every recipient's device has it | delivered |
//! | accepted, delivered | every recipient has read it | read |
//! | failed | a person retries it | queued |
//!
//! Order within a room is kept: one submission of a room is on its way without being accepted or stored; a failed one does not hold up the
//! others. There is no give-up count. Encrypting happens when the turn comes, not before, so that what waited offline is encrypted for the epoch of the day.

use std::collections::BTreeMap;

use protocol::api::{Accepted, SubmitReply};
use protocol::{Refusal, RoomId, SubmitId, Timestamp};

/// Submissions on their way at once, over all rooms.
pub const IN_FLIGHT: usize = 16;

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
    /// Attempts since it was queued last.
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

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Encrypt this one and save ciphertext and MLS state, then report with [`Outbox::encrypted`].
    Encrypt(SubmitId),
    /// Report with [`Outbox::sending`], save, then send the saved bytes.
    Submit(SubmitId),
    /// Nothing before this time.
    WaitUntil(Timestamp),
    /// Nothing until something happens.
    Idle,
}

/// The machine. Every fact returns the row to save, if it changed one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    items: BTreeMap<SubmitId, Item>,
    rooms: BTreeMap<RoomId, BTreeMap<u64, SubmitId>>,
    online: bool,
}

impl Outbox {
    /// The machine as its rows have it, offline. What was being sent has an unknown outcome and is sent again as it is.
    #[must_use]
    pub fn new(items: impl IntoIterator<Item = Item>) -> Self {
        let _ = items;
        todo!()
    }

    /// A submission, as saved.
    #[must_use]
    pub fn get(&self, id: &SubmitId) -> Option<&Item> {
        self.items.get(id)
    }

    /// The person did something: queue it.
    pub fn push(&mut self, id: SubmitId, room: RoomId, order: u64) -> Option<&Item> {
        let _ = (id, room, order);
        todo!()
    }

    /// What to do.
    pub fn next(&self, now: Timestamp) -> Step {
        let _ = now;
        todo!()
    }

    /// Its ciphertext is saved.
    pub fn encrypted(&mut self, id: &SubmitId) -> Option<&Item> {
        let _ = id;
        todo!()
    }

    /// It cannot be encrypted now (its room is catching up or being rejoined): not before `until`.
    pub fn postpone(&mut self, id: &SubmitId, until: Timestamp) -> Option<&Item> {
        let _ = (id, until);
        todo!()
    }

    /// Its bytes are about to leave.
    pub fn sending(&mut self, id: &SubmitId) -> Option<&Item> {
        let _ = id;
        todo!()
    }

    /// The node answered.
    pub fn replied(
        &mut self,
        id: &SubmitId,
        reply: SubmitReply,
        now: Timestamp,
        jitter: u32,
    ) -> Option<&Item> {
        let _ = (id, reply, now, jitter);
        todo!()
    }

    /// No answer came.
    pub fn lost(&mut self, id: &SubmitId, now: Timestamp, jitter: u32) -> Option<&Item> {
        let _ = (id, now, jitter);
        todo!()
    }

    /// The hub refused what our node had stored (an `Outcome` in the inbox).
    pub fn outcome(
        &mut self,
        id: &SubmitId,
        refusal: Refusal,
        now: Timestamp,
        jitter: u32,
    ) -> Option<&Item> {
        let _ = (id, refusal, now, jitter);
        todo!()
    }

    /// The room's log shows it.
    pub fn shown(&mut self, id: &SubmitId, accepted: Accepted) -> Option<&Item> {
        let _ = (id, accepted);
        todo!()
    }

    /// A device of every recipient has it.
    pub fn delivered(&mut self, id: &SubmitId) -> Option<&Item> {
        let _ = id;
        todo!()
    }

    /// Every recipient who says so has read it.
    pub fn read(&mut self, id: &SubmitId) -> Option<&Item> {
        let _ = id;
        todo!()
    }

    /// This device itself gives it up, for instance because its change lost too often.
    pub fn fail(&mut self, id: &SubmitId, refusal: Refusal) -> Option<&Item> {
        let _ = (id, refusal);
        todo!()
    }

    /// The person tries a failed one again: it is encrypted anew, at its old place in the order.
    pub fn retry(&mut self, id: &SubmitId, now: Timestamp) -> Option<&Item> {
        let _ = (id, now);
        todo!()
    }

    /// The person takes back one that is queued and not encrypted, or failed; or an ended one need not be kept here any more. `None` when it is on its way.
    pub fn remove(&mut self, id: &SubmitId) -> Option<Item> {
        let _ = id;
        todo!()
    }

    /// The connection to our node came up or went down. Up: everything is due. Down: what was being sent has an unknown outcome.
    /// Returns the rows that changed.
    pub fn online(&mut self, up: bool) -> Vec<Item> {
        let _ = up;
        todo!()
    }

    /// Our node lives another life: what it had stored may be lost, so it is sent again as it is. Returns the rows that changed.
    pub fn node_restored(&mut self) -> Vec<Item> {
        todo!()
    }
}
