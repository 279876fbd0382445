//! A stand-in for MLS that costs next to nothing and fails like MLS: epochs, one commit each, message keys that open once, past epochs that are
//! forgotten, key packages that expire, commits that cannot be followed from the wrong state. Whoever lacks the epoch's secret opens nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use minicbor::{Decode, Encode};
use protocol::log::Digest;

use crate::names::{DevNo, RoomNo};

/// 32 bytes.
pub type Hash = [u8; 32];
/// Past epochs whose messages still open.
const PAST: usize = 5;
/// How far a message may be out of order within its sender's run.
const TOLERANCE: u64 = 64;

/// The hash of several parts.
pub fn hash(parts: &[&[u8]]) -> Hash {
    *Digest::of_bytes(&parts.concat()).as_bytes()
}

/// A message as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Wire {
    /// Encrypted content.
    #[n(0)]
    App(#[n(0)] App),
    /// A wish to leave.
    #[n(1)]
    Leave(#[n(0)] Leave),
    /// The next epoch.
    #[n(2)]
    Commit(#[n(0)] Commit),
}

/// See [`Wire`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct App {
    #[n(0)]
    pub room: u8,
    #[n(1)]
    pub epoch: u64,
    #[n(2)]
    pub from: u8,
    #[n(3)]
    pub generation: u64,
    #[n(4)]
    pub guard: u64,
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub content: Vec<u8>,
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub tag: Hash,
}

/// See [`Wire`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Leave {
    #[n(0)]
    pub room: u8,
    #[n(1)]
    pub epoch: u64,
    #[n(2)]
    pub from: u8,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub tag: Hash,
}

/// See [`Wire`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Commit {
    #[n(0)]
    pub room: u8,
    #[n(1)]
    pub epoch: u64,
    #[n(2)]
    pub from: u8,
    #[n(3)]
    pub adds: Vec<Package>,
    #[n(4)]
    pub removes: Vec<u8>,
    #[n(5)]
    pub leaves: Vec<u8>,
    #[n(6)]
    pub external: bool,
    #[n(7)]
    pub salt: u64,
    #[n(8)]
    #[cbor(with = "minicbor::bytes")]
    pub tag: Hash,
}

/// What a device leaves at its node so that others can add it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Package {
    #[n(0)]
    pub device: u8,
    #[n(1)]
    pub no: u64,
    #[n(2)]
    pub from_ms: u64,
    #[n(3)]
    pub to_ms: u64,
}

/// What an added device needs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    #[n(0)]
    pub room: u8,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub commit: Hash,
    #[n(2)]
    pub epoch: u64,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub secret: Hash,
    #[n(4)]
    pub members: Vec<u8>,
    #[n(5)]
    pub to: Vec<Package>,
}

/// A handshake with all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Bundle {
    /// A [`Wire`].
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub message: Vec<u8>,
    /// A [`Welcome`].
    #[n(1)]
    pub welcome: Option<Welcome>,
    /// What an external joiner of the next epoch needs.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub external: Hash,
}

/// What a hub gives to an external joiner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    pub epoch: u64,
    pub members: BTreeSet<DevNo>,
    pub external: Hash,
}

/// A room's group as its hub follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubGroup {
    pub epoch: u64,
    pub members: BTreeSet<DevNo>,
    pub leaving: BTreeSet<DevNo>,
    pub external: Hash,
}

/// An epoch of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Core {
    pub epoch: u64,
    pub secret: Hash,
    pub members: BTreeSet<DevNo>,
}

impl Core {
    /// What all members of the epoch share and nobody else has.
    #[must_use]
    pub fn authenticator(&self) -> Hash {
        hash(&[&self.secret, b"authenticator"])
    }

    /// The members as one hash.
    #[must_use]
    pub fn tree(&self) -> Hash {
        let members: Vec<u8> = self.members.iter().map(|d| d.0).collect();
        hash(&[&members, b"tree"])
    }

    /// What lets an external joiner make the next epoch.
    #[must_use]
    pub fn external(&self) -> Hash {
        hash(&[&self.secret, b"external"])
    }

    fn after(&self, commit: &Commit, digest: &Hash) -> Self {
        let base = if commit.external { self.external() } else { self.secret };
        next(self.epoch, &self.members, &base, commit, digest)
    }
}

fn next(
    epoch: u64,
    members: &BTreeSet<DevNo>,
    base: &Hash,
    commit: &Commit,
    digest: &Hash,
) -> Core {
    let gone = |d: &DevNo| commit.removes.contains(&d.0) || commit.leaves.contains(&d.0);
    let mut members: BTreeSet<DevNo> = members.iter().copied().filter(|d| !gone(d)).collect();
    members.extend(commit.adds.iter().map(|p| DevNo(p.device)));
    if commit.external {
        members.insert(DevNo(commit.from));
    }
    Core { epoch: epoch + 1, secret: hash(&[base, digest]), members }
}

