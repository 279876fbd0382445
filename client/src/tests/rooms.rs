//! What people do in rooms, between devices that are all well.

use protocol::UserId;
use protocol::api::LogRef;
use protocol::room::Role;

use super::harness::{Device, Hub, settle};
use crate::core::Work;
use crate::store::Action;
use crate::{Error, RoomStatus, Seal, Stage, command, rooms, sender};

fn texts(n: std::ops::Range<usize>, who: &str) -> Vec<String> {
    n.map(|i| format!("{who} {i}")).collect()
}

#[tokio::test]
async fn two_people_talk_and_both_see_the_same() {
    let mut hub = Hub::new(1);
    let (mut ana, mut bo) = (Device::new(&mut hub, "ana").await, Device::new(&mut hub, "bo").await);
    let room = ana.create().await;
    // Written down before the node knows the room, and before bo is in it.
    ana.want(&room, Action::Add(bo.id.user())).await;
    ana.send(&room, "hello").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert_eq!(
        bo.texts(&room).await,
        ["hello"],
        "who is invited first can read what is written next"
    );
    for i in 0..20 {
        ana.send(&room, &format!("a {i}")).await;
        bo.send(&room, &format!("b {i}")).await;
        if i % 3 == 0 {
            settle(&mut hub, &mut [&mut ana, &mut bo]).await;
        }
    }
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    let (a, b) = (ana.texts(&room).await, bo.texts(&room).await);
    assert_eq!(a, b);
    assert_eq!(a.len(), 41);
    for who in ["a", "b"] {
        let own: Vec<_> = a.iter().filter(|t| t.starts_with(who)).cloned().collect();
        assert_eq!(own, texts(0..20, who));
    }
    for device in [&mut ana, &mut bo] {
        assert_eq!(device.alarms(), Vec::<String>::new());
        assert!(device.timeline(&room).await.iter().all(|m| m.flags.is_empty() && !m.late));
    }
}

