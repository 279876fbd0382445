//! `cargo xtask dev --check`: traffic in both directions, SIGKILL in the middle of it, and the books compared at the end.

use std::path::Path;
use std::time::Duration;

use protocol::RoomId;
use tests::chaos::Chaos;
use tests::device::Device;
use tests::ledger::{self, Stay};
use tests::node::Node;
use tests::seed::Seed;
use tests::together;
use tests::trouble::During as _;
use tests::{Outcome, Trouble, inspect};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::cast::Cast;
use crate::story;

/// How much is to happen.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Messages each organisation sends at least.
    pub(crate) messages: usize,
    /// SIGKILLs over both nodes at least.
    pub(crate) kills: u32,
}

/// After the last message and the last kill everything must be everywhere within this.
const SETTLE: Duration = Duration::from_mins(3);

pub(crate) async fn run(folder: &Path, plan: Plan, mut seed: Seed) -> Outcome<()> {
    let begun = Instant::now();
    let mut cast = Cast::assemble(folder).await?;
    let room = cast.room().await?;
    println!("two nodes, {} devices, one room; now traffic and SIGKILL", cast.devices.len());

    let (ended, traffic) = watch::channel(false);
    let chaos = Chaos { kills: plan.kills, ..Chaos::default() };
    let (kills_seen, kills) = watch::channel(0_u32);
    let chaos_seed = seed.branch();
    let rage = chaos.rage(&mut cast.world.nodes, chaos_seed, traffic, |node| {
        kills_seen.send_modify(|n| *n += 1);
        let took = node.longest_start().as_millis();
        println!("killed and restarted {} (longest start so far {took} ms)", node.domain());
    });
    let devices = &cast.devices;
    let speak = async {
        let spoken = everybody_speaks(devices, &room, plan, &mut seed, &kills).await;
        ended.send_replace(true);
        spoken
    };
    let (killed, spoken) = tokio::join!(rage, speak);
    let (killed, during) = (killed?, spoken?);
    println!("traffic ended after {} s; waiting until all is settled", begun.elapsed().as_secs());
    let settled = settle(&cast, &room).await?;
    if during < plan.kills {
        return Trouble::is(format!("only {during} kills happened during traffic"));
    }
    let summary = Summary { killed, during, settled, began: begun };
    summary.compare(cast, &room, plan).await
}

/// Everybody sends until each organisation has sent enough and enough was killed; how many kills there were by then.
async fn everybody_speaks(
    devices: &[(&'static str, Device)],
    room: &RoomId,
    plan: Plan,
    seed: &mut Seed,
    kills: &watch::Receiver<u32>,
) -> Outcome<u32> {
    let mut speakers = Vec::new();
    for (label, device) in devices {
        let domain = device.user().domain();
        let colleagues = devices.iter().filter(|(_, d)| d.user().domain() == domain).count();
        let quota = plan.messages.div_ceil(colleagues);
        speakers.push(speak(
            label,
            device,
            room,
            quota,
            seed.branch(),
            (kills.clone(), plan.kills),
        ));
    }
    together(speakers).await.into_iter().collect::<Outcome<Vec<()>>>()?;
    Ok(*kills.borrow())
}

async fn speak(
    label: &str,
    device: &Device,
    room: &RoomId,
    quota: usize,
    mut seed: Seed,
    (kills, wanted): (watch::Receiver<u32>, u32),
) -> Outcome<()> {
    let mut n = 0;
    while n < quota || *kills.borrow() < wanted {
        n += 1;
        device.send(room, &format!("{label} says {n}")).await?;
        sleep(Duration::from_millis(seed.between(20, 250))).await;
        if n > 10_000 {
            return Trouble::is("ten thousand messages and still not enough kills");
        }
    }
    Ok(())
}

async fn settle(cast: &Cast, room: &RoomId) -> Outcome<Duration> {
    let begun = Instant::now();
    let mut total = 0;
    for (label, device) in &cast.devices {
        device.until_all_accepted(SETTLE).await.during(label)?;
        total += device.record().sent.len();
    }
    for (label, device) in &cast.devices {
        device.until_count(room, total, SETTLE).await.during(label)?;
    }
    Ok(begun.elapsed())
}

struct Summary {
    killed: u32,
    during: u32,
    settled: Duration,
    began: Instant,
}

impl Summary {
    async fn compare(self, cast: Cast, room: &RoomId, plan: Plan) -> Outcome<()> {
        let (mut sent, mut views, mut rooms) = (Vec::new(), Vec::new(), Vec::new());
        for (_, device) in &cast.devices {
            sent.extend(device.sent().await?);
            views.push(device.view(room, Stay::ALWAYS).await?);
            rooms.push(device.room(room).await?.during("the room")?);
        }
        let checked = ledger::check(&sent, &views).map_err(Trouble::new)?;
        let first = rooms.first().during("a device")?;
        if let Some(other) =
            rooms.iter().find(|r| (r.epoch, &r.members) != (first.epoch, &first.members))
        {
            return Trouble::is(format!("members differ: {first:?} and {other:?}"));
        }
        let from =
            |domain: &str| sent.iter().filter(|m| m.device.domain().as_str() == domain).count();
        let (a, b) = (from("a.localhost"), from("b.localhost"));
        if a < plan.messages || b < plan.messages {
            return Trouble::is(format!("too little traffic: {a} and {b} messages"));
        }
        for node in &cast.world.nodes {
            let sound = inspect::sound(node.data()).await.during(node.domain())?;
            println!(
                "{}: {} logs up to number {}, {} entries kept, gapless, chain whole",
                node.domain(),
                sound.logs,
                sound.newest,
                sound.entries
            );
        }
        let recovery = cast.world.nodes.iter().map(Node::longest_start).max().unwrap_or_default();
        println!("nothing lost, doubled or reordered; all devices show the same");
        println!(
            "messages: {a} from a.localhost, {b} from b.localhost; {} shown as owed; {} pairs of devices compared",
            checked.owed, checked.pairs
        );
        println!(
            "kills: {} ({} while people were writing); longest recovery {} ms; settled in {} ms; {} s in all",
            self.killed,
            self.during,
            recovery.as_millis(),
            self.settled.as_millis(),
            self.began.elapsed().as_secs()
        );
        story::end(cast).await
    }
}
