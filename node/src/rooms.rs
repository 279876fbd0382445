//! Rooms: what devices and peers submit, and what a hub sends its followers.
//!
//! | module | does |
//! |---|---|
//! | [`application`] | gives an application message its place (hub) |
//! | [`handshake`] | checks a commit or proposals, gives them their place (hub) |
//! | [`effects`] | what a commit does to members, readers, inboxes and followers |
//! | [`uplink`] | keeps a submission for a foreign hub |
//! | [`receive`] | appends what a hub sent to the replica (follower) |
//! | [`backfill`] | gives a follower what it missed (hub) |
//! | [`create`], [`group_info`] | new rooms; what an external joiner needs |
//! | [`note`] | what goes with an entry to followers |

use std::sync::Arc;

use delivery::quota::{self, Amount};
use delivery::room::{Known, Prior};
use protocol::api::{Payload, Submit, SubmitReply};
use protocol::log::Digest;
use protocol::{Code, DeviceId, Domain, Refusal, RoomId, Timestamp, limit};

use crate::app::App;
use crate::error::Outcome;
use crate::store::submissions::{self, Key, State, Submission};
use crate::store::{StoreError, Tx, members, readers};

mod application;
pub(crate) mod backfill;
pub(crate) mod create;
mod effects;
pub(crate) mod group_info;
mod handshake;
pub(crate) mod note;
pub(crate) mod receive;
pub(crate) mod uplink;

pub(crate) use application::Application;
pub(crate) use handshake::Handed;

/// Who hands something in, and under which name it is remembered.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The device, or the peer that speaks for one of its people.
    pub(crate) by: readers::Reader,
    /// Under which the answer is remembered.
    pub(crate) key: Key,
    /// What a repetition must equal.
    pub(crate) digest: Digest,
}

impl Origin {
    /// A device of ours.
    pub(crate) fn device(device: &DeviceId, submit: &Submit) -> Self {
        Self {
            by: device.clone().into(),
            key: Key::of_device(device.clone(), submit.room.clone(), &submit.submit_id),
            digest: submit.payload.digest(),
        }
    }

    /// A peer, with the exact MLS message that it handed in.
    pub(crate) fn peer(peer: &Domain, room: &RoomId, message: &[u8]) -> Self {
        let digest = Digest::of_bytes(message);
        Self {
            by: peer.clone().into(),
            key: Key::of_peer(peer.clone(), room.clone(), &digest),
            digest,
        }
    }

    /// What became of the same submission before.
    async fn prior(&self, tx: &mut Tx) -> Result<Option<Prior>, StoreError> {
        let found = submissions::find(tx, &self.key).await?;
        Ok(found.as_ref().map(prior))
    }

    /// Whether the disk has room for it. A repetition needs none and gets its answer also from a full disk. PROTOCOL §5.3.
    ///
    /// # Errors
    /// `DiskFull`.
    async fn has_room(&self, app: &App) -> Outcome<()> {
        let Err(full) = app.room_for_more() else { return Ok(()) };
        let known = self.prior(&mut app.store.snapshot().await?).await?;
        if known.is_some() { Ok(()) } else { Err(full.into()) }
    }

    /// Remembers that it waits for the room's hub, and takes so many bytes.
    async fn record(&self, tx: &mut Tx, bytes: u64, now: Timestamp) -> Result<(), StoreError> {
        let submission = Submission { digest: self.digest, state: State::Stored, created: now };
        if submissions::record(tx, &self.key, &submission, bytes).await? {
            Ok(())
        } else {
            // The lock on the log keeps two of the same from getting here.
            Err(StoreError::Conflict { table: "submission" })
        }
    }
}

/// What is remembered, as the rules see it.
fn prior(submission: &Submission) -> Prior {
    let known = match submission.state {
        State::Stored => Known::Stored,
        State::Accepted(accepted) => Known::Accepted(accepted),
    };
    Prior { digest: submission.digest, known }
}

/// A device of ours hands something in. One function for requests and for streams; refusals are an answer here.
pub(crate) async fn submit(app: &Arc<App>, device: &DeviceId, submit: Submit) -> SubmitReply {
    match try_submit(app, device, submit).await {
        Ok(reply) => reply,
        Err(stop) => SubmitReply::Refused(stop.into_refusal()),
    }
}

async fn try_submit(app: &Arc<App>, device: &DeviceId, submit: Submit) -> Outcome<SubmitReply> {
    app.quotas.submit(device)?;
    let origin = Origin::device(device, &submit);
    origin.has_room(app).await?;
    if *submit.room.hub() != app.domain {
        return uplink::keep(app, device, origin, submit).await;
    }
    let room = submit.room;
    let known = match submit.payload {
        Payload::Application(message) => {
            let message = Application::of_device(&room, message, device)?;
            application::submit(app, origin, message).await?
        }
        Payload::Handshake(handshake) => {
            let handed = Handed::of_device(&room, handshake)?;
            handshake::submit(app, origin, handed).await?
        }
    };
    Ok(match known {
        Known::Accepted(accepted) => SubmitReply::Accepted(accepted),
        Known::Stored => SubmitReply::Stored,
        Known::Refused => SubmitReply::Refused(Refusal::new(Code::Unavailable)),
    })
}

/// Whether the device may be in one room more. Counted by its own node, hub or not.
///
/// # Errors
/// `TooLarge`.
async fn room_for_one(tx: &mut Tx, device: &DeviceId) -> Outcome<()> {
    let full = members::in_as_many(tx, device, limit::ROOMS_PER_DEVICE).await?;
    let held = if full { quota::ROOMS.most } else { Amount::default() };
    quota::ROOMS.admit(held, Amount::one(0))?;
    Ok(())
}

/// A peer hands in an application message of one of its people.
pub(crate) async fn submit_application(
    app: &Arc<App>,
    origin: Origin,
    message: Application,
) -> Outcome<Known> {
    origin.has_room(app).await?;
    application::submit(app, origin, message).await
}

/// A peer hands in a handshake of one of its people.
pub(crate) async fn submit_handshake(
    app: &Arc<App>,
    origin: Origin,
    handed: Handed,
) -> Outcome<Known> {
    origin.has_room(app).await?;
    handshake::submit(app, origin, handed).await
}
