//! The hot path: application messages that get their place in rooms this node orders, many in a few statements.
//!
//! A job of [`Store::write`](super::Store::write) costs a round trip to the database for each of its statements. What a hub does for a message
//! is a pure rule over a few rows, so messages that arrive together are looked up together, decided one after the other in memory, and
//! written together. They go to the database [packed](super::packed).
//!
//! | step | round trips |
//! |---|---|
//! | look up | one |
//! | decide | none; each sees what the ones before it did |
//! | write | one |

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use delivery::room::RoomHead;
use futures_util::TryStreamExt as _;
use protocol::api::Accepted;
use protocol::log::Digest;
use protocol::{Cursor, Seq};
use sqlx::{Either, Executor as _, SqliteConnection};
use tokio::sync::oneshot;

use super::fresh::Change;
use super::logs::{Entry, LogId};
use super::packed::{self, Packed};
use super::row::{int, ms};
use super::submissions::{HeadRow, Key, Scene, State, Submission, SubmissionRow};
use super::writer::message;
use super::{Inner, StoreError, Tx, Wake};

/// What became of a message, by its room's rules.
#[derive(Debug)]
pub enum Decision<T> {
    /// There is nothing to write.
    Known(T),
    /// It gets its place: `entry` right after the head.
    Place {
        /// The entry, with its body.
        entry: Entry,
        /// What a repetition of the submission must equal.
        digest: Digest,
        /// The answer, once that is durable.
        answer: T,
    },
}

/// A message whose types are forgotten.
pub(super) trait Placing: Send {
    /// Under which name it is remembered, and who must be in the room.
    fn ask(&self) -> (&Key, &str);
    /// Decides; returns what to write.
    fn decide(&mut self, scene: Option<&Scene>) -> Option<(Entry, Digest)>;
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

