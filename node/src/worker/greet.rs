//! After a start: hello to every peer, so that what waits there for us comes at once and not at the end of a backoff; and a look for what
//! replicas miss.

use std::sync::Arc;

use super::{backfill, peers};
use crate::app::App;
use crate::error::Outcome;
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

async fn all(app: &App) -> Outcome<Vec<protocol::Domain>> {
    let rows = store::peers::list(&mut app.store.snapshot().await?).await?;
    let open = rows.into_iter().filter(|p| p.state != store::peers::PeerState::Blocked);
    Ok(open.map(|p| p.domain).collect())
}

/// Any authenticated request will do; this one is the cheapest.
async fn hello(app: &App, name: protocol::Domain) {
    let Ok(peer) = peers::active(app, &name).await else { return };
    let outcome = Box::pin(app.federation.directory(&peer)).await;
    app.peers.line(&name).learn(&outcome, app.now(), app.entropy.jitter());
}
