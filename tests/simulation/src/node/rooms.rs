//! Submissions get their place; followers take in what hubs send.

use std::collections::BTreeSet;
use std::rc::Rc;

use delivery::log::{Batch, Follow, FollowerHead, follow};
use delivery::quota::Amount;
use delivery::reader::{Joined, Reader};
use delivery::room::{Admission, Admitted, Event as Handed, Known, Prior, RoomHead, What, admit};
use protocol::api::{Gap, GapReason, SubmitReply};
use protocol::log::{Chain, Digest, EntryKind};
use protocol::{Code, Cursor, Epoch, Refusal, Seq, SubmitId};

use super::lanes::Entries;
use super::state::{Effect, EntryRow, Kept, LogName, LogRow, Memory, SubKey, Who};
use super::{Answer, Node, Then};
use crate::bug::Bug;
use crate::ctx::Ctx;
use crate::names::{DevNo, NodeNo, RoomNo};
use crate::sealed::{Bundle, Commit, HubGroup, Wire, decode, encode};
use crate::wire::{Down, Item, Payload};

/// Who speaks for a submission.
#[derive(Clone, Copy)]
pub(super) enum By {
    Device(DevNo),
    Peer(NodeNo),
}

/// The end of a replica, and the chain in it at the end of a batch.
type Replica = (Option<FollowerHead>, Option<Chain>);

type Placed = Result<(Known, Vec<Then>), Refusal>;

impl Node {
    /// A device of ours hands something in. Gives the refusal that can be told at once.
    pub(super) fn submit(
        &mut self,
        cx: &mut Ctx,
        device: DevNo,
        conn: u64,
        (id, room): (SubmitId, RoomNo),
        payload: &Payload,
    ) -> Option<Refusal> {
        let key = SubKey::Device(device, room, id);
        let known = self.disk.live().memory.contains_key(&key);
        if self.refusing && !known {
            return Some(Code::NotAllowed.into());
        }
        if let (Err(full), false) = (self.room_for_more(), known) {
            return Some(full);
        }
        if !self.writable(cx) {
            return Some(Code::Internal.into());
        }
        let placed = if cx.hub(room) == self.no {
            self.place(cx, key, By::Device(device), room, payload)
        } else {
            self.keep(cx, key, room, Kept { device, id, payload: payload.clone() })
        };
        match placed {
            Ok((known, mut then)) => {
                let reply = match known {
                    Known::Accepted(accepted) => SubmitReply::Accepted(accepted),
                    Known::Stored => SubmitReply::Stored,
                    Known::Refused => SubmitReply::Refused(Code::Unavailable.into()),
                };
                then.push(Then::Reply(device, conn, Box::new(Down::Reply(id, reply))));
                self.commit(cx, then);
                None
            }
            Err(refusal) => Some(refusal),
        }
    }

    /// A peer hands in what one of its devices wrote.
    pub(super) fn submitted(
        &mut self,
        cx: &mut Ctx,
        (peer, id): (NodeNo, u64),
        room: RoomNo,
        payload: &Payload,
    ) {
        let bytes: Rc<[u8]> = match payload {
            Payload::App(bytes) => Rc::clone(bytes),
            Payload::Handshake(bytes) => match decode::<Bundle>(bytes) {
                Some(bundle) => bundle.message.into(),
                None => return,
            },
        };
        let key = SubKey::Peer(peer, room, *Digest::of_bytes(&bytes).as_bytes());
        let known = self.disk.live().memory.contains_key(&key);
        let refusal = match self.room_for_more() {
            Err(full) if !known => Some(full),
            _ if !self.writable(cx) => Some(Code::Internal.into()),
            _ => None,
        };
        let placed = match refusal {
            Some(refusal) => Err(refusal),
            None => self.place(cx, key, By::Peer(peer), room, payload),
        };
        match placed {
            Ok((_, mut then)) => {
                then.push(Then::Respond(peer, id, Answer::Done));
                self.commit(cx, then);
            }
            Err(refusal) => cx.respond(self.no, peer, id, Rc::new(Answer::Refused(refusal))),
        }
    }

