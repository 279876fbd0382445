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

use protocol::{Code, Refusal, Seq, Timestamp, limit};

use crate::backoff::{self, Backoff};

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
    /// The first entry that is for the remote side.
    pub from: Seq,
    /// The last entry it has; `from - 1` at first.
    pub cursor: Seq,
    /// Attempts since the last success.
    pub attempts: u32,
    /// Not before this time.
    pub next_at: Timestamp,
    /// Why it does not go on by itself.
    pub parked: Option<Parked>,
}

impl Row {
    /// A new lane that carries everything from `from` on.
    #[must_use]
    pub const fn new(from: Seq) -> Self {
        Self {
            from,
            cursor: from.prev(),
            attempts: 0,
            next_at: Timestamp::from_ms(0),
            parked: None,
        }
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
    /// Nothing moved; it is tried again.
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
    /// The last entry of the request under way.
    in_flight: Option<Seq>,
    /// Entries in the next request.
    count: usize,
    /// `count` is full again once the cursor has passed this entry, among whose predecessors the refused one is.
    suspect: Seq,
    /// The other side asked for time until then.
    not_before: Timestamp,
    started: Timestamp,
    contacted: bool,
}

impl Lane {
    /// The lane as its row has it, with entries up to `head`. A request that was in flight counts as [`Outcome::Unknown`]. `now` bounds the wait: a
    /// row written under a clock that ran ahead must not stop the lane.
    #[must_use]
    pub fn new(kind: Kind, row: Row, head: Seq, now: Timestamp) -> Self {
        let next_at = row.next_at.min(now.after(Backoff::STANDARD.cap));
        Self {
            kind,
            row: Row { next_at, ..row },
            head,
            in_flight: None,
            count: kind.count(),
            suspect: Seq::new(0),
            not_before: Timestamp::default(),
            started: Timestamp::default(),
            contacted: false,
        }
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
        if self.in_flight.is_some() || self.row.parked.is_some() || self.row.cursor >= self.head {
            return Step::Idle;
        }
        // Before its own last attempt the clock was set back, and the wait would be as long as the way back: it is over instead.
        if now < self.row.next_at && now >= self.started {
            return Step::WaitUntil(self.row.next_at);
        }
        Step::Send { after: self.row.cursor, count: self.count }
    }

    /// Entries up to `last` are about to be sent. Write the returned row before dialling: should this process die, the next one waits as if the
    /// attempt had failed, so that an entry that kills its sender does not do so in a loop.
    pub fn attempt_started(&mut self, last: Seq, now: Timestamp, jitter: u32) -> &Row {
        self.in_flight = Some(last);
        self.started = now;
        self.contacted = false;
        self.row.next_at = now.after(Backoff::STANDARD.delay(self.row.attempts, jitter, None));
        self.row.attempts = self.row.attempts.saturating_add(1);
        &self.row
    }

    /// The request ended.
    pub fn on_result(&mut self, outcome: Outcome, now: Timestamp, jitter: u32) -> Effect {
        let Some(last) = self.in_flight.take() else {
            return Effect::Again;
        };
        match outcome {
            Outcome::Accepted(to) if to > self.row.cursor => {
                // A follower may have more than this request held, from a backfill, but nothing that we do not have.
                self.advance(to.min(self.head), now);
                Effect::Advanced
            }
            Outcome::Expected(seq) if self.kind == Kind::Notify => self.rewind(seq, now, jitter),
            Outcome::Refused(refusal) => self.refused(refusal, last, now, jitter),
            Outcome::Accepted(_) | Outcome::Expected(_) | Outcome::Unknown => {
                self.back_off(None, now, jitter);
                Effect::Again
            }
        }
    }

    /// The peer made an authenticated request: it is up, so this lane is due, unless the peer asked for time. After several failures in a row, contact by
    /// a peer that never lets up brings one attempt a second at most.
    pub fn contact(&mut self, now: Timestamp) {
        self.contacted = true;
        let spaced = match self.row.attempts {
            0 | 1 => now,
            _ => now.max(self.started.after(Backoff::STANDARD.base)),
        };
        if self.in_flight.is_none() {
            self.row.next_at = self.row.next_at.min(spaced.max(self.not_before));
        }
    }

    /// An operator, or a newer version of this program, wants a parked lane to try again.
    pub fn resume(&mut self, now: Timestamp) {
        self.row.parked = None;
        self.row.attempts = 0;
        self.row.next_at = now;
    }

