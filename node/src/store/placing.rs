//! The hot path: application messages that get their place in rooms this node orders, many in a few statements.
//!
//! A job of [`Store::write`](super::Store::write) costs a round trip to the database for each of its statements. What a hub does for a message
//! is a pure rule over a few rows, so messages that arrive together are looked up together, decided one after the other in memory, and
//! written together.
//!
//! | step | statements |
//! |---|---|
//! | look up | one for [`SLOTS`] messages |
//! | decide | none; each sees what the ones before it did |
//! | write | one round trip for [`SLOTS`] messages |

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use futures_util::TryStreamExt as _;
use protocol::Seq;
use sqlx::{Either, Executor as _, SqliteConnection};
use tokio::sync::oneshot;

use super::logs::{Entry, Log, LogId};
use super::row::{int, ms};
use super::submissions::{Key, Scene, SceneRow, State, Submission};
use super::writer::message;
use super::{Inner, StoreError, Tx, Wake};

/// What became of a message, by its room's rules.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are the large one, and live for a moment"
)]
pub enum Decision<T> {
    /// There is nothing to write.
    Known(T),
    /// It gets its place: `entry` right after the head, `submission` accepted there.
    Place {
        /// The entry.
        entry: Entry,
        /// What is remembered of the submission.
        submission: Submission,
        /// The answer, once that is durable.
        answer: T,
    },
}

/// A message whose types are forgotten.
pub(super) trait Placing: Send {
    /// Under which name it is remembered, and who must be in the room.
    fn ask(&self) -> (&Key, &str);
    /// Decides; returns what to write.
    fn decide(&mut self, scene: Option<&Scene>) -> Option<(Entry, Submission)>;
    /// Takes its decision back.
    fn refuse(&mut self, error: StoreError);
    /// Whether it has an answer that is a success.
    fn succeeded(&self) -> bool;
    /// Sends its answer, or the reason why there is none.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

pub(super) struct Pending<F, T, E> {
    pub(super) key: Key,
    pub(super) sender: String,
    pub(super) decide: Option<F>,
    pub(super) result: Option<Result<T, E>>,
    pub(super) reply: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Placing for Pending<F, T, E>
where
    F: FnOnce(Option<&Scene>) -> Result<Decision<T>, E> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn ask(&self) -> (&Key, &str) {
        (&self.key, &self.sender)
    }

    fn decide(&mut self, scene: Option<&Scene>) -> Option<(Entry, Submission)> {
        let decide = self.decide.take()?;
        // A bug in one rule must not end the writer that all the others need.
        let decided = std::panic::catch_unwind(AssertUnwindSafe(|| decide(scene)))
            .unwrap_or_else(|panic| Err(StoreError::Panicked(message(&*panic)).into()));
        let (result, write) = match decided {
            Ok(Decision::Known(answer)) => (Ok(answer), None),
            Ok(Decision::Place { entry, submission, answer }) => {
                (Ok(answer), Some((entry, submission)))
            }
            Err(error) => (Err(error), None),
        };
        self.result = Some(result);
        write
    }

    fn refuse(&mut self, error: StoreError) {
        self.result = Some(Err(error.into()));
    }

