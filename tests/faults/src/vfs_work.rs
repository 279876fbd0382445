//! Work on a store as a node does it, and what was answered: submitters that place messages and acknowledge, jobs, trimming, checkpoints.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use delivery::log::Head;
use delivery::room::{Admission, Event, Known, Prior, What, admit};
use node::clock::{SystemClock, SystemEntropy};
use node::store::logs::{self, Entry, Log, LogName, Start};
use node::store::readers::{self, Reader};
use node::store::rooms::{self, Room};
use node::store::submissions::{self, Key, Scene, State};
use node::store::{Decision, Location, LogId, Options, QUEUE_JOBS, Store, StoreError, Tx, members};
use protocol::api::Accepted;
use protocol::log::{Chain, Digest, EntryKind};
use protocol::{
    Clock as _, DeviceId, Domain, Epoch, Incarnation, Refusal, RoomId, Seq, SubmitId, Timestamp,
};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tests::Outcome;
use tests::seed::Seed;
use tests::trouble::During as _;

use crate::vfs_disk::Disk;

/// Whose node it is.
///
/// # Errors
/// Never: the name is one.
pub fn domain() -> Outcome<Domain> {
    Ok(Domain::parse("a.example")?)
}

/// The `n`-th device.
///
/// # Errors
/// Never: the name is one.
pub fn device(n: u32) -> Outcome<DeviceId> {
    Ok(DeviceId::parse(&format!("mimi://a.example/d/u{n}/1"))?)
}

/// Opens the store in `folder`, on `disk` or on the system's own files.
///
/// # Errors
/// As [`Store::open`].
pub async fn open(folder: &Path, disk: Option<&Disk>) -> Result<Store, StoreError> {
    open_with(folder, disk, QUEUE_JOBS).await
}

/// The same, where so many jobs may wait.
///
/// # Errors
/// As [`Store::open`].
pub async fn open_with(
    folder: &Path,
    disk: Option<&Disk>,
    queue: usize,
) -> Result<Store, StoreError> {
    let domain = Domain::parse("a.example").map_err(|_| StoreError::Closed)?;
    let location = Location::Sqlite(file(folder));
    let vfs = disk.map(|disk| disk.vfs().to_owned());
    let options = Options { create: true, queue, vfs, ..Options::new(location, domain) };
    Store::open(options, &SystemClock, &SystemEntropy).await
}

/// The database file in `folder`.
#[must_use]
pub fn file(folder: &Path) -> PathBuf {
    folder.join("node.db")
}

/// Why a message has no place.
#[derive(Debug)]
pub enum Stop {
    /// Ours.
    Store(StoreError),
    /// Theirs.
    Refused(Refusal),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Refused(refusal) => write!(f, "refused: {refusal:?}"),
        }
    }
}

impl std::error::Error for Stop {}

/// A message: who sends it, and which of theirs it is. Its bytes follow from both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// The number of the device.
    pub from: u32,
    /// The number of the message.
    pub n: u32,
}

impl Message {
    /// What it says: 40 bytes to 1.5 KiB, some longer than a page.
    #[must_use]
    pub fn body(self) -> Vec<u8> {
        let mut chance = Seed::new(u64::from(self.from) << 32 | u64::from(self.n));
        let most = if chance.between(0, 15) == 0 { 9_000 } else { 1_500 };
        let words = chance.between(5, most / 8);
        (0..words).flat_map(|_| chance.draw().to_le_bytes()).collect()
    }

    /// Its name.
    #[must_use]
    pub fn id(self) -> SubmitId {
        let word = u128::from(self.from) << 64 | u128::from(self.n);
        SubmitId::from_bytes(word.to_be_bytes())
    }

    fn key(self, room: &RoomId) -> Outcome<Key> {
        Ok(Key::of_device(device(self.from)?, room.clone(), &self.id()))
    }
}

/// Hands a message in, by the same rule as a node.
///
/// # Errors
/// What the store or the rule says.
pub async fn place(store: &Store, room: &RoomId, message: Message) -> Result<Accepted, Stop> {
    let key = message.key(room).map_err(|_| StoreError::Closed)?;
    let sender = key.origin.to_string();
    let body = message.body();
    let known = store.place(key, sender, move |scene| decide(scene, body)).await?;
    match known {
        Known::Accepted(accepted) => Ok(accepted),
        Known::Stored | Known::Refused => Err(StoreError::Closed.into()),
    }
}

