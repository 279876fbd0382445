//! How far time has gone as far as ends are concerned: what has expired is removed for good, and a wall clock may be wrong.
//!
//! Rule: an age is believed only as far as the node has lived through it. This clock never runs ahead of the wall clock, never back, and at most
//! [`PACE`] times as fast as time that was measured while the node ran. So a clock that jumps ahead expires nothing that is young, whether it
//! jumps under a running node or between two runs; and after days without power the node removes what is old a little later.
//!
//! | the wall clock | this one |
//! |---|---|
//! | is ahead | follows, [`PACE`] times as fast as time goes by |
//! | is behind | stands; ends wait until the wall clock has come back to it |
//! | at start, after this one showed a time before [`WRITTEN`] | is set to it: that time was certainly wrong |

use std::time::Duration;

use protocol::Timestamp;

/// A node that runs three hours a day keeps up with the days.
pub const PACE: u32 = 8;
/// Nobody ran this program before 2026.
pub const WRITTEN: Timestamp = Timestamp::from_ms(1_767_225_600_000);

/// The clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    shown: Timestamp,
}

impl Age {
    /// At start: it was kept as `kept`, and the wall clock says `wall`.
    #[must_use]
    pub fn new(kept: Timestamp, wall: Timestamp) -> Self {
        Self { shown: if kept < WRITTEN { wall } else { kept } }
    }

    /// What it shows: to be kept.
    #[must_use]
    pub const fn shown(&self) -> Timestamp {
        self.shown
    }

    /// So much time went by on a clock that nobody sets.
    pub fn pass(&mut self, time: Duration, wall: Timestamp) {
        let most = self.shown.after(time.saturating_mul(PACE));
        self.shown = self.shown.max(wall.min(most));
    }

    /// The time before which things may be taken to have ended and removed.
    #[must_use]
    pub fn surely(&self, wall: Timestamp) -> Timestamp {
        self.shown.min(wall)
    }

    /// The time at which something that ends must still be good to be accepted: a clock that was set back does not bring it to life again.
    #[must_use]
    pub fn possibly(&self, wall: Timestamp) -> Timestamp {
        self.shown.max(wall)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);
    const HOUR: Duration = Duration::from_hours(1);
    const YEARS: Duration = Duration::from_hours(10 * 365 * 24);

    #[test]
    fn a_jump_ages_nothing_and_days_without_power_are_caught_up_with() {
        let mut age = Age::new(NOW, NOW);
        age.pass(HOUR, NOW.after(HOUR));
        assert_eq!(age.shown(), NOW.after(HOUR), "as the wall clock when that is right");
        age.pass(HOUR, NOW.after(YEARS));
        assert_eq!(age.surely(NOW.after(YEARS)), NOW.after(9 * HOUR), "ten years on");
        age.pass(HOUR, NOW.after(3 * HOUR));
        assert_eq!(age.surely(NOW.after(3 * HOUR)), NOW.after(3 * HOUR), "set right again");
        assert_eq!(age.shown(), NOW.after(9 * HOUR), "and never back");
        age.pass(HOUR, Timestamp::from_ms(0));
        assert_eq!(age.surely(Timestamp::from_ms(0)), Timestamp::from_ms(0), "1970");
        assert_eq!(age.possibly(Timestamp::from_ms(0)), NOW.after(9 * HOUR), "nothing lives again");

        let day = 24 * HOUR;
        let mut age = Age::new(NOW, NOW.after(day));
        assert_eq!(age.shown(), NOW, "a day without power");
        age.pass(4 * HOUR, NOW.after(day + 4 * HOUR));
        assert_eq!(age.shown(), NOW.after(day + 4 * HOUR), "caught up");
        let first = Age::new(Timestamp::from_ms(5), NOW);
        assert_eq!(first.shown(), NOW, "made by a machine that did not know the time");
    }

    proptest! {
        #[test]
        fn it_never_runs_ahead_of_what_was_lived_through_nor_back(
            steps in prop::collection::vec((0u64..100_000, 0u64..3_000_000_000_000), 1..50),
        ) {
            let mut age = Age::new(NOW, NOW);
            let mut lived = Duration::ZERO;
            for (ms, wall) in steps {
                let (before, wall) = (age.shown(), Timestamp::from_ms(wall));
                lived += Duration::from_millis(ms);
                age.pass(Duration::from_millis(ms), wall);
                prop_assert!(age.shown() >= before && age.shown() <= NOW.after(lived * PACE));
                prop_assert!(age.surely(wall) <= wall && age.possibly(wall) >= wall);
            }
        }
    }
}
