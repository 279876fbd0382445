//! A new room at this node, which becomes its hub.

use std::sync::Arc;

use crypto::{HubGroup, PublicKey};
use protocol::api::{Accepted, CreateRoom, SubmitReply};
use protocol::log::Chain;
use protocol::{Code, Cursor, DeviceId, Refusal, Seq, limit};

use crate::app::App;
use crate::error::Outcome;
use crate::store::logs::{self, LogName, Start};
use crate::store::rooms::{self, Room};
use crate::store::{Tx, Wake, members, readers};

/// Makes the room, with the caller as its only member and owner. Repeating it has no further effect.
///
/// # Errors
/// `Invalid`, `NameTaken`, `InvalidCommit`, `BadCertificate`, `DiskFull`.
pub(crate) async fn create(
    app: &Arc<App>,
    founder: &DeviceId,
    ask: CreateRoom,
) -> Outcome<SubmitReply> {
    app.quotas.submit(founder)?;
    app.room_for_more()?;
    if *ask.room.hub() != app.domain {
        let detail = "A room is made at the node of the one who makes it.";
        return Err(Refusal::because(Code::Invalid, detail).into());
    }
    if ask.group_info.len() > limit::REQUEST_BYTES || ask.tree.len() > limit::REQUEST_BYTES {
        return Err(Code::TooLarge.into());
    }
    let hub_key = PublicKey::from_bytes(*app.keys.hub().public().as_bytes());
    let (room, who) = (ask.room.clone(), founder.clone());
    let group = app
        .heavy(move || HubGroup::create(&room, &hub_key, &ask.group_info, &ask.tree, &who))
        .await??;
    let (shared, room, founder) = (app.clone(), ask.room, founder.clone());
    let accepted = app
        .store
        .write(move |tx| Box::pin(async move { make(tx, &shared, &founder, &room, &group).await }))
        .await?;
    Ok(SubmitReply::Accepted(accepted))
}

async fn make(
    tx: &mut Tx,
    app: &App,
    founder: &DeviceId,
    room: &protocol::RoomId,
    group: &HubGroup,
) -> Outcome<Accepted> {
    let now = app.now();
    let chain = Chain::start(&app.incarnation, room);
    let start = Start { incarnation: app.incarnation, seq: Seq::new(0), chain, at: now };
    let name = LogName::Room(room.clone());
    let Some(log) = logs::create(tx, &name, &app.domain, &start, now).await? else {
        return again(tx, founder, room).await;
    };
    super::room_for_one(tx, founder).await?;
    let row = Room {
        log,
        room: room.clone(),
        hub: app.domain.clone(),
        suite: group.suite().code(),
        epoch: group.epoch(),
        created: now,
    };
    rooms::create(tx, &row, Some(&group.to_bytes())).await?;
    members::add(tx, log, founder, Seq::new(0)).await?;
    readers::add(tx, log, &founder.clone().into(), Seq::new(1)).await?;
    tx.wake(Wake::Device(founder.clone()));
    Ok(Accepted {
        place: Cursor { incarnation: app.incarnation, seq: Seq::new(0) },
        at: now,
        chain,
    })
}

/// The room is there: the same answer for its founder, none for anybody else.
async fn again(tx: &mut Tx, founder: &DeviceId, room: &protocol::RoomId) -> Outcome<Accepted> {
    let row = rooms::find(tx, room).await?.ok_or(Code::NameTaken)?;
    let member = members::find(tx, row.log, founder).await?;
    if member.is_none_or(|m| m.since != Seq::new(0)) {
        return Err(Code::NameTaken.into());
    }
    let log = logs::get(tx, row.log).await?;
    Ok(Accepted {
        place: Cursor { incarnation: log.incarnation, seq: Seq::new(0) },
        at: row.created,
        chain: Chain::start(&log.incarnation, room),
    })
}
