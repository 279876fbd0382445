//! Lanes to other nodes, and what other nodes ask.

use std::rc::Rc;

use delivery::lane::{Effect as Moved, Kind, Lane, Outcome, Step};
use delivery::reader::{Reader, Span};
use delivery::room::Known;
use protocol::api::{Accepted, Outcome as Told};
use protocol::log::Chain;
use protocol::{Cursor, Incarnation, Refusal, Seq};

use super::rooms::Taken;
use super::state::{Effect, EntryRow, Kept, LaneRow, LogName, LogRow, SubKey, Who};
use super::{Node, Then};
use crate::bug::Bug;
use crate::ctx::{Ctx, Happening};
use crate::names::{DevNo, Names, NodeNo, RoomNo};
use crate::record::Event;
use crate::sealed::{Info, Package};
use crate::wire::{Down, Item, Payload};

/// Which lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LaneKey {
    Notify(RoomNo, NodeNo),
    Uplink(RoomNo),
}

impl LaneKey {
    pub fn peer(self, names: &Names) -> NodeNo {
        match self {
            Self::Notify(_, peer) => peer,
            Self::Uplink(room) => names.hub(room),
        }
    }

    const fn log(self) -> LogName {
        match self {
            Self::Notify(room, _) => LogName::Room(room),
            Self::Uplink(room) => LogName::Uplink(room),
        }
    }

    const fn room(self) -> RoomNo {
        match self {
            Self::Notify(room, _) | Self::Uplink(room) => room,
        }
    }
}

/// A lane at work.
pub(super) struct Run {
    lane: Lane,
    from: Seq,
    last: Seq,
    kept: Option<Kept>,
    flying: bool,
    wakes_at: Option<u64>,
}

/// What a request that is under way was for.
pub(super) enum Asked {
    Lane(LaneKey),
    Fill(RoomNo),
    Device { device: DevNo, conn: u64, position: u64 },
}

/// Entries on their way to a follower.
#[derive(Clone, Debug)]
pub struct Entries {
    pub incarnation: Incarnation,
    pub first: Seq,
    pub prev_chain: Chain,
    pub entries: Vec<Rc<EntryRow>>,
    pub effects: Vec<Effect>,
}

/// What a node asks another one.
#[derive(Clone, Debug)]
pub enum Ask {
    Notify(RoomNo, Rc<Entries>),
    Submit(RoomNo, Payload),
    Backfill(RoomNo, Seq),
    Claim(DevNo),
    Info(RoomNo, DevNo),
}

/// What it is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    Stored(Seq),
    Behind(Seq),
    Done,
    Refused(Refusal),
    Batch(Option<Rc<Entries>>),
    Package(Option<Package>),
    Info(Option<Info>),
}

impl Node {
    /// Runs every lane there is something for, to one peer or to all.
    pub(super) fn run_lanes(&mut self, cx: &mut Ctx, only: Option<NodeNo>) {
        let mut keys = Vec::new();
        for (name, log) in &self.view(cx).logs {
            for who in log.readers.keys() {
                match (name, who) {
                    (LogName::Room(room), Who::Peer(peer)) => {
                        keys.push(LaneKey::Notify(*room, *peer));
                    }
                    (LogName::Uplink(room), Who::Peer(_)) => keys.push(LaneKey::Uplink(*room)),
                    _ => {}
                }
            }
        }
        for key in keys {
            if only.is_none_or(|peer| key.peer(&cx.names) == peer) {
                self.lane(cx, key);
            }
        }
    }

    pub(super) fn lanes_of(&mut self, cx: &mut Ctx, room: RoomNo) {
        let me = self.no;
        for peer in cx.names.nodes().filter(|n| *n != me) {
            self.lane(cx, LaneKey::Notify(room, peer));
        }
    }

