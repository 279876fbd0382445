//! Application entries: messages of others, echoes of our own.

use crypto::group::{Message, Received, Why};
use delivery::sender::Seen;
use protocol::api::{Accepted, Entry};
use protocol::content::{self, ApplicationFraming, Header, MimiContent};
use protocol::log::Digest;
use protocol::{DeviceId, Seq};

use super::Walk;
use crate::core::Work;
use crate::event::{Alarm, AlarmKind, Event};
use crate::store::{Inserted, LogPlace, NewMessage};
use crate::{Error, Flag, Result, sender, timeline};

/// Counters above this are nobody's: the store could not tell them from "no place yet".
const COUNTER_MAX: u64 = u64::MAX >> 2;

/// Takes an application entry in.
///
/// # Errors
/// Ours only.
pub(super) async fn take(
    work: &mut Work<'_>,
    walk: &mut Walk,
    entry: &Entry,
    bytes: &[u8],
    next: &LogPlace,
) -> Result<()> {
    let body = Digest::of_bytes(bytes);
    if let Some(submission) = work.tx.submission_of(walk.row.no, &body).await? {
        let accepted = Accepted { place: next.cursor, at: entry.at, chain: next.chain };
        return sender::shown(work, &submission, accepted).await;
    }
    if work.tx.body_known(walk.row.no, &body).await? {
        tracing::info!(seq = entry.seq.get(), "an entry was repeated by the hub and is ignored");
        return Ok(());
    }
    match walk.group.receive(bytes).map_err(Error::crypto)? {
        Received::Application(message) => open(work, walk, entry, message).await,
        Received::Own | Received::Unreadable(Why::Duplicate) => Ok(()),
        Received::Unreadable(why) => lost(work, walk, entry.seq, &sentence(&why)).await,
        Received::Proposal(_) | Received::Commit(_) | Received::OwnCommit { .. } => {
            lost(work, walk, entry.seq, "it is not a message").await
        }
    }
}

fn sentence(why: &Why) -> String {
    match why {
        Why::WaitForClock => "a clock is wrong".to_owned(),
        Why::Duplicate => "it was opened before".to_owned(),
        Why::TooOld => {
            "its keys are gone: it came too late, or from before this device joined".to_owned()
        }
        Why::OutOfStep => "this device is not where the room is".to_owned(),
        Why::Forged(how) => format!("it does not verify ({how})"),
    }
}

async fn open(work: &mut Work<'_>, walk: &mut Walk, entry: &Entry, message: Message) -> Result<()> {
    let Ok(framing) = ApplicationFraming::decode(&message.content) else {
        return lost(work, walk, entry.seq, "it is damaged, or of an unsupported version").await;
    };
    if framing.media_type.name != content::MIMI_CONTENT {
        // Reports of what was delivered or read, and whatever newer programs send: not for the timeline.
        return Ok(());
    }
    let Ok(decoded) = MimiContent::decode(&framing.content) else {
        return lost(work, walk, entry.seq, "it is damaged, or of an unsupported version").await;
    };
    let Some(header) = decoded.header.filter(|h| h.counter <= COUNTER_MAX) else {
        return lost(work, walk, entry.seq, "it does not say which of its sender's messages it is")
            .await;
    };
    let room = walk.row.room.clone();
    let message_id = content::message_id(&message.from.user(), &room, &framing.content)
        .map_err(|e| Error::Crypto(e.to_string()))?;
    let seen = compare(work, walk, entry.seq, &header, &message.from).await?;
    let new = NewMessage {
        device: message.from,
        counter: header.counter,
        prev: header.prev,
        message_id,
        seq: entry.seq,
        at: Some(entry.at),
        written: header.local,
        seen,
        submit_id: None,
        content: framing.content,
    };
    if work.tx.add_message(walk.row.no, &new).await? == Inserted::Known {
        return Ok(());
    }
    let Some(row) = work.tx.message(walk.row.no, &message_id).await? else {
        return Err(Error::Corrupt { table: "message" });
    };
    let message = timeline::shown(row);
    if message.flags.contains(&Flag::Fork) {
        work.events.push(Event::Alarm(fork(walk, &message.device)));
    }
    work.events.push(Event::Message { room, message });
    Ok(())
}

/// Compares the place that the sender saw last with our own history.
async fn compare(
    work: &mut Work<'_>,
    walk: &mut Walk,
    at: Seq,
    header: &Header,
    from: &DeviceId,
) -> Result<Seen> {
    let Some(seen) = &header.seen else { return Ok(Seen::Unknown) };
    if seen.cursor.incarnation != walk.place.cursor.incarnation {
        return Ok(Seen::Unknown);
    }
    if seen.cursor.seq >= at {
        let sentence = format!(
            "{from} claims to have seen more of the room {} than there was when it \
             wrote. Its program is broken, or somebody tampers with it.",
            walk.row.room
        );
        work.events.push(Event::Alarm(Alarm {
            kind: AlarmKind::Header,
            room: Some(walk.row.room.clone()),
            device: Some(from.clone()),
            sentence,
        }));
        return Ok(Seen::Unknown);
    }
    let ours = work.tx.chain_at(walk.row.no, seen.cursor.seq).await?;
    Ok(Seen::compare(&seen.chain, ours.as_ref()))
}

fn fork(walk: &Walk, from: &DeviceId) -> Alarm {
    Alarm {
        kind: AlarmKind::Fork,
        room: Some(walk.row.room.clone()),
        device: Some(from.clone()),
        sentence: format!(
            "The hub of the room {} showed {} another history than this device. Somebody sees messages that others \
             do not. Talk to the people in the room over another channel, and to the hub's operator.",
            walk.row.room,
            from.user().handle()
        ),
    }
}

/// Notes that an entry should have shown something and cannot.
///
/// # Errors
/// The disk's.
pub(super) async fn lost(work: &mut Work<'_>, walk: &mut Walk, seq: Seq, why: &str) -> Result<()> {
    work.tx.add_gap(walk.row.no, seq, seq, None).await?;
    work.events.push(Event::Alarm(Alarm {
        kind: AlarmKind::Undecryptable,
        room: Some(walk.row.room.clone()),
        device: None,
        sentence: format!(
            "A message in the room {} cannot be shown on this device: {why}. Ask its sender to send it again.",
            walk.row.room
        ),
    }));
    Ok(())
}
