//! Sealed offers from a device to a new one of the same person. PROTOCOL §6.9.

use protocol::{DeviceId, Timestamp};

use super::row::{Column, execute, fetch_optional, ms};
use super::{StoreError, Tx};

/// Leaves an offer. A device has one at a time: a further one takes the place of the former.
///
/// # Errors
/// When the database fails.
pub async fn offer(
    tx: &mut Tx,
    id: &[u8; 32],
    device: &DeviceId,
    sealed: &[u8],
    expires: Timestamp,
) -> Result<(), StoreError> {
    execute!(
        tx,
        "DELETE FROM link_offer WHERE device = $1 AND id <> $2",
        device.as_str(),
        id.as_slice()
    )?;
    execute!(
        tx,
        "INSERT INTO link_offer (id, device, sealed, expires_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING",
        id.as_slice(),
        device.as_str(),
        sealed,
        ms(expires)
    )?;
    Ok(())
}

/// An offer: `(who left it, sealed)`. Nothing when it is not there or expired. It stays until it expires, because an answer may get lost.
///
/// # Errors
/// When the database fails.
pub async fn take(
    tx: &mut Tx,
    id: &[u8; 32],
    now: Timestamp,
) -> Result<Option<(DeviceId, Vec<u8>)>, StoreError> {
    let row = fetch_optional!(
        tx,
        (String, Vec<u8>),
        "SELECT device, sealed FROM link_offer WHERE id = $1 AND expires_ms > $2",
        id.as_slice(),
        ms(now)
    )?;
    row.map(|(device, sealed)| Ok((Column("link_offer", "device").parse(&device)?, sealed)))
        .transpose()
}

/// Forgets offers that expired before `before`.
///
/// # Errors
/// When the database fails.
pub async fn purge(tx: &mut Tx, before: Timestamp) -> Result<u64, StoreError> {
    execute!(tx, "DELETE FROM link_offer WHERE expires_ms < $1", ms(before))
}
