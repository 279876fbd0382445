//! A follower takes in what the hub sent: appends to its replica with the hub's own numbers, and carries out what the entries do to
//! its devices. PROTOCOL §9.7.

use std::sync::Arc;
use std::time::Duration;

use delivery::log::{Batch, Follow, FollowerHead, Head, follow};
use delivery::quota::{self, Amount};
use federation::headers::{FanoutRange, MemberChange, MemberEffects};
use protocol::api::{Gap, GapReason, InboxItem, Welcome};
use protocol::log::{Chain, Digest};
use protocol::mimi::{Fanout, FanoutMessage, RatchetTreeOption};
use protocol::{Code, Cursor, DeviceId, Domain, Refusal, RoomId, Seq, Timestamp};

use crate::app::App;
use crate::error::{Outcome, Stop};
use crate::inbox;
use crate::store::logs::{self, Entry, Log, LogName, Start};
use crate::store::rooms::Room;
use crate::store::{Tx, Wake, devices, keypackages, members, readers, rooms, submissions};
use crate::telemetry::Tag;

/// What a hub sent of one of its rooms.
pub(crate) struct Incoming {
    pub(crate) room: RoomId,
    pub(crate) range: FanoutRange,
    pub(crate) members: MemberEffects,
    pub(crate) messages: Vec<FanoutMessage>,
    /// Whether the hub has nothing any more before the first of them.
    pub(crate) rest_gone: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// It is here; the replica's head.
    Stored(Seq),
    /// Entries before it are missing; the replica's head.
    Behind(Seq),
}

/// Takes it in, in one transaction.
///
/// # Errors
/// `Malformed`, `ChainMismatch`, `WrongIncarnation`, `QueueFull`.
pub(crate) async fn receive(app: &Arc<App>, incoming: Incoming) -> Outcome<Received> {
    if usize::try_from(incoming.range.n) != Ok(incoming.messages.len()) {
        let detail = "The header counts other entries than the body.";
        return Err(Refusal::because(Code::Malformed, detail).into());
    }
    // Who joins by a Welcome reads from the entry after its commit on.
    let beyond = incoming.range.last().next();
    if incoming.members.list().iter().any(|e| e.at > beyond) {
        let detail = "The header names an effect of an entry that does not come with it.";
        return Err(Refusal::because(Code::Malformed, detail).into());
    }
    let shared = app.clone();
    app.store.write(move |tx| Box::pin(take(tx, shared, incoming))).await
}

