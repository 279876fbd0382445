//! The node's time as a device knows it, from the round trips of its pings.
//!
//! Rule: a reply that came `rtt` after its ping and said `server` puts the node's clock at `server + rtt/2`, give or take `rtt/2`. The
//! sample with the smallest error stays; an old one's error grows by [`DRIFT_PPM`], so that a fresh one replaces it in time. A sample that
//! cannot be true together with the kept one means that the local clock was set: the newer one wins. For display only, never for order.

use protocol::Timestamp;

/// How far two clocks drift apart, in millionths: generous for quartz in a phone.
pub const DRIFT_PPM: u64 = 200;

/// What a device knows about its clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calibration(Option<Offset>);

/// How the node's clock differs from the local one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// Node's time minus local time, in milliseconds.
    pub ms: i64,
    /// The difference is at most this much off, in milliseconds, at [`Offset::taken`].
    pub error_ms: u64,
    /// The local time of the measurement.
    pub taken: Timestamp,
}

/// A time on the node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibrated {
    /// The best guess.
    pub at: Timestamp,
    /// How far off it is at most, in milliseconds; unknown before the first ping.
    pub error_ms: Option<u64>,
}

impl Calibration {
    /// Takes in one round trip, all three times in milliseconds: local time of sending, the node's answer, local time of receipt.
    /// A reply from before its ping is ignored: the local clock was set in between.
    pub fn pong(&mut self, sent: Timestamp, server: Timestamp, received: Timestamp) {
        let _ = (sent, server, received);
        todo!()
    }

    /// What is known.
    #[must_use]
    pub const fn offset(&self) -> Option<Offset> {
        self.0
    }

    /// Local time `now` on the node's clock.
    #[must_use]
    pub fn calibrated(&self, now: Timestamp) -> Calibrated {
        let _ = now;
        todo!()
    }
}
