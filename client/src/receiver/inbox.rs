//! The device's own inbox: invitations into rooms, late refusals, notices.

use std::time::Duration;

use crypto::Group;
use crypto::keypackage::Use;
use protocol::api::{self, Ack, Body, Entries, Gap, InboxItem, LogRef, Outcome, Payload, Welcome};
use protocol::{Cursor, DeviceId, RoomId, Seq};

use super::Taken;
use crate::core::Work;
use crate::event::{Alarm, AlarmKind, Event};
use crate::store::{Action, LogPlace, RoomRow};
use crate::{Error, Result, RoomStatus, command, sender, trust};

/// Within this time one of a person's devices brings along those that were left out.
const SPREAD: Duration = Duration::from_secs(20);

/// What became of an item.
enum Fate {
    /// It is taken in.
    Taken,
    /// It has to wait until something in a room's log was taken in.
    Deferred,
}

/// Takes inbox items in.
///
/// # Errors
/// Ours only.
pub(super) async fn apply(work: &mut Work<'_>, entries: Entries) -> Result<Taken> {
    let incarnation = entries.incarnation;
    let reached = work.tx.inbox().await?;
    let first = entries.entries.first().map_or(Seq::new(0), |e| e.seq.prev());
    // It begins with 1; in another life of the node it goes on no later than where it was in the last one.
    let begin = first.min(reached.map_or(Seq::new(0), |c| c.seq));
    let known = reached.filter(|c| c.incarnation == incarnation);
    let mut cursor = known.unwrap_or(Cursor { incarnation, seq: begin });
    let mut taken = Taken::default();
    if let Some(gap) = entries.gap.filter(|gap| gap.last > cursor.seq) {
        lost(work, &gap).await?;
        taken.again = true;
        cursor.seq = gap.last;
    }
    for entry in entries.entries {
        if entry.seq <= cursor.seq {
            continue;
        }
        if entry.seq > cursor.seq.next() {
            // One before it had to wait, and this was on its way already.
            taken.rewind.push(LogRef::Inbox);
            break;
        }
        let item = match &entry.body {
            Body::Full(bytes) => api::decode::<InboxItem>(bytes).ok(),
            Body::Withheld(_) => None,
        };
        let fate = match item {
            Some(InboxItem::Welcome(welcome)) => enter(work, welcome, &mut taken).await?,
            Some(InboxItem::Outcome(outcome)) => refused(work, outcome).await?,
            Some(InboxItem::KeyPackagesLow(_) | InboxItem::DevicesChanged) => {
                taken.replenish = true;
                Fate::Taken
            }
            None => {
                tracing::warn!(
                    seq = entry.seq.get(),
                    "an inbox item of an unknown kind is ignored"
                );
                Fate::Taken
            }
        };
        match fate {
            Fate::Taken => cursor.seq = entry.seq,
            Fate::Deferred => {
                taken.rewind.push(LogRef::Inbox);
                break;
            }
        }
    }
    work.tx.put_inbox(cursor).await?;
    taken.ack = Some(Ack { log: LogRef::Inbox, cursor });
    Ok(taken)
}

/// Items expired before this device came for them. Invitations among them are lost; refusals among them come again, because what waits for
/// one is handed in once more.
async fn lost(work: &mut Work<'_>, gap: &Gap) -> Result<()> {
    tracing::warn!(first = gap.first.get(), last = gap.last.get(), "inbox items are gone");
    work.events.push(Event::Alarm(Alarm {
        kind: AlarmKind::Missed,
        room: None,
        device: Some(work.identity.device().clone()),
        sentence: "This device was away for so long that its node no longer keeps all that came for it. Invitations into rooms may be \
                   among that; ask to be invited again if a room is missing."
            .to_owned(),
    }));
    work.unstore(None).await
}

async fn refused(work: &mut Work<'_>, outcome: Outcome) -> Result<Fate> {
    let Outcome { submit_id, refusal, payload, .. } = outcome;
    let owner = command::owns(work.commands, &submit_id);
    if let Some(command) = owner.and_then(|position| work.commands.get(&position).cloned()) {
        let last = command.attempt.as_ref().map(|attempt| attempt.payload().digest());
        if last == Some(payload) {
            command::refused(work, command, refusal).await?;
        }
        return Ok(Fate::Taken);
    }
    let last = work.tx.ciphertext(&submit_id).await?;
    if last.is_some_and(|bytes| Payload::Application(bytes).digest() == payload) {
        sender::outcome(work, &submit_id, refusal).await?;
    }
    Ok(Fate::Taken)
}