async fn take(tx: &mut Tx, app: Arc<App>, incoming: Incoming) -> Outcome<Received> {
    let name = LogName::Replica(incoming.room.clone());
    let found = logs::lock(tx, &name).await?;
    let entries = entries(&incoming.messages)?;
    let digests: Vec<Digest> = entries.iter().map(|e| e.digest).collect();
    let range = &incoming.range;
    let batch = Batch {
        incarnation: range.incarnation,
        first: range.first,
        prev_chain: range.prev_chain,
        digests: &digests,
        rest_gone: incoming.rest_gone,
    };
    let (log, head, stored) = match found {
        Some(log) if log.incarnation != range.incarnation => {
            let Some(log) = new_life(tx, log, range).await? else {
                return Err(Code::WrongIncarnation.into());
            };
            if range.first > log.head.next() {
                return Ok(Received::Behind(log.head));
            }
            let head = Head { seq: log.head, chain: log.chain };
            let head = FollowerHead { incarnation: log.incarnation, head, read: true };
            (log, Some(head), None)
        }
        Some(log) => {
            let read =
                range.first > log.head.next() && readers::any_after(tx, log.id, log.head).await?;
            let head = Head { seq: log.head, chain: log.chain };
            let head = FollowerHead { incarnation: log.incarnation, head, read };
            let stored = logs::chain_at(tx, &log, range.last()).await?;
            (log, Some(head), stored)
        }
        None => match begin(tx, &app, &incoming).await? {
            Some(log) => (log, None, None),
            None => return Ok(Received::Behind(Seq::new(0))),
        },
    };
    let (skip, chains, gap) = match follow(head.as_ref(), &batch, stored) {
        Follow::Duplicate => return Ok(Received::Stored(log.head)),
        Follow::Gap { .. } => return Ok(Received::Behind(log.head)),
        Follow::ChainMismatch { at } => {
            tracing::error!(hub = %incoming.room.hub(), %at, "a hub shows another history of a room than before");
            return Err(Code::ChainMismatch.into());
        }
        Follow::OtherIncarnation { .. } => return Err(Code::WrongIncarnation.into()),
        Follow::Append { skip, chains, gap, .. } => (skip, chains, gap),
    };
    let before = log.head;
    let first = Seq::new(range.first.get().saturating_add(skip as u64));
    let log = step_over(tx, log, first, gap, range.prev_chain, app.now()).await?;
    let places = (first.get()..).map(Seq::new);
    let rows: Vec<Entry> = entries
        .into_iter()
        .skip(skip)
        .zip(chains)
        .zip(places)
        .map(|((entry, chain), seq)| Entry { seq, chain, ..entry })
        .collect();
    logs::append(tx, log.id, &rows).await?;
    Taking { app: &app, incoming: &incoming, log: &log, before }.finish(tx, skip, &rows).await?;
    tx.wake(Wake::Log(log.id));
    Ok(Received::Stored(rows.last().map_or(log.head, |e| e.seq)))
}

/// The entries that the messages stand for, one each; their places are still to be found.
fn entries(messages: &[FanoutMessage]) -> Result<Vec<Entry>, Refusal> {
    let one = |message: &FanoutMessage| match message.entries().as_slice() {
        _ if i64::try_from(message.at.ms()).is_err() => {
            Err(Refusal::because(Code::Malformed, "The time of an entry is beyond all times."))
        }
        [(kind, body)] => Ok(Entry {
            seq: Seq::new(0),
            at: message.at,
            kind: *kind,
            body: Some(body.to_vec()),
            digest: Digest::of_entry(*kind, message.at, body),
            chain: Chain::from_bytes([0; 32]),
            note: None,
        }),
        _ => Err(Refusal::because(Code::Malformed, "Each entry comes as a message of its own.")),
    };
    messages.iter().map(one).collect()
}

/// The hub's database was restored from a backup and goes on from an earlier place in a new life. If that place is in our replica
/// with the same chain, we go on from there too; what the hub lost is gone from it, and the devices are told by the new incarnation.
/// PROTOCOL §4.4.
async fn new_life(tx: &mut Tx, log: Log, range: &FanoutRange) -> Outcome<Option<Log>> {
    let place = range.first.prev();
    if place > log.head {
        return Ok(Some(log));
    }
    let ours = logs::chain_at(tx, &log, place).await?;
    if ours != Some(range.prev_chain) {
        tracing::error!(hub = %log.hub, "a hub began a new life with another history");
        return Ok(None);
    }
    let at = logs::entry(tx, log.id, place).await?.map_or(log.last_at, |e| e.at);
    let start = Start { incarnation: range.incarnation, seq: place, chain: range.prev_chain, at };
    logs::rewind(tx, log.id, &start).await?;
    // The hub may have lost what it had taken from our devices: they hand it in again, and it must go to the hub again.
    if let Some(room) = log.name.room() {
        submissions::forget(tx, room, at.before(CLOCKS_DIFFER)).await?;
    }
    tracing::warn!(hub = %log.hub, lost = log.head.get() - place.get(), "a hub was restored from a backup");
    Ok(Some(logs::get(tx, log.id).await?))
}

/// By how much a hub's clock may be ahead of ours: more than certificates allow.
const CLOCKS_DIFFER: Duration = Duration::from_hours(24);

