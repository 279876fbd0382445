//! Proposals and commits: what changes a room. Nothing is applied that breaks the room's policy or brings in a device
//! that its person has not certified.

use std::collections::BTreeSet;
use std::time::Duration;

use crypto::Group;
use crypto::group::{Received, StagedCommit, Why};
use protocol::api::Entry;
use protocol::log::Digest;
use protocol::room::CommitFacts;
use protocol::{Timestamp, UserId};

use super::{Fate, Walk, alarm};
use crate::core::Work;
use crate::event::{AlarmKind, Event};
use crate::store::Action;
use crate::{Error, Result, RoomStatus, command, trust};

/// Takes a proposal in.
///
/// # Errors
/// Ours only.
pub(super) async fn proposal(
    work: &mut Work<'_>,
    walk: &mut Walk,
    entry: &Entry,
    bytes: &[u8],
) -> Result<Fate> {
    match walk.group.receive(bytes).map_err(Error::crypto)? {
        Received::Proposal(proposed) => {
            if proposed.by.as_ref() == Some(work.identity.device()) {
                command::proposed(work, walk.row.no, (entry.seq, entry.at)).await?;
            }
            if let Some(at) = command::leave_turn(work, &walk.group, Duration::ZERO)? {
                command::want_once(work, &walk.row, Action::Settle, at).await?;
            }
            Ok(Fate::Taken)
        }
        Received::Own | Received::Unreadable(Why::Duplicate) => Ok(Fate::Taken),
        Received::Unreadable(Why::Forged(how)) => {
            // A commit that carries it would be held; without it nothing changes, and messages go on.
            let why = format!("a wish to change it does not verify ({how}) and is ignored");
            work.events.push(Event::Alarm(alarm(walk, AlarmKind::Held, &why)));
            Ok(Fate::Taken)
        }
        Received::Unreadable(_) if walk.row.status == RoomStatus::Joining => Ok(Fate::Taken),
        Received::Unreadable(why) => Ok(held(work, walk, &why)),
        Received::Application(_) | Received::Commit(_) | Received::OwnCommit { .. } => {
            Ok(Fate::Held(alarm(walk, AlarmKind::Held, "an entry is not what the hub calls it")))
        }
    }
}

/// Takes a commit in: the next epoch.
///
/// # Errors
/// Ours only.
pub(super) async fn commit(
    work: &mut Work<'_>,
    walk: &mut Walk,
    entry: &Entry,
    bytes: &[u8],
) -> Result<Fate> {
    let place = (entry.seq, entry.at);
    match walk.group.receive(bytes).map_err(Error::crypto)? {
        Received::OwnCommit { merged: false } => {
            let before = Before::of(&walk.group)?;
            walk.group.merge_pending().map_err(Error::crypto)?;
            command::merged(work, walk.row.no, place).await?;
            before.tell(work, walk)?;
            Ok(Fate::Taken)
        }
        Received::OwnCommit { merged: true } => {
            entered(work, walk, place).await?;
            Ok(Fate::Taken)
        }
        Received::Commit(staged) => apply(work, walk, *staged, bytes).await,
        Received::Unreadable(Why::Duplicate) => Ok(Fate::Taken),
        // What was before the external commit of this device is of an epoch it has no part in.
        Received::Unreadable(_) if walk.row.status == RoomStatus::Joining => Ok(Fate::Taken),
        Received::Unreadable(why) => Ok(match held(work, walk, &why) {
            Fate::Held(alarm) if matches!(why, Why::TooOld | Why::OutOfStep) => Fate::Astray(alarm),
            other => other,
        }),
        Received::Application(_) | Received::Proposal(_) | Received::Own => {
            Ok(Fate::Held(alarm(walk, AlarmKind::Held, "an entry is not what the hub calls it")))
        }
    }
}

