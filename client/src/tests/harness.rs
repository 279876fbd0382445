//! A hub in memory, and devices that are driven step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crypto::keypackage::{self, Use};
use crypto::{
    DeviceIdentity, DeviceKey, HubGroup, IdentityKey, NodeKey, Suite, group_info, key_material,
};
use protocol::api::{
    Accepted, Body, CreateRoom, Entries, Entry, InboxItem, LogRef, Payload, Submit, SubmitReply,
    Welcome,
};
use protocol::log::{Chain, Digest, EntryKind};
use protocol::mimi::{
    ClientKeyMaterial, ClientOutcome, KeyMaterialResponse, KeyMaterialUserCode, KeyPackageBytes,
};
use protocol::{
    Clock, Code, Cursor, DeviceId, Domain, Entropy, Incarnation, Refusal, RoomId, Seq, SubmitId,
    Timestamp, UserId,
};
use tempfile::TempDir;

use crate::command::{self, Answer, Need, Next};
use crate::core::{Core, Work};
use crate::net::NodeAddress;
use crate::sender::{self, Out};
use crate::store::{Account, NewAccount, PinRow, Stage, Store};
use crate::{
    Event, Message, Place, Result, RoomOptions, RoomStatus, Seal, World, receiver, rooms, timeline,
};

/// A clock that is set.
#[derive(Default)]
pub(crate) struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::SeqCst))
    }
}

/// Chance that repeats itself.
pub(crate) struct Seeded(u64, AtomicU64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed, AtomicU64::new(0))
    }
}

impl Entropy for Seeded {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let n = self.1.fetch_add(1, Ordering::SeqCst);
            let digest = Digest::of_bytes(&[self.0.to_be_bytes(), n.to_be_bytes()].concat());
            chunk.copy_from_slice(&digest.as_bytes()[..chunk.len()]);
        }
    }
}

/// A folder that lives in memory where there is such a place.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

struct HubRoom {
    group: HubGroup,
    log: Vec<Entry>,
    chains: Vec<Chain>,
    /// From which entry to which a device reads.
    readers: BTreeMap<DeviceId, (u64, Option<u64>)>,
}

/// One node that is everybody's and every room's hub.
pub(crate) struct Hub {
    pub(crate) clock: Arc<SetClock>,
    pub(crate) entropy: Arc<Seeded>,
    pub(crate) domain: Domain,
    key: NodeKey,
    incarnation: Incarnation,
    rooms: BTreeMap<RoomId, HubRoom>,
    inboxes: BTreeMap<DeviceId, Vec<InboxItem>>,
    pub(crate) packages: BTreeMap<DeviceId, Vec<Vec<u8>>>,
    /// A hub that takes every commit, whatever the room's policy says.
    pub(crate) lenient: bool,
    memory: BTreeMap<(DeviceId, SubmitId), (Digest, SubmitReply)>,
}

