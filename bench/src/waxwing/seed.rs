//! Crowds and quiet rooms, written into a node's database: what a curve is about must be there, not come about.

use node::clock::SystemClock;
use node::store::logs::{self, LogName, Start};
use node::store::rooms::{self, Room};
use node::store::{StoreError, Tx, identity, members, readers};
use protocol::log::Chain;
use protocol::{Clock as _, DeviceId, Epoch, RoomId, Seq, Timestamp};

use crate::Outcome;
use crate::waxwing::node::Node;

const AT_ONCE: usize = 500;

/// Puts `count` more members into a room, who are all away and to get everything from now on.
///
/// # Errors
/// When the database refuses.
pub async fn crowd(node: &Node, room: &RoomId, count: usize) -> Outcome<()> {
    let member = |n| DeviceId::parse(&format!("mimi://{}/d/crowd{n}/phone", node.domain));
    let mut left = (0..count).map(member).collect::<Result<Vec<_>, _>>()?;
    let store = node.store().await?;
    while !left.is_empty() {
        let some = left.split_off(left.len().saturating_sub(AT_ONCE));
        let name = LogName::Room(room.clone());
        store.write::<_, StoreError, _>(move |tx| Box::pin(join(tx, name, some))).await?;
    }
    store.close().await;
    Ok(())
}

async fn join(tx: &mut Tx, name: LogName, devices: Vec<DeviceId>) -> Result<(), StoreError> {
    let log = logs::find(tx, &name).await?.ok_or(StoreError::Conflict { table: "log" })?;
    for device in devices {
        members::add(tx, log.id, &device, log.head).await?;
        readers::add(tx, log.id, &device.into(), log.head.next()).await?;
    }
    Ok(())
}

/// Puts a device into `count` rooms in which nothing ever happens.
///
/// # Errors
/// When the database refuses.
pub async fn quiet_rooms(node: &Node, device: &DeviceId, count: usize) -> Outcome<()> {
    let name = |n| RoomId::new(&node.domain, &format!("quiet{n}"));
    let mut left = (0..count).map(name).collect::<Result<Vec<_>, _>>()?;
    let store = node.store().await?;
    while !left.is_empty() {
        let some = left.split_off(left.len().saturating_sub(AT_ONCE));
        let device = device.clone();
        store.write::<_, StoreError, _>(move |tx| Box::pin(found(tx, device, some))).await?;
    }
    store.close().await;
    Ok(())
}

async fn found(tx: &mut Tx, device: DeviceId, names: Vec<RoomId>) -> Result<(), StoreError> {
    let own = identity::load(tx).await?;
    let now = SystemClock.now();
    for room in names {
        let start = Start {
            incarnation: own.incarnation,
            seq: Seq::new(0),
            chain: Chain::start(&own.incarnation, &room),
            at: Timestamp::from_ms(0),
        };
        let name = LogName::Room(room.clone());
        let log = logs::create(tx, &name, &own.domain, &start, now).await?;
        let log = log.ok_or(StoreError::Conflict { table: "log" })?;
        let hub = own.domain.clone();
        let row = Room { log, room, hub, suite: 1, epoch: Epoch::new(0), created: now };
        rooms::create(tx, &row, None).await?;
        members::add(tx, log, &device, Seq::new(0)).await?;
        readers::add(tx, log, &device.clone().into(), Seq::new(1)).await?;
    }
    Ok(())
}
