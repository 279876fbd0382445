//! Devices that sign in and then are silent.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::gather;
use crate::link::Account;
use crate::process::{self, Usage};
use crate::{Outcome, float};

/// Memory is looked at when what signing in left behind has been cleaned up.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// What it gave.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Connections.
    pub count: u64,
    /// How long signing in took.
    pub seconds: f64,
    /// What the servers used for it.
    pub server: Usage,
    /// What this process used for it.
    pub load: Usage,
    /// Bytes of memory for each connection.
    pub each: f64,
    /// Bytes of memory before anybody came.
    pub before: u64,
}

/// Signs all in and looks.
///
/// # Errors
/// When the server refuses anybody.
pub async fn run(accounts: &[Account], roots: &[u32]) -> Outcome<Idle> {
    // The first connection loads what all of them share.
    let first = gather::links(accounts.get(..1).unwrap_or_default()).await?;
    sleep(SETTLED_AFTER).await;
    let before = (process::resident(roots), process::usage(roots), process::own());
    let begun = Instant::now();
    let rest = gather::links(accounts.get(1..).unwrap_or_default()).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let (server, load) = (process::usage(roots).since(before.1), process::own().since(before.2));
    sleep(SETTLED_AFTER).await;
    let after = process::resident(roots);
    let count = u64::try_from(rest.len())?;
    let each = float(after.saturating_sub(before.0)) / float(count.max(1));
    drop((first, rest));
    Ok(Idle { count, seconds, server, load, each, before: before.0 })
}
