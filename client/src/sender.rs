//! Messages on their way out. `delivery::outbox` says what comes next; this encrypts, writes down, and hands over.
//!
//! Content, counter, SubmitId and echo are durable before anything else happens (T1); ciphertext and MLS state are
//! durable before the first byte leaves; a retry sends the same bytes.

use std::time::Duration;

use delivery::outbox::{Item, State as Fate, Step};
use protocol::api::{Payload, Submit, SubmitReply};
use protocol::content::{self, ApplicationFraming, Header, MimiContent, Seen};
use protocol::log::Digest;
use protocol::mls::Frame;
use protocol::{Code, Refusal, RoomId, SubmitId, Timestamp};

use crate::core::Work;
use crate::room::{Failure, Stage, State};
use crate::store::{Action, Echo, NewMessage, PENDING, SubmissionRow};
use crate::{Error, Event, Result, RoomStatus, command, recover};

/// The longest text of one message.
const TEXT_BYTES: usize = 64 * 1024;
/// How long a message waits that cannot be encrypted yet, unless something happens before.
const POSTPONE: Duration = Duration::from_secs(2);
/// How long a message waits for others to commit a pending leave before this device sees to it once more.
const SETTLE_AGAIN: Duration = Duration::from_mins(1);

/// Writes a message down. When the work is committed, it is sent as soon as it can be.
///
/// # Errors
/// [`Error::UnknownRoom`], [`Error::Invalid`], or the disk's.
pub(crate) async fn write(work: &mut Work<'_>, room: &RoomId, text: &str) -> Result<SubmitId> {
    if text.len() > TEXT_BYTES {
        return Err(Error::Invalid("a message has at most 64 KiB"));
    }
    let mut row = work.room(room).await?;
    if row.status == RoomStatus::Left {
        return Err(Error::UnknownRoom(room.clone()));
    }
    let header = Header {
        counter: row.counter + 1,
        prev: row.prev,
        local: work.calibration.calibrated(work.now()).at,
        seen: row.place.map(|p| Seen { cursor: p.cursor, chain: p.chain }),
    };
    let (counter, prev, written) = (header.counter, header.prev, header.local);
    let salt = work.world.entropy.bytes16();
    let message = MimiContent { header: Some(header), ..MimiContent::text(salt, text) };
    let bytes = message.encode().map_err(|_| Error::Invalid("this cannot be sent as a message"))?;
    let message_id = content::message_id(&work.user(), room, &bytes)
        .map_err(|e| Error::Crypto(e.to_string()))?;
    row.counter = counter;
    row.prev = Some(*Digest::of_bytes(&bytes).as_bytes());
    work.tx.put_room(&row).await?;
    let submit_id = command::mint(work.world);
    let position = work.tx.next_position().await?;
    let item = Item {
        id: submit_id,
        room: room.clone(),
        order: position,
        state: Fate::Queued,
        encrypted: false,
        attempts: 0,
        next_at: Timestamp::default(),
    };
    work.tx.add_submission(row.no, &SubmissionRow { item, message_id }).await?;
    let new = NewMessage {
        device: work.identity.device().clone(),
        counter,
        prev,
        message_id,
        seq: PENDING,
        at: None,
        written,
        seen: delivery::sender::Seen::Same,
        submit_id: Some(submit_id),
        content: bytes,
    };
    work.tx.add_message(row.no, &new).await?;
    work.outbox.push(submit_id, room.clone(), position);
    work.nudge = true;
    Ok(submit_id)
}

/// What the stream has to do.
pub(crate) enum Out {
    /// Hand this over.
    Submit(Submit),
    /// Nothing before this time.
    WaitUntil(Timestamp),
    /// Nothing until something happens.
    Idle,
}

/// Takes the next step of the outbox, as far as it concerns the disk.
///
/// # Errors
/// The disk's, or a bug.
pub(crate) async fn step(work: &mut Work<'_>) -> Result<Out> {
    loop {
        match work.outbox.next(work.now()) {
            Step::Encrypt(id) => {
                if let Some(submit) = encrypt(work, id).await? {
                    return Ok(Out::Submit(submit));
                }
            }
            Step::Submit(id) => return again(work, id).await.map(Out::Submit),
            Step::WaitUntil(at) => return Ok(Out::WaitUntil(at)),
            Step::Idle => return Ok(Out::Idle),
        }
    }
}

