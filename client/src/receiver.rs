//! Entries on their way in: each is checked against the log's chain, opened, and taken in together with everything it
//! changes (T4: MLS state, timeline and cursor in one transaction). Only then is it acknowledged.
//!
//! | entry | taken in as | when it cannot be opened |
//! |---|---|---|
//! | application | a message; or the echo of our own | noted as a gap, with an alarm |
//! | proposal | a pending wish | held, unless it is forged |
//! | commit | the next epoch | held: not acknowledged, not dropped, tried again |
//! | Welcome for others | only its digest, for the chain | |

mod content;
mod handshake;
mod inbox;

use crypto::Group;
use protocol::api::{Ack, Body, Entries, Entry, Gap, LogRef};
use protocol::log::{Chain, Digest, EntryKind};
use protocol::{Cursor, RoomId, Seq};

use crate::core::Work;
use crate::event::{Alarm, AlarmKind, Event};
use crate::store::{Action, LogPlace, RoomRow};
use crate::{Error, Result, RoomStatus, command, recover};

/// What to do once the work is durable.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Acknowledge this.
    pub(crate) ack: Option<Ack>,
    /// Ask for these again from their cursors on.
    pub(crate) rewind: Vec<LogRef>,
    /// Few KeyPackages are left.
    pub(crate) replenish: bool,
    /// Whatever was handed over must be handed over again.
    pub(crate) again: bool,
}

/// Takes entries in, as far as they can be.
///
/// # Errors
/// Ours only: the disk's, or a bug. Nothing was taken in then.
pub(crate) async fn apply(work: &mut Work<'_>, entries: Entries) -> Result<Taken> {
    let pushed = pushed(&entries);
    let taken = match entries.log.clone() {
        LogRef::Inbox => inbox::apply(work, entries).await?,
        LogRef::Room(room) => apply_room(work, room, entries).await?,
    };
    // This device may be further than what came now: it heard from elsewhere, or its acknowledgement got lost. The node takes
    // acknowledgements of what it pushed only, so the rest waits for its turn.
    let ack = taken.ack.zip(pushed).map(|(ack, last)| {
        let seq = ack.cursor.seq.min(last);
        Ack { cursor: Cursor { seq, ..ack.cursor }, ..ack }
    });
    Ok(Taken { ack, ..taken })
}

/// The last entry that a batch accounts for.
fn pushed(entries: &Entries) -> Option<Seq> {
    let last = entries.entries.last().map(|e| e.seq);
    last.max(entries.gap.as_ref().map(|gap| gap.last))
}

/// Entries of a log cannot be taken in because of a fault of our own: the room is held, with the reason.
///
/// # Errors
/// The fault itself, when it concerns no single room; or the disk's.
pub(crate) async fn broken(work: &mut Work<'_>, log: &LogRef, fault: Error) -> Result<()> {
    let LogRef::Room(room) = log else { return Err(fault) };
    let mut row = work.room(room).await?;
    let seq = row.place.map(|p| p.cursor.seq).unwrap_or_default().next();
    let sentence =
        format!("The room {room} is held at one entry by a fault of this program: {fault}.");
    let alarm = Alarm { kind: AlarmKind::Held, room: Some(room.clone()), device: None, sentence };
    hold(work, &mut row, seq, alarm);
    work.tx.put_room(&row).await
}

/// A room while its entries are taken in.
struct Walk {
    row: RoomRow,
    group: Group,
    /// The last entry taken in.
    place: LogPlace,
    /// Entries of another life may follow that were taken in already.
    known: bool,
}

/// What became of one entry.
enum Fate {
    /// It is taken in.
    Taken,
    /// It is taken in, and it put this device out of the room.
    Out,
    /// It stays where it is, for this reason.
    Held(Alarm),
    /// It leads on from a state that this device is not in: the room has to be entered anew.
    Astray(Alarm),
}