    fn prior(&self, cx: &Ctx, key: &SubKey, digest: &Digest) -> Option<Prior> {
        if cx.bug(Bug::HubDedupOff) {
            return None;
        }
        let memory = self.disk.live().memory.get(key)?;
        let digest = if matches!(key, SubKey::Peer(..)) { *digest } else { memory.digest };
        Some(Prior { digest, known: memory.known })
    }

    /// Gives a submission its place in a room that this node orders.
    fn place(
        &mut self,
        cx: &mut Ctx,
        key: SubKey,
        by: By,
        room: RoomNo,
        payload: &Payload,
    ) -> Placed {
        let digest = Self::digest(payload);
        let prior = self.prior(cx, &key, &digest);
        let state = self.disk.live();
        let log = state.logs.get(&LogName::Room(room)).ok_or(Code::NotFound)?;
        let group = state.groups.get(&room).ok_or(Code::NotFound)?;
        let head = RoomHead {
            incarnation: log.incarnation,
            head: log.head,
            chain: log.chain,
            last_at: if cx.bug(Bug::ClockTimes) {
                protocol::Timestamp::default()
            } else {
                log.last_at
            },
            epoch: Epoch::new(group.epoch),
        };
        match payload {
            Payload::App(bytes) => {
                let Some(Wire::App(app)) = decode::<Wire>(bytes) else {
                    return Err(Code::Malformed.into());
                };
                let from = DevNo(app.from);
                if prior.is_none() && !(speaks(cx, by, from) && inside(cx, by, group, from)) {
                    return Err(Code::NotFound.into());
                }
                let any = cx.bug(Bug::EpochCheckOff);
                let epoch = if any { head.epoch } else { Epoch::new(app.epoch) };
                let event = Handed { digest, epoch, what: What::Application(bytes) };
                let admitted = match admit(&head, prior.as_ref(), &event, self.now(cx))? {
                    Admission::Again(known) => return Ok((known, Vec::new())),
                    Admission::New(admitted) => admitted,
                };
                Ok(self.append(cx, room, key, digest, (&admitted, Rc::clone(bytes), Vec::new())))
            }
            Payload::Handshake(bytes) => {
                let bundle = decode::<Bundle>(bytes).ok_or(Code::Malformed)?;
                self.handshake(cx, key, by, room, (bundle, digest, prior, head))
            }
        }
    }

    fn handshake(
        &mut self,
        cx: &mut Ctx,
        key: SubKey,
        by: By,
        room: RoomNo,
        (bundle, digest, prior, head): (Bundle, Digest, Option<Prior>, RoomHead),
    ) -> Placed {
        let group = self.disk.live().groups.get(&room).cloned().ok_or(Code::NotFound)?;
        let message: Rc<[u8]> = bundle.message.clone().into();
        let now = self.now(cx);
        match decode::<Wire>(&bundle.message) {
            Some(Wire::Leave(leave)) => {
                let (from, epoch) = (DevNo(leave.from), Epoch::new(leave.epoch));
                let event = Handed { digest, epoch, what: What::Proposal(&message) };
                let admitted = match admit(&head, prior.as_ref(), &event, now)? {
                    Admission::Again(known) => return Ok((known, Vec::new())),
                    Admission::New(admitted) => admitted,
                };
                if !speaks(cx, by, from) || !group.members.contains(&from) {
                    return Err(Code::NotFound.into());
                }
                let pending: Vec<DevNo> = group.leaving.iter().copied().collect();
                delivery::commit::may_propose(&pending, &[from])?;
                if group.members.len() <= pending.len() + 1 {
                    return Err(Code::NotAllowed.into());
                }
                self.disk.write(move |s| {
                    if let Some(g) = s.groups.get_mut(&room) {
                        g.leaving.insert(from);
                    }
                });
                Ok(self.append(cx, room, key, digest, (&admitted, message, Vec::new())))
            }
            Some(Wire::Commit(commit)) => {
                let welcome = bundle.welcome.as_ref().map(encode);
                let any = cx.bug(Bug::EpochSwapOff);
                let epoch = if any { head.epoch } else { Epoch::new(commit.epoch) };
                let what = What::Commit { body: &message, welcome: welcome.as_deref() };
                let event = Handed { digest, epoch, what };
                let admitted = match admit(&head, prior.as_ref(), &event, now) {
                    Ok(Admission::Again(known)) => return Ok((known, Vec::new())),
                    Ok(Admission::New(admitted)) => admitted,
                    Err(refusal) => {
                        self.lost_welcome(cx, room, &head, &bundle);
                        return Err(refusal);
                    }
                };
                judge(cx, by, &group, &commit)?;
                Ok(self.commit_placed(cx, room, (key, digest), &admitted, (commit, bundle, group)))
            }
            _ => Err(Code::Malformed.into()),
        }
    }

