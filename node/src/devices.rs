//! A person's devices: who is calling, which there are, revoking one, offers to link a new one. PROTOCOL §6.3 and §6.9.

use std::sync::Arc;
use std::time::Duration;

use crypto::Certificate;
use protocol::api::{DeviceInfo, Devices, LinkOffer, OfferLink, TakeLink};
use protocol::{Code, DeviceId, Refusal, limit};

use crate::app::App;
use crate::error::Outcome;
use crate::inbox;
use crate::store::{Tx, Wake, devices, links, readers};

/// The device whose token this is.
///
/// # Errors
/// `Unauthenticated`.
pub(crate) async fn by_token(app: &App, token: &str) -> Outcome<DeviceId> {
    if token.len() > TOKEN_BYTES {
        return Err(Code::Unauthenticated.into());
    }
    let hash = crypto::token::hash(token);
    let mut tx = app.store.snapshot().await?;
    devices::by_token(&mut tx, &hash).await?.ok_or_else(|| Code::Unauthenticated.into())
}

/// Whether this node knows the device, under this very certificate, and it was not revoked.
pub(crate) async fn in_good_standing(tx: &mut Tx, certificate: &Certificate) -> Outcome<bool> {
    let known = devices::find(tx, certificate.device()).await?;
    Ok(known.is_some_and(|d| d.revoked.is_none() && d.certificate == certificate.as_bytes()))
}

/// The caller's devices, oldest first.
pub(crate) async fn list(app: &App, caller: &DeviceId) -> Outcome<Devices> {
    let mut tx = app.store.snapshot().await?;
    let found = devices::of_user(&mut tx, &caller.user(), DEVICES_SHOWN).await?;
    let info = |d: devices::Device| DeviceInfo {
        device: d.device,
        name: d.name,
        created: d.created,
        seen: d.seen,
        revoked: d.revoked,
    };
    Ok(Devices { devices: found.into_iter().map(info).collect() })
}

/// Revokes one of the caller's devices: its tokens, KeyPackages and readers are gone and its stream has ended when this returns.
///
/// # Errors
/// `NotFound` for a device that is not there or not the caller's.
pub(crate) async fn revoke(app: &Arc<App>, caller: &DeviceId, device: DeviceId) -> Outcome<()> {
    if device.user() != caller.user() {
        return Err(Code::NotFound.into());
    }
    let (shared, revoked) = (app.clone(), device.clone());
    app.store
        .write(move |tx| {
            Box::pin(async move {
                let known = devices::find(tx, &revoked).await?;
                known.ok_or(Code::NotFound)?;
                if devices::revoke(tx, &revoked, shared.now()).await? {
                    // It never comes back, so nothing is kept for it.
                    readers::remove(tx, &revoked.clone().into()).await?;
                    inbox::tell_siblings(tx, &revoked, shared.now()).await?;
                    tx.wake(Wake::Device(revoked));
                }
                Outcome::Ok(())
            })
        })
        .await?;
    app.streams.close(&device, Code::Unauthenticated.into());
    Ok(())
}

/// Notes that a device is connected, to the minute.
pub(crate) async fn seen(app: &App, device: DeviceId) {
    let now = app.now();
    let noted = app
        .store
        .write(move |tx| {
            Box::pin(async move { devices::touch(tx, &device, now, now.before(SEEN_EVERY)).await })
        })
        .await;
    if let Err(error) = noted {
        tracing::debug!(%error, "when a device was seen could not be noted");
    }
}

/// Leaves a sealed offer for a new device of the caller.
///
/// # Errors
/// `TooLarge`, `DiskFull`.
pub(crate) async fn offer_link(app: &Arc<App>, caller: &DeviceId, offer: OfferLink) -> Outcome<()> {
    if offer.sealed.len() > limit::LINK_BYTES {
        return Err(Refusal::because(Code::TooLarge, "A linking offer has at most 256 KiB.").into());
    }
    app.room_for_more()?;
    let (expires, caller) = (app.now().after(limit::LINK_LIFETIME), caller.clone());
    app.store
        .write(move |tx| {
            Box::pin(async move {
                links::offer(tx, &offer.id, &caller, &offer.sealed, expires).await?;
                Ok(())
            })
        })
        .await
}

/// Hands an offer out, again and again until it expires: the new device may not have got the answer.
///
/// # Errors
/// `NotFound` when it is not there or expired.
pub(crate) async fn take_link(app: &Arc<App>, ask: TakeLink) -> Outcome<LinkOffer> {
    let now = app.possibly();
    let taken = links::take(&mut app.store.snapshot().await?, &ask.id, now).await?;
    let (_, sealed) = taken.ok_or(Code::NotFound)?;
    Ok(LinkOffer { sealed })
}

/// A token has 43 characters.
const TOKEN_BYTES: usize = 64;
/// Revoked ones are shown too.
const DEVICES_SHOWN: usize = 1_000;
const SEEN_EVERY: Duration = Duration::from_mins(1);
