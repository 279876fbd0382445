//! Two nodes: pairing, a room that spans them, outages, and callers who are not who they say.

use std::time::Duration;

use protocol::api::{InboxItem, LogRef, SubmitReply};
use protocol::{Code, UserId};

use crate::support::{Device, TestNode};

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

    let submit = bo.device.message(&mut joined, "hello from b");
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
    let late = bo.device.message(&mut joined, "late");
    let renew = crypto::group::Change { renew: true, ..Default::default() };
    let now = protocol::Clock::now(&node::clock::SystemClock);
    let bundle = room.commit(&renew, now, &node::clock::SystemEntropy).unwrap();
    ana.device
        .submit(&ana.device.handshake(room.room(), bundle.update_request, bundle.signature))
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
        ..bo.device.message(&mut joined, "other bytes")
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
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
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