    /// Planted: the Welcome of a refused commit is handed out nevertheless.
    fn lost_welcome(&mut self, cx: &mut Ctx, room: RoomNo, head: &RoomHead, bundle: &Bundle) {
        let Some(welcome) = bundle.welcome.clone().filter(|_| cx.bug(Bug::LoserWelcome)) else {
            return;
        };
        let cursor = Cursor { incarnation: head.incarnation, seq: head.head };
        let chain = head.chain;
        let mut then = Vec::new();
        for package in &welcome.to {
            let device = DevNo(package.device);
            if cx.names.home(device) == self.no {
                let item = Rc::new(Item::Welcome { welcome: welcome.clone(), cursor, chain });
                let from = head.head.next();
                self.disk.write(move |s| {
                    s.put(device, Rc::clone(&item));
                    if let Some(log) = s.logs.get_mut(&LogName::Room(room)) {
                        log.join(Who::Device(device), from);
                    }
                });
                then.push(Then::Reload(device));
            }
        }
        self.commit(cx, then);
    }

    fn commit_placed(
        &mut self,
        cx: &mut Ctx,
        room: RoomNo,
        (key, digest): (SubKey, Digest),
        admitted: &Admitted,
        (commit, bundle, group): (Commit, Bundle, HubGroup),
    ) -> (Known, Vec<Then>) {
        let mut then = Vec::new();
        let seq = admitted.entry.seq;
        let after = advanced(&group, &commit, bundle.external);
        let mut effects = Vec::new();
        for device in group.members.difference(&after.members).copied() {
            self.leave(cx, room, device, seq, &mut effects, &mut then);
        }
        let homes: BTreeSet<NodeNo> = after.members.iter().map(|d| cx.names.home(*d)).collect();
        for node in group.members.iter().map(|d| cx.names.home(*d)) {
            if node != self.no && !homes.contains(&node) {
                self.disk.write(move |s| {
                    if let Some(log) = s.logs.get_mut(&LogName::Room(room)) {
                        log.end_stay(Who::Peer(node), seq);
                    }
                });
            }
        }
        let how = if commit.external { Joined::External } else { Joined::Welcome };
        let from = Reader::joined(seq, how).from;
        let from = if cx.bug(Bug::JoinFromStart) { Seq::new(1) } else { from };
        for device in after.members.difference(&group.members).copied() {
            self.join(cx, room, device, (seq, from), &mut effects, &mut then);
        }
        if let (Some(place), Some(welcome)) = (&admitted.welcome, &bundle.welcome) {
            let body: Rc<[u8]> = encode(welcome).into();
            let row = row(place, body, Vec::new());
            let cursor = Cursor { incarnation: admitted.head_after.incarnation, seq };
            let item =
                Item::Welcome { welcome: welcome.clone(), cursor, chain: admitted.entry.chain };
            let item = Rc::new(item);
            let to = welcome.to.iter().map(|p| DevNo(p.device));
            let ours: Vec<DevNo> = to.filter(|d| cx.names.home(*d) == self.no).collect();
            for device in ours {
                let item = Rc::clone(&item);
                self.disk.write(move |s| s.put(device, Rc::clone(&item)));
                then.push(Then::Reload(device));
            }
            let message: Rc<[u8]> = bundle.message.into();
            let (known, more) = self.append(cx, room, key, digest, (admitted, message, effects));
            self.disk.write(move |s| {
                if let Some(log) = s.logs.get_mut(&LogName::Room(room)) {
                    log.append(Rc::clone(&row));
                }
            });
            self.disk.write(move |s| drop(s.groups.insert(room, after.clone())));
            then.extend(more);
            return (known, then);
        }
        self.disk.write(move |s| drop(s.groups.insert(room, after.clone())));
        let message: Rc<[u8]> = bundle.message.into();
        let (known, more) = self.append(cx, room, key, digest, (admitted, message, effects));
        then.extend(more);
        (known, then)
    }

