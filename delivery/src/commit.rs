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

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::log::Digest;
use protocol::refusal::Lasting;
use protocol::{Code, Epoch, Refusal, Timestamp};

use crate::backoff::uniform;
use crate::quota;

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
    let spread = REBUILD_MAX.saturating_sub(REBUILD_MIN);
    let once = REBUILD_MIN + uniform(spread, jitter);
    (losses < ATTEMPTS).then(|| once.saturating_mul(losses))
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
        match self.state {
            State::Build(at) if now < at => Step::WaitUntil(at),
            State::Build(_) => Step::Build,
            State::Behind(_) | State::Pending { .. } => Step::WaitForLog,
            State::Done | State::Failed(_) => Step::Ended,
        }
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
        match self.state {
            State::Pending { epoch: e, commit: ours } if epoch == e && *commit == ours => {
                self.state = State::Done;
                Arbitration::Merge
            }
            State::Pending { epoch: e, .. } if epoch >= e => {
                self.lose(&Code::WrongEpoch.into(), now, jitter);
                Arbitration::Lost
            }
            State::Behind(target) if epoch.next() >= target => {
                let wait = rebuild_delay(self.losses, jitter).unwrap_or_default();
                self.state = State::Build(now.after(wait));
                Arbitration::Apply
            }
            _ => Arbitration::Apply,
        }
    }

    /// The hub refused the pending commit, so it can be dropped.
    pub fn refused(&mut self, refusal: Refusal, now: Timestamp, jitter: u32) {
        let State::Pending { epoch, .. } = self.state else {
            return;
        };
        match refusal.code {
            Code::WrongEpoch | Code::StaleEpoch | Code::MissingProposal => {
                let ahead = refusal.epoch.filter(|current| *current > epoch);
                self.lose(&refusal, now, jitter);
                if let (State::Build(_), Some(current)) = (&self.state, ahead) {
                    self.state = State::Behind(current);
                }
            }
            code if code.lasting() == Lasting::Permanent => self.state = State::Failed(refusal),
            // The same bytes go up again later.
            _ => {}
        }
    }

    fn lose(&mut self, refusal: &Refusal, now: Timestamp, jitter: u32) {
        self.losses = self.losses.saturating_add(1);
        self.state = match rebuild_delay(self.losses, jitter) {
            Some(wait) => State::Build(now.after(wait)),
            None => State::Failed(Refusal { detail: TOO_BUSY.to_owned(), ..refusal.clone() }),
        };
    }
}

const TOO_BUSY: &str = "Others changed the room each time this change was ready. It was not carried out; try it again.";

/// Whether a commit of a member holds every proposal that is pending at the hub. A join from outside (`external`) cannot carry all kinds, and which it must
/// is for the group's state to say: PROTOCOL §7.4.
///
/// # Errors
/// `MissingProposal`.
pub fn complete<P: Ord>(pending: &[P], included: &[P], external: bool) -> Result<(), Refusal> {
    if external || pending.iter().all(|p| included.contains(p)) {
        return Ok(());
    }
    Err(Code::MissingProposal.into())
}

/// Proposals that may be pending in one room: the next commit must hold them all.
pub const PENDING: usize = 256;

/// Whether proposals that remove `leaving` may join those pending, which remove `pending`. Two removals of one leaf cannot be in one commit, and every
/// pending one must be in the next: admitted together they would stop the room.
///
/// # Errors
/// `WrongEpoch` when a leaf is on its way out already (the proposer looks again and finds its wish fulfilled), `InvalidCommit` when it is named
/// twice, `QueueFull` beyond [`PENDING`].
pub fn may_propose<L: Ord>(pending: &[L], leaving: &[L]) -> Result<(), Refusal> {
    if leaving.iter().any(|leaf| pending.contains(leaf)) {
        let detail = "The removal of this device is pending already.";
        return Err(Refusal::because(Code::WrongEpoch, detail));
    }
    if leaving.iter().collect::<BTreeSet<_>>().len() < leaving.len() {
        return Err(Refusal::because(Code::InvalidCommit, "A device is removed twice."));
    }
    if pending.len().saturating_add(leaving.len()) > PENDING {
        return Err(Refusal::new(Code::QueueFull).retry_after_ms(quota::FULL_RETRY_MS));
    }
    Ok(())
}

/// How much longer each further member waits before it commits pending leaves; the random part is below it, so that the order stays.
pub const LEAVE_STEP: Duration = Duration::from_secs(2);
/// The longest such wait.
pub const LEAVE_MAX: Duration = Duration::from_hours(1);

/// How long the member at `leaf` waits before it commits pending leaves: the lowest leaf of those who stay goes first, the others after a growing
/// time, so that one commit is made and not a thousand. `staying` are the leaves of those who stay; `None` if `leaf` is not among them.
#[must_use]
pub fn leave_delay(leaf: u32, staying: &[u32], jitter: u32) -> Option<Duration> {
    if !staying.contains(&leaf) {
        return None;
    }
    let rank = staying.iter().filter(|other| **other < leaf).count();
    let turn = LEAVE_STEP.saturating_mul(u32::try_from(rank).unwrap_or(u32::MAX));
    Some(turn.min(LEAVE_MAX) + uniform(LEAVE_STEP / 2, jitter))
}

#[cfg(test)]
mod tests;
