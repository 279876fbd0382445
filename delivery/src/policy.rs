//! Whether a commit is allowed: who may add, remove, promote, ban and leave. PROTOCOL §7.3.
//!
//! The hub runs this before it gives a commit its place, and every member runs it again before it merges, so that neither a hub nor a member can
//! do what a role does not allow.
//!
//! | | member | admin | owner |
//! |---|---|---|---|
//! | add or remove own devices | yes | yes | yes |
//! | add somebody as member | no | yes | yes |
//! | add somebody as admin or owner | no | no | yes |
//! | add devices of somebody listed | no | yes | yes |
//! | remove or ban a member, remove a device of a member | no | yes | yes |
//! | the same with an admin or owner | no | no | yes |
//! | unban, strike a banned person from the list, ban somebody who is not listed | no | yes | yes |
//! | lower the own role | – | yes | yes |
//! | any other change of a role | no | no | yes |
//! | strike somebody a device of whom has asked to leave, and none of whose devices is left | yes | yes | yes |
//!
//! For everybody: a device with a leaf belongs to somebody listed and not banned; a room with an owner keeps one; a device is added or removed, once, and
//! not both, except that a device coming back by external commit may replace its own leaf. An external commit adds exactly its committer,
//! who must be listed and not banned, removes at most one earlier leaf of the same person, and does not change the list.
//!
//! Somebody listed without a leaf is allowed: a person whose last device was revoked stays in the room and comes back with the next device.

use std::collections::{BTreeMap, BTreeSet};

use protocol::room::{CommitFacts, Participants, Role};
use protocol::{Code, DeviceId, Domain, Refusal, UserId, limit};

use crate::quota;

/// Judges a commit.
///
/// # Errors
/// `TooLarge` when the room or the commit is too big, `InvalidCommit` when list and leaves do not fit together, `NotAllowed` when a role forbids it.
pub fn judge(facts: &CommitFacts) -> Result<(), Refusal> {
    sizes(facts)?;
    leaves_fit(facts)?;
    list_fits(facts)?;
    let role = standing(&facts.before, &facts.committer.user())?;
    if facts.external {
        return external(facts);
    }
    list_changes(facts, role)?;
    device_changes(facts, role)
}

/// Judges a wish to leave, before it becomes a pending proposal that the next commit must hold.
///
/// # Errors
/// `NotAllowed` when `user` is not a participant, or the last owner with others still there.
pub fn judge_leave(list: &Participants, user: &UserId) -> Result<(), Refusal> {
    let role = standing(list, user)?;
    let others = || list.list().iter().filter(|p| p.user != *user && p.role != Role::Banned);
    if role == Role::Owner && others().next().is_some() && !others().any(|p| p.role == Role::Owner)
    {
        return Err(forbidden(
            "The last owner cannot leave others behind: make somebody else an owner first.",
        ));
    }
    Ok(())
}

/// Whether devices may join those that pending proposals are to remove: the next commit removes all of them, and must still be one of which their nodes
/// can be told.
///
/// # Errors
/// `QueueFull`.
pub fn judge_pending(pending: &[DeviceId], leaving: &[DeviceId]) -> Result<(), Refusal> {
    if header_bytes(pending.iter().chain(leaving)) > limit::MEMBERS_HEADER_BYTES {
        return Err(Refusal::new(Code::QueueFull).retry_after_ms(quota::FULL_RETRY_MS));
    }
    Ok(())
}

fn sizes(facts: &CommitFacts) -> Result<(), Refusal> {
    let too_large = |detail: &str| Err(Refusal::because(Code::TooLarge, detail));
    if facts.added.len() > limit::ADDS_PER_COMMIT {
        return too_large("The commit adds too many devices at once.");
    }
    if facts.removed.len() > limit::ADDS_PER_COMMIT {
        return too_large("The commit removes too many devices at once.");
    }
    if facts.members.len() > limit::DEVICES_PER_ROOM {
        return too_large("The room has too many devices.");
    }
    let gone = facts.removed.iter().chain(&facts.left).chain(&facts.expelled);
    if header_bytes(facts.added.iter().chain(gone)) > limit::MEMBERS_HEADER_BYTES {
        return too_large("The commit changes too many devices of one node at once.");
    }
    Ok(())
}

/// The most bytes that any one node needs to be told what becomes of these devices of its own: PROTOCOL §9.5.
fn header_bytes<'a>(devices: impl Iterator<Item = &'a DeviceId>) -> usize {
    // A sign, the device, an `@`, a number of up to 20 digits, a space.
    let mut by_node: BTreeMap<&Domain, usize> = BTreeMap::new();
    for device in devices {
        let bytes = by_node.entry(device.domain()).or_default();
        *bytes = bytes.saturating_add(device.as_str().len() + 23);
    }
    by_node.into_values().max().unwrap_or_default()
}

/// What is added and removed, and who is there afterwards, is one consistent story.
fn leaves_fit(facts: &CommitFacts) -> Result<(), Refusal> {
    let members = distinct(&facts.members, "A device has two leaves.")?;
    let added = distinct(&facts.added, "A device is added twice.")?;
    let gone: Vec<DeviceId> =
        facts.removed.iter().chain(&facts.left).chain(&facts.expelled).cloned().collect();
    let gone = distinct(&gone, "A device is removed twice.")?;
    let back = |device: &DeviceId| facts.external && *device == facts.committer;
    if !added.is_subset(&members) {
        return Err(invalid("An added device has no leaf."));
    }
    if gone.iter().any(|d| members.contains(d) && !back(d)) {
        return Err(invalid("A removed device still has a leaf."));
    }
    if added.iter().any(|d| gone.contains(d) && !back(d)) {
        return Err(invalid("A device is added and removed."));
    }
    if !members.contains(&facts.committer) {
        return Err(invalid("The committer has no leaf."));
    }
    Ok(())
}

