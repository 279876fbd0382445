//! A commit or proposals get their place. The MLS work is done outside the write transaction, on a snapshot; inside it is checked
//! that nothing came in between, and everything that follows from the handshake is written together. PROTOCOL §5.3.

use std::collections::BTreeSet;
use std::sync::Arc;

use crypto::hub::{Applied, Proposed};
use crypto::{HubGroup, NodeKey};
use delivery::room::{Admission, Event, Known, Prior, RoomHead, What, admit};
use protocol::api::{Accepted, Handshake};
use protocol::log::Digest;
use protocol::mimi::HandshakeBundle;
use protocol::{Code, DeviceId, Epoch, Refusal, RoomId, Seq, Timestamp, limit};

use super::Origin;
use super::effects::Placed;
use super::note::Note;
use crate::app::App;
use crate::devices;
use crate::error::{Error, Outcome, Stop};
use crate::store::logs::{self, Entry, LogId, LogName};
use crate::store::readers::Reader;
use crate::store::rooms;
use crate::store::submissions;
use crate::store::{StoreError, Tx, Wake};

/// A handshake whose framing was checked.
pub(crate) struct Handed {
    room: RoomId,
    epoch: Epoch,
    kind: Kind,
    /// The first MLS message: what a repetition by a peer is known by.
    message: Vec<u8>,
    bundle: Vec<u8>,
    signature: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Commit,
    Proposals,
}

impl Handed {
    /// From a device of ours: with its signature, always.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`.
    pub(crate) fn of_device(room: &RoomId, handshake: Handshake) -> Result<Self, Refusal> {
        Self::checked(room, handshake.bundle, Some(handshake.signature))
    }

    /// From a peer.
    ///
    /// # Errors
    /// As [`Self::of_device`].
    pub(crate) fn of_peer(
        room: &RoomId,
        bundle: Vec<u8>,
        signature: Option<Vec<u8>>,
    ) -> Result<Self, Refusal> {
        Self::checked(room, bundle, signature)
    }

    /// The first MLS message of the bundle.
    pub(crate) fn message(&self) -> &[u8] {
        &self.message
    }

    fn checked(
        room: &RoomId,
        bundle: Vec<u8>,
        signature: Option<Vec<u8>>,
    ) -> Result<Self, Refusal> {
        if bundle.len() > limit::BUNDLE_BYTES {
            return Err(Refusal::because(Code::TooLarge, "A handshake bundle has at most 4 MiB."));
        }
        let malformed = |detail: String| Refusal::because(Code::Malformed, detail);
        let parsed = HandshakeBundle::decode(&bundle).map_err(|e| malformed(e.to_string()))?;
        let (kind, frame) = match &parsed {
            HandshakeBundle::Commit { commit, .. } => (Kind::Commit, commit.view()),
            HandshakeBundle::Proposals { first, .. } => (Kind::Proposals, first.view()),
        };
        if frame.group_id != room.group().as_str().as_bytes() {
            return Err(malformed("It is for another group than the room's.".to_owned()));
        }
        let (epoch, message) = (frame.epoch, frame.bytes.to_vec());
        Ok(Self { room: room.clone(), epoch, kind, message, bundle, signature })
    }
}

/// What the handshake leads to, worked out on a snapshot.
enum Worked {
    /// With the removals that the hub proposes again in the new epoch, because a join could not carry them.
    Commit(Box<Applied>, Vec<Vec<u8>>),
    Proposals(Box<Proposed>),
}

/// The state that was worked on: the same must be there when the result is written.
#[derive(PartialEq, Eq)]
struct Basis {
    epoch: Epoch,
    newest_proposal: Seq,
}

async fn basis(tx: &mut Tx, room: &rooms::Room) -> Outcome<Basis> {
    let newest_proposal = rooms::newest_proposal(tx, room.log).await?;
    Ok(Basis { epoch: room.epoch, newest_proposal })
}

/// Checks a handshake and gives it its place, once.
pub(super) async fn submit(app: &Arc<App>, origin: Origin, handed: Handed) -> Outcome<Known> {
    let mut tx = app.store.snapshot().await?;
    let log =
        logs::find(&mut tx, &LogName::Room(handed.room.clone())).await?.ok_or(Code::NotFound)?;
    let room = rooms::find(&mut tx, &handed.room).await?.ok_or(Code::NotFound)?;
    let prior = origin.prior(&mut tx).await?;
    let head = super::application::head(&log, &room);
    // A repetition, and a handshake of an epoch that is over, are answered before anything costly.
    let event = Event { digest: origin.digest, epoch: handed.epoch, what: handed.what() };
    if let Admission::Again(known) = admit(&head, prior.as_ref(), &event, app.now())? {
        return Ok(known);
    }
    let basis = basis(&mut tx, &room).await?;
    let state = rooms::group(&mut tx, room.log).await?;
    drop(tx);
    let state = state.ok_or(Stop::Failed(Error::Damaged("a room without its group")))?;
    let now = app.now();
    let hub = app.keys.hub().clone();
    let (worked, handed) = app.heavy(move || work(&state, handed, &hub, now)).await??;
    judge(&origin.by, &worked)?;
    let shared = app.clone();
    app.store.write(move |tx| Box::pin(place(tx, shared, origin, (handed, worked), basis))).await
}

