//! The client against real nodes: two people talk, restart in between, link devices, come and go.

use std::time::Duration;

use client::{RoomStatus, Stage};
use protocol::{Code, RoomId, UserId};
use tests::device::{Device, eventually};
use tests::world::World;
use tests::{Outcome, Trouble};

const PATIENCE: Duration = Duration::from_mins(1);

async fn texts(device: &Device, room: &RoomId) -> Outcome<Vec<String>> {
    Ok(device.timeline(room).await?.into_iter().map(|m| m.text).collect())
}

/// All of them see the same, with every sender's messages in its own order, and nothing odd.
async fn same(devices: &[&Device], room: &RoomId, each: &[(&Device, Vec<String>)]) -> Outcome<()> {
    let total = each.iter().map(|(_, own)| own.len()).sum();
    for device in devices {
        device.until_count(room, total, PATIENCE).await?;
    }
    let [first, ..] = devices else { return Ok(()) };
    let want = texts(first, room).await?;
    for device in devices {
        assert_eq!(texts(device, room).await?, want, "{}", device.id());
        let timeline = device.timeline(room).await?;
        for (sender, own) in each {
            let of = timeline.iter().filter(|m| m.device == *sender.id());
            assert_eq!(&of.map(|m| m.text.clone()).collect::<Vec<_>>(), own, "{}", device.id());
        }
        assert!(timeline.iter().all(|m| m.flags.is_empty()), "{}", device.id());
        let record = device.record();
        assert_eq!(record.alarms, Vec::<String>::new(), "{}", device.id());
        assert_eq!(record.doubles, Vec::new(), "{}", device.id());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_on_one_node_talk_and_a_restart_in_the_middle_changes_nothing() -> Outcome<()> {
    let mut world = World::start("client-talk", &["a.localhost"]).await?;
    let ana = world.person(0, "ana").await?;
    let mut bo = world.person(0, "bo").await?;
    let room = ana.create_room("ops").await?;
    ana.invite(&room, bo.user()).await?;
    bo.until_active(&room).await?;
    let line = |who: &str, i: usize| format!("{who} {i}");
    let (mut from_ana, mut from_bo) = (vec![], vec![]);
    for i in 0..100 {
        ana.client()?.send(&room, &line("ana", i)).await?;
        from_ana.push(line("ana", i));
        if i == 30 {
            bo.restart().await?;
        }
        // While it is off, what it writes waits in its own store.
        bo.client()?.send(&room, &line("bo", i)).await?;
        from_bo.push(line("bo", i));
        if i == 70 {
            bo.go_offline().await;
            bo.go_online().await?;
        }
    }
    same(&[&ana, &bo], &room, &[(&ana, from_ana), (&bo, from_bo)]).await?;
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_accepted_and_its_sender_told_where_it_stands() -> Outcome<()> {
    let mut world = World::start("client-states", &["a.localhost"]).await?;
    let ana = world.person(0, "ana").await?;
    let room = ana.create_room("alone").await?;
    let id = ana.client()?.send(&room, "hello").await?;
    let state = ana.client()?.wait(&id, Stage::Accepted, PATIENCE).await?;
    assert_eq!((state.stage, state.failed), (Stage::Accepted, None));
    let timeline = ana.timeline(&room).await?;
    assert_eq!(timeline[0].seq, state.seq);
    assert_eq!(timeline[0].submit_id, Some(id));
    // Somebody who does not exist cannot be added, and the reason is told.
    let nobody = UserId::parse_handle("@nobody@a.localhost")?;
    let id = ana.client()?.invite(&room, &nobody).await?;
    eventually(PATIENCE, "why nobody is not added", async || {
        let waiting = ana.client()?.state(&id).await?.waiting;
        Ok(waiting.filter(|w| w.code == Code::NoKeyPackages).map(|_| ()))
    })
    .await?;
    // That holds up nothing else in the room.
    let id = ana.client()?.send(&room, "anybody there?").await?;
    ana.until_accepted(&id, "a message after it").await?;
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linked_device_reads_and_writes_until_it_is_revoked() -> Outcome<()> {
    let mut world = World::start("client-link", &["a.localhost"]).await?;
    let ana = world.person(0, "ana").await?;
    let bo = world.person(0, "bo").await?;
    let room = ana.create_room("ops").await?;
    ana.invite(&room, bo.user()).await?;
    bo.until_active(&room).await?;
    let tablet = world.further(&ana).await?;
    tablet.until_active(&room).await?;
    for (device, text) in [(&tablet, "from the tablet"), (&bo, "to both"), (&ana, "from the first")]
    {
        let id = device.client()?.send(&room, text).await?;
        device.until_accepted(&id, text).await?;
    }
    let own = |text: &str| vec![text.to_owned()];
    let each =
        [(&tablet, own("from the tablet")), (&bo, own("to both")), (&ana, own("from the first"))];
    same(&[&ana, &bo, &tablet], &room, &each).await?;
    let devices = ana.client()?.devices().await?;
    assert_eq!(devices.len(), 2);
    ana.client()?.revoke_device(tablet.id()).await?;
    eventually(PATIENCE, "the tablet out of the room", async || {
        let room = bo.room(&room).await?.ok_or_else(|| Trouble::new("no room"))?;
        let inside = room.members.iter().any(|m| m.devices.contains(tablet.id()));
        Ok((!inside).then_some(()))
    })
    .await?;
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_room_takes_all_devices_of_its_founder_and_its_guests() -> Outcome<()> {
    let mut world = World::start("client-all", &["a.localhost"]).await?;
    let mut ana = world.person(0, "ana").await?;
    let tablet = world.further(&ana).await?;
    let bo = world.person(0, "bo").await?;
    let phone = world.further(&bo).await?;
    // It learns of the tablet when it connects.
    ana.restart().await?;
    let room = ana.create_room("ops").await?;
    ana.invite(&room, bo.user()).await?;
    for device in [&tablet, &bo, &phone] {
        device.until_active(&room).await?;
    }
    ana.client()?.send(&room, "everybody").await?;
    same(&[&ana, &tablet, &bo, &phone], &room, &[(&ana, vec!["everybody".to_owned()])]).await?;
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_is_out_and_the_rest_goes_on() -> Outcome<()> {
    let mut world = World::start("client-leave", &["a.localhost"]).await?;
    let ana = world.person(0, "ana").await?;
    let bo = world.person(0, "bo").await?;
    let cy = world.person(0, "cy").await?;
    let room = ana.create_room("ops").await?;
    for person in [&bo, &cy] {
        ana.invite(&room, person.user()).await?;
        person.until_active(&room).await?;
    }
    let id = bo.client()?.leave(&room).await?;
    bo.client()?.wait(&id, Stage::Accepted, PATIENCE).await?;
    eventually(PATIENCE, "bo out", async || {
        let info = bo.room(&room).await?;
        Ok(info.filter(|r| r.status == RoomStatus::Left).map(|_| ()))
    })
    .await?;
    for person in [&ana, &cy] {
        eventually(PATIENCE, "the others know", async || {
            let info = person.room(&room).await?.ok_or_else(|| Trouble::new("no room"))?;
            Ok((info.members.len() == 2).then_some(()))
        })
        .await?;
    }
    ana.client()?.send(&room, "still here").await?;
    same(&[&ana, &cy], &room, &[(&ana, vec!["still here".to_owned()])]).await?;
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_organisations_share_a_room() -> Outcome<()> {
    let mut world = World::start("client-two", &["a.localhost", "b.localhost"]).await?;
    let ana = world.person(0, "ana").await?;
    let bo = world.person(1, "bo").await?;
    let room = ana.create_room("both").await?;
    ana.invite(&room, bo.user()).await?;
    bo.until_active(&room).await?;
    let (mut from_ana, mut from_bo) = (vec![], vec![]);
    for i in 0..20 {
        from_ana.push(format!("ana {i}"));
        ana.client()?.send(&room, &format!("ana {i}")).await?;
        from_bo.push(format!("bo {i}"));
        bo.client()?.send(&room, &format!("bo {i}")).await?;
    }
    same(&[&ana, &bo], &room, &[(&ana, from_ana), (&bo, from_bo)]).await?;
    // A further device of the far person joins by itself, through both nodes.
    let phone = world.further(&bo).await?;
    phone.until_active(&room).await?;
    let id = phone.client()?.send(&room, "from the phone").await?;
    phone.until_accepted(&id, "from the phone").await?;
    world.passed();
    Ok(())
}
