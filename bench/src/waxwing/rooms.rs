//! Rooms with real MLS groups, made through the node's own interface.

use std::time::Duration;

use crypto::group::{Change, Founding};
use crypto::keypackage::{self, Made, Use};
use crypto::{Group, PublicKey, Suite};
use node::clock::{SystemClock, SystemEntropy};
use protocol::api::{
    CreateRoom, Entries, Handshake, InboxItem, KeyPackageCount, LogRef, Payload, Read, Submit,
    SubmitReply, UploadKeyPackages, Welcome, decode,
};
use protocol::room::{Participant, ParticipantsUpdate, Role};
use protocol::{Clock as _, Cursor, Entropy as _, Incarnation, RoomId, Seq, SubmitId};

use crate::waxwing::api::Api;
use crate::waxwing::node::Node;
use crate::waxwing::people::Device;
use crate::{Outcome, failed};

/// A commit may change so many entries of the participant list.
const ADDED_AT_ONCE: usize = 16;
/// An invitation from another node takes a moment.
const INVITED_WITHIN: Duration = Duration::from_secs(30);

/// Founds a room at `hub` with its first speaker and everybody else in it; returns the groups of the speakers, in order. The silent
/// only need to be members.
///
/// # Errors
/// When a node refuses.
pub async fn found(
    hub: &Node,
    speakers: &[(&Api, &Device)],
    silent: &[Device],
) -> Outcome<Vec<Group>> {
    let [(api, founder), others @ ..] = speakers else { return failed("a room needs a founder") };
    let room =
        RoomId::new(&hub.domain, &SubmitId::from_bytes(SystemEntropy.bytes16()).to_string())?;
    let hub_key = PublicKey::from_bytes(hub.info.hub_key);
    let settings = Founding { room: room.clone(), suite: Suite::Classic, hub_key };
    let made =
        Group::create(&settings, founder.identity.clone(), SystemClock.now(), &SystemEntropy)?;
    let ask = CreateRoom { room, group_info: made.group_info, tree: made.tree };
    accepted(api.post("/v1/rooms", &founder.token, &ask).await?)?;
    let mut group = made.group;
    for some in silent.chunks(ADDED_AT_ONCE) {
        let made = some.iter().map(package).collect::<Outcome<Vec<_>>>()?;
        add(api, founder, &mut group, some.iter().zip(&made)).await?;
    }
    let packages = others.iter().map(|(_, device)| package(device)).collect::<Outcome<Vec<_>>>()?;
    for ((api, device), made) in others.iter().zip(&packages) {
        if device.id().domain() != &hub.domain {
            upload(api, device, made).await?;
        }
    }
    if !packages.is_empty() {
        add(api, founder, &mut group, others.iter().map(|(_, d)| *d).zip(&packages)).await?;
    }
    let mut groups = vec![group];
    for ((api, device), made) in others.iter().zip(&packages) {
        groups.push(join(api, device, made).await?);
    }
    Ok(groups)
}

fn package(device: &Device) -> Outcome<Made> {
    let (identity, now) = (&device.identity, SystemClock.now());
    Ok(keypackage::make(Suite::Classic, identity, Use::Once, now, &SystemEntropy)?)
}

/// A node knows whom an invitation from elsewhere is for by the KeyPackage it names.
async fn upload(api: &Api, device: &Device, made: &Made) -> Outcome<()> {
    let packages = vec![made.public.clone().into()];
    let ask = UploadKeyPackages { packages, last_resort: Vec::new() };
    let _: KeyPackageCount = api.post("/v1/keypackages", &device.token, &ask).await?;
    Ok(())
}

async fn add<'d>(
    api: &Api,
    founder: &Device,
    group: &mut Group,
    devices: impl Iterator<Item = (&'d Device, &'d Made)>,
) -> Outcome<()> {
    let (added, add) = devices
        .map(|(d, made)| (Participant { user: d.user(), role: Role::Member }, made.public.clone()))
        .unzip();
    let participants = ParticipantsUpdate { added, ..Default::default() };
    let change = Change { add, participants, ..Default::default() };
    let bundle = group.commit(&change, SystemClock.now(), &SystemEntropy)?;
    let handshake = Handshake { bundle: bundle.update_request, signature: bundle.signature };
    let submit = submission(group.room(), Payload::Handshake(handshake));
    accepted(api.post("/v1/submit", &founder.token, &submit).await?)?;
    Ok(group.merge_pending()?)
}

fn submission(room: &RoomId, payload: Payload) -> Submit {
    let submit_id = SubmitId::from_bytes(SystemEntropy.bytes16());
    Submit { submit_id, room: room.clone(), payload }
}

fn accepted(reply: SubmitReply) -> Outcome<()> {
    match reply {
        SubmitReply::Accepted(_) => Ok(()),
        SubmitReply::Stored => failed("the hub is another node"),
        SubmitReply::Refused(refusal) => failed(refusal.to_string()),
    }
}

/// Joins by the newest invitation in the inbox, once it is there.
async fn join(api: &Api, device: &Device, made: &Made) -> Outcome<Group> {
    let incarnation = api.node().await?.incarnation;
    let end = tokio::time::Instant::now() + INVITED_WITHIN;
    while tokio::time::Instant::now() < end {
        for welcome in invitations(api, device, incarnation).await? {
            if Group::welcome_for(&welcome.welcome)?.contains(&made.reference) {
                let identity = device.identity.clone();
                let (message, tree) = (&welcome.welcome, &welcome.tree);
                return Ok(Group::join(&welcome.room, message, tree, &made.private, identity)?);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    failed(format!("{} was not invited within {INVITED_WITHIN:?}", device.id()))
}

async fn invitations(
    api: &Api,
    device: &Device,
    incarnation: Incarnation,
) -> Outcome<Vec<Welcome>> {
    let (mut found, mut after) = (Vec::new(), Seq::new(0));
    loop {
        let ask = Read { log: LogRef::Inbox, after: Cursor { incarnation, seq: after }, max: 64 };
        let read: Entries = api.post("/v1/read", &device.token, &ask).await?;
        let Some(last) = read.entries.last() else { return Ok(found) };
        after = last.seq;
        for entry in &read.entries {
            if let protocol::api::Body::Full(bytes) = &entry.body
                && let InboxItem::Welcome(welcome) = decode(bytes)?
            {
                found.push(welcome);
            }
        }
    }
}