    fn decide(&mut self, scene: Option<&Scene>) -> Option<(Entry, Digest)> {
        let decide = self.decide.take()?;
        // A bug in one rule must not end the writer that all the others need.
        let decided = std::panic::catch_unwind(AssertUnwindSafe(|| decide(scene)))
            .unwrap_or_else(|panic| Err(StoreError::Panicked(message(&*panic)).into()));
        let (result, write) = match decided {
            Ok(Decision::Known(answer)) => (Ok(answer), None),
            Ok(Decision::Place { entry, digest, answer }) => (Ok(answer), Some((entry, digest))),
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
    let scenes = look_up(tx, placings).await?;
    let mut batch = Batch::default();
    let mut done = 0;
    for (placing, scene) in placings.iter_mut().zip(scenes) {
        match scene {
            Ok(scene) => batch.decide(placing.as_mut(), scene),
            // A broken row is the trouble of those who need it.
            Err(error) => placing.refuse(error),
        }
        done += u64::from(placing.succeeded());
    }
    batch.write(tx).await?;
    Ok(done)
}

/// A room in which messages of this batch got their places.
struct Moved {
    head: RoomHead,
    /// The head in the database.
    stored: Seq,
    /// What the bodies add.
    bytes: u64,
}

/// A message with its place.
struct Row {
    log: LogId,
    entry: Entry,
    key: Key,
    digest: Digest,
}

/// What the messages decided so far have done, beyond what the database says.
#[derive(Default)]
struct Batch {
    rooms: BTreeMap<LogId, Moved>,
    placed: BTreeMap<Key, Submission>,
    rows: Vec<Row>,
}

impl Batch {
    fn decide(&mut self, placing: &mut dyn Placing, scene: Option<Scene>) {
        let scene = scene.map(|scene| self.as_of_now(scene, placing.ask().0));
        let Some((entry, digest)) = placing.decide(scene.as_ref()) else { return };
        let Some(Scene { log, head, prior: None, .. }) = scene else {
            return placing.refuse(StoreError::Conflict { table: "submission" });
        };
        if entry.seq != head.head.next() {
            return placing.refuse(StoreError::Conflict { table: "log" });
        }
        let place = Cursor { incarnation: head.incarnation, seq: entry.seq };
        let accepted = Accepted { place, at: entry.at, chain: entry.chain };
        let state = State::Accepted(accepted);
        let key = placing.ask().0.clone();
        self.placed.insert(key.clone(), Submission { digest, state, created: entry.at });
        let fresh = Moved { head, stored: head.head, bytes: 0 };
        let room = self.rooms.entry(log).or_insert(fresh);
        room.head = RoomHead { head: entry.seq, chain: entry.chain, last_at: entry.at, ..head };
        room.bytes += entry.body.as_ref().map_or(0, |b| b.len() as u64);
        self.rows.push(Row { log, entry, key, digest });
    }

    /// The scene after the messages before it.
    fn as_of_now(&self, mut scene: Scene, key: &Key) -> Scene {
        if let Some(room) = self.rooms.get(&scene.log) {
            scene.head = room.head;
        }
        scene.prior = scene.prior.or_else(|| self.placed.get(key).copied());
        scene
    }

    /// Writes what was decided.
    async fn write(self, tx: &mut Tx) -> Result<(), StoreError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let Inner::Sqlite(c) = &mut tx.inner else { return Err(StoreError::Closed) };
        let touched = write(c, &self.rows, &self.rooms).await.map_err(|e| tx.failed(e))?;
        // The heads were read in this very transaction.
        if touched != [self.rooms.len() as u64, self.rows.len() as u64] {
            return Err(StoreError::Conflict { table: "log" });
        }
        for row in self.rows {
            if let Some(room) = self.rooms.get(&row.log) {
                let entry = std::slice::from_ref(&row.entry);
                tx.changed(Change::grew(row.log, room.head.incarnation, entry));
            }
            tx.wake(Wake::Log(row.log));
        }
        Ok(())
    }
}

/// What [`super::submissions::scene`] asks, for all messages: the rooms; whose sender is inside; which are remembered. CROSS JOIN keeps SQLite
/// from starting anywhere but at the messages. One row of JSON, because each row would be handed over from the connection's thread by itself.
const LOOK_UP: &str = concat!(
    "WITH RECURSIVE ",
    packed::records!("n", "?1"),
    ", ",
    packed::records!("m", "?4"),
    ", asked(i, room, origin, submit_key, sender) AS MATERIALIZED (SELECT i, ",
    packed::text!("?2", "?3", 0, 8),
    ", ",
    packed::text!("?2", "?3", 2, 8),
    ", ",
    packed::bytes!("?2", "?3", 4, 8),
    ", ",
    packed::text!("?2", "?3", 6, 8),
    " FROM n), name(i, room) AS (SELECT i, ",
    packed::text!("?5", "?6", 0, 2),
    " FROM m) \
     SELECT (SELECT json_group_array(json_array(a.i, l.id, l.head, hex(l.chain), l.last_at_ms, hex(l.incarnation), r.epoch)) \
     FROM name a CROSS JOIN log l ON l.kind = 'room' AND l.name = a.room CROSS JOIN room r ON r.log_id = l.id), \
     (SELECT json_group_array(a.i) FROM asked a CROSS JOIN log l ON l.kind = 'room' AND l.name = a.room \
     WHERE EXISTS (SELECT 1 FROM member m WHERE m.log_id = l.id AND m.device = a.sender) \
     OR EXISTS (SELECT 1 FROM member m WHERE m.user_id = a.sender AND m.log_id = l.id)), \
     (SELECT json_group_array(json_array(i, hex(digest), state, hex(incarnation), seq, at_ms, hex(chain), created_ms)) FROM \
     (SELECT a.i, e.submitted AS digest, 'accepted' AS state, l.incarnation, e.seq, e.at_ms, e.chain, e.at_ms AS created_ms \
     FROM asked a CROSS JOIN entry e ON e.submit_key = a.submit_key AND e.origin = a.origin \
     CROSS JOIN log l ON l.id = e.log_id AND l.kind = 'room' AND l.name = a.room \
     UNION ALL SELECT a.i, s.digest, s.state, s.incarnation, s.seq, s.at_ms, s.chain, s.created_ms \
     FROM asked a CROSS JOIN submission s ON s.submit_key = a.submit_key AND s.origin = a.origin AND s.room = a.room))"
);

/// What [`super::submissions::place`] writes, for all messages: heads, entries.
const WRITE: &str = concat!(
    "WITH RECURSIVE ",
    packed::records!("m", "?5"),
    ", moved(id, head, at_ms, bytes, stored, chain) AS (SELECT ",
    packed::number!("?6", 0, 5),
    ", ",
    packed::number!("?6", 1, 5),
    ", ",
    packed::number!("?6", 2, 5),
    ", ",
    packed::number!("?6", 3, 5),
    ", ",
    packed::number!("?6", 4, 5),
    ", ",
    packed::hash!("?7", 0, 1),
    " FROM m) UPDATE log SET head = a.head, chain = a.chain, last_at_ms = a.at_ms, bytes = log.bytes + a.bytes \
     FROM moved a WHERE log.id = a.id AND log.head = a.stored; \
     WITH RECURSIVE ",
    packed::records!("n", "?1"),
    " INSERT INTO entry (log_id, seq, at_ms, kind, body, digest, chain, note, origin, submit_key, submitted) SELECT ",
    packed::number!("?2", 0, 12),
    ", ",
    packed::number!("?2", 1, 12),
    ", ",
    packed::number!("?2", 2, 12),
    ", ",
    packed::number!("?2", 3, 12),
    ", ",
    packed::bytes!("?2", "?4", 4, 12),
    ", ",
    packed::hash!("?3", 0, 3),
    ", ",
    packed::hash!("?3", 1, 3),
    ", NULLIF(",
    packed::bytes!("?2", "?4", 6, 12),
    ", x''), ",
    packed::text!("?2", "?4", 8, 12),
    ", ",
    packed::bytes!("?2", "?4", 10, 12),
    ", ",
    packed::hash!("?3", 2, 3),
    " FROM n"
);

/// The scene of each, or what is wrong with it alone.
async fn look_up(
    tx: &mut Tx,
    placings: &[Box<dyn Placing>],
) -> Result<Vec<Result<Option<Scene>, StoreError>>, StoreError> {
    let Inner::Sqlite(c) = &mut tx.inner else { return Err(StoreError::Closed) };
    let (mut asked, mut names) = (Packed::default(), Packed::default());
    let mut rooms: BTreeMap<&str, usize> = BTreeMap::new();
    let mut room_of = Vec::with_capacity(placings.len());
    for placing in placings {
        let (key, sender) = placing.ask();
        let (room, origin) = (key.room.as_str(), key.origin.as_str());
        asked.record().bytes(room.as_bytes()).bytes(origin.as_bytes());
        asked.bytes(&key.bytes).bytes(sender.as_bytes());
        let next = rooms.len();
        let number = *rooms.entry(room).or_insert_with(|| {
            names.record().bytes(room.as_bytes());
            next
        });
        room_of.push(number);
    }
    let found = sqlx::query_as::<_, (String, String, String)>(LOOK_UP)
        .bind(asked.count)
        .bind(asked.numbers)
        .bind(asked.heap)
        .bind(names.count)
        .bind(names.numbers)
        .bind(names.heap)
        .fetch_one(&mut **c)
        .await;
    let (heads, inside, priors) = found.map_err(|e| tx.failed(e))?;
    let found = Found::read(rooms.len(), placings.len(), &heads, &inside, &priors)?;
    Ok(found.scenes(room_of))
}

/// Bytes, in hexadecimal: JSON has none.
#[derive(serde::Deserialize)]
struct Hex(#[serde(with = "hex::serde")] Vec<u8>);

type FoundHead = (usize, i64, i64, Hex, i64, Hex, i64);
type FoundPrior = (usize, Hex, String, Hex, Option<i64>, Option<i64>, Hex, i64);

/// What the database said, by the numbers of rooms and of messages.
struct Found {
    rooms: Vec<Result<Option<(LogId, RoomHead)>, StoreError>>,
    inside: Vec<bool>,
    priors: Vec<Result<Option<Submission>, StoreError>>,
}

impl Found {
    fn read(
        rooms: usize,
        messages: usize,
        heads: &str,
        inside: &str,
        priors: &str,
    ) -> Result<Self, StoreError> {
        let broken = |_| StoreError::Corrupt { table: "log", column: "row" };
        let heads: Vec<FoundHead> = serde_json::from_str(heads).map_err(broken)?;
        let insiders: Vec<usize> = serde_json::from_str(inside).map_err(broken)?;
        let remembered: Vec<FoundPrior> = serde_json::from_str(priors).map_err(broken)?;
        let mut found = Self {
            rooms: (0..rooms).map(|_| Ok(None)).collect(),
            inside: vec![false; messages],
            priors: (0..messages).map(|_| Ok(None)).collect(),
        };
        for (i, id, head, chain, last_at_ms, incarnation, epoch) in heads {
            let (chain, incarnation) = (chain.0, incarnation.0);
            let row = HeadRow { id, head, chain, last_at_ms, incarnation, epoch };
            if let Some(room) = found.rooms.get_mut(i) {
                *room = row.try_into().map(Some);
            }
        }
        for i in insiders {
            if let Some(inside) = found.inside.get_mut(i) {
                *inside = true;
            }
        }
        for (i, digest, state, incarnation, seq, at_ms, chain, created_ms) in remembered {
            // SQLite writes no bytes and empty bytes alike; where they are missing, `state` says that they may be.
            let (incarnation, chain) = (Some(incarnation.0), Some(chain.0));
            let digest = digest.0;
            let row = SubmissionRow { digest, state, incarnation, seq, at_ms, chain, created_ms };
            if let Some(prior) = found.priors.get_mut(i) {
                *prior = row.try_into().map(Some);
            }
        }
        Ok(found)
    }

    fn scenes(self, room_of: Vec<usize>) -> Vec<Result<Option<Scene>, StoreError>> {
        let Self { rooms, inside, priors } = self;
        let messages = room_of.into_iter().zip(inside).zip(priors);
        let scene = |((room, inside), prior): ((usize, bool), Result<Option<Submission>, _>)| {
            let Some((log, head)) = rooms.get(room).cloned().transpose()?.flatten() else {
                return Ok(None);
            };
            Ok(Some(Scene { log, head, prior: prior?, inside }))
        };
        messages.map(scene).collect()
    }
}

/// How many rows each of the two statements touched.
async fn write(
    connection: &mut SqliteConnection,
    rows: &[Row],
    rooms: &BTreeMap<LogId, Moved>,
) -> Result<Vec<u64>, sqlx::Error> {
    let (mut entries, mut heads) = (Packed::default(), Packed::default());
    for Row { log, entry, key, digest } in rows {
        entries.record().number(log.get()).number(int(entry.seq.get())).number(ms(entry.at));
        entries.number(i64::from(entry.kind.code()));
        entries.bytes(entry.body.as_deref().unwrap_or_default());
        entries.digest(&entry.digest).chain(&entry.chain);
        entries.bytes(entry.note.as_deref().unwrap_or_default());
        entries.bytes(key.origin.as_str().as_bytes()).bytes(&key.bytes).digest(digest);
    }
    for (log, room) in rooms {
        let Moved { head, stored, bytes } = room;
        heads.record().number(log.get()).number(int(head.head.get())).number(ms(head.last_at));
        heads.number(int(*bytes)).number(int(stored.get())).chain(&head.chain);
    }
    let query = sqlx::query(WRITE)
        .bind(entries.count)
        .bind(entries.numbers)
        .bind(entries.hashes)
        .bind(entries.heap)
        .bind(heads.count)
        .bind(heads.numbers)
        .bind(heads.hashes);
    let mut results = connection.fetch_many(query);
    let mut touched = Vec::with_capacity(2);
    while let Some(result) = results.try_next().await? {
        if let Either::Left(done) = result {
            touched.push(done.rows_affected());
        }
    }
    Ok(touched)
}