/// The same bytes as before. That they are on their way needs no row: after a crash they are sent again anyway.
async fn again(work: &mut Work<'_>, id: SubmitId) -> Result<Submit> {
    let ciphertext = work.tx.ciphertext(&id).await?;
    let ciphertext = ciphertext.ok_or(Error::Corrupt { table: "submission" })?;
    let Some(item) = work.outbox.sending(&id).cloned() else {
        return Err(Error::Corrupt { table: "submission" });
    };
    tell(work, &item);
    Ok(Submit { submit_id: id, room: item.room, payload: Payload::Application(ciphertext) })
}

/// Encrypts a message and writes down what leaves; nothing when that cannot be now.
async fn encrypt(work: &mut Work<'_>, id: SubmitId) -> Result<Option<Submit>> {
    let Some(submission) = work.tx.submission(&id).await? else {
        return Err(Error::Corrupt { table: "submission" });
    };
    let room = submission.item.room;
    let row = work.room(&room).await?;
    let ready = matches!(row.status, RoomStatus::Active | RoomStatus::Held { .. });
    let order = submission.item.order;
    if !ready || command::holds_up(work.commands, &room, order, work.now()) {
        postpone(work, id);
        return Ok(None);
    }
    let Some(message) = work.tx.message(row.no, &submission.message_id).await? else {
        return Err(Error::Corrupt { table: "message" });
    };
    let framed = ApplicationFraming::new(content::MIMI_CONTENT, message.content).encode();
    let mut group = work.take_group(row.no).await?;
    if work.behind.get(&room).is_some_and(|epoch| group.epoch() < *epoch) {
        // It would only be refused again; the log brings the epoch.
        work.put_group(row.no, group);
        postpone(work, id);
        return Ok(None);
    }
    work.behind.remove(&room);
    let encrypted = group.encrypt(&framed, &*work.world.entropy);
    let turn = match &encrypted {
        Err(crypto::Error::Refused(_)) => command::leave_turn(work, &group, SETTLE_AGAIN)?,
        Ok(_) | Err(_) => None,
    };
    work.put_group(row.no, group);
    match encrypted {
        Ok(ciphertext) => {
            work.tx.put_ciphertext(&id, &ciphertext).await?;
            work.outbox.encrypted(&id);
            if let Some(item) = work.outbox.sending(&id).cloned() {
                save(work, &item).await?;
            }
            let payload = Payload::Application(ciphertext);
            return Ok(Some(Submit { submit_id: id, room, payload }));
        }
        // Somebody's wish to leave is pending and has to be committed first. Whoever was to do it may have been refused for good.
        Err(crypto::Error::Refused(_)) => {
            if let Some(at) = turn {
                command::want_once(work, &row, Action::Settle, at).await?;
            }
            postpone(work, id);
        }
        Err(e) => {
            tracing::error!(cause = %e, "a message could not be encrypted");
            let refusal = Refusal::because(Code::Internal, format!("It cannot be encrypted: {e}."));
            if let Some(item) = work.outbox.fail(&id, refusal).cloned() {
                save(work, &item).await?;
            }
        }
    }
    Ok(None)
}

fn postpone(work: &mut Work<'_>, id: SubmitId) {
    let until = work.now().after(POSTPONE);
    work.outbox.postpone(&id, until);
    work.postponed.insert(id);
}

/// The node answered to a message.
///
/// # Errors
/// The disk's.
pub(crate) async fn replied(work: &mut Work<'_>, id: &SubmitId, reply: SubmitReply) -> Result<()> {
    let (now, jitter) = (work.now(), work.world.entropy.jitter());
    if let SubmitReply::Refused(refusal) = &reply {
        note_epoch(work, id, refusal).await?;
    }
    if let Some(item) = work.outbox.replied(id, reply, now, jitter).cloned() {
        place(work, &item).await?;
        save(work, &item).await?;
    }
    Ok(())
}

/// A refusal says in which epoch the hub is.
async fn note_epoch(work: &mut Work<'_>, id: &SubmitId, refusal: &Refusal) -> Result<()> {
    let Some((epoch, item)) = refusal.epoch.zip(work.outbox.get(id)) else { return Ok(()) };
    let room = item.room.clone();
    let handed_in = work.tx.ciphertext(id).await?;
    let made_in = handed_in.and_then(|bytes| Frame::read_exact(&bytes).ok().map(|f| f.epoch));
    if made_in.is_some_and(|made_in| made_in > epoch) {
        recover::hub_is_behind(work, &room, epoch).await?;
    } else {
        work.behind.insert(room, epoch);
    }
    Ok(())
}

