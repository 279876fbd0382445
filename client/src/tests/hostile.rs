//! A hub that lies, members that cheat, and entries that cannot be opened: nothing is shown or applied that should not be, nothing
//! is acknowledged that was not taken in, and the person is told.

use crypto::IdentityKey;
use crypto::group::Change;
use protocol::api::{
    self, Body, Entries, Entry, Gap, GapReason, InboxItem, LogRef, Outcome, Payload, Submit,
    SubmitReply,
};
use protocol::log::{Chain, EntryKind};
use protocol::room::ParticipantsUpdate;
use protocol::{Code, RoomId, Seq};

use super::harness::{Device, Hub, settle};
use crate::core::Work;
use crate::store::Action;
use crate::{AlarmKind, Event, Flag, RoomStatus, Seal, command, rooms, trust};

async fn pair(seed: u64) -> (Hub, Device, Device, RoomId) {
    let mut hub = Hub::new(seed);
    let (mut ana, mut bo) = (Device::new(&mut hub, "ana").await, Device::new(&mut hub, "bo").await);
    let room = ana.create().await;
    ana.want(&room, Action::Add(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    (hub, ana, bo, room)
}

fn alarms(device: &Device) -> Vec<AlarmKind> {
    let kind = |e: &Event| match e {
        Event::Alarm(alarm) => Some(alarm.kind),
        _ => None,
    };
    device.events.iter().filter_map(kind).collect()
}

/// Hands in a commit that no client of ours would make.
async fn cheat(hub: &mut Hub, device: &mut Device, room: &RoomId, change: Change) {
    let work = async |work: &mut Work<'_>| {
        let row = work.room(room).await?;
        let mut group = work.take_group(row.no).await?;
        let bundle = group.commit(&change, work.now(), &*work.world.entropy).unwrap();
        group.clear_pending().unwrap();
        work.put_group(row.no, group);
        Ok((command::mint(work.world), bundle))
    };
    let (submit_id, bundle) = device.work(work).await.unwrap();
    let handshake =
        protocol::api::Handshake { bundle: bundle.update_request, signature: bundle.signature };
    let submit = Submit { submit_id, room: room.clone(), payload: Payload::Handshake(handshake) };
    hub.lenient = true;
    let reply = hub.submit(&device.id, &submit);
    assert!(matches!(reply, protocol::api::SubmitReply::Accepted(_)), "{reply:?}");
    hub.lenient = false;
}

#[tokio::test]
async fn a_change_that_the_role_does_not_allow_is_not_applied_even_if_the_hub_took_it() {
    let (mut hub, mut ana, mut bo, room) = pair(40).await;
    let mut cy = Device::new(&mut hub, "cy").await;
    ana.want(&room, Action::Add(cy.id.user())).await;
    settle(&mut hub, &mut [&mut ana, &mut bo, &mut cy]).await;
    let head = hub.head(&room);
    // A member throws the owner out, with the help of the hub.
    let participants = ParticipantsUpdate { removed: vec![0], ..Default::default() };
    let change = Change { remove: vec![ana.id.clone()], participants, ..Change::default() };
    cheat(&mut hub, &mut bo, &room, change).await;
    for device in [&mut ana, &mut cy] {
        for _ in 0..3 {
            device.take_in(&hub, &LogRef::Room(room.clone()), 64, true).await;
        }
        assert!(matches!(device.status(&room).await, RoomStatus::Held { .. }), "{}", device.id);
        assert_eq!(device.acked(&room), head, "it is not acknowledged");
        assert_eq!(alarms(device), [AlarmKind::Policy], "and said once");
    }
}

#[tokio::test]
async fn a_device_of_another_identity_is_kept_out_until_a_person_accepts_it() {
    let (mut hub, mut ana, mut cy, _) = pair(41).await;
    let mut di = Device::new(&mut hub, "di").await;
    let room = di.create().await;
    di.want(&room, Action::Add(ana.id.user())).await;
    settle(&mut hub, &mut [&mut di, &mut ana, &mut cy]).await;
    // The node of bo makes a device for bo that bo knows nothing of; di has never met bo and believes it.
    hub.packages.remove(&cy.id);
    let ghost = IdentityKey::generate(&*hub.entropy);
    let mut ghost = Device::of(&mut hub, "bo", "ghost", ghost, Seal::Unsealed).await;
    di.want(&room, Action::Add(cy.id.user())).await;
    settle(&mut hub, &mut [&mut di, &mut ana, &mut cy]).await;
    di.send(&room, "hello bo").await;
    settle(&mut hub, &mut [&mut di, &mut ana, &mut ghost]).await;
    assert!(matches!(ana.status(&room).await, RoomStatus::Held { .. }));
    assert_eq!(alarms(&ana), [AlarmKind::IdentityChanged]);
    assert_eq!(ana.texts(&room).await, Vec::<String>::new());
    // Somebody who asks ana to add bo's new device is told why not.
    let own = ana.create().await;
    hub.packages.entry(ghost.id.clone()).or_default();
    let id = ana.want(&own, Action::Add(cy.id.user())).await;
    settle(&mut hub, &mut [&mut ana]).await;
    let refused = ana.core().read().await.unwrap().command(&id).await.unwrap().unwrap();
    assert!(command::state(&refused).failed.is_some(), "{refused:?}");
    // bo tells ana over the telephone that it is all right.
    let bo = cy.id.user();
    ana.work(async |work| trust::accept(work, &bo).await).await.unwrap();
    settle(&mut hub, &mut [&mut di, &mut ana, &mut ghost]).await;
    assert_eq!(ana.status(&room).await, RoomStatus::Active);
    assert_eq!(ana.texts(&room).await, ["hello bo"]);
}

#[tokio::test]
async fn two_members_who_were_shown_different_histories_find_out() {
    let (mut hub, mut ana, mut bo, room) = pair(42).await;
    ana.send(&room, "one").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    // bo was shown something else at the same place.
    let fork = async |work: &mut Work<'_>| {
        let mut row = work.room(&room).await?;
        let place = row.place.as_mut().unwrap();
        let ours = std::mem::replace(&mut place.chain, Chain::from_bytes([7; 32]));
        work.tx.put_room(&row).await?;
        crate::sender::write(work, &room, "two").await?;
        let mut row = work.room(&room).await?;
        row.place.as_mut().unwrap().chain = ours;
        work.tx.put_room(&row).await
    };
    bo.work(fork).await.unwrap();
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert_eq!(alarms(&ana), [AlarmKind::Fork]);
    let shown = ana.timeline(&room).await;
    assert_eq!(shown[1].flags, [Flag::Fork], "it is shown, and marked");
}