    fn leave(
        &mut self,
        cx: &Ctx,
        room: RoomNo,
        device: DevNo,
        at: Seq,
        effects: &mut Vec<Effect>,
        then: &mut Vec<Then>,
    ) {
        if cx.names.home(device) != self.no {
            effects.push(Effect { device, joined: false, at });
            return;
        }
        if !cx.bug(Bug::RemovalIgnored) {
            self.disk.write(move |s| {
                if let Some(log) = s.logs.get_mut(&LogName::Room(room)) {
                    log.end_stay(Who::Device(device), at);
                }
            });
        }
        then.push(Then::Reload(device));
    }

    fn join(
        &mut self,
        cx: &Ctx,
        room: RoomNo,
        device: DevNo,
        (commit, from): (Seq, Seq),
        effects: &mut Vec<Effect>,
        then: &mut Vec<Then>,
    ) {
        let home = cx.names.home(device);
        let who = if home == self.no { Who::Device(device) } else { Who::Peer(home) };
        let from = if home == self.no {
            from
        } else {
            effects.push(Effect { device, joined: true, at: from });
            commit
        };
        let open = self.disk.live().logs.get(&LogName::Room(room)).is_some_and(|l| l.open(who));
        if home == self.no || !open {
            self.disk.write(move |s| {
                if let Some(log) = s.logs.get_mut(&LogName::Room(room)) {
                    log.join(who, from);
                }
            });
        }
        then.push(if home == self.no { Then::Reload(device) } else { Then::Lanes(home) });
    }

    /// Writes an admitted entry, the memory of its submission, and nothing else.
    fn append(
        &mut self,
        cx: &mut Ctx,
        room: RoomNo,
        key: SubKey,
        digest: Digest,
        (admitted, body, effects): (&Admitted, Rc<[u8]>, Vec<Effect>),
    ) -> (Known, Vec<Then>) {
        let known = Known::Accepted(admitted.accepted());
        let row = row(&admitted.entry, body, effects);
        let name = LogName::Room(room);
        if cx.bug(Bug::HeadApart) {
            let (row, seq) = (Rc::clone(&row), row.seq);
            self.disk.write(move |s| {
                if let Some(log) = s.logs.get_mut(&name) {
                    log.head = seq;
                    log.chain = row.chain;
                    log.last_at = row.at;
                }
            });
            self.commit(cx, Vec::new());
        }
        self.disk.write(move |s| {
            if let Some(log) = s.logs.get_mut(&name) {
                log.append(Rc::clone(&row));
            }
        });
        if cx.bug(Bug::MemoryApart) {
            self.commit(cx, vec![Then::Grown(name)]);
        }
        self.disk.write(move |s| {
            s.memory.insert(key, Memory { digest, known });
        });
        (known, vec![Then::Grown(name)])
    }