    /// Does what a lane has to do.
    pub fn lane(&mut self, cx: &mut Ctx, key: LaneKey) {
        let now = self.now(cx);
        let who = Who::Peer(key.peer(&cx.names));
        let view = self.view(cx);
        let Some(log) = view.logs.get(&key.log()) else { return };
        let stays = log.readers.get(&who).map(Vec::as_slice).unwrap_or_default();
        let Some(stay) = stays.iter().find(|s| !s.done()).copied() else {
            self.memory.lanes.remove(&key);
            return;
        };
        let last = stay.last(&log.ends(stay.cursor));
        let row = view.lanes.get(&key).cloned().unwrap_or_default();
        let known = self.memory.lanes.get(&key).filter(|run| run.from == stay.from || run.flying);
        if known.is_none() {
            let kind = match key {
                LaneKey::Notify(..) => Kind::Notify,
                LaneKey::Uplink(_) => Kind::Uplink,
            };
            let LaneRow { attempts, next_at, parked } = row;
            let row = delivery::lane::Row {
                from: stay.from,
                cursor: stay.cursor,
                attempts,
                next_at,
                parked,
            };
            let lane = Lane::new(kind, row, last, now);
            let run =
                Run { lane, from: stay.from, last, kept: None, flying: false, wakes_at: None };
            self.memory.lanes.insert(key, run);
        }
        let Some(run) = self.memory.lanes.get_mut(&key) else { return };
        if run.flying {
            return;
        }
        run.lane.grown(last);
        match run.lane.next(now) {
            Step::Idle => {}
            Step::WaitUntil(at) => {
                let ms =
                    u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX).clamp(1, 30_000);
                if run.wakes_at.is_none_or(|t| t <= cx.now || t > cx.now + ms) {
                    run.wakes_at = Some(cx.now + ms);
                    cx.after(ms, Happening::Lane { node: self.no, life: self.life, lane: key });
                }
            }
            Step::Send { after, count } => self.send(cx, key, (stay, last), after, count),
        }
    }

    fn send(
        &mut self,
        cx: &mut Ctx,
        key: LaneKey,
        (stay, until): (Reader, Seq),
        after: Seq,
        count: usize,
    ) {
        let peer = key.peer(&cx.names);
        let Some(log) = self.view(cx).logs.get(&key.log()) else { return };
        let (ask, last, kept) = match key {
            LaneKey::Notify(room, _) => {
                let Some(batch) = batch(cx, log, peer, (after, until), count) else { return };
                let last = batch.entries.last().map_or(after, |e| e.seq);
                (Ask::Notify(room, Rc::new(batch)), last, None)
            }
            LaneKey::Uplink(room) => {
                let next = after.next().max(log.tail);
                let Some(kept) = log.entries.get(&next.get()).and_then(|e| e.kept.clone()) else {
                    return;
                };
                (Ask::Submit(room, kept.payload.clone()), next, Some(kept))
            }
        };
        if !self.writable(cx) {
            cx.after(1_000, Happening::Lane { node: self.no, life: self.life, lane: key });
            return;
        }
        let (now, jitter) = (self.now(cx), cx.chance.jitter());
        let Some(run) = self.memory.lanes.get_mut(&key) else { return };
        let row = run.lane.attempt_started(last, now, jitter).clone();
        (run.flying, run.last, run.kept, run.from) = (true, last, kept, stay.from);
        self.save_lane(key, &row);
        let id = cx.number();
        self.commit(cx, vec![Then::Dial(key, id, Box::new(ask))]);
    }

    fn save_lane(&mut self, key: LaneKey, row: &delivery::lane::Row) {
        let row =
            LaneRow { attempts: row.attempts, next_at: row.next_at, parked: row.parked.clone() };
        self.disk.write(move |s| drop(s.lanes.insert(key, row.clone())));
    }

    /// An answer came, or none.
    pub fn answered(&mut self, cx: &mut Ctx, id: u64, answer: Option<&Answer>) {
        match self.memory.asked.remove(&id) {
            None => {}
            Some(Asked::Lane(key)) => self.delivered(cx, key, answer),
            Some(Asked::Fill(room)) => self.filled(cx, room, answer),
            Some(Asked::Device { device, conn, position }) => {
                let frame = match answer {
                    Some(Answer::Info(info)) => Down::Told { position, info: info.clone() },
                    Some(Answer::Package(package)) => Down::Claimed { position, package: *package },
                    _ => Down::Claimed { position, package: None },
                };
                cx.send_down(device, conn, frame);
            }
        }
    }

    fn delivered(&mut self, cx: &mut Ctx, key: LaneKey, answer: Option<&Answer>) {
        let (now, jitter) = (self.now(cx), cx.chance.jitter());
        let skips = match key {
            LaneKey::Notify(..) => cx.bug(Bug::NotifySkips),
            LaneKey::Uplink(_) => cx.bug(Bug::UplinkSkips),
        };
        let Some(run) = self.memory.lanes.get_mut(&key) else { return };
        if !run.flying {
            return;
        }
        let (from, last) = (run.from, run.last);
        let outcome = match answer {
            Some(Answer::Stored(head)) => Outcome::Accepted((*head).max(last)),
            Some(Answer::Behind(head)) => Outcome::Expected(head.next().max(from)),
            Some(Answer::Done) => Outcome::Accepted(last),
            Some(Answer::Refused(refusal)) => Outcome::Refused(refusal.clone()),
            None if skips => Outcome::Accepted(last),
            _ => Outcome::Unknown,
        };
        let effect = run.lane.on_result(outcome, now, jitter);
        run.flying = false;
        let row = run.lane.row().clone();
        let kept = run.kept.take();
        self.save_lane(key, &row);
        let moved = matches!(effect, Moved::Advanced | Moved::Settled(_));
        let (name, who, cursor) = (key.log(), Who::Peer(key.peer(&cx.names)), row.cursor);
        if moved {
            self.disk.write(move |s| {
                if let Some(log) = s.logs.get_mut(&name) {
                    log.advance(who, cursor);
                    if matches!(name, LogName::Uplink(_)) {
                        log.trim(cursor);
                    }
                }
            });
        }
        let mut then = vec![Then::Lane(key)];
        match (effect, kept) {
            (Moved::Settled(parked), Some(kept)) => {
                self.settle(cx, key.room(), &kept, parked.refusal, &mut then);
            }
            (Moved::Advanced, Some(kept)) => {
                let at = SubKey::Device(kept.device, key.room(), kept.id);
                let place = Cursor { incarnation: self.disk.live().incarnation, seq: Seq::new(0) };
                let done = Accepted { place, at: now, chain: Chain::from_bytes([0; 32]) };
                self.disk.write(move |s| {
                    if let Some(memory) = s.memory.get_mut(&at) {
                        // Until it is forgotten, a repetition is answered `stored` as before.
                        memory.known = Known::Accepted(done);
                    }
                });
            }
            (Moved::Parked, _) => {
                let code = row.parked.as_ref().map_or("", |p| p.refusal.code.as_str());
                cx.note(Event::Parked { node: self.no.0, room: key.room().0, code });
            }
            _ => {}
        }
        self.commit(cx, then);
    }

    fn settle(
        &mut self,
        cx: &Ctx,
        room: RoomNo,
        kept: &Kept,
        refusal: Refusal,
        then: &mut Vec<Then>,
    ) {
        let key = SubKey::Device(kept.device, room, kept.id);
        let device = kept.device;
        self.disk.write(move |s| {
            s.memory.remove(&key);
        });
        if cx.bug(Bug::OutcomeNotTold) {
            return;
        }
        let told = Told {
            submit_id: kept.id,
            room: cx.names.room(room).clone(),
            refusal,
            payload: Self::digest(&kept.payload),
        };
        let item = Rc::new(Item::Outcome(told));
        self.disk.write(move |s| s.put(device, Rc::clone(&item)));
        then.push(Then::Reload(device));
    }

    /// The operator lets a parked lane try again.
    pub fn resume(&mut self, cx: &mut Ctx) {
        let keys: Vec<LaneKey> = self.memory.lanes.keys().copied().collect();
        for key in keys {
            let now = self.now(cx);
            if let Some(run) = self.memory.lanes.get_mut(&key)
                && run.lane.row().parked.is_some()
            {
                run.lane.resume(now);
            }
            self.lane(cx, key);
        }
    }

    /// A request of another node.
    pub fn asked(&mut self, cx: &mut Ctx, from: NodeNo, id: u64, ask: &Ask) {
        self.contact(cx, from);
        match ask {
            Ask::Notify(room, batch) => {
                let answer = match self.room_for_more() {
                    Err(full) => Err(full),
                    Ok(()) => self.receive(cx, *room, batch, false, Vec::new()),
                };
                match answer {
                    Ok(Taken::Stored(head, mut then)) => {
                        then.push(Then::Respond(from, id, Answer::Stored(head)));
                        self.commit(cx, then);
                    }
                    Ok(Taken::Behind(head)) => {
                        // What else the transaction did is a rewind into a new life.
                        self.commit(
                            cx,
                            vec![Then::Respond(from, id, Answer::Behind(head)), Then::Fill(*room)],
                        );
                    }
                    Err(refusal) => {
                        cx.respond(self.no, from, id, Rc::new(Answer::Refused(refusal)));
                    }
                }
            }
            Ask::Submit(room, payload) => self.submitted(cx, (from, id), *room, payload),
            Ask::Backfill(room, after) => {
                let batch = self.backfill(cx, from, *room, *after);
                cx.respond(self.no, from, id, Rc::new(Answer::Batch(batch)));
            }
            Ask::Claim(of) => {
                let package = self.hand_out(cx, *of);
                self.commit(cx, vec![Then::Respond(from, id, Answer::Package(package))]);
            }
            Ask::Info(room, device) => {
                let info = self.told(cx, *room, *device);
                cx.respond(self.no, from, id, Rc::new(Answer::Info(info)));
            }
        }
    }

    fn contact(&mut self, cx: &mut Ctx, peer: NodeNo) {
        let now = self.now(cx);
        let to = |key: &LaneKey| key.peer(&cx.names) == peer;
        let keys: Vec<LaneKey> = self.memory.lanes.keys().copied().filter(to).collect();
        for key in keys {
            if let Some(run) = self.memory.lanes.get_mut(&key) {
                run.lane.contact(now);
            }
            self.lane(cx, key);
        }
    }

    fn backfill(&self, cx: &Ctx, peer: NodeNo, room: RoomNo, after: Seq) -> Option<Rc<Entries>> {
        let log = self.view(cx).logs.get(&LogName::Room(room))?;
        let stays = log.readers.get(&Who::Peer(peer))?;
        let stay = stays.iter().rfind(|s| s.from.prev() <= after)?;
        let until = stay.last(&log.ends(after));
        batch(cx, log, peer, (after, until), protocol::limit::BATCH_ENTRIES).map(Rc::new)
    }

    /// Asks a hub for what the replica misses, unless that is under way.
    pub(super) fn fill(&mut self, cx: &mut Ctx, room: RoomNo) {
        let Some(log) = self.view(cx).logs.get(&LogName::Replica(room)) else { return };
        let after = log.head;
        if self.memory.filling.insert(room) {
            let id = cx.number();
            self.memory.asked.insert(id, Asked::Fill(room));
            self.ask(cx, cx.hub(room), id, Ask::Backfill(room, after));
        }
    }

    fn filled(&mut self, cx: &mut Ctx, room: RoomNo, answer: Option<&Answer>) {
        self.memory.filling.remove(&room);
        let Some(Answer::Batch(Some(batch))) = answer else { return };
        let name = LogName::Replica(room);
        let Some(head) = self.disk.live().logs.get(&name).map(|l| l.head) else { return };
        let rest_gone = batch.first > head.next();
        match self.receive(cx, room, batch, rest_gone, Vec::new()) {
            Ok(Taken::Stored(to, mut then)) => {
                if to > head {
                    then.push(Then::Fill(room));
                }
                self.commit(cx, then);
            }
            Ok(Taken::Behind(_)) => self.commit(cx, Vec::new()),
            Err(_) => {}
        }
    }

    /// A device wants to add somebody.
    pub(super) fn claim(
        &mut self,
        cx: &mut Ctx,
        device: DevNo,
        conn: u64,
        of: DevNo,
        position: u64,
    ) {
        let home = cx.names.home(of);
        if home == self.no {
            let package = self.hand_out(cx, of);
            let frame = Box::new(Down::Claimed { position, package });
            self.commit(cx, vec![Then::Reply(device, conn, frame)]);
            return;
        }
        let id = cx.number();
        self.memory.asked.insert(id, Asked::Device { device, conn, position });
        self.ask(cx, home, id, Ask::Claim(of));
    }

    fn hand_out(&mut self, cx: &Ctx, of: DevNo) -> Option<Package> {
        if !self.writable(cx) || self.disk.live().revoked.contains(&of) {
            return None;
        }
        let package = self.disk.live().packages.get(&of)?.front().copied()?;
        // The last one is of last resort.
        self.disk.write(move |s| {
            if let Some(stock) = s.packages.get_mut(&of).filter(|stock| stock.len() > 1) {
                stock.retain(|p| p.no != package.no);
            }
        });
        Some(package)
    }

    /// A device wants to come into a room by itself.
    pub(super) fn info(
        &mut self,
        cx: &mut Ctx,
        device: DevNo,
        conn: u64,
        room: RoomNo,
        position: u64,
    ) {
        if cx.hub(room) == self.no {
            let info = self.told(cx, room, device);
            cx.send_down(device, conn, Down::Told { position, info });
            return;
        }
        let id = cx.number();
        self.memory.asked.insert(id, Asked::Device { device, conn, position });
        self.ask(cx, cx.hub(room), id, Ask::Info(room, device));
    }

    fn told(&self, cx: &Ctx, room: RoomNo, device: DevNo) -> Option<Info> {
        let group = self.view(cx).groups.get(&room)?;
        let user = cx.names.user(device);
        let listed = group.members.iter().any(|d| cx.names.user(*d) == user);
        listed.then(|| Info {
            epoch: group.epoch,
            members: group.members.clone(),
            external: group.external,
        })
    }
}

/// Entries of a room for a peer: after `range.0`, up to `range.1`. They begin later when what comes before is gone.
fn batch(
    cx: &Ctx,
    log: &LogRow,
    peer: NodeNo,
    (after, until): (Seq, Seq),
    count: usize,
) -> Option<Entries> {
    let first = after.next().max(log.tail);
    let last = Seq::new(first.get() + count.max(1) as u64 - 1).min(until);
    let span = Span::new(first, last)?;
    let range = log.entries.range(span.first().get()..=span.last().get());
    let entries: Vec<Rc<EntryRow>> = range.map(|(_, e)| Rc::clone(e)).collect();
    if entries.is_empty() {
        return None;
    }
    let prev_chain = log.chain_at(first.prev())?;
    let ours = |e: &&Effect| cx.names.home(e.device) == peer;
    let effects = entries.iter().flat_map(|e| e.effects.iter().filter(ours).copied()).collect();
    Some(Entries { incarnation: log.incarnation, first, prev_chain, entries, effects })
}
