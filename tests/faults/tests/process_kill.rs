//! Two hundred times SIGKILL, over both of two federated nodes, while people of both talk in rooms that span them.

use std::time::Duration;

use client::Stage;
use protocol::RoomId;
use tests::chaos::Chaos;
use tests::device::Device;
use tests::ledger::{self, Stay};
use tests::seed::Seed;
use tests::trouble::During as _;
use tests::world::World;
use tests::{Outcome, Trouble, inspect, together};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

const KILLS: u32 = 200;
const SETTLE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_kills_under_load_lose_nothing_and_double_nothing() -> Outcome<()> {
    let mut seed = Seed::from_environment(200);
    let mut world = World::start("kills", &["a.localhost", "b.localhost"]).await?;
    let mut people = Vec::new();
    for (i, name) in [(0, "ana"), (0, "alf"), (0, "amy"), (1, "bea"), (1, "bob"), (1, "bix")] {
        people.push(world.person(i, name).await?);
    }
    // A room of either node's, with everybody in both.
    let rooms = [spanning(&people, 0).await?, spanning(&people, 3).await?];

    let (ended, listening) = watch::channel(false);
    let chaos = Chaos {
        kills: KILLS / 2,
        quiet_min: Duration::from_millis(100),
        quiet_max: Duration::from_millis(1300),
        down_max: Duration::from_millis(200),
    };
    // Each node by itself, so that they are also down together.
    let (_, always) = watch::channel(true);
    let begun = Instant::now();
    let busy = std::cell::Cell::new((0_usize, 0_u32));
    let hit = |_: &tests::node::Node| {
        let (before, hits) = busy.get();
        let now = accepted(&people);
        busy.set((now, hits + u32::from(now > before)));
    };
    let (a, b) = world.nodes.split_at_mut(1);
    let (one, other, mut speakers) = (seed.branch(), seed.branch(), seed.branch());
    let rage = async {
        let killed = tokio::join!(
            chaos.rage(a, one, always.clone(), hit),
            chaos.rage(b, other, always.clone(), hit)
        );
        ended.send_replace(true);
        Outcome::Ok(killed.0? + killed.1?)
    };
    let talk =
        together(people.iter().map(|d| speak(d, &rooms, listening.clone(), speakers.branch())));
    let (killed, spoken) = tokio::join!(rage, talk);
    let (killed, raged) = (killed?, begun.elapsed());
    spoken.into_iter().collect::<Outcome<Vec<()>>>()?;
    let during = accepted(&people);

    let (mut sent, mut owed) = (0, 0);
    for device in &people {
        device.until_all_accepted(SETTLE).await?;
    }
    for (room, tag) in rooms.iter().zip(TAGS) {
        let checked = compare(&people, room, tag).await?;
        sent += checked.sent;
        owed += checked.owed;
    }
    let longest = world.nodes.iter().map(tests::node::Node::longest_start).max();
    let reconnects: u32 = people.iter().map(|d| d.record().connects).sum();
    println!(
        "{killed} kills in {} s, {} of them after something new was accepted; {sent} messages, {owed} deliveries owed and made, {during} accepted meanwhile; {reconnects} connections of devices; longest recovery {} ms; settled {} s after the last kill",
        raged.as_secs(),
        busy.get().1,
        longest.during("a start")?.as_millis(),
        begun.elapsed().saturating_sub(raged).as_secs(),
    );
    assert_eq!(owed, sent * people.len());
    assert!(killed >= KILLS, "only {killed} kills");
    assert!(busy.get().1 >= KILLS / 4, "only {} kills hit a node that worked", busy.get().1);
    assert!(sent >= 500 && during >= 200, "{sent} sent, {during} accepted: this was no load");
    for node in &mut world.nodes {
        node.stop().await?;
        let sound = inspect::sound(node.data()).await?;
        assert!(sound.newest >= i64::try_from(sent / 3)?, "{sound:?}");
    }
    world.passed();
    Ok(())
}

/// What a text of each room begins with.
const TAGS: [&str; 2] = ["first", "second"];

async fn spanning(people: &[Device], founder: usize) -> Outcome<RoomId> {
    let host = people.get(founder).during("a founder")?;
    let room = host.create_room("room").await?;
    for guest in people.iter().filter(|p| p.id() != host.id()) {
        host.invite(&room, guest.user()).await?;
        guest.until_active(&room).await?;
    }
    Ok(room)
}

async fn speak(
    device: &Device,
    rooms: &[RoomId; 2],
    ended: watch::Receiver<bool>,
    mut seed: Seed,
) -> Outcome<()> {
    let mut n = 0;
    while !*ended.borrow() {
        for (room, tag) in rooms.iter().zip(TAGS) {
            n += 1;
            device.send(room, &format!("{tag} {} {n}", device.id())).await?;
            sleep(Duration::from_millis(seed.between(100, 900))).await;
        }
    }
    Ok(())
}

/// How often the devices were told that something of theirs was accepted.
fn accepted(people: &[Device]) -> usize {
    let of = |d: &Device| d.record().states.iter().filter(|(_, s)| *s == Stage::Accepted).count();
    people.iter().map(of).sum()
}

async fn compare(people: &[Device], room: &RoomId, tag: &str) -> Outcome<ledger::Checked> {
    let (mut sent, mut views) = (Vec::new(), Vec::new());
    for device in people {
        let mine = device.sent().await?;
        sent.extend(mine.into_iter().filter(|m| m.text.starts_with(tag)));
    }
    for device in people {
        device.until_count(room, sent.len(), SETTLE).await?;
        views.push(device.view(room, Stay::ALWAYS).await?);
    }
    ledger::check(&sent, &views).map_err(Trouble::new)
}
