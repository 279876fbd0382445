//! How a device comes to be: registering from an invitation, or being linked by another device. PROTOCOL §6.2, §6.9.
//!
//! Keys are written down before the node hears of them, so that a lost answer loses no account: the same call, made
//! again, finishes what was begun.

use crypto::seal::SealKey;
use crypto::{DeviceIdentity, DeviceKey, IdentityKey};
use minicbor::{Decode, Encode};
use protocol::api::{Login, OfferLink, Register, SignedIn, TakeLink};
use protocol::invite::{Line, LineKind};
use protocol::log::Digest;
use protocol::refusal::Lasting;
use protocol::{DeviceId, Refusal, RoomId, UserId, limit};

use crate::account::{Linking, Registration};
use crate::api::Api;
use crate::net::{Dialler, NodeAddress};
use crate::store::{Account, Action, NewAccount, PinRow, Stage, Store};
use crate::{Client, Error, Place, Result, RoomStatus, World, command};

/// What an existing device hands to a new one, sealed under the line's secret.
#[derive(Encode, Decode)]
struct Offer {
    #[n(0)]
    user: UserId,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    identity: [u8; 32],
    /// Rooms to join.
    #[n(2)]
    rooms: Vec<OfferedRoom>,
    /// Identity keys of the people met, so that the new device does not have to trust anybody at first sight again.
    #[n(3)]
    pins: Vec<PinRow>,
}

/// A room that a linked device joins.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct OfferedRoom {
    #[n(0)]
    pub(crate) room: RoomId,
    #[n(1)]
    pub(crate) suite: u16,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) hub_key: [u8; 32],
}

const OFFER_LABEL: &str = "link offer";
const OFFER_CONTEXT: &[u8] = b"waxwing link offer 1";

/// See [`Client::register_in`].
pub(crate) async fn register(place: Place, wanted: Registration<'_>) -> Result<Client> {
    let line = Line::parse(LineKind::Person, wanted.line)?;
    let user = UserId::new(&line.domain, wanted.name)?;
    check_name(wanted.device_name)?;
    check_password(wanted.password)?;
    let mut store = Store::open(&place).await?;
    let secret = *Digest::of_bytes(&line.secret).as_bytes();
    let known = pending(&mut store, &place).await?;
    let (account, fresh) = match known {
        Some((account, hash)) if hash == secret => {
            // The node may have these keys already, so nothing may take their place.
            if account.user != user {
                return Err(Error::Invalid(
                    "a registration with this invitation was begun here under another name; finish it under that name, \
                     or use another folder",
                ));
            }
            (account, false)
        }
        _ => {
            let identity = IdentityKey::generate(&*place.world.entropy);
            let hub_key = hub_key(&node_api(&address(&line), &place.world)?, &line).await?;
            let device_name = wanted.device_name;
            let new = Wanted { user: &user, device_name, identity, hub_key };
            let account = make_account(&line, new, &place.world)?;
            save(&mut store, &account).await?;
            (account, true)
        }
    };
    let request = Register {
        invite: line.secret_text(),
        user,
        password: wanted.password.to_owned(),
        identity_key: *account.identity().public().as_bytes(),
        device_name: account.device_name.clone(),
        certificate: account.certificate().to_vec(),
    };
    let signed_in = node_api(&account.node(), &place.world)?.register(&request).await;
    match signed_in {
        Ok(signed_in) => ready(store, place, account, signed_in).await,
        Err(Error::Refused(refusal)) => {
            if is_void(&refusal, fresh) {
                // Nothing was registered, so nothing may be left that looks like an account.
                store.discard().await?;
            }
            Err(Error::Refused(refusal))
        }
        Err(e) => Err(e),
    }
}

/// Whether a refusal shows that nothing is registered under the keys of this call. Of keys that an earlier call made the node may know,
/// whatever it says now: the name can be taken, and the invitation used up, by that very call. And a node that only cannot answer now may have
/// got as far as registering.
fn is_void(refusal: &Refusal, fresh: bool) -> bool {
    fresh && refusal.code.lasting() == Lasting::Permanent
}

