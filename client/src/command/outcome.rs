//! What became of a handshake: the node's answer, the log's word, the end of a room.

use std::collections::BTreeMap;

use delivery::commit::{self, Arbitration, Change};
use protocol::api::SubmitReply;
use protocol::log::Digest;
use protocol::refusal::Lasting;
use protocol::{Code, Epoch, Refusal, Seq, SubmitId, Timestamp};

use super::save;
use crate::core::Work;
use crate::event::Event;
use crate::store::{Action, CommandRow, RoomNo, RoomRow};
use crate::{Error, Result, RoomStatus, recover, sender};

/// The command whose handshake has this name.
pub(crate) fn owns(commands: &BTreeMap<u64, CommandRow>, id: &SubmitId) -> Option<u64> {
    let owner = commands
        .iter()
        .find(|(_, c)| c.attempt.as_ref().is_some_and(|attempt| attempt.submit_id == *id));
    owner.map(|(position, _)| *position)
}

/// The node answered to a handshake. Gives how long to wait before the same bytes go up again, if they must.
///
/// # Errors
/// The disk's.
pub(crate) async fn answered(
    work: &mut Work<'_>,
    position: u64,
    reply: SubmitReply,
) -> Result<Option<std::time::Duration>> {
    let Some(mut command) = work.commands.get(&position).cloned() else { return Ok(None) };
    match reply {
        SubmitReply::Accepted(accepted) => {
            command.place = Some((accepted.place.seq, accepted.at));
            command.waiting = None;
            save(work, command).await?;
            Ok(None)
        }
        SubmitReply::Stored => {
            command.stored = true;
            save(work, command).await?;
            work.reconsider();
            Ok(None)
        }
        SubmitReply::Refused(refusal) => refused(work, command, refusal).await,
    }
}

/// A handshake was refused, now or late.
///
/// # Errors
/// The disk's.
pub(crate) async fn refused(
    work: &mut Work<'_>,
    mut command: CommandRow,
    refusal: Refusal,
) -> Result<Option<std::time::Duration>> {
    let made_in = command.attempt.as_ref().map(|attempt| attempt.epoch);
    if let Some((epoch, made_in)) = refusal.epoch.zip(made_in)
        && made_in > epoch
        && !matches!(command.action, Action::Join(_))
        && recover::hub_is_behind(work, &command.room, epoch).await?
    {
        // Every handshake of the room was taken back.
        return Ok(None);
    }
    let rebuild =
        matches!(refusal.code, Code::WrongEpoch | Code::StaleEpoch | Code::MissingProposal);
    if !rebuild && refusal.code.lasting() == Lasting::Transient {
        command.tries = command.tries.saturating_add(1);
        let floor = refusal.retry_after_ms.map(|ms| std::time::Duration::from_millis(ms.into()));
        let jitter = work.world.entropy.jitter();
        let wait = delivery::backoff::Backoff::STANDARD.delay(command.tries, jitter, floor);
        command.waiting = Some(refusal);
        command.stored = false;
        save(work, command).await?;
        return Ok(Some(wait));
    }
    if wants_fresh(&command, &refusal) {
        command.packages.clear();
        command.tries = command.tries.saturating_add(1);
        let again = commit::State::Build(work.now());
        command.change = Change::restore(command.change.losses(), again);
        clear_pending(work, command.no).await?;
        take_back(&mut command);
        command.waiting = Some(refusal);
        save(work, command).await?;
        work.reconsider();
        return Ok(None);
    }
    command.change.refused(refusal, work.now(), work.world.entropy.jitter());
    if matches!(command.action, Action::Join(_)) {
        // Who is not in hears nothing from the log; the next try asks for the present state anyway.
        if let commit::State::Behind(_) = command.change.state() {
            let again = commit::State::Build(work.now());
            command.change = Change::restore(command.change.losses(), again);
        }
        work.drop_group(command.no).await?;
    } else {
        clear_pending(work, command.no).await?;
    }
    take_back(&mut command);
    save(work, command).await?;
    work.reconsider();
    Ok(None)
}

/// How often KeyPackages are claimed anew because the hub did not like those that were.
const FRESH_MAX: u32 = 5;

/// Whether an invitation was refused only because its KeyPackages lay about for too long.
pub(super) fn wants_fresh(command: &CommandRow, refusal: &Refusal) -> bool {
    refusal.code == Code::BadKeyPackage
        && command.tries < FRESH_MAX
        && matches!(command.action, Action::Add(_))
}

async fn clear_pending(work: &mut Work<'_>, no: RoomNo) -> Result<()> {
    let mut group = work.take_group(no).await?;
    if group.has_pending_commit() {
        group.clear_pending().map_err(Error::crypto)?;
    }
    work.put_group(no, group);
    Ok(())
}

