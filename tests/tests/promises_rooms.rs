//! Promises about who is in a room: concurrent changes all succeed, and nobody gets what is not theirs.

use std::time::Duration;

use client::Stage;
use protocol::room::Role;
use protocol::{RoomId, Seq};
use tests::device::{Device, eventually};
use tests::ledger::{self, Stay};
use tests::trouble::During as _;
use tests::world::World;
use tests::{Outcome, Trouble, together};
use tokio::time::{Instant, sleep};

const SETTLE: Duration = Duration::from_mins(1);

async fn members(device: &Device, room: &RoomId) -> Outcome<Vec<String>> {
    let info = device.room(room).await?.during("the room")?;
    let mut users: Vec<String> = info.members.iter().map(|m| m.user.handle()).collect();
    users.sort();
    Ok(users)
}

/// Waits until all of them are at the same epoch with the same members, at least so many.
async fn agree(devices: &[&Device], room: &RoomId, people: usize) -> Outcome<()> {
    eventually(SETTLE, "everybody agrees who is in the room", async || {
        let mut seen = Vec::new();
        for device in devices {
            let info = device.room(room).await?.during("the room")?;
            seen.push((info.epoch, info.members));
        }
        let same = seen.windows(2).all(|two| two.first() == two.last());
        Ok((same && seen.iter().all(|(_, members)| members.len() == people)).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_committing_at_once_both_succeed() -> Outcome<()> {
    let mut world = World::start("commits", &["a.localhost", "b.localhost"]).await?;
    let ana = world.person(0, "ana").await?;
    let bea = world.person(1, "bea").await?;
    let room = ana.create_room("room").await?;
    ana.invite(&room, bea.user()).await?;
    bea.until_active(&room).await?;
    let promote = ana.client()?.set_role(&room, bea.user(), Role::Admin).await?;
    ana.until_accepted(&promote, "make bea an admin").await?;
    eventually(SETTLE, "bea is an admin", async || {
        let info = bea.room(&room).await?.during("the room")?;
        let admin = |m: &client::Member| m.user == *bea.user() && m.role == Role::Admin;
        Ok(info.members.iter().any(admin).then_some(()))
    })
    .await?;

    let mut guests = Vec::new();
    for round in 0..4 {
        let one = world.person(0, &format!("one{round}")).await?;
        let two = world.person(1, &format!("two{round}")).await?;
        let before = ana.room(&room).await?.during("the room")?.epoch;
        let both = together([(&ana, one.user()), (&bea, two.user())].map(|(who, whom)| {
            let room = &room;
            async move { who.invite(room, whom).await }
        }));
        let places = both.await.into_iter().collect::<Outcome<Vec<Seq>>>()?;
        assert_ne!(places[0], places[1]);
        one.until_active(&room).await?;
        two.until_active(&room).await?;
        guests.extend([one, two]);
        let all: Vec<&Device> = [&ana, &bea].into_iter().chain(&guests).collect();
        agree(&all, &room, all.len()).await?;
        let after = ana.room(&room).await?.during("the room")?.epoch;
        assert!(after.get() >= before.get() + 2, "two commits, one epoch each: {before} {after}");
    }
    // Everybody can still talk to everybody.
    let all: Vec<&Device> = [&ana, &bea].into_iter().chain(&guests).collect();
    for device in &all {
        device.send(&room, &format!("{} is here", device.id())).await?;
    }
    for device in &all {
        device.until_all_accepted(SETTLE).await?;
        device.until_count(&room, all.len(), SETTLE).await?;
        assert!(device.record().alarms.is_empty(), "{:?}", device.record().alarms);
    }
    world.passed();
    Ok(())
}

/// Sends until told to stop; how many.
async fn chatter(
    device: &Device,
    room: &RoomId,
    stop: tokio::sync::watch::Receiver<bool>,
) -> Outcome<usize> {
    let mut n = 0;
    while !*stop.borrow() {
        n += 1;
        device.send(room, &format!("{} {n}", device.id())).await?;
        sleep(Duration::from_millis(40)).await;
    }
    Ok(n)
}

async fn head(device: &Device, room: &RoomId) -> Outcome<u64> {
    Ok(device.room(room).await?.during("the room")?.seq.get())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_removed_and_one_added_in_the_middle_of_traffic() -> Outcome<()> {
    let mut world = World::start("changes", &["a.localhost", "b.localhost"]).await?;
    let ana = world.person(0, "ana").await?;
    let bea = world.person(1, "bea").await?;
    let bob = world.person(1, "bob").await?;
    let cat = world.person(1, "cat").await?;
    let room = ana.create_room("room").await?;
    for guest in [&bea, &bob] {
        ana.invite(&room, guest.user()).await?;
        guest.until_active(&room).await?;
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let changes = async {
        sleep(Duration::from_secs(1)).await;
        let bob_out = ana.remove(&room, bob.user()).await?.get();
        sleep(Duration::from_secs(1)).await;
        let cat_in = ana.invite(&room, cat.user()).await?.get();
        cat.until_active(&room).await?;
        sleep(Duration::from_secs(1)).await;
        let before = head(&ana, &room).await?;
        let laptop = world.further(&ana).await?;
        laptop.until_active(&room).await?;
        let after = head(&laptop, &room).await?;
        sleep(Duration::from_secs(1)).await;
        stop.send_replace(true);
        Outcome::Ok((bob_out, cat_in, laptop, before, after))
    };
    let talk = together([&ana, &bea].map(|d| chatter(d, &room, stopped.clone())));
    let (done, talked) = tokio::join!(changes, talk);
    let (bob_out, cat_in, laptop, before, after) = done?;
    let said: usize = talked.into_iter().collect::<Outcome<Vec<usize>>>()?.into_iter().sum();
    assert!(said > 60, "too little traffic: {said}");

    let mut sent = Vec::new();
    for device in [&ana, &bea] {
        device.until_all_accepted(SETTLE).await?;
        sent.extend(device.sent().await?);
    }
    for device in [&ana, &bea] {
        device.until_count(&room, sent.len(), SETTLE).await?;
    }
    let stays = [
        (&ana, Stay::ALWAYS),
        (&bea, Stay::ALWAYS),
        (&bob, Stay { all_through: bob_out, nothing_after: bob_out, ..Stay::ALWAYS }),
        (&cat, Stay { nothing_through: cat_in, all_after: cat_in, ..Stay::ALWAYS }),
        (&laptop, Stay { nothing_through: before, all_after: after, ..Stay::ALWAYS }),
    ];
    let owed = |stay: &Stay| {
        let within = |seq: u64| seq > stay.all_after && seq <= stay.all_through;
        sent.iter().filter(|m| m.seq.is_some_and(within)).count()
    };
    let mut views = Vec::new();
    for (device, stay) in &stays {
        assert!(owed(stay) > 10, "{} was there for too little", device.id());
        device.until_count(&room, owed(stay), SETTLE).await?;
        views.push(device.view(&room, *stay).await?);
    }
    ledger::check(&sent, &views).map_err(Trouble::new)?;
    assert_eq!(
        members(&ana, &room).await?,
        ["@ana@a.localhost", "@bea@b.localhost", "@cat@b.localhost"]
    );
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_device_takes_effect_at_once_on_open_streams() -> Outcome<()> {
    let mut world = World::start("revoke", &["a.localhost", "b.localhost"]).await?;
    let ana = world.person(0, "ana").await?;
    let bea = world.person(1, "bea").await?;
    let room = ana.create_room("room").await?;
    ana.invite(&room, bea.user()).await?;
    bea.until_active(&room).await?;
    let mut laptop = world.further(&ana).await?;
    laptop.until_active(&room).await?;
    let id = bea.send(&room, "before").await?;
    bea.until_accepted(&id, "before").await?;
    laptop.until_count(&room, 1, SETTLE).await?;
    assert_eq!(laptop.record().disconnects, 0);

    let begun = Instant::now();
    ana.client()?.revoke_device(laptop.id()).await?;
    let answered = begun.elapsed();
    eventually(Duration::from_secs(5), "the laptop's stream ends", async || {
        Ok((laptop.record().disconnects > 0).then_some(()))
    })
    .await?;
    assert!(begun.elapsed() < answered + Duration::from_secs(2), "{:?}", begun.elapsed());
    let id = bea.send(&room, "after").await?;
    let after = bea.until_accepted(&id, "after").await?;
    ana.until_count(&room, 2, SETTLE).await?;
    // The device itself is told, and its access does not come back.
    let alarms = laptop.record().alarms;
    assert!(alarms.iter().any(|a| a.starts_with("signed-out")), "{alarms:?}");
    laptop.restart().await?;
    let refused = laptop.client()?.devices().await;
    assert!(
        matches!(&refused, Err(client::Error::Refused(r)) if r.code == protocol::Code::Unauthenticated),
        "{refused:?}"
    );
    sleep(Duration::from_secs(1)).await;
    let shown = laptop.timeline(&room).await?;
    assert_eq!(shown.iter().filter(|m| m.text == "after").count(), 0);
    assert!(shown.iter().all(|m| m.seq.is_some_and(|s| s < after)));
    // Its leaf goes too, so that later messages are not even encrypted for it.
    eventually(SETTLE, "the leaf is gone", async || {
        let info = bea.room(&room).await?.during("the room")?;
        let gone = info.members.iter().all(|m| !m.devices.contains(laptop.id()));
        Ok(gone.then_some(()))
    })
    .await?;
    let id = ana.send(&room, "without it").await?;
    let state = ana.client()?.wait(&id, Stage::Accepted, SETTLE).await?;
    assert!(state.failed.is_none(), "{state:?}");
    world.passed();
    Ok(())
}