/// See [`Client::link_in`].
pub(crate) async fn link(place: Place, wanted: Linking<'_>) -> Result<Client> {
    let line = Line::parse(LineKind::Device, wanted.line)?;
    check_name(wanted.device_name)?;
    let mut store = Store::open(&place).await?;
    let secret = *Digest::of_bytes(&line.secret).as_bytes();
    let account = match pending(&mut store, &place).await? {
        Some((account, hash)) if hash == secret => account,
        _ => take_offer(&mut store, &place, &line, wanted.device_name).await?,
    };
    let request = Login {
        user: account.user.clone(),
        password: wanted.password.to_owned(),
        device_name: account.device_name.clone(),
        certificate: account.certificate().to_vec(),
    };
    let signed_in = node_api(&account.node(), &place.world)?.login(&request).await?;
    ready(store, place, account, signed_in).await
}

/// The node hands an offer out once, so what is in it is written down before anything else can fail.
async fn take_offer(
    store: &mut Store,
    place: &Place,
    line: &Line,
    device_name: &str,
) -> Result<Account> {
    let api = node_api(&address(line), &place.world)?;
    let hub_key = hub_key(&api, line).await?;
    let id = *Digest::of_bytes(&line.secret).as_bytes();
    let sealed = api.take_link(&TakeLink { id }).await?.sealed;
    let bytes = SealKey::from_secret(&line.secret, OFFER_LABEL)
        .open(OFFER_CONTEXT, &sealed)
        .map_err(|_| Error::Answer { what: "the linking offer" })?;
    let offer: Offer =
        protocol::api::decode(&bytes).map_err(|_| Error::Answer { what: "the linking offer" })?;
    if *offer.user.domain() != line.domain {
        return Err(Error::Answer { what: "the linking offer" });
    }
    let identity = IdentityKey::from_bytes(&offer.identity);
    let wanted = Wanted { user: &offer.user, device_name, identity, hub_key };
    let account = make_account(line, wanted, &place.world)?;
    let mut tx = store.tx().await?;
    tx.put_account(&account).await?;
    for pin in &offer.pins {
        tx.put_pin(pin).await?;
    }
    let now = place.world.clock.now();
    for OfferedRoom { room, suite, hub_key } in offer.rooms {
        let row = tx.add_room(&room, None, suite, RoomStatus::Joining).await?;
        let position = tx.next_position().await?;
        let id = command::mint(&place.world);
        let action = Action::Join(hub_key);
        tx.put_command(&command::new(id, &row, position, action, now)).await?;
    }
    tx.commit().await?;
    Ok(account)
}

/// Leaves an offer at the node and makes the line for the new device.
pub(crate) async fn offer(
    api: &Api,
    account: &Account,
    rooms: Vec<OfferedRoom>,
    pins: Vec<PinRow>,
    world: &World,
) -> Result<String> {
    let secret = world.entropy.bytes32();
    let identity = *account.identity().to_bytes();
    let offer = Offer { user: account.user.clone(), identity, rooms, pins };
    let sealed = SealKey::from_secret(&secret, OFFER_LABEL).seal(
        OFFER_CONTEXT,
        &protocol::api::encode(&offer),
        &*world.entropy,
    );
    if sealed.len() > limit::LINK_BYTES {
        return Err(Error::Invalid("this device is in too many rooms to link another one"));
    }
    let id = *Digest::of_bytes(&secret).as_bytes();
    api.offer_link(&OfferLink { id, sealed }).await?;
    let NodeAddress { domain, host, port, node_key } = account.node();
    Ok(Line { kind: LineKind::Device, domain, host, port, node_key, secret }.to_string())
}

