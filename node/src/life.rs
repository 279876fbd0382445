//! Whether the database is the one that this node left, or a copy from before: a backup. PROTOCOL §4.4.
//!
//! The database counts ticks: at each start, every ten seconds and at the end. A file beside it keeps the newest count, written after
//! the database, so it is never ahead of it. A new life begins a million ticks further, so the count alone tells which is newer: another
//! process on the same database that missed the beginning of a life only has fewer.
//!
//! | the file | the database |
//! |---|---|
//! | absent or unreadable | is believed |
//! | as many ticks or fewer | is believed |
//! | more ticks | is a backup: a new life begins |
//!
//! A restore that brings the file back too is not found out; for it there is `waxwing-node restored`.

use std::path::Path;

use protocol::{Entropy, Incarnation, Timestamp};

use crate::error::Error;
use crate::store::identity::{self, Life};
use crate::store::{Store, StoreError};

const FILE: &str = "life";
/// How much further a new life begins: more than one life ticks in a month.
const AHEAD: u64 = 1_000_000;

/// The present life of the database, a new one if it is a backup. Called once at start.
///
/// # Errors
/// When the database or the file cannot be written.
pub(crate) async fn begin(
    store: &Store,
    folder: &Path,
    entropy: &dyn Entropy,
) -> Result<Incarnation, Error> {
    let kept = read(folder);
    let fresh = Incarnation::from_bytes(entropy.bytes16());
    let begun = store
        .write(move |tx| {
            Box::pin(async move {
                let found = identity::life(tx).await?;
                let backup = kept.filter(|k| k.ticks > found.ticks);
                if let Some(kept) = backup {
                    identity::new_incarnation(tx, &fresh, kept.ticks.saturating_add(AHEAD)).await?;
                }
                Ok::<_, StoreError>((identity::tick(tx).await?, backup.is_some()))
            })
        })
        .await;
    let (life, backup) = match begun {
        Ok(begun) => begun,
        // A full disk must not keep the node from giving out what it has; a backup needs its new life written down first.
        Err(StoreError::Full) => {
            let found = identity::life(&mut store.snapshot().await?).await?;
            if kept.is_some_and(|k| k.ticks > found.ticks) {
                return Err(StoreError::Full.into());
            }
            tracing::warn!("the disk is full: how long this life lasts is not noted");
            return Ok(found.incarnation);
        }
        Err(error) => return Err(error.into()),
    };
    if backup {
        tracing::warn!(incarnation = %life.incarnation, "the database is older than it was: it was restored from a backup, and a new life begins");
    }
    match write(folder, &life) {
        Err(error) if !backup => {
            tracing::warn!(%error, "how long this life lasts is not noted: a restored backup would not be found out");
        }
        written => written?,
    }
    Ok(life.incarnation)
}

/// Makes the life one tick longer, and notes how far time has gone.
///
/// # Errors
/// When the database or the file cannot be written.
pub(crate) async fn tick(store: &Store, folder: &Path, aged: Timestamp) -> Result<(), Error> {
    let life = store
        .write(move |tx| {
            Box::pin(async move {
                identity::grow_old(tx, aged).await?;
                identity::tick(tx).await
            })
        })
        .await?;
    write(folder, &life)
}

/// Begins a new life whatever the file says; returns the old and the new one.
///
/// # Errors
/// When the database or the file cannot be written.
pub(crate) async fn restored(
    store: &Store,
    folder: &Path,
    entropy: &dyn Entropy,
) -> Result<(Incarnation, Incarnation), Error> {
    let fresh = Incarnation::from_bytes(entropy.bytes16());
    let kept = read(folder).map_or(0, |k| k.ticks);
    let (old, life) = store
        .write(move |tx| {
            Box::pin(async move {
                let old = identity::life(tx).await?;
                let ticks = old.ticks.max(kept).saturating_add(AHEAD);
                identity::new_incarnation(tx, &fresh, ticks).await?;
                Ok::<_, StoreError>((old.incarnation, identity::tick(tx).await?))
            })
        })
        .await?;
    write(folder, &life)?;
    Ok((old, life.incarnation))
}

fn read(folder: &Path) -> Option<Life> {
    let text = std::fs::read_to_string(folder.join(FILE)).ok()?;
    let (incarnation, ticks) = text.trim().split_once(' ')?;
    Some(Life { incarnation: incarnation.parse().ok()?, ticks: ticks.parse().ok()? })
}

fn write(folder: &Path, life: &Life) -> Result<(), Error> {
    let file = folder.join(FILE);
    let failed = |e| Error::io(format!("{} cannot be written", file.display()))(e);
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, format!("{} {}\n", life.incarnation, life.ticks)).map_err(failed)?;
    std::fs::rename(&fresh, &file).map_err(failed)
}
