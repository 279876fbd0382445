//! Whether a node with this much free space takes anything new.
//!
//! A full disk also blocks deletes and acknowledgements, so the node stops taking new things while it can still write, and keeps a
//! ballast file that it deletes to get room for draining. Two marks, so that it does not flap between the two modes.
//!
//! | mode | ballast | free space | step |
//! |---|---|---|---|
//! | accepting | any | below `low` | `RefuseNew`, from now on refusing |
//! | accepting | freed | at least `high + ballast` | `RebuildBallast` |
//! | accepting | any | otherwise | `Accept` |
//! | refusing | whole | below `critical` | `FreeBallast` |
//! | refusing | freed | at least `high + ballast` | `RebuildBallast` |
//! | refusing | whole | at least `high` | `Accept`, from now on accepting |
//! | refusing | any | otherwise | `RefuseNew` |

/// The marks, in bytes; `critical < low < high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Below this, acknowledgements and deletes may fail soon.
    pub critical: u64,
    /// Below this nothing new is taken.
    pub low: u64,
    /// From this on new things are taken again.
    pub high: u64,
    /// Size of the ballast file.
    pub ballast: u64,
}

impl Marks {
    /// 64 MiB, 256 MiB, 512 MiB, and a ballast of 64 MiB.
    pub const STANDARD: Self =
        Self { critical: 64 << 20, low: 256 << 20, high: 512 << 20, ballast: 64 << 20 };
}

/// The ballast file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ballast {
    /// It is there, at full size.
    Whole,
    /// It was deleted to make room, or was never made.
    Freed,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Take new things.
    Accept,
    /// Refuse new things with [`protocol::Code::DiskFull`]; deliver, acknowledge and delete as ever.
    RefuseNew,
    /// Delete the ballast file, say [`Disk::freed`], and go on refusing.
    FreeBallast,
    /// Write the ballast file anew, say [`Disk::rebuilt`], and ask again.
    RebuildBallast,
}

/// The machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    marks: Marks,
    ballast: Ballast,
    accepting: bool,
}

impl Disk {
    /// At start: accepting until the first [`Disk::observe`].
    #[must_use]
    pub const fn new(marks: Marks, ballast: Ballast) -> Self {
        Self { marks, ballast, accepting: true }
    }

    /// Whether new things are taken.
    #[must_use]
    pub const fn accepting(&self) -> bool {
        self.accepting
    }

    /// Takes in the free space, in bytes, and says what to do.
    pub fn observe(&mut self, free: u64) -> Step {
        let Marks { critical, low, high, ballast } = self.marks;
        let rebuild = self.ballast == Ballast::Freed && free >= high.saturating_add(ballast);
        if rebuild {
            return Step::RebuildBallast;
        }
        if self.accepting {
            self.accepting = free >= low;
        } else if self.ballast == Ballast::Whole {
            if free < critical {
                return Step::FreeBallast;
            }
            self.accepting = free >= high;
        }
        if self.accepting { Step::Accept } else { Step::RefuseNew }
    }

    /// The ballast file is gone.
    pub const fn freed(&mut self) {
        self.ballast = Ballast::Freed;
    }

    /// The ballast file is back.
    pub const fn rebuilt(&mut self) {
        self.ballast = Ballast::Whole;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARKS: Marks = Marks { critical: 10, low: 20, high: 40, ballast: 5 };

    #[test]
    fn a_disk_that_fills_and_empties_goes_through_every_step() {
        let mut d = Disk::new(MARKS, Ballast::Whole);
        assert_eq!(d.observe(20), Step::Accept);
        assert_eq!(d.observe(19), Step::RefuseNew);
        assert_eq!(d.observe(39), Step::RefuseNew, "not before the high mark");
        assert_eq!(d.observe(9), Step::FreeBallast);
        d.freed();
        assert_eq!(d.observe(14), Step::RefuseNew, "the ballast's room is for draining");
        assert_eq!(d.observe(44), Step::RefuseNew, "room for the ballast first");
        assert_eq!(d.observe(45), Step::RebuildBallast);
        d.rebuilt();
        assert_eq!(d.observe(40), Step::Accept);
    }

    #[test]
    fn a_first_start_makes_the_ballast_and_accepts_meanwhile() {
        let mut d = Disk::new(MARKS, Ballast::Freed);
        assert_eq!(d.observe(44), Step::Accept);
        assert_eq!(d.observe(45), Step::RebuildBallast);
        assert!(d.accepting());
    }

    proptest! {
        #[test]
        fn nothing_new_is_taken_below_the_low_mark_and_the_ballast_is_whole_when_refusing_ends(
            frees in prop::collection::vec(0u64..60, 1..100),
        ) {
            let mut d = Disk::new(MARKS, Ballast::Whole);
            for free in frees {
                let before = d.accepting();
                match d.observe(free) {
                    Step::Accept => {
                        prop_assert!(free >= MARKS.low);
                        prop_assert!(before || d.ballast == Ballast::Whole);
                    }
                    Step::RefuseNew => prop_assert!(!d.accepting()),
                    Step::FreeBallast => { prop_assert!(!d.accepting()); d.freed(); }
                    Step::RebuildBallast => d.rebuilt(),
                }
            }
        }
    }
}
