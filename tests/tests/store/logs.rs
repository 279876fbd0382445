//! Logs, entries, holes, readers, lanes.

use delivery::lane::Parked;
use delivery::reader::Span;
use node::store::lanes::{self, Lane};
use node::store::logs::{self, Bodies, LogName, Trimmed};
use node::store::peers::{self, Peer, PeerState};
use node::store::readers::{self, Reader, Stay};
use node::store::{LogId, Store, StoreError, status};
use protocol::api::{Gap, GapReason};
use protocol::log::{Digest, EntryKind};
use protocol::{Code, Incarnation, Refusal};

use crate::harness::{
    at, chain, device, domain, entries, entry, get, log_with, on_both, read, room, seq, start,
    write,
};

fn span(first: u64, last: u64) -> Span {
    Span::new(seq(first), seq(last)).unwrap()
}

fn numbers(entries: &[logs::Entry]) -> Vec<u64> {
    entries.iter().map(|e| e.seq.get()).collect()
}

fn stay(from: u64, cursor: u64, until: Option<u64>) -> Stay {
    Stay { from: seq(from), cursor: seq(cursor), until: until.map(seq) }
}

#[tokio::test]
async fn a_log_is_made_once_and_found_by_name() {
    on_both(async |db| {
        let store = db.open().await;
        let names = [
            LogName::Room(room("x")),
            LogName::Replica(room("x")),
            LogName::Uplink(room("x")),
            LogName::Inbox(device("ana/1")),
        ];
        for name in names.clone() {
            let again = name.clone();
            let id = write!(store, tx => logs::create(tx, &name, &domain("h.example"), &start(7), at(3)).await);
            let second = write!(store, tx => logs::create(tx, &again, &domain("h.example"), &start(8), at(3)).await);
            assert!(id.is_some() && second.is_none());
        }
        for name in names {
            let found = read!(store, tx => logs::find(tx, &name).await).unwrap();
            assert_eq!((&found.name, found.hub.as_str()), (&name, "h.example"));
            assert_eq!((found.head, found.tail, found.kept()), (seq(7), seq(8), 0));
            assert_eq!((found.chain, found.tail_chain, found.last_at), (chain(7), chain(7), at(7)));
            assert_eq!(found.incarnation, Incarnation::from_bytes([9; 16]));
            let lock_name = name.clone();
            let locked = write!(store, tx => logs::lock(tx, &lock_name).await).unwrap();
            assert_eq!(locked, found);
            assert_eq!(read!(store, tx => logs::get(tx, found.id).await), found);
        }
        let missing = LogName::Room(room("y"));
        assert_eq!(read!(store, tx => logs::find(tx, &missing).await), None);
        assert_eq!(write!(store, tx => logs::lock(tx, &missing).await), None);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn entries_go_in_right_after_the_head_or_not_at_all() {
    on_both(async |db| {
        let store = db.open().await;
        let id = log_with(&store, LogName::Room(room("x")), 3).await;
        write!(store, tx => logs::append(tx, id, &entries(4..=5)).await);
        write!(store, tx => logs::append(tx, id, &[]).await);
        let log = read!(store, tx => logs::get(tx, id).await);
        assert_eq!((log.head, log.tail, log.kept(), log.bytes), (seq(5), seq(1), 5, 50));
        assert_eq!((log.chain, log.last_at), (chain(5), at(50)));
        for wrong in [entries(5..=6), entries(7..=7), vec![entry(6, 1), entry(8, 1)]] {
            let refused = store
                .write::<(), StoreError, _>(move |tx| {
                    Box::pin(async move { logs::append(tx, id, &wrong).await })
                })
                .await;
            assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
        }
        assert_eq!(read!(store, tx => logs::get(tx, id).await), log);
        assert_eq!(read!(store, tx => logs::entry(tx, id, seq(4)).await), Some(entry(4, 10)));
        assert_eq!(read!(store, tx => logs::entry(tx, id, seq(6)).await), None);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn reading_is_bounded_by_bytes_and_always_gives_the_first() {
    on_both(async |db| {
        let store = db.open().await;
        let id = log_with(&store, LogName::Room(room("x")), 0).await;
        let mut welcome = entry(3, 1_000);
        welcome.kind = EntryKind::Welcome;
        welcome.digest = Digest::of_entry(welcome.kind, welcome.at, welcome.body.as_ref().unwrap());
        let mut withheld = entry(4, 0);
        withheld.body = None;
        let all = vec![entry(1, 100), entry(2, 100), welcome.clone(), withheld.clone(), entry(5, 100)];
        write!(store, tx => logs::append(tx, id, &all).await);
        let read_some = async |first, last, bytes, bodies| {
            read!(store, tx => logs::read(tx, id, span(first, last), bytes, bodies).await)
        };
        assert_eq!(numbers(&read_some(1, 5, 10_000, Bodies::All).await), [1, 2, 3, 4, 5]);
        assert_eq!(numbers(&read_some(2, 4, 10_000, Bodies::All).await), [2, 3, 4]);
        assert_eq!(numbers(&read_some(1, 5, 199, Bodies::All).await), [1]);
        assert_eq!(numbers(&read_some(1, 5, 200, Bodies::All).await), [1, 2]);
        assert_eq!(numbers(&read_some(3, 5, 10, Bodies::All).await), [3], "a larger one goes alone");
        assert_eq!(numbers(&read_some(1, 5, 250, Bodies::NoWelcomes).await), [1, 2, 3, 4]);
        assert!(read_some(9, 12, 250, Bodies::All).await.is_empty());
        let got = read_some(3, 4, 5_000, Bodies::All).await;
        assert_eq!(got, [welcome.clone(), withheld]);
        let got = read_some(3, 3, 5_000, Bodies::NoWelcomes).await;
        assert_eq!(got, [logs::Entry { body: None, ..welcome }]);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_damaged_entry_is_never_given_out_and_what_comes_before_it_is() {
    on_both(async |db| {
        let store = db.open().await;
        let id = log_with(&store, LogName::Room(room("x")), 3).await;
        let mut damaged = entry(4, 100);
        damaged.body.as_mut().unwrap()[50] ^= 1;
        let rest = vec![damaged, entry(5, 10)];
        write!(store, tx => logs::append(tx, id, &rest).await);
        let got = read!(store, tx => logs::read(tx, id, span(1, 5), 10_000, Bodies::All).await);
        assert_eq!(numbers(&got), [1, 2, 3]);
        let mut snapshot = store.snapshot().await.unwrap();
        let read = logs::read(&mut snapshot, id, span(4, 5), 10_000, Bodies::All).await;
        assert!(matches!(read, Err(StoreError::Corrupt { table: "entry", .. })), "{read:?}");
        let one = logs::entry(&mut snapshot, id, seq(4)).await;
        assert!(matches!(one, Err(StoreError::Corrupt { table: "entry", .. })), "{one:?}");
        drop(snapshot);
        let got = read!(store, tx => logs::read(tx, id, span(5, 5), 10_000, Bodies::All).await);
        assert_eq!(numbers(&got), [5]);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_hole_is_shown_and_the_chain_goes_on_behind_it() {
    on_both(async |db| {
        let store = db.open().await;
        let id = log_with(&store, LogName::Replica(room("x")), 3).await;
        let gap = Gap { first: seq(4), last: seq(6), reason: GapReason::Expired };
        let wrong = Gap { first: seq(5), ..gap };
        let refused = store
            .write::<(), StoreError, _>(move |tx| {
                Box::pin(async move { logs::skip(tx, id, &wrong, &chain(6), at(9)).await })
            })
            .await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })));
        write!(store, tx => {
            logs::skip(tx, id, &gap, &chain(6), at(9)).await?;
            logs::append(tx, id, &entries(7..=8)).await
        });
        let log = read!(store, tx => logs::get(tx, id).await);
        assert_eq!((log.head, log.chain), (seq(8), chain(8)));
        for (position, hole) in [(0, Some(gap)), (5, Some(gap)), (6, None)] {
            let ends = read!(store, tx => logs::ends(tx, &log, seq(position)).await);
            assert_eq!((ends.head, ends.tail, ends.hole), (seq(8), seq(1), hole), "{position}");
        }
        let got = read!(store, tx => logs::read(tx, id, span(1, 8), 1_000, Bodies::All).await);
        assert_eq!(numbers(&got), [1, 2, 3, 7, 8]);
        for (n, known) in [
            (0, true),
            (3, true),
            (4, false),
            (5, false),
            (6, true),
            (7, true),
            (8, true),
            (9, false),
        ] {
            let found = read!(store, tx => logs::chain_at(tx, &log, seq(n)).await);
            assert_eq!(found, known.then(|| chain(n)), "{n}");
        }
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn trimming_keeps_the_chain_before_what_is_left() {
    on_both(async |db| {
        let store = db.open().await;
        let id = log_with(&store, LogName::Replica(room("x")), 3).await;
        let gap = Gap { first: seq(4), last: seq(6), reason: GapReason::Lost };
        write!(store, tx => {
            logs::skip(tx, id, &gap, &chain(6), at(9)).await?;
            logs::append(tx, id, &entries(7..=10)).await
        });
        let trim = async |last| {
            write!(store, tx => {
                let log = logs::get(tx, id).await?;
                logs::trim(tx, &log, seq(last)).await
            })
        };
        assert_eq!(trim(0).await, Trimmed::default());
        assert_eq!(trim(2).await, Trimmed { entries: 2, bytes: 20 });
        // The chain inside a hole is not known: the log begins before it.
        assert_eq!(trim(5).await, Trimmed { entries: 1, bytes: 10 });
        let log = read!(store, tx => logs::get(tx, id).await);
        assert_eq!((log.tail, log.tail_chain, log.bytes), (seq(4), chain(3), 40));
        assert_eq!(trim(6).await, Trimmed { entries: 0, bytes: 0 });
        assert_eq!(read!(store, tx => logs::get(tx, id).await).tail, seq(7));
        assert_eq!(trim(8).await, Trimmed { entries: 2, bytes: 20 });
        let log = read!(store, tx => logs::get(tx, id).await);
        assert_eq!((log.tail, log.tail_chain, log.kept(), log.bytes), (seq(9), chain(8), 2, 20));
        assert_eq!(read!(store, tx => logs::ends(tx, &log, seq(0)).await).hole, None);
        assert_eq!(read!(store, tx => logs::chain_at(tx, &log, seq(8)).await), Some(chain(8)));
        let old = logs::Log { tail: seq(3), ..log };
        let refused = store
            .write::<_, StoreError, _>(move |tx| {
                Box::pin(async move { logs::trim(tx, &old, seq(9)).await })
            })
            .await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
        assert_eq!(trim(99).await, Trimmed { entries: 2, bytes: 20 });
        let log = read!(store, tx => logs::get(tx, id).await);
        assert_eq!((log.head, log.tail, log.kept(), log.bytes), (seq(10), seq(11), 0, 0));
        write!(store, tx => logs::append(tx, id, &entries(11..=11)).await);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn retention_reaches_as_far_as_the_old_entries() {
    on_both(async |db| {
        let store = db.open().await;
        let id = log_with(&store, LogName::Room(room("x")), 5).await;
        let empty = log_with(&store, LogName::Room(room("y")), 0).await;
        for (before, max, reached) in
            [(10, 10, 0), (11, 10, 1), (31, 10, 3), (99, 10, 5), (99, 2, 2)]
        {
            let found = read!(store, tx => logs::accepted_before(tx, id, at(before), max).await);
            assert_eq!(found, seq(reached), "{before} {max}");
        }
        assert_eq!(read!(store, tx => logs::accepted_before(tx, empty, at(99), 9).await), seq(0));
        let third = log_with(&store, LogName::Room(room("z")), 1).await;
        let kept = read!(store, tx => logs::kept(tx, None, 10).await);
        assert_eq!(kept.iter().map(|l| l.id).collect::<Vec<_>>(), [id, third]);
        assert_eq!(read!(store, tx => logs::kept(tx, Some(id), 10).await).len(), 1);
        assert_eq!(read!(store, tx => logs::kept(tx, None, 1).await).len(), 1);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_new_life_of_a_hub_takes_back_what_it_lost() {
    on_both(async |db| {
        let store = db.open().await;
        let id = log_with(&store, LogName::Replica(room("x")), 5).await;
        let ana = Reader::Device(device("ana/1"));
        let bo = Reader::Device(device("bo/1"));
        let (reader, gone) = (ana.clone(), bo.clone());
        let new_life = logs::Start { incarnation: Incarnation::from_bytes([8; 16]), ..start(3) };
        write!(store, tx => {
            readers::add(tx, id, &reader, seq(1)).await?;
            readers::advance(tx, id, &reader, seq(5)).await?;
            readers::add(tx, id, &gone, seq(1)).await?;
            readers::end(tx, id, &gone, seq(4)).await?;
            readers::add(tx, id, &gone, seq(5)).await?;
            logs::rewind(tx, id, &new_life).await?;
            logs::append(tx, id, &entries(4..=4)).await
        });
        let log = read!(store, tx => logs::get(tx, id).await);
        assert_eq!(
            (log.head, log.bytes, log.incarnation),
            (seq(4), 40, Incarnation::from_bytes([8; 16]))
        );
        assert_eq!(read!(store, tx => readers::stays(tx, id, &ana).await), [stay(1, 3, None)]);
        let bo = read!(store, tx => readers::stays(tx, id, &bo).await);
        assert_eq!(bo, [stay(1, 0, None)], "neither its end nor its return has happened");
        let beyond = start(9);
        let refused = store
            .write::<_, StoreError, _>(move |tx| {
                Box::pin(async move { logs::rewind(tx, id, &beyond).await })
            })
            .await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_cursor_moves_only_forward_and_never_past_head_or_end() {
    on_both(async |db| {
        let store = db.open().await;
        let id = log_with(&store, LogName::Room(room("x")), 20).await;
        let ana = Reader::Device(device("ana/1"));
        let advance = async |n| {
            let ana = ana.clone();
            write!(store, tx => readers::advance(tx, id, &ana, seq(n)).await)
        };
        let stays = async || read!(store, tx => readers::stays(tx, id, &ana).await);
        assert_eq!(stays().await, []);
        assert!(!advance(1).await, "no reader");
        let (a, b) = (ana.clone(), ana.clone());
        write!(store, tx => readers::add(tx, id, &a, seq(3)).await);
        write!(store, tx => readers::add(tx, id, &b, seq(3)).await);
        assert_eq!(stays().await, [stay(3, 2, None)]);
        for (to, moved, cursor) in [
            (2, false, 2),
            (5, true, 5),
            (4, false, 5),
            (5, false, 5),
            (21, false, 5),
            (20, true, 20),
        ] {
            assert_eq!(advance(to).await, moved, "{to}");
            assert_eq!(stays().await, [stay(3, cursor, None)], "{to}");
        }
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_device_that_was_removed_and_added_again_gets_both_stays() {
    on_both(async |db| {
        let store = db.open().await;
        let id = log_with(&store, LogName::Room(room("x")), 20).await;
        let ana = Reader::Device(device("ana/1"));
        let peer = Reader::Peer(domain("b.example"));
        let (a, p) = (ana.clone(), peer.clone());
        write!(store, tx => {
            readers::add(tx, id, &a, seq(1)).await?;
            readers::advance(tx, id, &a, seq(4)).await?;
            assert!(readers::end(tx, id, &a, seq(8)).await?);
            assert!(!readers::end(tx, id, &a, seq(9)).await?);
            readers::add(tx, id, &a, seq(12)).await?;
            readers::add(tx, id, &p, seq(6)).await
        });
        let stays = async || read!(store, tx => readers::stays(tx, id, &ana).await);
        assert_eq!(stays().await, [stay(1, 4, Some(8)), stay(12, 11, None)]);
        assert_eq!(read!(store, tx => readers::least_cursor(tx, id).await), Some(seq(4)));
        let a = ana.clone();
        write!(store, tx => readers::advance(tx, id, &a, seq(15)).await);
        assert_eq!(stays().await, [stay(1, 8, Some(8)), stay(12, 15, None)]);
        assert_eq!(read!(store, tx => readers::least_cursor(tx, id).await), Some(seq(5)));
        let rule: delivery::reader::Reader = stay(1, 8, Some(8)).into();
        assert!(rule.done());

        let mine = read!(store, tx => readers::of_reader(tx, &ana, 10).await);
        let log = read!(store, tx => logs::get(tx, id).await);
        assert_eq!(mine, [(log.clone(), stay(1, 8, Some(8))), (log, stay(12, 15, None))]);
        assert_eq!(
            read!(store, tx => readers::of_reader(tx, &ana, 1).await).len(),
            2,
            "the bound is of logs"
        );
        let theirs = read!(store, tx => readers::stays(tx, id, &peer).await);
        assert_eq!(theirs, [stay(6, 5, None)]);

        assert_eq!(
            write!(store, tx => readers::forget_over(tx, id).await),
            0,
            "still told of its end"
        );
        write!(store, tx => { let log = get(tx, id).await; logs::trim(tx, &log, seq(8)).await });
        assert_eq!(write!(store, tx => readers::forget_over(tx, id).await), 1);
        assert_eq!(stays().await, [stay(12, 15, None)]);
        let a = ana.clone();
        assert_eq!(write!(store, tx => readers::remove(tx, &a).await), 1);
        let p = peer.clone();
        assert_eq!(write!(store, tx => readers::remove(tx, &p).await), 1);
        assert_eq!(read!(store, tx => readers::least_cursor(tx, id).await), None);
        store.close().await;
    })
    .await;
}

fn peer(name: &str) -> Peer {
    Peer {
        domain: domain(name),
        host: name.to_owned(),
        port: 443,
        node_key: [3; 32],
        reach: federation::Reach::Public,
        state: PeerState::Active,
        added: at(1),
        last_contact: None,
        last_error: None,
    }
}

/// Two rooms in which b.example is behind, and an uplink in which it is not.
async fn behind(store: &Store) -> (LogId, LogId, LogId) {
    let (x, y, z) = (
        log_with(store, LogName::Room(room("x")), 5).await,
        log_with(store, LogName::Room(room("y")), 9).await,
        log_with(store, LogName::Uplink(room("z")), 2).await,
    );
    let reader = Reader::from(domain("b.example"));
    write!(store, tx => {
        peers::save(tx, &peer("b.example")).await?;
        peers::save(tx, &peer("c.example")).await?;
        readers::add(tx, x, &reader, seq(3)).await?;
        readers::add(tx, y, &reader, seq(1)).await?;
        readers::end(tx, y, &reader, seq(6)).await?;
        readers::add(tx, z, &reader, seq(1)).await?;
        readers::advance(tx, z, &reader, seq(2)).await
    });
    (x, y, z)
}

#[tokio::test]
async fn lanes_say_what_waits_for_a_peer_and_since_when() {
    on_both(async |db| {
        let store = db.open().await;
        let b = domain("b.example");
        let (x, y, z) = behind(&store).await;
        assert_eq!(read!(store, tx => lanes::peers_behind(tx).await), std::slice::from_ref(&b));
        let behind = read!(store, tx => lanes::behind(tx, &b, 10).await);
        assert_eq!(
            behind.iter().map(|l| (l.log.id, l.last())).collect::<Vec<_>>(),
            [(x, seq(5)), (y, seq(6))]
        );
        assert_eq!((behind[0].stay, &behind[0].lane), (stay(3, 2, None), &Lane::default()));

        let slow = Lane {
            attempts: 2,
            next_at: at(500),
            parked: None,
            last_error: Some("no route".into()),
            last_ok: Some(at(40)),
        };
        let refusal = Refusal::because(Code::TooLarge, "too large for us").retry_after_ms(5);
        let stuck = Lane { parked: Some(Parked { seq: seq(1), refusal }), ..slow.clone() };
        let (one, two, peer) = (slow.clone(), stuck.clone(), b.clone());
        write!(store, tx => {
            lanes::save(tx, x, &peer, &two).await?;
            lanes::save(tx, y, &peer, &Lane::default()).await?;
            lanes::save(tx, y, &peer, &one).await
        });
        let behind = read!(store, tx => lanes::behind(tx, &b, 10).await);
        assert_eq!(
            behind.iter().map(|l| (l.log.id, &l.lane)).collect::<Vec<_>>(),
            [(y, &slow), (x, &stuck)]
        );
        assert_eq!(read!(store, tx => lanes::find(tx, x, &b).await), stuck);
        assert_eq!(read!(store, tx => lanes::find(tx, z, &b).await), Lane::default());
        assert_eq!(behind[1].lane.row(&behind[1].stay).cursor, seq(2));
        assert_eq!(read!(store, tx => lanes::behind(tx, &b, 1).await).len(), 1);

        let waiting = read!(store, tx => status::waiting(tx).await);
        let expected = status::Waiting {
            peer: b.clone(),
            lanes: 2,
            parked: 1,
            entries: 9,
            oldest_at: Some(at(10)),
        };
        assert_eq!(waiting, [expected]);
        write!(store, tx => { let log = get(tx, y).await; logs::trim(tx, &log, seq(5)).await });
        let waiting = read!(store, tx => status::waiting(tx).await);
        assert_eq!(waiting[0].oldest_at, Some(at(30)));

        let peer = b.clone();
        assert_eq!(write!(store, tx => lanes::unpark(tx, &peer, at(200)).await), 1);
        let behind = read!(store, tx => lanes::behind(tx, &b, 10).await);
        let when: Vec<_> = behind
            .iter()
            .map(|l| (l.log.id, l.lane.next_at, l.lane.attempts, l.lane.parked.is_some()))
            .collect();
        assert_eq!(when, [(x, at(200), 0, false), (y, at(500), 2, false)]);
        store.close().await;
    })
    .await;
}
