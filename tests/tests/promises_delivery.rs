//! Promises 1 to 4 of the design, over real processes: stored means stored, nothing is lost, nothing is shown twice, one order.

use std::time::Duration;

use client::Stage;
use protocol::RoomId;
use tests::chaos::Chaos;
use tests::device::{Device, eventually};
use tests::ledger::{self, Checked, Stay};
use tests::proxy::Proxy;
use tests::seed::Seed;
use tests::trouble::During as _;
use tests::world::{World, setup};
use tests::{Outcome, Trouble, inspect, node, together};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

const SETTLE: Duration = Duration::from_mins(1);

/// Waits until everything is everywhere, and compares.
async fn compare(devices: &[&Device], room: &RoomId) -> Outcome<Checked> {
    let mut sent = Vec::new();
    for device in devices {
        device.until_all_accepted(SETTLE).await?;
        sent.extend(device.sent().await?);
    }
    let mut views = Vec::new();
    for device in devices {
        device.until_count(room, sent.len(), SETTLE).await?;
        views.push(device.view(room, Stay::ALWAYS).await?);
    }
    ledger::check(&sent, &views).map_err(Trouble::new)
}

/// Ana and Bea at nodes `0` and `at`, in a room of Ana's.
async fn ana_and_bea(world: &mut World, at: usize) -> Outcome<(Device, Device, RoomId)> {
    let ana = world.person(0, "ana").await?;
    let bea = world.person(at, "bea").await?;
    let room = ana.create_room("room").await?;
    ana.invite(&room, bea.user()).await?;
    bea.until_active(&room).await?;
    Ok((ana, bea, room))
}

