//! A lane: one log, one remote reader, one request in flight. PROTOCOL §9.6.
//!
//! Two kinds. A *notify* lane carries a room's log from its hub to a follower; an *uplink* lane carries submissions from a node to a room's hub.
//!
//! | state | fact | next state |
//! |---|---|---|
//! | idle (nothing after the cursor) | the log grew | due |
//! | due | attempt started, written down first | in flight |
//! | in flight | accepted up to n | idle or due, attempts 0 |
//! | in flight | no answer, or "later" | waiting; the same bytes again |
//! | in flight | permanent refusal of several entries | due, with half as many |
//! | in flight | permanent refusal of one entry | notify: parked; uplink: settled, the device is told |
//! | in flight | "send from n on" | due from n, or parked when n makes no sense |
//! | waiting | time is up, or contact by the peer | due |
//! | parked | an operator resumes it | due |
//!
//! Nothing is ever skipped on a notify lane: the numbers are gapless and a follower without a handshake is a follower without the room. A parked lane
//! holds up one room at one peer, keeps everything, and raises an alarm. There is no give-up count.

use std::time::Duration;

use protocol::{Refusal, Seq, Timestamp};

/// What the lane carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A room's log, to a follower.
    Notify,
    /// Submissions, to a room's hub, one at a time.
    Uplink,
}

/// A lane's row. Written before every attempt and after every answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The last entry the remote side has.
    pub cursor: Seq,
    /// Attempts since the last success.
    pub attempts: u32,
    /// Not before this time.
    pub next_at: Timestamp,
    /// Why it does not go on by itself.
    pub parked: Option<Parked>,
}

impl Row {
    /// A new lane whose reader has everything up to `cursor`.
    #[must_use]
    pub const fn new(cursor: Seq) -> Self {
        Self { cursor, attempts: 0, next_at: Timestamp::from_ms(0), parked: None }
    }
}

/// Why a lane is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The entry that the other side does not take.
    pub seq: Seq,
    /// What it said.
    pub refusal: Refusal,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other side has everything up to this entry.
    Accepted(Seq),
    /// The other side misses entries; it wants them from this one on.
    Expected(Seq),
    /// It said no.
    Refused(Refusal),
    /// No answer, or one that cannot be read: it may have been carried out or not.
    Unknown,
}

/// What to write and tell, in one transaction with [`Lane::row`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// The cursor moved.
    Advanced,
    /// Uplink only: the hub refused this submission for good and the cursor moved past it. Tell its device through its inbox.
    Settled(Parked),
    /// The lane stands still. Raise an alarm.
    Parked,
    /// The peer as a whole does not take anything from us, which only people can change; it is tried again. Raise an alarm.
    Alarm(Refusal),
    /// It is tried again.
    Again,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Send at most `count` entries after this one: write [`Lane::attempt_started`]'s row first, then dial.
    Send {
        /// Entries after this one.
        after: Seq,
        /// At most so many, at least one.
        count: usize,
    },
    /// Nothing before this time.
    WaitUntil(Timestamp),
    /// Nothing until something happens.
    Idle,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    kind: Kind,
    row: Row,
    head: Seq,
    in_flight: Option<Seq>,
    limit: usize,
    whole_after: Seq,
    not_before: Timestamp,
    contacted: bool,
}

impl Lane {
    /// The lane as its row has it, with entries up to `head`. A request that was in flight counts as [`Outcome::Unknown`]. `now` bounds the wait: a row
    /// written under a clock that ran ahead must not stop the lane.
    #[must_use]
    pub fn new(kind: Kind, row: Row, head: Seq, now: Timestamp) -> Self {
        let _ = (kind, row, head, now);
        todo!()
    }

    /// The row to write.
    #[must_use]
    pub const fn row(&self) -> &Row {
        &self.row
    }

    /// The log has entries up to `head`.
    pub fn grown(&mut self, head: Seq) {
        self.head = self.head.max(head);
    }

    /// What to do.
    pub fn next(&self, now: Timestamp) -> Step {
        let _ = now;
        todo!()
    }

    /// Entries up to `last` are about to be sent. Write the returned row before dialling.
    pub fn attempt_started(&mut self, last: Seq, now: Timestamp, jitter: u32) -> &Row {
        let _ = (last, now, jitter);
        todo!()
    }

    /// The request ended.
    pub fn on_result(&mut self, outcome: Outcome, now: Timestamp, jitter: u32) -> Effect {
        let _ = (outcome, now, jitter, Duration::ZERO);
        todo!()
    }

    /// The peer made an authenticated request: it is up, so this lane is due, unless the peer asked for time.
    pub fn contact(&mut self, now: Timestamp) {
        let _ = now;
        todo!()
    }

    /// An operator, or a newer version of this program, wants a parked lane to try again.
    pub fn resume(&mut self, now: Timestamp) {
        let _ = now;
        todo!()
    }
}
