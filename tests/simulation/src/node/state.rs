//! A node's rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use delivery::lane::Parked;
use delivery::log::Head;
use delivery::reader::{LogEnds, Reader};
use delivery::room::Known;
use protocol::api::Gap;
use protocol::log::{Chain, Digest, EntryKind};
use protocol::{Incarnation, Seq, SubmitId, Timestamp};

use crate::names::{DevNo, NodeNo, RoomNo};
use crate::sealed::{Hash, HubGroup, Package};
use crate::wire::{Item, Payload};

/// A log's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogName {
    Room(RoomNo),
    Replica(RoomNo),
    Uplink(RoomNo),
}

/// A reader's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Device(DevNo),
    Peer(NodeNo),
}

/// What an entry does to a follower's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    pub device: DevNo,
    pub joined: bool,
    pub at: Seq,
}

/// An entry.
#[derive(Clone, Debug)]
pub struct EntryRow {
    pub seq: Seq,
    pub at: Timestamp,
    pub kind: EntryKind,
    pub body: Rc<[u8]>,
    pub digest: Digest,
    pub chain: Chain,
    pub effects: Rc<[Effect]>,
    /// The submission that an uplink keeps.
    pub kept: Option<Kept>,
}

/// A submission for a foreign hub.
#[derive(Clone, Debug)]
pub struct Kept {
    pub device: DevNo,
    pub id: SubmitId,
    pub payload: Payload,
}

/// A log.
#[derive(Clone, Debug)]
pub struct LogRow {
    pub incarnation: Incarnation,
    pub head: Seq,
    pub tail: Seq,
    pub chain: Chain,
    pub tail_chain: Chain,
    pub last_at: Timestamp,
    pub entries: BTreeMap<u64, Rc<EntryRow>>,
    pub readers: BTreeMap<Who, Vec<Reader>>,
    pub holes: Vec<(Gap, Chain)>,
}

impl LogRow {
    pub const fn new(incarnation: Incarnation, seq: Seq, chain: Chain) -> Self {
        Self {
            incarnation,
            head: seq,
            tail: seq.next(),
            chain,
            tail_chain: chain,
            last_at: Timestamp::from_ms(0),
            entries: BTreeMap::new(),
            readers: BTreeMap::new(),
            holes: Vec::new(),
        }
    }

    pub const fn end(&self) -> Head {
        Head { seq: self.head, chain: self.chain }
    }

    pub fn chain_at(&self, seq: Seq) -> Option<Chain> {
        if seq == self.head {
            return Some(self.chain);
        }
        if seq == self.tail.prev() {
            return Some(self.tail_chain);
        }
        let entry = self.entries.get(&seq.get()).map(|e| e.chain);
        entry.or_else(|| self.holes.iter().find(|(g, _)| g.last == seq).map(|(_, c)| *c))
    }

    pub fn ends(&self, position: Seq) -> LogEnds {
        let hole = self.holes.iter().map(|(gap, _)| *gap).find(|gap| gap.last > position);
        LogEnds { incarnation: self.incarnation, tail: self.tail, head: self.head, hole }
    }

    pub fn append(&mut self, entry: Rc<EntryRow>) {
        self.head = entry.seq;
        self.chain = entry.chain;
        self.last_at = entry.at;
        self.entries.insert(entry.seq.get(), entry);
    }

    pub fn trim(&mut self, last: Seq) {
        if let Some(chain) = self.chain_at(last) {
            self.entries = self.entries.split_off(&(last.get() + 1));
            self.tail = last.next();
            self.tail_chain = chain;
            self.holes.retain(|(gap, _)| gap.last > last);
        }
    }

    /// The stay that is served now.
    pub fn stay(&self, who: Who) -> Option<Reader> {
        let stays = self.readers.get(&who)?;
        stays.iter().find(|s| !s.done()).or(stays.last()).copied()
    }

    /// Moves the cursor of the stay that is served now.
    pub fn advance(&mut self, who: Who, to: Seq) {
        let stays = self.readers.entry(who).or_default();
        if let Some(stay) = stays.iter_mut().find(|s| !s.done()) {
            stay.cursor = stay.cursor.max(to.min(stay.until.unwrap_or(to)));
        }
    }

