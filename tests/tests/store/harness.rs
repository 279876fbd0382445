//! Both databases under one test: SQLite in a temporary folder always, PostgreSQL where `WAXWING_POSTGRES` names a server.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use node::store::logs::{self, Entry, Log, LogName, Start};
use node::store::{Location, LogId, Options, Store, StoreError, Tx, Wake};
use protocol::log::{Chain, Digest, EntryKind};
use protocol::{Clock, DeviceId, Domain, Entropy, Incarnation, RoomId, Seq, Timestamp, UserId};
use sqlx::migrate::MigrateDatabase as _;

/// A clock that stands still.
pub struct Still(pub u64);
impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0)
    }
}

/// Chance that is none: every draw is the next number.
#[derive(Default)]
pub struct Counting(AtomicU64);
impl Entropy for Counting {
    fn fill(&self, out: &mut [u8]) {
        out.fill(u8::try_from(self.0.fetch_add(1, Ordering::Relaxed) % 250).unwrap() + 1);
    }
}

/// A database of its own for one test.
pub struct Db {
    pub location: Location,
    pub wakes: Arc<Mutex<Vec<Wake>>>,
    _folder: Option<tempfile::TempDir>,
}

impl Db {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(folder.path().join("node.db"));
        Self { location, wakes: Arc::default(), _folder: Some(folder) }
    }

    async fn postgres(server: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("waxwing_test_{}_{n}", std::process::id());
        let (base, query) = server.split_once('?').map_or((server, None), |(b, q)| (b, Some(q)));
        let base = base.rsplit_once('/').unwrap().0;
        let url = format!("{base}/{name}{}", query.map_or(String::new(), |q| format!("?{q}")));
        sqlx::Postgres::create_database(&url).await.unwrap();
        Self { location: Location::Postgres(url), wakes: Arc::default(), _folder: None }
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self.location, Location::Sqlite(_))
    }

    pub fn options(&self) -> Options {
        let wakes = self.wakes.clone();
        Options {
            create: true,
            subscriber: Arc::new(move |wake| wakes.lock().unwrap().push(wake)),
            ..Options::new(self.location.clone(), domain("a.example"))
        }
    }

    pub async fn try_open(&self, options: Options) -> Result<Store, StoreError> {
        Store::open(options, &Still(1_000), &Counting::default()).await
    }

    pub async fn open(&self) -> Store {
        self.try_open(self.options()).await.unwrap()
    }

    async fn drop(self) {
        if let Location::Postgres(url) = &self.location {
            sqlx::Postgres::force_drop_database(url).await.unwrap();
        }
    }
}

/// What the environment says.
#[expect(clippy::disallowed_methods, reason = "it is how tests are told what there is")]
pub fn told(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Runs a test on each database there is.
pub async fn on_both(test: impl AsyncFn(&Db)) {
    let db = Db::sqlite();
    test(&db).await;
    db.drop().await;
    match told("WAXWING_POSTGRES") {
        Some(server) => {
            let db = Db::postgres(&server).await;
            test(&db).await;
            db.drop().await;
        }
        None => println!("skipped: PostgreSQL (WAXWING_POSTGRES not set)"),
    }
}

/// Writes with everything the block needs moved or copied into it; fails the test on an error.
macro_rules! write {
    ($store:expr, $tx:ident => $body:expr) => {
        $store
            .write::<_, node::store::StoreError, _>(move |$tx| Box::pin(async move { $body }))
            .await
            .unwrap()
    };
}

/// Reads from a snapshot; fails the test on an error.
macro_rules! read {
    ($store:expr, $tx:ident => $body:expr) => {{
        let mut snapshot = $store.snapshot().await.unwrap();
        let $tx = &mut snapshot;
        $body.unwrap()
    }};
}

pub(crate) use {read, write};

pub fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

pub fn user(name: &str) -> UserId {
    UserId::new(&domain("a.example"), name).unwrap()
}

/// `ana/1`, of a.example.
pub fn device(path: &str) -> DeviceId {
    DeviceId::parse(&format!("mimi://a.example/d/{path}")).unwrap()
}

pub fn foreign(path: &str) -> DeviceId {
    DeviceId::parse(&format!("mimi://b.example/d/{path}")).unwrap()
}

pub fn room(name: &str) -> RoomId {
    RoomId::new(&domain("a.example"), name).unwrap()
}

pub fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(ms)
}

pub fn seq(n: u64) -> Seq {
    Seq::new(n)
}

pub fn chain(n: u64) -> Chain {
    Chain::from_bytes([u8::try_from(n % 251).unwrap(); 32])
}

pub fn start(n: u64) -> Start {
    Start { incarnation: Incarnation::from_bytes([9; 16]), seq: seq(n), chain: chain(n), at: at(n) }
}

/// The entry `n`, whose body has `bytes` bytes.
pub fn entry(n: u64, bytes: usize) -> Entry {
    let body = vec![u8::try_from(n % 251).unwrap(); bytes];
    Entry {
        seq: seq(n),
        at: at(n * 10),
        kind: EntryKind::Application,
        digest: Digest::of_entry(EntryKind::Application, at(n * 10), &body),
        body: Some(body),
        chain: chain(n),
        note: n.is_multiple_of(2).then(|| vec![7]),
    }
}

pub fn entries(numbers: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    numbers.map(|n| entry(n, 10)).collect()
}

/// A log of that name with entries 1 to `n` of 10 bytes each.
pub async fn log_with(store: &Store, name: LogName, n: u64) -> LogId {
    write!(store, tx => {
        let id = logs::create(tx, &name, &domain("a.example"), &start(0), at(1)).await?.unwrap();
        logs::append(tx, id, &entries(1..=n)).await?;
        Ok(id)
    })
}

pub async fn get(tx: &mut Tx, id: LogId) -> Log {
    logs::get(tx, id).await.unwrap()
}
