//! Carries commands out, several rooms at once, so that one that waits for a far node holds up nobody else's.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::until;
use crate::Result;
use crate::command::{self, Next};
use crate::inner::Inner;

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
        let mut wait = IDLE_MAX;
        while under_way.len() < CONCURRENT {
            let now = inner.world.clock.now();
            let next = command::next(inner.core().await.commands().await?, &busy, now);
            match next {
                Next::Carry(position, room) => {
                    busy.insert(room);
                    under_way
                        .push(async move { (room, command::carry_out(inner, position).await) });
                }
                Next::WaitUntil(at) => {
                    wait = wait.min(until(now, at));
                    break;
                }
                Next::Idle => break,
            }
        }
        tokio::select! {
            Some((room, carried)) = under_way.next(), if !under_way.is_empty() => {
                busy.remove(&room);
                carried?;
            }
            () = inner.commands.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