#[tokio::test]
async fn a_hub_that_rewrites_history_is_caught_and_nothing_after_it_is_taken_in() {
    let (mut hub, mut ana, mut bo, room) = pair(43).await;
    ana.send(&room, "one").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    let head = hub.head(&room);
    bo.send(&room, "two").await;
    while bo.hand_over(&mut hub).await {}
    let honest = hub.rewrite(&room, head, Chain::from_bytes([8; 32]));
    assert!(!ana.take_in(&hub, &LogRef::Room(room.clone()), 64, true).await);
    assert_eq!(alarms(&ana), [AlarmKind::Chain]);
    assert!(matches!(ana.status(&room).await, RoomStatus::Held { .. }));
    assert_eq!(ana.texts(&room).await, ["one"]);
    // It was a fault that went away.
    hub.rewrite(&room, head, honest);
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert_eq!(ana.status(&room).await, RoomStatus::Active);
    assert_eq!(ana.texts(&room).await, ["one", "two"]);
}

#[tokio::test]
async fn what_cannot_be_opened_is_a_gap_and_holds_nobody_up() {
    let (mut hub, mut ana, mut bo, room) = pair(44).await;
    hub.append(&room, EntryKind::Application, b"no message at all".to_vec());
    let seq = Seq::new(hub.head(&room));
    bo.send(&room, "after it").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    for device in [&mut ana, &mut bo] {
        assert_eq!(device.texts(&room).await, ["after it"]);
        assert_eq!(alarms(device), [AlarmKind::Undecryptable]);
        let mut tx = device.core().read().await.unwrap();
        let row = tx.room(&room).await.unwrap().unwrap();
        assert_eq!(tx.gaps(row.no).await.unwrap(), [(seq, seq, None)]);
    }
}

