//! Devices of this node's people, and the tokens they sign in with. PROTOCOL §6.3.

use protocol::{DeviceId, Timestamp, UserId};

use super::row::{Column, execute, fetch_all, fetch_one, fetch_optional, limit, ms, row};
use super::{StoreError, Tx};

/// A device of a person of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name on the wire.
    pub device: DeviceId,
    /// What the person calls it.
    pub name: String,
    /// PROTOCOL §7.1.
    pub certificate: Vec<u8>,
    /// When it signed in first.
    pub created: Timestamp,
    /// When it was connected last, about.
    pub seen: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

row! {
    struct DeviceRow {
        device: String, name: String, certificate: Vec<u8>, created_ms: i64, seen_ms: Option<i64>, revoked_ms: Option<i64>,
    }
}

impl TryFrom<DeviceRow> for Device {
    type Error = StoreError;
    fn try_from(r: DeviceRow) -> Result<Self, StoreError> {
        Ok(Self {
            device: Column("device", "device").parse(&r.device)?,
            name: r.name,
            certificate: r.certificate,
            created: Column("device", "created_ms").time(r.created_ms)?,
            seen: Column("device", "seen_ms").time_opt(r.seen_ms)?,
            revoked: Column("device", "revoked_ms").time_opt(r.revoked_ms)?,
        })
    }
}

/// Writes a new device. False, and nothing changed, when there is one of that name.
///
/// # Errors
/// When the database fails, or the device's user has no account.
pub async fn create(tx: &mut Tx, device: &Device) -> Result<bool, StoreError> {
    let made = execute!(
        tx,
        "INSERT INTO device (device, user_id, name, certificate, created_ms, seen_ms, revoked_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (device) DO NOTHING",
        device.device.as_str(),
        device.device.user().as_str(),
        device.name.as_str(),
        device.certificate.as_slice(),
        ms(device.created),
        device.seen.map(ms),
        device.revoked.map(ms)
    )?;
    Ok(made > 0)
}

/// The device of that name, revoked or not.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut Tx, device: &DeviceId) -> Result<Option<Device>, StoreError> {
    fetch_optional!(
        tx,
        DeviceRow,
        "SELECT device, name, certificate, created_ms, seen_ms, revoked_ms FROM device WHERE device = $1",
        device.as_str()
    )?
    .map(TryInto::try_into)
    .transpose()
}

/// A person's devices, revoked ones included, oldest first; at most `max`.
///
/// # Errors
/// When the database fails.
pub async fn of_user(tx: &mut Tx, user: &UserId, max: usize) -> Result<Vec<Device>, StoreError> {
    let rows = fetch_all!(
        tx,
        DeviceRow,
        "SELECT device, name, certificate, created_ms, seen_ms, revoked_ms FROM device WHERE user_id = $1 ORDER BY created_ms, device LIMIT $2",
        user.as_str(),
        limit(max)
    )?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// How many devices a person has, revoked ones not counted.
///
/// # Errors
/// When the database fails.
pub async fn count(tx: &mut Tx, user: &UserId) -> Result<u64, StoreError> {
    let (n,) = fetch_one!(
        tx,
        (i64,),
        "SELECT COUNT(*) FROM device WHERE user_id = $1 AND revoked_ms IS NULL",
        user.as_str()
    )?;
    Column("device", "device").number(n)
}

/// Revokes a device, with its tokens, its unclaimed KeyPackages and its linking offers. False when it is not there or was revoked before. What it
/// still had to read is the caller's to end.
///
/// # Errors
/// When the database fails.
pub async fn revoke(tx: &mut Tx, device: &DeviceId, now: Timestamp) -> Result<bool, StoreError> {
    let revoked = execute!(
        tx,
        "UPDATE device SET revoked_ms = $2 WHERE device = $1 AND revoked_ms IS NULL",
        device.as_str(),
        ms(now)
    )?;
    if revoked == 0 {
        return Ok(false);
    }
    delete_tokens(tx, device).await?;
    execute!(
        tx,
        "DELETE FROM keypackage WHERE device = $1 AND claimed_ms IS NULL",
        device.as_str()
    )?;
    execute!(tx, "DELETE FROM link_offer WHERE device = $1", device.as_str())?;
    Ok(true)
}

/// Notes that a device was connected, if the last note is older than `unless_after`: one write a minute is enough.
///
/// # Errors
/// When the database fails.
pub async fn touch(
    tx: &mut Tx,
    device: &DeviceId,
    now: Timestamp,
    unless_after: Timestamp,
) -> Result<bool, StoreError> {
    let touched = execute!(
        tx,
        "UPDATE device SET seen_ms = $2 WHERE device = $1 AND (seen_ms IS NULL OR seen_ms < $3)",
        device.as_str(),
        ms(now),
        ms(unless_after)
    )?;
    Ok(touched > 0)
}

/// Writes a token, known by its SHA-256.
///
/// # Errors
/// When the database fails.
pub async fn add_token(
    tx: &mut Tx,
    hash: &[u8; 32],
    device: &DeviceId,
    now: Timestamp,
) -> Result<(), StoreError> {
    execute!(
        tx,
        "INSERT INTO token (hash, device, created_ms) VALUES ($1, $2, $3)",
        hash.as_slice(),
        device.as_str(),
        ms(now)
    )?;
    Ok(())
}

/// Whose token it is; nobody's when the device was revoked or its person is suspended.
///
/// # Errors
/// When the database fails.
pub async fn by_token(tx: &mut Tx, hash: &[u8; 32]) -> Result<Option<DeviceId>, StoreError> {
    let row = fetch_optional!(
        tx,
        (String,),
        "SELECT t.device FROM token t JOIN device d ON d.device = t.device JOIN account a ON a.user_id = d.user_id \
         WHERE t.hash = $1 AND d.revoked_ms IS NULL AND a.suspended_ms IS NULL",
        hash.as_slice()
    )?;
    row.map(|(device,)| Column("token", "device").parse(&device)).transpose()
}

/// Takes all tokens of a device back.
///
/// # Errors
/// When the database fails.
pub async fn delete_tokens(tx: &mut Tx, device: &DeviceId) -> Result<u64, StoreError> {
    execute!(tx, "DELETE FROM token WHERE device = $1", device.as_str())
}
