//! After a start: hello to every peer, so that what waits there for us comes at once and not at the end of a backoff; and a look for what
//! replicas miss.

use std::sync::Arc;

use federation::Outcome;

use super::{backfill, peers};
use crate::app::App;
use crate::error;
use crate::store;

/// Runs once; returns when everybody was greeted and every replica was looked at.
pub(crate) async fn run(app: Arc<App>) {
    match all(&app).await {
        Ok(names) => {
            let greetings = names.into_iter().map(|name| hello(&app, name));
            // All at once: a peer that is down must not keep the others waiting.
            futures_util::future::join_all(greetings).await;
        }
        Err(stop) => {
            tracing::warn!(why = %stop.into_refusal(), "peers could not be greeted");
        }
    }
    backfill::all(app).await;
}

async fn all(app: &Arc<App>) -> error::Outcome<Vec<protocol::Domain>> {
    let rows = store::peers::list(&mut app.store.snapshot().await?).await?;
    let open = rows.into_iter().filter(|p| p.state != store::peers::PeerState::Blocked);
    let names: Vec<protocol::Domain> = open.map(|p| p.domain).collect();
    // Somebody started the node again, perhaps a newer one: what was parked may try again.
    let (parked, now) = (names.clone(), app.now());
    app.store
        .write(move |tx| {
            Box::pin(async move {
                for peer in &parked {
                    store::lanes::unpark(tx, peer, now).await?;
                    tx.wake(store::Wake::Peer(peer.clone()));
                }
                error::Outcome::Ok(())
            })
        })
        .await?;
    Ok(names)
}

/// Any authenticated request will do; this one is the cheapest.
async fn hello(app: &App, name: protocol::Domain) {
    let Ok(peer) = peers::active(app, &name).await else { return };
    let outcome = Box::pin(app.federation.directory(&peer)).await;
    let line = app.peers.line(&name);
    line.learn(&outcome, app.now(), app.entropy.jitter());
    if matches!(outcome, Outcome::Done(_)) {
        // Lanes that were in a backoff before the start need not sit it out.
        line.alive();
    }
}
