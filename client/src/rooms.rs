//! Founding, listing and offering rooms.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crypto::group::Founding;
use crypto::{Group, PublicKey, Suite};
use protocol::{Epoch, RoomId, SubmitId};

use crate::core::Work;
use crate::enter::OfferedRoom;
use crate::room::{Member, RoomInfo, RoomOptions, RoomStatus};
use crate::store::{Action, PinRow, RoomRow};
use crate::{AlarmKind, Error, Result, command, recover};

/// Founds a room on this device; a command tells the node.
pub(crate) async fn found(work: &mut Work<'_>, options: RoomOptions) -> Result<RoomId> {
    let local = URL_SAFE_NO_PAD.encode(work.world.entropy.bytes16());
    let room = RoomId::new(work.user().domain(), &local)?;
    let suite = if options.post_quantum { Suite::Hybrid } else { Suite::Classic };
    let founding =
        Founding { room: room.clone(), suite, hub_key: PublicKey::from_bytes(work.hub_key) };
    let founded = Group::create(&founding, work.identity.clone(), work.now(), &*work.world.entropy)
        .map_err(Error::crypto)?;
    let row = work.tx.add_room(&room, options.name, suite.code(), RoomStatus::Creating).await?;
    work.put_group(row.no, founded.group);
    let now = work.now();
    let action = Action::Create(founded.group_info.into(), founded.tree.into());
    command::want(work, &row, action, now).await?;
    Ok(room)
}

/// Every room, as a program sees it.
pub(crate) async fn list(work: &mut Work<'_>) -> Result<Vec<RoomInfo>> {
    let mut rooms = Vec::new();
    for row in work.tx.rooms().await? {
        rooms.push(info(work, row).await?);
    }
    rooms.sort_by(|a, b| a.room.cmp(&b.room));
    Ok(rooms)
}

async fn info(work: &mut Work<'_>, row: RoomRow) -> Result<RoomInfo> {
    let mut info = RoomInfo {
        room: row.room,
        name: row.name,
        status: row.status,
        suite: row.suite,
        epoch: Epoch::new(0),
        seq: row.place.map(|p| p.cursor.seq).unwrap_or_default(),
        members: Vec::new(),
    };
    if matches!(info.status, RoomStatus::Left | RoomStatus::Joining) {
        return Ok(info);
    }
    let group = work.take_group(row.no).await?;
    info.epoch = group.epoch();
    let leaves = group.members().map_err(Error::crypto)?;
    for person in group.participants().map_err(Error::crypto)?.list() {
        let own = leaves.iter().map(|leaf| leaf.certificate.device());
        info.members.push(Member {
            user: person.user.clone(),
            role: person.role,
            devices: own.filter(|device| device.user() == person.user).cloned().collect(),
        });
    }
    work.put_group(row.no, group);
    Ok(info)
}

/// What a new device of this person gets to know: the rooms, and whom this device has met.
pub(crate) async fn offered(work: &mut Work<'_>) -> Result<(Vec<OfferedRoom>, Vec<PinRow>)> {
    let mut rooms = Vec::new();
    for row in work.tx.rooms().await? {
        if !matches!(row.status, RoomStatus::Active | RoomStatus::Held { .. }) {
            continue;
        }
        let group = work.take_group(row.no).await?;
        let hub_key = *group.hub_key().map_err(Error::crypto)?.as_bytes();
        work.put_group(row.no, group);
        rooms.push(OfferedRoom { room: row.room, suite: row.suite, hub_key });
    }
    Ok((rooms, work.tx.pins().await?))
}

/// Wants to come into a held room again, by an external commit that takes this device's old leaf with it.
pub(crate) async fn rejoin(work: &mut Work<'_>, room: &RoomId) -> Result<SubmitId> {
    let row = work.room(room).await?;
    if !matches!(row.status, RoomStatus::Held { .. }) {
        return Err(Error::Invalid("only a room that is held can be joined again"));
    }
    recover::again(work, row, AlarmKind::Held).await
}
