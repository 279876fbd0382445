//! Carries commands out, several rooms at once, so that one that waits for a far node holds up nobody else's.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::until;
use crate::command::{self, Next};
use crate::inner::Inner;
use crate::store::RoomNo;
use crate::{Error, Result};

/// Commands under way at once.
const CONCURRENT: usize = 8;
/// Looks for work at least this often, whatever the timers say.
const IDLE_MAX: Duration = Duration::from_mins(1);

/// Runs until something of ours fails.
///
/// # Errors
/// The disk's, or a bug.
pub(super) async fn run(inner: &Inner) -> Result<()> {
    let mut busy = BTreeSet::new();
    let mut under_way = FuturesUnordered::new();
    loop {
        // Those under way may hold the core, so nothing here waits for it without letting them go on.
        tokio::select! {
            Some((room, carried)) = under_way.next(), if !under_way.is_empty() => {
                busy.remove(&room);
                carried?;
            }
            picked = pick(inner, &busy), if under_way.len() < CONCURRENT => {
                let (position, room) = picked?;
                busy.insert(room);
                under_way.push(async move { (room, carry(inner, position).await) });
            }
        }
    }
}

/// A fault of ours in one command ends that command and nothing else.
async fn carry(inner: &Inner, position: u64) -> Result<()> {
    match command::carry_out(inner, position).await {
        Err(e @ (Error::Crypto(_) | Error::Corrupt { .. })) => {
            tracing::error!(cause = %e, "a change to a room could not be carried out");
            inner.work(async |work| command::broken(work, position, &e).await).await
        }
        other => other,
    }
}

/// Waits for a command that can be carried out.
async fn pick(inner: &Inner, busy: &BTreeSet<RoomNo>) -> Result<(u64, RoomNo)> {
    loop {
        let now = inner.world.clock.now();
        let next = command::next(inner.core().await.commands().await?, busy, now);
        let wait = match next {
            Next::Carry(position, room) => return Ok((position, room)),
            Next::WaitUntil(at) => until(now, at),
            Next::Idle => IDLE_MAX,
        };
        tokio::select! {
            () = inner.commands.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