/// An account that was begun here; an error when one is complete.
async fn pending(store: &mut Store, place: &Place) -> Result<Option<(Account, [u8; 32])>> {
    let account = store.tx().await?.account().await?;
    match account {
        None => Ok(None),
        Some(account) => match account.stage {
            Stage::Pending(hash) => Ok(Some((account, hash))),
            Stage::Ready => Err(Error::AccountExists(place.dir.display().to_string())),
        },
    }
}

/// What an account is to be.
struct Wanted<'a> {
    user: &'a UserId,
    device_name: &'a str,
    identity: IdentityKey,
    hub_key: [u8; 32],
}

fn make_account(line: &Line, wanted: Wanted<'_>, world: &World) -> Result<Account> {
    let mut local = [0; 8];
    world.entropy.fill(&mut local);
    let local = format!("{:016x}", u64::from_be_bytes(local));
    let device = DeviceId::new(wanted.user, &local)?;
    let key = DeviceKey::generate(&*world.entropy);
    let certificate = wanted.identity.certify(&device, &key.public(), world.clock.now());
    let device = DeviceIdentity::new(key, certificate).map_err(Error::Refused)?;
    let new = NewAccount {
        node: address(line),
        hub_key: wanted.hub_key,
        device_name: wanted.device_name.to_owned(),
        identity: wanted.identity,
        device,
    };
    Ok(Account::new(new, Stage::Pending(*Digest::of_bytes(&line.secret).as_bytes())))
}

/// The key with which the line's node acts as a hub.
async fn hub_key(api: &Api, line: &Line) -> Result<[u8; 32]> {
    let info = api.node().await?;
    if info.domain == line.domain { Ok(info.hub_key) } else { Err(Error::Answer { what: "node" }) }
}

async fn save(store: &mut Store, account: &Account) -> Result<()> {
    let mut tx = store.tx().await?;
    tx.put_account(account).await?;
    tx.commit().await
}

async fn ready(
    mut store: Store,
    place: Place,
    mut account: Account,
    signed_in: SignedIn,
) -> Result<Client> {
    if signed_in.device != account.device {
        return Err(Error::Answer { what: "signing in" });
    }
    account.stage = Stage::Ready;
    account.token = Some(signed_in.token);
    let mut tx = store.tx().await?;
    tx.put_account(&account).await?;
    tx.put_pin(&PinRow {
        user: account.user.clone(),
        key: *account.identity().public().as_bytes(),
        since: place.world.clock.now(),
        other: None,
    })
    .await?;
    tx.commit().await?;
    Client::assemble(store, account, place.world)
}

fn node_api(node: &NodeAddress, world: &World) -> Result<Api> {
    Ok(Api::new(Dialler::new(node.clone(), &world.clock)?, None))
}

fn address(line: &Line) -> NodeAddress {
    NodeAddress {
        domain: line.domain.clone(),
        host: line.host.clone(),
        port: line.port,
        node_key: line.node_key,
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > limit::DEVICE_NAME_BYTES {
        return Err(Error::Invalid("a device's name has 1 to 64 bytes"));
    }
    Ok(())
}

fn check_password(password: &str) -> Result<()> {
    if (limit::PASSWORD_MIN_BYTES..=limit::PASSWORD_BYTES).contains(&password.len()) {
        return Ok(());
    }
    Err(Error::Invalid("a password has 8 to 1,024 bytes"))
}

#[cfg(test)]
mod tests {
    use protocol::Code;

    use super::*;

    #[test]
    fn keys_are_only_dropped_when_the_node_cannot_have_them() {
        for code in [Code::NameTaken, Code::BadInvite, Code::Invalid] {
            assert!(is_void(&code.into(), true), "{code}");
            assert!(
                !is_void(&code.into(), false),
                "{code}: an earlier call may have registered them"
            );
        }
        for code in [Code::RateLimited, Code::Unavailable, Code::DiskFull, Code::Internal] {
            assert!(!is_void(&code.into(), true), "{code}: it passes");
        }
    }
}