    fn advance(&mut self, to: Seq, now: Timestamp) {
        self.row.cursor = to;
        self.row.attempts = 0;
        self.row.next_at = now;
        self.not_before = Timestamp::default();
        if to >= self.suspect {
            self.count = self.kind.count();
        }
    }

    /// The follower wants entries from `seq` on.
    fn rewind(&mut self, seq: Seq, now: Timestamp, jitter: u32) -> Effect {
        if seq < self.row.from || seq > self.head.next() {
            // It wants what was never for it, or has what we never had: one of the two was restored from a backup.
            return self.park(Refusal::new(Code::SeqGap));
        }
        let moved = seq.prev() != self.row.cursor;
        self.row.cursor = seq.prev();
        if moved && self.row.attempts <= 1 {
            self.row.next_at = now;
        } else {
            // A follower that asks for one place and then for another would otherwise keep both sides busy.
            self.back_off(None, now, jitter);
        }
        if moved { Effect::Advanced } else { Effect::Again }
    }

    fn refused(&mut self, refusal: Refusal, last: Seq, now: Timestamp, jitter: u32) -> Effect {
        match (blame(refusal.code, self.kind), self.kind) {
            (Blame::Nobody, _) => {
                self.back_off(refusal.retry_after_ms, now, jitter);
                Effect::Again
            }
            (Blame::Peer, _) => {
                self.back_off(refusal.retry_after_ms, now, jitter);
                Effect::Alarm(refusal)
            }
            (Blame::Entry, Kind::Uplink) => {
                let seq = self.row.cursor.next();
                self.advance(seq, now);
                Effect::Settled(Parked { seq, refusal })
            }
            (Blame::Entry, Kind::Notify) => {
                let sent = last.get().saturating_sub(self.row.cursor.get());
                if sent <= 1 {
                    return self.park(refusal);
                }
                // One of these entries is refused; half of them at a time finds out which.
                self.count = usize::try_from(sent / 2).unwrap_or(1);
                self.suspect = last;
                self.row.next_at = now;
                Effect::Again
            }
            (Blame::Log, _) => self.park(refusal),
        }
    }

    fn park(&mut self, refusal: Refusal) -> Effect {
        self.row.parked = Some(Parked { seq: self.row.cursor.next(), refusal });
        Effect::Parked
    }

    fn back_off(&mut self, retry_after_ms: Option<u32>, now: Timestamp, jitter: u32) {
        let floor = retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
        let attempt = self.row.attempts.saturating_sub(1);
        self.row.next_at = now.after(Backoff::STANDARD.delay(attempt, jitter, floor));
        self.not_before = now.after(floor.unwrap_or_default().min(backoff::FLOOR_MAX));
        if self.contacted {
            self.contact(now);
        }
    }
}

impl Kind {
    /// Entries in one request.
    const fn count(self) -> usize {
        match self {
            Self::Notify => limit::BATCH_ENTRIES,
            Self::Uplink => 1,
        }
    }
}

/// Whom a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// Try again later.
    Nobody,
    /// This node and that one do not get along, whatever is sent.
    Peer,
    /// The two do not have the same log.
    Log,
    /// One of the entries.
    Entry,
}

fn blame(code: Code, kind: Kind) -> Blame {
    match code {
        Code::RateLimited
        | Code::QueueFull
        | Code::DiskFull
        | Code::Unavailable
        | Code::PeerUnreachable
        | Code::SeqGap
        | Code::Internal => Blame::Nobody,
        Code::UnknownPeer
        | Code::PeerCertificate
        | Code::DomainMismatch
        | Code::Unauthenticated
        | Code::UnknownEndpoint
        | Code::UnknownVersion => Blame::Peer,
        Code::ChainMismatch | Code::WrongIncarnation if kind == Kind::Notify => Blame::Log,
        // Only the device can encrypt or build again.
        Code::StaleEpoch | Code::WrongEpoch | Code::MissingProposal | Code::NoKeyPackages
            if kind == Kind::Notify =>
        {
            Blame::Nobody
        }
        Code::StaleEpoch
        | Code::WrongEpoch
        | Code::MissingProposal
        | Code::NoKeyPackages
        | Code::ChainMismatch
        | Code::WrongIncarnation
        | Code::Malformed
        | Code::TooLarge
        | Code::WrongPassword
        | Code::NotFound
        | Code::NotAllowed
        | Code::BadInvite
        | Code::NameTaken
        | Code::Invalid
        | Code::BadCertificate
        | Code::Conflict
        | Code::InvalidCommit
        | Code::BadKeyPackage => Blame::Entry,
    }
}

#[cfg(test)]
mod tests;