async fn apply_room(work: &mut Work<'_>, room: RoomId, entries: Entries) -> Result<Taken> {
    // A room this device knows nothing of: its Welcome comes first, and asks for the room again.
    let Some(mut row) = work.tx.room(&room).await? else { return Ok(Taken::default()) };
    let entered = match row.status {
        RoomStatus::Left => false,
        RoomStatus::Joining => !work.tx.group_rows(row.no).await?.is_empty(),
        RoomStatus::Creating | RoomStatus::Active | RoomStatus::Held { .. } => true,
    };
    if !entered {
        // The acknowledgement of the last entry that was for this device may have got lost.
        let place = row.place.filter(|p| p.cursor.incarnation == entries.incarnation);
        let left = place.filter(|_| row.status == RoomStatus::Left);
        let ack = left.map(|p| Ack { log: LogRef::Room(room), cursor: p.cursor });
        return Ok(Taken { ack, ..Taken::default() });
    }
    let place = match start(work, &mut row, &entries).await? {
        Start::At(place) => place,
        Start::Again => {
            return Ok(Taken { rewind: vec![LogRef::Room(room)], ..Taken::default() });
        }
        Start::Wait => return Ok(Taken::default()),
        Start::Held(seq, alarm) => {
            hold(work, &mut row, seq, alarm);
            work.tx.put_room(&row).await?;
            return Ok(Taken::default());
        }
    };
    let group = work.take_group(row.no).await?;
    let known = work.tx.chain_at(row.no, place.cursor.seq.next()).await?.is_some();
    let taken = walk(work, Walk { row, group, place, known }, entries).await?;
    work.reconsider();
    Ok(taken)
}

async fn walk(work: &mut Work<'_>, mut walk: Walk, entries: Entries) -> Result<Taken> {
    let room = walk.row.room.clone();
    let mut taken = Taken::default();
    let mut healthy = true;
    let (mut out, mut astray) = (false, false);
    for entry in entries.entries {
        if entry.seq <= walk.place.cursor.seq {
            continue;
        }
        let (digest, body) = digests(&entry);
        let next = LogPlace {
            cursor: Cursor { seq: entry.seq, ..walk.place.cursor },
            chain: walk.place.chain.next(entry.seq, &digest),
        };
        if !passed(work, &mut walk, &next).await? {
            match take(work, &mut walk, &entry, &next).await? {
                Fate::Taken => {}
                Fate::Out => out = true,
                Fate::Astray(_) if work.may_recover(&room) => {
                    astray = true;
                    break;
                }
                Fate::Held(alarm) | Fate::Astray(alarm) => {
                    hold(work, &mut walk.row, entry.seq, alarm);
                    healthy = false;
                    break;
                }
            }
        }
        work.tx.add_place(walk.row.no, &next, &body).await?;
        walk.place = next;
        if out {
            break;
        }
    }
    walk.row.place = Some(walk.place);
    if healthy && matches!(walk.row.status, RoomStatus::Held { .. }) {
        walk.row.status = RoomStatus::Active;
    }
    if out {
        // The group's rows go; what is written here are place and status.
        command::left(work, walk.row).await?;
        taken.rewind.push(LogRef::Inbox);
    } else {
        work.tx.put_room(&walk.row).await?;
        work.put_group(walk.row.no, walk.group);
        if astray {
            recover::again(work, walk.row, AlarmKind::OutOfStep).await?;
        }
    }
    taken.ack = Some(Ack { log: LogRef::Room(room), cursor: walk.place.cursor });
    Ok(taken)
}

/// Whether an entry was taken in already, in an earlier life of the hub.
async fn passed(work: &mut Work<'_>, walk: &mut Walk, next: &LogPlace) -> Result<bool> {
    if !walk.known {
        return Ok(false);
    }
    let (no, seq) = (walk.row.no, next.cursor.seq);
    if work.tx.chain_at(no, seq).await? == Some(next.chain) {
        return Ok(true);
    }
    // From here on the lives differ.
    walk.known = false;
    work.tx.drop_places(no, seq).await?;
    Ok(false)
}

