//! What those who are woken find without the database, and what they acknowledge.

use delivery::reader::Span;
use node::store::logs::{self, LogName};
use node::store::readers::{self, Reader};
use node::store::{Advance, Location, Store, StoreError};
use protocol::api::{Gap, GapReason};
use protocol::{Incarnation, Seq};

use crate::harness::{
    at, chain, device, domain, entries, entry, log_with, on_both, read, room, seq, write,
};

/// Whether the store keeps anything there: not where other processes write too.
fn keeps(location: &Location) -> bool {
    matches!(location, Location::Sqlite(_))
}

async fn newest(store: &Store, log: node::store::LogId, after: u64) -> Option<u64> {
    let row = read!(store, tx => logs::get(tx, log).await);
    let newest = store.fresh().newest(log, row.incarnation, seq(after))?;
    assert_eq!((newest.seq, newest.chain, newest.at), (row.head, row.chain, row.last_at));
    Some(newest.seq.get())
}

#[tokio::test]
async fn what_was_appended_is_found_without_the_database_as_long_as_nothing_else_moved_the_head() {
    on_both(async |db| {
        let store = db.open().await;
        let keeps = keeps(&db.location);
        let known = |seq: u64| keeps.then_some(seq);
        let log = log_with(&store, LogName::Replica(room("x")), 3).await;
        assert_eq!(newest(&store, log, 0).await, known(3));
        write!(store, tx => logs::append(tx, log, &entries(4..=5)).await);
        assert_eq!(newest(&store, log, 3).await, known(5));
        let row = read!(store, tx => logs::get(tx, log).await);
        let span = Span::new(seq(4), seq(5)).unwrap();
        let found = store.fresh().read(log, row.incarnation, span, 1 << 20);
        assert_eq!(found.is_some(), keeps);
        if let Some((before, run)) = found {
            assert_eq!(before.as_deref(), Some(&entry(3, 10)));
            assert_eq!(run.iter().map(|e| (**e).clone()).collect::<Vec<_>>(), entries(4..=5));
        }

        let failed: Result<(), StoreError> = store
            .write(move |tx| {
                Box::pin(async move {
                    logs::append(tx, log, &entries(6..=7)).await?;
                    Err(StoreError::Conflict { table: "test" })
                })
            })
            .await;
        failed.unwrap_err();
        assert_eq!(newest(&store, log, 3).await, known(5), "what was undone was never there");

        write!(store, tx => {
            let gap = Gap { first: seq(6), last: seq(8), reason: GapReason::Lost };
            logs::skip(tx, log, &gap, &chain(8), at(1)).await
        });
        assert_eq!(newest(&store, log, 5).await, None);
        write!(store, tx => logs::append(tx, log, &entries(9..=9)).await);
        assert_eq!((newest(&store, log, 5).await, newest(&store, log, 8).await), (None, known(9)));

        write!(store, tx => {
            let start = logs::Start {
                incarnation: Incarnation::from_bytes([7; 16]),
                seq: seq(8),
                chain: chain(8),
                at: at(8),
            };
            logs::rewind(tx, log, &start).await
        });
        assert_eq!(newest(&store, log, 8).await, None, "another life");
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn cursors_of_connected_devices_move_as_far_as_they_may() {
    on_both(async |db| {
        let store = db.open().await;
        let log = log_with(&store, LogName::Room(room("x")), 9).await;
        let [ana, ben]: [Reader; 2] = ["ana/1", "ben/1"].map(|d| device(d).into());
        let readers = [ana.clone(), ben.clone(), domain("b.example").into()];
        write!(store, tx => {
            for reader in &readers {
                readers::add(tx, log, reader, seq(2)).await?;
            }
            readers::end(tx, log, &ben, seq(5)).await
        });
        let life = read!(store, tx => logs::get(tx, log).await).incarnation;
        let cursor = async |reader: Reader| -> Seq {
            read!(store, tx => readers::stays(tx, log, &reader).await).first().unwrap().cursor
        };
        let advance = |to| Advance { log, incarnation: life, from: seq(2), to: seq(to) };
        let moved = async |who, advance| {
            store.advance(device(who), vec![advance]).await.unwrap();
            (cursor(device("ana/1").into()).await.get(), cursor(device("ben/1").into()).await.get())
        };
        assert_eq!(moved("ana/1", advance(4)).await, (4, 1));
        assert_eq!(moved("ana/1", advance(3)).await, (4, 1), "never back");
        assert_eq!(moved("ana/1", advance(10)).await, (4, 1), "never past the head");
        assert_eq!(moved("ben/1", advance(8)).await, (4, 5), "never past the end of the stay");
        let other = Advance { incarnation: Incarnation::from_bytes([7; 16]), ..advance(9) };
        assert_eq!(moved("ana/1", other).await, (4, 5), "of another life");
        assert_eq!(moved("eve/1", advance(9)).await, (4, 5), "of nobody");
        let peer = cursor(domain("b.example").into()).await;
        assert_eq!(peer, seq(1), "others stay where they are");

        let many: Vec<_> =
            (5..=9).map(|to| store.advance(device("ana/1"), vec![advance(to)])).collect();
        for done in futures_util::future::join_all(many).await {
            done.unwrap();
        }
        assert_eq!(cursor(device("ana/1").into()).await, seq(9));
        store.close().await;
    })
    .await;
}
