//! Submissions and peers.

use delivery::room::RoomHead;
use node::store::logs::{self, LogName};
use node::store::peers::{self, Peer, PeerState};
use node::store::readers::{self, Reader};
use node::store::rooms::{self, Room};
use node::store::submissions::{self, Key, State, Submission};
use node::store::{StoreError, members};
use protocol::api::Accepted;
use protocol::log::Digest;
use protocol::{Cursor, Epoch, Incarnation, SubmitId};

use crate::harness::{
    at, chain, device, domain, entry, foreign, log_with, on_both, read, room, seq, start, user,
    write,
};

fn accepted(n: u64) -> State {
    State::Accepted(place(n))
}

fn place(n: u64) -> Accepted {
    let place = Cursor { incarnation: Incarnation::from_bytes([2; 16]), seq: seq(n) };
    Accepted { place, at: at(n * 10), chain: chain(n) }
}

fn submission(state: State, created: u64) -> Submission {
    Submission { digest: Digest::of_bytes(b"body"), state, created: at(created) }
}

fn key(n: u8) -> Key {
    Key::of_device(device("ana/1"), room("x"), &SubmitId::from_bytes([n; 16]))
}

#[tokio::test]
async fn a_repetition_finds_the_first_answer() {
    on_both(async |db| {
        let store = db.open().await;
        let from_peer = Key::of_peer(domain("b.example"), room("x"), &Digest::of_bytes(b"mls"));
        let peers_key = from_peer.clone();
        assert!(write!(store, tx => submissions::record(tx, &key(1), &submission(accepted(4), 10), 0).await));
        assert!(!write!(store, tx => submissions::record(tx, &key(1), &submission(accepted(5), 10), 0).await));
        assert!(write!(store, tx => submissions::record(tx, &peers_key, &submission(State::Stored, 20), 0).await));
        let find = async |key: &Key| read!(store, tx => submissions::find(tx, key).await);
        assert_eq!(find(&key(1)).await, Some(submission(accepted(4), 10)));
        assert_eq!(find(&from_peer).await, Some(submission(State::Stored, 20)));
        let elsewhere = Key { room: room("y"), ..key(1) };
        assert_eq!((find(&key(2)).await, find(&elsewhere).await), (None, None));

        let peers_key = from_peer.clone();
        assert!(write!(store, tx => submissions::accept(tx, &peers_key, &place(7)).await));
        let peers_key = from_peer.clone();
        assert!(!write!(store, tx => submissions::accept(tx, &peers_key, &place(8)).await));
        assert_eq!(find(&from_peer).await, Some(submission(accepted(7), 20)));
        assert!(write!(store, tx => submissions::delete(tx, &key(1)).await));
        assert!(!write!(store, tx => submissions::delete(tx, &key(1)).await));
        assert_eq!(find(&key(1)).await, None);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_hot_path_sees_and_stores_what_the_single_functions_do() {
    on_both(async |db| {
        let store = db.open().await;
        let log = log_with(&store, LogName::Room(room("x")), 3).await;
        write!(store, tx => {
            let row = Room {
                log,
                room: room("x"),
                hub: domain("a.example"),
                suite: 1,
                epoch: Epoch::new(6),
                created: at(1),
            };
            rooms::create(tx, &row, None).await?;
            members::add(tx, log, &device("ana/1"), seq(1)).await
        });
        let scene = async |key: Key, sender: String| {
            write!(store, tx => submissions::scene(tx, &key, &sender).await)
        };
        let ana = device("ana/1");
        let found = scene(key(1), ana.to_string()).await.unwrap();
        let row = read!(store, tx => logs::get(tx, log).await);
        let head = RoomHead {
            incarnation: row.incarnation,
            head: row.head,
            chain: row.chain,
            last_at: row.last_at,
            epoch: Epoch::new(6),
        };
        assert_eq!((found.log, found.head), (log, head));
        assert_eq!((found.prior, found.inside), (None, true));
        let elsewhere = Key { room: room("y"), ..key(1) };
        assert_eq!(scene(elsewhere, ana.to_string()).await, None);
        for (sender, inside) in [
            (user("ana").to_string(), true),
            (user("ben").to_string(), false),
            (device("ana/2").to_string(), false),
        ] {
            assert_eq!(scene(key(1), sender.clone()).await.unwrap().inside, inside, "{sender}");
        }

        let place = async |n: u64, k: u8| {
            let digest = Digest::of_bytes(b"body");
            store
                .write::<_, StoreError, _>(move |tx| {
                    Box::pin(async move {
                        submissions::place(tx, log, &[entry(n, 30)], &key(k), &digest).await
                    })
                })
                .await
        };
        place(4, 1).await.unwrap();
        let after = read!(store, tx => logs::get(tx, log).await);
        assert_eq!((after.head, after.bytes, after.chain, after.last_at), (seq(4), 60, chain(4), at(40)));
        assert_eq!(read!(store, tx => logs::entry(tx, log, seq(4)).await), Some(entry(4, 30)));
        let prior = read!(store, tx => submissions::find(tx, &key(1)).await);
        let here = Cursor { incarnation: row.incarnation, seq: seq(4) };
        let accepted = Accepted { place: here, at: at(40), chain: chain(4) };
        assert_eq!(prior, Some(submission(State::Accepted(accepted), 40)));
        assert_eq!(scene(key(1), ana.to_string()).await.unwrap().prior, prior);
        for (n, k) in [(4, 2), (6, 2), (5, 1)] {
            let refused = place(n, k).await;
            assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{n} {k} {refused:?}");
            assert_eq!(read!(store, tx => logs::get(tx, log).await), after, "{n} {k}");
        }
        place(5, 2).await.unwrap();
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_entry_that_goes_leaves_its_answer() {
    on_both(async |db| {
        let store = db.open().await;
        let log = log_with(&store, LogName::Room(room("x")), 3).await;
        let digest = Digest::of_bytes(b"body");
        let place = async |n: u64, k: u8| {
            store
                .write::<_, StoreError, _>(move |tx| {
                    Box::pin(async move {
                        let digest = Digest::of_bytes(b"body");
                        submissions::place(tx, log, &[entry(n, 30)], &key(k), &digest).await
                    })
                })
                .await
        };
        for n in 1..=3 {
            place(3 + u64::from(n), n).await.unwrap();
        }
        write!(store, tx => {
            let row = logs::get(tx, log).await?;
            submissions::outlive(tx, log, seq(5), at(41)).await?;
            logs::trim(tx, &row, seq(5)).await
        });
        let remembered = async |k| {
            read!(store, tx => submissions::find(tx, &key(k)).await).map(|found| {
                match found.state {
                    State::Accepted(accepted) => (accepted.place.seq, accepted.chain, found.digest),
                    State::Stored => panic!("{found:?}"),
                }
            })
        };
        assert_eq!(remembered(1).await, None, "handed in before");
        assert_eq!(remembered(2).await, Some((seq(5), chain(5), digest)));
        assert_eq!(remembered(3).await, Some((seq(6), chain(6), digest)));
        assert!(matches!(place(7, 2).await, Err(StoreError::Conflict { .. })));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_a_device_has_waiting_is_counted_over_all_rooms() {
    on_both(async |db| {
        let store = db.open().await;
        let waiting = async || {
            let found = read!(store, tx => submissions::waiting(tx, &device("ana/1")).await);
            (found.count, found.bytes, found.joining)
        };
        assert_eq!(waiting().await, (0, 0, 0));
        let replica = log_with(&store, LogName::Replica(room("x")), 1).await;
        let elsewhere = Key { room: room("y"), ..key(2) };
        write!(store, tx => {
            readers::add(tx, replica, &Reader::Device(device("ana/1")), seq(1)).await?;
            for key in [key(1), elsewhere] {
                submissions::record(tx, &key, &submission(State::Stored, 1), 10).await?;
            }
            submissions::record(tx, &key(3), &submission(accepted(1), 1), 0).await
        });
        assert_eq!(waiting().await, (2, 20, 1), "one of them is for a room that it does not read");
        assert!(write!(store, tx => submissions::accept(tx, &key(1), &place(7)).await));
        assert_eq!(waiting().await, (1, 10, 1), "what was taken waits no more");
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn old_answers_go_but_never_what_still_waits() {
    on_both(async |db| {
        let store = db.open().await;
        write!(store, tx => {
            for n in 1..=5 {
                submissions::record(tx, &key(n), &submission(accepted(1), u64::from(n)), 0).await?;
            }
            submissions::record(tx, &key(9), &submission(State::Stored, 1), 0).await
        });
        assert_eq!(write!(store, tx => submissions::purge(tx, at(4), 2).await), 2);
        let find = async |n| read!(store, tx => submissions::find(tx, &key(n)).await).is_some();
        assert!(!find(1).await && !find(2).await && find(3).await, "oldest first");
        assert_eq!(write!(store, tx => submissions::purge(tx, at(4), 9).await), 1);
        assert!(find(4).await && find(9).await);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_a_restored_hub_may_have_lost_is_forgotten_and_nothing_else() {
    on_both(async |db| {
        let store = db.open().await;
        let other = Key { room: room("y"), ..key(5) };
        let others = other.clone();
        write!(store, tx => {
            // Handed over: the place is the hub's to give, so there is none.
            submissions::record(tx, &key(1), &submission(accepted(0), 10), 0).await?;
            submissions::record(tx, &key(2), &submission(accepted(0), 11), 0).await?;
            submissions::record(tx, &key(3), &submission(State::Stored, 12), 0).await?;
            submissions::record(tx, &key(4), &submission(accepted(7), 12), 0).await?;
            submissions::record(tx, &others, &submission(accepted(0), 12), 0).await
        });
        assert_eq!(write!(store, tx => submissions::forget(tx, &room("x"), at(10)).await), 1);
        let found =
            async |key: Key| read!(store, tx => submissions::find(tx, &key).await).is_some();
        assert!(found(key(1)).await, "from before the new life");
        assert!(!found(key(2)).await);
        assert!(found(key(3)).await && found(key(4)).await && found(other).await);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_peer_keeps_its_history_when_it_is_saved_again() {
    on_both(async |db| {
        let store = db.open().await;
        let peer = Peer {
            domain: domain("b.example"),
            host: "chat.b.example".into(),
            port: 8443,
            node_key: [1; 32],
            reach: federation::Reach::Public,
            state: PeerState::Active,
            added: at(1),
            last_contact: None,
            last_error: None,
        };
        let new = peer.clone();
        write!(store, tx => peers::save(tx, &new).await);
        let find = async || read!(store, tx => peers::find(tx, &domain("b.example")).await);
        assert_eq!(find().await, Some(peer.clone()));
        write!(store, tx => peers::failed(tx, &domain("b.example"), "no route").await);
        assert_eq!(find().await.unwrap().last_error.as_deref(), Some("no route"));
        write!(store, tx => peers::contact(tx, &domain("b.example"), at(77)).await);
        let moved = Peer {
            reach: federation::Reach::Anywhere, host: "new.b.example".into(), added: at(9), ..peer.clone() };
        write!(store, tx => peers::save(tx, &moved).await);
        assert!(write!(store, tx => peers::set_state(tx, &domain("b.example"), PeerState::Blocked).await));
        assert!(!write!(store, tx => peers::set_state(tx, &domain("c.example"), PeerState::Blocked).await));
        let expected = Peer {
            reach: federation::Reach::Anywhere,
            host: "new.b.example".into(),
            state: PeerState::Blocked,
            last_contact: Some(at(77)),
            ..peer.clone()
        };
        assert_eq!(read!(store, tx => peers::list(tx).await), [expected]);
        assert!(write!(store, tx => peers::remove(tx, &domain("b.example")).await));
        assert!(!write!(store, tx => peers::remove(tx, &domain("b.example")).await));
        assert_eq!(find().await, None);

        write!(store, tx => peers::create_invite(tx, &[1; 32], at(1), at(100)).await);
        let offer = async || read!(store, tx => peers::find_invite(tx, &[1; 32]).await).unwrap();
        assert_eq!((offer().await.expires, offer().await.used_by), (at(100), None));
        assert!(read!(store, tx => peers::find_invite(tx, &[2; 32]).await).is_none());
        let take = async |name: &'static str, now| {
            write!(store, tx => peers::take_invite(tx, &[1; 32], &domain(name), at(now)).await)
        };
        assert!(!take("b.example", 100).await, "expired");
        assert!(take("b.example", 99).await && !take("c.example", 99).await && take("b.example", 500).await);
        assert_eq!(offer().await.used_by, Some(domain("b.example")));
        assert_eq!(write!(store, tx => peers::purge_invites(tx, at(101)).await), 1);
        // Who is forgotten does not come back by the line that it used.
        let again = peer.clone();
        write!(store, tx => {
            peers::save(tx, &again).await?;
            peers::create_invite(tx, &[3; 32], at(1), at(100)).await?;
            peers::take_invite(tx, &[3; 32], &again.domain, at(2)).await?;
            peers::remove(tx, &again.domain).await
        });
        assert!(!write!(store, tx => peers::take_invite(tx, &[3; 32], &domain("b.example"), at(2)).await));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn rooms_are_counted_by_hub_and_shared_ones_by_who_is_in_them() {
    on_both(async |db| {
        let store = db.open().await;
        let b = domain("b.example");
        let names = [("x", "a.example"), ("y", "b.example"), ("z", "b.example"), ("v", "c.example")];
        let mut logs_ = Vec::new();
        for (name, hub) in names {
            let uri = protocol::RoomId::new(&domain(hub), name).unwrap();
            let ours = hub == "a.example";
            let name = if ours { LogName::Room(uri.clone()) } else { LogName::Replica(uri.clone()) };
            let (hub, group) = (domain(hub), ours.then_some([1_u8]));
            let log = write!(store, tx => {
                let log = logs::create(tx, &name, &hub, &start(0), at(1)).await?.unwrap();
                let row = Room { log, room: uri, hub, suite: 1, epoch: protocol::Epoch::new(0), created: at(1) };
                rooms::create(tx, &row, group.as_ref().map(<[u8; 1]>::as_slice)).await?;
                Ok(log)
            });
            logs_.push(log);
        }
        for (hub, max, count) in [("b.example", 9, 2), ("b.example", 1, 1), ("c.example", 9, 1), ("a.example", 9, 0)] {
            assert_eq!(read!(store, tx => rooms::of_hub(tx, &domain(hub), max).await), count, "{hub}");
        }
        let shared = async || read!(store, tx => peers::shared_rooms(tx, &b).await);
        assert_eq!(shared().await, 0, "nobody is in them");
        let (x, y) = (logs_[0], logs_[1]);
        write!(store, tx => members::add(tx, x, &foreign("eve/1"), seq(1)).await);
        assert_eq!(shared().await, 1);
        write!(store, tx => members::add(tx, y, &device("ana/1"), seq(1)).await);
        assert_eq!(shared().await, 2);
        store.close().await;
    })
    .await;
}