    fn succeeded(&self) -> bool {
        matches!(self.result, Some(Ok(_)))
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

/// Decides about all of them and writes what is to be written; says how many succeeded. An error is one of the transaction.
pub(super) async fn run(tx: &mut Tx, placings: &mut [Box<dyn Placing>]) -> Result<u64, StoreError> {
    let mut done = 0;
    let mut batch = Batch::default();
    for chunk in placings.chunks_mut(SLOTS) {
        let scenes = look_up(tx, chunk).await?;
        for (placing, scene) in chunk.iter_mut().zip(scenes) {
            match scene {
                Ok(scene) => batch.decide(placing.as_mut(), scene),
                // A broken row is the trouble of those who need it.
                Err(error) => placing.refuse(error),
            }
            done += u64::from(placing.succeeded());
        }
        batch.write(tx).await?;
    }
    for log in batch.touched {
        tx.wake(Wake::Log(log));
    }
    Ok(done)
}

/// What the messages decided so far have done, beyond what the database says.
#[derive(Default)]
struct Batch {
    logs: BTreeMap<LogId, (Log, Seq)>,
    placed: BTreeMap<Key, Submission>,
    rows: Vec<(LogId, Entry, Key, Submission)>,
    touched: std::collections::BTreeSet<LogId>,
}

impl Batch {
    fn decide(&mut self, placing: &mut dyn Placing, scene: Option<Scene>) {
        let key = placing.ask().0.clone();
        let scene = scene.map(|scene| self.as_of_now(scene, &key));
        let Some((entry, submission)) = placing.decide(scene.as_ref()) else { return };
        let Some(Scene { mut log, prior: None, .. }) = scene else {
            return placing.refuse(StoreError::Conflict { table: "submission" });
        };
        if entry.seq != log.head.next() || !matches!(submission.state, State::Accepted(_)) {
            return placing.refuse(StoreError::Conflict { table: "log" });
        }
        let stored_head = self.logs.get(&log.id).map_or(log.head, |(_, head)| *head);
        log.head = entry.seq;
        log.chain = entry.chain;
        log.last_at = entry.at;
        log.bytes = log.bytes.saturating_add(entry.body.as_ref().map_or(0, |b| b.len() as u64));
        self.placed.insert(key.clone(), submission);
        self.rows.push((log.id, entry, key, submission));
        self.touched.insert(log.id);
        self.logs.insert(log.id, (log, stored_head));
    }

    /// The scene after the messages before it.
    fn as_of_now(&self, mut scene: Scene, key: &Key) -> Scene {
        if let Some((log, _)) = self.logs.get(&scene.log.id) {
            scene.log = log.clone();
        }
        scene.prior = scene.prior.or_else(|| self.placed.get(key).copied());
        scene
    }

    /// Writes what was decided since the last call.
    async fn write(&mut self, tx: &mut Tx) -> Result<(), StoreError> {
        let rows = std::mem::take(&mut self.rows);
        let logs = std::mem::take(&mut self.logs);
        self.placed.clear();
        if rows.is_empty() {
            return Ok(());
        }
        let Inner::Sqlite(c) = &mut tx.inner else { return Err(StoreError::Closed) };
        let (entries, heads) = (rows.len() as u64, logs.len() as u64);
        let touched = write(c, rows, logs).await.map_err(|e| tx.failed(e))?;
        // The last statement counts for each: they were all read in this very transaction.
        if touched == [heads, entries, entries] {
            Ok(())
        } else {
            Err(StoreError::Conflict { table: "log" })
        }
    }
}

/// The same row once for each slot.
macro_rules! rows {
    ($row:literal, 1) => {
        $row
    };
    ($row:literal, 2) => {
        concat!($row, ", ", $row)
    };
    ($row:literal, 4) => {
        concat!(rows!($row, 2), ", ", rows!($row, 2))
    };
    ($row:literal, 8) => {
        concat!(rows!($row, 4), ", ", rows!($row, 4))
    };
    ($row:literal, 16) => {
        concat!(rows!($row, 8), ", ", rows!($row, 8))
    };
    ($row:literal, 32) => {
        concat!(rows!($row, 16), ", ", rows!($row, 16))
    };
    ($row:literal, 64) => {
        concat!(rows!($row, 32), ", ", rows!($row, 32))
    };
}

/// [`super::submissions::scene`] for each slot. CROSS JOIN keeps SQLite from starting anywhere but at the slots. One row of JSON, because
/// each row would be handed from the connection's thread by itself.
macro_rules! look_up {
    ($slots:tt) => {
        concat!(
            "SELECT json_group_array(json_array(a.column1, \
             json_array(l.id, l.kind, l.name, l.hub, hex(l.incarnation), l.head, l.tail, hex(l.chain), hex(l.tail_chain), l.last_at_ms, l.bytes), \
             json_array(r.suite, r.epoch, r.created_ms), \
             EXISTS (SELECT 1 FROM member m WHERE m.log_id = l.id AND m.device = a.column5) \
             OR EXISTS (SELECT 1 FROM member m WHERE m.user_id = a.column5 AND m.log_id = l.id), \
             json(iif(s.state IS NULL, NULL, json_array(hex(s.digest), s.state, hex(s.incarnation), s.seq, s.at_ms, hex(s.chain), s.created_ms))))) \
             FROM (VALUES ",
            rows!("(?, ?, ?, ?, ?)", $slots),
            ") a CROSS JOIN log l ON l.kind = 'room' AND l.name = a.column2 CROSS JOIN room r ON r.log_id = l.id \
             LEFT JOIN submission s ON s.submit_key = a.column4 AND s.origin = a.column3 AND s.room = a.column2 \
             WHERE a.column1 IS NOT NULL"
        )
    };
}

/// [`super::logs::append`] and [`super::submissions::record`] for each slot: heads, entries, submissions.
macro_rules! write {
    ($slots:tt) => {
        concat!(
            "UPDATE log SET head = a.column2, chain = a.column3, last_at_ms = a.column4, bytes = a.column5 FROM (VALUES ",
            rows!("(?, ?, ?, ?, ?, ?)", $slots),
            ") a WHERE log.id = a.column1 AND log.head = a.column6; \
             INSERT INTO entry (log_id, seq, at_ms, kind, body, digest, chain, note) \
             SELECT column1, column2, column3, column4, column5, column6, column7, column8 FROM (VALUES ",
            rows!("(?, ?, ?, ?, ?, ?, ?, ?)", $slots),
            ") WHERE column1 IS NOT NULL; \
             INSERT INTO submission (origin, room, submit_key, digest, state, incarnation, seq, at_ms, chain, created_ms) \
             SELECT column1, column2, column3, column4, 'accepted', column5, column6, column7, column8, column9 FROM (VALUES ",
            rows!("(?, ?, ?, ?, ?, ?, ?, ?, ?)", $slots),
            ") WHERE column1 IS NOT NULL"
        )
    };
}

/// Slots, and the two statements with so many: SQLite prepares each once.
type Statements = (usize, &'static str, &'static str);

macro_rules! statements {
    ($slots:tt) => {
        ($slots, look_up!($slots), write!($slots))
    };
}

const LARGEST: Statements = statements!(64);
/// Messages in one statement, at most.
pub(super) const SLOTS: usize = LARGEST.0;

/// The smallest with a slot for each message.
fn statements(messages: usize) -> Statements {
    const SMALLER: [Statements; 6] = [
        statements!(1),
        statements!(2),
        statements!(4),
        statements!(8),
        statements!(16),
        statements!(32),
    ];
    SMALLER.into_iter().find(|(slots, ..)| *slots >= messages).unwrap_or(LARGEST)
}

/// The scene of each, or what is wrong with it alone.
async fn look_up(
    tx: &mut Tx,
    placings: &[Box<dyn Placing>],
) -> Result<Vec<Result<Option<Scene>, StoreError>>, StoreError> {
    let Inner::Sqlite(c) = &mut tx.inner else { return Err(StoreError::Closed) };
    let (slots, look_up, _) = statements(placings.len());
    let mut query = sqlx::query_scalar::<_, String>(look_up);
    let mut asked = placings.iter().zip(0_i64..);
    for _ in 0..slots {
        let slot = asked.next().map(|(placing, n)| (placing.ask(), n));
        let key = slot.map(|((key, _), _)| key);
        query = query
            .bind(slot.map(|(_, n)| n))
            .bind(key.map(|key| key.room.as_str()))
            .bind(key.map(|key| key.origin.as_str()))
            .bind(key.map(|key| key.bytes.as_slice()))
            .bind(slot.map(|((_, sender), _)| sender));
    }
    let text = query.fetch_one(&mut **c).await.map_err(|e| tx.failed(e))?;
    let found: Vec<(usize, FoundLog, FoundRoom, i64, Option<FoundPrior>)> =
        serde_json::from_str(&text)
            .map_err(|_| StoreError::Corrupt { table: "log", column: "row" })?;
    let mut scenes: Vec<_> = placings.iter().map(|_| Ok(None)).collect();
    for (slot, log, room, inside, prior) in found {
        if let Some(slot) = scenes.get_mut(slot) {
            *slot = scene(log, room, inside, prior).map(Some);
        }
    }
    Ok(scenes)
}

/// Bytes, in hexadecimal: JSON has none.
#[derive(serde::Deserialize)]
struct Hex(#[serde(with = "hex::serde")] Vec<u8>);

type FoundLog = (i64, String, String, String, Hex, i64, i64, Hex, Hex, i64, i64);
type FoundRoom = (i64, i64, i64);
type FoundPrior = (Hex, String, Hex, Option<i64>, Option<i64>, Hex, i64);

fn scene(
    log: FoundLog,
    room: FoundRoom,
    inside: i64,
    prior: Option<FoundPrior>,
) -> Result<Scene, StoreError> {
    let (id, kind, name, hub, incarnation, head, tail, chain, tail_chain, last_at_ms, bytes) = log;
    let (suite, epoch, room_created_ms) = room;
    let row = SceneRow {
        id,
        kind,
        name,
        hub,
        incarnation: incarnation.0,
        head,
        tail,
        chain: chain.0,
        tail_chain: tail_chain.0,
        last_at_ms,
        bytes,
        suite,
        epoch,
        room_created_ms,
        inside,
        digest: None,
        state: None,
        place_incarnation: None,
        place_seq: None,
        place_at_ms: None,
        place_chain: None,
        submission_created_ms: None,
    };
    let Some((digest, state, incarnation, seq, at_ms, chain, created_ms)) = prior else {
        return row.try_into();
    };
    // SQLite writes no bytes and empty bytes alike; where they are missing, `state` says that they may be.
    SceneRow {
        digest: Some(digest.0),
        state: Some(state),
        place_incarnation: Some(incarnation.0),
        place_seq: seq,
        place_at_ms: at_ms,
        place_chain: Some(chain.0),
        submission_created_ms: Some(created_ms),
        ..row
    }
    .try_into()
}

/// How many rows each of the three statements touched.
async fn write(
    connection: &mut SqliteConnection,
    rows: Vec<(LogId, Entry, Key, Submission)>,
    logs: BTreeMap<LogId, (Log, Seq)>,
) -> Result<Vec<u64>, sqlx::Error> {
    let (slots, _, write) = statements(rows.len());
    let mut query = sqlx::query(write);
    let mut logs = logs.into_values();
    for _ in 0..slots {
        let log = logs.next();
        let log = log.as_ref();
        query = query
            .bind(log.map(|(log, _)| log.id.get()))
            .bind(log.map(|(log, _)| int(log.head.get())))
            .bind(log.map(|(log, _)| log.chain.as_bytes().as_slice()))
            .bind(log.map(|(log, _)| ms(log.last_at)))
            .bind(log.map(|(log, _)| int(log.bytes)))
            .bind(log.map(|(_, stored)| int(stored.get())));
    }
    let mut submissions = Vec::with_capacity(rows.len());
    let mut rows = rows.into_iter();
    for _ in 0..slots {
        let (log, entry) = rows.next().map_or((None, None), |(log, entry, key, submission)| {
            submissions.push((key, submission));
            (Some(log), Some(entry))
        });
        let e = entry.as_ref();
        query = query
            .bind(log.map(LogId::get))
            .bind(e.map(|e| int(e.seq.get())))
            .bind(e.map(|e| ms(e.at)))
            .bind(e.map(|e| i64::from(e.kind.code())))
            .bind(e.and_then(|e| e.body.as_deref()))
            .bind(e.map(|e| e.digest.as_bytes().as_slice()))
            .bind(e.map(|e| e.chain.as_bytes().as_slice()))
            .bind(e.and_then(|e| e.note.as_deref()));
    }
    let mut submissions = submissions.iter();
    for _ in 0..slots {
        let row = submissions.next();
        let place = row.and_then(|(_, submission)| match &submission.state {
            State::Accepted(accepted) => Some(accepted),
            State::Stored => None,
        });
        query = query
            .bind(row.map(|(key, _)| key.origin.as_str()))
            .bind(row.map(|(key, _)| key.room.as_str()))
            .bind(row.map(|(key, _)| key.bytes.as_slice()))
            .bind(row.map(|(_, submission)| submission.digest.as_bytes().as_slice()))
            .bind(place.map(|p| p.place.incarnation.as_bytes().as_slice()))
            .bind(place.map(|p| int(p.place.seq.get())))
            .bind(place.map(|p| ms(p.at)))
            .bind(place.map(|p| p.chain.as_bytes().as_slice()))
            .bind(row.map(|(_, submission)| ms(submission.created)));
    }
    let mut results = connection.fetch_many(query);
    let mut touched = Vec::with_capacity(3);
    while let Some(result) = results.try_next().await? {
        if let Either::Left(done) = result {
            touched.push(done.rows_affected());
        }
    }
    Ok(touched)
}
