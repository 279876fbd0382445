//! A follower asks for what it missed: entries of one of our rooms, within what it may have. PROTOCOL §9.7.

use bytes::Bytes;
use federation::client::Batch;
use federation::headers::{FanoutRange, MemberEffects};
use protocol::mimi::BackfillRequest;
use protocol::{Code, Domain, RoomId};

use crate::app::App;
use crate::error::Outcome;
use crate::store::logs::{self, LogName};
use crate::store::readers;
use crate::worker::notify;

/// Entries after a seq, as a notify would bring them; none when the follower has everything.
///
/// # Errors
/// `NotFound` for a room that is not there, and for one that the peer does not follow there.
pub(crate) async fn give(
    app: &App,
    peer: &Domain,
    room: &RoomId,
    ask: BackfillRequest,
) -> Outcome<Batch> {
    let mut tx = app.store.snapshot().await?;
    let log = logs::find(&mut tx, &LogName::Room(room.clone())).await?.ok_or(Code::NotFound)?;
    let stays = readers::stays(&mut tx, log.id, &peer.clone().into()).await?;
    // Only what it may have: within one of its stays.
    let stay = stays.into_iter().rfind(|s| s.from.prev() <= ask.after).ok_or(Code::NotFound)?;
    let until = stay.until.map_or(log.head, |until| until.min(log.head));
    let max = usize::try_from(ask.max).unwrap_or(usize::MAX);
    if let Some(batch) = notify::batch(&mut tx, &log, peer, (ask.after, until), max).await? {
        return Ok(batch);
    }
    let prev_chain = logs::chain_at(&mut tx, &log, ask.after).await?.unwrap_or(log.chain);
    let range =
        FanoutRange { incarnation: log.incarnation, first: ask.after.next(), n: 0, prev_chain };
    Ok(Batch { range, members: MemberEffects::default(), body: Bytes::new() })
}
