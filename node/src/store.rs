//! Where a node keeps everything: SQLite by default, PostgreSQL for a bigger organisation, one SQL text for both.
//!
//! | verb | what it does |
//! |---|---|
//! | [`Store::write`] | runs a job in a transaction that may be shared with other jobs (group commit), answers after the commit |
//! | [`Store::place`] | gives an application message its place; the hot path |
//! | [`Store::advance`] | moves a device's cursors; the other half of the hot path |
//! | [`Store::fresh`] | what was just appended, without the database |
//! | [`Store::read`] | runs a job on a snapshot |
//!
//! Each table family is a module of functions over `&mut `[`Tx`]; SQL stands there and nowhere else in this crate.
//!
//! | module | tables |
//! |---|---|
//! | [`identity`] | `node` |
//! | [`logs`] | `log`, `entry`, `gap` |
//! | [`readers`] | `reader` |
//! | [`lanes`] | `lane` |
//! | [`rooms`], [`members`] | `room`, `pending_proposal`; `member` |
//! | [`accounts`], [`devices`] | `account`, `invite`; `device`, `token` |
//! | [`keypackages`], [`links`] | `keypackage`; `link_offer` |
//! | [`peers`] | `peer`, `peer_invite` |
//! | [`submissions`] | `submission` |
//! | [`status`] | questions over all of them |

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use protocol::{DeviceId, Domain, Incarnation};
use sqlx::pool::PoolConnection;
use sqlx::{Postgres, Sqlite};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub mod accounts;
mod advancing;
pub mod devices;
pub mod disk;
mod error;
mod fresh;
pub mod identity;
pub mod keypackages;
pub mod lanes;
pub mod links;
pub mod logs;
pub mod members;
mod migrate;
mod packed;
pub mod peers;
mod placing;
mod pools;
pub mod readers;
pub mod rooms;
mod row;
mod savepoint;
pub mod status;
pub mod submissions;
mod writer;

pub use advancing::Advance;
pub use error::StoreError;
pub use fresh::{Fresh, Newest};
pub use logs::LogId;
pub use migrate::known as schema;
pub use placing::Decision;
pub use writer::Counters;

use pools::Pools;
use savepoint::Savepoint;
use submissions::{Key, Scene};
use writer::{Message, Pending, Told, Writer};

/// A future that borrows the transaction for as long as the job runs.
pub type BoxFuture<'t, T> = Pin<Box<dyn Future<Output = T> + Send + 't>>;

/// Who may have something to do, now that a transaction is durable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// A log got entries or changed its readers.
    Log(LogId),
    /// Something changed for a device itself: a new log to read, or the device was revoked.
    Device(DeviceId),
    /// There is something to send to a peer, or it was heard from.
    Peer(Domain),
}

/// Told of every wake, after the commit, from the writer's task: must not block. It may coalesce; a lost wake must cost only time.
pub type Subscriber = Arc<dyn Fn(Wake) + Send + Sync>;

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file. Next to it lie its `-wal` and `-shm` and the ballast.
    Sqlite(PathBuf),
    /// A `postgres://` URL.
    Postgres(String),
}

/// What to do with a database that an older version of the program wrote. One of a newer version is always refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Older {
    /// Bring its schema up to date: the older version cannot use it any more.
    Update,
    /// Leave it as it is, and say so: a node of the older version may be running on it.
    Refuse,
}

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// Which database.
    pub location: Location,
    /// Whose database it must be.
    pub domain: Domain,
    /// Whether to make it when it is not there. (A PostgreSQL database must exist; its tables are made in any case.)
    pub create: bool,
    /// What to do with a database of an older version.
    pub older: Older,
    /// Jobs that may wait for the writer; beyond it [`Store::write`] says [`StoreError::Busy`].
    pub queue: usize,
    /// Told of every wake.
    pub subscriber: Subscriber,
    /// The file system that SQLite shall use, by the name it was registered under (`sqlite3_vfs_register`): an encrypting one, or one that
    /// fails on purpose. Durability is then that file system's. None: the system's own.
    pub vfs: Option<String>,
}

impl Options {
    /// The usual bounds, the system's files, and nobody to wake.
    #[must_use]
    pub fn new(location: Location, domain: Domain) -> Self {
        Self {
            location,
            domain,
            create: false,
            older: Older::Update,
            queue: QUEUE_JOBS,
            subscriber: Arc::new(|_| ()),
            vfs: None,
        }
    }
}

/// Jobs that may wait for the writer, unless the caller says otherwise: a few seconds of work.
pub const QUEUE_JOBS: usize = 4096;

/// The node's database. Cheap to clone; all clones share one writer.
#[derive(Clone)]
pub struct Store {
    pools: Pools,
    jobs: mpsc::Sender<Message>,
    counters: Arc<Counters>,
    fresh: Arc<Fresh>,
    failed: CancellationToken,
}

