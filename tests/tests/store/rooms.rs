//! Rooms, members, proposals.

use node::store::logs::LogName;
use node::store::members::{self, Member};
use node::store::rooms::{self, Proposal, Room};
use protocol::Epoch;

use crate::harness::{at, device, domain, foreign, log_with, on_both, read, room, seq, write};

fn group(n: u8) -> Vec<u8> {
    vec![n; 9]
}

#[tokio::test]
async fn an_epoch_goes_to_exactly_one_commit() {
    on_both(async |db| {
        let store = db.open().await;
        let log = log_with(&store, LogName::Room(room("x")), 0).await;
        let made = Room {
            log,
            room: room("x"),
            hub: domain("a.example"),
            suite: 0x004f,
            epoch: Epoch::new(0),
            created: at(5),
        };
        let (first, again) = (made.clone(), made.clone());
        assert!(write!(store, tx => rooms::create(tx, &first, Some(&group(1))).await));
        assert!(!write!(store, tx => rooms::create(tx, &again, Some(&group(2))).await));
        assert_eq!(read!(store, tx => rooms::find(tx, &room("x")).await), Some(made.clone()));
        assert_eq!(read!(store, tx => rooms::find(tx, &room("y")).await), None);
        assert_eq!(read!(store, tx => rooms::group(tx, log).await), Some(group(1)));

        assert!(write!(store, tx => rooms::next_epoch(tx, log, Epoch::new(0), &group(3)).await));
        assert!(!write!(store, tx => rooms::next_epoch(tx, log, Epoch::new(0), &group(4)).await));
        assert_eq!(read!(store, tx => rooms::group(tx, log).await), Some(group(3)));
        assert!(write!(store, tx => rooms::save_group(tx, log, Epoch::new(1), &group(5)).await));
        assert!(!write!(store, tx => rooms::save_group(tx, log, Epoch::new(0), &group(6)).await));
        assert_eq!(read!(store, tx => rooms::group(tx, log).await), Some(group(5)));
        for (to, epoch) in [(7, 7), (3, 7)] {
            write!(store, tx => rooms::follow_epoch(tx, log, Epoch::new(to)).await);
            let found = read!(store, tx => rooms::find(tx, &room("x")).await).unwrap();
            assert_eq!(found.epoch, Epoch::new(epoch));
        }
        let followed = Room { epoch: Epoch::new(7), ..made };
        assert_eq!(read!(store, tx => rooms::list(tx, None, 10).await), [followed]);
        assert_eq!(read!(store, tx => rooms::list(tx, Some(log), 10).await), []);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn proposals_wait_for_a_commit_and_no_longer() {
    on_both(async |db| {
        let store = db.open().await;
        let log = log_with(&store, LogName::Room(room("x")), 0).await;
        let proposal = |n: u8, epoch| Proposal {
            seq: seq(u64::from(n)),
            epoch: Epoch::new(epoch),
            reference: vec![9 - n; 32],
        };
        let kept = [proposal(1, 4), proposal(2, 4), proposal(3, 5)];
        write!(store, tx => {
            for p in kept.iter().chain(&kept) {
                rooms::add_proposal(tx, log, p).await?;
            }
            Ok(())
        });
        let newest = async || read!(store, tx => rooms::newest_proposal(tx, log).await);
        assert_eq!(newest().await, seq(3));
        write!(store, tx => rooms::clear_proposals(tx, log, Epoch::new(5)).await);
        assert_eq!(newest().await, seq(3), "that of the epoch itself stays");
        write!(store, tx => rooms::clear_proposals(tx, log, Epoch::new(6)).await);
        assert_eq!(newest().await, seq(0));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn members_are_found_by_device_user_and_node() {
    on_both(async |db| {
        let store = db.open().await;
        let log = log_with(&store, LogName::Room(room("x")), 0).await;
        let other = log_with(&store, LogName::Room(room("y")), 0).await;
        let devices = [device("ana/1"), device("ana/2"), device("ben/1"), foreign("eve/1")];
        let added = devices.clone();
        write!(store, tx => {
            for (uri, log) in [(room("x"), log), (room("y"), other)] {
                let room = Room {
                    log,
                    room: uri,
                    hub: domain("a.example"),
                    suite: 1,
                    epoch: Epoch::new(0),
                    created: at(1),
                };
                rooms::create(tx, &room, None).await?;
            }
            for d in &added {
                members::add(tx, log, d, seq(3)).await?;
            }
            members::add(tx, log, &added[0], seq(4)).await?;
            members::add(tx, other, &added[0], seq(1)).await
        });
        let member = |i: usize, since| Member { device: devices[i].clone(), since: seq(since) };
        assert_eq!(
            read!(store, tx => members::find(tx, log, &devices[0]).await),
            Some(member(0, 4))
        );
        assert_eq!(read!(store, tx => members::find(tx, other, &devices[1]).await), None);
        let b = domain("b.example");
        assert_eq!(read!(store, tx => members::domains(tx, log).await), [domain("a.example"), b]);
        for (device, n, there) in [(0, 2, true), (0, 3, false), (1, 1, true), (1, 2, false)] {
            let device = &devices[device];
            assert_eq!(read!(store, tx => members::in_as_many(tx, device, n).await), there);
        }
        let gone = devices[3].clone();
        assert!(write!(store, tx => members::remove(tx, log, &gone).await));
        let gone = devices[3].clone();
        assert!(!write!(store, tx => members::remove(tx, log, &gone).await));
        assert_eq!(read!(store, tx => members::domains(tx, log).await), [domain("a.example")]);
        store.close().await;
    })
    .await;
}