    pub fn join(&mut self, who: Who, from: Seq) {
        let stays = self.readers.entry(who).or_default();
        if !stays.iter().any(|s| s.from == from) {
            stays.push(Reader::from(from));
        }
    }

    pub fn end_stay(&mut self, who: Who, at: Seq) {
        for stay in self.readers.entry(who).or_default() {
            if stay.until.is_none() {
                *stay = stay.removed(at);
            }
        }
    }

    pub fn open(&self, who: Who) -> bool {
        self.readers.get(&who).is_some_and(|stays| stays.iter().any(|s| s.until.is_none()))
    }

    /// Goes on from an earlier place in another life.
    pub fn rewind(&mut self, incarnation: Incarnation, seq: Seq, chain: Chain) {
        let at = self.entries.get(&seq.get()).map_or(Timestamp::from_ms(0), |e| e.at);
        if seq < self.tail.prev() {
            (self.tail, self.tail_chain) = (seq.next(), chain);
        }
        self.entries.split_off(&(seq.get() + 1));
        self.holes.retain(|(gap, _)| gap.last <= seq);
        (self.incarnation, self.head, self.chain, self.last_at) = (incarnation, seq, chain, at);
        for stays in self.readers.values_mut() {
            stays.retain(|s| s.from <= seq.next());
            for stay in stays {
                stay.until = stay.until.filter(|u| *u <= seq);
                stay.cursor = stay.cursor.min(seq);
            }
        }
    }
}

/// A device's inbox.
#[derive(Clone, Debug)]
pub struct Inbox {
    pub head: Seq,
    pub tail: Seq,
    pub items: BTreeMap<u64, Rc<Item>>,
    pub reader: Reader,
}

impl Default for Inbox {
    fn default() -> Self {
        let one = Seq::new(1);
        Self { head: Seq::new(0), tail: one, items: BTreeMap::new(), reader: Reader::from(one) }
    }
}

/// Under what a submission is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubKey {
    Device(DevNo, RoomNo, SubmitId),
    Peer(NodeNo, RoomNo, Hash),
}

/// What is remembered of a submission.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub digest: Digest,
    pub known: Known,
}

/// How a lane's delivery went so far.
#[derive(Clone, Debug, Default)]
pub struct LaneRow {
    pub attempts: u32,
    pub next_at: Timestamp,
    pub parked: Option<Parked>,
}

/// Everything a node keeps.
#[derive(Clone, Debug)]
pub struct State {
    pub incarnation: Incarnation,
    pub logs: BTreeMap<LogName, LogRow>,
    pub groups: BTreeMap<RoomNo, HubGroup>,
    pub inboxes: BTreeMap<DevNo, Inbox>,
    pub memory: BTreeMap<SubKey, Memory>,
    pub lanes: BTreeMap<super::LaneKey, LaneRow>,
    pub packages: BTreeMap<DevNo, VecDeque<Package>>,
    pub revoked: BTreeSet<DevNo>,
}

impl State {
    pub const fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            logs: BTreeMap::new(),
            groups: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            memory: BTreeMap::new(),
            lanes: BTreeMap::new(),
            packages: BTreeMap::new(),
            revoked: BTreeSet::new(),
        }
    }

    /// The log in which this node keeps a room.
    pub fn room(&self, room: RoomNo) -> Option<(LogName, &LogRow)> {
        let names = [LogName::Room(room), LogName::Replica(room)];
        names.into_iter().find_map(|name| self.logs.get(&name).map(|log| (name, log)))
    }

    pub fn replicas(&self) -> Vec<RoomNo> {
        let room = |name: &LogName| if let LogName::Replica(r) = name { Some(*r) } else { None };
        self.logs.keys().filter_map(room).collect()
    }

    pub fn put(&mut self, device: DevNo, item: Rc<Item>) {
        let inbox = self.inboxes.entry(device).or_default();
        inbox.head = inbox.head.next();
        inbox.items.insert(inbox.head.get(), item);
    }

    pub fn new_life(&mut self, life: Incarnation) {
        self.incarnation = life;
        for (name, log) in &mut self.logs {
            if !matches!(name, LogName::Replica(_)) {
                log.incarnation = life;
            }
        }
    }
}
