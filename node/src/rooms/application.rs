//! An application message gets its place. The hot path: no MLS state is loaded, only the framing is read.

use std::sync::Arc;

use delivery::room::{Admission, Event, Known, RoomHead, What, admit};
use protocol::mls::{ContentType, Frame, WireFormat};
use protocol::{Code, DeviceId, Epoch, Refusal, RoomId, UserId, limit};

use super::Origin;
use crate::app::App;
use crate::error::Outcome;
use crate::store::logs::{self, Entry, Log, LogName};
use crate::store::rooms;
use crate::store::submissions::State;
use crate::store::{Tx, Wake, members};

/// An application message whose framing was checked, and who must be in the room for it.
pub(crate) struct Application {
    room: RoomId,
    epoch: Epoch,
    message: Vec<u8>,
    sender: Sender,
}

enum Sender {
    /// The very device that handed it in.
    Device(DeviceId),
    /// A person of a peer; which of their devices is encrypted.
    User(UserId),
}

impl Application {
    /// From a device of ours.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`, `NotFound` when it is for another group than the room's.
    pub(crate) fn of_device(
        room: &RoomId,
        message: Vec<u8>,
        device: &DeviceId,
    ) -> Result<Self, Refusal> {
        Self::checked(room, message, Sender::Device(device.clone()))
    }

    /// From a person of a peer.
    ///
    /// # Errors
    /// As [`Self::of_device`].
    pub(crate) fn of_peer(room: &RoomId, message: Vec<u8>, user: UserId) -> Result<Self, Refusal> {
        Self::checked(room, message, Sender::User(user))
    }

    fn checked(room: &RoomId, message: Vec<u8>, sender: Sender) -> Result<Self, Refusal> {
        let epoch = framed(room, &message)?;
        Ok(Self { room: room.clone(), epoch, message, sender })
    }
}

/// The epoch of an application message for `room`.
pub(super) fn framed(room: &RoomId, message: &[u8]) -> Result<Epoch, Refusal> {
    let because = |detail: String| Refusal::because(Code::Malformed, detail);
    if message.len() > limit::MESSAGE_BYTES {
        return Err(Refusal::because(Code::TooLarge, "A message has at most 256 KiB."));
    }
    let frame = Frame::read_exact(message).map_err(|e| because(e.to_string()))?;
    if frame.wire_format != WireFormat::Private || frame.content_type != ContentType::Application {
        return Err(because("It is not an encrypted application message.".to_owned()));
    }
    if frame.group_id != room.group().as_str().as_bytes() {
        return Err(because("It is for another group than the room's.".to_owned()));
    }
    Ok(frame.epoch)
}

/// Gives the message its place, once. Everything is one transaction, shared with others that arrive now.
pub(super) async fn submit(app: &Arc<App>, origin: Origin, message: Application) -> Outcome<Known> {
    let shared = app.clone();
    app.store.write(move |tx| Box::pin(place(tx, shared, origin, message))).await
}

async fn place(tx: &mut Tx, app: Arc<App>, origin: Origin, message: Application) -> Outcome<Known> {
    let log = logs::lock(tx, &LogName::Room(message.room.clone())).await?.ok_or(Code::NotFound)?;
    let prior = origin.prior(tx).await?;
    if prior.is_none() {
        let inside = match &message.sender {
            Sender::Device(device) => members::find(tx, log.id, device).await?.is_some(),
            Sender::User(user) => !members::of_user(tx, log.id, user).await?.is_empty(),
        };
        // The same answer as for a room that is not there.
        if !inside {
            return Err(Code::NotFound.into());
        }
    }
    let head = head(tx, &log).await?;
    let now = app.now();
    let what = What::Application(&message.message);
    let event = Event { digest: origin.digest, epoch: message.epoch, what };
    let admitted = match admit(&head, prior.as_ref(), &event, now)? {
        Admission::Again(known) => return Ok(known),
        Admission::New(admitted) => admitted,
    };
    let accepted = admitted.accepted();
    logs::append(tx, log.id, &[Entry::new(&admitted.entry, message.message, None)]).await?;
    origin.record(tx, State::Accepted(accepted), now).await?;
    tx.wake(Wake::Log(log.id));
    Ok(Known::Accepted(accepted))
}

/// The room as the rule of admission sees it.
pub(super) async fn head(tx: &mut Tx, log: &Log) -> Outcome<RoomHead> {
    let room = log.name.room().ok_or(Code::NotFound)?;
    let room = rooms::find(tx, room).await?.ok_or(Code::NotFound)?;
    Ok(RoomHead {
        incarnation: log.incarnation,
        head: log.head,
        chain: log.chain,
        last_at: log.last_at,
        epoch: room.epoch,
    })
}
