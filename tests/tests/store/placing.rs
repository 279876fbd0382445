//! The hot path: messages that arrive together get their places together.

use delivery::log::Head;
use node::store::logs::{self, Bodies, Entry, LogName};
use node::store::rooms::{self, Room};
use node::store::submissions::{self, Key, Scene, State};
use node::store::{Decision, Location, LogId, Store, StoreError, Tx, Wake, members, readers};
use protocol::api::Accepted;
use protocol::log::{Digest, EntryKind};
use protocol::{Cursor, Epoch, RoomId, SubmitId};
use sqlx::{Connection as _, Executor as _};

use crate::commit::{hold, settle};
use crate::harness::{Db, at, chain, device, domain, log_with, on_both, read, room, seq, write};

/// A room with Ana's device in it.
async fn room_with_ana(store: &Store, name: &'static str) -> LogId {
    let log = log_with(store, LogName::Room(room(name)), 0).await;
    write!(store, tx => {
        let row = Room {
            log,
            room: room(name),
            hub: domain("a.example"),
            suite: 1,
            epoch: Epoch::new(3),
            created: at(1),
        };
        rooms::create(tx, &row, None).await?;
        members::add(tx, log, &device("ana/1"), seq(1)).await
    });
    log
}

fn key(room: RoomId, n: u8) -> Key {
    Key::of_device(device("ana/1"), room, &SubmitId::from_bytes([n; 16]))
}

