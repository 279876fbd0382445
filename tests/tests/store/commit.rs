//! Group commit, failure and reopening: what the promise "stored means stored" rests on.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use node::store::logs::{self, LogName};
use node::store::members;
use node::store::readers::{self, Reader};
use node::store::rooms::{self, Room};
use node::store::{Location, LogId, Options, Store, StoreError, Tx, Wake, identity};
use protocol::{Epoch, Incarnation, Seq};
use sqlx::Connection as _;
use tokio::sync::Notify;

use crate::harness::{
    at, device, domain, entries, entry, log_with, on_both, read, room, seq, start, write,
};

/// Holds the writer in a job of its own until told to go on, so that what is submitted meanwhile becomes one batch.
pub async fn hold(store: &Store) -> (Arc<Notify>, tokio::task::JoinHandle<()>) {
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, wait, store) = (entered.clone(), go.clone(), store.clone());
    let held = tokio::spawn(async move {
        write!(store, _tx => {
            inside.notify_one();
            wait.notified().await;
            Ok(())
        });
    });
    entered.notified().await;
    (go, held)
}

/// Submits without waiting.
fn submit(
    store: &Store,
    log: LogId,
    n: u64,
    fail: bool,
) -> tokio::task::JoinHandle<Result<Seq, StoreError>> {
    let store = store.clone();
    tokio::spawn(async move {
        store
            .write(move |tx| {
                Box::pin(async move {
                    readers::add(tx, log, &Reader::Device(device(&format!("d/{n}"))), seq(1))
                        .await?;
                    tx.wake(Wake::Device(device(&format!("d/{n}"))));
                    tx.wake(Wake::Log(log));
                    let head = logs::get(tx, log).await?.head;
                    if fail { Err(StoreError::Conflict { table: "test" }) } else { Ok(head) }
                })
            })
            .await
    })
}

pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// How many of the devices that the jobs of these tests make readers are readers.
async fn readers_of(store: &Store, log: LogId) -> usize {
    let mut found = 0;
    for n in 0..100 {
        let reader = Reader::Device(device(&format!("d/{n}")));
        found += read!(store, tx => readers::stays(tx, log, &reader).await).len();
    }
    found
}