async fn enter(work: &mut Work<'_>, welcome: Welcome, taken: &mut Taken) -> Result<Fate> {
    let known = work.tx.room(&welcome.room).await?;
    if let Some(row) = &known
        && let Some(early) = too_early(work, row, &welcome.cursor)
    {
        return Ok(early);
    }
    let stays = |row: &&RoomRow| matches!(row.status, RoomStatus::Active | RoomStatus::Held { .. });
    let overtaken = known.as_ref().filter(stays);
    let overtaken = overtaken.and_then(|row| row.place).map(|place| place.cursor);
    let overtaken = overtaken.filter(|c| c.incarnation == welcome.cursor.incarnation);
    let group = match open(work, &welcome).await? {
        Ok(group) => group,
        Err(why) => {
            work.events.push(Event::Alarm(unopened(&welcome.room, &why)));
            return Ok(Fate::Taken);
        }
    };
    let members = group.members().map_err(Error::crypto)?;
    for member in &members {
        if let Err(mut alarm) = trust::check(work, &member.certificate).await? {
            alarm.room = Some(welcome.room.clone());
            work.events.push(Event::Alarm(alarm));
        }
    }
    let suite = group.suite().code();
    let mut row = match known {
        Some(row) => row,
        None => work.tx.add_room(&welcome.room, None, suite, RoomStatus::Active).await?,
    };
    row.suite = suite;
    row.status = RoomStatus::Active;
    if let Some(place) = overtaken {
        // What the device was still owed of its earlier stay never came.
        work.tx.add_gap(row.no, place.seq.next(), welcome.cursor.seq, None).await?;
    }
    row.place = Some(LogPlace { cursor: welcome.cursor, chain: welcome.chain });
    work.tx.put_room(&row).await?;
    work.drop_group(row.no).await?;
    work.put_group(row.no, group);
    command::finish(work, row.no, |action| matches!(action, Action::Join(_))).await?;
    command::renew_later(work, &row).await?;
    let members: Vec<DeviceId> = members.iter().map(|m| m.certificate.device().clone()).collect();
    command::bring_siblings(work, &row, &members, SPREAD).await?;
    work.events.push(Event::RoomJoined { room: row.room });
    work.reconsider();
    // One KeyPackage less, and perhaps a device of the same person that was left out.
    taken.replenish = true;
    // Entries that were pushed before this were not taken in.
    taken.rewind.push(LogRef::Room(welcome.room));
    Ok(Fate::Taken)
}

/// Whether the room is not ready for this Welcome.
fn too_early(work: &mut Work<'_>, row: &RoomRow, welcome: &Cursor) -> Option<Fate> {
    let place = row.place.filter(|p| p.cursor.incarnation == welcome.incarnation)?;
    match row.status {
        // The same Welcome again.
        RoomStatus::Active | RoomStatus::Held { .. } if place.cursor.seq >= welcome.seq => {
            Some(Fate::Taken)
        }
        // This device was removed and added again: what it was still owed comes first, if it comes. Other rooms' items wait meanwhile,
        // so not for long: entries may have expired, or a hub may hold them back, or nothing but the new leaf heals what is held.
        RoomStatus::Active | RoomStatus::Held { .. } => {
            let given_up = work.stands_still(&row.room, place.cursor.seq);
            (!given_up).then_some(Fate::Deferred)
        }
        RoomStatus::Creating | RoomStatus::Joining | RoomStatus::Left => None,
    }
}

/// Opens a Welcome with the KeyPackage it is for. The inner error says why it cannot be.
async fn open(
    work: &mut Work<'_>,
    welcome: &Welcome,
) -> Result<std::result::Result<Group, String>> {
    let references = match Group::welcome_for(&welcome.welcome) {
        Ok(references) => references,
        Err(e) => return Ok(Err(e.to_string())),
    };
    for reference in references {
        let Some((rows, what)) = work.tx.key_package(&reference).await? else { continue };
        let identity = work.identity.clone();
        let joined = Group::join(&welcome.room, &welcome.welcome, &welcome.tree, &rows, identity);
        return match joined {
            Ok(group) => {
                if what == Use::Once {
                    work.tx.drop_key_package(&reference).await?;
                }
                Ok(Ok(group))
            }
            Err(e) => Ok(Err(e.to_string())),
        };
    }
    Ok(Err("the keys it was made for are gone".to_owned()))
}

fn unopened(room: &RoomId, why: &str) -> Alarm {
    Alarm {
        kind: AlarmKind::Undecryptable,
        room: Some(room.clone()),
        device: None,
        sentence: format!(
            "An invitation into the room {room} cannot be opened ({why}). Ask to be removed and invited again."
        ),
    }
}
