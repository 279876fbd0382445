//! Ends of things: entries nobody needs or that are too old, forgotten answers, expired offers; certificates that run out; and the disk
//! watch, which stops new submissions before a full disk stops everything.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use delivery::disk::{Ballast as BallastState, Disk, Marks, Step};
use delivery::retention;
use protocol::{Seq, limit};

use crate::app::App;
use crate::error::{Error, Outcome};
use crate::store::disk::{self, Ballast};
use crate::store::logs::{self, Log, LogId, LogName};
use crate::store::{StoreError, Tx, accounts, keypackages, links, peers, readers, submissions};

/// Runs until the node stops.
pub(crate) async fn run(app: Arc<App>) {
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            _ = sweep.tick() => {}
        }
        app.quotas.forget_idle();
        app.wakes.forget_gone();
        doubt(&app);
        let swept = tokio::select! {
            () = app.stop.cancelled() => return,
            swept = sweep_logs(&app) => swept,
        };
        let swept = match swept {
            Ok(()) => purge(&app).await,
            Err(stop) => Err(stop),
        };
        if let Err(stop) = swept {
            tracing::warn!(why = %stop.into_refusal(), "old entries could not be removed; the next sweep does it");
        }
    }
}

/// Notes how long this life lasts and how far time has gone, until the node stops. By itself: a long sweep must not make the window longer in which a backup is not
/// told from the database. PROTOCOL §4.4.
pub(crate) async fn tick(app: Arc<App>) {
    let mut ticks = tokio::time::interval(TICK_EVERY);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // Soon after a clock was set right: certificates with the wrong time in them shut everybody out.
        renew(&app);
        let aged = app.age().shown();
        if let Err(error) = crate::life::tick(&app.store, &app.config.data_dir, aged).await {
            tracing::warn!(%error, "how long this life lasts could not be noted");
        }
    }
}

const TICK_EVERY: Duration = Duration::from_secs(10);
const SWEEP_EVERY: Duration = Duration::from_mins(2);
/// How long a hub keeps what everybody has acknowledged: a follower that is restored from last night's backup asks for it again.
const KEEP_ACKNOWLEDGED: Duration = Duration::from_hours(48);
const LOGS_PAGE: usize = 128;
const PURGE_AT_ONCE: usize = 1_000;

fn renew(app: &App) {
    match app.keys.renew(app.entropy.as_ref(), app.now()) {
        Ok(true) => {
            app.federation.renew(app.keys.identity());
            tracing::info!("the node's certificates were issued anew");
        }
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "the node's certificates could not be issued anew"),
    }
}

/// Says so when the clock shows a time that the node has not lived through, or one that has passed.
fn doubt(app: &App) {
    let (age, now) = (app.age().shown(), app.now());
    let (ahead, behind) = (now.since(age), age.since(now));
    if ahead.max(behind) > DOUBT {
        tracing::warn!(
            ahead_s = ahead.as_secs(),
            behind_s = behind.as_secs(),
            "the clock and the time that this node has run do not agree: nothing is taken to be older than both say; look at the clock"
        );
    }
}

/// More than clocks are corrected by, and more than a node is usually stopped for.
const DOUBT: Duration = Duration::from_hours(24);

async fn sweep_logs(app: &Arc<App>) -> Outcome<()> {
    let mut after: Option<LogId> = None;
    loop {
        let page = logs::kept(&mut app.store.snapshot().await?, after, LOGS_PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.id);
        for log in page {
            // Nothing to do is found out without a place in the writer's queue.
            while removable(&mut app.store.snapshot().await?, app, log.id).await?.is_some() {
                if trim(app, log.id).await? == 0 {
                    break;
                }
            }
        }
    }
}

/// How far the log may be trimmed now.
async fn removable(tx: &mut Tx, app: &App, id: LogId) -> Result<Option<(Log, Seq)>, StoreError> {
    let log = logs::get(tx, id).await?;
    let ends = logs::ends(tx, &log, log.tail.prev()).await?;
    if matches!(log.name, LogName::Uplink(_)) {
        // What was answered `stored` waits until the hub has answered: it is bounded in number and not by age. PROTOCOL §5.4.
        let answered = readers::least_cursor(tx, id).await?.unwrap_or(log.tail.prev());
        let span = retention::removable(&ends, Some(answered), Seq::new(0));
        return Ok(span.map(|s| (log, s.last())));
    }
    let before = app.surely().before(app.config.retention());
    let oldest = usize::try_from(retention::BATCH).unwrap_or(usize::MAX);
    let expired = logs::accepted_before(tx, id, before, oldest).await?;
    let mut least = readers::least_cursor(tx, id).await?.unwrap_or(log.head);
    if matches!(log.name, LogName::Room(_)) {
        let settled = app.surely().before(KEEP_ACKNOWLEDGED);
        least = least.min(logs::accepted_before(tx, id, settled, oldest).await?);
    }
    let span = retention::removable(&ends, Some(least), expired);
    Ok(span.map(|s| (log, s.last())))
}

