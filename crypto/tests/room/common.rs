//! A hub and some devices in one process, with nothing between them.
#![expect(
    clippy::disallowed_methods,
    reason = "MLS lifetimes are checked against the system's clock"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crypto::group::{Change, CommitBundle, Founded, Founding, Received};
use crypto::hub::Applied;
use crypto::keypackage::{self, Made, Use};
use crypto::{DeviceIdentity, DeviceKey, Group, HubGroup, IdentityKey, NodeKey, Rows, Suite};
use protocol::room::{Participant, ParticipantsUpdate, Role};
use protocol::{DeviceId, Entropy, RoomId, Timestamp, UserId};
use sha2::{Digest as _, Sha256};

/// Bytes that differ in every test and every call.
pub struct Dice(AtomicU64);

impl Dice {
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl Entropy for Dice {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let n = self.0.fetch_add(1, Ordering::Relaxed);
            let block = Sha256::digest(n.to_be_bytes());
            for (byte, from) in chunk.iter_mut().zip(block) {
                *byte = from;
            }
        }
    }
}

pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_ms(since.as_millis().try_into().unwrap())
}

pub fn days(n: u64) -> Duration {
    Duration::from_secs(n * 24 * 3600)
}

pub fn user(name: &str) -> UserId {
    UserId::parse(&format!("mimi://a.example/u/{name}")).unwrap()
}

pub fn device_id(name: &str) -> DeviceId {
    DeviceId::parse(&format!("mimi://a.example/d/{name}")).unwrap()
}

pub fn room() -> RoomId {
    RoomId::parse("mimi://a.example/r/x").unwrap()
}

/// The identity key of a user: the same for all its devices.
pub fn identity_key(name: &str) -> IdentityKey {
    IdentityKey::from_bytes(&Sha256::digest(name.as_bytes()).into())
}

/// `ana/1` and the like.
pub fn identity(name: &str) -> DeviceIdentity {
    let (person, _) = name.split_once('/').unwrap();
    let key = DeviceKey::from_bytes(&Sha256::digest(name.as_bytes()).into());
    let issued = Timestamp::from_ms(1);
    let certificate = identity_key(person).certify(&device_id(name), &key.public(), issued);
    DeviceIdentity::new(key, certificate).unwrap()
}

pub fn hub_key() -> NodeKey {
    NodeKey::from_bytes(&[42; 32])
}

pub fn founding(suite: Suite) -> Founding {
    Founding { room: room(), suite, hub_key: hub_key().public() }
}

/// A device in the room and the rows it has stored.
pub struct Device {
    pub name: &'static str,
    pub group: Group,
    pub stored: Rows,
}

impl Device {
    pub fn new(name: &'static str, group: Group) -> Self {
        let mut device = Self { name, group, stored: Rows::default() };
        device.save();
        device
    }

    /// Stores what changed, and goes on with what was stored: every step of every test survives a restart.
    pub fn save(&mut self) {
        let writes = self.group.writes();
        self.stored.apply(&writes);
        assert!(self.group.writes().is_empty(), "writes are given once");
        let (epoch, tree) = (self.group.epoch(), self.group.tree_hash());
        let authenticator = self.group.epoch_authenticator();
        self.group = Group::load(self.stored.clone(), identity(self.name)).unwrap();
        assert_eq!(self.group.epoch(), epoch);
        assert_eq!(self.group.tree_hash(), tree);
        assert_eq!(self.group.epoch_authenticator(), authenticator);
        assert!(self.group.writes().is_empty(), "loading changes nothing");
    }

    pub fn send(&mut self, text: &str, dice: &Dice) -> Vec<u8> {
        let message = self.group.encrypt(text.as_bytes(), dice).unwrap();
        self.save();
        message
    }

    pub fn receive(&mut self, message: &[u8]) -> Received {
        let received = self.group.receive(message).unwrap();
        if !matches!(received, Received::Commit(_)) {
            self.save();
        }
        received
    }

    /// Receives and applies a commit, whoever made it.
    pub fn follow(&mut self, commit: &[u8]) {
        match self.receive(commit) {
            Received::Commit(staged) => self.group.accept(*staged).unwrap(),
            Received::OwnCommit { merged: false } => self.group.merge_pending().unwrap(),
            other => panic!("{} cannot follow: {other:?}", self.name),
        }
        self.save();
    }

    pub fn reads(&mut self, message: &[u8]) -> String {
        match self.receive(message) {
            Received::Application(m) => String::from_utf8(m.content).unwrap(),
            other => panic!("{} cannot read: {other:?}", self.name),
        }
    }
}

/// A room, its hub and its devices.
pub struct World {
    pub dice: Dice,
    pub suite: Suite,
    pub hub: HubGroup,
    pub devices: Vec<Device>,
}

