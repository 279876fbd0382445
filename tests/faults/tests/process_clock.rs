//! A clock that is set wrong under one of two nodes, in both directions, while it runs and while it is down, and set right again.

use std::time::Duration;

use client::Stage;
use faults::process::clock::Clock;
use faults::process::plain::Plain;
use http::StatusCode;
use protocol::api::{Revoke, Submit};
use protocol::{Code, DeviceId, RoomId};
use tests::device::{Device, eventually};
use tests::ledger::{self, Stay};
use tests::node::Node;
use tests::seed::Seed;
use tests::trouble::During as _;
use tests::world::World;
use tests::{Outcome, Trouble, inspect};
use tokio::time::sleep;

const SETTLE: Duration = Duration::from_mins(1);
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// What the clock is set wrong by. The last but one is before 1970, and reads as 1970.
const JUMPS: [(&str, i64); 6] = [
    ("an hour back", -HOUR),
    ("an hour on", HOUR),
    ("a day back", -DAY),
    ("a day on", DAY),
    ("back to 1970", -60 * YEAR),
    ("ten years on", 10 * YEAR),
];
/// Messages that wait for a device that is off.
const WAITING: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_and_comes_back_loses_nothing_and_expires_nothing() -> Outcome<()> {
    let mut seed = Seed::from_environment(47);
    let mut world = World::start("clock", &["a.localhost", "b.localhost"]).await?;
    let folder = world.root().to_owned();
    let Some(clock) = Clock::of(world.node(0)?, &folder)? else {
        println!("skipped: a node whose clock jumps: libfaketime is not installed and cannot be");
        return Ok(());
    };
    world.node(0)?.crash().await?;
    let ana = world.person(0, "ana").await?;
    let mut alf = world.person(0, "alf").await?;
    let bea = world.person(1, "bea").await?;
    let rooms = rooms(&ana, &alf, &bea).await?;
    alf.go_offline().await;
    for i in 0..WAITING {
        ana.send(&rooms[0], &format!("first {i} for alf")).await?;
        ana.send(&rooms[1], &format!("second {i} for alf")).await?;
    }
    ana.until_all_accepted(SETTLE).await?;
    bea.until_count(&rooms[1], WAITING, SETTLE).await?;
    let mut witness = Witness::new(world.node(0)?).await?;

    let mut held = 0;
    for jump in JUMPS {
        let pause = Duration::from_millis(seed.between(1_000, 2_000));
        held += while_it_runs(&clock, jump, pause, (&ana, &bea, &rooms), &mut witness).await?;
        while_it_is_down(&clock, jump, world.node(0)?, alf.id()).await?;
        witness.check(jump.0).await?;
    }
    alf.go_online().await?;
    let mut sums = (0, 0);
    for (room, tag) in rooms.iter().zip(["first", "second"]) {
        let compared = compare(&[&ana, &alf, &bea], room, tag).await?;
        sums = (sums.0 + compared.sent, sums.1 + compared.owed);
    }
    println!(
        "{} jumps while it ran and as many while it was down; {} messages, {} deliveries owed and made; {held} had to wait for the right time",
        JUMPS.len(),
        sums.0,
        sums.1
    );
    assert!(held > 0, "no message had to wait: the clock did not jump");
    assert_eq!(sums.1, 3 * sums.0);
    // KeyPackages are there, so people can still be invited.
    let room = bea.create_room("third").await?;
    for user in [ana.user(), alf.user()] {
        bea.invite(&room, user).await?;
    }
    alf.until_active(&room).await?;
    world.passed();
    Ok(())
}

/// The one whose clock jumps is the hub of the first room and a follower in the second.
async fn rooms(ana: &Device, alf: &Device, bea: &Device) -> Outcome<[RoomId; 2]> {
    let rooms = [ana.create_room("first").await?, bea.create_room("second").await?];
    for (host, guest, room) in [(ana, bea, &rooms[0]), (bea, ana, &rooms[1])] {
        for user in [guest.user(), alf.user()] {
            host.invite(room, user).await?;
        }
        guest.until_active(room).await?;
        alf.until_active(room).await?;
    }
    Ok(rooms)
}