/// Keys of one epoch, and which of them were used.
#[derive(Clone, Debug)]
struct Past {
    secret: Hash,
    used: BTreeMap<DevNo, Ratchet>,
}

#[derive(Clone, Debug, Default)]
struct Ratchet {
    next: u64,
    skipped: BTreeSet<u64>,
}

impl Ratchet {
    fn open(&mut self, generation: u64) -> bool {
        if generation >= self.next {
            self.skipped.extend(self.next..generation);
            self.next = generation + 1;
            while self.skipped.first().is_some_and(|g| g + TOLERANCE < self.next) {
                self.skipped.pop_first();
            }
            return true;
        }
        self.skipped.remove(&generation)
    }
}

/// A group as a member has it.
#[derive(Clone, Debug)]
pub struct Group {
    pub me: DevNo,
    pub room: RoomNo,
    pub core: Core,
    pub leaving: BTreeSet<DevNo>,
    sent: u64,
    past: BTreeMap<u64, Rc<Past>>,
    /// Our commit that was handed in, and what it leads to.
    pub pending: Option<(Hash, Box<Core>)>,
    /// Our external commit, whose echo is waited for.
    pub entering: Option<Hash>,
}

/// What came of bytes from the log.
#[derive(Debug)]
pub enum Received {
    App { from: DevNo, content: Vec<u8> },
    Own,
    Leave,
    OwnCommit { merged: bool },
    Commit(Box<Staged>),
    Bad(Why),
}

/// Why nothing came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Clock,
    Duplicate,
    TooOld,
    OutOfStep,
    Forged,
}

/// Somebody else's commit, checked.
#[derive(Debug)]
pub struct Staged {
    pub digest: Hash,
    pub core: Core,
}

impl Group {
    /// A group at this epoch.
    #[must_use]
    pub fn new(me: DevNo, room: RoomNo, core: Core) -> Self {
        let past = Past { secret: core.secret, used: BTreeMap::new() };
        Self {
            me,
            room,
            past: BTreeMap::from([(core.epoch, Rc::new(past))]),
            core,
            leaving: BTreeSet::new(),
            sent: 0,
            pending: None,
            entering: None,
        }
    }

    /// Encrypts; `None` while somebody's wish to leave has to be committed first.
    pub fn encrypt(&mut self, content: &[u8], guard: u64) -> Option<Vec<u8>> {
        if !self.leaving.is_empty() {
            return None;
        }
        let generation = self.sent;
        self.sent += 1;
        let app = App {
            room: self.room.0,
            epoch: self.core.epoch,
            from: self.me.0,
            generation,
            guard,
            content: content.to_vec(),
            tag: [0; 32],
        };
        let tag = app_tag(&self.core.secret, &app);
        Some(encode(&Wire::App(App { tag, ..app })))
    }

    /// The wish to leave.
    #[must_use]
    pub fn leave(&self) -> Bundle {
        let leave = Leave {
            room: self.room.0,
            epoch: self.core.epoch,
            from: self.me.0,
            tag: hash(&[&self.core.secret, b"leave", &[self.me.0]]),
        };
        let external = self.core.external();
        Bundle { message: encode(&Wire::Leave(leave)), welcome: None, external }
    }

    /// Builds a commit, which is pending from then on.
    pub fn commit(&mut self, adds: Vec<Package>, removes: Vec<DevNo>, salt: u64) -> Bundle {
        let commit = Commit {
            room: self.room.0,
            epoch: self.core.epoch,
            from: self.me.0,
            adds: adds.clone(),
            removes: removes.iter().map(|d| d.0).collect(),
            leaves: self.leaving.iter().map(|d| d.0).collect(),
            external: false,
            salt,
            tag: [0; 32],
        };
        let tag = commit_tag(&self.core.secret, &commit);
        let commit = Commit { tag, ..commit };
        let message = encode(&Wire::Commit(commit.clone()));
        let digest = *Digest::of_bytes(&message).as_bytes();
        let core = self.core.after(&commit, &digest);
        let welcome = (!adds.is_empty()).then(|| welcome(self.room, &core, digest, adds));
        let external = core.external();
        self.pending = Some((digest, Box::new(core)));
        Bundle { message, welcome, external }
    }

