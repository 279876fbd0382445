//! Finds lanes with something to deliver and starts them. Knows nothing that the database does not: after a start it finds the same
//! lanes again, without being kicked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::Domain;

use super::lane;
use crate::app::App;
use crate::error::Outcome;
use crate::store::logs::{self, LogId, LogName};
use crate::store::{lanes, members, peers};
use crate::wake::News;

/// Lanes that run in this process.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<BTreeMap<(LogId, Domain), Arc<lane::Signal>>>);

impl Running {
    /// Starts a lane, or tells the running one to look again.
    fn start(&self, app: &Arc<App>, log: LogId, peer: &Domain) {
        let mut running = self.locked();
        if let Some(signal) = running.get(&(log, peer.clone())) {
            signal.again();
            return;
        }
        let signal = Arc::new(lane::Signal::default());
        running.insert((log, peer.clone()), signal.clone());
        drop(running);
        let (app_, peer) = (app.clone(), peer.clone());
        app.tasks.spawn(async move { lane::run(&app_, log, peer, &signal).await });
    }

    /// A lane is about to end; false when there is news for it after all.
    pub(super) fn end(&self, log: LogId, peer: &Domain, signal: &lane::Signal) -> bool {
        let mut running = self.locked();
        if signal.taken() {
            return false;
        }
        running.remove(&(log, peer.clone()));
        true
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<(LogId, Domain), Arc<lane::Signal>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until the node stops.
pub(crate) async fn run(app: Arc<App>) {
    let sleeper = app.wakes.lanes();
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    let mut readers = Readers::default();
    loop {
        let done = tokio::select! {
            () = app.stop.cancelled() => return,
            news = sleeper.news() => take(&app, &mut readers, news).await,
            _ = sweep.tick() => { readers.0.clear(); all(&app).await }
        };
        if let Err(stop) = done {
            tracing::warn!(why = %stop.into_refusal(), "lanes could not be looked for; the next look finds them");
        }
    }
}

/// Which peers read which log. Only a memory: every change of readers, and every sweep, clears it.
#[derive(Default)]
struct Readers(BTreeMap<LogId, Vec<Domain>>);

async fn take(app: &Arc<App>, readers: &mut Readers, news: News) -> Outcome<()> {
    if news.reload {
        readers.0.clear();
        all(app).await?;
    }
    for peer in news.peers {
        readers.0.clear();
        one(app, &peer).await?;
    }
    for log in news.changed {
        if !readers.0.contains_key(&log) {
            if readers.0.len() >= READERS_MAX {
                readers.0.clear();
            }
            let peers = peers_of(app, log).await?;
            readers.0.insert(log, peers);
        }
        for peer in readers.0.get(&log).into_iter().flatten() {
            app.running.start(app, log, peer);
        }
    }
    Ok(())
}

/// The peers that a log is delivered to.
async fn peers_of(app: &App, log: LogId) -> Outcome<Vec<Domain>> {
    let mut tx = app.store.snapshot().await?;
    let log = logs::get(&mut tx, log).await?;
    Ok(match log.name {
        LogName::Room(_) => {
            let mut domains = members::domains(&mut tx, log.id).await?;
            domains.retain(|d| *d != app.domain);
            domains
        }
        LogName::Uplink(_) => vec![log.hub],
        LogName::Replica(_) | LogName::Inbox(_) => Vec::new(),
    })
}

async fn all(app: &Arc<App>) -> Outcome<()> {
    let peers: BTreeSet<Domain> =
        lanes::peers_behind(&mut app.store.snapshot().await?).await?.into_iter().collect();
    for peer in peers {
        one(app, &peer).await?;
    }
    Ok(())
}

async fn one(app: &Arc<App>, peer: &Domain) -> Outcome<()> {
    let mut tx = app.store.snapshot().await?;
    if peers::find(&mut tx, peer).await?.is_none_or(|p| p.state == peers::PeerState::Blocked) {
        return Ok(());
    }
    let behind = lanes::behind(&mut tx, peer, LANES_AT_ONCE).await?;
    drop(tx);
    for lane in behind.into_iter().filter(|b| b.lane.parked.is_none()) {
        app.running.start(app, lane.log.id, peer);
    }
    Ok(())
}

/// How often everything is looked for, in case a wake-up was lost or came from another process.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// Lanes of one peer that run at once; the next sweep starts the others.
const LANES_AT_ONCE: usize = 1_024;
const READERS_MAX: usize = 100_000;
