//! KeyPackages: uploading them, and handing them out to those who may add their owners. PROTOCOL §6.4 and §6.5.

use std::collections::BTreeMap;
use std::sync::Arc;

use crypto::key_material::{self, KeyMaterialRequest};
use crypto::keypackage::{self, Use};
use protocol::api::{ClaimKeyMaterial, InboxItem, KeyPackageCount, UploadKeyPackages};
use protocol::mimi::{
    ClientKeyMaterial, ClientOutcome, KeyMaterialResponse, KeyMaterialUserCode, KeyPackageBytes,
};
use protocol::{Code, DeviceId, Domain, Refusal, Timestamp, UserId, limit};

use crate::app::App;
use crate::error::{Error, Outcome, Stop};
use crate::inbox;
use crate::store::keypackages::{self, KeyPackage};
use crate::store::logs::LogName;
use crate::store::{Tx, devices, logs, members};
use crate::worker::relay;

/// Takes KeyPackages of the caller.
///
/// # Errors
/// `TooLarge`, `BadKeyPackage`, `BadCertificate`, `DiskFull`; one bad package refuses all.
pub(crate) async fn upload(
    app: &Arc<App>,
    caller: &DeviceId,
    ask: UploadKeyPackages,
) -> Outcome<KeyPackageCount> {
    if ask.packages.len() > limit::KEYPACKAGES_PER_UPLOAD
        || ask.last_resort.len() > crypto::Suite::ALL.len()
    {
        return Err(Refusal::because(
            Code::TooLarge,
            "At most 100 packages and one last resort per suite.",
        )
        .into());
    }
    app.room_for_more()?;
    let (now, owner) = (app.now(), caller.clone());
    let packages = app.heavy(move || inspect(ask, &owner, now)).await??;
    let device = caller.clone();
    app.store
        .write(move |tx| {
            Box::pin(async move {
                let held: u32 = count(tx, &device, now).await?.iter().map(|(_, n)| n).sum();
                let mut fresh = 0_usize;
                let mut ready = false;
                for package in &packages {
                    let new = keypackages::add(tx, package).await?;
                    let once = package.usage == keypackages::Use::Once;
                    fresh += usize::from(new && once);
                    ready |= new && !once && held == 0;
                }
                if ready {
                    inbox::tell_siblings(tx, &device, now).await?;
                }
                if usize::try_from(held).unwrap_or(usize::MAX).saturating_add(fresh)
                    > limit::KEYPACKAGES_PER_DEVICE
                {
                    return Err(Refusal::because(
                        Code::TooLarge,
                        "A device keeps at most 200 packages.",
                    )
                    .into());
                }
                Ok(KeyPackageCount { left: count(tx, &device, now).await? })
            })
        })
        .await
}

/// The caller's packages, all checked.
fn inspect(
    ask: UploadKeyPackages,
    owner: &DeviceId,
    now: Timestamp,
) -> Result<Vec<KeyPackage>, Refusal> {
    let once = ask.packages.into_iter().map(|p| (p, Use::Once));
    let last = ask.last_resort.into_iter().map(|p| (p, Use::LastResort));
    once.chain(last)
        .map(|(bytes, wanted)| {
            let body: Vec<u8> = bytes.into();
            let info = keypackage::inspect(&body, now)?;
            let bad = |detail: &str| Refusal::because(Code::BadKeyPackage, detail);
            if info.certificate.device() != owner {
                return Err(bad("It is another device's."));
            }
            if info.what != wanted {
                return Err(bad("Only a last-resort package is marked as one."));
            }
            if !info.lives_long_enough(now) {
                return Err(bad("It does not live long enough."));
            }
            Ok(KeyPackage {
                reference: info.reference.as_bytes().to_vec(),
                device: owner.clone(),
                suite: info.suite.code(),
                body,
                not_after: info.not_after,
                usage: match wanted {
                    Use::Once => keypackages::Use::Once,
                    Use::LastResort => keypackages::Use::LastResort,
                },
            })
        })
        .collect()
}

async fn count(tx: &mut Tx, device: &DeviceId, now: Timestamp) -> Outcome<Vec<(u16, u32)>> {
    Ok(keypackages::count(tx, device, now.after(limit::KEYPACKAGE_REMAINING)).await?)
}

/// A device of ours wants to add somebody: through the room's hub, which may be us.
///
/// # Errors
/// `BadCertificate`, `NotFound`, `RateLimited`; what the hub or the target's node says.
pub(crate) async fn claim(
    app: &Arc<App>,
    caller: &DeviceId,
    ask: ClaimKeyMaterial,
) -> Outcome<Vec<u8>> {
    if ask.request.len() > limit::REQUEST_BYTES {
        return Err(Code::TooLarge.into());
    }
    let request = key_material::verify(&ask.request)?;
    if request.from.device() != caller {
        return Err(
            Refusal::because(Code::BadCertificate, "It is signed by another device.").into()
        );
    }
    if request.room != ask.room {
        return Err(Refusal::because(Code::Invalid, "It is signed for another room.").into());
    }
    app.quotas.claim(&caller.user())?;
    if *ask.room.hub() == app.domain {
        as_hub(app, &request, ask.request).await
    } else {
        relay::key_material(app, ask.room.hub(), &request.target, ask.request).await
    }
}