    /// Keeps a submission for the room's hub.
    fn keep(&mut self, cx: &mut Ctx, key: SubKey, room: RoomNo, kept: Kept) -> Placed {
        let digest = Self::digest(&kept.payload);
        let state = self.disk.live();
        let prior = state.memory.get(&key);
        let prior = prior.map(|m| Prior { digest: m.digest, known: m.known });
        if prior.is_none() && !enters(&kept.payload) {
            let replica = state.logs.get(&LogName::Replica(room)).ok_or(Code::NotFound)?;
            if !replica.open(Who::Device(kept.device)) {
                return Err(Code::NotFound.into());
            }
        }
        let name = LogName::Uplink(room);
        let fresh = LogRow::new(state.incarnation, Seq::new(0), Chain::from_bytes([0; 32]));
        let log = state.logs.get(&name);
        let held = log.map_or(0, |l| l.entries.len() as u64);
        match delivery::room::uplink(prior.as_ref(), &digest, Amount { count: held, bytes: 0 }, 1)?
        {
            delivery::room::Uplink::Again(_) => return Ok((Known::Stored, Vec::new())),
            delivery::room::Uplink::New => {}
        }
        let end = log.unwrap_or(&fresh).end();
        let placed = end.append(EntryKind::Item, self.now(cx), digest.as_bytes());
        let mut row = (*row(&placed, Rc::from(&[][..]), Vec::new())).clone();
        row.kept = Some(kept);
        let (row, hub) = (Rc::new(row), cx.hub(room));
        self.disk.write(move |s| {
            let log = s.logs.entry(name).or_insert_with(|| {
                let mut log = fresh.clone();
                log.join(Who::Peer(hub), Seq::new(1));
                log
            });
            log.append(Rc::clone(&row));
            s.memory.insert(key, Memory { digest, known: Known::Stored });
        });
        Ok((Known::Stored, vec![Then::Grown(name)]))
    }

    /// Takes in what a hub sent: to a request, or because it was asked for.
    pub(super) fn receive(
        &mut self,
        cx: &mut Ctx,
        room: RoomNo,
        batch: &Entries,
        rest_gone: bool,
        mut then: Vec<Then>,
    ) -> Result<Taken, Refusal> {
        if !self.writable(cx) {
            return Err(Code::Internal.into());
        }
        let digests: Vec<Digest> = batch.entries.iter().map(|e| e.digest).collect();
        let read = Batch {
            incarnation: batch.incarnation,
            first: batch.first,
            prev_chain: batch.prev_chain,
            digests: &digests,
            rest_gone,
        };
        let (head, stored) = match self.known(room, batch)? {
            Ok(known) => known,
            Err(head) => return Ok(Taken::Behind(head)),
        };
        let before = head.map_or(Seq::new(0), |h| h.head.seq);
        let followed = match follow(head.as_ref(), &read, stored) {
            Follow::Duplicate if cx.bug(Bug::DuplicateAppended) && head.is_some() => {
                let prev_chain = head.map_or(read.prev_chain, |h| h.head.chain);
                let again = Batch { first: before.next(), prev_chain, ..read };
                follow(head.as_ref(), &again, None)
            }
            followed => followed,
        };
        match followed {
            Follow::Append { skip, chains, gap, .. } => {
                self.follow_up(cx, room, batch, (skip, chains, gap), before, &mut then);
                Ok(Taken::Stored(batch.entries.last().map_or(before, |e| e.seq), then))
            }
            Follow::Duplicate => Ok(Taken::Stored(before, then)),
            Follow::Gap { .. } => Ok(Taken::Behind(before)),
            Follow::ChainMismatch { .. } => Err(Code::ChainMismatch.into()),
            Follow::OtherIncarnation { .. } => Err(Code::WrongIncarnation.into()),
        }
    }