fn decide(scene: Option<&Scene>, body: Vec<u8>) -> Result<Decision<Known>, Stop> {
    let scene = scene.filter(|s| s.inside).ok_or(StoreError::Closed)?;
    let prior = scene.prior.as_ref().map(|submission| Prior {
        digest: submission.digest,
        known: match submission.state {
            State::Stored => Known::Stored,
            State::Accepted(accepted) => Known::Accepted(accepted),
        },
    });
    let digest = Digest::of_bytes(&body);
    let event = Event { digest, epoch: scene.head.epoch, what: What::Application(&body) };
    let now = SystemClock.now();
    let admitted = match admit(&scene.head, prior.as_ref(), &event, now)? {
        Admission::Again(known) => return Ok(Decision::Known(known)),
        Admission::New(admitted) => admitted,
    };
    let accepted = admitted.accepted();
    Ok(Decision::Place {
        entry: Entry::new(&admitted.entry, body, None),
        digest,
        answer: Known::Accepted(accepted),
    })
}

/// How much there is to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rooms.
    pub rooms: u32,
    /// Devices, all of them in all rooms.
    pub submitters: u32,
    /// Messages of each device in each session.
    pub messages: u32,
}

/// Something that was answered, and the disk's moment when the answer was seen.
#[derive(Clone, Copy, Debug)]
pub struct Answer<T> {
    /// [`Disk::moment`].
    pub moment: usize,
    /// What.
    pub what: T,
}

/// A message that got its place.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Number of the room.
    pub room: u32,
    /// Which.
    pub message: Message,
    /// Where.
    pub accepted: Accepted,
}

/// Everything that was answered.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// The rooms are there.
    pub made: Option<Answer<()>>,
    /// Messages.
    pub placed: Vec<Answer<Placed>>,
    /// Cursors: room, device, seq.
    pub acked: Vec<Answer<(u32, u32, Seq)>>,
    /// Items of inboxes: device, seq.
    pub posted: Vec<Answer<(u32, Seq)>>,
    /// Tails of rooms after trimming.
    pub trimmed: Vec<Answer<(u32, Seq)>>,
}

impl Answers {
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.placed.len() + self.acked.len() + self.posted.len() + self.trimmed.len()
    }

    fn append(&mut self, mut other: Self) {
        self.placed.append(&mut other.placed);
        self.acked.append(&mut other.acked);
        self.posted.append(&mut other.posted);
        self.trimmed.append(&mut other.trimmed);
    }
}

/// The `n`-th room.
///
/// # Errors
/// Never: the name is one.
pub fn room(n: u32) -> Outcome<RoomId> {
    Ok(RoomId::new(&domain()?, &format!("r{n}"))?)
}

/// Makes the rooms, with all devices in them, and an inbox for each device.
///
/// # Errors
/// When the store fails.
pub async fn make_rooms(store: &Store, plan: Plan) -> Outcome<()> {
    let hub = domain()?;
    let names: Vec<RoomId> = (0..plan.rooms).map(room).collect::<Outcome<_>>()?;
    let devices: Vec<DeviceId> = (0..plan.submitters).map(device).collect::<Outcome<_>>()?;
    let made = store
        .write::<_, StoreError, _>(move |tx| {
            Box::pin(async move {
                for name in names {
                    make_room(tx, name, &hub, &devices).await?;
                }
                for device in devices {
                    let name = LogName::Inbox(device.clone());
                    let chain = Chain::from_bytes([7; 32]);
                    if let Some(log) = make_log(tx, &name, &hub, chain).await? {
                        readers::add(tx, log, &Reader::Device(device), Seq::new(1)).await?;
                    }
                }
                Ok(())
            })
        })
        .await;
    made.during("making the rooms")
}