/// A peer asks: for one of its people, if we are the room's hub; or as the room's hub, for one of ours.
///
/// # Errors
/// `DomainMismatch` when it is neither.
pub(crate) async fn of_peer(app: &Arc<App>, peer: &Domain, body: Vec<u8>) -> Outcome<Vec<u8>> {
    let request = key_material::verify(&body)?;
    // Charged to the peer per target, never to a name that only the request gives: it could be one of ours, or a new one each time.
    if *request.room.hub() == app.domain && request.from.device().domain() == peer {
        app.quotas.claim_of_peer(peer, &request.target)?;
        return as_hub(app, &request, body).await;
    }
    if request.room.hub() == peer && *request.target.domain() == app.domain {
        app.quotas.claim_of_peer(peer, &request.target)?;
        return hand_out(app, &request).await;
    }
    Err(Refusal::because(Code::DomainMismatch, "The request is neither yours nor your room's.")
        .into())
}

/// We are the hub: only somebody in the room may ask.
async fn as_hub(app: &Arc<App>, request: &KeyMaterialRequest, body: Vec<u8>) -> Outcome<Vec<u8>> {
    let mut tx = app.store.snapshot().await?;
    let log = logs::find(&mut tx, &LogName::Room(request.room.clone())).await?;
    let log = log.ok_or(Code::NotFound)?;
    members::find(&mut tx, log.id, request.from.device()).await?.ok_or(Code::NotFound)?;
    drop(tx);
    if *request.target.domain() == app.domain {
        hand_out(app, request).await
    } else {
        relay::key_material(app, request.target.domain(), &request.target, body).await
    }
}

/// The target is one of ours: one package per device.
async fn hand_out(app: &Arc<App>, request: &KeyMaterialRequest) -> Outcome<Vec<u8>> {
    let (shared, target) = (app.clone(), request.target.clone());
    let suites: Vec<u16> = request.suites.iter().map(|s| s.code()).collect();
    let response = app.store.write(move |tx| Box::pin(take(tx, shared, target, suites))).await?;
    Ok(response.encode())
}

async fn take(
    tx: &mut Tx,
    app: Arc<App>,
    target: UserId,
    suites: Vec<u16>,
) -> Outcome<KeyMaterialResponse> {
    let now = app.now();
    let alive = now.after(limit::KEYPACKAGE_REMAINING);
    let devices = devices::of_user(tx, &target, DEVICES_MAX).await?;
    let mut clients: BTreeMap<DeviceId, ClientOutcome> = devices
        .into_iter()
        .filter(|d| d.revoked.is_none())
        .map(|d| (d.device, ClientOutcome::Exhausted))
        .collect();
    // All devices must be in one group, so one suite serves them all: the first in which every device has a package, or the most do.
    let mut best: Option<Vec<KeyPackage>> = None;
    let Some(suite) = suites.first() else { return Err(Code::Malformed.into()) };
    let claimed = keypackages::claim(tx, &target, *suite, alive, now).await?;
    best.get_or_insert(claimed);
    for package in best.unwrap_or_default() {
        let body = KeyPackageBytes::parse(package.body)
            .map_err(|_| Stop::Failed(Error::Damaged("a KeyPackage")))?;
        if package.usage == keypackages::Use::Once {
            tell_when_low(tx, &package.device, package.suite, now).await?;
        }
        clients.insert(package.device, ClientOutcome::Success(body));
    }
    let given = clients.values().filter(|c| matches!(c, ClientOutcome::Success(_))).count();
    // Nobody learns from the answer whether a name exists.
    let status = match given {
        0 => KeyMaterialUserCode::NoCompatibleMaterial,
        n if n == clients.len() => KeyMaterialUserCode::Success,
        _ => KeyMaterialUserCode::PartialSuccess,
    };
    if given == 0 {
        clients.clear();
    }
    let clients = clients
        .into_iter()
        .map(|(client, outcome)| ClientKeyMaterial { client, outcome })
        .collect();
    Ok(KeyMaterialResponse { status, user: target, clients })
}

/// Says once, when the stock falls below the mark, that more are needed; and again when it is empty.
async fn tell_when_low(tx: &mut Tx, device: &DeviceId, suite: u16, now: Timestamp) -> Outcome<()> {
    let left = count(tx, device, now).await?;
    let of_suite = left.iter().find(|(s, _)| *s == suite).map_or(0, |(_, n)| *n);
    let of_suite = usize::try_from(of_suite).unwrap_or(usize::MAX);
    if of_suite + 1 == limit::KEYPACKAGE_LOW || of_suite == 0 {
        let item = InboxItem::KeyPackagesLow(KeyPackageCount { left });
        inbox::put(tx, device, &item, now).await?;
    }
    Ok(())
}

const DEVICES_MAX: usize = 1_000;