    /// The replica's end, and the chain here at the batch's last entry; or the head it must go on from first.
    fn known(&mut self, room: RoomNo, batch: &Entries) -> Result<Result<Replica, Seq>, Refusal> {
        let name = LogName::Replica(room);
        let found = self.disk.live().logs.get(&name);
        let before = found.map_or(Seq::new(0), |l| l.head);
        Ok(Ok(match found {
            None if !batch.effects.iter().any(|e| e.joined) => return Ok(Err(before)),
            None => (None, None),
            Some(log) if log.incarnation != batch.incarnation => {
                let place = batch.first.prev();
                if place > log.head {
                    return Ok(Err(log.head));
                }
                // Everybody here has what was removed; nothing is left to compare with.
                let gone = place < log.tail.prev();
                if !gone && log.chain_at(place) != Some(batch.prev_chain) {
                    return Err(Code::WrongIncarnation.into());
                }
                let (life, chain) = (batch.incarnation, batch.prev_chain);
                self.disk.write(move |s| {
                    if let Some(log) = s.logs.get_mut(&name) {
                        log.rewind(life, place, chain);
                    }
                    // What the hub had answered may be lost there; its devices hand it in again.
                    s.memory.retain(|key, memory| {
                        let ours = matches!(key, SubKey::Device(_, r, _) if *r == room);
                        !(ours && matches!(memory.known, Known::Accepted(_)))
                    });
                });
                let head = delivery::log::Head { seq: place, chain };
                (Some(FollowerHead { incarnation: life, head, read: true }), None)
            }
            Some(log) => {
                let ours = |who: &Who| matches!(who, Who::Device(_));
                let reads = log.readers.iter().filter(|(who, _)| ours(who)).any(|(_, stays)| {
                    stays.iter().any(|s| s.until.is_none_or(|until| until > log.head))
                });
                let last = Seq::new(batch.first.get() + batch.entries.len() as u64 - 1);
                let head =
                    FollowerHead { incarnation: log.incarnation, head: log.end(), read: reads };
                (Some(head), log.chain_at(last))
            }
        }))
    }

    fn follow_up(
        &mut self,
        cx: &Ctx,
        room: RoomNo,
        batch: &Entries,
        (skip, chains, gap): (usize, Vec<Chain>, Option<Gap>),
        before: Seq,
        then: &mut Vec<Then>,
    ) {
        let name = LogName::Replica(room);
        let first = Seq::new(batch.first.get() + skip as u64);
        let start = LogRow::new(batch.incarnation, batch.first.prev(), batch.prev_chain);
        let doubled = first <= before;
        let from = if doubled { before.next() } else { first };
        let chain = batch.prev_chain;
        let missing = Gap { first: before.next(), last: first.prev(), reason: GapReason::Lost };
        let missing = gap.unwrap_or(missing);
        self.disk.write(move |s| {
            let log = s.logs.entry(name).or_insert_with(|| start.clone());
            if from > log.head.next() {
                log.holes.push((missing, chain));
                (log.head, log.chain) = (missing.last, chain);
            }
        });
        let known: Vec<DevNo> =
            cx.names.devices().filter(|d| cx.names.home(*d) == self.no).collect();
        for effect in batch.effects.iter().filter(|e| e.at > before && known.contains(&e.device)) {
            let Effect { device, joined, at } = *effect;
            self.disk.write(move |s| {
                let Some(log) = s.logs.get_mut(&name) else { return };
                if joined {
                    log.join(Who::Device(device), at);
                } else {
                    log.end_stay(Who::Device(device), at);
                }
            });
            then.push(Then::Reload(device));
        }
        let places = from.get()..;
        for ((entry, chain), seq) in batch.entries.iter().skip(skip).zip(chains).zip(places) {
            let row = Rc::new(EntryRow { seq: Seq::new(seq), chain, ..(**entry).clone() });
            if row.kind == EntryKind::Welcome {
                self.hand_on(cx, room, batch, &row, then);
            }
            self.disk.write(move |s| {
                if let Some(log) = s.logs.get_mut(&name) {
                    log.append(Rc::clone(&row));
                }
            });
        }
        then.push(Then::Grown(name));
    }

