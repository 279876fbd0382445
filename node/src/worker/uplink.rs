//! A submission on its way to the room's hub, and what the hub's answer means for the device.

use bytes::Bytes;
use delivery::reader::Span;
use federation::headers::BundleSignature;
use federation::{Client, Outcome as Answer, Peer};
use protocol::api::{Accepted, InboxItem, Outcome as Told, Payload};
use protocol::log::Chain;
use protocol::mimi::{
    ApplicationBytes, SubmitMessageRequest, SubmitOutcome, UpdateOutcome, UpdateRoomResponse,
};
use protocol::{Code, Cursor, Refusal, RoomId, Seq, Timestamp};

use super::lane::Cargo;
use crate::app::App;
use crate::error::{Error, Outcome, Stop};
use crate::inbox;
use crate::rooms::uplink::Kept;
use crate::store::logs::{self, Bodies, Log};
use crate::store::submissions::{self, Key};
use crate::store::{StoreError, Tx};

/// One submission, as it goes to the hub: the same bytes at every try.
pub(crate) struct Request {
    kept: Kept,
    body: Body,
}

enum Body {
    Message(Bytes),
    Bundle(Bytes, BundleSignature),
}

impl Request {
    /// What was kept.
    pub(super) fn kept(&self) -> Kept {
        self.kept.clone()
    }
}

/// The submission after `after`.
pub(super) async fn load(tx: &mut Tx, log: &Log, after: Seq) -> Outcome<Option<(Cargo, Seq)>> {
    let first = after.next().max(log.tail);
    let Some(span) = Span::new(first, first) else { return Ok(None) };
    let entry = logs::read(tx, log.id, span, usize::MAX, Bodies::All).await?.into_iter().next();
    let Some(entry) = entry else { return Ok(None) };
    let damaged = || Stop::Failed(Error::Damaged("a submission in an uplink"));
    let bytes = entry.body.ok_or_else(damaged)?;
    let kept: Kept = protocol::api::decode(&bytes).map_err(|_| damaged())?;
    let body = match &kept.submit.payload {
        Payload::Application(message) => {
            let message = ApplicationBytes::parse(message.clone()).map_err(|_| damaged())?;
            let request = SubmitMessageRequest { message, sender: kept.device.user() };
            Body::Message(request.encode().into())
        }
        Payload::Handshake(handshake) => {
            let signature: [u8; 64] =
                handshake.signature.as_slice().try_into().map_err(|_| damaged())?;
            Body::Bundle(handshake.bundle.clone().into(), BundleSignature::from_bytes(signature))
        }
    };
    Ok(Some((Cargo::Submission(Box::new(Request { kept, body })), entry.seq)))
}

/// Hands it to the hub: done with success or with the hub's refusal.
pub(super) async fn hand_over(
    client: &Client,
    hub: &Peer,
    room: &RoomId,
    request: &Request,
) -> Answer<Result<(), Refusal>> {
    match &request.body {
        Body::Message(body) => {
            let answer = client.submit_message(hub, room, body.clone()).await;
            answer.map(|a| match a.outcome {
                SubmitOutcome::Accepted { .. } => Ok(()),
                SubmitOutcome::NotAllowed => Err(Code::NotAllowed.into()),
                SubmitOutcome::EpochTooOld(epoch) => {
                    Err(Refusal::new(Code::StaleEpoch).at_epoch(epoch))
                }
            })
        }
        Body::Bundle(body, signature) => {
            client.update(hub, room, body.clone(), signature).await.map(|a| updated(&a))
        }
    }
}

fn updated(answer: &UpdateRoomResponse) -> Result<(), Refusal> {
    let code = match answer.outcome {
        UpdateOutcome::Success(_) => return Ok(()),
        UpdateOutcome::WrongEpoch(epoch) => {
            return Err(Refusal::new(Code::WrongEpoch).at_epoch(epoch));
        }
        UpdateOutcome::NotAllowed => Code::NotAllowed,
        UpdateOutcome::InvalidProposal(_) => Code::InvalidCommit,
    };
    // MIMI has few codes; a hub of ours puts the exact one in front of the detail.
    let exact = answer.detail.split_once(": ").and_then(|(c, d)| Some((Code::parse(c)?, d)));
    Err(match exact {
        Some((code, detail)) => Refusal::because(code, detail),
        None => Refusal::new(code),
    })
}

/// The hub refused it: its device is told, and the SubmitId is free again.
pub(super) async fn refused(
    tx: &mut Tx,
    kept: &Kept,
    refusal: Refusal,
    now: Timestamp,
) -> Outcome<()> {
    submissions::delete(tx, &key(kept)).await?;
    let (submit_id, room) = (kept.submit.submit_id, kept.submit.room.clone());
    let payload = kept.submit.payload.digest();
    let item = InboxItem::Outcome(Told { submit_id, room, refusal, payload });
    inbox::put(tx, &kept.device, &item, now).await
}

/// The hub took it. Its place shows in the room's log; here it only stops waiting. Until it is forgotten, a repetition is answered
/// `stored` as before, so nobody reads this place.
pub(super) async fn accepted(
    tx: &mut Tx,
    app: &App,
    kept: &Kept,
    now: Timestamp,
) -> Result<(), StoreError> {
    let place = Cursor { incarnation: app.incarnation, seq: Seq::new(0) };
    let accepted = Accepted { place, at: now, chain: Chain::from_bytes([0; 32]) };
    submissions::accept(tx, &key(kept), &accepted).await?;
    Ok(())
}

fn key(kept: &Kept) -> Key {
    Key::of_device(kept.device.clone(), kept.submit.room.clone(), &kept.submit.submit_id)
}