/// The hub refused what our node had kept for it.
///
/// # Errors
/// The disk's.
pub(crate) async fn outcome(work: &mut Work<'_>, id: &SubmitId, refusal: Refusal) -> Result<()> {
    let (now, jitter) = (work.now(), work.world.entropy.jitter());
    note_epoch(work, id, &refusal).await?;
    if let Some(item) = work.outbox.outcome(id, refusal, now, jitter).cloned() {
        save(work, &item).await?;
        // Unlike an answer, it comes with the entries of the inbox, after which nobody looks at the outbox.
        work.nudge = true;
    }
    Ok(())
}

/// The room's log shows a message of this device.
///
/// # Errors
/// The disk's.
pub(crate) async fn shown(
    work: &mut Work<'_>,
    submission: &SubmissionRow,
    accepted: protocol::api::Accepted,
) -> Result<()> {
    let id = submission.item.id;
    let item = match work.outbox.get(&id) {
        Some(_) => work.outbox.shown(&id, accepted).cloned(),
        // It ended before this program started, or was given up and came through nevertheless.
        None => match submission.item.state {
            Fate::Accepted(_) | Fate::Delivered(_) | Fate::Read(_) => None,
            _ => Some(Item { state: Fate::Accepted(accepted), ..submission.item.clone() }),
        },
    };
    if let Some(item) = item {
        place(work, &item).await?;
        save(work, &item).await?;
        // The next one of the room may go, even if the answer to this one was lost.
        work.nudge = true;
    }
    Ok(())
}

/// Tries a failed message again.
///
/// # Errors
/// [`Error::UnknownSubmission`], [`Error::Invalid`], or the disk's.
pub(crate) async fn retry(work: &mut Work<'_>, id: &SubmitId) -> Result<()> {
    let Some(submission) = work.tx.submission(id).await? else {
        return Err(Error::UnknownSubmission(*id));
    };
    let item = submission.item;
    if !matches!(item.state, Fate::Failed { .. }) {
        return Err(Error::Invalid("only a message that has failed can be tried again"));
    }
    let row = work.room(&item.room).await?;
    if row.status == RoomStatus::Left {
        return Err(Error::UnknownRoom(item.room));
    }
    work.outbox.remove(id);
    if let Some(item) = work.outbox.push(*id, item.room, item.order).cloned() {
        save(work, &item).await?;
    }
    work.nudge = true;
    Ok(())
}

/// Gives up what is still waiting to go into a room.
///
/// # Errors
/// The disk's.
pub(crate) async fn give_up(work: &mut Work<'_>, room: &RoomId, why: &Refusal) -> Result<()> {
    for submission in work.tx.live_submissions().await? {
        if submission.item.room == *room
            && let Some(item) = work.outbox.fail(&submission.item.id, why.clone()).cloned()
        {
            save(work, &item).await?;
        }
    }
    Ok(())
}

/// Puts a message where the hub put it.
async fn place(work: &mut Work<'_>, item: &Item) -> Result<()> {
    let Fate::Accepted(accepted) = &item.state else { return Ok(()) };
    let row = work.room(&item.room).await?;
    if let Some(submission) = work.tx.submission(&item.id).await? {
        let echo = Echo { seq: accepted.place.seq, at: accepted.at };
        work.tx.place_message(row.no, &submission.message_id, echo).await?;
    }
    Ok(())
}

async fn save(work: &mut Work<'_>, item: &Item) -> Result<()> {
    work.tx.put_item(item).await?;
    tell(work, item);
    match item.state {
        Fate::Accepted(_) | Fate::Delivered(_) | Fate::Read(_) | Fate::Failed { .. } => {
            // The rows have it; the machine only needs what is still on its way.
            work.outbox.remove(&item.id);
        }
        Fate::Queued | Fate::Sending | Fate::Stored => {}
    }
    Ok(())
}

fn tell(work: &mut Work<'_>, item: &Item) {
    work.events.push(Event::StateChanged {
        submit_id: item.id,
        room: item.room.clone(),
        state: state(item),
    });
}

/// How far a message is, for a person.
pub(crate) fn state(item: &Item) -> State {
    let (stage, accepted, failed) = match &item.state {
        Fate::Queued if item.encrypted && item.attempts > 0 => (Stage::Sending, None, None),
        Fate::Queued => (Stage::Queued, None, None),
        Fate::Sending => (Stage::Sending, None, None),
        Fate::Stored => (Stage::Stored, None, None),
        Fate::Accepted(a) | Fate::Delivered(a) | Fate::Read(a) => (Stage::Accepted, Some(a), None),
        Fate::Failed { refusal, .. } => (Stage::Queued, None, Some(Failure::from(refusal))),
    };
    State {
        stage,
        seq: accepted.map(|a| a.place.seq),
        at: accepted.map(|a| a.at),
        failed,
        waiting: None,
    }
}
