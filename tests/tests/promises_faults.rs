//! Promises 5 and 6 of the design, over real processes: no node can read, and trouble stays where it is.

use std::time::Duration;

use client::{Seal, Stage};
use tests::device::{Device, eventually};
use tests::disk::SmallDisk;
use tests::scan::Canary;
use tests::trouble::During as _;
use tests::world::{World, setup};
use tests::{Outcome, inspect};
use tokio::time::{Instant, sleep};

const SETTLE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn no_node_can_read() -> Outcome<()> {
    let text = "canary-59c1: the yellow feathers are under the rowan tree";
    let canary = Canary::new(text);
    let mut world = World::start("canary", &["a.localhost", "b.localhost"]).await?;
    let (a, b) = world.two()?;
    a.door().capture();
    b.door().capture();
    // Bea keeps her messages readable: there the same scan must find the text.
    let ana = world.person(0, "ana").await?;
    let line = world.invite(1).await?;
    let folder = world.device_folder("bea");
    let mut bea = Device::register(&folder, Seal::Unsealed, &line, "bea").await?;
    let room = ana.create_room("room").await?;
    ana.invite(&room, bea.user()).await?;
    bea.until_active(&room).await?;
    for (device, other) in [(&ana, &bea), (&bea, &ana)] {
        let id = device.send(&room, &format!("{text}, says {}", device.id())).await?;
        device.until_accepted(&id, "the canary").await?;
        let count = other.count(&room).await?;
        other.until_count(&room, count.max(1), SETTLE).await?;
    }
    ana.until_count(&room, 2, SETTLE).await?;
    bea.until_count(&room, 2, SETTLE).await?;

    for node in &world.nodes {
        // Database, write-ahead log, keys, configuration and log file; while it runs, and again when it has stopped.
        let folder = node.config();
        let found = canary.find_in(folder.parent().during("the node's folder")?)?;
        assert!(found.places.is_empty(), "{:?}", found.places);
        assert!(found.files >= 3 && found.bytes > 50_000, "looked at too little: {found:?}");
        let captured = node.door().captured();
        assert!(captured.len() > 2_000, "{} captured bytes at {}", captured.len(), node.domain());
        assert_eq!(canary.find(&captured), None);
        assert!(inspect::newest(node.data()).await?.body.len() > text.len());
    }
    let sealed = canary.find_in(ana.folder())?;
    assert!(sealed.places.is_empty() && sealed.files > 0, "{:?}", sealed.places);
    bea.go_offline().await;
    let readable = canary.find_in(bea.folder())?;
    assert!(!readable.places.is_empty(), "the scan finds nothing even where the text is");
    for node in &mut world.nodes {
        node.stop().await?;
        let folder = node.config();
        let found = canary.find_in(folder.parent().during("the node's folder")?)?;
        assert!(found.places.is_empty(), "{:?}", found.places);
    }
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_peer_hurts_only_traffic_with_that_peer() -> Outcome<()> {
    let domains = ["a.localhost", "b.localhost", "c.localhost"];
    let mut world = World::start("dead-peer", &domains).await?;
    let ana = world.person(0, "ana").await?;
    let bea = world.person(1, "bea").await?;
    let cid = world.person(2, "cid").await?;
    let room = ana.create_room("room").await?;
    for guest in [&bea, &cid] {
        ana.invite(&room, guest.user()).await?;
        guest.until_active(&room).await?;
    }
    // There, but it answers nothing: the worst kind of dead.
    world.node(2)?.freeze().await?;
    let mut slowest = Duration::ZERO;
    for i in 0..10 {
        let (speaker, listener) = if i % 2 == 0 { (&ana, &bea) } else { (&bea, &ana) };
        let begun = Instant::now();
        let id = speaker.send(&room, &format!("without cid {i}")).await?;
        speaker.until_accepted(&id, "with a dead peer").await?;
        listener.until_count(&room, i + 1, Duration::from_secs(5)).await?;
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(3), "the dead peer slowed others down: {slowest:?}");
    // Other work at the hub goes on as well, what needs the dead peer's room included.
    let alf = world.person(0, "alf").await?;
    ana.invite(&room, alf.user()).await?;
    alf.until_active(&room).await?;
    assert_eq!(cid.count(&room).await?, 0, "the peer was not dead");
    world.node(2)?.thaw().await?;
    cid.until_count(&room, 10, SETTLE).await?;
    let texts = |m: Vec<client::Message>| m.into_iter().map(|m| m.text).collect::<Vec<_>>();
    assert_eq!(texts(cid.timeline(&room).await?), texts(ana.timeline(&room).await?));
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_told_what_keeps_a_peer_from_getting_its_messages() -> Outcome<()> {
    let mut world = World::start("last-error", &["a.localhost", "b.localhost"]).await?;
    let ana = world.person(0, "ana").await?;
    let bea = world.person(1, "bea").await?;
    let room = ana.create_room("room").await?;
    ana.invite(&room, bea.user()).await?;
    bea.until_active(&room).await?;
    assert_eq!(last_errors(&world).await?, [None, None], "nothing is wrong yet");
    world.node(1)?.stop().await?;
    ana.send(&room, "into the dark").await?;
    eventually(SETTLE, "the peer's trouble is told", async || {
        let told = last_errors(&world).await?;
        Ok(told.iter().all(|e| e.as_ref().is_some_and(|e| !e.is_empty())).then_some(()))
    })
    .await?;
    world.node(1)?.resume().await?;
    bea.until_count(&room, 1, SETTLE).await?;
    eventually(SETTLE, "the trouble is over", async || {
        Ok((last_errors(&world).await? == [None, None]).then_some(()))
    })
    .await?;
    world.passed();
    Ok(())
}

/// What the first node says of its one peer's trouble, in `peer list` and in `status`.
async fn last_errors(world: &World) -> Outcome<[Option<String>; 2]> {
    let node = world.nodes.first().during("a node")?;
    let list: serde_json::Value =
        serde_json::from_str(&node.command(&["-o", "json", "peer", "list"]).await?)?;
    let status: serde_json::Value =
        serde_json::from_str(&node.command(&["-o", "json", "status"]).await?)?;
    let error = |said: &serde_json::Value| -> Outcome<Option<String>> {
        let told = said.pointer("/peers/0/last_error").during("the peer's last error")?;
        Ok(told.as_str().map(str::to_owned))
    };
    Ok([error(&list)?, error(&status)?])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_has_one_node_and_looking_keeps_none_out() -> Outcome<()> {
    let mut world = World::start("one", &["a.localhost"]).await?;
    let second = world.node(0)?.command(&["run"]).await.err().during("a refusal")?.to_string();
    assert!(second.contains("75") && second.contains("RUNNING"), "{second}");
    let restored = world.node(0)?.command(&["restored"]).await.err().during("a refusal")?;
    assert!(restored.to_string().contains("RUNNING"), "{restored}");
    world.person(0, "ana").await?;
    // A monitor that looks all the time, while the node is killed and started.
    let folder = world.node(0)?.data().to_owned();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let monitor = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut looks = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if let Ok(file) = std::fs::File::open(folder.join("lock")) {
                    // As `status` does it: shared, and let go at once.
                    looks += u64::from(file.try_lock_shared().is_ok());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            looks
        }
    });
    for _ in 0..5 {
        world.node(0)?.kill_nine().await?;
        world.node(0)?.resume().await?;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(monitor.join().is_ok_and(|looks| looks > 0), "nobody looked");
    let status = world.node(0)?.command(&["status"]).await?;
    assert!(status.contains("listening on"), "{status}");
    world.passed();
    Ok(())
}

/// The node looks at its disk every two seconds.
const LOOK: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_new_and_keeps_delivering() -> Outcome<()> {
    let place = tests::folder::temporary("small-disk")?;
    let Some(disk) = SmallDisk::mount(&place.path().join("disk"), 256) else {
        println!("skipped: a node on a full disk: only root may mount a small one");
        return Ok(());
    };
    let mut hub = setup("a.localhost")?;
    hub.data = Some(disk.path().join("data"));
    hub.settings.push(("disk.low_water_mib".to_owned(), "24".to_owned()));
    let mut world = World::start_with("full-disk", vec![hub, setup("b.localhost")?]).await?;
    let ana = world.person(0, "ana").await?;
    let mut alf = world.person(0, "alf").await?;
    let room = ana.create_room("room").await?;
    ana.invite(&room, alf.user()).await?;
    alf.until_active(&room).await?;
    alf.go_offline().await;
    for i in 0..20 {
        let id = ana.send(&room, &format!("before {i}")).await?;
        ana.until_accepted(&id, "with room on the disk").await?;
    }
    let before = inspect::waiting(world.node(0)?.data()).await?;
    assert!(before >= 20, "{before} entries wait");

    // Nearly full: nothing new is taken.
    disk.fill(12)?;
    let ballast = disk.path().join("data/node.db.ballast");
    sleep(LOOK).await;
    assert!(ballast.exists());
    let refused = ana.send(&room, "while it is full").await?;
    // Full: the ballast is given up, so that there is room to deliver and to acknowledge.
    disk.fill(1)?;
    eventually(2 * LOOK, "the ballast is given up", async || Ok((!ballast.exists()).then_some(())))
        .await?;
    disk.fill(4)?;
    let state = ana.client()?.state(&refused).await?;
    assert!(state.stage < Stage::Stored && state.failed.is_none(), "{state:?}");
    // What is there is delivered and acknowledged, on the same full disk.
    alf.go_online().await?;
    alf.until_count(&room, 20, SETTLE).await?;
    eventually(SETTLE, "everything is acknowledged", async || {
        let left = inspect::waiting(world.node(0)?.data()).await?;
        Ok((left == 0).then_some(()))
    })
    .await?;
    assert_eq!(ana.client()?.state(&refused).await?.seq, None, "the disk was not full");

    disk.free()?;
    eventually(2 * LOOK, "the ballast is back", async || Ok(ballast.exists().then_some(())))
        .await?;
    ana.until_accepted(&refused, "with room again").await?;
    alf.until_count(&room, 21, SETTLE).await?;
    assert!(world.node(0)?.starts() == 1, "it did not even restart");
    inspect::sound(world.node(0)?.data()).await?;
    ana.until_all_accepted(SETTLE).await?;
    let mut world = world;
    world.node(0)?.stop().await?;
    drop(disk);
    world.passed();
    Ok(())
}