impl Handed {
    fn what(&self) -> What<'_> {
        match self.kind {
            Kind::Commit => What::Commit { body: &self.message, welcome: None },
            Kind::Proposals => What::Proposal(&self.message),
        }
    }
}

fn work(state: &[u8], handed: Handed, hub: &NodeKey, now: Timestamp) -> Outcome<(Worked, Handed)> {
    let group = HubGroup::from_bytes(state)?;
    let signature = handed.signature.as_deref();
    let worked = match handed.kind {
        Kind::Commit => {
            let mut applied = group.apply(&handed.bundle, signature, now)?;
            let mut again = Vec::new();
            for device in std::mem::take(&mut applied.lost) {
                let expelled = applied.group.expel(&device, hub, now)?;
                applied.group = expelled.group;
                again.push(expelled.message);
            }
            Worked::Commit(Box::new(applied), again)
        }
        Kind::Proposals => Worked::Proposals(Box::new(propose(&group, &handed, signature, now)?)),
    };
    Ok((worked, handed))
}

/// Every pending proposal must be in the next commit, so none is taken that would leave no valid one. PROTOCOL §7.4.
fn propose(
    group: &HubGroup,
    handed: &Handed,
    signature: Option<&[u8]>,
    now: Timestamp,
) -> Outcome<Proposed> {
    let pending = group.leaving();
    let proposed = group.propose(&handed.bundle, signature, now)?;
    delivery::commit::may_propose(&pending, &proposed.leaving)?;
    delivery::policy::judge_pending(&pending, &proposed.leaving)?;
    let user = proposed.by.user();
    let stays = |d: &DeviceId| !pending.contains(d) && !proposed.leaving.contains(d);
    if !group.members()?.iter().any(|d| d.user() == user && stays(d)) {
        delivery::policy::judge_leave(&group.participants()?, &user)?;
    }
    Ok(proposed)
}

/// Whether this sender may do this.
fn judge(by: &Reader, worked: &Worked) -> Result<(), Refusal> {
    let (sender, rule) = match worked {
        Worked::Commit(applied, _) => {
            (&applied.facts.committer, delivery::policy::judge(&applied.facts))
        }
        Worked::Proposals(proposed) => (&proposed.by, Ok(())),
    };
    let speaks = match by {
        Reader::Device(device) => device == sender,
        Reader::Peer(peer) => peer == sender.domain(),
    };
    if !speaks {
        return Err(Refusal::because(Code::NotFound, Code::NotFound.sentence()));
    }
    rule
}

/// Everything that follows from the handshake, in one transaction.
async fn place(
    tx: &mut Tx,
    app: Arc<App>,
    origin: Origin,
    (handed, worked): (Handed, Worked),
    on: Basis,
) -> Outcome<Known> {
    let log = logs::lock(tx, &LogName::Room(handed.room.clone())).await?.ok_or(Code::NotFound)?;
    let prior = origin.prior(tx).await?;
    let room = rooms::find(tx, &handed.room).await?.ok_or(Code::NotFound)?;
    let head = super::application::head(&log, &room);
    let write = Write { app: &app, origin: &origin, handed: &handed, log: log.id, prior, head, on };
    match worked {
        Worked::Commit(applied, again) => write.commit(tx, *applied, again).await,
        Worked::Proposals(proposed) => write.proposals(tx, *proposed).await,
    }
}

/// A transaction that gives a handshake its place.
struct Write<'a> {
    app: &'a App,
    origin: &'a Origin,
    handed: &'a Handed,
    log: LogId,
    prior: Option<Prior>,
    head: RoomHead,
    on: Basis,
}

