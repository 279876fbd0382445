//! A question of a device that another node must answer: asked now, answered now or not at all.

use std::sync::Arc;

use bytes::Bytes;
use delivery::breaker::Dial;
use federation::{Outcome, Peer, Why};
use protocol::{Code, Domain, Refusal, RoomId, UserId};

use super::peers;
use crate::app::App;
use crate::error;

/// `keyMaterial` at `peer`, the room's hub or the target's node.
///
/// # Errors
/// `UnknownPeer`, `PeerUnreachable`, or what it says.
pub(crate) async fn key_material(
    app: &Arc<App>,
    peer: &Domain,
    target: &UserId,
    body: Vec<u8>,
) -> error::Outcome<Vec<u8>> {
    let peer = peers::active(app, peer).await?;
    let ask = Box::pin(app.federation.key_material(&peer, target, Bytes::from(body)));
    Ok(asked(app, &peer, ask).await?.encode())
}

/// `groupInfo` at the room's hub.
///
/// # Errors
/// As [`key_material`].
pub(crate) async fn group_info(
    app: &Arc<App>,
    room: &RoomId,
    body: Vec<u8>,
) -> error::Outcome<Vec<u8>> {
    let peer = peers::active(app, room.hub()).await?;
    let ask = Box::pin(app.federation.group_info(&peer, room, Bytes::from(body)));
    Ok(asked(app, &peer, ask).await?.encode())
}

/// Waits for the answer, unless the peer is known to be silent: then a device is told at once instead of waiting for a timeout.
pub(super) async fn asked<T>(
    app: &App,
    peer: &Peer,
    ask: impl Future<Output = Outcome<T>>,
) -> error::Outcome<T> {
    let line = app.peers.line(&peer.domain);
    let unreachable = || {
        let detail = format!("{} cannot be reached.", peer.domain);
        Refusal::because(Code::PeerUnreachable, detail)
    };
    match line.dial(app.now()) {
        Dial::Now => {}
        Dial::At(at) => {
            let ms = u32::try_from(at.since(app.now()).as_millis()).unwrap_or(u32::MAX);
            return Err(unreachable().retry_after_ms(ms).into());
        }
        Dial::AfterProbe => return Err(unreachable().into()),
    }
    let outcome = ask.await;
    line.learn(&outcome, app.now(), app.entropy.jitter());
    match outcome {
        Outcome::Done(answer) => Ok(answer),
        Outcome::Refused(refusal) => Err(refusal.into()),
        Outcome::Retry { why: Why::Busy(refusal) | Why::Estranged(refusal), .. } => {
            Err(refusal.into())
        }
        Outcome::Retry { why, retry_after } => {
            tracing::info!(peer = %peer.domain, %why, "a question to a peer was not answered");
            let mut refusal = unreachable();
            if let Some(ms) = retry_after.and_then(|d| u32::try_from(d.as_millis()).ok()) {
                refusal = refusal.retry_after_ms(ms);
            }
            Err(refusal.into())
        }
    }
}
