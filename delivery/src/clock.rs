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
        if received < sent {
            return;
        }
        let rtt = received.ms() - sent.ms();
        // One more for the fractions of a millisecond that timestamps cut off.
        let error_ms = rtt.div_ceil(2).saturating_add(1);
        let new =
            Offset { ms: difference(server.ms(), sent.ms() + rtt / 2), error_ms, taken: received };
        let keep = self.0.is_some_and(|old| {
            let aged = old.error_at(received);
            let apart = old.ms.abs_diff(new.ms);
            aged < error_ms && apart <= aged.saturating_add(error_ms)
        });
        if !keep {
            self.0 = Some(new);
        }
    }

    /// What is known.
    #[must_use]
    pub const fn offset(&self) -> Option<Offset> {
        self.0
    }

    /// Local time `now` on the node's clock.
    #[must_use]
    pub fn calibrated(&self, now: Timestamp) -> Calibrated {
        Calibrated {
            at: self.0.map_or(now, |o| Timestamp::from_ms(now.ms().saturating_add_signed(o.ms))),
            error_ms: self.0.map(|o| o.error_at(now)),
        }
    }
}

impl Offset {
    /// How far off it may be by now.
    fn error_at(&self, now: Timestamp) -> u64 {
        let age_ms = now.ms().abs_diff(self.taken.ms());
        self.error_ms.saturating_add(age_ms.saturating_mul(DRIFT_PPM).div_ceil(1_000_000))
    }
}

/// `a - b`, at most as far as an i64 reaches.
fn difference(a: u64, b: u64) -> i64 {
    let size = i64::try_from(a.abs_diff(b)).unwrap_or(i64::MAX);
    if a < b { -size } else { size }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(n: u64) -> Timestamp {
        Timestamp::from_ms(n)
    }

    #[test]
    fn the_best_sample_stays_until_drift_has_eaten_its_lead() {
        let mut c = Calibration::default();
        assert_eq!(c.calibrated(ms(5)), Calibrated { at: ms(5), error_ms: None });
        c.pong(ms(1_000), ms(61_010), ms(1_020));
        assert_eq!(c.calibrated(ms(2_000)).at, ms(62_000));
        let good = c;
        c.pong(ms(5_000), ms(65_090), ms(5_200));
        assert_eq!(c, good, "a slow round trip says less");
        c.pong(ms(2_000_000), ms(2_060_090), ms(2_000_200));
        assert_ne!(c, good, "but more than an old one");
        c.pong(ms(3_000_000), ms(1), ms(2_000_000));
        assert_eq!(c.offset().unwrap().taken, ms(2_000_200), "the clock went back in between");
    }

    #[test]
    fn a_local_clock_that_was_set_is_noticed_at_once() {
        let mut c = Calibration::default();
        c.pong(ms(1_000), ms(1_001), ms(1_002));
        // The person sets the clock an hour ahead; the next round trip is slow, but cannot be true together with the first.
        c.pong(ms(3_601_100), ms(1_600), ms(3_602_100));
        assert_eq!(c.offset().unwrap().ms, -3_600_000);
    }

    proptest! {
        #[test]
        fn the_true_time_is_within_the_stated_error(
            offset in -10_000_000i64..10_000_000,
            trips in prop::collection::vec((0u64..2_000, 0u64..2_000, 0u64..60_000), 1..20),
        ) {
            let mut c = Calibration::default();
            let mut local = 20_000_000u64;
            for (there, back, pause) in trips {
                let server = (local + there).saturating_add_signed(offset);
                c.pong(ms(local), ms(server), ms(local + there + back));
                local += there + back + pause;
                let told = c.calibrated(ms(local));
                let truth = local.saturating_add_signed(offset);
                prop_assert!(told.at.ms().abs_diff(truth) <= told.error_ms.unwrap());
            }
        }

        #[test]
        fn no_times_whatever_break_it(times: [u64; 6], now: u64) {
            let mut c = Calibration::default();
            c.pong(ms(times[0]), ms(times[1]), ms(times[2]));
            c.pong(ms(times[3]), ms(times[4]), ms(times[5]));
            let _told = c.calibrated(ms(now));
        }
    }
}
