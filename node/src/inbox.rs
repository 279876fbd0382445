//! A device's inbox: what it must get beside its rooms.

use protocol::api::{self, InboxItem};
use protocol::log::EntryKind;
use protocol::{Code, DeviceId, Refusal, Timestamp};

use crate::error::Outcome;
use crate::store::logs::{self, Entry, LogName};
use crate::store::{Tx, Wake, devices};

/// Puts an item into the inbox of a device of this node. A device that was revoked has none and gets nothing.
///
/// # Errors
/// `QueueFull` for a Welcome when the inbox is at its bound: whoever adds somebody who does not come must wait.
pub(crate) async fn put(
    tx: &mut Tx,
    device: &DeviceId,
    item: &InboxItem,
    now: Timestamp,
) -> Outcome<()> {
    let Some(log) = logs::lock(tx, &LogName::Inbox(device.clone())).await? else { return Ok(()) };
    if matches!(item, InboxItem::Welcome(_)) && log.kept() >= INBOX_ENTRIES {
        let detail = "Too many invitations wait for one of the devices.";
        return Err(Refusal::because(Code::QueueFull, detail).into());
    }
    let body = api::encode(item);
    let head = delivery::log::Head { seq: log.head, chain: log.chain };
    let placed = head.append(EntryKind::Item, now.max(log.last_at), &body);
    logs::append(tx, log.id, &[Entry::new(&placed, body, None)]).await?;
    tx.wake(Wake::Log(log.id));
    Ok(())
}

/// Tells the person's other devices that this one is ready to be added, or was revoked.
pub(crate) async fn tell_siblings(tx: &mut Tx, device: &DeviceId, now: Timestamp) -> Outcome<()> {
    let found = devices::of_user(tx, &device.user(), DEVICES_MAX).await?;
    for other in found.iter().filter(|d| d.revoked.is_none() && d.device != *device) {
        put(tx, &other.device, &InboxItem::DevicesChanged, now).await?;
    }
    Ok(())
}

/// Items waiting for one device. A device that comes once a month has a few hundred.
const INBOX_ENTRIES: u64 = 10_000;
/// Revoked ones count.
const DEVICES_MAX: usize = 1_000;