impl Hub {
    pub(crate) fn new(seed: u64) -> Self {
        // The MLS library compares lifetimes with the system's clock, so time begins there.
        let begin = crate::clock::SystemClock.now().ms();
        let clock = Arc::new(SetClock(AtomicU64::new(begin)));
        let entropy = Arc::new(Seeded::new(seed));
        Self {
            domain: Domain::parse("a.example").unwrap(),
            key: NodeKey::generate(&*entropy),
            incarnation: Incarnation::from_bytes(entropy.bytes16()),
            clock,
            entropy,
            rooms: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            packages: BTreeMap::new(),
            lenient: false,
            memory: BTreeMap::new(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn pass(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn world(&self) -> World {
        World { clock: self.clock.clone(), entropy: self.entropy.clone() }
    }

    pub(crate) fn head(&self, room: &RoomId) -> u64 {
        self.rooms[room].log.len() as u64
    }

    /// Bodies of application entries, to send them again behind everybody's back.
    pub(crate) fn bodies(&self, room: &RoomId) -> Vec<Vec<u8>> {
        let full = |e: &Entry| match &e.body {
            Body::Full(bytes) if e.kind == EntryKind::Application.code() => Some(bytes.clone()),
            _ => None,
        };
        self.rooms[room].log.iter().filter_map(full).collect()
    }

    pub(crate) fn append(&mut self, room: &RoomId, kind: EntryKind, body: Vec<u8>) -> Accepted {
        let (incarnation, now) = (self.incarnation, self.now());
        let hub = self.rooms.get_mut(room).unwrap();
        let last = hub.log.last().map_or(Timestamp::default(), |e| e.at);
        let at = now.max(Timestamp::from_ms(last.ms() + 1));
        let seq = Seq::new(hub.log.len() as u64 + 1);
        let chain = hub.chains.last().unwrap().next(seq, &Digest::of_entry(kind, at, &body));
        hub.chains.push(chain);
        hub.log.push(Entry { seq, at, kind: kind.code(), body: Body::Full(body) });
        Accepted { place: Cursor { incarnation, seq }, at, chain }
    }

    fn create(&mut self, by: &DeviceId, request: &CreateRoom) -> SubmitReply {
        let start = Chain::start(&self.incarnation, &request.room);
        let at = self.now();
        let place = Cursor { incarnation: self.incarnation, seq: Seq::new(0) };
        let accepted = SubmitReply::Accepted(Accepted { place, at, chain: start });
        if self.rooms.contains_key(&request.room) {
            return accepted;
        }
        let key = self.key.public();
        match HubGroup::create(&request.room, &key, &request.group_info, &request.tree, by) {
            Ok(group) => {
                let readers = BTreeMap::from([(by.clone(), (1, None))]);
                let room = HubRoom { group, log: vec![], chains: vec![start], readers };
                self.rooms.insert(request.room.clone(), room);
                accepted
            }
            Err(refusal) => panic!("a room is refused: {refusal}"),
        }
    }

    fn key_material(&mut self, request: &[u8]) -> Vec<u8> {
        let request = key_material::verify(request).unwrap();
        let user = request.target;
        let clients = self
            .packages
            .iter_mut()
            .filter(|(device, _)| device.user() == user)
            .map(|(device, packages)| ClientKeyMaterial {
                client: device.clone(),
                outcome: packages.pop().map_or(ClientOutcome::Exhausted, |bytes| {
                    ClientOutcome::Success(KeyPackageBytes::parse(bytes).unwrap())
                }),
            })
            .collect();
        KeyMaterialResponse { status: KeyMaterialUserCode::Success, user, clients }.encode()
    }

    fn group_info(&self, room: &RoomId, request: &[u8]) -> Vec<u8> {
        let request = group_info::verify(request).unwrap();
        self.rooms[room].group.seal_group_info(&request, &self.key).unwrap()
    }

    pub(crate) fn submit(&mut self, by: &DeviceId, submit: &Submit) -> SubmitReply {
        let digest = submit.payload.digest();
        if let Some((known, reply)) = self.memory.get(&(by.clone(), submit.submit_id)) {
            assert_eq!(*known, digest, "other bytes under the same SubmitId");
            return reply.clone();
        }
        let reply = match self.admit(by, submit) {
            Ok(accepted) => SubmitReply::Accepted(accepted),
            Err(refusal) => return SubmitReply::Refused(refusal),
        };
        self.memory.insert((by.clone(), submit.submit_id), (digest, reply.clone()));
        reply
    }

    fn admit(&mut self, by: &DeviceId, submit: &Submit) -> std::result::Result<Accepted, Refusal> {
        let now = self.now();
        let room = &submit.room;
        let group = &self.rooms.get(room).ok_or(Code::NotFound)?.group;
        let handshake = match &submit.payload {
            Payload::Application(bytes) => {
                let frame = protocol::mls::Frame::read_exact(bytes).unwrap();
                if !group.members().unwrap().contains(by) {
                    return Err(Code::NotFound.into());
                }
                if frame.epoch != group.epoch() {
                    return Err(Refusal::new(Code::StaleEpoch).at_epoch(group.epoch()));
                }
                return Ok(self.append(room, EntryKind::Application, bytes.clone()));
            }
            Payload::Handshake(handshake) => handshake,
        };
        if let Ok(proposed) = group.propose(&handshake.bundle, Some(&handshake.signature), now) {
            let mut last = None;
            for message in proposed.messages {
                last = Some(self.append(room, EntryKind::Proposal, message));
            }
            self.rooms.get_mut(room).unwrap().group = proposed.group;
            return Ok(last.unwrap());
        }
        let applied = group.apply(&handshake.bundle, Some(&handshake.signature), now)?;
        if !self.lenient {
            delivery::policy::judge(&applied.facts)?;
        }
        assert_eq!(applied.facts.committer, *by);
        let accepted = self.append(room, EntryKind::Commit, applied.commit);
        let seq = accepted.place.seq.get();
        let facts = &applied.facts;
        let hub = self.rooms.get_mut(room).unwrap();
        for gone in facts.removed.iter().chain(&facts.left).chain(&facts.expelled) {
            if !facts.members.contains(gone) {
                hub.readers.get_mut(gone).unwrap().1 = Some(seq);
            }
        }
        hub.group = applied.group;
        for added in &facts.added {
            let from = if facts.external { seq } else { seq + 1 };
            hub.readers.insert(added.clone(), (from, None));
        }
        if let Some(welcome) = applied.welcome {
            let tree = hub.group.tree_bytes();
            self.append(room, EntryKind::Welcome, welcome.message.clone());
            for (_, device) in welcome.to {
                self.inboxes.entry(device).or_default().push(InboxItem::Welcome(Welcome {
                    room: room.clone(),
                    cursor: accepted.place,
                    chain: accepted.chain,
                    at: accepted.at,
                    welcome: welcome.message.clone(),
                    tree: tree.clone(),
                }));
            }
        }
        Ok(accepted)
    }

    /// Begins another life, with everything that it has.
    pub(crate) fn restore(&mut self) {
        self.incarnation = Incarnation::from_bytes(self.entropy.bytes16());
    }

    /// Rewrites history: another chain at an entry.
    pub(crate) fn rewrite(&mut self, room: &RoomId, seq: u64, chain: Chain) -> Chain {
        let chains = &mut self.rooms.get_mut(room).unwrap().chains;
        std::mem::replace(&mut chains[usize::try_from(seq).unwrap()], chain)
    }

    /// What a device gets of a log after a seq, at most `max` entries.
    pub(crate) fn entries(
        &self,
        device: &DeviceId,
        log: &LogRef,
        after: u64,
        max: usize,
    ) -> Option<Entries> {
        let incarnation = self.incarnation;
        match log {
            LogRef::Inbox => {
                let items = self.inboxes.get(device)?;
                let entries: Vec<Entry> = (1u64..)
                    .zip(items)
                    .skip(usize::try_from(after).unwrap())
                    .take(max)
                    .map(|(n, item)| Entry {
                        seq: Seq::new(n),
                        at: self.now(),
                        kind: EntryKind::Item.code(),
                        body: Body::Full(protocol::api::encode(item)),
                    })
                    .collect();
                let head = Seq::new(items.len() as u64);
                let log = log.clone();
                let some = !entries.is_empty();
                some.then_some(Entries {
                    log,
                    incarnation,
                    prev_chain: None,
                    entries,
                    head,
                    gap: None,
                })
            }
            LogRef::Room(room) => {
                let hub = &self.rooms[room];
                let (from, until) = *hub.readers.get(device)?;
                let after = after.max(from - 1);
                let end = until.unwrap_or(hub.log.len() as u64);
                let entries: Vec<Entry> = hub
                    .log
                    .iter()
                    .filter(|e| e.seq.get() > after && e.seq.get() <= end)
                    .take(max)
                    .cloned()
                    .map(withhold)
                    .collect();
                let prev_chain = Some(hub.chains[usize::try_from(after).unwrap()]);
                let head = Seq::new(hub.log.len() as u64);
                let log = log.clone();
                let some = !entries.is_empty();
                some.then_some(Entries { log, incarnation, prev_chain, entries, head, gap: None })
            }
        }
    }
}

fn withhold(entry: Entry) -> Entry {
    match &entry.body {
        Body::Full(bytes) if entry.kind == EntryKind::Welcome.code() => {
            let digest = Digest::of_entry(EntryKind::Welcome, entry.at, bytes);
            Entry { body: Body::Withheld(digest), ..entry }
        }
        _ => entry,
    }
}

/// One device, driven step by step.
pub(crate) struct Device {
    pub(crate) dir: Arc<TempDir>,
    pub(crate) id: DeviceId,
    pub(crate) identity: IdentityKey,
    pub(crate) events: Vec<Event>,
    core: Option<Core>,
    seal: Seal,
    acked: BTreeMap<LogRef, u64>,
    /// Handshakes on their way, as the stream keeps them.
    sent: BTreeSet<SubmitId>,
}

impl Device {
    /// A device of a new person.
    pub(crate) async fn new(hub: &mut Hub, name: &str) -> Self {
        let identity = IdentityKey::generate(&*hub.entropy);
        Self::of(hub, name, "1", identity, Seal::Unsealed).await
    }

    /// A device under a person's identity.
    pub(crate) async fn of(
        hub: &mut Hub,
        name: &str,
        local: &str,
        identity: IdentityKey,
        seal: Seal,
    ) -> Self {
        let dir = Arc::new(folder());
        let user = UserId::new(&hub.domain, name).unwrap();
        let id = DeviceId::new(&user, local).unwrap();
        let key = DeviceKey::generate(&*hub.entropy);
        let certificate = identity.certify(&id, &key.public(), hub.now());
        let new = NewAccount {
            node: NodeAddress {
                domain: hub.domain.clone(),
                host: "127.0.0.1".into(),
                port: 1,
                node_key: [0; 32],
            },
            hub_key: *hub.key.public().as_bytes(),
            device_name: "test".into(),
            identity: identity.clone(),
            device: DeviceIdentity::new(key, certificate).unwrap(),
        };
        let mut account = Account::new(new, Stage::Ready);
        account.token = Some("token".into());
        let place = Place { dir: dir.path().into(), seal: seal.clone(), world: hub.world() };
        let mut store = Store::open(&place).await.unwrap();
        let mut tx = store.tx().await.unwrap();
        tx.put_account(&account).await.unwrap();
        let pin =
            PinRow { user, key: *identity.public().as_bytes(), since: hub.now(), other: None };
        tx.put_pin(&pin).await.unwrap();
        tx.commit().await.unwrap();
        drop(store);
        let mut device = Self {
            dir,
            id,
            identity,
            events: vec![],
            core: None,
            seal,
            acked: BTreeMap::new(),
            sent: BTreeSet::new(),
        };
        device.open(hub).await;
        device.packages(hub, 5).await;
        device
    }

    /// Opens the store again after a crash.
    pub(crate) async fn open(&mut self, hub: &Hub) {
        let place =
            Place { dir: self.dir.path().into(), seal: self.seal.clone(), world: hub.world() };
        let mut store = Store::open(&place).await.unwrap();
        let account = store.tx().await.unwrap().account().await.unwrap().unwrap();
        let mut core = Core::new(store, &account, hub.world()).unwrap();
        core.set_online(true);
        self.core = Some(core);
        self.sent.clear();
    }

    /// The process dies: whatever is only in memory is gone.
    pub(crate) async fn crash(&mut self, hub: &Hub) {
        self.core = None;
        self.open(hub).await;
    }

    pub(crate) fn core(&mut self) -> &mut Core {
        self.core.as_mut().unwrap()
    }

    async fn packages(&mut self, hub: &mut Hub, n: usize) {
        let now = hub.now();
        let entropy = hub.entropy.clone();
        let id = self.id.clone();
        let made = self
            .work(async move |work| {
                let mut out = vec![];
                for suite in Suite::ALL.into_iter().take(1) {
                    for _ in 0..n {
                        let made =
                            keypackage::make(suite, work.identity, Use::Once, now, &*entropy)
                                .unwrap();
                        work.tx.add_key_package(suite, Use::Once, &made, now).await?;
                        out.push(made.public);
                    }
                }
                Ok(out)
            })
            .await
            .unwrap();
        hub.packages.entry(id).or_default().extend(made);
    }

    pub(crate) async fn work<T>(
        &mut self,
        f: impl AsyncFnOnce(&mut Work<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut work = self.core().begin().await?;
        let value = f(&mut work).await?;
        let done = work.commit().await?;
        self.events.extend(done.events);
        Ok(value)
    }

    pub(crate) async fn create(&mut self) -> RoomId {
        self.work(async |work| rooms::found(work, RoomOptions::default()).await).await.unwrap()
    }

    pub(crate) async fn send(&mut self, room: &RoomId, text: &str) -> SubmitId {
        self.work(async |work| sender::write(work, room, text).await).await.unwrap()
    }

    pub(crate) async fn want(&mut self, room: &RoomId, action: crate::store::Action) -> SubmitId {
        let work = async |work: &mut Work<'_>| {
            let row = work.room(room).await?;
            let now = work.now();
            command::want(work, &row, action, now).await
        };
        self.work(work).await.unwrap()
    }

    /// Carries one command a step further; whether there was one.
    pub(crate) async fn carry(&mut self, hub: &mut Hub) -> bool {
        let now = hub.now();
        let next = command::next(self.core().commands().await.unwrap(), &BTreeSet::new(), now);
        let Next::Carry(position, _) = next else { return false };
        let need = self.work(async |work| command::ask(work, position).await).await.unwrap();
        let answer = match need {
            Need::Nothing => return true,
            Need::Create(request) => Answer::Created(Ok(hub.create(&self.id, &request))),
            Need::Packages(user, request) => {
                Answer::Packages(user, Ok(hub.key_material(&request.request).into()))
            }
            Need::GroupInfo(join, request, key) => {
                let bytes = hub.group_info(&request.room, &request.request);
                Answer::GroupInfo(join, key, Ok(bytes.into()))
            }
        };
        self.work(async |work| command::go_on(work, position, answer).await).await.unwrap();
        true
    }

    /// What would go up next, encrypted and written down.
    pub(crate) async fn next_out(&mut self) -> Option<Submit> {
        for command in self.core().commands().await.unwrap().clone().into_values() {
            if let Some(attempt) = command.attempt
                && self.sent.insert(attempt.submit_id)
            {
                let payload = Payload::Handshake(protocol::api::Handshake {
                    bundle: attempt.bundle,
                    signature: attempt.signature,
                });
                return Some(Submit { submit_id: attempt.submit_id, room: command.room, payload });
            }
        }
        match self.work(async |work| sender::step(work).await).await.unwrap() {
            Out::Submit(submit) => Some(submit),
            Out::WaitUntil(_) | Out::Idle => None,
        }
    }

    pub(crate) async fn replied(&mut self, id: SubmitId, reply: SubmitReply) {
        let work = async |work: &mut Work<'_>| match command::owns(work.commands, &id) {
            Some(position) => command::answered(work, position, reply).await.map(|_| ()),
            None => sender::replied(work, &id, reply).await,
        };
        self.work(work).await.unwrap();
    }

    /// Hands one thing over and takes the answer; whether there was one.
    pub(crate) async fn hand_over(&mut self, hub: &mut Hub) -> bool {
        let Some(submit) = self.next_out().await else { return false };
        let id = submit.submit_id;
        let reply = hub.submit(&self.id, &submit);
        self.replied(id, reply).await;
        true
    }

    /// The logs this device would be pushed.
    pub(crate) fn logs(&self, hub: &Hub) -> Vec<LogRef> {
        let rooms = hub.rooms.iter().filter(|(_, r)| r.readers.contains_key(&self.id));
        std::iter::once(LogRef::Inbox).chain(rooms.map(|(r, _)| LogRef::Room(r.clone()))).collect()
    }

    /// Takes one batch of a log in; whether the acknowledgement moved. Without `ack` it gets lost.
    pub(crate) async fn take_in(&mut self, hub: &Hub, log: &LogRef, max: usize, ack: bool) -> bool {
        let acked = self.acked.get(log).copied().unwrap_or(0);
        let Some(entries) = hub.entries(&self.id, log, acked, max) else { return false };
        self.take(entries, ack).await
    }

    /// Takes a batch in; whether the acknowledgement moved.
    pub(crate) async fn take(&mut self, entries: Entries, ack: bool) -> bool {
        let log = entries.log.clone();
        let acked = self.acked.get(&log).copied().unwrap_or(0);
        let last = entries.entries.last().map(|e| e.seq);
        let pushed = last.max(entries.gap.as_ref().map(|gap| gap.last));
        let taken = self.work(async |work| receiver::apply(work, entries).await).await.unwrap();
        let Some(ack_to) = taken.ack else { return false };
        assert_eq!(ack_to.log, log);
        assert!(Some(ack_to.cursor.seq) <= pushed, "a node refuses what it did not push");
        let moved = ack_to.cursor.seq.get() > acked;
        if ack {
            self.acked.insert(log, ack_to.cursor.seq.get());
        }
        moved
    }

    /// How far the node knows it to be.
    pub(crate) fn acked(&self, room: &RoomId) -> u64 {
        self.acked.get(&LogRef::Room(room.clone())).copied().unwrap_or(0)
    }

    /// How far the node knows it to be in its inbox.
    pub(crate) fn acked_inbox(&self) -> u64 {
        self.acked.get(&LogRef::Inbox).copied().unwrap_or(0)
    }

    /// Where it stands in a room.
    pub(crate) async fn status(&mut self, room: &RoomId) -> RoomStatus {
        self.core().read().await.unwrap().room(room).await.unwrap().unwrap().status
    }

    pub(crate) async fn timeline(&mut self, room: &RoomId) -> Vec<Message> {
        timeline::page(self.core(), room, None, 1000).await.unwrap()
    }

    pub(crate) async fn texts(&mut self, room: &RoomId) -> Vec<String> {
        self.timeline(room).await.into_iter().map(|m| m.text).collect()
    }

    /// Where it stands, for the message of a failed test.
    pub(crate) async fn dump(&mut self) -> String {
        let mut lines = vec![format!("{}: alarms {:?}", self.id, self.alarms())];
        for event in &self.events {
            if let Event::StateChanged { state, .. } = event
                && let Some(failed) = &state.failed
            {
                lines.push(format!("failed: {}: {}", failed.code, failed.sentence));
            }
        }
        for c in self.core().commands().await.unwrap().values() {
            let kind = format!("{:?}", c.action);
            let kind = kind.split('(').next().unwrap_or_default();
            lines.push(format!("{kind}: {:?}, waiting {:?}", c.change, c.waiting));
        }
        let mut tx = self.core().read().await.unwrap();
        for room in tx.rooms().await.unwrap() {
            lines.push(format!("{}: {:?} at {:?}", room.room, room.status, room.place));
        }
        for submission in tx.live_submissions().await.unwrap() {
            lines.push(format!("{:?}", submission.item));
        }
        lines.join("\n  ")
    }

    pub(crate) fn alarms(&self) -> Vec<String> {
        let alarm = |e: &Event| match e {
            Event::Alarm(alarm) => Some(format!("{}: {}", alarm.kind.as_str(), alarm.sentence)),
            _ => None,
        };
        self.events.iter().filter_map(alarm).collect()
    }
}

/// Runs until nothing moves any more.
pub(crate) async fn settle(hub: &mut Hub, devices: &mut [&mut Device]) {
    let mut still = 0;
    for _ in 0..5_000 {
        let mut moved = false;
        for device in devices.iter_mut() {
            moved |= device.carry(hub).await;
            moved |= device.hand_over(hub).await;
            for log in device.logs(hub) {
                moved |= device.take_in(hub, &log, 64, true).await;
            }
        }
        still = if moved { 0 } else { still + 1 };
        // Backoffs and the waits of those who commit leaves have to pass.
        hub.pass(1_000);
        if still > 30 {
            return;
        }
    }
    for device in devices.iter_mut() {
        eprintln!("{}", device.dump().await);
    }
    panic!("it does not come to rest");
}