/// A replica begins where the hub begins to send, if a device of ours joins there. If none does, our database was restored from a time
/// before the join, and the hub must begin there again.
async fn begin(tx: &mut Tx, app: &App, incoming: &Incoming) -> Outcome<Option<Log>> {
    let joins = |e: &federation::headers::MemberEffect| e.change == MemberChange::Joined;
    if !incoming.members.list().iter().any(joins) {
        return Ok(None);
    }
    one_more(tx, app, incoming.room.hub()).await?;
    let range = &incoming.range;
    let at = Timestamp::from_ms(0);
    let start = Start {
        incarnation: range.incarnation,
        seq: range.first.prev(),
        chain: range.prev_chain,
        at,
    };
    let name = LogName::Replica(incoming.room.clone());
    let hub = incoming.room.hub();
    let log = logs::create(tx, &name, hub, &start, app.now()).await?.ok_or(Code::Unavailable)?;
    let suite = incoming.messages.iter().find_map(|m| match &m.content {
        Fanout::Welcome { welcome, .. } => Some(welcome.view().suite),
        Fanout::Application { .. } | Fanout::Proposal { .. } | Fanout::Commit { .. } => None,
    });
    let room = Room {
        log,
        room: incoming.room.clone(),
        hub: hub.clone(),
        suite: suite.unwrap_or_default(),
        epoch: protocol::Epoch::new(0),
        created: app.now(),
    };
    rooms::create(tx, &room, None).await?;
    Ok(Some(logs::get(tx, log).await?))
}

/// Whether a peer may bring one room more. What is refused waits at its hub and is lost only if it expires there.
async fn one_more(tx: &mut Tx, app: &App, hub: &Domain) -> Outcome<()> {
    let most = app.config.limits.rooms_per_peer;
    let held = Amount { count: rooms::of_hub(tx, hub, most).await?, bytes: 0 };
    quota::rooms_of_peer(most.into()).admit(held, Amount::one(0)).map_err(|refusal| {
        tracing::error!(%hub, %refusal, "a peer brings more rooms than limits.rooms_per_peer allows; the new one waits there");
        refusal.into()
    })
}

/// Moves the replica over entries that it will never have: lost ones, or such that nobody here was reading.
async fn step_over(
    tx: &mut Tx,
    log: Log,
    first: Seq,
    gap: Option<Gap>,
    chain: Chain,
    now: Timestamp,
) -> Outcome<Log> {
    if first <= log.head.next() {
        return Ok(log);
    }
    let missing =
        gap.unwrap_or(Gap { first: log.head.next(), last: first.prev(), reason: GapReason::Lost });
    logs::skip(tx, log.id, &missing, &chain, now).await?;
    Ok(logs::get(tx, log.id).await?)
}

/// The place of a commit: its number, its time, the chain at it.
type Commit = (Seq, Timestamp, Chain);

/// A batch whose entries are appended.
struct Taking<'a> {
    app: &'a App,
    incoming: &'a Incoming,
    log: &'a Log,
    /// The replica's head before it.
    before: Seq,
}

