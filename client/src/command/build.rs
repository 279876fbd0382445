//! What a command means for the room as it is now: the change to commit, or that there is nothing left to do.

use std::collections::BTreeSet;

use crypto::group::{Change, Proposed};
use crypto::{Group, keypackage};
use minicbor::bytes::ByteVec;
use protocol::room::{Participant, Participants, ParticipantsUpdate, Role};
use protocol::{Code, DeviceId, Refusal, UserId};

use crate::core::Work;
use crate::store::{Action, CommandRow};
use crate::{Error, Result, trust};

/// What to do for a command in the present epoch.
pub(super) enum Plan {
    /// Nothing: the room is as wanted.
    Done,
    /// Nothing: it cannot be.
    Fail(Refusal),
    /// Claim KeyPackages of this person first.
    Claim(UserId),
    /// Commit this.
    Commit(Change),
    /// Propose that this device and these other ones leave.
    Propose(Vec<DeviceId>),
    /// Nothing yet: it was asked for, and somebody else carries it out.
    Wait,
    /// Nobody else is there: forget the room.
    Abandon,
}

/// Decides what to do.
///
/// # Errors
/// Ours only.
pub(super) async fn plan(
    work: &mut Work<'_>,
    command: &CommandRow,
    group: &mut Group,
) -> Result<Plan> {
    let members: Vec<DeviceId> = devices(group)?;
    let list = group.participants().map_err(Error::crypto)?;
    let wishes = group.pending_proposals().map_err(Error::crypto)?;
    let mut change = Change::default();
    match &command.action {
        Action::Create(..) | Action::Join(_) => return Ok(Plan::Done),
        Action::Add(user) => {
            if command.packages.is_empty() {
                return Ok(Plan::Claim(user.clone()));
            }
            let add = match usable(work, &command.packages, &members, user).await? {
                Ok(add) => add,
                Err(refusal) => return Ok(Plan::Fail(refusal)),
            };
            match list.role(user) {
                Some(Role::Banned) => {
                    let why = "This person is banned from the room; lift the ban first.";
                    return Ok(Plan::Fail(Refusal::because(Code::NotAllowed, why)));
                }
                Some(_) if add.is_empty() => return Ok(Plan::Done),
                Some(_) => {}
                None => {
                    let person = Participant { user: user.clone(), role: Role::Member };
                    change.participants.added.push(person);
                }
            }
            change.add = add;
        }
        Action::Remove(user) => {
            let Some(index) = list.index(user) else { return Ok(Plan::Done) };
            change.remove = of(&members, user);
            change.participants.removed.push(index);
        }
        Action::RemoveDevice(device) => {
            if !members.contains(device) {
                return Ok(Plan::Done);
            }
            change.remove.push(device.clone());
        }
        Action::SetRole(user, role) => {
            let (Some(index), Some(role)) = (list.index(user), Role::from_index(*role)) else {
                let why = "This person is not in the room.";
                return Ok(Plan::Fail(Refusal::because(Code::NotFound, why)));
            };
            if list.role(user) == Some(role) {
                return Ok(Plan::Done);
            }
            change.participants.changed.push((index, role));
            if role == Role::Banned {
                change.remove = of(&members, user);
            }
        }
        Action::Leave => return Ok(leave(work, &wishes, &list, &members)),
        Action::Renew => change.renew = true,
        Action::Settle if wishes.is_empty() => return Ok(Plan::Done),
        Action::Settle => {}
    }
    if change.remove.contains(work.identity.device()) {
        // Nobody can commit their own removal.
        return Ok(leave(work, &wishes, &list, &members));
    }
    carry_wishes(&wishes, &list, &members, &mut change);
    Ok(Plan::Commit(change))
}

fn leave(work: &Work<'_>, wishes: &[Proposed], list: &Participants, members: &[DeviceId]) -> Plan {
    let (user, this) = (work.user(), work.identity.device());
    if wishes.iter().any(|wish| wish.device == *this) {
        return Plan::Wait;
    }
    if members.iter().all(|device| device.user() == user) {
        return Plan::Abandon;
    }
    if let Err(refusal) = delivery::policy::judge_leave(list, &user) {
        return Plan::Fail(refusal);
    }
    let others = members.iter().filter(|d| d.user() == user && *d != this);
    let others = others.filter(|d| !wishes.iter().any(|wish| wish.device == **d));
    Plan::Propose(others.cloned().collect())
}

/// KeyPackages for devices that are not in yet, of people whose identity is the pinned one.
async fn usable(
    work: &mut Work<'_>,
    packages: &[ByteVec],
    members: &[DeviceId],
    user: &UserId,
) -> Result<std::result::Result<Vec<Vec<u8>>, Refusal>> {
    let now = work.now();
    let mut add: Vec<Vec<u8>> = Vec::new();
    let mut seen: BTreeSet<DeviceId> = BTreeSet::new();
    for package in packages {
        let Ok(info) = keypackage::inspect(package, now) else { continue };
        let device = info.certificate.device().clone();
        if info.certificate.user() != *user || !info.lives_long_enough(now) {
            continue;
        }
        if members.contains(&device) || !seen.insert(device) {
            continue;
        }
        if let Err(distrust) = trust::check(work, &info.certificate).await? {
            return Ok(Err(Refusal::because(Code::BadCertificate, distrust.sentence)));
        }
        add.push(package.to_vec());
    }
    let any = !add.is_empty() || !of(members, user).is_empty();
    Ok(if any { Ok(add) } else { Err(Code::NoKeyPackages.into()) })
}

/// The list has to follow the pending wishes to leave that every commit carries.
fn carry_wishes(
    wishes: &[Proposed],
    list: &Participants,
    members: &[DeviceId],
    change: &mut Change,
) {
    // The hub proposes to remove revoked devices; their person stays in the room without one.
    let asked: BTreeSet<UserId> =
        wishes.iter().filter(|w| w.by.is_some()).map(|w| w.device.user()).collect();
    let gone: BTreeSet<&DeviceId> =
        wishes.iter().map(|w| &w.device).chain(&change.remove).collect();
    let update: &mut ParticipantsUpdate = &mut change.participants;
    let stays = |user: &UserId| members.iter().any(|d| d.user() == *user && !gone.contains(d));
    for (person, index) in list.list().iter().zip(0u32..) {
        let touched = update.removed.contains(&index)
            || update.changed.iter().any(|(changed, _)| *changed == index);
        if !touched && asked.contains(&person.user) && !stays(&person.user) {
            update.removed.push(index);
        }
    }
    // A device that asked to go is not removed a second time.
    change.remove.retain(|device| !wishes.iter().any(|w| w.device == *device));
}

/// Every device with a leaf.
pub(super) fn devices(group: &Group) -> Result<Vec<DeviceId>> {
    let members = group.members().map_err(Error::crypto)?;
    Ok(members.iter().map(|m| m.certificate.device().clone()).collect())
}

fn of(members: &[DeviceId], user: &UserId) -> Vec<DeviceId> {
    members.iter().filter(|d| d.user() == *user).cloned().collect()
}
