//! Accounts, invitations, devices, tokens, KeyPackages, linking offers.

use node::store::accounts::{self, Account};
use node::store::devices::{self, Device};
use node::store::keypackages::{self, KeyPackage, Use};
use node::store::{Store, links, status};

use crate::harness::{at, device, on_both, read, user, write};

fn account(name: &str) -> Account {
    Account {
        user: user(name),
        identity_key: [4; 32],
        password_hash: "$argon2id$secret".into(),
        created: at(1),
        suspended: None,
    }
}

fn phone(path: &str, created: u64) -> Device {
    Device {
        device: device(path),
        name: "phone".into(),
        certificate: vec![1, 2, 3],
        created: at(created),
        seen: None,
        revoked: None,
    }
}

async fn with_ana(store: &Store) {
    write!(store, tx => {
        accounts::create(tx, &account("ana")).await?;
        devices::create(tx, &phone("ana/1", 5)).await?;
        devices::create(tx, &phone("ana/2", 4)).await
    });
}

#[tokio::test]
async fn a_name_is_taken_once() {
    on_both(async |db| {
        let store = db.open().await;
        assert!(write!(store, tx => accounts::create(tx, &account("ana")).await));
        assert!(!write!(store, tx => accounts::create(tx, &account("ana")).await));
        assert!(write!(store, tx => accounts::create(tx, &account("ben")).await));
        assert_eq!(
            read!(store, tx => accounts::find(tx, &user("ana")).await),
            Some(account("ana"))
        );
        assert_eq!(
            write!(store, tx => accounts::lock(tx, &user("ana")).await),
            Some(account("ana"))
        );
        assert_eq!(read!(store, tx => accounts::find(tx, &user("eve")).await), None);
        assert_eq!(
            read!(store, tx => accounts::list(tx, None, 10).await),
            [account("ana"), account("ben")]
        );
        assert_eq!(
            read!(store, tx => accounts::list(tx, Some(&user("ana")), 10).await),
            [account("ben")]
        );
        assert_eq!(read!(store, tx => accounts::list(tx, None, 1).await), [account("ana")]);
        assert!(write!(store, tx => accounts::set_password(tx, &user("ana"), "new").await));
        assert!(!write!(store, tx => accounts::set_password(tx, &user("eve"), "new").await));
        assert!(write!(store, tx => accounts::suspend(tx, &user("ana"), Some(at(9))).await));
        let changed =
            Account { password_hash: "new".into(), suspended: Some(at(9)), ..account("ana") };
        assert_eq!(
            read!(store, tx => accounts::find(tx, &user("ana")).await),
            Some(changed.clone())
        );
        assert!(!format!("{changed:?}").contains("new"), "the hash stays out of the log");
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_invitation_is_good_once_and_not_for_ever() {
    on_both(async |db| {
        let store = db.open().await;
        write!(store, tx => {
            accounts::create_invite(tx, &[1; 32], at(1), at(100)).await?;
            accounts::create_invite(tx, &[2; 32], at(1), at(50)).await
        });
        let take = async |hash: u8, name: &'static str, now| {
            write!(store, tx => accounts::take_invite(tx, &[hash; 32], &user(name), at(now)).await)
        };
        assert!(!take(9, "ana", 1).await, "unknown");
        assert!(!take(2, "ana", 50).await, "expired");
        assert!(take(1, "ana", 99).await);
        assert!(!take(1, "ben", 99).await, "used");
        assert!(take(1, "ana", 200).await, "a lost reply is repeated");
        assert_eq!(write!(store, tx => accounts::purge_invites(tx, at(60)).await), 1);
        assert_eq!(write!(store, tx => accounts::purge_invites(tx, at(101)).await), 1);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_revoked_device_has_nothing_left() {
    on_both(async |db| {
        let store = db.open().await;
        with_ana(&store).await;
        assert!(!write!(store, tx => devices::create(tx, &phone("ana/1", 9)).await));
        assert_eq!(read!(store, tx => devices::find(tx, &device("ana/1")).await), Some(phone("ana/1", 5)));
        assert_eq!(read!(store, tx => devices::find(tx, &device("ana/9")).await), None);
        let list = read!(store, tx => devices::of_user(tx, &user("ana"), 10).await);
        assert_eq!(list, [phone("ana/2", 4), phone("ana/1", 5)], "oldest first");
        assert_eq!(read!(store, tx => devices::of_user(tx, &user("ana"), 1).await).len(), 1);

        let touch = async |now, unless| {
            write!(store, tx => devices::touch(tx, &device("ana/1"), at(now), at(unless)).await)
        };
        assert!(touch(100, 40).await && !touch(130, 70).await && touch(170, 110).await);
        let seen = read!(store, tx => devices::find(tx, &device("ana/1")).await).unwrap().seen;
        assert_eq!(seen, Some(at(170)));

        write!(store, tx => {
            devices::add_token(tx, &[1; 32], &device("ana/1"), at(1)).await?;
            devices::add_token(tx, &[2; 32], &device("ana/1"), at(1)).await?;
            devices::add_token(tx, &[3; 32], &device("ana/2"), at(1)).await?;
            keypackages::add(tx, &package(1, "ana/1", 1, 900)).await?;
            links::offer(tx, &[5; 32], &device("ana/1"), b"sealed", at(900)).await
        });
        let by_token = async |n: u8| read!(store, tx => devices::by_token(tx, &[n; 32]).await);
        assert_eq!(by_token(1).await, Some(device("ana/1")));
        assert_eq!(by_token(9).await, None);
        assert!(write!(store, tx => devices::revoke(tx, &device("ana/1"), at(200)).await));
        assert!(!write!(store, tx => devices::revoke(tx, &device("ana/1"), at(300)).await));
        assert_eq!((by_token(1).await, by_token(2).await), (None, None));
        assert_eq!(by_token(3).await, Some(device("ana/2")));
        assert_eq!(read!(store, tx => devices::count(tx, &user("ana")).await), 1);
        assert_eq!(read!(store, tx => keypackages::device_of(tx, &[1; 32]).await), None);
        assert_eq!(write!(store, tx => links::take(tx, &[5; 32], at(1)).await), None);
        let revoked = read!(store, tx => devices::find(tx, &device("ana/1")).await).unwrap().revoked;
        assert_eq!(revoked, Some(at(200)));

        write!(store, tx => accounts::suspend(tx, &user("ana"), Some(at(9))).await);
        assert_eq!(by_token(3).await, None, "suspended");
        write!(store, tx => accounts::suspend(tx, &user("ana"), None).await);
        assert_eq!(by_token(3).await, Some(device("ana/2")));
        assert_eq!(write!(store, tx => devices::delete_tokens(tx, &device("ana/2")).await), 1);
        assert_eq!(by_token(3).await, None);
        let totals = read!(store, tx => status::totals(tx).await);
        assert_eq!((totals.accounts, totals.devices), (1, 1));
        store.close().await;
    })
    .await;
}

fn package(n: u8, path: &str, suite: u16, not_after: u64) -> KeyPackage {
    KeyPackage {
        reference: vec![n; 32],
        device: device(path),
        suite,
        body: vec![n; 20],
        not_after: at(not_after),
        usage: Use::Once,
    }
}

fn last_resort(n: u8, path: &str, suite: u16, not_after: u64) -> KeyPackage {
    KeyPackage { usage: Use::LastResort, ..package(n, path, suite, not_after) }
}

#[tokio::test]
async fn a_keypackage_is_handed_out_once_and_the_last_resort_again() {
    on_both(async |db| {
        let store = db.open().await;
        with_ana(&store).await;
        let claim = async |suite| {
            let got = write!(store, tx => keypackages::claim(tx, &user("ana"), suite, at(500), at(10)).await);
            got.into_iter().map(|p| p.body[0]).collect::<Vec<_>>()
        };
        assert!(claim(1).await.is_empty());
        write!(store, tx => {
            for p in [
                package(1, "ana/1", 1, 900),
                package(2, "ana/1", 1, 800),
                package(3, "ana/1", 1, 499),
                package(4, "ana/1", 2, 900),
                last_resort(5, "ana/1", 1, 700),
                package(6, "ana/2", 1, 900),
            ] {
                assert!(keypackages::add(tx, &p).await?);
                assert!(!keypackages::add(tx, &p).await?, "the same upload counts once");
            }
            Ok(())
        });
        let left = read!(store, tx => keypackages::count(tx, &device("ana/1"), at(500)).await);
        assert_eq!(left, [(1, 2), (2, 1)]);
        assert_eq!(claim(1).await, [2, 6], "one per device, the one that ends first, never too short a life");
        assert_eq!(claim(1).await, [1]);
        assert_eq!(claim(1).await, [5], "only the last resort is left");
        assert_eq!(claim(1).await, [5]);
        assert!(!write!(store, tx => keypackages::add(tx, &package(2, "ana/1", 1, 800)).await), "nor after it was handed out");
        assert_eq!(read!(store, tx => keypackages::device_of(tx, &[6; 32]).await), Some(device("ana/2")));

        write!(store, tx => keypackages::add(tx, &last_resort(7, "ana/1", 1, 950)).await);
        assert_eq!(claim(1).await, [7], "it takes the place of the former");
        assert_eq!(read!(store, tx => keypackages::device_of(tx, &[5; 32]).await), None);
        write!(store, tx => accounts::suspend(tx, &user("ana"), Some(at(9))).await);
        assert!(claim(2).await.is_empty(), "suspended");
        write!(store, tx => accounts::suspend(tx, &user("ana"), None).await);
        assert_eq!(claim(2).await, [4]);

        assert_eq!(write!(store, tx => keypackages::purge(tx, at(900), 1).await), 1);
        assert_eq!(write!(store, tx => keypackages::purge(tx, at(900), 10).await), 1);
        assert_eq!(write!(store, tx => keypackages::purge(tx, at(901), 10).await), 3);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn two_handles_never_hand_out_the_same_keypackage() {
    on_both(async |db| {
        let (one, two) = (db.open().await, db.open().await);
        with_ana(&one).await;
        write!(one, tx => {
            for n in 1..=20 {
                keypackages::add(tx, &package(n, "ana/1", 1, 900)).await?;
            }
            Ok(())
        });
        let claim = async |store: &Store| {
            let mut got = Vec::new();
            for _ in 0..10 {
                let claimed = write!(store, tx => keypackages::claim(tx, &user("ana"), 1, at(0), at(1)).await);
                got.extend(claimed.into_iter().map(|p| p.reference));
            }
            got
        };
        let (mut all, more) = tokio::join!(claim(&one), claim(&two));
        all.extend(more);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 20);
        one.close().await;
        two.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_linking_offer_is_there_until_it_expires() {
    on_both(async |db| {
        let store = db.open().await;
        with_ana(&store).await;
        let offer = async |id: u8, expires| {
            write!(store, tx => links::offer(tx, &[id; 32], &device("ana/1"), &[id], at(expires)).await);
        };
        let take = async |id: u8, now| write!(store, tx => links::take(tx, &[id; 32], at(now)).await);
        offer(1, 100).await;
        offer(1, 100).await;
        offer(2, 100).await;
        assert_eq!(take(1, 5).await, None, "replaced");
        assert_eq!(take(2, 100).await, None, "expired");
        assert_eq!(take(2, 99).await, Some((device("ana/1"), vec![2])));
        assert_eq!(take(2, 99).await, Some((device("ana/1"), vec![2])), "the answer got lost");
        offer(3, 100).await;
        assert_eq!(write!(store, tx => links::purge(tx, at(101)).await), 1);
        store.close().await;
    })
    .await;
}