#[tokio::test]
async fn entries_that_expired_at_the_node_are_shown_as_a_gap_with_the_reason() {
    let (mut hub, mut ana, mut bo, room) = pair(45).await;
    let first = hub.head(&room) + 1;
    for text in ["one", "two", "three"] {
        ana.send(&room, text).await;
        while ana.hand_over(&mut hub).await {}
        settle(&mut hub, &mut [&mut ana]).await;
    }
    let log = LogRef::Room(room.clone());
    let mut entries = hub.entries(&bo.id, &log, first + 1, 64).unwrap();
    let gap = Gap { first: Seq::new(first), last: Seq::new(first + 1), reason: GapReason::Expired };
    entries.gap = Some(gap);
    assert!(bo.take(entries, true).await);
    assert_eq!(bo.texts(&room).await, ["three"]);
    let told = bo.events.iter().any(|e| matches!(e, Event::Gap { reason: GapReason::Expired, .. }));
    assert!(told);
    let mut tx = bo.core().read().await.unwrap();
    let row = tx.room(&room).await.unwrap().unwrap();
    assert_eq!(tx.gaps(row.no).await.unwrap(), [(gap.first, gap.last, Some(GapReason::Expired))]);
}

#[tokio::test]
async fn a_commit_that_nobody_can_apply_holds_the_room_and_a_rejoin_heals_it() {
    let (mut hub, mut ana, mut bo, room) = pair(46).await;
    ana.send(&room, "before").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    hub.append(&room, EntryKind::Commit, b"no commit at all".to_vec());
    let waiting = bo.send(&room, "written while held").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    for device in [&mut ana, &mut bo] {
        assert!(matches!(device.status(&room).await, RoomStatus::Held { .. }), "{}", device.id);
        assert_eq!(alarms(device), [AlarmKind::Held]);
    }
    for device in [&mut ana, &mut bo] {
        device.work(async |work| rooms::rejoin(work, &room).await).await.unwrap();
        device.crash(&hub).await;
    }
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    for device in [&mut ana, &mut bo] {
        assert_eq!(device.status(&room).await, RoomStatus::Active, "{}", device.id);
    }
    ana.send(&room, "after").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert_eq!(ana.texts(&room).await.last().unwrap(), "after");
    assert_eq!(bo.texts(&room).await.last().unwrap(), "after");
    let submission = bo.core().read().await.unwrap().submission(&waiting).await.unwrap().unwrap();
    assert!(matches!(submission.item.state, delivery::outbox::State::Accepted(_)));
}

#[tokio::test]
async fn an_invitation_into_a_room_whose_end_never_comes_holds_up_nothing_for_long() {
    let (mut hub, mut ana, mut bo, room) = pair(47).await;
    ana.want(&room, Action::Remove(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana]).await;
    ana.want(&room, Action::Add(bo.id.user())).await;
    let other = ana.create().await;
    ana.want(&other, Action::Add(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana]).await;
    // The node pushes the inbox, and of the room nothing.
    bo.take_in(&hub, &LogRef::Inbox, 64, true).await;
    assert!(bo.core().read().await.unwrap().room(&other).await.unwrap().is_none());
    hub.pass(31_000);
    bo.take_in(&hub, &LogRef::Inbox, 64, true).await;
    for room in [&room, &other] {
        assert_eq!(bo.status(room).await, RoomStatus::Active);
    }
    ana.send(&room, "again").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert_eq!(bo.texts(&room).await, ["again"]);
    let mut tx = bo.core().read().await.unwrap();
    let row = tx.room(&room).await.unwrap().unwrap();
    assert_eq!(tx.gaps(row.no).await.unwrap().len(), 1, "what is missing is shown");
}