#[derive(Debug, PartialEq)]
enum Stop {
    NotThere,
    Store(String),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

fn decide(scene: Option<&Scene>, body: Vec<u8>) -> Result<Decision<Accepted>, Stop> {
    let scene = scene.filter(|s| s.inside).ok_or(Stop::NotThere)?;
    if let Some(prior) = scene.prior {
        let State::Accepted(accepted) = prior.state else { panic!("{prior:?}") };
        return Ok(Decision::Known(accepted));
    }
    let time = scene.head.last_at.after(std::time::Duration::from_millis(1));
    let head = Head { seq: scene.head.head, chain: scene.head.chain };
    let placed = head.append(EntryKind::Application, time, &body);
    let place = Cursor { incarnation: scene.head.incarnation, seq: placed.seq };
    let answer = Accepted { place, at: time, chain: placed.chain };
    let digest = Digest::of_bytes(&body);
    Ok(Decision::Place { entry: Entry::new(&placed, body, Some(vec![1])), digest, answer })
}

type Placed = tokio::task::JoinHandle<Result<Accepted, Stop>>;

fn place(store: &Store, key: Key) -> Placed {
    let store = store.clone();
    tokio::spawn(async move {
        let body = key.bytes.clone();
        store.place(key, device("ana/1").to_string(), move |s| decide(s, body)).await
    })
}

#[tokio::test]
async fn messages_that_arrive_together_get_gapless_places_in_their_rooms() {
    on_both(async |db| {
        let store = db.open().await;
        let logs = [room_with_ana(&store, "x").await, room_with_ana(&store, "y").await];
        let (go, held) = hold(&store).await;
        let before = store.counters().commits();
        let tasks: Vec<_> = (0..50)
            .map(|n| place(&store, key(room(if n % 3 == 0 { "x" } else { "y" }), n)))
            .collect();
        settle().await;
        db.wakes.lock().unwrap().clear();
        go.notify_one();
        held.await.unwrap();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap().unwrap());
        }
        assert_eq!(store.counters().commits() - before, 2, "the held job and all the others");
        let wakes = db.wakes.lock().unwrap().clone();
        assert_eq!(wakes, logs.map(Wake::Log));
        for (log, name, count) in [(logs[0], "x", 17), (logs[1], "y", 33)] {
            let row = read!(store, tx => logs::get(tx, log).await);
            assert_eq!((row.head, row.bytes), (seq(count), count * 16));
            let span = delivery::reader::Span::new(seq(1), seq(count)).unwrap();
            let entries = read!(store, tx => logs::read(tx, log, span, 1 << 20, Bodies::All).await);
            let mut running = chain(0);
            for (entry, n) in entries.iter().zip(1..) {
                assert_eq!(entry.seq, seq(n));
                let digest = Digest::of_entry(entry.kind, entry.at, entry.body.as_ref().unwrap());
                running = running.next(entry.seq, &digest);
                assert_eq!((entry.chain, entry.digest), (running, digest));
            }
            assert_eq!((row.chain, entries.len() as u64), (running, count));
            for (n, answer) in (0_u8..).zip(&answers).filter(|(n, _)| (n % 3 == 0) == (name == "x"))
            {
                let stored =
                    read!(store, tx => logs::entry(tx, log, answer.place.seq).await).unwrap();
                assert_eq!((stored.body, stored.at), (Some(vec![n; 16]), answer.at));
                let prior =
                    read!(store, tx => submissions::find(tx, &key(room(name), n)).await).unwrap();
                assert_eq!(prior.state, State::Accepted(*answer));
                assert_eq!(prior.digest, Digest::of_bytes(&[n; 16]));
            }
        }
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_message_that_comes_twice_in_one_batch_gets_one_place() {
    on_both(async |db| {
        let store = db.open().await;
        let log = room_with_ana(&store, "x").await;
        let (go, held) = hold(&store).await;
        let tasks: Vec<_> = (0..40).map(|n| place(&store, key(room("x"), n % 4))).collect();
        settle().await;
        go.notify_one();
        held.await.unwrap();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap().unwrap());
        }
        for (n, answer) in answers.iter().enumerate() {
            assert_eq!(*answer, answers[n % 4]);
        }
        assert_eq!(place(&store, key(room("x"), 0)).await.unwrap().unwrap(), answers[0]);
        assert_eq!(read!(store, tx => logs::get(tx, log).await).head, seq(4));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_refused_message_does_not_touch_the_others() {
    on_both(async |db| {
        let store = db.open().await;
        let log = room_with_ana(&store, "x").await;
        let (go, held) = hold(&store).await;
        let good = [1, 2, 3].map(|n| place(&store, key(room("x"), n)));
        let nowhere = place(&store, key(room("y"), 1));
        let spawn = |sender: &'static str, wrong: fn(&Scene) -> Scene| {
            let store = store.clone();
            tokio::spawn(async move {
                let key = key(room("x"), 100);
                store
                    .place(key, device(sender).to_string(), move |s| {
                        decide(s.map(wrong).as_ref(), vec![0; 5])
                    })
                    .await
            })
        };
        let outside = spawn("eve/1", Scene::clone);
        let misplaced = spawn("ana/1", |s| {
            let mut s = *s;
            s.head.head = seq(40);
            s
        });
        let bug = spawn("ana/1", |_| panic!("a bug"));
        let last = place(&store, key(room("x"), 4));
        settle().await;
        go.notify_one();
        held.await.unwrap();
        for task in good {
            task.await.unwrap().unwrap();
        }
        assert_eq!(nowhere.await.unwrap(), Err(Stop::NotThere));
        assert_eq!(outside.await.unwrap(), Err(Stop::NotThere));
        let Stop::Store(text) = misplaced.await.unwrap().unwrap_err() else { panic!() };
        assert!(text.ends_with("changed in between"), "{text}");
        let bug = bug.await.unwrap();
        assert_eq!(bug, Err(Stop::Store("a database job failed: a bug".into())));
        assert_eq!(last.await.unwrap().unwrap().place.seq, seq(4));
        assert_eq!(read!(store, tx => logs::get(tx, log).await).head, seq(4));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_damaged_room_does_not_touch_messages_to_others() {
    let db = Db::sqlite();
    let store = db.open().await;
    let good = room_with_ana(&store, "x").await;
    room_with_ana(&store, "y").await;
    let Location::Sqlite(file) = &db.location else { panic!("{:?}", db.location) };
    let mut raw =
        sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    raw.execute("UPDATE log SET last_at_ms = -1 WHERE name LIKE '%y'").await.unwrap();
    let (go, held) = hold(&store).await;
    let first = place(&store, key(room("x"), 1));
    let damaged = place(&store, key(room("y"), 1));
    let last = place(&store, key(room("x"), 2));
    settle().await;
    go.notify_one();
    held.await.unwrap();
    first.await.unwrap().unwrap();
    let Stop::Store(text) = damaged.await.unwrap().unwrap_err() else { panic!() };
    assert_eq!(text, "the table log holds a broken last_at_ms");
    assert_eq!(last.await.unwrap().unwrap().place.seq, seq(2));
    assert_eq!(read!(store, tx => logs::get(tx, good).await).head, seq(2));
    store.close().await;
}

#[tokio::test]
async fn a_message_sees_what_a_job_of_its_batch_did() {
    on_both(async |db| {
        let store = db.open().await;
        let log = room_with_ana(&store, "x").await;
        let (go, held) = hold(&store).await;
        let job = |fail| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .write::<(), StoreError, _>(move |tx| Box::pin(next_epoch(tx, log, fail)))
                    .await
            })
        };
        let jobs = [job(false), job(true)];
        settle().await;
        let epoch = {
            let store = store.clone();
            tokio::spawn(async move {
                let sender = device("ana/1").to_string();
                store
                    .place::<_, StoreError, _>(key(room("x"), 1), sender, |s| {
                        Ok(Decision::Known(s.unwrap().head.epoch))
                    })
                    .await
            })
        };
        settle().await;
        go.notify_one();
        held.await.unwrap();
        let [good, bad] = jobs;
        good.await.unwrap().unwrap();
        bad.await.unwrap().unwrap_err();
        assert_eq!(epoch.await.unwrap().unwrap(), Epoch::new(4));
        store.close().await;
    })
    .await;
}

async fn next_epoch(tx: &mut Tx, log: LogId, fail: bool) -> Result<(), StoreError> {
    rooms::follow_epoch(tx, log, Epoch::new(if fail { 9 } else { 4 })).await?;
    readers::add(tx, log, &domain("b.example").into(), seq(1)).await?;
    if fail { Err(StoreError::Conflict { table: "test" }) } else { Ok(()) }
}
