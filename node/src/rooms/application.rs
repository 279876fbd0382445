//! An application message gets its place. The hot path: no MLS state is loaded, only the framing is read.

use std::sync::Arc;

use delivery::room::{Admission, Event, Known, RoomHead, What, admit};
use protocol::mls::{ContentType, Frame, WireFormat};
use protocol::{Code, DeviceId, Epoch, Refusal, RoomId, UserId, limit};

use super::Origin;
use crate::app::App;
use crate::error::Outcome;
use crate::store::Decision;
use crate::store::logs::{Entry, Log};
use crate::store::rooms::Room;
use crate::store::submissions::Scene;

/// An application message whose framing was checked, and who must be in the room for it.
pub(crate) struct Application {
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
        Ok(Self { epoch, message, sender })
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

/// Gives the message its place, once. It shares a transaction, and the statements of it, with others that arrive now.
pub(super) async fn submit(app: &Arc<App>, origin: Origin, message: Application) -> Outcome<Known> {
    let (shared, key) = (app.clone(), origin.key.clone());
    let sender = match &message.sender {
        Sender::Device(device) => device.to_string(),
        Sender::User(user) => user.to_string(),
    };
    app.store.place(key, sender, move |scene| decide(&shared, scene, &origin, message)).await
}

fn decide(
    app: &App,
    scene: Option<&Scene>,
    origin: &Origin,
    message: Application,
) -> Outcome<Decision<Known>> {
    let scene = scene.ok_or(Code::NotFound)?;
    let prior = scene.prior.as_ref().map(super::prior);
    // The same answer as for a room that is not there. A repetition gets its answer even from outside.
    if prior.is_none() && !scene.inside {
        return Err(Code::NotFound.into());
    }
    let now = app.now();
    let what = What::Application(&message.message);
    let event = Event { digest: origin.digest, epoch: message.epoch, what };
    let admitted = match admit(&scene.head, prior.as_ref(), &event, now)? {
        Admission::Again(known) => return Ok(Decision::Known(known)),
        Admission::New(admitted) => admitted,
    };
    Ok(Decision::Place {
        entry: Entry::new(&admitted.entry, message.message, None),
        digest: origin.digest,
        answer: Known::Accepted(admitted.accepted()),
    })
}

/// The room as the rule of admission sees it.
pub(super) fn head(log: &Log, room: &Room) -> RoomHead {
    RoomHead {
        incarnation: log.incarnation,
        head: log.head,
        chain: log.chain,
        last_at: log.last_at,
        epoch: room.epoch,
    }
}
