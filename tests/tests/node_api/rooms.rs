//! Rooms on their own hub.

use protocol::api::{Ack, LogRef, Logs, Payload, Submit, SubmitReply};
use protocol::log::Chain;
use protocol::{Code, Cursor, Incarnation, RoomId, Seq};

use crate::support::{Device, TestNode, full, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_a_member_who_was_added_and_nobody_else() {
    let node = TestNode::start("a.example").await;
    let (ana, mut bo, eve) =
        (node.person("ana").await, node.person("bo").await, node.person("eve").await);
    assert!(bo.device.upload(3).await.status.is_success());
    let mut room = ana.device.found().await;
    ana.device.say(&mut room, "before").await.unwrap();
    ana.device.add(&mut room, &bo.user()).await.unwrap();
    let said = ana.device.say(&mut room, "hello").await.unwrap();

    let (mut joined, welcome) = bo.device.join().await;
    assert_eq!(&welcome.room, room.room());
    let heard =
        bo.device.hear(&mut joined, welcome.cursor.incarnation, welcome.cursor.seq.get()).await;
    assert_eq!(heard, ["hello"]);
    let log = LogRef::Room(room.room().clone());
    let early = bo.device.read(log.clone(), said.place.incarnation, 0).await.unwrap();
    assert!(
        early.entries.iter().all(|e| e.seq > welcome.cursor.seq),
        "nothing from before the device joined"
    );
    // The chain can be followed over what is withheld.
    let mut chain = welcome.chain;
    for entry in &early.entries {
        chain = match &entry.body {
            protocol::api::Body::Full(body) => {
                let kind = protocol::log::EntryKind::from_code(entry.kind).unwrap();
                chain.next(entry.seq, &protocol::log::Digest::of_entry(kind, entry.at, body))
            }
            protocol::api::Body::Withheld(digest) => chain.next(entry.seq, digest),
        };
    }
    assert_eq!((early.prev_chain, chain), (Some(welcome.chain), said.chain));

    refused(eve.device.read(log.clone(), said.place.incarnation, 0).await, Code::NotFound);
    let nowhere = LogRef::Room(RoomId::parse("mimi://a.example/r/none").unwrap());
    let (a, b) = (
        eve.device.read(log, said.place.incarnation, 0).await.unwrap_err(),
        eve.device.read(nowhere, said.place.incarnation, 0).await.unwrap_err(),
    );
    assert_eq!(a, b, "a room one is not in looks like one that is not there");
    let foreign = Submit {
        submit_id: protocol::SubmitId::from_bytes([1; 16]),
        ..Device::message(&mut room, "x")
    };
    refused(eve.device.submit(&foreign).await, Code::NotFound);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_does_not_duplicate_the_message() {
    let node = TestNode::start("a.example").await;
    let ana = node.person("ana").await;
    let mut room = ana.device.found().await;
    let submit = Device::message(&mut room, "once");
    let first = ana.device.submit(&submit).await.unwrap();
    assert_eq!(ana.device.submit(&submit).await.unwrap(), first);
    let other = Submit { payload: Device::message(&mut room, "other").payload, ..submit.clone() };
    refused(ana.device.submit(&other).await, Code::Conflict);
    // Also after a restart.
    let folder = node.stop().await;
    let node = TestNode::resume(folder, "a.example", "").await;
    *ana.device.http.lock().await = node.http().await;
    assert_eq!(ana.device.submit(&submit).await.unwrap(), first);
    let entries =
        ana.device.read(LogRef::Room(room.room().clone()), node.info.incarnation, 0).await.unwrap();
    assert_eq!(entries.entries.len(), 1);
    assert_eq!(Payload::Application(full(&entries.entries[0].body).to_vec()), submit.payload);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_epoch_goes_to_one_commit_and_old_messages_are_told_so() {
    let node = TestNode::start("a.example").await;
    let (ana, mut bo) = (node.person("ana").await, node.person("bo").await);
    bo.device.upload(3).await;
    let mut room = ana.device.found().await;
    ana.device.add(&mut room, &bo.user()).await.unwrap();
    let (mut joined, welcome) = bo.device.join().await;
    let renew = crypto::group::Change { renew: true, ..Default::default() };
    let now = || protocol::Clock::now(&node::clock::SystemClock);
    let by_ana = room.commit(&renew, now(), &node::clock::SystemEntropy).unwrap();
    let by_bo = joined.commit(&renew, now(), &node::clock::SystemEntropy).unwrap();
    let late = Device::message(&mut joined, "written before the commit");
    let a = Device::handshake(room.room(), by_ana.update_request, by_ana.signature);
    let b = Device::handshake(room.room(), by_bo.update_request, by_bo.signature);
    let (a, b) = tokio::join!(ana.device.submit(&a), bo.device.submit(&b));
    let winners = [&a, &b].into_iter().filter(|r| r.is_ok()).count();
    assert_eq!(winners, 1, "{a:?} {b:?}");
    let lost = a.err().or(b.err()).unwrap();
    assert_eq!((lost.code, lost.epoch.map(protocol::Epoch::get)), (Code::WrongEpoch, Some(2)));
    let stale = bo.device.submit(&late).await.unwrap_err();
    assert_eq!((stale.code, stale.epoch.map(protocol::Epoch::get)), (Code::StaleEpoch, Some(2)));
    // The same SubmitId may come again with another body: nothing was kept.
    let _ = bo.device.hear(&mut joined, welcome.cursor.incarnation, welcome.cursor.seq.get()).await;
    if joined.has_pending_commit() {
        joined.merge_pending().unwrap();
    }
    let again =
        Submit { submit_id: late.submit_id, ..Device::message(&mut joined, "encrypted again") };
    assert!(matches!(bo.device.submit(&again).await.unwrap(), SubmitReply::Accepted(_)));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_device_gets_its_removal_and_nothing_after_it() {
    let node = TestNode::start("a.example").await;
    let (ana, mut bo) = (node.person("ana").await, node.person("bo").await);
    bo.device.upload(3).await;
    let mut room = ana.device.found().await;
    ana.device.add(&mut room, &bo.user()).await.unwrap();
    let (mut joined, welcome) = bo.device.join().await;
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
    let SubmitReply::Accepted(removal) = ana.device.submit(&submit).await.unwrap() else {
        panic!()
    };
    room.merge_pending().unwrap();
    ana.device.say(&mut room, "about bo").await.unwrap();

    let log = LogRef::Room(room.room().clone());
    let entries = bo.device.read(log.clone(), welcome.cursor.incarnation, 0).await.unwrap();
    assert_eq!(entries.entries.last().unwrap().seq, removal.place.seq);
    refused(bo.device.submit(&Device::message(&mut joined, "still here")).await, Code::NotFound);
    let state: Logs = bo.device.get("/v1/rooms").await.cbor();
    let state = state.logs.into_iter().find(|l| l.log == log).unwrap();
    assert_eq!(state.until, Some(removal.place.seq));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledging_moves_a_cursor_forward_and_only_ones_own() {
    let node = TestNode::start("a.example").await;
    let (ana, eve) = (node.person("ana").await, node.person("eve").await);
    let mut room = ana.device.found().await;
    for n in 0..3 {
        ana.device.say(&mut room, &n.to_string()).await.unwrap();
    }
    let log = LogRef::Room(room.room().clone());
    let ack = |seq, incarnation| Ack {
        log: log.clone(),
        cursor: Cursor { incarnation, seq: Seq::new(seq) },
    };
    let here = node.info.incarnation;
    assert!(ana.device.post("/v1/ack", &ack(2, here)).await.status.is_success());
    assert!(
        ana.device.post("/v1/ack", &ack(1, here)).await.status.is_success(),
        "behind: no effect"
    );
    let other = Incarnation::from_bytes([9; 16]);
    assert_eq!(
        ana.device.post("/v1/ack", &ack(3, other)).await.refusal().code,
        Code::WrongIncarnation
    );
    let ahead = ana.device.post("/v1/ack", &ack(9, here)).await.refusal().code;
    assert!(matches!(ahead, Code::Invalid | Code::Malformed), "{ahead}");
    assert_eq!(eve.device.post("/v1/ack", &ack(3, here)).await.refusal().code, Code::NotFound);
    let logs: Logs = ana.device.get("/v1/rooms").await.cbor();
    let state = logs.logs.iter().find(|l| l.log == log).unwrap();
    assert_eq!((state.cursor.seq.get(), state.head.get()), (2, 3));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating_a_room_again_changes_nothing_and_another_cannot_take_its_name() {
    let node = TestNode::start("a.example").await;
    let (ana, eve) = (node.person("ana").await, node.person("eve").await);
    let founding = crypto::group::Founding {
        room: RoomId::parse("mimi://a.example/r/here").unwrap(),
        suite: crypto::Suite::Classic,
        hub_key: crypto::PublicKey::from_bytes(node.info.hub_key),
    };
    let now = protocol::Clock::now(&node::clock::SystemClock);
    let make = |device: &crate::support::Device| {
        let founded = crypto::Group::create(
            &founding,
            device.identity.clone(),
            now,
            &node::clock::SystemEntropy,
        )
        .unwrap();
        protocol::api::CreateRoom {
            room: founding.room.clone(),
            group_info: founded.group_info,
            tree: founded.tree,
        }
    };
    let ask = make(&ana.device);
    let first: SubmitReply = ana.device.post("/v1/rooms", &ask).await.cbor();
    let again: SubmitReply = ana.device.post("/v1/rooms", &ask).await.cbor();
    assert_eq!(first, again);
    let SubmitReply::Accepted(accepted) = first else { panic!() };
    assert_eq!(accepted.chain, Chain::start(&node.info.incarnation, &founding.room));
    assert_eq!(
        eve.device.post("/v1/rooms", &make(&eve.device)).await.refusal().code,
        Code::NameTaken
    );
    let foreign = protocol::api::CreateRoom {
        room: RoomId::parse("mimi://b.example/r/here").unwrap(),
        ..ask
    };
    assert_eq!(ana.device.post("/v1/rooms", &foreign).await.refusal().code, Code::Invalid);
    node.stop().await;
}
