//! Changes to rooms as durable commands: what is wanted is written down first, then built, handed in, and built again
//! whenever another change came first. `delivery::commit` decides; this carries out.
//!
//! One handshake per room is under way at a time. A command that waits for somebody who cannot be reached holds up no
//! other.

mod build;
mod carry;
mod outcome;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crypto::Group;
use delivery::commit::{self, Change};
use protocol::{RoomId, SubmitId, Timestamp};

#[cfg(test)]
pub(crate) use carry::{Answer, Need, ask, go_on};
pub(crate) use carry::{bring_siblings, carry_out, founded, renew_later};
pub(crate) use outcome::{
    answered, broken, finish, left, lost_epoch, merged, owns, proposed, refused, withdraw,
};

use crate::core::Work;
use crate::room::{Failure, Stage, State};
use crate::store::{Action, CommandRow, RoomNo, RoomRow};
use crate::{Error, Event, Result, RoomStatus, World};

/// A fresh name for a submission.
pub(crate) fn mint(world: &World) -> SubmitId {
    let mut random = [0; 10];
    world.entropy.fill(&mut random);
    SubmitId::mint(world.clock.now(), random)
}

/// A command that was just asked for.
pub(crate) fn new(
    submit_id: SubmitId,
    room: &RoomRow,
    position: u64,
    action: Action,
    not_before: Timestamp,
) -> CommandRow {
    CommandRow {
        submit_id,
        no: room.no,
        position,
        room: room.room.clone(),
        action,
        change: Change::new(not_before),
        attempt: None,
        packages: Vec::new(),
        tries: 0,
        waiting: None,
        stored: false,
        place: None,
    }
}

/// Writes down that something is wanted, not before a time.
///
/// # Errors
/// The disk's.
pub(crate) async fn want(
    work: &mut Work<'_>,
    room: &RoomRow,
    action: Action,
    not_before: Timestamp,
) -> Result<SubmitId> {
    let id = mint(work.world);
    let position = work.tx.next_position().await?;
    work.put_command(new(id, room, position, action, not_before)).await?;
    Ok(id)
}

/// Writes down what a person wants in a room.
///
/// # Errors
/// [`Error::UnknownRoom`], or the disk's.
pub(crate) async fn asked(work: &mut Work<'_>, room: &RoomId, action: Action) -> Result<SubmitId> {
    let row = work.room(room).await?;
    if row.status == RoomStatus::Left {
        return Err(Error::UnknownRoom(room.clone()));
    }
    let now = work.now();
    want(work, &row, action, now).await
}

/// Wants something, unless the same is wanted already.
///
/// # Errors
/// The disk's.
pub(crate) async fn want_once(
    work: &mut Work<'_>,
    room: &RoomRow,
    action: Action,
    not_before: Timestamp,
) -> Result<()> {
    if work.commands.values().any(|c| c.no == room.no && c.action == action) {
        return Ok(());
    }
    want(work, room, action, not_before).await.map(|_| ())
}

/// Somebody wants to go: a member who stays commits it, the one with the lowest leaf first. When it is this device's turn, not before
/// `wait` has passed; never if it is going itself.
///
/// # Errors
/// A bug.
pub(crate) fn leave_turn(
    work: &Work<'_>,
    group: &Group,
    wait: Duration,
) -> Result<Option<Timestamp>> {
    let wishes = group.pending_proposals().map_err(Error::crypto)?;
    let going: BTreeSet<_> = wishes.into_iter().map(|wish| wish.device).collect();
    let members = group.members().map_err(Error::crypto)?;
    let staying: Vec<u32> = members
        .iter()
        .filter(|m| !going.contains(m.certificate.device()))
        .map(|m| m.leaf)
        .collect();
    let own = members.iter().find(|m| m.certificate.device() == work.identity.device());
    let jitter = work.world.entropy.jitter();
    let delay = own.and_then(|own| delivery::commit::leave_delay(own.leaf, &staying, jitter));
    Ok(delay.map(|delay| work.now().after(wait.saturating_add(delay))))
}

/// Which command is to be carried out next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This one, by position.
    Carry(u64, RoomNo),
    /// None before this time.
    WaitUntil(Timestamp),
    /// None until something happens.
    Idle,
}

/// What to carry out next, given the rooms in which something is being carried out right now.
pub(crate) fn next(
    commands: &BTreeMap<u64, CommandRow>,
    busy: &BTreeSet<RoomNo>,
    now: Timestamp,
) -> Next {
    // A handshake that was handed in has to end before the room can take another.
    let mut blocked: BTreeSet<RoomNo> =
        commands.values().filter(|c| c.attempt.is_some()).map(|c| c.no).collect();
    blocked.extend(busy);
    let mut earliest: Option<Timestamp> = None;
    for (position, command) in commands {
        if blocked.contains(&command.no) {
            continue;
        }
        match command.change.next(now) {
            commit::Step::Build => return Next::Carry(*position, command.no),
            commit::Step::WaitUntil(at) => earliest = Some(earliest.map_or(at, |e| e.min(at))),
            commit::Step::WaitForLog | commit::Step::Ended => {}
        }
        if matches!(command.action, Action::Create(..) | Action::Join(_)) {
            // Nothing else can be done in a room before there is one.
            blocked.insert(command.no);
        }
    }
    earliest.map_or(Next::Idle, Next::WaitUntil)
}

/// Whether a message at `position` of a room waits for a command before it: somebody who is invited and then written to shall
/// read what was written. A command that waits for somebody out of reach holds nobody up.
pub(crate) fn holds_up(
    commands: &BTreeMap<u64, CommandRow>,
    room: &RoomId,
    position: u64,
    now: Timestamp,
) -> bool {
    commands.range(..position).any(|(_, c)| c.room == *room && holds(c, now))
}

fn holds(command: &CommandRow, now: Timestamp) -> bool {
    match command.action {
        // Without these there is no room to write into.
        Action::Create(..) | Action::Join(_) => true,
        Action::Add(_) | Action::Remove(_) | Action::SetRole(..) => {
            command.tries == 0 && !command.stored && command.change.next(now) != commit::Step::Ended
        }
        Action::RemoveDevice(_) | Action::Leave | Action::Renew | Action::Settle => false,
    }
}

/// How far a command is, for a person.
pub(crate) fn state(command: &CommandRow) -> State {
    let failed = match command.change.state() {
        commit::State::Failed(refusal) => Some(Failure::from(refusal)),
        _ => None,
    };
    let done = matches!(command.change.state(), commit::State::Done);
    let stage = if done || command.place.is_some() {
        Stage::Accepted
    } else if command.stored {
        Stage::Stored
    } else if command.attempt.is_some() {
        Stage::Sending
    } else {
        Stage::Queued
    };
    State {
        stage,
        seq: command.place.map(|p| p.0),
        at: command.place.map(|p| p.1),
        failed,
        waiting: command.waiting.as_ref().map(Failure::from),
    }
}

/// Writes a command and says how far it is now.
///
/// # Errors
/// The disk's.
pub(crate) async fn save(work: &mut Work<'_>, command: CommandRow) -> Result<()> {
    let state = state(&command);
    work.events.push(Event::StateChanged {
        submit_id: command.submit_id,
        room: command.room.clone(),
        state,
    });
    work.put_command(command).await
}
