//! Whether the database is the one that this node left, or a copy from before: a backup. PROTOCOL §4.4.
//!
//! The database counts ticks: at each start, each minute and at the end. A file beside it keeps the newest count, written after the
//! database, so it is never ahead of it.
//!
//! | the file | the database |
//! |---|---|
//! | absent or unreadable | is believed |
//! | the same life, as many ticks or fewer | is believed |
//! | the same life, more ticks | is a backup: a new life begins |
//! | another life | is a backup of an earlier one: a new life begins |
//!
//! A restore that brings the file back too is not found out; for it there is `waxwing-node restored`.

use std::path::Path;

use protocol::{Entropy, Incarnation};

use crate::error::Error;
use crate::store::identity::{self, Life};
use crate::store::{Store, StoreError};

const FILE: &str = "life";

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
    let (life, backup) = store
        .write(move |tx| {
            Box::pin(async move {
                let found = identity::life(tx).await?;
                let backup = kept
                    .is_some_and(|k| k.incarnation != found.incarnation || k.ticks > found.ticks);
                if backup {
                    identity::new_incarnation(tx, &fresh).await?;
                }
                Ok::<_, StoreError>((identity::tick(tx).await?, backup))
            })
        })
        .await?;
    if backup {
        tracing::warn!(incarnation = %life.incarnation, "the database is older than it was: it was restored from a backup, and a new life begins");
    }
    write(folder, &life)?;
    Ok(life.incarnation)
}

/// Makes the life one tick longer.
///
/// # Errors
/// When the database or the file cannot be written.
pub(crate) async fn tick(store: &Store, folder: &Path) -> Result<(), Error> {
    let life = store.write(|tx| Box::pin(identity::tick(tx))).await?;
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
    let (old, life) = store
        .write(move |tx| {
            Box::pin(async move {
                let old = identity::life(tx).await?.incarnation;
                identity::new_incarnation(tx, &fresh).await?;
                Ok::<_, StoreError>((old, identity::tick(tx).await?))
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