/// The echo of our external commit: this device is in.
async fn entered(
    work: &mut Work<'_>,
    walk: &mut Walk,
    place: (protocol::Seq, Timestamp),
) -> Result<()> {
    command::merged(work, walk.row.no, place).await?;
    if walk.row.status == RoomStatus::Joining {
        walk.row.status = RoomStatus::Active;
        work.events.push(Event::RoomJoined { room: walk.row.room.clone() });
    }
    Ok(())
}

async fn apply(
    work: &mut Work<'_>,
    walk: &mut Walk,
    staged: StagedCommit,
    bytes: &[u8],
) -> Result<Fate> {
    if let Err(refusal) = delivery::policy::judge(staged.facts()) {
        let why = format!(
            "{} tries a change that is not allowed ({})",
            committer(&staged),
            refusal.detail
        );
        return Ok(Fate::Held(alarm(walk, AlarmKind::Policy, &why)));
    }
    for certificate in staged.certificates() {
        if let Err(mut distrust) = trust::check(work, certificate).await? {
            distrust.room = Some(walk.row.room.clone());
            return Ok(Fate::Held(distrust));
        }
    }
    let epoch = walk.group.epoch();
    let removed = staged.removes_us();
    let facts = staged.facts().clone();
    walk.group.accept(staged).map_err(Error::crypto)?;
    if removed {
        tell(work, walk, &facts);
        return Ok(Fate::Out);
    }
    command::lost_epoch(work, walk.row.no, epoch, &Digest::of_bytes(bytes)).await?;
    tell(work, walk, &facts);
    Ok(Fate::Taken)
}

fn committer(staged: &StagedCommit) -> String {
    staged.facts().committer.user().handle()
}

/// Who came and who went, by a commit of somebody else.
fn tell(work: &mut Work<'_>, walk: &Walk, facts: &CommitFacts) {
    let (before, after) = (users(&facts.before), users(&facts.after));
    let devices = !facts.added.is_empty() || !facts.removed.is_empty() || !facts.left.is_empty();
    if before != after || devices {
        work.events.push(Event::MemberChanged {
            room: walk.row.room.clone(),
            added: after.difference(&before).cloned().collect(),
            removed: before.difference(&after).cloned().collect(),
        });
    }
}

fn users(list: &protocol::room::Participants) -> BTreeSet<UserId> {
    list.list().iter().map(|p| p.user.clone()).collect()
}

/// Who was there before a commit of our own.
struct Before(BTreeSet<UserId>);

impl Before {
    fn of(group: &Group) -> Result<Self> {
        Ok(Self(users(&group.participants().map_err(Error::crypto)?)))
    }

    fn tell(self, work: &mut Work<'_>, walk: &Walk) -> Result<()> {
        let after = users(&walk.group.participants().map_err(Error::crypto)?);
        if self.0 != after {
            work.events.push(Event::MemberChanged {
                room: walk.row.room.clone(),
                added: after.difference(&self.0).cloned().collect(),
                removed: self.0.difference(&after).cloned().collect(),
            });
        }
        Ok(())
    }
}

/// The entry stays unacknowledged and is tried again.
fn held(work: &Work<'_>, walk: &Walk, why: &Why) -> Fate {
    let sentence = match why {
        Why::WaitForClock => clock(work),
        Why::Duplicate | Why::TooOld => "a change to it came too late to be followed".to_owned(),
        Why::OutOfStep => "this device has lost step with it".to_owned(),
        Why::Forged(how) => format!("a change to it does not verify ({how})"),
    };
    Fate::Held(alarm(walk, AlarmKind::Held, &sentence))
}

fn clock(work: &Work<'_>) -> String {
    match work.calibration.offset() {
        Some(offset) if offset.ms.unsigned_abs() > 60_000 => format!(
            "the clock of this device is {} s off its node's; set it right",
            offset.ms.unsigned_abs() / 1000
        ),
        _ => "a device that was added has keys that are not valid now by this device's clock"
            .to_owned(),
    }
}
