//! Group commit: jobs that wait together share one transaction and one fsync.
//!
//! | step | what |
//! |---|---|
//! | gather | take what waits, up to a bound |
//! | run | each job under a savepoint; a failed one is rolled back to it |
//! | commit | once; a failed commit fails every job |
//! | wake, answer | only now |

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fresh::Fresh;
use super::placing::{self, Placing};
use super::pools::Pools;
use super::savepoint::{self, Savepoint};
use super::{BoxFuture, Committed, StoreError, Subscriber, Tx, advancing};

/// Jobs in one transaction.
const BATCH_SQLITE: usize = 256;
/// PostgreSQL keeps 64 subtransactions of a transaction in memory; beyond that everybody's snapshots get slower.
const BATCH_POSTGRES: usize = 60;
/// How long a batch waits to become as large as the last one.
const GATHER: Duration = Duration::from_micros(300);
/// Pages in the write-ahead log before they are moved into the database file: 4 MiB.
const CHECKPOINT_PAGES: i64 = 1_000;
/// Pages at which readers are waited for, so that the log can start again from its beginning: 256 MiB.
const RESTART_PAGES: i64 = 65_536;

/// Messages placed between two looks at the log, at most: a look costs as much as a statement, and so many write no more than one full
/// batch does. After any other job, whose size is not known here, it is looked at once.
const LOOK_EVERY: usize = BATCH_SQLITE;

/// What the writer has done so far.
#[derive(Debug, Default)]
pub struct Counters {
    commits: AtomicU64,
    jobs: AtomicU64,
}

impl Counters {
    /// Transactions committed.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Jobs answered with success.
    #[must_use]
    pub fn jobs(&self) -> u64 {
        self.jobs.load(Ordering::Relaxed)
    }
}

pub(super) enum Message {
    Job(Box<dyn Job>),
    Place(Box<dyn Placing>),
    Advance(advancing::Pending),
    Close(oneshot::Sender<()>),
}

/// A job whose types are forgotten.
pub(super) trait Job: Send {
    /// Runs it; says whether it succeeded.
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, bool>;
    /// Sends its result, or the reason why there is none.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

pub(super) struct Pending<F, T, E> {
    job: Option<F>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Pending<F, T, E> {
    pub(super) fn new(job: F, reply: oneshot::Sender<Result<T, E>>) -> Self {
        Self { job: Some(job), result: None, reply }
    }
}

impl<F, T, E> Job for Pending<F, T, E>
where
    F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, bool> {
        Box::pin(async move {
            let Some(job) = self.job.take() else { return false };
            // A bug in one job must not end the writer that all the others need.
            let result = AssertUnwindSafe(async { job(tx).await })
                .catch_unwind()
                .await
                .unwrap_or_else(|panic| Err(StoreError::Panicked(message(&*panic)).into()));
            let ok = result.is_ok();
            self.result = Some(result);
            ok
        })
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(StoreError::Closed.into()),
            (Err(e), _) => Err(e.into()),
        };
        // Whoever asked may be gone; what was committed stays.
        drop(self.reply.send(result));
    }
}

pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// What shares one transaction.
#[derive(Default)]
struct Batch {
    jobs: Vec<Box<dyn Job>>,
    placings: Vec<Box<dyn Placing>>,
    advances: Vec<advancing::Pending>,
}

impl Batch {
    fn len(&self) -> usize {
        self.jobs.len() + self.placings.len() + self.advances.len()
    }

    fn answer(self, fate: &Result<(), StoreError>) {
        for job in self.jobs {
            job.answer(fate.clone());
        }
        for placing in self.placings {
            placing.answer(fate.clone());
        }
        for advance in self.advances {
            advance.answer(fate.clone());
        }
    }
}

/// Who hears of what the writer does.
pub(super) struct Told {
    pub(super) subscriber: Subscriber,
    pub(super) counters: Arc<Counters>,
    pub(super) fresh: Arc<Fresh>,
    /// Cancelled once the disk has failed.
    pub(super) failed: CancellationToken,
}

pub(super) struct Writer {
    pools: Pools,
    waiting: mpsc::Receiver<Message>,
    told: Told,
    batch_max: usize,
    /// How many shared the last transaction.
    last: usize,
    /// Messages placed since the last look at the log.
    unlooked: usize,
    broken: bool,
}

impl Writer {
    pub(super) fn new(pools: Pools, waiting: mpsc::Receiver<Message>, told: Told) -> Self {
        let batch_max = match &pools {
            Pools::Sqlite { .. } => BATCH_SQLITE,
            Pools::Postgres { .. } => BATCH_POSTGRES,
        };
        Self { pools, waiting, told, batch_max, last: 0, unlooked: 0, broken: false }
    }

    /// Starts it on a thread of its own. Its work is one short wait for the database after the other: on a worker of the runtime each of them
    /// would also pass through the scheduler, and twice as much time go by.
    pub(super) fn spawn(self) -> Result<(), StoreError> {
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new().name("store-writer".to_owned());
        thread
            .spawn(move || runtime.block_on(self.run()))
            .map_err(|e| StoreError::Thread(Arc::new(e)))?;
        Ok(())
    }

