//! Timelines as a program sees them.

use protocol::api::GapReason;
use protocol::content::MimiContent;
use protocol::{RoomId, Seq};

use crate::core::Core;
use crate::room::{Message, MessageKey};
use crate::store::{MessageRow, PENDING};
use crate::{Error, Result};

/// Messages per call.
const PAGE: usize = 1_000;

/// A message as its reader sees it.
pub(crate) fn shown(row: MessageRow) -> Message {
    let content = MimiContent::decode(&row.content).ok();
    let text = content.as_ref().and_then(MimiContent::plain_text).unwrap_or_default().to_owned();
    let placed = row.key.seq < PENDING.get();
    Message {
        key: row.key,
        message_id: row.message_id,
        submit_id: row.submit_id,
        sender: row.device.user(),
        device: row.device,
        counter: row.key.counter,
        text,
        seq: placed.then_some(Seq::new(row.key.seq)),
        at: row.at,
        written: row.written,
        late: placed && row.key.seq > row.key.anchor,
        flags: row.flags,
    }
}

/// See [`crate::Client::timeline`].
pub(crate) async fn page(
    core: &mut Core,
    room: &RoomId,
    after: Option<MessageKey>,
    max: usize,
) -> Result<Vec<Message>> {
    let mut tx = core.read().await?;
    let row = tx.room(room).await?.ok_or_else(|| Error::UnknownRoom(room.clone()))?;
    let rows = tx.timeline(row.no, after, limit(max)).await?;
    Ok(rows.into_iter().map(shown).collect())
}

/// See [`crate::Client::latest`].
pub(crate) async fn latest(core: &mut Core, room: &RoomId, max: usize) -> Result<Vec<Message>> {
    let mut tx = core.read().await?;
    let row = tx.room(room).await?.ok_or_else(|| Error::UnknownRoom(room.clone()))?;
    let rows = tx.latest(row.no, limit(max)).await?;
    Ok(rows.into_iter().map(shown).collect())
}

/// See [`crate::Client::gaps`].
pub(crate) async fn gaps(
    core: &mut Core,
    room: &RoomId,
) -> Result<Vec<(Seq, Seq, Option<GapReason>)>> {
    let mut tx = core.read().await?;
    let row = tx.room(room).await?.ok_or_else(|| Error::UnknownRoom(room.clone()))?;
    tx.gaps(row.no).await
}

fn limit(max: usize) -> u32 {
    u32::try_from(max.min(PAGE)).unwrap_or(0)
}