impl Taking<'_> {
    async fn finish(&self, tx: &mut Tx, skip: usize, rows: &[Entry]) -> Outcome<()> {
        self.effects(tx).await?;
        let mut commit: Option<Commit> = None;
        for (message, row) in self.incoming.messages.iter().skip(skip).zip(rows) {
            match &message.content {
                Fanout::Commit { commit: bytes, .. } => {
                    rooms::follow_epoch(tx, self.log.id, bytes.view().epoch.next()).await?;
                    commit = Some((row.seq, row.at, row.chain));
                }
                Fanout::Welcome { welcome, tree } => {
                    self.welcome(tx, welcome, tree, (row.seq, commit)).await?;
                }
                Fanout::Application { .. } | Fanout::Proposal { .. } => {}
            }
        }
        Ok(())
    }

    /// The commit that a Welcome follows, when it came in an earlier batch.
    async fn commit_of(&self, tx: &mut Tx, welcome: Seq) -> Outcome<Option<Commit>> {
        let entry = logs::entry(tx, self.log.id, welcome.prev()).await?;
        Ok(entry.map(|e| (e.seq, e.at, e.chain)))
    }

    /// Only what the new entries do: a batch that came before has had its effect, and another may have followed since.
    async fn effects(&self, tx: &mut Tx) -> Outcome<()> {
        for effect in self.incoming.members.list().iter().filter(|e| e.at > self.before) {
            let known = devices::find(tx, &effect.device).await?;
            if known.is_none_or(|d| d.revoked.is_some()) {
                continue;
            }
            let reader = effect.device.clone().into();
            match effect.change {
                MemberChange::Joined => {
                    if !self.may_join(tx, &effect.device).await? {
                        continue;
                    }
                    let stays = readers::stays(tx, self.log.id, &reader).await?;
                    if !stays.iter().any(|stay| stay.until.is_none()) {
                        readers::add(tx, self.log.id, &reader, effect.at).await?;
                    }
                    members::add(tx, self.log.id, &effect.device, effect.at).await?;
                }
                MemberChange::Removed => {
                    readers::end(tx, self.log.id, &reader, effect.at).await?;
                    members::remove(tx, self.log.id, &effect.device).await?;
                }
            }
            tx.wake(Wake::Device(effect.device.clone()));
        }
        Ok(())
    }

    /// One device's bound must not keep the room from the others, so its join is left out instead of refused.
    async fn may_join(&self, tx: &mut Tx, device: &DeviceId) -> Outcome<bool> {
        if members::find(tx, self.log.id, device).await?.is_some() {
            return Ok(true);
        }
        match super::room_for_one(tx, device).await {
            Ok(()) => Ok(true),
            Err(Stop::Refused(refusal)) => {
                tracing::error!(hub = %self.log.hub, device = %Tag(device.as_str()), %refusal, "a device of this node was added to a room beyond its bound and does not get it");
                Ok(false)
            }
            Err(failed) => Err(failed),
        }
    }

    async fn welcome(
        &self,
        tx: &mut Tx,
        welcome: &protocol::mimi::WelcomeMessageBytes,
        tree: &RatchetTreeOption,
        (place, commit): (Seq, Option<Commit>),
    ) -> Outcome<()> {
        for reference in welcome.view().new_members() {
            // One for devices of other nodes comes without the tree, which is of no use here.
            let Some(device) = keypackages::device_of(tx, reference).await? else { continue };
            let RatchetTreeOption::Full(tree) = tree else {
                let detail = "A Welcome comes with its whole ratchet tree.";
                return Err(Refusal::because(Code::Malformed, detail).into());
            };
            if readers::stays(tx, self.log.id, &device.clone().into()).await?.is_empty() {
                // Its join was left out: it could open the room and would never get anything of it.
                continue;
            }
            let commit = match commit {
                Some(commit) => Some(commit),
                None => self.commit_of(tx, place).await?,
            };
            let Some((seq, at, chain)) = commit else {
                // The hub no longer has it; the device joins by itself or is added anew.
                tracing::warn!(hub = %self.log.hub, "a Welcome came without its commit");
                continue;
            };
            let item = InboxItem::Welcome(Welcome {
                room: self.incoming.room.clone(),
                cursor: Cursor { incarnation: self.incoming.range.incarnation, seq },
                chain,
                at,
                welcome: welcome.as_slice().to_vec(),
                tree: tree.as_slice().to_vec(),
            });
            match inbox::put(tx, &device, &item, self.app.now()).await {
                // One device that does not come must not stop the room for all others of this node.
                Err(Stop::Refused(refusal)) if refusal.code == Code::QueueFull => {
                    tracing::error!(hub = %self.log.hub, device = %Tag(device.as_str()), %refusal, "a Welcome was left out: the device must join by itself");
                }
                other => other?,
            }
        }
        Ok(())
    }
}
