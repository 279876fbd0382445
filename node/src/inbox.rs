//! A device's inbox: what it must get beside its rooms.

use protocol::api::{self, InboxItem};
use protocol::log::EntryKind;
use protocol::{DeviceId, Timestamp};

use crate::store::logs::{self, Entry, LogName};
use crate::store::{StoreError, Tx, Wake};

/// Puts an item into the inbox of a device of this node. A device that was revoked has none and gets nothing.
///
/// # Errors
/// When the database fails.
pub(crate) async fn put(
    tx: &mut Tx,
    device: &DeviceId,
    item: &InboxItem,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(log) = logs::lock(tx, &LogName::Inbox(device.clone())).await? else { return Ok(()) };
    let body = api::encode(item);
    let head = delivery::log::Head { seq: log.head, chain: log.chain };
    let placed = head.append(EntryKind::Item, now.max(log.last_at), &body);
    logs::append(tx, log.id, &[Entry::new(&placed, body, None)]).await?;
    tx.wake(Wake::Log(log.id));
    Ok(())
}