async fn take(
    work: &mut Work<'_>,
    walk: &mut Walk,
    entry: &Entry,
    next: &LogPlace,
) -> Result<Fate> {
    match (EntryKind::from_code(entry.kind), &entry.body) {
        (Some(EntryKind::Application), Body::Full(bytes)) => {
            content::take(work, walk, entry, bytes, next).await?;
            Ok(Fate::Taken)
        }
        (Some(EntryKind::Application), Body::Withheld(_)) => {
            content::lost(work, walk, entry.seq, "the node keeps it back").await?;
            Ok(Fate::Taken)
        }
        (Some(EntryKind::Proposal), Body::Full(bytes)) => {
            handshake::proposal(work, walk, entry, bytes).await
        }
        (Some(EntryKind::Commit), Body::Full(bytes)) => {
            handshake::commit(work, walk, entry, bytes).await
        }
        (Some(EntryKind::Welcome), _) => Ok(Fate::Taken),
        (Some(EntryKind::Proposal | EntryKind::Commit), Body::Withheld(_)) => {
            Ok(Fate::Held(alarm(walk, AlarmKind::Held, "the node keeps back a change to the room")))
        }
        (Some(EntryKind::Item) | None, _) => {
            let why = "there is an entry of an unknown kind; update this program";
            Ok(Fate::Held(alarm(walk, AlarmKind::Held, why)))
        }
    }
}

/// The digest of an entry, and of its body alone.
fn digests(entry: &Entry) -> (Digest, Digest) {
    match (&entry.body, EntryKind::from_code(entry.kind)) {
        (Body::Full(bytes), Some(kind)) => {
            (Digest::of_entry(kind, entry.at, bytes), Digest::of_bytes(bytes))
        }
        // An unknown kind is held, so its digest is never used.
        (Body::Full(bytes), None) => (Digest::of_bytes(bytes), Digest::of_bytes(bytes)),
        (Body::Withheld(digest), _) => (*digest, *digest),
    }
}

/// Where to begin in a batch.
enum Start {
    /// After this place.
    At(LogPlace),
    /// Entries before the batch are missing: ask again.
    Again,
    /// Nowhere: the room is held at an earlier entry, which is asked for again now and then.
    Wait,
    /// Nowhere: the batch does not fit to what was there before.
    Held(Seq, Alarm),
}

async fn start(work: &mut Work<'_>, row: &mut RoomRow, entries: &Entries) -> Result<Start> {
    let cursor = |seq: Seq| Cursor { incarnation: entries.incarnation, seq };
    let Some(first) = entries.entries.first().map(|e| e.seq) else {
        return empty(work, row, entries).await;
    };
    let prev = entries.prev_chain;
    let before = LogPlace {
        cursor: cursor(first.prev()),
        chain: prev.unwrap_or_else(|| Chain::start(&entries.incarnation, &row.room)),
    };
    let Some(known) = row.place else {
        if row.status == RoomStatus::Creating {
            created(work, row, entries).await?;
            let start = Chain::start(&entries.incarnation, &row.room);
            return Ok(Start::At(LogPlace { cursor: cursor(Seq::new(0)), chain: start }));
        }
        return Ok(Start::At(before));
    };
    let next = known.cursor.seq.next();
    let gap = entries.gap.as_ref().filter(|gap| gap.last >= next);
    if let Some(gap) = gap {
        gone(work, row, gap).await?;
    } else if first > next && row.status == RoomStatus::Joining {
        // It comes in anew, and what lies in between is not for the new leaf.
        work.tx.add_gap(row.no, next, first.prev(), None).await?;
    } else if first > next {
        return Ok(skipped(work, row, known.cursor.seq));
    }
    if known.cursor.incarnation != entries.incarnation {
        return restored(work, row, before).await;
    }
    if gap.is_some() || first > next {
        return Ok(Start::At(before));
    }
    // Entries that are known already are counted through once more, so that the chains meet.
    let mut chain = before.chain;
    for entry in entries.entries.iter().take_while(|e| e.seq <= known.cursor.seq) {
        chain = chain.next(entry.seq, &digests(entry).0);
    }
    let ends_before = entries.entries.last().is_some_and(|e| e.seq < known.cursor.seq);
    if ends_before || chain == known.chain {
        return Ok(Start::At(known));
    }
    let alarm = Alarm {
        kind: AlarmKind::Chain,
        room: Some(row.room.clone()),
        device: None,
        sentence: format!(
            "The history of the room {} does not fit to what its hub showed before. Nothing after that is taken in. \
             Ask the other members and the hub's operator what happened.",
            row.room
        ),
    };
    Ok(Start::Held(known.cursor.seq.next(), alarm))
}