async fn trim(app: &Arc<App>, id: LogId) -> Outcome<u64> {
    let shared = app.clone();
    app.store
        .write(move |tx| {
            Box::pin(async move {
                let Some((log, last)) = removable(tx, &shared, id).await? else { return Ok(0) };
                // An answer is remembered for so long even where no reader needs the entry any more.
                if matches!(log.name, LogName::Room(_)) {
                    let since = shared.surely().before(limit::IDEMPOTENCY);
                    submissions::outlive(tx, id, last, since).await?;
                }
                let trimmed = logs::trim(tx, &log, last).await?;
                readers::forget_over(tx, id).await?;
                Ok(trimmed.entries)
            })
        })
        .await
}

async fn purge(app: &Arc<App>) -> Outcome<()> {
    while purge_some(app).await? {}
    Ok(())
}

/// Forgets at most [`PURGE_AT_ONCE`] of each kind; says whether there may be more.
async fn purge_some(app: &Arc<App>) -> Outcome<bool> {
    let now = app.surely();
    app.store
        .write(move |tx| {
            Box::pin(async move {
                // An answer is remembered for as long as an entry is kept: never shorter, or a repetition would be taken twice.
                let answers =
                    submissions::purge(tx, now.before(limit::IDEMPOTENCY), PURGE_AT_ONCE).await?;
                links::purge(tx, now).await?;
                accounts::purge_invites(tx, now.before(INVITES_SHOWN)).await?;
                peers::purge_invites(tx, now.before(INVITES_SHOWN)).await?;
                // A Welcome may still come for a package that has just ended.
                let packages =
                    keypackages::purge(tx, now.before(limit::RETENTION), PURGE_AT_ONCE).await?;
                Ok(answers.max(packages) >= PURGE_AT_ONCE as u64)
            })
        })
        .await
}

/// How long an expired invitation is kept: whoever registered with it may repeat the request.
const INVITES_SHOWN: Duration = Duration::from_hours(7 * 24);

/// Watches the free space of the database's disk until the node stops. Only for SQLite: a PostgreSQL server watches its own.
pub(crate) async fn watch_disk(app: Arc<App>, database: PathBuf) {
    let mib = |n: u64| n.saturating_mul(1 << 20);
    let ballast = Ballast::beside(&database, mib(app.config.disk.ballast_mib));
    let low = mib(app.config.disk.low_water_mib);
    let marks =
        Marks { critical: low / 4, low, high: low.saturating_mul(2), ballast: ballast.bytes() };
    let whole = ballast.is_whole().unwrap_or(false);
    let state = if whole { BallastState::Whole } else { BallastState::Freed };
    let mut machine = Disk::new(marks, state);
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            _ = look.tick() => {}
        }
        let folder = database.parent().unwrap_or(&database).to_owned();
        if let Err(error) = observe(&app, &mut machine, &ballast, &folder).await {
            tracing::error!(%error, "the disk could not be looked at");
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(2);

async fn observe(
    app: &App,
    machine: &mut Disk,
    ballast: &Ballast,
    folder: &std::path::Path,
) -> Result<(), Error> {
    // Bounded: freeing and rebuilding the ballast each lead to one more look.
    for _ in 0..3 {
        match machine.observe(disk::free_bytes(folder)?) {
            Step::Accept => {
                app.set_accepting(true);
                return Ok(());
            }
            Step::RefuseNew => {
                app.set_accepting(false);
                return Ok(());
            }
            Step::FreeBallast => {
                app.set_accepting(false);
                ballast.free()?;
                machine.freed();
                tracing::error!(
                    "the disk is full: the ballast was given up so that deliveries go on; free some space"
                );
            }
            Step::RebuildBallast => {
                let build = ballast.clone();
                tokio::task::spawn_blocking(move || build.build()).await??;
                machine.rebuilt();
            }
        }
    }
    Ok(())
}