#[tokio::test]
async fn an_invitation_into_a_room_that_is_held_waits_for_it_and_else_shows_what_is_missing() {
    for heals in [true, false] {
        let (mut hub, mut ana, mut bo, room) = pair(50).await;
        let head = hub.head(&room);
        ana.send(&room, "owed").await;
        settle(&mut hub, &mut [&mut ana]).await;
        let honest = hub.rewrite(&room, head, Chain::from_bytes([8; 32]));
        let log = LogRef::Room(room.clone());
        assert!(!bo.take_in(&hub, &log, 64, true).await);
        assert!(matches!(bo.status(&room).await, RoomStatus::Held { .. }));
        hub.rewrite(&room, head, honest);
        ana.want(&room, Action::Remove(bo.id.user())).await;
        settle(&mut hub, &mut [&mut ana]).await;
        let first_stay = hub.entries(&bo.id, &log, head, 64).unwrap();
        ana.want(&room, Action::Add(bo.id.user())).await;
        settle(&mut hub, &mut [&mut ana]).await;
        bo.take_in(&hub, &LogRef::Inbox, 64, true).await;
        assert!(matches!(bo.status(&room).await, RoomStatus::Held { .. }), "it was overtaken");
        if heals {
            bo.take(first_stay, true).await;
            assert_eq!(bo.status(&room).await, RoomStatus::Left);
        } else {
            hub.pass(31_000);
        }
        settle(&mut hub, &mut [&mut ana, &mut bo]).await;
        assert_eq!(bo.status(&room).await, RoomStatus::Active);
        ana.send(&room, "again").await;
        settle(&mut hub, &mut [&mut ana, &mut bo]).await;
        let shown: &[&str] = if heals { &["owed", "again"] } else { &["again"] };
        assert_eq!(bo.texts(&room).await, shown);
        let mut tx = bo.core().read().await.unwrap();
        let row = tx.room(&room).await.unwrap().unwrap();
        assert_eq!(tx.gaps(row.no).await.unwrap().len(), usize::from(!heals));
    }
}

#[tokio::test]
async fn what_comes_after_an_invitation_that_has_to_wait_does_not_overtake_it() {
    let (mut hub, mut ana, mut bo, room) = pair(48).await;
    ana.want(&room, Action::Remove(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana]).await;
    ana.want(&room, Action::Add(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana]).await;
    // The end of bo's first stay was not pushed yet, so the invitation waits; the node pushes on meanwhile.
    let acked = bo.acked_inbox();
    bo.take_in(&hub, &LogRef::Inbox, 64, true).await;
    let other = ana.create().await;
    ana.want(&other, Action::Add(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana]).await;
    let later = hub.entries(&bo.id, &LogRef::Inbox, acked + 1, 64).unwrap();
    bo.take(later, true).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    for room in [&room, &other] {
        assert_eq!(bo.status(room).await, RoomStatus::Active);
    }
    ana.send(&room, "again").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert_eq!(bo.texts(&room).await, ["again"]);
}

#[tokio::test]
async fn an_inbox_begins_with_its_first_item_whatever_comes_first() {
    let (mut hub, mut ana, _, room) = pair(52).await;
    let mut cy = Device::new(&mut hub, "cy").await;
    let other = ana.create().await;
    for room in [&room, &other] {
        ana.want(room, Action::Add(cy.id.user())).await;
        settle(&mut hub, &mut [&mut ana]).await;
    }
    let second = hub.entries(&cy.id, &LogRef::Inbox, 1, 64).unwrap();
    assert!(!cy.take(second, true).await, "the first would never be taken in");
    settle(&mut hub, &mut [&mut ana, &mut cy]).await;
    for room in [&room, &other] {
        assert_eq!(cy.status(room).await, RoomStatus::Active);
    }
}

#[tokio::test]
async fn a_removed_device_acknowledges_its_end_again_when_that_got_lost() {
    let (mut hub, mut ana, mut bo, room) = pair(49).await;
    ana.want(&room, Action::Remove(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana]).await;
    let log = LogRef::Room(room.clone());
    bo.take_in(&hub, &log, 64, false).await;
    assert_eq!(bo.status(&room).await, RoomStatus::Left);
    let before = bo.acked(&room);
    assert!(bo.take_in(&hub, &log, 64, true).await, "it is pushed again and acknowledged");
    assert!(bo.acked(&room) > before);
}

#[tokio::test]
async fn a_room_whose_entries_are_left_out_is_held_and_not_asked_for_without_end() {
    let (mut hub, mut ana, mut bo, room) = pair(48).await;
    for text in ["one", "two"] {
        ana.send(&room, text).await;
        settle(&mut hub, &mut [&mut ana]).await;
    }
    let log = LogRef::Room(room.clone());
    let after = hub.head(&room) - 1;
    for _ in 0..3 {
        let entries = hub.entries(&bo.id, &log, after, 64).unwrap();
        assert!(!bo.take(entries, true).await);
        hub.pass(31_000);
    }
    assert!(matches!(bo.status(&room).await, RoomStatus::Held { .. }));
    assert_eq!(alarms(&bo), [AlarmKind::Held]);
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert_eq!(bo.status(&room).await, RoomStatus::Active);
    assert_eq!(bo.texts(&room).await, ["one", "two"]);
}

