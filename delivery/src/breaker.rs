//! Whether a peer that did not answer is dialled at all: one probe for all its lanes.
//!
//! A node may share thousands of rooms with a peer, each with its own lane. When the peer is down, one lane at a time tries it; the others wait
//! for what it finds. Not persisted: after a restart the first lane probes again.
//!
//! | state | dial? |
//! |---|---|
//! | answering | yes, any lane |
//! | silent, before `next_at` | no, wait |
//! | silent, after `next_at`, no probe under way | yes, this one is the probe |
//! | silent, probe under way | no, wait for its result |
//!
//! Any answer, a refusal included, and any authenticated request *from* the peer makes it answering.

use protocol::Timestamp;

/// One peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    silent: u32,
    next_at: Timestamp,
    probing: bool,
}

/// Whether to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Dial {
    /// Yes; report with [`Breaker::answered`] or [`Breaker::silent`].
    Now,
    /// Not before this time.
    At(Timestamp),
    /// Not before the probe under way has ended.
    AfterProbe,
}

impl Breaker {
    /// A lane wants to dial.
    pub fn dial(&mut self, now: Timestamp) -> Dial {
        let _ = now;
        todo!()
    }

    /// The peer answered something, or asked us something.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// The peer did not answer.
    pub fn silent(&mut self, now: Timestamp, jitter: u32) {
        let _ = (now, jitter);
        todo!()
    }
}