/// Entries between what is known and what came are missing.
fn skipped(work: &mut Work<'_>, row: &RoomRow, known: Seq) -> Start {
    if matches!(row.status, RoomStatus::Held { .. }) {
        return Start::Wait;
    }
    if !work.stands_still(&row.room, known) {
        return Start::Again;
    }
    let sentence = format!(
        "The room {} is held: the node leaves out entries. Nothing after that is taken in. If that stays so, join the room again.",
        row.room
    );
    let room = Some(row.room.clone());
    Start::Held(known.next(), Alarm { kind: AlarmKind::Held, room, device: None, sentence })
}

/// The node has entries no more that are for this device.
async fn gone(work: &mut Work<'_>, row: &RoomRow, gap: &Gap) -> Result<()> {
    work.tx.add_gap(row.no, gap.first, gap.last, Some(gap.reason)).await?;
    work.events.push(Event::gap(row.room.clone(), gap));
    Ok(())
}

/// All that was left to get is gone.
async fn empty(work: &mut Work<'_>, row: &RoomRow, entries: &Entries) -> Result<Start> {
    let (Some(known), Some(gap)) = (row.place, &entries.gap) else { return Ok(Start::Again) };
    if gap.last <= known.cursor.seq {
        return Ok(Start::Again);
    }
    gone(work, row, gap).await?;
    let chain = entries.prev_chain.unwrap_or(known.chain);
    let cursor = Cursor { incarnation: entries.incarnation, seq: gap.last };
    let place = LogPlace { cursor, chain };
    if known.cursor.incarnation == entries.incarnation {
        return Ok(Start::At(place));
    }
    restored(work, row, place).await
}

/// The node knows a room that was made here; its answer may have got lost.
async fn created(work: &mut Work<'_>, row: &mut RoomRow, entries: &Entries) -> Result<()> {
    row.status = RoomStatus::Active;
    work.events.push(Event::RoomJoined { room: row.room.clone() });
    tracing::debug!(head = entries.head.get(), "the node showed a room before it answered");
    command::finish(work, row.no, |action| matches!(action, Action::Create(..))).await?;
    command::founded(work, row).await
}

/// The hub lives another life: it goes on from an earlier place, and what it lost is lost there, not here. What it still has is known by
/// the chain, which goes on through its lives.
async fn restored(work: &mut Work<'_>, row: &RoomRow, before: LogPlace) -> Result<Start> {
    // Our node may have handed over what the hub then lost; whatever it still has, it knows again.
    work.unstore(Some(&row.room)).await?;
    work.events.push(Event::Alarm(Alarm {
        kind: AlarmKind::Restored,
        room: Some(row.room.clone()),
        device: None,
        sentence: format!(
            "The hub of the room {} was restored from a backup. What it lost since then is kept on the devices that had it.",
            row.room
        ),
    }));
    Ok(Start::At(before))
}

/// Notes that a room is held, and says so once.
fn hold(work: &mut Work<'_>, row: &mut RoomRow, seq: Seq, alarm: Alarm) {
    let status = RoomStatus::Held { seq, reason: alarm.sentence.clone() };
    if row.status != status {
        row.status = status;
        work.events.push(Event::Alarm(alarm));
    }
}

fn alarm(walk: &Walk, kind: AlarmKind, why: &str) -> Alarm {
    let sentence = format!(
        "The room {} is held at one entry: {why}. Nothing is lost; it is tried again by itself.",
        walk.row.room
    );
    Alarm { kind, room: Some(walk.row.room.clone()), device: None, sentence }
}