impl Store {
    /// Opens the database, brings its schema up to date if it may, and checks whose it is. A new one gets a fresh incarnation.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::NewerSchema`], [`StoreError::OlderSchema`], [`StoreError::OtherNode`],
    /// [`StoreError::OldSqlite`], [`StoreError::Full`]; and when the database cannot be reached.
    pub async fn open(
        options: Options,
        clock: &dyn protocol::Clock,
        entropy: &dyn protocol::Entropy,
    ) -> Result<Self, StoreError> {
        let pools = Pools::open(&options).await?;
        let counters = Arc::new(Counters::default());
        let fresh = Arc::new(Fresh::default());
        let (jobs, waiting) = mpsc::channel(options.queue.max(1));
        let failed = CancellationToken::new();
        let told = Told {
            subscriber: options.subscriber.clone(),
            counters: counters.clone(),
            fresh: fresh.clone(),
            failed: failed.clone(),
        };
        Writer::new(pools.clone(), waiting, told).spawn()?;
        let store = Self { pools, jobs, counters, fresh, failed };
        let node = identity::Node {
            domain: options.domain.clone(),
            incarnation: Incarnation::from_bytes(entropy.bytes16()),
            created: clock.now(),
        };
        let found = store.write(move |tx| Box::pin(identity::ensure(tx, node))).await;
        let wrong = match found {
            Ok(node) if node.domain == options.domain => return Ok(store),
            Ok(node) => StoreError::OtherNode {
                found: node.domain.to_string(),
                wanted: options.domain.to_string(),
            },
            Err(e) => e,
        };
        store.close().await;
        Err(wrong)
    }

    /// Runs `job` in a transaction and returns its result after the commit: what it wrote is durable then. Jobs that wait together
    /// share the transaction and its fsync, each under its own savepoint; one that returns an error is rolled back alone.
    ///
    /// When the caller goes away the job still runs. A job must not wait for anything but the database.
    ///
    /// # Errors
    /// What `job` returned; [`StoreError::Busy`] when too many jobs wait; any other when the commit failed, and then nothing of
    /// the job is in the database. (On PostgreSQL a connection that breaks during the commit leaves that open: repeat idempotently.)
    pub async fn write<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.submit(Message::Job(Box::new(Pending::new(job, reply))))?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// Gives an application message its place in a room that this node orders: `decide` is shown the room and what is remembered under
    /// `key` ([`Scene`]; nothing when there is no such room), and its decision is carried out. `sender` is the URI of the device, or of
    /// the user when the device is not known. Returns when it is durable, and wakes the room's log.
    ///
    /// For messages that arrive together this takes a few statements, where as many jobs of [`Self::write`] would take a few each.
    ///
    /// # Errors
    /// What `decide` returned; [`StoreError::Conflict`] when it placed the entry anywhere but right after the head, or placed again what
    /// has its place; otherwise as [`Self::write`].
    pub async fn place<T, E, F>(&self, key: Key, sender: String, decide: F) -> Result<T, E>
    where
        F: FnOnce(Option<&Scene>) -> Result<Decision<T>, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        if matches!(self.pools, Pools::Postgres { .. }) {
            return self.write(move |tx| Box::pin(place_one(tx, key, sender, decide))).await;
        }
        let (reply, answer) = oneshot::channel();
        let placing = placing::Pending { key, sender, decide: Some(decide), result: None, reply };
        self.submit(Message::Place(Box::new(placing)))?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// Moves cursors of `device`, as [`delivery::reader::acknowledge`] decided on what was known; what does not hold any more moves nothing.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn advance(
        &self,
        device: DeviceId,
        advances: Vec<Advance>,
    ) -> Result<(), StoreError> {
        if matches!(self.pools, Pools::Postgres { .. }) {
            return self
                .write(move |tx| Box::pin(advancing::one_by_one(tx, device, advances)))
                .await;
        }
        let (reply, answer) = oneshot::channel();
        self.submit(Message::Advance(advancing::Pending { device, advances, reply }))?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// What was just appended.
    #[must_use]
    pub fn fresh(&self) -> &Fresh {
        &self.fresh
    }

    fn submit(&self, message: Message) -> Result<(), StoreError> {
        self.jobs.try_send(message).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })
    }

    /// Runs `job` on a snapshot: it sees one state of the database, whatever is written meanwhile. Writes are refused.
    ///
    /// # Errors
    /// What `job` returned; [`StoreError::Busy`] when no connection became free in time.
    pub async fn read<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>>,
        E: From<StoreError>,
    {
        let mut tx = self.snapshot().await?;
        job(&mut tx).await
    }

    /// A snapshot to read from directly; it ends when it is dropped. Keep it short: an old snapshot holds back the write-ahead log.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when no connection became free in time.
    pub async fn snapshot(&self) -> Result<Tx, StoreError> {
        self.pools.begin_read().await
    }

    /// What the writer has done so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns once the disk has failed under the database. From then on all writes are refused as [`StoreError::Broken`], until the
    /// database is opened anew; what was answered before is there.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Finishes what was submitted, refuses the rest, closes the database. Returns when all of it is done.
    pub async fn close(&self) {
        let (done, finished) = oneshot::channel();
        if self.jobs.send(Message::Close(done)).await.is_ok() {
            // An error only says that the writer ended first.
            drop(finished.await);
        }
        self.pools.close().await;
    }
}

