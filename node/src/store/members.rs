//! Devices in a room's group: who may send to it, whom it is delivered to, which peers follow it.

use protocol::{DeviceId, Domain, Seq};

use super::logs::LogId;
use super::row::{Column, execute, fetch_all, fetch_optional, int, limit};
use super::{StoreError, Tx};

/// A device in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The device. Its user and node are part of its name.
    pub device: DeviceId,
    /// The commit that added it.
    pub since: Seq,
}

/// Adds a device.
///
/// # Errors
/// When the database fails.
pub async fn add(tx: &mut Tx, log: LogId, device: &DeviceId, since: Seq) -> Result<(), StoreError> {
    execute!(
        tx,
        "INSERT INTO member (log_id, device, user_id, domain, since_seq) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (log_id, device) DO UPDATE SET since_seq = excluded.since_seq",
        log.get(),
        device.as_str(),
        device.user().as_str(),
        device.domain().as_str(),
        int(since.get())
    )?;
    Ok(())
}

/// Removes a device. Says whether it was there.
///
/// # Errors
/// When the database fails.
pub async fn remove(tx: &mut Tx, log: LogId, device: &DeviceId) -> Result<bool, StoreError> {
    let removed = execute!(
        tx,
        "DELETE FROM member WHERE log_id = $1 AND device = $2",
        log.get(),
        device.as_str()
    )?;
    Ok(removed > 0)
}

type Row = (String, i64);

fn member((device, since): Row) -> Result<Member, StoreError> {
    Ok(Member {
        device: Column("member", "device").parse(&device)?,
        since: Column("member", "since_seq").seq(since)?,
    })
}

/// The device, if it is in the room.
///
/// # Errors
/// When the database fails.
pub async fn find(
    tx: &mut Tx,
    log: LogId,
    device: &DeviceId,
) -> Result<Option<Member>, StoreError> {
    fetch_optional!(
        tx,
        Row,
        "SELECT device, since_seq FROM member WHERE log_id = $1 AND device = $2",
        log.get(),
        device.as_str()
    )?
    .map(member)
    .transpose()
}

/// The nodes with a device in a room: the hub's and its followers'.
///
/// # Errors
/// When the database fails.
pub async fn domains(tx: &mut Tx, log: LogId) -> Result<Vec<Domain>, StoreError> {
    let rows = fetch_all!(
        tx,
        (String,),
        "SELECT DISTINCT domain FROM member WHERE log_id = $1 ORDER BY domain",
        log.get()
    )?;
    rows.iter().map(|(domain,)| Column("member", "domain").parse(domain)).collect()
}

/// Whether a device is in `n` rooms that this node knows, or in more; `n` is at least 1.
///
/// # Errors
/// When the database fails.
pub async fn in_as_many(tx: &mut Tx, device: &DeviceId, n: usize) -> Result<bool, StoreError> {
    let last = fetch_optional!(
        tx,
        (i64,),
        "SELECT log_id FROM member WHERE device = $1 ORDER BY log_id LIMIT 1 OFFSET $2",
        device.as_str(),
        limit(n.saturating_sub(1))
    )?;
    Ok(last.is_some())
}