#[tokio::test]
async fn jobs_that_wait_together_share_one_commit() {
    on_both(async |db| {
        let store = db.open().await;
        let log = log_with(&store, LogName::Room(room("x")), 3).await;
        let (go, held) = hold(&store).await;
        let before = (store.counters().commits(), store.counters().jobs());
        let jobs: Vec<_> = (0..50).map(|n| submit(&store, log, n, false)).collect();
        settle().await;
        db.wakes.lock().unwrap().clear();
        go.notify_one();
        held.await.unwrap();
        for job in jobs {
            assert_eq!(job.await.unwrap().unwrap(), seq(3));
        }
        assert_eq!(store.counters().commits() - before.0, 2, "the held job and all the others");
        assert_eq!(store.counters().jobs() - before.1, 51);
        assert_eq!(readers_of(&store, log).await, 50);
        let wakes = db.wakes.lock().unwrap().clone();
        assert_eq!(wakes.iter().filter(|w| **w == Wake::Log(log)).count(), 1, "coalesced");
        assert_eq!(wakes.len(), 51);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_failing_job_rolls_back_alone() {
    on_both(async |db| {
        let store = db.open().await;
        let log = log_with(&store, LogName::Room(room("x")), 3).await;
        for failing in [vec![0, 1], vec![4], vec![9], vec![2, 5, 6], (0..10).collect()] {
            let (go, held) = hold(&store).await;
            let jobs: Vec<_> =
                (0..10).map(|n| submit(&store, log, n, failing.contains(&n))).collect();
            settle().await;
            db.wakes.lock().unwrap().clear();
            go.notify_one();
            held.await.unwrap();
            for (n, job) in (0..).zip(jobs) {
                assert_eq!(job.await.unwrap().is_err(), failing.contains(&n), "{n}");
            }
            assert_eq!(readers_of(&store, log).await, 10 - failing.len());
            let woken = db.wakes.lock().unwrap().clone();
            for n in 0..10 {
                let wake = Wake::Device(device(&format!("d/{n}")));
                assert_eq!(woken.contains(&wake), !failing.contains(&n), "{n}");
            }
            for n in 0..10 {
                let reader = Reader::Device(device(&format!("d/{n}")));
                write!(store, tx => readers::remove(tx, &reader).await);
            }
        }
        // Alone in its batch.
        assert!(submit(&store, log, 1, true).await.unwrap().is_err());
        assert_eq!(readers_of(&store, log).await, 0);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_refused_statement_fails_its_own_job_only() {
    on_both(async |db| {
        let store = db.open().await;
        let log = log_with(&store, LogName::Room(room("x")), 0).await;
        let (go, held) = hold(&store).await;
        let bad = tokio::spawn({
            let store = store.clone();
            async move {
                store.write::<_, StoreError, _>(move |tx| Box::pin(sure_to_fail(tx, log))).await
            }
        });
        settle().await;
        let good = submit(&store, log, 1, false);
        settle().await;
        go.notify_one();
        held.await.unwrap();
        assert!(matches!(bad.await.unwrap(), Err(StoreError::Database(_))));
        assert_eq!(
            good.await.unwrap().unwrap(),
            seq(0),
            "without what the failed job had appended"
        );
        store.close().await;
    })
    .await;
}

/// Appends an entry; then a second room on the same log violates a unique key.
async fn sure_to_fail(tx: &mut Tx, log: LogId) -> Result<(), StoreError> {
    let on = |name| Room {
        log,
        room: room(name),
        hub: domain("a.example"),
        suite: 1,
        epoch: Epoch::new(0),
        created: at(1),
    };
    logs::append(tx, log, &[entry(1, 1)]).await?;
    rooms::create(tx, &on("one"), None).await?;
    rooms::create(tx, &on("two"), None).await.map(|_| ())
}

#[tokio::test]
async fn nobody_is_answered_before_the_commit() {
    on_both(async |db| {
        let (store, other) = (db.open().await, db.open().await);
        let log = log_with(&store, LogName::Room(room("x")), 3).await;
        let (first_go, first) = hold(&store).await;
        let early = submit(&store, log, 1, false);
        settle().await;
        let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let last = {
            let (store, inside, wait) = (store.clone(), entered.clone(), go.clone());
            tokio::spawn(async move {
                write!(store, _tx => {
                    inside.notify_one();
                    wait.notified().await;
                    Ok(())
                });
            })
        };
        settle().await;
        db.wakes.lock().unwrap().clear();
        first_go.notify_one();
        first.await.unwrap();
        // The writer is now in the second job of a batch whose first job has run.
        entered.notified().await;
        settle().await;
        assert!(!early.is_finished(), "answered before the commit");
        assert_eq!(readers_of(&other, log).await, 0);
        assert_eq!(*db.wakes.lock().unwrap(), [], "woken before the commit");
        go.notify_one();
        early.await.unwrap().unwrap();
        last.await.unwrap();
        assert_eq!(readers_of(&other, log).await, 1, "visible to another handle once answered");
        assert_eq!(db.wakes.lock().unwrap().len(), 2);
        store.close().await;
        other.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_panic_in_a_job_ends_neither_the_writer_nor_the_others() {
    on_both(async |db| {
        let store = db.open().await;
        let log = log_with(&store, LogName::Room(room("x")), 3).await;
        let (go, held) = hold(&store).await;
        let bad = {
            let store = store.clone();
            tokio::spawn(async move {
                store.write::<(), StoreError, _>(|_| Box::pin(async { panic!("a bug") })).await
            })
        };
        settle().await;
        let good = submit(&store, log, 1, false);
        settle().await;
        go.notify_one();
        held.await.unwrap();
        assert!(matches!(bad.await.unwrap(), Err(StoreError::Panicked(m)) if m == "a bug"));
        good.await.unwrap().unwrap();
        submit(&store, log, 2, false).await.unwrap().unwrap();
        assert_eq!(readers_of(&store, log).await, 2);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_job_whose_caller_went_away_still_counts() {
    on_both(async |db| {
        let store = db.open().await;
        let log = log_with(&store, LogName::Room(room("x")), 3).await;
        let (go, held) = hold(&store).await;
        let gone = submit(&store, log, 1, false);
        settle().await;
        gone.abort();
        go.notify_one();
        held.await.unwrap();
        submit(&store, log, 2, false).await.unwrap().unwrap();
        assert_eq!(readers_of(&store, log).await, 2);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_says_busy_and_a_closed_store_closed() {
    on_both(async |db| {
        let store = db.try_open(Options { queue: 2, ..db.options() }).await.unwrap();
        let log = log_with(&store, LogName::Room(room("x")), 3).await;
        let (go, held) = hold(&store).await;
        let waiting = [submit(&store, log, 1, false), submit(&store, log, 2, false)];
        settle().await;
        let refused = submit(&store, log, 3, false).await.unwrap();
        assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
        go.notify_one();
        held.await.unwrap();
        store.close().await;
        for job in waiting {
            job.await.unwrap().unwrap();
        }
        assert!(matches!(submit(&store, log, 4, false).await.unwrap(), Err(StoreError::Closed)));
        let again = db.open().await;
        assert_eq!(readers_of(&again, log).await, 2, "what was submitted before the end is there");
        again.close().await;
    })
    .await;
}

#[tokio::test]
async fn reopening_keeps_everything_and_another_node_is_refused() {
    on_both(async |db| {
        if db.is_sqlite() {
            let missing =
                db.try_open(Options { create: false, ..db.options() }).await.err().unwrap();
            assert!(matches!(missing, StoreError::Missing(_)), "{missing}");
        }
        let store = db.open().await;
        let log = log_with(&store, LogName::Room(room("x")), 3).await;
        let node = read!(store, tx => identity::load(tx).await);
        assert_eq!((node.domain.as_str(), node.created), ("a.example", at(1_000)));
        store.close().await;

        let wrong = Options { domain: domain("b.example"), ..db.options() };
        let refused = db.try_open(wrong).await.err().unwrap();
        assert_eq!(refused.to_string(), "the database belongs to a.example, not to b.example");

        let store = db.try_open(Options { create: false, ..db.options() }).await.unwrap();
        assert_eq!(read!(store, tx => identity::load(tx).await), node);
        assert_eq!(read!(store, tx => logs::get(tx, log).await).head, seq(3));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_restore_begins_a_new_life_in_every_log_of_this_node() {
    on_both(async |db| {
        let store = db.open().await;
        let room_log = log_with(&store, LogName::Room(room("x")), 3).await;
        let replica = log_with(&store, LogName::Replica(room("y")), 3).await;
        let new = Incarnation::from_bytes([77; 16]);
        write!(store, tx => identity::new_incarnation(tx, &new, 5).await);
        assert_eq!(read!(store, tx => identity::load(tx).await).incarnation, new);
        assert_eq!(read!(store, tx => identity::life(tx).await).ticks, 5);
        let log = read!(store, tx => logs::get(tx, room_log).await);
        assert_eq!((log.incarnation, log.head), (new, seq(3)));
        let log = read!(store, tx => logs::get(tx, replica).await);
        assert_eq!(log.incarnation, start(0).incarnation, "the hub's numbers are the hub's");
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_append_to_one_log_without_a_gap() {
    on_both(async |db| {
        let (one, two) = (db.open().await, db.open().await);
        log_with(&one, LogName::Room(room("x")), 0).await;
        let append = async |store: &Store| {
            let jobs: Vec<_> = (0..30)
                .map(|_| {
                    let store = store.clone();
                    tokio::spawn(async move {
                        write!(store, tx => {
                            let log = logs::lock(tx, &LogName::Room(room("x"))).await?.unwrap();
                            let next = log.head.next();
                            logs::append(tx, log.id, &[entry(next.get(), 5)]).await?;
                            Ok(next)
                        })
                    })
                })
                .collect();
            let mut got = Vec::new();
            for job in jobs {
                got.push(job.await.unwrap().get());
            }
            got
        };
        let (mut all, more) = tokio::join!(append(&one), append(&two));
        all.extend(more);
        all.sort_unstable();
        assert_eq!(all, (1..=60).collect::<Vec<_>>());
        let log = read!(two, tx => logs::find(tx, &LogName::Room(room("x"))).await).unwrap();
        assert_eq!((log.head, log.bytes), (seq(60), 300));
        one.close().await;
        two.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_sees_one_state_and_cannot_write() {
    on_both(async |db| {
        let store = db.open().await;
        let log = log_with(&store, LogName::Room(room("x")), 1).await;
        let mut snapshot = store.snapshot().await.unwrap();
        assert_eq!(logs::get(&mut snapshot, log).await.unwrap().head, seq(1));
        write!(store, tx => logs::append(tx, log, &entries(2..=2)).await);
        assert_eq!(logs::get(&mut snapshot, log).await.unwrap().head, seq(1));
        assert!(logs::append(&mut snapshot, log, &entries(2..=2)).await.is_err());
        drop(snapshot);
        for _ in 0..20 {
            let head = store
                .read::<_, StoreError, _>(|tx| {
                    Box::pin(async move { Ok(logs::get(tx, log).await?.head) })
                })
                .await
                .unwrap();
            assert_eq!(head, seq(2), "connections come back clean");
        }
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_others_wrote_into_a_row_is_called_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    let options = Options {
        create: true,
        ..Options::new(Location::Sqlite(path.clone()), domain("a.example"))
    };
    let store = open(options).await;
    let log = log_with(&store, LogName::Room(room("x")), 1).await;
    write!(store, tx => members::add(tx, log, &device("ana/1"), seq(1)).await);
    let mut c =
        sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    sqlx::query("UPDATE member SET domain = 'not a domain'").execute(&mut c).await.unwrap();
    let mut snapshot = store.snapshot().await.unwrap();
    let error = members::domains(&mut snapshot, log).await.unwrap_err();
    assert_eq!(error.to_string(), "the table member holds a broken domain");
    drop(snapshot);
    store.close().await;
}

async fn open(options: Options) -> Store {
    Store::open(options, &crate::harness::Still(1), &crate::harness::Counting::default())
        .await
        .unwrap()
}

/// Whatever SQLite kept in memory is read again after another handle has written.
#[tokio::test]
async fn a_store_on_a_broken_disk_refuses_all_further_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    let options = Options {
        create: true,
        ..Options::new(Location::Sqlite(path.clone()), domain("a.example"))
    };
    let store = open(options.clone()).await;
    let log = log_with(&store, LogName::Room(room("x")), 200).await;
    let good = {
        let mut c =
            sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        sqlx::query("UPDATE node SET created_ms = created_ms + 1").execute(&mut c).await.unwrap();
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut c).await.unwrap();
        c.close().await.unwrap();
        fs::read(&path).unwrap()
    };
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // All pages but the first, which holds the schema.
    file.write_all_at(&vec![0xee; good.len() - 4096], 4096).unwrap();
    let failed = submit(&store, log, 1, false).await.unwrap().unwrap_err();
    assert!(matches!(failed, StoreError::Database(_)), "{failed}");
    file.write_all_at(&good, 0).unwrap();
    let refused = submit(&store, log, 2, false).await.unwrap().unwrap_err();
    assert!(
        matches!(refused, StoreError::Broken),
        "even when the disk seems well again: {refused}"
    );
    store.close().await;
    let store = open(options).await;
    submit(&store, log, 3, false).await.unwrap().unwrap();
    assert_eq!(readers_of(&store, log).await, 1);
    store.close().await;
}