/// The same as a job of its own.
async fn place_one<T, E, F>(tx: &mut Tx, key: Key, sender: String, decide: F) -> Result<T, E>
where
    F: FnOnce(Option<&Scene>) -> Result<Decision<T>, E>,
    E: From<StoreError>,
{
    let scene = submissions::scene(tx, &key, &sender).await?;
    let (entry, digest, answer) = match decide(scene.as_ref())? {
        Decision::Known(answer) => return Ok(answer),
        Decision::Place { entry, digest, answer } => (entry, digest, answer),
    };
    let log = scene.ok_or(StoreError::Conflict { table: "room" })?.log;
    submissions::place(tx, log, std::slice::from_ref(&entry), &key, &digest).await?;
    tx.wake(Wake::Log(log));
    Ok(answer)
}

/// A transaction, or a snapshot to read from.
pub struct Tx {
    inner: Inner,
    wakes: BTreeSet<Wake>,
    savepoint: Savepoint,
    /// Whether the running job has changed anything.
    changed: bool,
    /// The first failure that says something about the whole database, whatever a job made of it.
    trouble: Option<StoreError>,
    /// Whether the connection may go back to its pool as it is.
    settled: bool,
    /// What it did to logs, for those who are woken after it.
    changes: Vec<fresh::Change>,
}

/// The two databases. Functions reach it through the macros of `row`.
///
/// Not sqlx's `Transaction`: when SQLite gives up a transaction by itself (full disk), that one counts it as open for ever.
pub(crate) enum Inner {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

impl Tx {
    fn new(inner: Inner) -> Self {
        Self {
            inner,
            wakes: BTreeSet::new(),
            savepoint: Savepoint::Off,
            changed: false,
            trouble: None,
            settled: false,
            changes: Vec::new(),
        }
    }

    /// Asks for `wake` once the transaction is durable. Dropped when the job fails.
    pub fn wake(&mut self, wake: Wake) {
        self.wakes.insert(wake);
    }

    /// Runs a statement that is about the transaction itself.
    async fn control(&mut self, sql: &'static str) -> Result<(), StoreError> {
        row::on_tx!(self, c => sqlx::query(sql).execute(c).await.map(|_| ()))
            .map_err(|e| self.failed(e))
    }

    /// A statement failed.
    fn failed(&mut self, error: sqlx::Error) -> StoreError {
        let error = StoreError::from(error);
        if error.is_fatal() || matches!(error, StoreError::Full | StoreError::Unreachable(_)) {
            self.trouble.get_or_insert_with(|| error.clone());
        }
        error
    }

    /// Notes what was done to a log. Dropped when the job fails.
    fn changed(&mut self, change: fresh::Change) {
        // With PostgreSQL nobody knows here what other processes do to it.
        if matches!(self.inner, Inner::Sqlite(_)) {
            self.changes.push(change);
        }
    }

    async fn commit(mut self) -> Result<Committed, StoreError> {
        if let Err(error) = self.control("COMMIT").await {
            self.undo().await;
            return Err(error);
        }
        self.settled = true;
        let (wakes, changes) = (std::mem::take(&mut self.wakes), std::mem::take(&mut self.changes));
        Ok(Committed { wakes, changes })
    }

    async fn rollback(mut self) {
        self.undo().await;
    }

    /// SQLite may have rolled back already, and says so with an error; where it did not, the next BEGIN fails and ends the connection.
    async fn undo(&mut self) {
        let undone = self.control("ROLLBACK").await;
        self.settled = undone.is_ok() || matches!(self.inner, Inner::Sqlite(_));
    }
}

/// What a transaction leaves behind.
#[derive(Default)]
struct Committed {
    wakes: BTreeSet<Wake>,
    changes: Vec<fresh::Change>,
}

impl Drop for Tx {
    fn drop(&mut self) {
        if !self.settled {
            match &mut self.inner {
                Inner::Sqlite(c) => c.close_on_drop(),
                Inner::Postgres(c) => c.close_on_drop(),
            }
        }
    }
}
