//! Whose commit stands, what the next one must hold, and who commits a leave.
//!
//! The hub gives each epoch to one commit ([`crate::room::admit`]). A device that wants a change therefore lives with losing:
//!
//! | state | fact | next state |
//! |---|---|---|
//! | to build (not before a time) | built for epoch e | pending |
//! | pending | the log shows our own commit | done: `Merge` |
//! | pending | the log shows another commit of epoch e | to build again: `Lost`, drop ours, apply that one |
//! | pending | refused: wrong epoch, proposal missing | behind, until the log has caught up; then to build again |
//! | pending | refused for good | failed |
//! | any | lost [`ATTEMPTS`] times | failed: the room is too busy |
//!
//! A pending commit is never merged before the log shows it.

use std::time::Duration;

use protocol::log::Digest;
use protocol::{Epoch, Refusal, Timestamp};

/// How often a change is built before it fails.
pub const ATTEMPTS: u32 = 8;
/// The wait before building again: this much to [`REBUILD_MAX`], times the number of losses.
pub const REBUILD_MIN: Duration = Duration::from_millis(50);
/// See [`REBUILD_MIN`].
pub const REBUILD_MAX: Duration = Duration::from_millis(500);

/// A change to a room that this device wants, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    losses: u32,
    state: State,
}

/// See [`Change`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// To be built, not before this time.
    Build(Timestamp),
    /// To be built once the log has brought this epoch.
    Behind(Epoch),
    /// Handed in; the log will tell.
    Pending {
        /// The epoch it was built for.
        epoch: Epoch,
        /// [`Digest::of_bytes`] of the commit message.
        commit: Digest,
    },
    /// It stands.
    Done,
    /// It does not, and is not tried again.
    Failed(Refusal),
}

/// What to do with a commit that the log shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Arbitration {
    /// It is our own: merge the pending commit.
    Merge,
    /// Ours lost: drop the pending commit, apply this one.
    Lost,
    /// Apply this one; nothing of ours is pending for that epoch.
    Apply,
}

/// What to do next for a [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Build the commit for the current epoch, save it, report with [`Change::built`], hand it in.
    Build,
    /// Nothing before this time.
    WaitUntil(Timestamp),
    /// Nothing until the log shows more.
    WaitForLog,
    /// Nothing any more.
    Ended,
}

/// The wait after losing for the `losses`th time, the first being 1; `None` when that was once too often.
#[must_use]
pub fn rebuild_delay(losses: u32, jitter: u32) -> Option<Duration> {
    let _ = (losses, jitter);
    todo!()
}

impl Change {
    /// A change that a person just asked for.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self { losses: 0, state: State::Build(now) }
    }

    /// A change as it was saved.
    #[must_use]
    pub const fn restore(losses: u32, state: State) -> Self {
        Self { losses, state }
    }

    /// How often it lost.
    #[must_use]
    pub const fn losses(&self) -> u32 {
        self.losses
    }

    /// How far it is.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// What to do.
    pub fn next(&self, now: Timestamp) -> Step {
        let _ = now;
        todo!()
    }

    /// The commit was built for `epoch` and saved as the group's pending commit.
    pub fn built(&mut self, epoch: Epoch, commit: Digest) {
        self.state = State::Pending { epoch, commit };
    }

    /// The log shows `commit`, made in `epoch`.
    pub fn seen(
        &mut self,
        epoch: Epoch,
        commit: &Digest,
        now: Timestamp,
        jitter: u32,
    ) -> Arbitration {
        let _ = (epoch, commit, now, jitter);
        todo!()
    }

    /// The hub refused the pending commit, so it can be dropped.
    pub fn refused(&mut self, refusal: Refusal, now: Timestamp, jitter: u32) {
        let _ = (refusal, now, jitter);
        todo!()
    }
}

/// Whether a commit holds every proposal that is pending at the hub. An external commit cannot: those proposals lapse with the epoch, and the hub makes its own
/// ones again.
///
/// # Errors
/// `MissingProposal`.
pub fn complete<P: Ord>(pending: &[P], included: &[P], external: bool) -> Result<(), Refusal> {
    let _ = (pending, included, external);
    todo!()
}

/// How long the member at `leaf` waits before it commits pending leaves: the lowest leaf of those who stay goes first, the others after a growing
/// time, so that one commit is made and not a thousand. `staying` are the leaves of those who stay; `None` if `leaf` is not among them.
#[must_use]
pub fn leave_delay(leaf: u32, staying: &[u32], jitter: u32) -> Option<Duration> {
    let _ = (leaf, staying, jitter);
    todo!()
}