async fn make_room(
    tx: &mut Tx,
    name: RoomId,
    hub: &Domain,
    devices: &[DeviceId],
) -> Result<(), StoreError> {
    let chain = Chain::start(&INCARNATION, &name);
    let Some(log) = make_log(tx, &LogName::Room(name.clone()), hub, chain).await? else {
        return Ok(());
    };
    let row = Room {
        log,
        room: name,
        hub: hub.clone(),
        suite: 1,
        epoch: Epoch::new(3),
        created: SystemClock.now(),
    };
    rooms::create(tx, &row, None).await?;
    for device in devices {
        members::add(tx, log, device, Seq::new(1)).await?;
        readers::add(tx, log, &Reader::Device(device.clone()), Seq::new(1)).await?;
    }
    Ok(())
}

async fn make_log(
    tx: &mut Tx,
    name: &LogName,
    hub: &Domain,
    chain: Chain,
) -> Result<Option<LogId>, StoreError> {
    let now = SystemClock.now();
    let start = Start { incarnation: INCARNATION, seq: Seq::new(0), chain, at: now };
    logs::create(tx, name, hub, &start, now).await
}

const INCARNATION: Incarnation = Incarnation::from_bytes([9; 16]);

/// Moves the cursor of `reader` in that log.
///
/// # Errors
/// When the store fails.
pub async fn acknowledge(
    store: &Store,
    log: LogName,
    reader: DeviceId,
    seq: Seq,
) -> Result<(), StoreError> {
    store
        .write(move |tx| {
            Box::pin(async move {
                if let Some(log) = logs::lock(tx, &log).await? {
                    readers::advance(tx, log.id, &Reader::Device(reader), seq).await?;
                }
                Ok(())
            })
        })
        .await
}

/// Puts something into an inbox.
///
/// # Errors
/// When the store fails.
pub async fn post(store: &Store, to: DeviceId, body: Vec<u8>) -> Result<Seq, StoreError> {
    store
        .write(move |tx| {
            Box::pin(async move {
                let name = LogName::Inbox(to);
                let log = logs::lock(tx, &name).await?.ok_or(StoreError::Closed)?;
                let head = Head { seq: log.head, chain: log.chain };
                let placed = head.append(EntryKind::Application, SystemClock.now(), &body);
                logs::append(tx, log.id, &[Entry::new(&placed, body, None)]).await?;
                Ok(placed.seq)
            })
        })
        .await
}

/// Removes all but the newest `keep` entries of a log; says where it begins then.
///
/// # Errors
/// When the store fails.
pub async fn trim(store: &Store, name: LogName, keep: u64) -> Result<Seq, StoreError> {
    store
        .write(move |tx| {
            Box::pin(async move {
                let log = logs::lock(tx, &name).await?.ok_or(StoreError::Closed)?;
                let last = Seq::new(log.head.get().saturating_sub(keep));
                submissions::outlive(tx, log.id, last, Timestamp::from_ms(0)).await?;
                logs::trim(tx, &log, last).await?;
                Ok(logs::get(tx, log.id).await?.tail)
            })
        })
        .await
}

/// The log of that name.
///
/// # Errors
/// When the store fails.
pub async fn find(store: &Store, name: &LogName) -> Result<Option<Log>, StoreError> {
    logs::find(&mut store.snapshot().await?, name).await
}

/// Where the work is done.
pub struct Work<'a> {
    /// The folder of the database.
    pub folder: &'a Path,
    /// The disk under it.
    pub disk: &'a Disk,
    /// How much there is to do.
    pub plan: Plan,
}

impl Work<'_> {
    /// Opens the store, has all devices do their part of that session, and closes it.
    ///
    /// # Errors
    /// When anything fails: the disk must not.
    pub async fn session(&self, n: u32, answers: &mut Answers, mut chance: Seed) -> Outcome<()> {
        let (disk, plan) = (self.disk, self.plan);
        let store = open(self.folder, Some(disk)).await.during("opening the store")?;
        if answers.made.is_none() {
            make_rooms(&store, plan).await?;
            answers.made = Some(Answer { moment: disk.moment(), what: () });
        }
        let done = Arc::new(AtomicBool::new(false));
        let housekeeper = tokio::spawn(keep_house(Housekeeper {
            store: store.clone(),
            file: file(self.folder),
            disk: disk.clone(),
            plan,
            done: done.clone(),
        }));
        let devices = (0..plan.submitters).map(|device| {
            let worker = Worker { store: store.clone(), disk: disk.clone(), plan, n: device };
            tokio::spawn(worker.work(n, chance.branch()))
        });
        for device in devices.collect::<Vec<_>>() {
            answers.append(device.await??);
        }
        done.store(true, Ordering::Relaxed);
        answers.append(housekeeper.await??);
        store.close().await;
        Ok(())
    }
}

