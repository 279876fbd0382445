//! What nobody asked for and still has to be done: KeyPackages in stock, revoked devices out of the rooms.

use std::time::Duration;

use crypto::keypackage::{self, Use};
use crypto::{Group, Suite};
use delivery::backoff::Backoff;
use protocol::api::{KeyPackageCount, UploadKeyPackages};
use protocol::{DeviceId, Timestamp, limit};

use crate::core::Work;
use crate::inner::Inner;
use crate::store::{Action, RoomRow};
use crate::{Error, Result, RoomStatus, command};

/// How often everything is looked after without being asked.
const EVERY: Duration = Duration::from_hours(1);
/// And not more often than this, however often it is asked for.
const PAUSE: Duration = Duration::from_secs(30);
/// A last-resort package is made anew after this long, so that what is handed out always has `limit::KEYPACKAGE_REMAINING` left.
const LAST_RESORT_AGE: Duration = Duration::from_hours(14 * 24);
/// What is not uploaded yet and has less left than this stays here until it expires: the node, whose clock may be ahead, would refuse the whole
/// batch because of it. It is not dropped, because an upload whose answer got lost may have brought it to the node in time.
const UPLOAD_REMAINING: Duration =
    limit::KEYPACKAGE_REMAINING.saturating_add(limit::KEYPACKAGE_BACKDATE);
/// The person's devices do not all do the same at once.
const SPREAD: Duration = Duration::from_secs(20);
/// Packages made under one lock.
const BATCH: usize = 10;

/// Runs until something of ours fails.
///
/// # Errors
/// The disk's, or a bug.
pub(super) async fn run(inner: &Inner) -> Result<()> {
    let mut attempt = 0;
    loop {
        let wait = match look_after(inner).await {
            Ok(()) => {
                attempt = 0;
                EVERY
            }
            Err(e @ (Error::Refused(_) | Error::Unreachable { .. } | Error::Answer { .. })) => {
                tracing::warn!(
                    code = e.code(),
                    "key packages or devices could not be looked after"
                );
                attempt += 1;
                Backoff::STANDARD.delay(attempt, inner.world.entropy.jitter(), e.retry_after())
            }
            Err(e) => return Err(e),
        };
        tokio::time::sleep(PAUSE.min(wait)).await;
        tokio::select! {
            () = inner.replenish.notified() => {}
            () = tokio::time::sleep(wait.saturating_sub(PAUSE)) => {}
        }
    }
}

async fn look_after(inner: &Inner) -> Result<()> {
    let revoked = learn_devices(inner).await?;
    // Whatever is wrong with the stock, a revoked device goes.
    let stocked = replenish(inner).await;
    for device in &revoked {
        inner.work(async |work| expel(work, device).await).await?;
    }
    bring_along(inner).await?;
    stocked
}

/// Brings the node's stock of this device's KeyPackages up to what it should be.
///
/// # Errors
/// The node's, or the disk's.
pub(crate) async fn replenish(inner: &Inner) -> Result<()> {
    inner
        .work(async |work| {
            let now = work.now();
            work.tx.drop_expired_key_packages(now).await.map(|_| ())
        })
        .await?;
    // With these a new device can be invited at once; the stock takes a moment to make.
    for suite in Suite::ALL {
        if inner.work(async |work| stale(work, suite).await).await? {
            make(inner, suite, Use::LastResort, 1).await?;
        }
    }
    // What an earlier life made and could not upload goes along; nothing to upload asks how many are left.
    let mut left = upload(inner).await?;
    for suite in Suite::ALL {
        let stock = count(&left, suite);
        if stock < limit::KEYPACKAGE_LOW {
            make(inner, suite, Use::Once, limit::KEYPACKAGE_STOCK - stock).await?;
            left = upload(inner).await?;
        }
    }
    Ok(())
}

fn count(left: &KeyPackageCount, suite: Suite) -> usize {
    let found = left.left.iter().find(|(code, _)| *code == suite.code());
    found.map_or(0, |(_, n)| usize::try_from(*n).unwrap_or(usize::MAX))
}

async fn stale(work: &mut Work<'_>, suite: Suite) -> Result<bool> {
    let now = work.now();
    let made = work.tx.last_resort_made(suite).await?;
    Ok(made.is_none_or(|made: Timestamp| now.since(made) > LAST_RESORT_AGE))
}