impl Write<'_> {
    fn admit(&self, head: &RoomHead, what: What<'_>) -> Result<Admission, Refusal> {
        let event = Event { digest: self.origin.digest, epoch: self.handed.epoch, what };
        admit(head, self.prior.as_ref(), &event, self.app.now())
    }

    async fn commit(&self, tx: &mut Tx, applied: Applied, again: Vec<Vec<u8>>) -> Outcome<Known> {
        let welcome = applied.welcome.as_ref().map(|w| w.message.as_slice());
        let what = What::Commit { body: &applied.commit, welcome };
        let admitted = match self.admit(&self.head, what)? {
            Admission::Again(known) => return Ok(known),
            Admission::New(admitted) => admitted,
        };
        unchanged(tx, &self.handed.room, &self.on).await?;
        known_certificates(tx, self.app, &applied).await?;
        let room = &self.handed.room;
        let placed = Placed { log: self.log, room, facts: &applied.facts, admitted: &admitted };
        let note = placed.apply(tx, self.app).await?;
        let mut entries = vec![Entry::new(&admitted.entry, applied.commit.clone(), note.encode())];
        if let (Some(place), Some(welcome)) = (&admitted.welcome, &applied.welcome) {
            let tree = applied.group.tree_bytes();
            placed.welcome(tx, self.app, welcome, &tree).await?;
            let abroad = welcome.to.iter().map(|(_, d)| d.domain());
            let abroad: BTreeSet<_> = abroad.filter(|d| **d != self.app.domain).cloned().collect();
            let note = Note::of_welcome(tree, abroad.into_iter().collect());
            entries.push(Entry::new(place, welcome.message.clone(), note.encode()));
        }
        self.append(tx, &entries).await?;
        let state = applied.group.to_bytes();
        let moved = rooms::next_epoch(tx, self.log, self.on.epoch, &state).await?;
        rooms::clear_proposals(tx, self.log, self.on.epoch.next()).await?;
        self.propose_again(tx, admitted.head_after, again).await?;
        self.accepted(tx, moved, admitted.accepted())
    }

    /// Appends what the submission leads to, and remembers it.
    async fn append(&self, tx: &mut Tx, entries: &[Entry]) -> Result<(), StoreError> {
        submissions::place(tx, self.log, entries, &self.origin.key, &self.origin.digest).await
    }

    /// What the hub proposes again, right after the join that could not carry it.
    async fn propose_again(
        &self,
        tx: &mut Tx,
        mut head: RoomHead,
        messages: Vec<Vec<u8>>,
    ) -> Outcome<()> {
        let mut entries = Vec::new();
        for message in messages {
            let digest = Digest::of_bytes(&message);
            let event = Event { digest, epoch: head.epoch, what: What::Proposal(&message) };
            let Admission::New(admitted) = admit(&head, None, &event, self.app.now())? else {
                continue;
            };
            head = admitted.head_after;
            entries.push(Entry::new(&admitted.entry, message, None));
        }
        logs::append(tx, self.log, &entries).await?;
        self.pend(tx, head.epoch, &entries).await
    }

    /// Keeps proposals until a commit takes them in.
    async fn pend(&self, tx: &mut Tx, epoch: Epoch, entries: &[Entry]) -> Outcome<()> {
        for entry in entries {
            let proposal = rooms::Proposal {
                seq: entry.seq,
                epoch,
                reference: entry.digest.as_bytes().to_vec(),
            };
            rooms::add_proposal(tx, self.log, &proposal).await?;
        }
        Ok(())
    }

    async fn proposals(&self, tx: &mut Tx, proposed: Proposed) -> Outcome<Known> {
        let mut head = self.head;
        let mut first = None;
        let mut entries = Vec::new();
        for message in &proposed.messages {
            let admitted = match self.admit(&head, What::Proposal(message))? {
                Admission::Again(known) => return Ok(known),
                Admission::New(admitted) => admitted,
            };
            head = admitted.head_after;
            first.get_or_insert(admitted.accepted());
            entries.push(Entry::new(&admitted.entry, message.clone(), None));
        }
        unchanged(tx, &self.handed.room, &self.on).await?;
        self.append(tx, &entries).await?;
        self.pend(tx, self.on.epoch, &entries).await?;
        let state = proposed.group.to_bytes();
        let saved = rooms::save_group(tx, self.log, self.on.epoch, &state).await?;
        self.accepted(tx, saved, first.ok_or(Code::Malformed)?)
    }

    /// `moved` says whether the room was still at the epoch that was worked on.
    fn accepted(&self, tx: &mut Tx, moved: bool, accepted: Accepted) -> Outcome<Known> {
        if !moved {
            return Err(Refusal::new(Code::WrongEpoch).at_epoch(self.head.epoch).into());
        }
        tx.wake(Wake::Log(self.log));
        Ok(Known::Accepted(accepted))
    }
}

/// Nothing came between the snapshot and now. The epoch was compared by `admit`; a proposal changes the state within it.
async fn unchanged(tx: &mut Tx, room: &RoomId, on: &Basis) -> Outcome<()> {
    let now = rooms::find(tx, room).await?.ok_or(Code::NotFound)?;
    if basis(tx, &now).await? == *on {
        return Ok(());
    }
    let detail = "A proposal came first; the change must include it.";
    Err(Refusal::because(Code::MissingProposal, detail).at_epoch(now.epoch).into())
}

/// Leaves of our own people must be devices we know: certified, not revoked, under the same certificate.
async fn known_certificates(tx: &mut Tx, app: &App, applied: &Applied) -> Outcome<()> {
    let ours = applied.certificates.iter().filter(|c| *c.device().domain() == app.domain);
    for certificate in ours {
        if !devices::in_good_standing(tx, certificate).await? {
            let device = certificate.device();
            let detail = format!("{device} is not a device in good standing of this node.");
            return Err(Refusal::because(Code::BadCertificate, detail).into());
        }
    }
    Ok(())
}