/// The clock jumps under the running node and comes back; how many messages had to wait for that.
async fn while_it_runs(
    clock: &Clock,
    (name, by): (&str, i64),
    pause: Duration,
    (ana, bea, rooms): (&Device, &Device, &[RoomId; 2]),
    witness: &mut Witness,
) -> Outcome<u32> {
    clock.shift(by)?;
    // People talk, but for the room whose time would run away with its hub's clock.
    let mut waiting = Vec::new();
    for i in 0..3 {
        for (device, room, tag) in speakers(ana, bea, rooms, by) {
            let text = format!("{tag} {name} {i} of {}", device.id());
            waiting.push((device, device.send(room, &text).await?));
        }
    }
    witness.check(name).await?;
    let cid = &mut witness.cid;
    let fresh = cid.message(name)?;
    if by < 0 {
        // A hub does not give out a time that has passed, and says when to ask again: soon, for the clock may be set right.
        let refused = cid.submit(&fresh).await?;
        assert_eq!(refused.code, Some(Code::Unavailable), "{name}: {refused:?}");
        assert!(refused.retry_after.is_some_and(|s| s <= 30), "{name}: {refused:?}");
    }
    sleep(pause).await;
    let mut held = 0;
    for (device, id) in &waiting {
        held += u32::from(device.client()?.state(id).await?.stage < Stage::Accepted);
    }
    clock.shift(0)?;
    if by < 0 {
        let what = format!("after {name}, a message when the clock was right");
        eventually(Duration::from_secs(5), &what, async || Ok(cid.submit(&fresh).await?.place()))
            .await?;
    }
    witness.check(name).await?;
    // What waits for the right time must not be taken at a wrong one: the room's time would run away.
    for device in [ana, bea] {
        device.until_all_accepted(SETTLE).await?;
    }
    Ok(held)
}

/// The node starts with the wrong time, and looks at once for what has expired.
async fn while_it_is_down(
    clock: &Clock,
    (name, by): (&str, i64),
    node: &mut Node,
    absent: &DeviceId,
) -> Outcome<()> {
    node.stop().await?;
    let before = inspect::kept(node.data(), absent.as_str()).await?;
    clock.shift(by)?;
    node.resume().await?;
    sleep(Duration::from_millis(1_500)).await;
    node.stop().await?;
    let after = inspect::kept(node.data(), absent.as_str()).await?;
    assert!(before >= 2 * i64::try_from(WAITING)?, "{before} entries wait");
    assert!(after >= before, "{name}: of {before} entries {after} are left");
    clock.shift(0)?;
    node.resume().await
}

type Speaker<'a> = (&'a Device, &'a RoomId, &'static str);

fn speakers<'a>(
    ana: &'a Device,
    bea: &'a Device,
    [first, second]: &'a [RoomId; 2],
    by: i64,
) -> Vec<Speaker<'a>> {
    let mut all = vec![(ana, second, "second"), (bea, second, "second")];
    if by < 0 {
        all.extend([(ana, first, "first"), (bea, first, "first")]);
    }
    all
}

/// Who notices whether the node remembers: one that was answered, and one that was sent away.
struct Witness {
    cid: Plain,
    said: Submit,
    seq: u64,
    gone: Plain,
}

impl Witness {
    async fn new(node: &Node) -> Outcome<Self> {
        let mut cid = Plain::register(node, "cid").await?;
        let said = cid.message("the first of all")?;
        let place = cid.submit(&said).await?.place().during("a place")?;
        let mut gone = Plain::register(node, "gone").await?;
        let device = gone.device().clone();
        let revoked = gone.post("/v1/devices/revoke", &Revoke { device }).await?;
        assert!(revoked.status.is_success(), "{revoked:?}");
        Ok(Self { cid, said, seq: place.place.seq.get(), gone })
    }

    /// What was answered is answered the same again, and who was sent away stays away.
    async fn check(&mut self, name: &str) -> Outcome<()> {
        let again = self.cid.submit(&self.said).await?;
        let place = again.place().during(format!("{name}: {again:?}"))?;
        assert_eq!(place.place.seq.get(), self.seq, "{name}: the same message, another place");
        let read = self.cid.read(0).await?;
        assert_eq!(read.status, StatusCode::OK, "{name}: {read:?}");
        self.cid.check().await?;
        let refused = self.gone.read(0).await?;
        assert_eq!(refused.code, Some(Code::Unauthenticated), "{name}: {refused:?}");
        Ok(())
    }
}

async fn compare(people: &[&Device], room: &RoomId, tag: &str) -> Outcome<ledger::Checked> {
    let (mut sent, mut views) = (Vec::new(), Vec::new());
    for device in people {
        device.until_all_accepted(SETTLE).await?;
        let mine = device.sent().await?;
        sent.extend(mine.into_iter().filter(|m| m.text.starts_with(tag)));
    }
    for device in people {
        device.until_count(room, sent.len(), SETTLE).await?;
        views.push(device.view(room, Stay::ALWAYS).await?);
    }
    ledger::check(&sent, &views).map_err(Trouble::new)
}