#[tokio::test]
async fn a_new_life_of_the_hub_does_not_hide_what_came_before_the_first_that_arrives() {
    let (mut hub, mut ana, mut bo, room) = pair(51).await;
    for text in ["one", "two"] {
        ana.send(&room, text).await;
        settle(&mut hub, &mut [&mut ana]).await;
    }
    hub.restore();
    let log = LogRef::Room(room.clone());
    let late = hub.entries(&bo.id, &log, hub.head(&room) - 1, 64).unwrap();
    assert!(!bo.take(late, true).await, "it would never ask for the first");
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert_eq!(bo.texts(&room).await, ["one", "two"]);
    assert_eq!(alarms(&bo), [AlarmKind::Restored]);
}

/// A message of bo that the node has stored for the hub.
async fn stored(bo: &mut Device, room: &RoomId) -> Submit {
    bo.send(room, "on its way").await;
    let submit = bo.next_out().await.unwrap();
    bo.replied(submit.submit_id, SubmitReply::Stored).await;
    submit
}

fn inbox(hub: &Hub, device: &Device, room: &RoomId, items: &[(u64, InboxItem)]) -> Entries {
    let shape = hub.entries(&device.id, &LogRef::Room(room.clone()), 0, 1).unwrap();
    let entry = |(n, item): &(u64, InboxItem)| Entry {
        seq: Seq::new(*n),
        at: hub.now(),
        kind: EntryKind::Item.code(),
        body: Body::Full(api::encode(item)),
    };
    let entries = items.iter().map(entry).collect();
    Entries { log: LogRef::Inbox, entries, prev_chain: None, ..shape }
}

async fn stage(device: &mut Device, submit: &Submit) -> delivery::outbox::State {
    let mut tx = device.core().read().await.unwrap();
    tx.submission(&submit.submit_id).await.unwrap().unwrap().item.state
}

#[tokio::test]
async fn a_refusal_of_other_bytes_than_those_handed_in_last_is_ignored() {
    let (hub, _ana, mut bo, room) = pair(49).await;
    let submit = stored(&mut bo, &room).await;
    let next = bo.acked_inbox() + 1;
    let outcome = |payload| {
        let (submit_id, room) = (submit.submit_id, submit.room.clone());
        InboxItem::Outcome(Outcome { submit_id, room, refusal: Code::NotAllowed.into(), payload })
    };
    let old = outcome(Payload::Application(b"earlier".to_vec()).digest());
    bo.take(inbox(&hub, &bo, &room, &[(next, old)]), true).await;
    assert_eq!(stage(&mut bo, &submit).await, delivery::outbox::State::Stored);
    let last = outcome(submit.payload.digest());
    bo.take(inbox(&hub, &bo, &room, &[(next + 1, last)]), true).await;
    assert!(matches!(stage(&mut bo, &submit).await, delivery::outbox::State::Failed { .. }));
}

#[tokio::test]
async fn when_inbox_items_are_gone_what_waits_for_one_is_handed_in_again_as_it_was() {
    let (hub, _ana, mut bo, room) = pair(50).await;
    let submit = stored(&mut bo, &room).await;
    let gap = Gap { first: Seq::new(2), last: Seq::new(90), reason: GapReason::Expired };
    let entries = Entries { gap: Some(gap), ..inbox(&hub, &bo, &room, &[]) };
    assert!(bo.take(entries, true).await, "the gap is acknowledged");
    assert_eq!(alarms(&bo), [AlarmKind::Missed]);
    let again = bo.next_out().await.unwrap();
    assert_eq!(again, submit);
}

#[tokio::test]
async fn an_invitation_refused_for_its_key_packages_is_built_again_with_fresh_ones() {
    let (mut hub, mut ana, mut bo, _) = pair(51).await;
    let room = ana.create().await;
    settle(&mut hub, &mut [&mut ana]).await;
    ana.want(&room, Action::Add(bo.id.user())).await;
    while ana.carry(&mut hub).await {}
    let submit = ana.next_out().await.unwrap();
    ana.replied(submit.submit_id, SubmitReply::Refused(Code::BadKeyPackage.into())).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert_eq!(bo.status(&room).await, RoomStatus::Active);
}