fn distinct<'a>(devices: &'a [DeviceId], twice: &str) -> Result<BTreeSet<&'a DeviceId>, Refusal> {
    let set: BTreeSet<_> = devices.iter().collect();
    if set.len() == devices.len() { Ok(set) } else { Err(invalid(twice)) }
}

/// Every leaf belongs to a participant, and the room keeps an owner.
fn list_fits(facts: &CommitFacts) -> Result<(), Refusal> {
    let present: BTreeSet<UserId> = facts
        .after
        .list()
        .iter()
        .filter(|p| p.role != Role::Banned)
        .map(|p| p.user.clone())
        .collect();
    if facts.members.iter().any(|device| !present.contains(&device.user())) {
        return Err(invalid("A device has a leaf whose owner is not in the room or is banned."));
    }
    if owned(&facts.before) && !owned(&facts.after) {
        return Err(forbidden("The room would be left without an owner."));
    }
    Ok(())
}

fn owned(list: &Participants) -> bool {
    list.list().iter().any(|p| p.role == Role::Owner)
}

/// The role of a participant who is not banned.
fn standing(list: &Participants, user: &UserId) -> Result<Role, Refusal> {
    list.role(user)
        .filter(|role| *role != Role::Banned)
        .ok_or_else(|| forbidden("Not a participant of this room."))
}

fn external(facts: &CommitFacts) -> Result<(), Refusal> {
    if facts.added.len() != 1 || facts.added.first() != Some(&facts.committer) {
        return Err(invalid("An external commit adds exactly its committer."));
    }
    if facts.before != facts.after {
        return Err(invalid("An external commit does not change the participants."));
    }
    let own = facts.committer.user();
    if facts.removed.len() > 1 || facts.removed.iter().any(|device| device.user() != own) {
        return Err(forbidden("An external commit removes nobody else's device, and one at most."));
    }
    Ok(())
}

fn list_changes(facts: &CommitFacts, role: Role) -> Result<(), Refusal> {
    let own = facts.committer.user();
    // Every member judges every commit, so a room of ten thousand must not cost their square.
    let (before, after) = (roles(&facts.before), roles(&facts.after));
    for person in facts.after.list() {
        let allowed = match before.get(&person.user).copied() {
            None => may_add(role, person.role),
            Some(was) if was == person.role => true,
            Some(was) => may_change(role, was, person.role, person.user == own),
        };
        if !allowed {
            let to = person.role.as_str();
            return Err(forbidden(&format!(
                "Your role does not allow making {} {to}.",
                person.user.handle()
            )));
        }
    }
    for person in facts.before.list() {
        let stays = after.contains_key(&person.user);
        if !stays && !may_remove(role, person.role) && !left(facts, &person.user) {
            return Err(forbidden(&format!(
                "Your role does not allow removing {}.",
                person.user.handle()
            )));
        }
    }
    Ok(())
}

fn roles(list: &Participants) -> BTreeMap<&UserId, Role> {
    list.list().iter().map(|p| (&p.user, p.role)).collect()
}

fn may_add(role: Role, to: Role) -> bool {
    match role {
        Role::Owner => true,
        Role::Admin => matches!(to, Role::Member | Role::Banned),
        Role::Member | Role::Banned => false,
    }
}

fn may_change(role: Role, from: Role, to: Role, own: bool) -> bool {
    match role {
        Role::Owner => true,
        Role::Admin if own => to == Role::Member,
        Role::Admin => {
            matches!((from, to), (Role::Member, Role::Banned) | (Role::Banned, Role::Member))
        }
        Role::Member | Role::Banned => false,
    }
}

/// Striking a person from the list, or a device of theirs from the room.
fn may_remove(role: Role, whom: Role) -> bool {
    match role {
        Role::Owner => true,
        Role::Admin => matches!(whom, Role::Member | Role::Banned),
        Role::Member | Role::Banned => false,
    }
}

/// Whether `user` goes by wish. That none of their devices stays is settled with the list, and that the committer removed none beyond its role with the devices.
fn left(facts: &CommitFacts, user: &UserId) -> bool {
    facts.left.iter().any(|device| device.user() == *user)
}

fn device_changes(facts: &CommitFacts, role: Role) -> Result<(), Refusal> {
    let own = facts.committer.user();
    // Whether a new person may come is settled with the list; this is about whose devices one touches.
    if role < Role::Admin && facts.added.iter().any(|device| device.user() != own) {
        return Err(forbidden("Your role does not allow adding somebody else's device."));
    }
    let may = |device: &DeviceId| {
        let user = device.user();
        user == own || facts.before.role(&user).is_some_and(|whom| may_remove(role, whom))
    };
    if facts.removed.iter().all(may) {
        Ok(())
    } else {
        Err(forbidden("Your role does not allow removing somebody else's device."))
    }
}

fn forbidden(detail: &str) -> Refusal {
    Refusal::because(Code::NotAllowed, detail)
}

fn invalid(detail: &str) -> Refusal {
    Refusal::because(Code::InvalidCommit, detail)
}

#[cfg(test)]
mod tests;
