//! What a further device of a participant needs to join by external commit, sealed to it by the hub. PROTOCOL §6.6.

use std::sync::Arc;

use crypto::HubGroup;
use crypto::group_info::{self, GroupInfoRequest};
use protocol::api::FetchGroupInfo;
use protocol::mimi::{GroupInfoAnswer, GroupInfoResponse};
use protocol::room::Role;
use protocol::{Code, DeviceId, Domain, Refusal, RoomId, limit};

use crate::app::App;
use crate::devices;
use crate::error::{Error, Outcome, Stop};
use crate::store::logs::LogName;
use crate::store::{logs, rooms};
use crate::worker::relay;

/// A device of ours asks: we answer as the hub, or pass it to the hub.
///
/// # Errors
/// `NotFound` for a room that is not there or not open to the caller; what the hub says.
pub(crate) async fn fetch(
    app: &Arc<App>,
    caller: &DeviceId,
    ask: FetchGroupInfo,
) -> Outcome<Vec<u8>> {
    if ask.request.len() > limit::REQUEST_BYTES {
        return Err(Code::TooLarge.into());
    }
    let request = group_info::verify(&ask.request)?;
    if request.from.device() != caller {
        return Err(
            Refusal::because(Code::BadCertificate, "It is signed by another device.").into()
        );
    }
    app.quotas.claim(&caller.user())?;
    if *ask.room.hub() == app.domain {
        return answer(app, &ask.room, request).await;
    }
    relay::group_info(app, &ask.room, ask.request).await
}

/// A peer asks for one of its people.
///
/// # Errors
/// `DomainMismatch` when the request is not of the peer's people.
pub(crate) async fn of_peer(
    app: &Arc<App>,
    peer: &Domain,
    room: &RoomId,
    body: Vec<u8>,
) -> Outcome<Vec<u8>> {
    let request = group_info::verify(&body)?;
    if request.from.device().domain() != peer {
        return Err(Code::DomainMismatch.into());
    }
    app.quotas.claim(&request.from.user())?;
    match answer(app, room, request).await {
        // MIMI has a status for it, and one for both reasons.
        Err(Stop::Refused(refusal)) if refusal.code == Code::NotFound => {
            let answer = GroupInfoAnswer::NotAuthorized;
            Ok(GroupInfoResponse { room: room.clone(), answer }.encode())
        }
        other => other,
    }
}

async fn answer(app: &Arc<App>, room: &RoomId, request: GroupInfoRequest) -> Outcome<Vec<u8>> {
    let mut tx = app.store.snapshot().await?;
    logs::find(&mut tx, &LogName::Room(room.clone())).await?.ok_or(Code::NotFound)?;
    let row = rooms::find(&mut tx, room).await?.ok_or(Code::NotFound)?;
    let ours = *request.from.device().domain() == app.domain;
    if ours && !devices::in_good_standing(&mut tx, &request.from).await? {
        return Err(Code::NotFound.into());
    }
    let state = rooms::group(&mut tx, row.log).await?;
    drop(tx);
    let state = state.ok_or(Stop::Failed(Error::Damaged("a room without its group")))?;
    let hub_key = app.keys.hub().clone();
    app.heavy(move || {
        let group = HubGroup::from_bytes(&state)?;
        let role = group.participants()?.role(&request.from.user());
        if role.is_none_or(|r| r == Role::Banned) {
            return Err(Code::NotFound.into());
        }
        Ok(group.seal_group_info(&request, &hub_key)?)
    })
    .await?
}
