//! The process dies between two steps, and nothing is lost, doubled or renumbered.

use protocol::RoomId;
use protocol::api::{LogRef, Payload, SubmitReply};

use super::harness::{Device, Hub, settle};
use crate::store::Action;
use crate::{Event, Stage, command, sender};

/// Two people in one room, at rest.
async fn pair(seed: u64) -> (Hub, Device, Device, RoomId) {
    let mut hub = Hub::new(seed);
    let (mut ana, mut bo) = (Device::new(&mut hub, "ana").await, Device::new(&mut hub, "bo").await);
    let room = ana.create().await;
    ana.want(&room, Action::Add(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    (hub, ana, bo, room)
}

/// Everybody sees exactly these, in this order, and nothing odd.
async fn all_see(devices: &mut [&mut Device], room: &RoomId, texts: &[&str]) {
    for device in devices {
        assert_eq!(device.texts(room).await, texts, "{}", device.id);
        assert_eq!(device.alarms(), Vec::<String>::new());
        let timeline = device.timeline(room).await;
        assert!(timeline.iter().all(|m| m.flags.is_empty() && !m.late && m.seq.is_some()));
    }
}

#[tokio::test]
async fn what_was_written_down_survives_and_what_was_not_never_was() {
    let (mut hub, mut ana, mut bo, room) = pair(20).await;
    let mut work = ana.core().begin().await.unwrap();
    sender::write(&mut work, &room, "never finished").await.unwrap();
    drop(work);
    ana.crash(&hub).await;
    ana.send(&room, "one").await;
    ana.crash(&hub).await;
    assert_eq!(ana.texts(&room).await, ["one"], "the echo is there");
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    all_see(&mut [&mut ana, &mut bo], &room, &["one"]).await;
    assert_eq!(bo.timeline(&room).await[0].counter, 1, "no number was used up");
}

#[tokio::test]
async fn a_retry_after_a_crash_sends_the_same_bytes() {
    let (mut hub, mut ana, mut bo, room) = pair(21).await;
    ana.send(&room, "one").await;
    let first = ana.next_out().await.unwrap();
    ana.crash(&hub).await;
    let second = ana.next_out().await.unwrap();
    assert_eq!(first, second);
    // It arrives, and the answer gets lost with the process.
    assert!(matches!(hub.submit(&ana.id, &second), SubmitReply::Accepted(_)));
    let head = hub.head(&room);
    ana.crash(&hub).await;
    let third = ana.next_out().await.unwrap();
    assert_eq!(third, second);
    let reply = hub.submit(&ana.id, &third);
    assert_eq!(hub.head(&room), head, "the hub has it once");
    ana.replied(third.submit_id, reply).await;
    ana.send(&room, "two").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    all_see(&mut [&mut ana, &mut bo], &room, &["one", "two"]).await;
}

#[tokio::test]
async fn a_lost_acknowledgement_shows_nothing_twice() {
    let (mut hub, mut ana, mut bo, room) = pair(22).await;
    for text in ["one", "two", "three"] {
        ana.send(&room, text).await;
    }
    while ana.hand_over(&mut hub).await {}
    let log = LogRef::Room(room.clone());
    // Some is taken in and written down; the acknowledgement dies with the process, and the whole comes again.
    bo.take_in(&hub, &log, 2, false).await;
    bo.crash(&hub).await;
    bo.take_in(&hub, &log, 64, false).await;
    bo.take_in(&hub, &log, 64, true).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    all_see(&mut [&mut ana, &mut bo], &room, &["one", "two", "three"]).await;
    let shown = bo.events.iter().filter(|e| matches!(e, Event::Message { .. })).count();
    assert_eq!(shown, 3);
}

#[tokio::test]
async fn work_that_is_dropped_halfway_takes_nothing_with_it() {
    let (mut hub, mut ana, mut bo, room) = pair(23).await;
    ana.send(&room, "one").await;
    // The message is encrypted, the ratchet has moved on; and then nobody commits it. No crash: the same process goes on.
    let mut work = ana.core().begin().await.unwrap();
    sender::step(&mut work).await.unwrap();
    drop(work);
    ana.send(&room, "two").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    all_see(&mut [&mut ana, &mut bo], &room, &["one", "two"]).await;
}

#[tokio::test]
async fn an_epoch_that_overtakes_a_message_changes_neither_its_place_in_line_nor_its_id() {
    let (mut hub, mut ana, mut bo, room) = pair(24).await;
    let id = ana.send(&room, "one").await;
    let before = ana.timeline(&room).await[0].message_id;
    let old = ana.next_out().await.unwrap();
    bo.want(&room, Action::Renew).await;
    settle(&mut hub, &mut [&mut bo]).await;
    let reply = hub.submit(&ana.id, &old);
    assert!(matches!(reply, SubmitReply::Refused(_)));
    ana.replied(id, reply).await;
    // This device does not know the new epoch yet: it waits for it instead of asking again and again.
    assert!(ana.next_out().await.is_none());
    ana.crash(&hub).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    all_see(&mut [&mut ana, &mut bo], &room, &["one"]).await;
    let message = &bo.timeline(&room).await[0];
    assert_eq!((message.message_id, message.counter), (before, 1));
}

#[tokio::test]
async fn a_commit_under_way_survives_a_crash_on_either_side_of_the_hub() {
    let (mut hub, mut ana, mut bo, room) = pair(25).await;
    let mut cy = Device::new(&mut hub, "cy").await;
    let id = ana.want(&room, Action::Add(cy.id.user())).await;
    // Claimed and built, not handed over.
    while ana.carry(&mut hub).await {}
    ana.crash(&hub).await;
    let submit = ana.next_out().await.unwrap();
    assert!(matches!(submit.payload, Payload::Handshake(_)));
    // Handed over and accepted; the answer dies with the process.
    hub.submit(&ana.id, &submit);
    ana.crash(&hub).await;
    settle(&mut hub, &mut [&mut ana, &mut bo, &mut cy]).await;
    let done = ana.core().read().await.unwrap().command(&id).await.unwrap().unwrap();
    assert_eq!(command::state(&done).stage, Stage::Accepted);
    ana.send(&room, "welcome").await;
    settle(&mut hub, &mut [&mut ana, &mut bo, &mut cy]).await;
    all_see(&mut [&mut ana, &mut bo, &mut cy], &room, &["welcome"]).await;
}

#[tokio::test]
async fn a_welcome_that_comes_again_changes_nothing() {
    let (mut hub, mut ana, mut bo, room) = pair(26).await;
    ana.send(&room, "one").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    bo.crash(&hub).await;
    let mut cy = Device::new(&mut hub, "cy").await;
    ana.want(&room, Action::Add(cy.id.user())).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    // Entries of a room that cy does not know yet are left where they are.
    ana.send(&room, "two").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert!(!cy.take_in(&hub, &LogRef::Room(room.clone()), 64, true).await);
    cy.take_in(&hub, &LogRef::Inbox, 64, false).await;
    cy.crash(&hub).await;
    cy.take_in(&hub, &LogRef::Inbox, 64, false).await;
    cy.take_in(&hub, &LogRef::Inbox, 64, true).await;
    settle(&mut hub, &mut [&mut ana, &mut bo, &mut cy]).await;
    all_see(&mut [&mut cy], &room, &["two"]).await;
    all_see(&mut [&mut ana, &mut bo], &room, &["one", "two"]).await;
}

#[tokio::test]
async fn an_entry_that_the_hub_repeats_is_shown_once() {
    let (mut hub, mut ana, mut bo, room) = pair(27).await;
    ana.send(&room, "one").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    for body in hub.bodies(&room) {
        hub.append(&room, protocol::log::EntryKind::Application, body);
    }
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    ana.send(&room, "two").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    all_see(&mut [&mut ana, &mut bo], &room, &["one", "two"]).await;
}