impl World {
    /// Founded by ana/1.
    pub fn new(suite: Suite) -> Self {
        let dice = Dice::new();
        let Founded { group, group_info, tree } =
            Group::create(&founding(suite), identity("ana/1"), now(), &dice).unwrap();
        let founder = device_id("ana/1");
        let hub =
            HubGroup::create(&room(), &hub_key().public(), &group_info, &tree, &founder).unwrap();
        Self { dice, suite, hub, devices: vec![Device::new("ana/1", group)] }
    }

    /// With every named device in it; ana/1 adds them one after the other.
    pub fn with(suite: Suite, names: &[&'static str]) -> Self {
        let mut world = Self::new(suite);
        for name in names {
            world.add("ana/1", name);
        }
        world
    }

    pub fn device(&mut self, name: &str) -> &mut Device {
        self.devices.iter_mut().find(|d| d.name == name).unwrap()
    }

    pub fn package(&self, name: &str) -> Made {
        keypackage::make(self.suite, &identity(name), Use::Once, now(), &self.dice).unwrap()
    }

    /// The change that brings a user in, unless it is in already.
    pub fn listing(&self, name: &str) -> ParticipantsUpdate {
        let user = user(name.split_once('/').unwrap().0);
        if self.hub.participants().unwrap().role(&user).is_some() {
            return ParticipantsUpdate::default();
        }
        let added = vec![Participant { user, role: Role::Member }];
        ParticipantsUpdate { added, ..Default::default() }
    }

    pub fn commit(&mut self, by: &str, change: &Change) -> CommitBundle {
        let at = self.devices.iter().position(|d| d.name == by).unwrap();
        let bundle = self.devices[at].group.commit(change, now(), &self.dice).unwrap();
        self.devices[at].save();
        bundle
    }

    pub fn apply(&self, bundle: &CommitBundle) -> Applied {
        self.hub.apply(&bundle.update_request, Some(&bundle.signature), now()).unwrap()
    }

    /// Lets the hub accept, and everybody in the room follow.
    pub fn accept(&mut self, bundle: &CommitBundle) -> Applied {
        let mut applied = self.apply(bundle);
        assert_eq!(applied.facts, bundle.facts, "hub and committer read the same");
        self.take(&mut applied);
        applied
    }

    /// Everybody in the room follows what the hub has accepted.
    pub fn take(&mut self, applied: &mut Applied) {
        let stored = applied.group.to_bytes();
        self.hub = HubGroup::from_bytes(&stored).unwrap();
        assert_eq!(self.hub.to_bytes(), stored);
        for device in &mut self.devices {
            if device.group.is_member() && device.group.epoch() < self.hub.epoch() {
                device.follow(&applied.commit);
            }
        }
        self.agree();
    }

    pub fn add(&mut self, by: &str, name: &'static str) {
        let made = self.package(name);
        let change = Change {
            add: vec![made.public.clone()],
            participants: self.listing(name),
            ..Default::default()
        };
        let bundle = self.commit(by, &change);
        let applied = self.accept(&bundle);
        let welcome = applied.welcome.unwrap();
        assert_eq!(welcome.to, [(made.reference, device_id(name))]);
        let tree = self.hub.tree_bytes();
        let group =
            Group::join(&room(), &welcome.message, &tree, &made.private, identity(name)).unwrap();
        self.devices.push(Device::new(name, group));
        self.agree();
    }

    /// Everybody who is in the room sees the same room.
    pub fn agree(&self) {
        let mut authenticators = Vec::new();
        for device in self.devices.iter().filter(|d| d.group.is_member()) {
            assert_eq!(device.group.epoch(), self.hub.epoch(), "{}", device.name);
            let members = device.group.members().unwrap();
            let members: Vec<_> = members.iter().map(|m| m.certificate.device().clone()).collect();
            assert_eq!(members, self.hub.members().unwrap(), "{}", device.name);
            assert_eq!(
                device.group.participants().unwrap(),
                self.hub.participants().unwrap(),
                "{}",
                device.name
            );
            authenticators.push(device.group.epoch_authenticator());
        }
        authenticators.dedup();
        assert_eq!(authenticators.len(), 1, "they are in the same epoch of the same group");
    }

    /// Everybody in the room reads what `by` sends.
    pub fn talk(&mut self, by: &str) {
        let at = self.devices.iter().position(|d| d.name == by).unwrap();
        let message = self.devices[at].send("hello", &self.dice);
        for device in self.devices.iter_mut().filter(|d| d.group.is_member()) {
            if device.name == by {
                assert!(matches!(device.receive(&message), Received::Own));
            } else {
                assert_eq!(device.reads(&message), "hello");
            }
        }
    }
}