    /// A Welcome goes to those of our devices that it is for.
    fn hand_on(
        &mut self,
        cx: &Ctx,
        room: RoomNo,
        batch: &Entries,
        row: &EntryRow,
        then: &mut Vec<Then>,
    ) {
        let Some(welcome) = decode::<crate::sealed::Welcome>(&row.body) else { return };
        let seq = row.seq.prev();
        let log = self.disk.live().logs.get(&LogName::Replica(room));
        let Some(chain) = log.and_then(|l| l.chain_at(seq)) else { return };
        let cursor = Cursor { incarnation: batch.incarnation, seq };
        for package in &welcome.to {
            let device = DevNo(package.device);
            let stays = log_has(self, room, device);
            if cx.names.home(device) != self.no || !stays {
                continue;
            }
            let item = Rc::new(Item::Welcome { welcome: welcome.clone(), cursor, chain });
            self.disk.write(move |s| s.put(device, Rc::clone(&item)));
            then.push(Then::Reload(device));
        }
    }
}

fn log_has(node: &Node, room: RoomNo, device: DevNo) -> bool {
    let log = node.disk.live().logs.get(&LogName::Replica(room));
    log.is_some_and(|l| l.readers.get(&Who::Device(device)).is_some_and(|s| !s.is_empty()))
}

/// What became of a batch.
pub(super) enum Taken {
    Stored(Seq, Vec<Then>),
    Behind(Seq),
}

fn speaks(cx: &Ctx, by: By, from: DevNo) -> bool {
    match by {
        By::Device(device) => device == from,
        By::Peer(node) => cx.names.home(from) == node,
    }
}

/// A hub knows which device of its own it hears, and of a peer only which person.
fn inside(cx: &Ctx, by: By, group: &HubGroup, from: DevNo) -> bool {
    match by {
        By::Device(device) => group.members.contains(&device),
        By::Peer(_) => group.members.iter().any(|d| cx.names.user(*d) == cx.names.user(from)),
    }
}

fn enters(payload: &Payload) -> bool {
    let Payload::Handshake(bytes) = payload else { return false };
    let commit = decode::<Bundle>(bytes).and_then(|b| decode::<Wire>(&b.message));
    matches!(commit, Some(Wire::Commit(Commit { external: true, .. })))
}

fn judge(cx: &Ctx, by: By, group: &HubGroup, commit: &Commit) -> Result<(), Refusal> {
    let from = DevNo(commit.from);
    let known = if commit.external {
        group.members.iter().any(|d| cx.names.user(*d) == cx.names.user(from))
    } else {
        group.members.contains(&from)
    };
    if !speaks(cx, by, from) || !known {
        return Err(Code::NotFound.into());
    }
    let leaves: Vec<DevNo> = commit.leaves.iter().map(|d| DevNo(*d)).collect();
    let pending: Vec<DevNo> = group.leaving.iter().copied().collect();
    delivery::commit::complete(&pending, &leaves, false)
        .map_err(|r| r.at_epoch(Epoch::new(group.epoch)))?;
    let stranger = leaves.iter().any(|d| !group.leaving.contains(d));
    let again = commit.adds.iter().any(|p| group.members.contains(&DevNo(p.device)));
    let nobody = commit.removes.iter().any(|d| !group.members.contains(&DevNo(*d)));
    if stranger || again || nobody {
        return Err(Code::InvalidCommit.into());
    }
    Ok(())
}

fn advanced(group: &HubGroup, commit: &Commit, external: crate::sealed::Hash) -> HubGroup {
    let gone = |d: &DevNo| commit.removes.contains(&d.0) || commit.leaves.contains(&d.0);
    let mut members: BTreeSet<DevNo> = group.members.iter().copied().filter(|d| !gone(d)).collect();
    members.extend(commit.adds.iter().map(|p| DevNo(p.device)));
    if commit.external {
        members.insert(DevNo(commit.from));
    }
    HubGroup { epoch: group.epoch + 1, members, leaving: BTreeSet::new(), external }
}

fn row(placed: &delivery::log::Placed, body: Rc<[u8]>, effects: Vec<Effect>) -> Rc<EntryRow> {
    Rc::new(EntryRow {
        seq: placed.seq,
        at: placed.at,
        kind: placed.kind,
        body,
        digest: placed.digest,
        chain: placed.chain,
        effects: effects.into(),
        kept: None,
    })
}
