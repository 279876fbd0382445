//! The store on its own: what is in its files, who may open it, and that its timeline follows the rule.

use std::path::Path;

use crypto::IdentityKey;
use delivery::sender::Seen;
use delivery::timeline;
use protocol::{DeviceId, Entropy, MessageId, Seq, Timestamp, UserId};
use sqlx::Row as _;

use super::{Echo, Inserted, NewMessage, PENDING, RoomNo, Store};
use crate::tests::harness::{Device, Hub, Seeded, folder, settle};
use crate::{Error, Flag, Place, RoomOptions, Seal, rooms, sender};

const CANARY: &str = "the canary sings at dawn";

/// Every file of a folder, with its bytes.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap())
    };
    std::fs::read_dir(dir).unwrap().map(read).collect()
}

fn found(dir: &Path, what: &str) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(what.len()).any(|w| w == what.as_bytes());
    files(dir).into_iter().filter(|(_, bytes)| holds(bytes)).map(|(name, _)| name).collect()
}

/// A device that has written and received, by its folder; and words that nobody else may find there.
async fn used(seal: Seal) -> (std::sync::Arc<tempfile::TempDir>, Vec<String>) {
    let mut hub = Hub::new(7);
    let identity = IdentityKey::generate(&*hub.entropy);
    let mut ana = Device::of(&mut hub, "ana-lovelace", "1", identity, seal).await;
    let mut bo = Device::new(&mut hub, "bo-diddley").await;
    let options = RoomOptions { name: Some(format!("{CANARY} room")), ..RoomOptions::default() };
    let room = ana.work(async |work| rooms::found(work, options).await).await.unwrap();
    ana.want(&room, crate::store::Action::Add(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    ana.send(&room, &format!("{CANARY}, says ana")).await;
    bo.send(&room, &format!("{CANARY}, says bo")).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    ana.work(async |work| sender::write(work, &room, CANARY).await.map(|_| ())).await.unwrap();
    assert_eq!(ana.texts(&room).await.len(), 3);
    let words = [CANARY, "ana-lovelace", "bo-diddley", room.local()];
    (std::sync::Arc::clone(&ana.dir), words.map(str::to_owned).to_vec())
}

#[tokio::test]
async fn a_sealed_store_holds_nothing_in_the_clear_and_the_same_scan_finds_it_unsealed() {
    for seal in [Seal::KeyFile, Seal::Passphrase("correct horse".into())] {
        let (dir, words) = used(seal.clone()).await;
        for word in &words {
            assert_eq!(found(dir.path(), word), Vec::<String>::new(), "{word} with {seal:?}");
        }
        assert_eq!(found(dir.path(), "correct horse"), Vec::<String>::new());
    }
    let (dir, words) = used(Seal::Unsealed).await;
    for word in &words {
        assert!(!found(dir.path(), word).is_empty(), "the scan finds nothing at all: {word}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_on_the_machine_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, _) = used(Seal::KeyFile).await;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "lock" {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        }
    }
}

#[tokio::test]
async fn only_the_right_key_opens_a_store() {
    let hub = Hub::new(8);
    let place = |dir: &Path, seal| Place { dir: dir.into(), seal, world: hub.world() };
    let dir = folder();
    let right = Seal::Passphrase("correct horse".into());
    drop(Store::open(&place(dir.path(), right.clone())).await.unwrap());
    for wrong in [Seal::Passphrase("battery staple".into()), Seal::KeyFile, Seal::Unsealed] {
        let opened = Store::open(&place(dir.path(), wrong)).await;
        assert!(matches!(opened.err(), Some(Error::WrongSeal)));
    }
    Store::open(&place(dir.path(), right)).await.unwrap();
    let dir = folder();
    drop(Store::open(&place(dir.path(), Seal::KeyFile)).await.unwrap());
    std::fs::write(dir.path().join("seal.key"), [9; 32]).unwrap();
    let opened = Store::open(&place(dir.path(), Seal::KeyFile)).await;
    assert!(matches!(opened.err(), Some(Error::WrongSeal)));
    let empty = Store::open(&place(folder().path(), Seal::Passphrase(String::new()))).await;
    assert!(matches!(empty.err(), Some(Error::Invalid(_))));
}

#[tokio::test]
async fn two_processes_never_share_a_device() {
    let hub = Hub::new(9);
    let dir = folder();
    let place = Place { dir: dir.path().into(), seal: Seal::Unsealed, world: hub.world() };
    let first = Store::open(&place).await.unwrap();
    assert!(matches!(Store::open(&place).await.err(), Some(Error::Locked(_))));
    drop(first);
    Store::open(&place).await.unwrap();
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_refused() {
    let hub = Hub::new(10);
    let dir = folder();
    let place = Place { dir: dir.path().into(), seal: Seal::Unsealed, world: hub.world() };
    let mut store = Store::open(&place).await.unwrap();
    sqlx::query("PRAGMA user_version = 99").execute(&mut store.conn).await.unwrap();
    drop(store);
    assert!(matches!(Store::open(&place).await.err(), Some(Error::NewerStore)));
}

#[tokio::test]
async fn a_value_moved_to_another_row_does_not_open() {
    let (dir, _) = used(Seal::KeyFile).await;
    let hub = Hub::new(7);
    let place = Place { dir: dir.path().into(), seal: Seal::KeyFile, world: hub.world() };
    let mut store = Store::open(&place).await.unwrap();
    let rows =
        sqlx::query("SELECT message_id FROM message").fetch_all(&mut store.conn).await.unwrap();
    let id = |n: usize| rows[n].get::<Vec<u8>, _>(0);
    sqlx::query(
        "UPDATE message SET sealed = (SELECT sealed FROM message WHERE message_id = $1) WHERE message_id = $2",
    )
    .bind(id(0))
    .bind(id(1))
    .execute(&mut store.conn)
    .await
    .unwrap();
    let mut tx = store.tx().await.unwrap();
    let room = tx.rooms().await.unwrap().remove(0);
    let read = tx.timeline(room.no, None, 100).await;
    assert!(matches!(read.err(), Some(Error::Corrupt { table: "message" })));
}

#[tokio::test]
async fn the_schema_is_the_one_that_is_written_down() {
    let hub = Hub::new(11);
    let dir = folder();
    let place = Place { dir: dir.path().into(), seal: Seal::Unsealed, world: hub.world() };
    let mut store = Store::open(&place).await.unwrap();
    let rows = sqlx::query(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY tbl_name, type DESC, name",
    )
    .fetch_all(&mut store.conn)
    .await
    .unwrap();
    let tables = rows.iter().map(|row| row.get::<String, _>(0) + ";\n");
    let now = tables.collect::<Vec<_>>().join("\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/client.schema.sql");
    #[expect(clippy::disallowed_methods, reason = "a test that writes its file anew when asked")]
    if std::env::var("UPDATE_SCHEMA").is_ok() {
        std::fs::write(&path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == now,
        "{} is not what the migrations make; UPDATE_SCHEMA=1 writes it anew",
        path.display()
    );
}

/// A message of some device; `n` makes it another one.
fn message(device: &DeviceId, counter: u64, seq: Seq, n: u64) -> NewMessage {
    NewMessage {
        device: device.clone(),
        counter,
        prev: (counter > 1).then(|| content_hash(device, counter - 1, 0)),
        message_id: MessageId::from_bytes(content_hash(device, counter, n)),
        seq,
        at: Some(Timestamp::from_ms(seq.get())),
        written: Timestamp::from_ms(1),
        seen: Seen::Same,
        submit_id: None,
        content: content(device, counter, n),
    }
}

fn content(device: &DeviceId, counter: u64, n: u64) -> Vec<u8> {
    format!("{device} {counter} {n}").into_bytes()
}

fn content_hash(device: &DeviceId, counter: u64, n: u64) -> [u8; 32] {
    *protocol::log::Digest::of_bytes(&content(device, counter, n)).as_bytes()
}

async fn bare(hub: &Hub) -> (tempfile::TempDir, Store, RoomNo) {
    let dir = folder();
    let place = Place { dir: dir.path().into(), seal: Seal::Unsealed, world: hub.world() };
    let mut store = Store::open(&place).await.unwrap();
    let room = protocol::RoomId::parse("mimi://a.example/r/x").unwrap();
    let mut tx = store.tx().await.unwrap();
    let row = tx.add_room(&room, None, 1, crate::RoomStatus::Active).await.unwrap();
    tx.commit().await.unwrap();
    (dir, store, row.no)
}

fn devices(hub: &Hub) -> Vec<DeviceId> {
    ["ana", "bo", "cy"]
        .map(|n| DeviceId::new(&UserId::new(&hub.domain, n).unwrap(), "1").unwrap())
        .to_vec()
}

/// Messages of three devices in the order of their seqs, some of them accepted later than their sender wrote them.
fn shuffled(devices: &[DeviceId], chance: &Seeded) -> Vec<NewMessage> {
    let mut counters: Vec<Vec<u64>> = vec![(1..=12).collect(); devices.len()];
    let mut out = vec![];
    let mut seq = 0;
    while counters.iter().any(|c| !c.is_empty()) {
        let who = chance.jitter() as usize % devices.len();
        if counters[who].is_empty() {
            continue;
        }
        // Mostly in order, sometimes one of the next three first.
        let ahead =
            if chance.jitter().is_multiple_of(4) { chance.jitter() as usize % 3 } else { 0 };
        let at = ahead.min(counters[who].len() - 1);
        let counter = counters[who].remove(at);
        seq += 1;
        out.push(message(&devices[who], counter, Seq::new(seq), 0));
    }
    out
}

#[tokio::test]
async fn the_timeline_follows_the_rule_in_whatever_order_messages_come() {
    let hub = Hub::new(12);
    let devices = devices(&hub);
    for seed in 0..20 {
        let chance = Seeded::new(seed);
        let mut messages = shuffled(&devices, &chance);
        let known: Vec<timeline::Message> = messages
            .iter()
            .map(|m| timeline::Message {
                id: m.message_id,
                sender: m.device.clone(),
                counter: m.counter,
                seq: m.seq,
            })
            .collect();
        let want: Vec<MessageId> = timeline::order(&known).into_iter().map(|(_, id)| id).collect();
        for i in (1..messages.len()).rev() {
            messages.swap(i, chance.jitter() as usize % (i + 1));
        }
        let (_dir, mut store, no) = bare(&hub).await;
        let mut tx = store.tx().await.unwrap();
        for m in &messages {
            assert_eq!(tx.add_message(no, m).await.unwrap(), Inserted::New);
        }
        for m in &messages {
            assert_eq!(tx.add_message(no, m).await.unwrap(), Inserted::Known, "shown once");
        }
        let rows = tx.timeline(no, None, 100).await.unwrap();
        let got: Vec<MessageId> = rows.iter().map(|r| r.message_id).collect();
        assert_eq!(got, want, "seed {seed}");
        assert!(rows.iter().all(|r| r.flags.is_empty()), "seed {seed}");
        // In pages it is the same.
        let mut paged = vec![];
        let mut after = None;
        loop {
            let page = tx.timeline(no, after, 5).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.key);
            paged.extend(page.iter().map(|r| r.message_id));
        }
        assert_eq!(paged, want);
        let latest = tx.latest(no, 7).await.unwrap();
        let latest: Vec<MessageId> = latest.iter().map(|r| r.message_id).collect();
        assert_eq!(latest, want[want.len() - 7..]);
    }
}

#[tokio::test]
async fn what_is_odd_about_a_message_is_shown_and_goes_when_the_missing_one_comes() {
    let hub = Hub::new(13);
    let device = devices(&hub).remove(0);
    let (_dir, mut store, no) = bare(&hub).await;
    let mut tx = store.tx().await.unwrap();
    let add = async |tx: &mut super::Tx<'_>, m: NewMessage| tx.add_message(no, &m).await.unwrap();
    let flags = async |tx: &mut super::Tx<'_>| -> Vec<(u64, Vec<Flag>)> {
        let rows = tx.timeline(no, None, 100).await.unwrap();
        rows.into_iter().map(|r| (r.key.counter, r.flags)).collect()
    };
    add(&mut tx, message(&device, 1, Seq::new(1), 0)).await;
    add(&mut tx, message(&device, 3, Seq::new(2), 0)).await;
    assert_eq!(flags(&mut tx).await, [(1, vec![]), (3, vec![Flag::GapBefore])]);
    add(&mut tx, message(&device, 2, Seq::new(3), 0)).await;
    assert_eq!(flags(&mut tx).await, [(1, vec![]), (2, vec![]), (3, vec![])]);
    // Another message under a used number, and one that follows on nothing.
    add(&mut tx, message(&device, 3, Seq::new(4), 1)).await;
    let broken = NewMessage { prev: Some([9; 32]), ..message(&device, 4, Seq::new(5), 0) };
    add(&mut tx, NewMessage { seen: Seen::Other, ..broken }).await;
    let flags = flags(&mut tx).await;
    assert_eq!(flags[3], (3, vec![Flag::Repeat]));
    assert_eq!(flags[4].1, vec![Flag::BrokenChain, Flag::Fork]);
}

#[tokio::test]
async fn a_message_without_a_place_stands_last_and_moves_when_it_gets_one() {
    let hub = Hub::new(14);
    let devices = devices(&hub);
    let (own, other) = (&devices[0], &devices[1]);
    let (_dir, mut store, no) = bare(&hub).await;
    let mut tx = store.tx().await.unwrap();
    let pending = NewMessage { at: None, ..message(own, 1, PENDING, 0) };
    tx.add_message(no, &pending).await.unwrap();
    tx.add_message(no, &message(other, 1, Seq::new(5), 0)).await.unwrap();
    let order = async |tx: &mut super::Tx<'_>| -> Vec<DeviceId> {
        tx.timeline(no, None, 10).await.unwrap().into_iter().map(|r| r.device).collect()
    };
    assert_eq!(order(&mut tx).await, [other.clone(), own.clone()]);
    let echo = Echo { seq: Seq::new(4), at: Timestamp::from_ms(9) };
    tx.place_message(no, &pending.message_id, echo).await.unwrap();
    assert_eq!(order(&mut tx).await, [own.clone(), other.clone()]);
    let row = tx.message(no, &pending.message_id).await.unwrap().unwrap();
    assert_eq!((row.key.seq, row.at), (4, Some(Timestamp::from_ms(9))));
    // A second place changes nothing.
    let late = Echo { seq: Seq::new(8), at: Timestamp::from_ms(10) };
    tx.place_message(no, &pending.message_id, late).await.unwrap();
    let row = tx.message(no, &pending.message_id).await.unwrap().unwrap();
    assert_eq!(row.key.seq, 4);
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_no_trace() {
    let hub = Hub::new(15);
    let device = devices(&hub).remove(0);
    let (_dir, mut store, no) = bare(&hub).await;
    let mut tx = store.tx().await.unwrap();
    tx.add_message(no, &message(&device, 1, Seq::new(1), 0)).await.unwrap();
    drop(tx);
    let mut tx = store.tx().await.unwrap();
    assert!(tx.timeline(no, None, 10).await.unwrap().is_empty());
}