/// Makes packages and writes them down, a few at a time, so that messages go on in between.
async fn make(inner: &Inner, suite: Suite, what: Use, mut number: usize) -> Result<()> {
    while number > 0 {
        let batch = number.min(BATCH);
        number -= batch;
        inner
            .work(async |work| {
                let now = work.now();
                for _ in 0..batch {
                    let entropy = &*work.world.entropy;
                    let made = keypackage::make(suite, work.identity, what, now, entropy)
                        .map_err(Error::crypto)?;
                    work.tx.add_key_package(suite, what, &made, now).await?;
                }
                Ok(())
            })
            .await?;
    }
    Ok(())
}

/// Uploads what the node may not have yet; how many it has then.
async fn upload(inner: &Inner) -> Result<KeyPackageCount> {
    loop {
        let max = u32::try_from(limit::KEYPACKAGES_PER_UPLOAD / 2).unwrap_or(1);
        let alive = inner.world.clock.now().after(UPLOAD_REMAINING);
        let rows =
            inner.work(async |work| work.tx.key_packages_to_upload(alive, max).await).await?;
        let mut request = UploadKeyPackages { packages: Vec::new(), last_resort: Vec::new() };
        for row in &rows {
            match row.what {
                Use::Once => request.packages.push(row.public.clone().into()),
                Use::LastResort => request.last_resort.push(row.public.clone().into()),
            }
        }
        let left = inner.api.upload(&request).await?;
        if rows.is_empty() {
            return Ok(left);
        }
        inner
            .work(async |work| {
                for row in &rows {
                    work.tx.key_package_uploaded(&row.reference).await?;
                }
                Ok(())
            })
            .await?;
    }
}

/// Learns of the person's other devices; the revoked ones.
///
/// # Errors
/// The node's.
pub(crate) async fn learn_devices(inner: &Inner) -> Result<Vec<DeviceId>> {
    let devices = inner.api.devices().await?.devices;
    let (revoked, live): (Vec<_>, Vec<_>) =
        devices.into_iter().partition(|device| device.revoked.is_some());
    let siblings = live.into_iter().map(|d| d.device).filter(|d| *d != inner.who.device);
    inner.core().await.siblings = siblings.collect();
    Ok(revoked.into_iter().map(|d| d.device).collect())
}

/// Takes the person's other devices into rooms where they are missing: made before this device knew of them, or entered when
/// they had no KeyPackage left. Room by room, so that messages go on in between.
async fn bring_along(inner: &Inner) -> Result<()> {
    if inner.core().await.siblings.is_empty() {
        return Ok(());
    }
    for row in inner.work(async |work| work.tx.rooms().await).await? {
        if row.status == RoomStatus::Active {
            inner.work(async |work| bring_into(work, &row).await).await?;
        }
    }
    Ok(())
}

async fn bring_into(work: &mut Work<'_>, row: &RoomRow) -> Result<()> {
    // It may have been left since it was listed.
    if work.tx.group_rows(row.no).await?.is_empty() {
        return Ok(());
    }
    let group = work.take_group(row.no).await?;
    let members = group.members().map_err(Error::crypto)?;
    work.put_group(row.no, group);
    let members: Vec<DeviceId> = members.iter().map(|m| m.certificate.device().clone()).collect();
    command::bring_siblings(work, row, &members, SPREAD).await
}

/// Wants a device of this person out of every room it is in.
///
/// # Errors
/// The disk's.
pub(crate) async fn expel(work: &mut Work<'_>, device: &DeviceId) -> Result<()> {
    for row in work.tx.rooms().await? {
        if !matches!(row.status, RoomStatus::Active | RoomStatus::Held { .. }) {
            continue;
        }
        let group = work.take_group(row.no).await?;
        let inside = is_member(&group, device)?;
        work.put_group(row.no, group);
        if inside {
            want_out(work, &row, device).await?;
        }
    }
    Ok(())
}

async fn want_out(work: &mut Work<'_>, row: &RoomRow, device: &DeviceId) -> Result<()> {
    let now = work.now();
    command::want_once(work, row, Action::RemoveDevice(device.clone()), now).await
}

fn is_member(group: &Group, device: &DeviceId) -> Result<bool> {
    let members = group.members().map_err(Error::crypto)?;
    Ok(members.iter().any(|m| m.certificate.device() == device))
}
