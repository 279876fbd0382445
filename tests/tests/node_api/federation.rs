//! Two nodes: pairing, a room that spans them, outages, and callers who are not who they say.

use std::time::Duration;

use crypto::Group;
use protocol::api::{InboxItem, LogRef, SubmitReply, Welcome};
use protocol::{Code, UserId};

use crate::support::{Device, Http, Person, TestNode, run};

async fn pair(a: &TestNode, b: &TestNode) {
    let line = a.command(&["peer", "invite"]).await;
    b.command(&["peer", "add", &line]).await;
}

/// Waits until `check` gives something.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    for _ in 0..200 {
        if let Some(found) = check().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not happen");
}

async fn welcomed(device: &Device) {
    until("a Welcome", || async {
        device.inbox().await.iter().any(|i| matches!(i, InboxItem::Welcome(_))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_spans_two_nodes_and_messages_go_both_ways() {
    let (a, b) = (TestNode::start("a.example").await, TestNode::start("b.example").await);
    let (ana, mut bo) = (a.person("ana").await, b.person("bo").await);
    bo.device.upload(3).await;
    let mut room = ana.device.found().await;
    // Without pairing there is no way.
    let refusal = ana.device.add(&mut room, &bo.user()).await.unwrap_err();
    assert_eq!(refusal.code, Code::UnknownPeer);
    pair(&a, &b).await;
    ana.device.add(&mut room, &bo.user()).await.unwrap();
    ana.device.say(&mut room, "hello from a").await.unwrap();

    welcomed(&bo.device).await;
    let (mut joined, welcome) = bo.device.join().await;
    let log = LogRef::Room(room.room().clone());
    let hub = welcome.cursor.incarnation;
    until("the message at b", || async {
        let entries = bo.device.read(log.clone(), hub, 0).await.ok()?;
        entries.entries.iter().any(|e| e.kind == 1).then_some(())
    })
    .await;
    assert_eq!(bo.device.hear(&mut joined, hub, 0).await, ["hello from a"]);

    let submit = Device::message(&mut joined, "hello from b");
    assert_eq!(bo.device.submit(&submit).await.unwrap(), SubmitReply::Stored);
    assert_eq!(
        bo.device.submit(&submit).await.unwrap(),
        SubmitReply::Stored,
        "a repetition gets the same answer"
    );
    let seen = until("the message at a", || async {
        let entries = ana.device.read(log.clone(), hub, 0).await.ok()?;
        entries
            .entries
            .into_iter()
            .rev()
            .find(|e| e.kind == 1 && e.seq > welcome.cursor.seq.next().next())
    })
    .await;
    let opened = room.receive(crate::support::full(&seen.body)).unwrap();
    assert!(
        matches!(opened, crypto::group::Received::Application(m) if m.content == b"hello from b")
    );
    // It comes back to its own node, once.
    let echo = until("the echo at b", || async {
        let entries = bo.device.read(log.clone(), hub, 0).await.ok()?;
        let count = entries.entries.iter().filter(|e| e.kind == 1).count();
        (count == 2).then_some(entries)
    })
    .await;
    assert_eq!(echo.entries.last().unwrap().seq, seen.seq);
    assert_eq!(
        bo.device.submit(&submit).await.unwrap(),
        SubmitReply::Stored,
        "also after the hub took it"
    );
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_down_gets_everything_when_it_is_back() {
    let (a, b) = (TestNode::start("a.example").await, TestNode::start("b.example").await);
    let (ana, mut bo) = (a.person("ana").await, b.person("bo").await);
    bo.device.upload(3).await;
    pair(&a, &b).await;
    let mut room = ana.device.found().await;
    ana.device.add(&mut room, &bo.user()).await.unwrap();
    welcomed(&bo.device).await;
    let (mut joined, welcome) = bo.device.join().await;
    let hub = welcome.cursor.incarnation;
    let port = b.address.port();
    let folder = b.stop().await;
    for n in 0..100 {
        ana.device.say(&mut room, &n.to_string()).await.unwrap();
    }
    let b = TestNode::resume_at(folder, "b.example", port).await;
    *bo.device.http.lock().await = b.http().await;
    let log = LogRef::Room(room.room().clone());
    until("the last message at b", || async {
        let entries = bo.device.read(log.clone(), hub, 100).await.ok()?;
        entries.entries.iter().any(|e| e.seq.get() == 102).then_some(())
    })
    .await;
    let mut heard = bo.device.hear(&mut joined, hub, 0).await;
    heard.extend(bo.device.hear(&mut joined, hub, 65).await);
    assert_eq!(heard, (0..100).map(|n: u32| n.to_string()).collect::<Vec<_>>());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hubs_refusal_reaches_the_device_and_frees_the_submit_id() {
    let (a, b) = (TestNode::start("a.example").await, TestNode::start("b.example").await);
    let (ana, mut bo) = (a.person("ana").await, b.person("bo").await);
    bo.device.upload(3).await;
    pair(&a, &b).await;
    let mut room = ana.device.found().await;
    ana.device.add(&mut room, &bo.user()).await.unwrap();
    welcomed(&bo.device).await;
    let (mut joined, _) = bo.device.join().await;
    let late = Device::message(&mut joined, "late");
    let renew = crypto::group::Change { renew: true, ..Default::default() };
    let now = protocol::Clock::now(&node::clock::SystemClock);
    let bundle = room.commit(&renew, now, &node::clock::SystemEntropy).unwrap();
    ana.device
        .submit(&Device::handshake(room.room(), bundle.update_request, bundle.signature))
        .await
        .unwrap();
    assert_eq!(bo.device.submit(&late).await.unwrap(), SubmitReply::Stored);
    let outcome = until("the outcome", || async {
        bo.device.inbox().await.into_iter().find_map(|i| match i {
            InboxItem::Outcome(outcome) => Some(outcome),
            _ => None,
        })
    })
    .await;
    assert_eq!(outcome.submit_id, late.submit_id);
    assert_eq!(
        (outcome.refusal.code, outcome.refusal.epoch.map(protocol::Epoch::get)),
        (Code::StaleEpoch, Some(2))
    );
    let again = protocol::api::Submit {
        submit_id: late.submit_id,
        ..Device::message(&mut joined, "other bytes")
    };
    assert_eq!(bo.device.submit(&again).await.unwrap(), SubmitReply::Stored, "not a conflict");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_pairs_one_node_and_a_blocked_stranger_gets_nowhere() {
    let (a, b, c) = (
        TestNode::start("a.example").await,
        TestNode::start("b.example").await,
        TestNode::start("c.example").await,
    );
    let line = a.command(&["peer", "invite"]).await;
    b.command(&["peer", "add", &line]).await;
    b.command(&["peer", "add", &line]).await;
    let port = c.address.port().to_string();
    let env =
        [("WAXWING_NODE_PUBLIC__HOST", "127.0.0.1"), ("WAXWING_NODE_PUBLIC__PORT", port.as_str())];
    let refused = crate::support::program(&c.config(), &["peer", "add", &line], &env).await;
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    let listed: serde_json::Value =
        serde_json::from_str(&a.command(&["-o", "json", "peer", "list"]).await).unwrap();
    assert_eq!(listed["peers"].as_array().unwrap().len(), 1);
    assert_eq!(listed["peers"][0]["domain"], "b.example");
    // c is nobody to a: whatever it asks is refused, although its certificate holds together.
    let ana = a.person("ana").await;
    let room = ana.device.found().await;
    let chris = c.person("chris").await;
    let reply = chris.device.claim(&room, &UserId::parse("mimi://a.example/u/ana").unwrap()).await;
    assert_eq!(reply.refusal().code, Code::UnknownPeer);
    for node in [a, b, c] {
        node.stop().await;
    }
}

/// What a peer may not do, whoever it says it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_is_not_who_it_says_is_refused() {
    let (a, b) = (TestNode::start("a.example").await, TestNode::start("b.example").await);
    pair(&a, &b).await;
    let ana = a.person("ana").await;
    let mut room = ana.device.found().await;
    ana.device.say(&mut room, "for nobody else").await.unwrap();
    let segment = protocol::mimi::expand("{x}", room.room().as_str()).unwrap();
    let at = |what: &str| format!("/v1/{what}/{segment}");
    let message = protocol::mimi::ApplicationBytes::parse(
        room.encrypt(b"x", &node::clock::SystemEntropy).unwrap(),
    )
    .unwrap();
    let sent_by = |user: &str| {
        let sender = UserId::parse(user).unwrap();
        protocol::mimi::SubmitMessageRequest { message: message.clone(), sender }.encode()
    };
    let mut by_b = Http::peer(&b, &a).await;
    for from in
        ["mimi@c.example", "mimi@a.example", "b.example", "", "mimi@b.example, mimi@c.example"]
    {
        let reply =
            by_b.ask(&at("submitMessage"), from, &[], sent_by("mimi://b.example/u/bo")).await;
        assert_eq!(reply.refusal().code, Code::DomainMismatch, "{from:?}");
    }
    let b_says = "mimi@b.example";
    let reply =
        by_b.ask(&at("submitMessage"), b_says, &[], sent_by("mimi://a.example/u/ana")).await;
    assert_eq!(reply.refusal().code, Code::DomainMismatch, "for somebody else's people");
    let reply = by_b.ask(&at("submitMessage"), b_says, &[], sent_by("mimi://b.example/u/bo")).await;
    let answer = protocol::mimi::SubmitMessageResponse::decode(&reply.body).unwrap();
    assert_eq!(
        answer.outcome,
        protocol::mimi::SubmitOutcome::NotAllowed,
        "nobody of b is in the room"
    );
    // A room of another hub cannot be told about by b.
    let elsewhere = protocol::mimi::expand("{x}", "mimi://c.example/r/x").unwrap();
    let reply = by_b.ask(&format!("/v1/notify/{elsewhere}"), b_says, &[], vec![1]).await;
    assert_eq!(reply.refusal().code, Code::DomainMismatch);
    let reply = by_b.ask(&at("notify"), b_says, &[], vec![1]).await;
    assert_eq!(reply.refusal().code, Code::DomainMismatch, "not even about our own");
    // What is not there and what is not b's look the same.
    let none = protocol::mimi::expand("{x}", "mimi://a.example/r/none").unwrap();
    let ask = protocol::mimi::BackfillRequest { after: protocol::Seq::new(0), max: 9 }.encode();
    let real = by_b.ask(&at("x/backfill"), b_says, &[], ask.clone()).await;
    let fake = by_b.ask(&format!("/v1/x/backfill/{none}"), b_says, &[], ask).await;
    assert_eq!((real.status, &real.body), (fake.status, &fake.body));
    assert_eq!(real.refusal().code, Code::NotFound);
    for body in [vec![], vec![0xff; 40]] {
        for what in ["keyMaterial", "update", "submitMessage", "groupInfo", "x/backfill"] {
            let reply = by_b.ask(&at(what), b_says, &[], body.clone()).await;
            assert_eq!(reply.refusal().code, Code::Malformed, "{what}");
        }
    }
    let entries =
        ana.device.read(LogRef::Room(room.room().clone()), a.info.incarnation, 0).await.unwrap();
    assert_eq!(entries.entries.len(), 1, "nothing was stored");
    for node in [a, b] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_imposters_get_nowhere_with_good_certificates() {
    let (a, b, c) = (
        TestNode::start("a.example").await,
        TestNode::start("b.example").await,
        TestNode::start("c.example").await,
    );
    pair(&a, &b).await;
    let segment = protocol::mimi::expand("{x}", "mimi://a.example/r/x").unwrap();
    let paths = ["keyMaterial", "update", "submitMessage", "notify", "groupInfo", "x/backfill"];
    let mut by_c = Http::peer(&c, &a).await;
    // The right name under another key.
    let imposter = TestNode::start("b.example").await;
    let mut by_imposter = Http::peer(&imposter, &a).await;
    for path in paths.map(|p| format!("/v1/{p}/{segment}")) {
        let reply = by_c.ask(&path, "mimi@c.example", &[], vec![1]).await;
        assert_eq!(reply.refusal().code, Code::UnknownPeer, "{path}");
        let reply = by_imposter.ask(&path, "mimi@b.example", &[], vec![1]).await;
        assert_eq!(reply.refusal().code, Code::PeerCertificate, "{path}");
    }
    for node in [a, b, c, imposter] {
        node.stop().await;
    }
}

/// A room of ana at a, with bo at b in it, and where bo begins to read.
async fn spanning(a: &TestNode, b: &TestNode) -> (Person, Person, Group, Group, Welcome) {
    let (ana, mut bo) = (a.person("ana").await, b.person("bo").await);
    bo.device.upload(5).await;
    pair(a, b).await;
    let mut room = ana.device.found().await;
    ana.device.add(&mut room, &bo.user()).await.unwrap();
    welcomed(&bo.device).await;
    let (joined, welcome) = bo.device.join().await;
    (ana, bo, room, joined, welcome)
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_restored_from_a_backup_fetches_what_it_misses() {
    let (a, b) = (TestNode::in_files("a.example").await, TestNode::in_files("b.example").await);
    let (ana, bo, mut room, mut joined, welcome) = spanning(&a, &b).await;
    let (hub, port, log) =
        (welcome.cursor.incarnation, b.address.port(), LogRef::Room(room.room().clone()));
    let folder = b.stop().await;
    let backup = tempfile::tempdir().unwrap();
    copy(&folder.path().join("data"), backup.path());
    let b = TestNode::resume_at(folder, "b.example", port).await;
    *bo.device.http.lock().await = b.http().await;
    for n in 0..10 {
        ana.device.say(&mut room, &n.to_string()).await.unwrap();
    }
    let all = || async {
        let entries = bo.device.read(log.clone(), hub, 0).await.ok()?;
        (entries.entries.len() == 11).then_some(entries)
    };
    let before = until("ten messages at b", all).await;
    let folder = b.stop().await;
    // A start sweeps; what everybody has acknowledged is kept for such a case.
    let seq = before.entries.last().unwrap().seq;
    let cursor = protocol::Cursor { incarnation: hub, seq };
    let ack = protocol::api::Ack { log: log.clone(), cursor };
    assert!(ana.device.post("/v1/ack", &ack).await.status.is_success());
    let at_a = a.address.port();
    let a = TestNode::resume_at(a.stop().await, "a.example", at_a).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    copy(backup.path(), &folder.path().join("data"));
    let b = TestNode::resume_at(folder, "b.example", port).await;
    *bo.device.http.lock().await = b.http().await;
    let after = until("the same after the restore, without anything new being sent", all).await;
    assert_eq!(before, after);
    assert_eq!(bo.device.hear(&mut joined, hub, 0).await.len(), 10);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_restored_from_before_its_people_joined_is_sent_the_join_again() {
    let (a, b) = (TestNode::in_files("a.example").await, TestNode::in_files("b.example").await);
    let (ana, mut bo) = (a.person("ana").await, b.person("bo").await);
    bo.device.upload(5).await;
    pair(&a, &b).await;
    let port = b.address.port();
    let folder = b.stop().await;
    let backup = tempfile::tempdir().unwrap();
    copy(&folder.path().join("data"), backup.path());
    let b = TestNode::resume_at(folder, "b.example", port).await;
    *bo.device.http.lock().await = b.http().await;
    let mut room = ana.device.found().await;
    ana.device.add(&mut room, &bo.user()).await.unwrap();
    welcomed(&bo.device).await;
    let folder = b.stop().await;
    copy(backup.path(), &folder.path().join("data"));
    let b = TestNode::resume_at(folder, "b.example", port).await;
    *bo.device.http.lock().await = b.http().await;
    assert!(bo.device.inbox().await.is_empty(), "nothing is known of the room");
    ana.device.say(&mut room, "anybody there?").await.unwrap();
    welcomed(&bo.device).await;
    let (mut joined, welcome) = bo.device.join().await;
    let log = LogRef::Room(room.room().clone());
    until("the message", || async {
        let read = bo.device.read(log.clone(), welcome.cursor.incarnation, 0).await.ok()?;
        read.entries.iter().any(|e| e.kind == 1).then_some(())
    })
    .await;
    let heard = bo.device.hear(&mut joined, welcome.cursor.incarnation, 0).await;
    assert_eq!(heard, ["anybody there?"]);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_restored_from_a_backup_goes_on_in_a_new_life() {
    let (a, b) = (TestNode::in_files("a.example").await, TestNode::in_files("b.example").await);
    let (ana, bo, mut room, _, welcome) = spanning(&a, &b).await;
    let (port, log) = (a.address.port(), LogRef::Room(room.room().clone()));
    ana.device.say(&mut room, "kept").await.unwrap();
    let old = welcome.cursor.incarnation;
    let has = |incarnation, seq: u64| {
        let (bo, log) = (&bo, log.clone());
        move || {
            let log = log.clone();
            async move {
                let entries = bo.device.read(log, incarnation, 0).await.ok()?;
                entries.entries.iter().any(|e| e.seq.get() == seq).then_some(entries)
            }
        }
    };
    until("the kept one at b", has(old, 3)).await;
    let folder = a.stop().await;
    let backup = tempfile::tempdir().unwrap();
    copy(&folder.path().join("data"), backup.path());
    let a = TestNode::resume_at(folder, "a.example", port).await;
    *ana.device.http.lock().await = a.http().await;
    ana.device.say(&mut room, "lost with the disk").await.unwrap();
    until("the lost one at b", has(old, 4)).await;
    let folder = a.stop().await;
    copy(backup.path(), &folder.path().join("data"));
    // The copy brings the file back too, so nothing but the operator can know.
    let said = run(&folder.path().join("node.toml"), &["-o", "json", "restored"], &[]).await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["old"], old.to_string());
    let fresh: protocol::Incarnation = said["new"].as_str().unwrap().parse().unwrap();
    let a = TestNode::resume_at(folder, "a.example", port).await;
    *ana.device.http.lock().await = a.http().await;
    assert_eq!(a.info.incarnation, fresh);
    let again = ana.device.say(&mut room, "said again").await.unwrap();
    assert_eq!(
        (again.place.incarnation, again.place.seq.get()),
        (fresh, 4),
        "the number of the lost one, in another life"
    );
    let entries = until("the new life at b", has(fresh, 4)).await;
    assert_eq!(entries.incarnation, fresh);
    let old_cursor = bo.device.read(log, old, 0).await.unwrap_err();
    assert_eq!(
        old_cursor.code,
        Code::WrongIncarnation,
        "an old number is never taken for a new one"
    );
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_while_a_peer_was_away_shows_as_a_gap() {
    let (a, b) = (TestNode::start("a.example").await, TestNode::start("b.example").await);
    let (ana, bo, mut room, _, _) = spanning(&a, &b).await;
    let (at_a, at_b, log) = (a.address.port(), b.address.port(), LogRef::Room(room.room().clone()));
    let b = b.stop().await;
    for n in 0..5 {
        ana.device.say(&mut room, &n.to_string()).await.unwrap();
    }
    let a = a.stop().await;
    let month = Duration::from_hours(31 * 24);
    let a = TestNode::resume_later(a, "a.example", at_a, month).await;
    *ana.device.http.lock().await = a.http().await;
    until("the sweep", || async {
        let logs: protocol::api::Logs = ana.device.get("/v1/rooms").await.cbor();
        let read = ana.device.read(log.clone(), a.info.incarnation, 0).await.ok()?;
        (read.gap.is_some() && logs.logs.len() == 2).then_some(())
    })
    .await;
    ana.device.say(&mut room, "a month later").await.unwrap();
    let b = TestNode::resume_later(b, "b.example", at_b, month).await;
    *bo.device.http.lock().await = b.http().await;
    let entries = until("the news at b", || async {
        let entries = bo.device.read(log.clone(), a.info.incarnation, 2).await.ok()?;
        entries.entries.iter().any(|e| e.seq.get() == 8).then_some(entries)
    })
    .await;
    let gap = entries.gap.expect("never skipped silently");
    assert_eq!((gap.first.get(), gap.last.get()), (3, 7));
    assert_eq!(gap.reason, protocol::api::GapReason::Expired);
    let said = ana.device.say(&mut room, "and on").await.unwrap();
    let last = until("more at b", || async {
        let entries = bo.device.read(log.clone(), a.info.incarnation, 8).await.ok()?;
        entries.entries.into_iter().next_back()
    })
    .await;
    assert_eq!(last.seq, said.place.seq);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_who_was_removed_and_added_again_gets_what_each_stay_is_owed() {
    let (a, b) = (TestNode::start("a.example").await, TestNode::start("b.example").await);
    let (ana, bo, mut room, mut joined, welcome) = spanning(&a, &b).await;
    let hub = welcome.cursor.incarnation;
    ana.device.say(&mut room, "first stay").await.unwrap();
    let index = room.participants().unwrap().index(&bo.user()).unwrap();
    let change = crypto::group::Change {
        remove: vec![bo.device.id().clone()],
        participants: protocol::room::ParticipantsUpdate {
            removed: vec![index],
            ..Default::default()
        },
        ..Default::default()
    };
    let now = protocol::Clock::now(&node::clock::SystemClock);
    let bundle = room.commit(&change, now, &node::clock::SystemEntropy).unwrap();
    let submit = Device::handshake(room.room(), bundle.update_request, bundle.signature);
    ana.device.submit(&submit).await.unwrap();
    room.merge_pending().unwrap();
    ana.device.say(&mut room, "between").await.unwrap();
    ana.device.add(&mut room, &bo.user()).await.unwrap();
    ana.device.say(&mut room, "second stay").await.unwrap();
    until("the second Welcome", || async {
        let welcomes = bo
            .device
            .inbox()
            .await
            .into_iter()
            .filter(|i| matches!(i, InboxItem::Welcome(_)))
            .count();
        (welcomes == 2).then_some(())
    })
    .await;
    // The first stay first, up to the removal.
    assert_eq!(bo.device.hear(&mut joined, hub, 0).await, ["first stay"]);
    let log = LogRef::Room(room.room().clone());
    let first = bo.device.read(log.clone(), hub, 0).await.unwrap();
    let removal = first.entries.last().unwrap().seq;
    let cursor = protocol::Cursor { incarnation: hub, seq: removal };
    let ack = protocol::api::Ack { log, cursor };
    assert!(bo.device.post("/v1/ack", &ack).await.status.is_success());
    let (mut again, second) = bo.device.join().await;
    let heard = until("the second stay", || async {
        let read = bo.device.read(ack.log.clone(), hub, 0).await.ok()?;
        read.entries.iter().any(|e| e.kind == 1).then_some(())
    });
    heard.await;
    assert_eq!(
        bo.device.hear(&mut again, hub, second.cursor.seq.get()).await,
        ["second stay"],
        "nothing from in between"
    );
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_further_device_joins_by_itself_through_its_own_node() {
    let (a, b) = (TestNode::start("a.example").await, TestNode::start("b.example").await);
    let (ana, bo, mut room, _, _) = spanning(&a, &b).await;
    let phone = b.further(&bo).await;
    let entropy = &node::clock::SystemEntropy;
    let (join, request) = crypto::group::ExternalJoin::request(
        room.room(),
        room.suite(),
        phone.identity.clone(),
        entropy,
    )
    .unwrap();
    let ask = protocol::api::FetchGroupInfo { room: room.room().clone(), request };
    let reply = phone.post("/v1/groupinfo", &ask).await;
    assert!(reply.status.is_success(), "{reply:?}");
    let hub_key = crypto::PublicKey::from_bytes(a.info.hub_key);
    let (mut joined, bundle) = join.finish(&reply.body, &hub_key, entropy).unwrap();
    let submit = Device::handshake(room.room(), bundle.update_request, bundle.signature);
    assert_eq!(phone.submit(&submit).await.unwrap(), SubmitReply::Stored);
    let log = LogRef::Room(room.room().clone());
    until("the echo of its own commit", || async {
        phone
            .read(log.clone(), a.info.incarnation, 0)
            .await
            .ok()?
            .entries
            .first()
            .map(|e| e.kind == 3)
    })
    .await;
    ana.device.hear(&mut room, a.info.incarnation, 2).await;
    ana.device.say(&mut room, "to both").await.unwrap();
    let heard = until("a message at the new device", || async {
        let entries = phone.read(log.clone(), a.info.incarnation, 0).await.ok()?;
        entries.entries.into_iter().find(|e| e.kind == 1)
    })
    .await;
    let opened = joined.receive(crate::support::full(&heard.body)).unwrap();
    assert!(matches!(opened, crypto::group::Received::Application(m) if m.content == b"to both"));
    // Somebody of b who is not in the room gets nothing, and learns nothing.
    let eve = b.person("eve").await;
    let mut answers = Vec::new();
    for name in [room.room().as_str(), "mimi://a.example/r/none"] {
        let name = protocol::RoomId::parse(name).unwrap();
        let (_, request) = crypto::group::ExternalJoin::request(
            &name,
            room.suite(),
            eve.device.identity.clone(),
            entropy,
        )
        .unwrap();
        let reply = eve
            .device
            .post("/v1/groupinfo", &protocol::api::FetchGroupInfo { room: name, request })
            .await;
        let answer = protocol::mimi::GroupInfoResponse::decode(&reply.body).unwrap().answer;
        answers.push(answer);
    }
    assert_eq!(
        answers,
        [
            protocol::mimi::GroupInfoAnswer::NotAuthorized,
            protocol::mimi::GroupInfoAnswer::NotAuthorized
        ]
    );
    a.stop().await;
    b.stop().await;
}