/// Another program moves everything out of the write-ahead log and cuts it, as the node's writer does with a large one.
///
/// # Errors
/// When it cannot.
pub async fn truncate_log(folder: &Path, disk: &Disk) -> Outcome<()> {
    let options = SqliteConnectOptions::new().filename(file(folder)).vfs(disk.vfs().to_owned());
    let mut other = options.connect().await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut other).await?;
    Ok(other.close().await?)
}

struct Worker {
    store: Store,
    disk: Disk,
    plan: Plan,
    n: u32,
}

impl Worker {
    /// One after the other, and now and then many at once.
    async fn work(self, session: u32, mut chance: Seed) -> Outcome<Answers> {
        let mut answers = Answers::default();
        let first = session * self.plan.messages;
        let mut left: Vec<u32> = (first..first + self.plan.messages).rev().collect();
        while !left.is_empty() {
            let burst = if chance.between(0, 5) == 0 { 24 } else { 1 };
            let mut waiting = Vec::new();
            for n in left.split_off(left.len().saturating_sub(burst)) {
                let room = small(chance.between(0, u64::from(self.plan.rooms) - 1));
                waiting.push(self.hand_in(room, Message { from: self.n, n }));
            }
            let places = tests::together(waiting).await;
            answers.placed.extend(places.into_iter().collect::<Outcome<Vec<_>>>()?);
            match chance.between(0, 9) {
                0..3 => {
                    let Some(last) = answers.placed.last().copied() else { continue };
                    let (number, seq) = (last.what.room, last.what.accepted.place.seq);
                    let log = LogName::Room(room(number)?);
                    acknowledge(&self.store, log, device(self.n)?, seq).await?;
                    let what = (number, self.n, seq);
                    answers.acked.push(Answer { moment: self.disk.moment(), what });
                }
                3..5 => {
                    let to = small(chance.between(0, u64::from(self.plan.submitters) - 1));
                    let body = Message { from: u32::MAX, n: self.n }.body();
                    let seq = post(&self.store, device(to)?, body).await?;
                    answers.posted.push(Answer { moment: self.disk.moment(), what: (to, seq) });
                }
                _ => {}
            }
        }
        Ok(answers)
    }

    async fn hand_in(&self, number: u32, message: Message) -> Outcome<Answer<Placed>> {
        let accepted = place(&self.store, &room(number)?, message).await?;
        let moment = self.disk.moment();
        Ok(Answer { moment, what: Placed { room: number, message, accepted } })
    }
}

fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

struct Housekeeper {
    store: Store,
    file: PathBuf,
    disk: Disk,
    plan: Plan,
    done: Arc<AtomicBool>,
}

/// Trims, reads under long snapshots, and has another program start the write-ahead log anew, as the writer does with a large one.
async fn keep_house(keeper: Housekeeper) -> Outcome<Answers> {
    let mut answers = Answers::default();
    let options = SqliteConnectOptions::new().filename(&keeper.file);
    let options = options.vfs(keeper.disk.vfs().to_owned()).busy_timeout(Duration::from_secs(2));
    let mut other = options.connect().await?;
    let mut round = 0_u32;
    while !keeper.done.load(Ordering::Relaxed) {
        round += 1;
        let number = round % keeper.plan.rooms;
        let name = LogName::Room(room(number)?);
        let mut snapshot = keeper.store.snapshot().await?;
        logs::find(&mut snapshot, &name).await?;
        let tail = trim(&keeper.store, name, KEPT).await?;
        answers.trimmed.push(Answer { moment: keeper.disk.moment(), what: (number, tail) });
        drop(snapshot);
        match round % 8 {
            3 => drop(sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut other).await?),
            7 => drop(sqlx::query("PRAGMA wal_checkpoint(RESTART)").fetch_one(&mut other).await?),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    other.close().await?;
    Ok(answers)
}

/// Entries that a room keeps.
const KEPT: u64 = 60;
