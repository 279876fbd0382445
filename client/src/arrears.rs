//! Whether this device has everything that its node had for it. PROTOCOL §6.7.

use std::collections::BTreeSet;
use std::sync::Arc;

use protocol::api::{LogRef, LogState};

use crate::store::Tx;
use crate::{Client, Error, Result, RoomStatus};

/// See [`crate::Client::caught_up`].
pub(crate) async fn settle(client: &Client) -> Result<()> {
    let inner = &client.inner;
    let mut taken = inner.taken();
    let mut logs = inner.api.logs().await?.logs;
    loop {
        let known: BTreeSet<LogRef> = logs.iter().map(|l| l.log.clone()).collect();
        loop {
            logs = unsettled(client, logs).await?;
            if logs.is_empty() {
                break;
            }
            tokio::select! {
                () = inner.stop.cancelled() => return Err(Error::Stopped),
                moved = taken.changed() => moved.map_err(|_| Error::Stopped)?,
            }
        }
        // Only invitations open further logs, so this ends, however much is being said meanwhile.
        logs = inner.api.logs().await?.logs;
        if logs.iter().all(|l| known.contains(&l.log)) {
            return Ok(());
        }
    }
}

/// What the node listed, from the first on of which something is still to be taken in: so each is looked at once, and not again with every
/// batch that comes.
async fn unsettled(client: &Client, mut logs: Vec<LogState>) -> Result<Vec<LogState>> {
    let inner = Arc::clone(&client.inner);
    let look = async move {
        let mut core = inner.core().await;
        let mut tx = core.read().await?;
        let mut settled = 0;
        for log in &logs {
            if owed(&mut tx, log).await? {
                break;
            }
            settled += 1;
        }
        drop(tx);
        drop(logs.drain(..settled));
        Ok(logs)
    };
    client.apart(look).await
}

async fn owed(tx: &mut Tx<'_>, listed: &LogState) -> Result<bool> {
    let last = listed.until.map_or(listed.head, |until| until.min(listed.head));
    // What was acknowledged is on this disk.
    if listed.cursor.seq >= last {
        return Ok(false);
    }
    let ours = match &listed.log {
        LogRef::Inbox => tx.inbox().await?,
        LogRef::Room(room) => {
            // Without its Welcome, which comes by the inbox, a room cannot be read; nor before a join that is under way, nor while it is held.
            let Some(row) = tx.room(room).await? else { return Ok(false) };
            match row.status {
                RoomStatus::Creating | RoomStatus::Active => row.place.map(|p| p.cursor),
                RoomStatus::Joining | RoomStatus::Held { .. } | RoomStatus::Left => {
                    return Ok(false);
                }
            }
        }
    };
    let same_life = ours.filter(|c| c.incarnation == listed.cursor.incarnation);
    Ok(same_life.is_none_or(|c| c.seq < last))
}
