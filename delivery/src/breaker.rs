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

use std::time::Duration;

use protocol::Timestamp;

use crate::backoff::Backoff;

/// One peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    next_at: Timestamp,
    probe: Option<Timestamp>,
}

/// A probe that has not reported after this long counts as silent: longer than any request may take.
pub const PROBE_MAX: Duration = Duration::from_mins(2);

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
        if self.failures == 0 {
            return Dial::Now;
        }
        // Nothing waits longer than the longest delay, even when the clock was set back.
        self.probe = self.probe.map(|at| at.min(now));
        if self.probe.is_some_and(|at| now < at.after(PROBE_MAX)) {
            return Dial::AfterProbe;
        }
        self.next_at = self.next_at.min(now.after(Backoff::STANDARD.cap));
        if now < self.next_at {
            return Dial::At(self.next_at);
        }
        self.probe = Some(now);
        Dial::Now
    }

    /// The peer answered something, or asked us something.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// The peer did not answer.
    pub fn silent(&mut self, now: Timestamp, jitter: u32) {
        // Many lanes may have been in flight when the peer went down; together they are one failure.
        if self.failures > 0 && self.probe.is_none() {
            return;
        }
        self.probe = None;
        self.next_at = now.after(Backoff::STANDARD.delay(self.failures, jitter, None));
        self.failures = self.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Timestamp {
        Timestamp::from_ms(n)
    }

    #[test]
    fn a_thousand_lanes_to_a_dead_peer_make_one_probe_at_a_time() {
        let mut b = Breaker::default();
        for _ in 0..1_000 {
            assert_eq!(b.dial(ms(0)), Dial::Now, "up: every lane may");
        }
        for _ in 0..1_000 {
            b.silent(ms(10), u32::MAX);
        }
        assert_eq!(b.dial(ms(10)), Dial::At(ms(1_010)), "one failure, not a thousand");
        assert_eq!(b.dial(ms(1_010)), Dial::Now);
        assert_eq!(b.dial(ms(1_010)), Dial::AfterProbe);
        b.silent(ms(1_500), u32::MAX);
        assert_eq!(b.dial(ms(1_500)), Dial::At(ms(3_500)));
        b.answered();
        assert_eq!(b.dial(ms(1_500)), Dial::Now);
    }

    #[test]
    fn a_probe_that_vanishes_does_not_stop_the_peer_for_good() {
        let mut b = Breaker::default();
        b.silent(ms(0), 0);
        assert_eq!(b.dial(ms(0)), Dial::Now);
        assert_eq!(b.dial(ms(119_999)), Dial::AfterProbe);
        assert_eq!(b.dial(ms(120_000)), Dial::Now);
    }

    #[test]
    fn a_clock_that_goes_back_holds_nobody_up_for_longer_than_the_cap() {
        let mut b = Breaker::default();
        b.silent(ms(900_000_000), u32::MAX);
        assert_eq!(b.dial(ms(0)), Dial::At(ms(300_000)));
        assert_eq!(b.dial(ms(300_000)), Dial::Now);
        // The same while a probe is under way that never reports.
        let mut b = Breaker::default();
        b.silent(ms(0), 0);
        assert_eq!(b.dial(ms(900_000_000)), Dial::Now);
        assert_eq!(b.dial(ms(0)), Dial::AfterProbe);
        assert_eq!(b.dial(ms(120_000)), Dial::Now);
    }
}