    /// Works until the store is closed or its last handle is dropped.
    pub(super) async fn run(mut self) {
        let mut closing = Vec::new();
        loop {
            if self.last > 1 {
                self.gather();
            }
            let mut messages = Vec::with_capacity(self.batch_max);
            if self.waiting.recv_many(&mut messages, self.batch_max).await == 0 {
                break;
            }
            let mut batch = Batch::default();
            for message in messages {
                match message {
                    Message::Job(job) => batch.jobs.push(job),
                    Message::Place(placing) => batch.placings.push(placing),
                    Message::Advance(advance) => batch.advances.push(advance),
                    Message::Close(done) => {
                        self.waiting.close();
                        closing.push(done);
                    }
                }
            }
            self.last = batch.len();
            if self.last > 0 {
                self.batch(batch).await;
            }
        }
        for done in closing {
            done.send(()).ok();
        }
    }

    /// Lets those who were just answered hand in their next job: without it a batch of one would follow each full one, and each costs
    /// the same fsync. Waits only when the last batch was shared, and less than an fsync takes.
    fn gather(&self) {
        let until = Instant::now() + GATHER;
        while self.waiting.len() < self.last && Instant::now() < until {
            std::thread::yield_now();
        }
    }

    async fn batch(&mut self, mut batch: Batch) {
        let written = if batch.jobs.is_empty() { batch.len() } else { LOOK_EVERY };
        let committed =
            if self.broken { Err(StoreError::Broken) } else { self.transact(&mut batch).await };
        let committed = committed.map_err(|e| self.judge(e));
        let fate = committed.map(|Committed { wakes, changes }| {
            self.told.fresh.take(changes);
            for wake in wakes {
                (self.told.subscriber)(wake);
            }
        });
        let ok = fate.is_ok();
        // On a worker of the runtime: whoever is woken there need not be fetched from another thread one by one.
        tokio::spawn(async move { batch.answer(&fate) });
        self.unlooked += written;
        if ok && self.unlooked >= LOOK_EVERY {
            self.unlooked = 0;
            self.checkpoint().await;
        }
    }

    /// After a failed fsync the kernel may hold pages as clean that never reached the disk: trying again would succeed and lose them.
    fn judge(&mut self, error: StoreError) -> StoreError {
        if error.is_fatal() && !self.broken {
            self.broken = true;
            tracing::error!(%error, "the disk failed under the database: refusing all writes");
            self.told.failed.cancel();
        }
        error
    }

    async fn transact(&self, batch: &mut Batch) -> Result<Committed, StoreError> {
        let mut tx = self.pools.begin_write().await?;
        let done = match run(&mut tx, batch).await {
            Ok(done) => done,
            Err(error) => {
                // What happened first says more than what failed because of it.
                let error = tx.trouble.take().unwrap_or(error);
                tx.rollback().await;
                return Err(error);
            }
        };
        if done == 0 {
            // Of one job alone, or of several that all failed.
            tx.rollback().await;
            return Ok(Committed::default());
        }
        let committed = tx.commit().await?;
        self.told.counters.commits.fetch_add(1, Ordering::Relaxed);
        self.told.counters.jobs.fetch_add(done, Ordering::Relaxed);
        Ok(committed)
    }

    /// Moves pages from the write-ahead log into the database file, after the answers. What fails here is as serious as in a commit.
    async fn checkpoint(&mut self) {
        let Pools::Sqlite { write, .. } = &self.pools else { return };
        let result = checkpoint(write).await.map_err(StoreError::from);
        if let Err(error) = result {
            let error = self.judge(error);
            tracing::warn!(%error, "checkpoint");
        }
    }
}

/// Runs each job under a savepoint, then the messages to place, which see what the jobs did. An error is one of the transaction: then none
/// of them counts.
async fn run(tx: &mut Tx, batch: &mut Batch) -> Result<u64, StoreError> {
    if batch.len() > 1 {
        tx.savepoint = Savepoint::None;
    }
    let mut wakes = BTreeSet::new();
    let mut done = 0;
    for job in &mut batch.jobs {
        savepoint::begin(tx).await?;
        let changes = tx.changes.len();
        let ok = job.run(tx).await;
        if let Some(error) = tx.trouble.take_if(|e| e.is_fatal()) {
            return Err(error);
        }
        if ok {
            done += 1;
            wakes.append(&mut tx.wakes);
        } else {
            tx.wakes.clear();
            tx.changes.truncate(changes);
            savepoint::undo(tx).await?;
        }
    }
    tx.wakes = wakes;
    if !batch.placings.is_empty() {
        done += placing::run(tx, &mut batch.placings).await?;
    }
    advancing::run(tx, &batch.advances).await?;
    done += batch.advances.len() as u64;
    Ok(done)
}

async fn checkpoint(write: &sqlx::SqlitePool) -> Result<(), sqlx::Error> {
    type Row = (i64, i64, i64);
    let (_, pages, moved): Row =
        sqlx::query_as("PRAGMA wal_checkpoint(NOOP)").fetch_one(write).await?;
    if pages >= RESTART_PAGES {
        let _: Row = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(write).await?;
    } else if pages - moved >= CHECKPOINT_PAGES {
        let _: Row = sqlx::query_as("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(write).await?;
    }
    Ok(())
}
