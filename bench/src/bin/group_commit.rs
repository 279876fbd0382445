//! How much sharing a transaction gives: submissions one after the other against 64 that come at once, through the node's own store on
//! a real disk. Each does what a hub does for a message: look the room, the sender and the submission up, append, remember the answer.
//!
//! `--check` fails under [`RATIO_MIN`].

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use node::store::logs::{self, Entry, LogName, Start};
use node::store::rooms::{self, Room};
use node::store::submissions::{Key, Scene};
use node::store::{Decision, Location, Options, Store, StoreError, Tx, identity, members};
use protocol::api::Accepted;
use protocol::log::{Chain, Digest, EntryKind};
use protocol::{Clock, Cursor, DeviceId, Domain, Entropy, Epoch, RoomId, Seq, SubmitId, Timestamp};
use tokio::time::Instant;

/// What the design promises of 64 submitters.
const RATIO_MIN: f64 = 20.0;
/// A message of 256 bytes is 402 on the wire.
const BODY_BYTES: usize = 402;

#[derive(Parser)]
struct Arguments {
    /// Where to put the database: a folder on the disk to measure.
    #[arg(default_value = "target")]
    folder: PathBuf,
    /// Submitters at a time.
    #[arg(long, default_value_t = 64)]
    submitters: u64,
    /// Seconds for each of the two measurements.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rooms they are spread over.
    #[arg(long, default_value_t = 8)]
    rooms: u64,
    /// Fail when sharing gives less than the design promises.
    #[arg(long)]
    check: bool,
}

/// Neither the time nor chance matters here.
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(1_700_000_000_000)
    }
}

impl Entropy for Fixed {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments).await {
        Ok(ratio) if !arguments.check || ratio >= RATIO_MIN => ExitCode::SUCCESS,
        Ok(ratio) => {
            eprintln!("group_commit: {ratio:.1} times is under {RATIO_MIN} times");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("group_commit: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<f64, Failure> {
    std::fs::create_dir_all(&arguments.folder)?;
    let alone = rate(arguments, 1).await?;
    let together = rate(arguments, arguments.submitters).await?;
    let ratio = together / alone;
    println!("{ratio:.1} times as many");
    Ok(ratio)
}

/// Submissions per second with so many submitters, on a fresh database.
async fn rate(arguments: &Arguments, submitters: u64) -> Result<f64, Failure> {
    let folder = tempfile::tempdir_in(&arguments.folder)?;
    let store = open(folder.path()).await?;
    let mut rooms = Vec::new();
    for n in 0..arguments.rooms.max(1) {
        rooms.push(create_room(&store, n, submitters).await?);
    }
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let until = started + Duration::from_secs(arguments.seconds.max(1));
    let commits_before = store.counters().commits();
    let mut tasks = Vec::new();
    for (n, room) in (0..submitters).zip(rooms.into_iter().cycle()) {
        let submit = submit_until(store.clone(), device(n)?, room, next.clone(), until);
        tasks.push(tokio::spawn(submit));
    }
    for task in tasks {
        task.await??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let commits = store.counters().commits() - commits_before;
    let submissions = next.load(Ordering::Relaxed);
    store.close().await;
    let rate = per(submissions, seconds);
    println!(
        "{submitters:>3} at a time: {rate:>7.0} submissions/s, {:>5.0} commits/s, {:.1} submissions each",
        per(commits, seconds),
        per(submissions, per(commits, 1.0))
    );
    Ok(rate)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn per(count: u64, of: f64) -> f64 {
    count as f64 / of
}

async fn open(folder: &Path) -> Result<Store, Failure> {
    let location = Location::Sqlite(folder.join("node.db"));
    let options = Options {
        create: true,
        subscriber: Arc::new(|_| ()),
        ..Options::new(location, Domain::parse("a.example")?)
    };
    Ok(Store::open(options, &Fixed, &Fixed).await?)
}

/// A room with every submitter in it.
async fn create_room(store: &Store, n: u64, submitters: u64) -> Result<RoomId, Failure> {
    let domain = Domain::parse("a.example")?;
    let room = RoomId::new(&domain, &format!("room{n}"))?;
    let made = room.clone();
    let devices = (0..submitters).map(device).collect::<Result<Vec<_>, _>>()?;
    store.write::<_, StoreError, _>(move |tx| Box::pin(fill_room(tx, made, devices))).await?;
    Ok(room)
}

async fn fill_room(tx: &mut Tx, room: RoomId, devices: Vec<DeviceId>) -> Result<(), StoreError> {
    let node = identity::load(tx).await?;
    let start = Start {
        incarnation: node.incarnation,
        seq: Seq::new(0),
        chain: Chain::start(&node.incarnation, &room),
        at: Timestamp::from_ms(0),
    };
    let name = LogName::Room(room.clone());
    let log = logs::create(tx, &name, &node.domain, &start, Fixed.now()).await?;
    let log = log.ok_or(StoreError::Conflict { table: "log" })?;
    let row =
        Room { log, room, hub: node.domain, suite: 1, epoch: Epoch::new(0), created: Fixed.now() };
    rooms::create(tx, &row, None).await?;
    for device in &devices {
        members::add(tx, log, device, Seq::new(0)).await?;
    }
    Ok(())
}

fn device(n: u64) -> Result<DeviceId, protocol::id::IdError> {
    DeviceId::parse(&format!("mimi://a.example/d/user{n}/phone"))
}

async fn submit_until(
    store: Store,
    device: DeviceId,
    room: RoomId,
    next: Arc<AtomicU64>,
    until: Instant,
) -> Result<(), StoreError> {
    let mut own = 0_u64;
    let started = Instant::now();
    while Instant::now() < until {
        own += 1;
        let mut random = [0; 10];
        for (byte, of) in random.iter_mut().zip(Digest::of_bytes(&own.to_be_bytes()).as_bytes()) {
            *byte = *of;
        }
        let now = Fixed.now().after(started.elapsed());
        let id = SubmitId::mint(now, random);
        let key = Key::of_device(device.clone(), room.clone(), &id);
        store.place(key, device.to_string(), decide).await?;
        next.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// What the node decides about a message.
fn decide(scene: Option<&Scene>) -> Result<Decision<Accepted>, StoreError> {
    let scene = scene.filter(|s| s.inside && s.prior.is_none());
    let room = scene.ok_or(StoreError::Conflict { table: "room" })?.head;
    let body = vec![0x5a; BODY_BYTES];
    let digest = Digest::of_bytes(&body);
    let at = Timestamp::from_ms(room.last_at.ms() + 1);
    let head = delivery::log::Head { seq: room.head, chain: room.chain };
    let placed = head.append(EntryKind::Application, at, &body);
    let place = Cursor { incarnation: room.incarnation, seq: placed.seq };
    let answer = Accepted { place, at, chain: placed.chain };
    Ok(Decision::Place { entry: Entry::new(&placed, body, None), digest, answer })
}