#[tokio::test]
async fn a_removed_person_gets_nothing_more_and_knows_it() {
    let mut hub = Hub::new(2);
    let (mut ana, mut bo) = (Device::new(&mut hub, "ana").await, Device::new(&mut hub, "bo").await);
    let room = ana.create().await;
    ana.want(&room, Action::Add(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    let id = ana.want(&room, Action::Remove(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    ana.send(&room, "now we are alone").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert_eq!(bo.texts(&room).await, Vec::<String>::new());
    let row = bo.core().read().await.unwrap().room(&room).await.unwrap().unwrap();
    assert_eq!(row.status, RoomStatus::Left);
    let refused = bo.work(async |work| sender::write(work, &room, "still here?").await).await;
    assert!(matches!(refused, Err(Error::UnknownRoom(_))));
    let done = ana.core().read().await.unwrap().command(&id).await.unwrap().unwrap();
    assert_eq!(command::state(&done).stage, Stage::Accepted);
    // And back again: a number that was used is never used again.
    ana.want(&room, Action::Add(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    bo.send(&room, "back").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert_eq!(ana.texts(&room).await, ["now we are alone", "back"]);
    assert_eq!(bo.alarms(), Vec::<String>::new());
}

#[tokio::test]
async fn somebody_who_leaves_is_let_go_by_the_others_and_messages_go_on() {
    let mut hub = Hub::new(3);
    let mut ana = Device::new(&mut hub, "ana").await;
    let mut bo = Device::new(&mut hub, "bo").await;
    let mut cy = Device::new(&mut hub, "cy").await;
    let room = ana.create().await;
    for user in [bo.id.user(), cy.id.user()] {
        ana.want(&room, Action::Add(user)).await;
    }
    settle(&mut hub, &mut [&mut ana, &mut bo, &mut cy]).await;
    bo.want(&room, Action::Leave).await;
    ana.send(&room, "one").await;
    settle(&mut hub, &mut [&mut ana, &mut bo, &mut cy]).await;
    ana.send(&room, "two").await;
    cy.send(&room, "three").await;
    settle(&mut hub, &mut [&mut ana, &mut bo, &mut cy]).await;
    assert_eq!(ana.texts(&room).await, cy.texts(&room).await);
    assert_eq!(ana.texts(&room).await.len(), 3);
    let list = ana.work(async |work| rooms::list(work).await).await.unwrap();
    let users: Vec<UserId> = list[0].members.iter().map(|m| m.user.clone()).collect();
    assert_eq!(users, [ana.id.user(), cy.id.user()]);
    let left = bo.work(async |work| rooms::list(work).await).await.unwrap();
    assert_eq!(left[0].status, RoomStatus::Left);
    for device in [&ana, &bo, &cy] {
        assert_eq!(device.alarms(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_leave_that_those_who_were_to_commit_it_could_not_stops_the_room_for_a_minute_only() {
    let mut hub = Hub::new(5);
    let (mut ana, mut bo) = (Device::new(&mut hub, "ana").await, Device::new(&mut hub, "bo").await);
    let room = ana.create().await;
    ana.want(&room, Action::Add(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    bo.want(&room, Action::Leave).await;
    settle(&mut hub, &mut [&mut bo]).await;
    ana.take_in(&hub, &LogRef::Room(room.clone()), 64, true).await;
    let give_up = async |work: &mut Work<'_>| {
        let no = work.room(&room).await?.no;
        command::finish(work, no, |action| *action == Action::Settle).await
    };
    ana.work(give_up).await.unwrap();
    ana.send(&room, "one").await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert_ne!(bo.status(&room).await, RoomStatus::Left);
    hub.pass(60_000);
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    assert_eq!(bo.status(&room).await, RoomStatus::Left);
    let rows = ana.core().read().await.unwrap().live_submissions().await.unwrap();
    assert!(rows.is_empty(), "the message is through");
}

#[tokio::test]
async fn a_linked_device_joins_every_room_and_reads_from_then_on() {
    let mut hub = Hub::new(4);
    let (mut ana, mut bo) = (Device::new(&mut hub, "ana").await, Device::new(&mut hub, "bo").await);
    let room = ana.create().await;
    ana.want(&room, Action::Add(bo.id.user())).await;
    settle(&mut hub, &mut [&mut ana, &mut bo]).await;
    let (offered, _) = ana.work(async |work| rooms::offered(work).await).await.unwrap();
    let identity = ana.identity.clone();
    let mut tablet = Device::of(&mut hub, "ana", "2", identity, Seal::Unsealed).await;
    let joined = async |work: &mut crate::core::Work<'_>| {
        for o in &offered {
            let row = work.tx.add_room(&o.room, None, o.suite, RoomStatus::Joining).await?;
            let now = work.now();
            command::want(work, &row, Action::Join(o.hub_key), now).await?;
        }
        Ok(())
    };
    tablet.work(joined).await.unwrap();
    // Somebody changes the room at the same time, so that the first try may lose.
    bo.want(&room, Action::Renew).await;
    settle(&mut hub, &mut [&mut tablet, &mut ana, &mut bo]).await;
    bo.send(&room, "to both").await;
    tablet.send(&room, "from the tablet").await;
    settle(&mut hub, &mut [&mut ana, &mut bo, &mut tablet]).await;
    let want = ana.texts(&room).await;
    assert_eq!(want.len(), 2);
    assert_eq!(bo.texts(&room).await, want);
    assert_eq!(tablet.texts(&room).await, want);
    for device in [&ana, &bo, &tablet] {
        assert_eq!(device.alarms(), Vec::<String>::new());
    }
    // The other device takes it out again.
    let out = tablet.id.clone();
    ana.work(async |work| crate::engine::expel(work, &out).await).await.unwrap();
    settle(&mut hub, &mut [&mut ana, &mut bo, &mut tablet]).await;
    let row = tablet.core().read().await.unwrap().room(&room).await.unwrap().unwrap();
    assert_eq!(row.status, RoomStatus::Left);
}

#[tokio::test]
async fn two_who_change_the_room_at_once_both_get_their_way() {
    let mut hub = Hub::new(5);
    let mut people = vec![];
    for name in ["ana", "bo", "cy", "di"] {
        people.push(Device::new(&mut hub, name).await);
    }
    let [ana, bo, cy, di] = &mut people[..] else { unreachable!() };
    let room = ana.create().await;
    ana.want(&room, Action::Add(bo.id.user())).await;
    ana.want(&room, Action::SetRole(bo.id.user(), Role::Admin.index())).await;
    settle(&mut hub, &mut [ana, bo]).await;
    ana.want(&room, Action::Add(cy.id.user())).await;
    bo.want(&room, Action::Add(di.id.user())).await;
    for device in [&mut *ana, &mut *bo] {
        while device.carry(&mut hub).await {}
    }
    settle(&mut hub, &mut [ana, bo, cy, di]).await;
    ana.send(&room, "all here").await;
    settle(&mut hub, &mut [ana, bo, cy, di]).await;
    for device in [ana, bo, cy, di] {
        assert_eq!(device.texts(&room).await, ["all here"], "{}", device.id);
        assert_eq!(device.alarms(), Vec::<String>::new());
    }
}
