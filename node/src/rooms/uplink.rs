//! A submission for a room whose hub is another node: kept durably and answered `stored`; a lane hands it over. PROTOCOL §5.4.

use std::sync::Arc;

use delivery::quota::{self, Amount};
use delivery::room::{Known, Uplink, uplink};
use minicbor::{Decode, Encode};
use protocol::api::{Payload, Submit, SubmitReply};
use protocol::log::{Chain, EntryKind};
use protocol::mimi::HandshakeBundle;
use protocol::mls::Sender;
use protocol::{Code, DeviceId, Refusal, RoomId, Seq, limit};

use super::Origin;
use crate::app::App;
use crate::error::Outcome;
use crate::store::logs::{self, Entry, Log, LogName, Start};
use crate::store::peers::{self, PeerState};
use crate::store::submissions;
use crate::store::{Tx, Wake, readers};

/// An entry of an uplink: what the hub's answer must be told to, and the submission as it came.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Kept {
    /// Whose it is.
    #[n(0)]
    pub(crate) device: DeviceId,
    /// What it handed in.
    #[n(1)]
    pub(crate) submit: Submit,
}

/// Whether somebody outside the room may hand it in: only a commit by which they join.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Member,
    Joiner,
}

/// Keeps a submission for the room's hub.
///
/// # Errors
/// `NotFound` when the device is not in the room, `UnknownPeer`, `QueueFull`, `Conflict`, `Malformed`, `TooLarge`.
pub(super) async fn keep(
    app: &Arc<App>,
    device: &DeviceId,
    origin: Origin,
    submit: Submit,
) -> Outcome<SubmitReply> {
    let from = check(&submit.room, &submit.payload)?;
    let kept = Kept { device: device.clone(), submit };
    let shared = app.clone();
    app.store.write(move |tx| Box::pin(write(tx, shared, origin, kept, from))).await
}

/// The checks that need no room: a submission that the hub could not even read must not wait for it.
fn check(room: &RoomId, payload: &Payload) -> Result<From, Refusal> {
    match payload {
        Payload::Application(message) => {
            super::application::framed(room, message).map(|_| From::Member)
        }
        Payload::Handshake(handshake) => {
            let malformed = |detail: String| Refusal::because(Code::Malformed, detail);
            if handshake.bundle.len() > limit::BUNDLE_BYTES {
                return Err(Code::TooLarge.into());
            }
            if handshake.signature.len() != SIGNATURE {
                return Err(malformed("The signature over the bundle has 64 bytes.".to_owned()));
            }
            let bundle =
                HandshakeBundle::decode(&handshake.bundle).map_err(|e| malformed(e.to_string()))?;
            let frame = match &bundle {
                HandshakeBundle::Commit { commit, .. } => commit.view(),
                HandshakeBundle::Proposals { first, .. } => first.view(),
            };
            if frame.group_id != room.group().as_str().as_bytes() {
                return Err(malformed("It is for another group than the room's.".to_owned()));
            }
            let joins = frame.sender == Some(Sender::NewMemberCommit);
            Ok(if joins { From::Joiner } else { From::Member })
        }
    }
}

const SIGNATURE: usize = 64;

async fn write(
    tx: &mut Tx,
    app: Arc<App>,
    origin: Origin,
    kept: Kept,
    from: From,
) -> Outcome<SubmitReply> {
    let room = kept.submit.room.clone();
    let prior = origin.prior(tx).await?;
    if prior.is_none() {
        allowed(tx, &room, &kept.device, from).await?;
    }
    let log = uplink_of(tx, &app, &room).await?;
    let kind = match kept.submit.payload {
        Payload::Application(_) => EntryKind::Application,
        Payload::Handshake(_) => EntryKind::Commit,
    };
    let body = protocol::api::encode(&kept);
    let waiting = Amount { count: log.kept(), bytes: log.bytes };
    match uplink(prior.as_ref(), &origin.digest, waiting, body.len() as u64)? {
        // The same answer as the first time; its place shows in the room's log.
        Uplink::Again(Known::Accepted(_) | Known::Stored | Known::Refused) => {
            Ok(SubmitReply::Stored)
        }
        Uplink::New => {
            let weight = body.len() as u64;
            bounded(tx, &kept.device, from, weight).await?;
            let now = app.now();
            let head = delivery::log::Head { seq: log.head, chain: log.chain };
            let place = head.append(kind, now.max(log.last_at), &body);
            logs::append(tx, log.id, &[Entry::new(&place, body, None)]).await?;
            origin.record(tx, weight, now).await?;
            tx.wake(Wake::Log(log.id));
            tx.wake(Wake::Peer(room.hub().clone()));
            Ok(SubmitReply::Stored)
        }
    }
}

/// One device must not fill the node with what waits for others, room by room.
async fn bounded(tx: &mut Tx, device: &DeviceId, from: From, bytes: u64) -> Outcome<()> {
    let held = submissions::waiting(tx, device).await?;
    let all = Amount { count: held.count, bytes: held.bytes };
    quota::WAITING.admit(all, Amount::one(bytes))?;
    if from == From::Joiner {
        quota::JOINING.admit(Amount { count: held.joining, bytes: 0 }, Amount::one(0))?;
    }
    Ok(())
}

async fn allowed(tx: &mut Tx, room: &RoomId, device: &DeviceId, from: From) -> Outcome<()> {
    let peer = peers::find(tx, room.hub()).await?;
    let known = peer.is_some_and(|p| p.state != PeerState::Blocked);
    if from == From::Joiner {
        // Whether the room is open to the device only the hub can say.
        return if known { Ok(()) } else { Err(Code::UnknownPeer.into()) };
    }
    let log = logs::find(tx, &LogName::Replica(room.clone())).await?.ok_or(Code::NotFound)?;
    let stays = readers::stays(tx, log.id, &device.clone().into()).await?;
    if !stays.iter().any(|s| s.until.is_none()) {
        return Err(Code::NotFound.into());
    }
    if known { Ok(()) } else { Err(Code::UnknownPeer.into()) }
}

/// The room's uplink, made when it is first needed, with the hub as its reader.
async fn uplink_of(tx: &mut Tx, app: &App, room: &RoomId) -> Outcome<Log> {
    let name = LogName::Uplink(room.clone());
    if let Some(log) = logs::lock(tx, &name).await? {
        return Ok(log);
    }
    let start = Start {
        incarnation: app.incarnation,
        seq: Seq::new(0),
        // Nobody follows the chain of an uplink; it starts anywhere.
        chain: Chain::from_bytes([0; 32]),
        at: protocol::Timestamp::from_ms(0),
    };
    if let Some(log) = logs::create(tx, &name, room.hub(), &start, app.now()).await? {
        readers::add(tx, log, &room.hub().clone().into(), Seq::new(1)).await?;
    }
    Ok(logs::lock(tx, &name).await?.ok_or(Code::Unavailable)?)
}