    /// Comes in by itself: the group after the commit, and the commit.
    #[must_use]
    pub fn enter(me: DevNo, room: RoomNo, info: &Info, salt: u64) -> (Self, Bundle, Hash) {
        let again = info.members.contains(&me);
        let commit = Commit {
            room: room.0,
            epoch: info.epoch,
            from: me.0,
            adds: Vec::new(),
            removes: if again { vec![me.0] } else { Vec::new() },
            leaves: Vec::new(),
            external: true,
            salt,
            tag: [0; 32],
        };
        let tag = commit_tag(&info.external, &commit);
        let commit = Commit { tag, ..commit };
        let message = encode(&Wire::Commit(commit.clone()));
        let digest = *Digest::of_bytes(&message).as_bytes();
        let core = next(info.epoch, &info.members, &info.external, &commit, &digest);
        let external = core.external();
        let mut group = Self::new(me, room, core);
        group.entering = Some(digest);
        (group, Bundle { message, welcome: None, external }, digest)
    }

    /// Looks at bytes from the log.
    pub fn receive(&mut self, bytes: &[u8], now_ms: u64) -> Received {
        match decode::<Wire>(bytes) {
            None => Received::Bad(Why::Forged),
            Some(Wire::App(app)) => self.open(app),
            Some(Wire::Leave(leave)) => self.wish(&leave),
            Some(Wire::Commit(commit)) => self.stage(&commit, bytes, now_ms),
        }
    }

    fn open(&mut self, app: App) -> Received {
        let from = DevNo(app.from);
        if app.epoch > self.core.epoch {
            return Received::Bad(Why::OutOfStep);
        }
        let Some(past) = self.past.get_mut(&app.epoch) else {
            return Received::Bad(Why::TooOld);
        };
        if app_tag(&past.secret, &app) != app.tag {
            return Received::Bad(Why::Forged);
        }
        if from == self.me {
            return Received::Own;
        }
        if Rc::make_mut(past).used.entry(from).or_default().open(app.generation) {
            Received::App { from, content: app.content }
        } else {
            Received::Bad(Why::Duplicate)
        }
    }

    fn wish(&mut self, leave: &Leave) -> Received {
        if leave.epoch < self.core.epoch {
            return Received::Bad(Why::TooOld);
        }
        if leave.epoch > self.core.epoch {
            return Received::Bad(Why::OutOfStep);
        }
        if leave.tag != hash(&[&self.core.secret, b"leave", &[leave.from]]) {
            return Received::Bad(Why::Forged);
        }
        self.leaving.insert(DevNo(leave.from));
        Received::Leave
    }

    fn stage(&self, commit: &Commit, bytes: &[u8], now_ms: u64) -> Received {
        let digest = *Digest::of_bytes(bytes).as_bytes();
        if self.entering == Some(digest) {
            return Received::OwnCommit { merged: true };
        }
        if commit.epoch < self.core.epoch {
            return Received::Bad(Why::TooOld);
        }
        if commit.epoch > self.core.epoch {
            return Received::Bad(Why::OutOfStep);
        }
        if self.pending.as_ref().is_some_and(|(ours, _)| *ours == digest) {
            return Received::OwnCommit { merged: false };
        }
        let key = if commit.external { self.core.external() } else { self.core.secret };
        let member = commit.external || self.core.members.contains(&DevNo(commit.from));
        if commit_tag(&key, commit) != commit.tag || !member {
            return Received::Bad(Why::Forged);
        }
        if commit.adds.iter().any(|p| now_ms < p.from_ms || now_ms > p.to_ms) {
            return Received::Bad(Why::Clock);
        }
        if commit.leaves.iter().any(|d| !self.leaving.contains(&DevNo(*d))) {
            return Received::Bad(Why::OutOfStep);
        }
        Received::Commit(Box::new(Staged { digest, core: self.core.after(commit, &digest) }))
    }

    /// Goes into the epoch that a commit leads to.
    pub fn advance(&mut self, core: Core) {
        let past = Past { secret: core.secret, used: BTreeMap::new() };
        self.past.insert(core.epoch, Rc::new(past));
        while self.past.len() > PAST + 1 {
            self.past.pop_first();
        }
        self.core = core;
        self.sent = 0;
        self.leaving.clear();
        self.pending = None;
        self.entering = None;
    }
}

fn welcome(room: RoomNo, core: &Core, commit: Hash, to: Vec<Package>) -> Welcome {
    let members = core.members.iter().map(|d| d.0).collect();
    Welcome { room: room.0, commit, epoch: core.epoch, secret: core.secret, members, to }
}

fn app_tag(secret: &Hash, app: &App) -> Hash {
    let numbers = [app.epoch, app.generation, app.guard].map(u64::to_be_bytes).concat();
    hash(&[secret, &[app.room, app.from], &numbers, &app.content])
}

fn commit_tag(secret: &Hash, commit: &Commit) -> Hash {
    let bare = Commit { tag: [0; 32], ..commit.clone() };
    hash(&[secret, &encode(&Wire::Commit(bare))])
}

/// As bytes.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    protocol::api::encode(value)
}

/// From bytes, if they are one.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Option<T> {
    protocol::api::decode(bytes).ok()
}