async fn speak(
    device: &Device,
    room: &RoomId,
    n: usize,
    pause: (u64, u64),
    mut seed: Seed,
) -> Outcome<()> {
    for i in 1..=n {
        device.send(room, &format!("{} {i}", device.id())).await?;
        sleep(Duration::from_millis(seed.between(pause.0, pause.1))).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_means_stored_under_kill_nine_at_any_moment() -> Outcome<()> {
    let mut seed = Seed::from_environment(11);
    let mut world = World::start("stored", &["a.localhost", "b.localhost"]).await?;
    let (ana, bea, room) = ana_and_bea(&mut world, 1).await?;
    let alf = world.person(0, "alf").await?;
    ana.invite(&room, alf.user()).await?;
    alf.until_active(&room).await?;

    let (ended, traffic) = watch::channel(false);
    let chaos = Chaos {
        kills: 20,
        quiet_min: Duration::from_millis(20),
        quiet_max: Duration::from_millis(600),
        down_max: Duration::from_millis(100),
    };
    let mut during = 0;
    let chaos_seed = seed.branch();
    let watched = ended.subscribe();
    let rage = chaos.rage(&mut world.nodes, chaos_seed, traffic, |_| {
        during += u32::from(!*watched.borrow());
    });
    let speakers = async {
        let devices = [&ana, &bea, &alf];
        let all = devices.map(|d| speak(d, &room, 70, (20, 250), seed.branch()));
        let results = together(all).await;
        ended.send_replace(true);
        results.into_iter().collect::<Outcome<Vec<()>>>()
    };
    let (killed, spoken) = tokio::join!(rage, speakers);
    spoken?;
    let killed = killed?;
    let checked = compare(&[&ana, &bea, &alf], &room).await?;
    assert_eq!((checked.sent, checked.owed), (210, 630));
    assert!(killed >= 20 && during >= 8, "{killed} kills, {during} of them during traffic");
    for node in &world.nodes {
        assert!(inspect::sound(node.data()).await?.newest >= 210);
    }
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_does_not_duplicate_the_message() -> Outcome<()> {
    let mut world = World::start("reply", &["a.localhost", "b.localhost"]).await?;
    // Ana's way to her node leads through a hop that loses replies; so does the way between the nodes.
    let hop = Proxy::start().await?;
    hop.lead_to(world.node(0)?.address()?);
    let line = node::lead_line(&world.invite(0).await?, hop.address())?;
    let folder = world.device_folder("ana");
    let ana = Device::register(&folder, client::Seal::KeyFile, &line, "ana").await?;
    let bea = world.person(1, "bea").await?;
    let room = ana.create_room("room").await?;
    ana.invite(&room, bea.user()).await?;
    bea.until_active(&room).await?;

    for i in 0..12 {
        // A submission to the own node, one that a hub gets from a peer, and one that a follower gets from its hub.
        hop.lose_replies(1);
        let first = ana.send(&room, &format!("from ana {i}")).await?;
        ana.until_accepted(&first, "ana's message").await?;
        let (a, b) = world.two()?;
        a.door().lose_replies(1);
        b.door().lose_replies(1);
        let second = bea.send(&room, &format!("from bea {i}")).await?;
        bea.until_accepted(&second, "bea's message").await?;
    }
    let checked = compare(&[&ana, &bea], &room).await?;
    assert_eq!((checked.sent, checked.owed), (24, 48));
    let (a, b) = world.two()?;
    let lost = (hop.lost(), a.door().lost(), b.door().lost());
    assert!(lost.0 >= 6 && lost.1 >= 6 && lost.2 >= 6, "too few replies were lost: {lost:?}");
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_down_for_longer_than_the_first_backoff_gets_everything_and_the_sender_sees_stored_then_accepted()
-> Outcome<()> {
    let mut world = World::start("peer-down", &["a.localhost", "b.localhost"]).await?;
    let (ana, bea, room) = ana_and_bea(&mut world, 1).await?;

    // The hub is down: Bea's node keeps what she writes.
    world.node(0)?.kill_nine().await?;
    let mut waiting = Vec::new();
    for i in 0..5 {
        let id = bea.send(&room, &format!("while the hub is down {i}")).await?;
        let state = bea.client()?.wait(&id, Stage::Stored, Duration::from_secs(10)).await?;
        assert_eq!((state.stage, state.seq), (Stage::Stored, None));
        waiting.push(id);
    }
    sleep(Duration::from_secs(4)).await;
    for id in &waiting {
        assert_eq!(bea.client()?.state(id).await?.stage, Stage::Stored, "accepted by nobody");
    }
    world.node(0)?.resume().await?;
    for id in &waiting {
        bea.until_accepted(id, "after the hub came back").await?;
        let states = eventually(SETTLE, "accepted was shown", async || {
            let states = bea.record().states.into_iter().filter(|(i, _)| i == id);
            let states: Vec<Stage> = states.map(|(_, s)| s).collect();
            Ok(states.contains(&Stage::Accepted).then_some(states))
        })
        .await?;
        let stored = states.iter().position(|s| *s == Stage::Stored).during("stored was shown")?;
        let accepted = states.iter().rposition(|s| *s == Stage::Accepted);
        assert!(accepted > Some(stored), "{states:?}");
    }

    // Ana's device may still be waiting before it comes back to the hub.
    let id = ana.send(&room, "back again").await?;
    ana.until_accepted(&id, "with everybody back").await?;
    // The follower is down: the hub does not wait for it.
    world.node(1)?.kill_nine().await?;
    for i in 0..5 {
        let begun = Instant::now();
        let id = ana.send(&room, &format!("while the follower is down {i}")).await?;
        ana.until_accepted(&id, "with the follower down").await?;
        assert!(begun.elapsed() < Duration::from_secs(3), "a local message waited for a peer");
    }
    sleep(Duration::from_secs(4)).await;
    world.node(1)?.resume().await?;
    let checked = compare(&[&ana, &bea], &room).await?;
    assert_eq!((checked.sent, checked.owed), (11, 22));
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_messages_wait_for_an_offline_receiver() -> Outcome<()> {
    const WAITING: usize = 10_000;
    // A build without optimisation on a busy machine takes its time.
    const LONG: Duration = Duration::from_mins(5);
    let mut world = World::start("waiting", &["a.localhost", "b.localhost"]).await?;
    let (ana, mut bea, room) = ana_and_bea(&mut world, 1).await?;
    bea.go_offline().await;
    let begun = Instant::now();
    for i in 1..=WAITING {
        ana.send(&room, &format!("waiting {i}")).await?;
    }
    println!("written in {} ms", begun.elapsed().as_millis());
    ana.until_all_accepted(LONG).await?;
    println!("accepted after {} ms", begun.elapsed().as_millis());
    let waiting = eventually(LONG, "the follower has them all", async || {
        let n = inspect::waiting(world.node(1)?.data()).await?;
        Ok((n >= i64::try_from(WAITING)?).then_some(n))
    })
    .await?;
    println!("{waiting} entries wait at bea's node after {} ms", begun.elapsed().as_millis());
    bea.go_online().await?;
    bea.until_count(&room, WAITING, LONG).await?;
    println!("delivered after {} ms", begun.elapsed().as_millis());
    let checked = compare(&[&ana, &bea], &room).await?;
    assert_eq!((checked.sent, checked.owed), (WAITING, 2 * WAITING));
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_devices_sending_at_once_show_the_same_order_everywhere() -> Outcome<()> {
    let mut seed = Seed::from_environment(13);
    let mut world = World::start("order", &["a.localhost", "b.localhost"]).await?;
    let (ana, bea, room) = ana_and_bea(&mut world, 1).await?;
    let laptop = world.further(&ana).await?;
    laptop.until_active(&room).await?;
    let devices = [&ana, &laptop, &bea];
    let all = devices.map(|d| speak(d, &room, 60, (0, 5), seed.branch()));
    together(all).await.into_iter().collect::<Outcome<Vec<()>>>()?;
    let checked = compare(&devices, &room).await?;
    assert_eq!((checked.sent, checked.owed, checked.pairs), (180, 540, 3));
    // They really did send at once: no device's messages stand in one block.
    let timeline = ana.timeline(&room).await?;
    let turns = timeline.windows(2).filter(|w| w[0].device != w[1].device).count();
    assert!(turns >= 20, "only {turns} changes of speaker: this was not at once");
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn receiver_down_sender_restarted_receiver_up_is_delivered_without_a_kick() -> Outcome<()> {
    let mut world = World::start("no-kick", &["a.localhost", "b.localhost"]).await?;
    let (ana, bea, room) = ana_and_bea(&mut world, 1).await?;
    for round in 1..=3 {
        world.node(1)?.kill_nine().await?;
        let id = ana.send(&room, &format!("round {round}")).await?;
        ana.until_accepted(&id, "with the receiver down").await?;
        // Long enough for the sender to have tried and failed.
        sleep(Duration::from_millis(1500)).await;
        world.node(0)?.crash().await?;
        sleep(Duration::from_millis(500)).await;
        world.node(1)?.resume().await?;
        // No further traffic: what was waiting must come by itself.
        bea.until_count(&room, round, Duration::from_secs(20)).await?;
    }
    let checked = compare(&[&ana, &bea], &room).await?;
    assert_eq!((checked.sent, checked.owed), (3, 6));
    assert_eq!((world.node(0)?.kills(), world.node(1)?.kills()), (3, 3));
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_postgresql_keeps_the_same_promises() -> Outcome<()> {
    let Some(url) = tests::postgres::schema("promises").await? else {
        println!("skipped: a node on PostgreSQL under kill -9: WAXWING_POSTGRES is not set");
        return Ok(());
    };
    let mut seed = Seed::from_environment(17);
    let mut hub = setup("a.localhost")?;
    hub.settings.push(("database.url".to_owned(), url));
    let mut world = World::start_with("postgres", vec![hub, setup("b.localhost")?]).await?;
    let (ana, bea, room) = ana_and_bea(&mut world, 1).await?;
    let (ended, traffic) = watch::channel(false);
    let chaos = Chaos { kills: 8, quiet_max: Duration::from_millis(700), ..Chaos::default() };
    let chaos_seed = seed.branch();
    let rage = chaos.rage(&mut world.nodes, chaos_seed, traffic, |_| {});
    let speakers = async {
        let all = [&ana, &bea].map(|d| speak(d, &room, 60, (20, 200), seed.branch()));
        let results = together(all).await;
        ended.send_replace(true);
        results.into_iter().collect::<Outcome<Vec<()>>>()
    };
    let (killed, spoken) = tokio::join!(rage, speakers);
    spoken?;
    assert!(killed? >= 8);
    let checked = compare(&[&ana, &bea], &room).await?;
    assert_eq!((checked.sent, checked.owed), (120, 240));
    world.passed();
    Ok(())
}