/// Takes back every handshake of a room that was built on a group that is no more.
///
/// # Errors
/// The disk's.
pub(crate) async fn withdraw(work: &mut Work<'_>, no: RoomNo) -> Result<()> {
    // What waits for an epoch would wait for one that the new leaf never sees.
    let waits = |c: &CommandRow| matches!(c.change.state(), commit::State::Behind(_));
    let open = |c: &&CommandRow| c.no == no && (c.attempt.is_some() || waits(c));
    let commands: Vec<CommandRow> = work.commands.values().filter(open).cloned().collect();
    for mut command in commands {
        take_back(&mut command);
        let again = commit::State::Build(work.now());
        command.change = Change::restore(command.change.losses(), again);
        save(work, command).await?;
    }
    Ok(())
}

fn take_back(command: &mut CommandRow) {
    command.attempt = None;
    command.stored = false;
    command.place = None;
}

/// The log shows our own commit.
///
/// # Errors
/// The disk's.
pub(crate) async fn merged(
    work: &mut Work<'_>,
    no: RoomNo,
    (seq, at): (Seq, Timestamp),
) -> Result<()> {
    let ours = work
        .commands
        .values()
        .find(|c| c.no == no && c.attempt.is_some() && !matches!(c.action, Action::Leave))
        .cloned();
    if let Some(mut command) = ours {
        command.change = Change::restore(command.change.losses(), commit::State::Done);
        command.attempt = None;
        command.place = Some((seq, at));
        save(work, command).await?;
    }
    work.reconsider();
    Ok(())
}

/// The log shows this device's wish to leave. It is out when somebody has committed that.
///
/// # Errors
/// The disk's.
pub(crate) async fn proposed(
    work: &mut Work<'_>,
    no: RoomNo,
    place: (Seq, Timestamp),
) -> Result<()> {
    let ours = work
        .commands
        .values()
        .find(|c| c.no == no && c.attempt.is_some() && matches!(c.action, Action::Leave))
        .cloned();
    if let Some(mut command) = ours {
        command.place = Some(place);
        save(work, command).await?;
    }
    Ok(())
}

/// What some commands of a room wanted has happened.
///
/// # Errors
/// The disk's.
pub(crate) async fn finish(
    work: &mut Work<'_>,
    no: RoomNo,
    which: impl Fn(&Action) -> bool,
) -> Result<()> {
    let commands: Vec<CommandRow> =
        work.commands.values().filter(|c| c.no == no && which(&c.action)).cloned().collect();
    for mut command in commands {
        command.change = Change::restore(command.change.losses(), commit::State::Done);
        command.attempt = None;
        save(work, command).await?;
    }
    work.reconsider();
    Ok(())
}

/// The log shows somebody else's commit of `epoch`: whatever was handed in for it has lost, and what waited for the log may go on.
///
/// # Errors
/// The disk's.
pub(crate) async fn lost_epoch(
    work: &mut Work<'_>,
    no: RoomNo,
    epoch: Epoch,
    commit: &Digest,
) -> Result<()> {
    let commands: Vec<CommandRow> =
        work.commands.values().filter(|c| c.no == no).cloned().collect();
    for mut command in commands {
        let jitter = work.world.entropy.jitter();
        let before = command.change.clone();
        match command.change.seen(epoch, commit, work.now(), jitter) {
            Arbitration::Lost => take_back(&mut command),
            Arbitration::Merge | Arbitration::Apply => {}
        }
        if command.change != before {
            save(work, command).await?;
        }
    }
    work.reconsider();
    Ok(())
}

/// A command failed by a fault of our own.
///
/// # Errors
/// The disk's.
pub(crate) async fn broken(work: &mut Work<'_>, position: u64, fault: &Error) -> Result<()> {
    let Some(mut command) = work.commands.get(&position).cloned() else { return Ok(()) };
    let refusal = Refusal::because(Code::Internal, fault.sentence());
    command.change = Change::restore(command.change.losses(), commit::State::Failed(refusal));
    command.attempt = None;
    save(work, command).await?;
    work.reconsider();
    Ok(())
}

/// This device is out of a room.
///
/// # Errors
/// The disk's.
pub(crate) async fn left(work: &mut Work<'_>, mut row: RoomRow) -> Result<()> {
    row.status = RoomStatus::Left;
    work.tx.put_room(&row).await?;
    work.drop_group(row.no).await?;
    let commands: Vec<CommandRow> =
        work.commands.values().filter(|c| c.no == row.no).cloned().collect();
    for mut command in commands {
        let end = match command.action {
            Action::Leave | Action::Renew | Action::Settle => commit::State::Done,
            _ => commit::State::Failed(Refusal::because(Code::NotFound, OUT)),
        };
        command.change = Change::restore(command.change.losses(), end);
        command.attempt = None;
        save(work, command).await?;
    }
    sender::give_up(work, &row.room, &Refusal::because(Code::NotFound, OUT)).await?;
    work.events.push(Event::RoomLeft { room: row.room });
    Ok(())
}

const OUT: &str = "This device is no longer in the room; it was not sent.";
