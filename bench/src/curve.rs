//! How costs grow: with the members of a room, with what waits for a device, with the rooms of a device, with connections.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;

use crate::report::results::Curve;
use crate::server::{Kind, Server};
use crate::waxwing::node::Node;
use crate::waxwing::{people, seed, stage};
use crate::work::plan::TEXT_BYTES;
use crate::work::{Script, absent, idle};
use crate::{Outcome, failed, float};

/// Names of the curves that there are.
pub const NAMES: &[&str] = &["members", "depth", "rooms", "connections"];

/// Which points.
#[derive(Clone, Debug)]
pub struct Points {
    /// Members of a room.
    pub members: Vec<usize>,
    /// Messages that wait for a device.
    pub depth: Vec<usize>,
    /// Rooms of a device.
    pub rooms: Vec<usize>,
    /// Connections.
    pub connections: Vec<usize>,
    /// Messages stored for each point of `members`.
    pub letters: usize,
    /// Sign-ins for each point of `rooms`.
    pub sign_ins: u32,
}

impl Points {
    /// What the page shows; with `deep`, a million messages that wait, which takes minutes.
    #[must_use]
    pub fn full(deep: bool) -> Self {
        let mut depth = vec![100, 1_000, 10_000, 100_000];
        if deep {
            depth.push(1_000_000);
        }
        Self {
            members: vec![2, 10, 100, 1_000, 10_000],
            depth,
            rooms: vec![1, 10, 100, 1_000, 2_000],
            connections: vec![100, 1_000, 5_000, 10_000],
            letters: 10_000,
            sign_ins: 20,
        }
    }

    /// Everything small, to see that it works.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            members: vec![2, 40],
            depth: vec![20, 60],
            rooms: vec![1, 30],
            connections: vec![5, 20],
            letters: 40,
            sign_ins: 3,
        }
    }
}

/// Measures one curve, each point at a fresh node.
///
/// # Errors
/// When the node refuses.
pub async fn measure(name: &str, points: &Points, folder: &Path) -> Outcome<Curve> {
    let (x, steps, lines): (_, &[usize], &[&str]) = match name {
        "members" => ("members of the room", &points.members, &["µs of processor", "µs of time"]),
        "depth" => {
            ("messages waiting", &points.depth, &["drain: µs of processor", "drain: µs of time"])
        }
        "rooms" => ("rooms of the device", &points.rooms, &["ms of time"]),
        "connections" => {
            ("connections", &points.connections, &["KiB of memory", "logins per second"])
        }
        other => {
            return failed(format!("there is no curve {other}; there are {}", NAMES.join(" ")));
        }
    };
    let y = match name {
        "members" => "storing one message",
        "depth" => "one message",
        "rooms" => "connecting",
        _ => "each",
    };
    let mut curve = Curve { x: x.to_owned(), y: y.to_owned(), ..Curve::default() };
    for step in steps {
        eprintln!("bench: {name}: {step}");
        let folder: PathBuf = folder.join(format!("{name}-{step}"));
        let values = match name {
            "members" => members(*step, points.letters, &folder).await,
            "depth" => depth(*step, &folder).await,
            "rooms" => rooms(*step, points.sign_ins, &folder).await,
            _ => connections(*step, &folder).await,
        };
        for (line, value) in lines.iter().zip(values?) {
            let x = float(u64::try_from(*step)?);
            curve.lines.entry((*line).to_owned()).or_default().push((x, value));
        }
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(curve)
}

/// One speaker; all others are away.
async fn members(count: usize, letters: usize, folder: &Path) -> Outcome<Vec<f64>> {
    let mut node = Node::start(folder, "a.example").await?;
    let script = Script { letters, bytes: TEXT_BYTES };
    let (room, person) = stage::speaker(&node, script).await?;
    seed::crowd(&node, &room, count.saturating_sub(1)).await?;
    let half = absent::hand_in_all(vec![person], &node.roots()).await?;
    node.stop().await;
    let each = float(u64::try_from(letters)?);
    Ok(vec![half.server.cpu.as_secs_f64() * 1e6 / each, half.seconds * 1e6 / each])
}

async fn depth(count: usize, folder: &Path) -> Outcome<Vec<f64>> {
    let mut server = Server::start(Kind::Waxwing, folder).await?;
    let senders = 20.min(count);
    let script = Script { letters: count / senders, bytes: TEXT_BYTES };
    let (people, away) = server.absent(senders, script).await?;
    let found = absent::run(people, away, &server.roots()).await?;
    server.stop().await;
    if found.lost + found.doubled + found.disordered > 0 {
        return failed(format!("the drain is not what was handed in: {found:?}"));
    }
    let each = float(found.count);
    let drain = found.drain;
    Ok(vec![drain.server.cpu.as_secs_f64() * 1e6 / each, drain.seconds * 1e6 / each])
}

async fn rooms(count: usize, sign_ins: u32, folder: &Path) -> Outcome<Vec<f64>> {
    let mut node = Node::start(folder, "a.example").await?;
    let device = people::register(&node, "r", 1).await?.into_iter().next().ok_or("nobody")?;
    seed::quiet_rooms(&node, device.id(), count).await?;
    let account = stage::account(&node, &device);
    // The first one fills the caches.
    account.connect(Arc::default()).await?;
    let begun = Instant::now();
    for _ in 0..sign_ins {
        account.connect(Arc::default()).await?;
    }
    let each = begun.elapsed().as_secs_f64() * 1e3 / f64::from(sign_ins);
    node.stop().await;
    Ok(vec![each])
}

async fn connections(count: usize, folder: &Path) -> Outcome<Vec<f64>> {
    let mut server = Server::start(Kind::Waxwing, folder).await?;
    let accounts = server.idle(count).await?;
    let found = idle::run(&accounts, &server.roots()).await?;
    server.stop().await;
    Ok(vec![found.each / 1024.0, float(found.count) / found.seconds])
}
