//! Fetches what a replica misses: when a hub's batch showed a gap, and once after each start, because a restored database is behind
//! without anybody noticing. PROTOCOL §9.7.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::mimi::{BackfillRequest, FanoutMessage};
use protocol::{Code, Domain, RoomId, limit};

use super::{peers, relay};
use crate::app::App;
use crate::error::{Outcome, Stop};
use crate::rooms::receive::{self, Incoming, Received};
use crate::store::logs::{self, LogName};
use crate::store::rooms;

/// Rooms that are being filled up now: one fetch at a time each.
#[derive(Debug, Default)]
pub(crate) struct Filling(Mutex<BTreeSet<RoomId>>);

impl Filling {
    fn begin(&self, room: &RoomId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(room.clone())
    }

    fn end(&self, room: &RoomId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(room);
    }
}

/// Starts filling up a room's replica, unless that is under way.
pub(crate) fn start(app: &Arc<App>, room: &RoomId) {
    if !app.filling.begin(room) {
        return;
    }
    let (shared, room) = (app.clone(), room.clone());
    app.tasks.spawn(async move {
        let filled = tokio::select! {
            () = shared.stop.cancelled() => Ok(()),
            filled = fill(&shared, &room) => filled,
        };
        if let Err(stop) = filled {
            tracing::info!(hub = %room.hub(), why = %stop.into_refusal(), "a replica could not be filled up now");
        }
        shared.filling.end(&room);
    });
}

/// Asks for every replica once: each hub for one after the other, the hubs of a page at a time, so that a
/// slow one holds up its own and the next page, and not each of the others in turn.
pub(crate) async fn all(app: Arc<App>) {
    let mut after = None;
    loop {
        let page = match page(&app, after).await {
            Ok(page) => page,
            Err(stop) => {
                tracing::warn!(why = %stop.into_refusal(), "replicas could not be looked at");
                return;
            }
        };
        let Some(last) = page.last() else { return };
        after = Some(last.log);
        let mut of_hubs: BTreeMap<Domain, Vec<RoomId>> = BTreeMap::new();
        for room in page.into_iter().filter(|r| r.hub != app.domain) {
            of_hubs.entry(room.hub).or_default().push(room.room);
        }
        let hubs = of_hubs.into_values().map(|rooms| of_hub(&app, rooms));
        futures_util::future::join_all(hubs).await;
    }
}

async fn of_hub(app: &Arc<App>, rooms: Vec<RoomId>) {
    for room in rooms {
        if app.stop.is_cancelled() {
            return;
        }
        if app.filling.begin(&room) {
            // A hub that is down is asked again when it makes contact with a gap.
            if let Err(stop) = fill(app, &room).await {
                tracing::debug!(hub = %room.hub(), why = %stop.into_refusal(), "a replica could not be filled up now");
            }
            app.filling.end(&room);
        }
    }
}

async fn page(app: &App, after: Option<crate::store::LogId>) -> Outcome<Vec<rooms::Room>> {
    Ok(rooms::list(&mut app.store.snapshot().await?, after, PAGE).await?)
}

async fn fill(app: &Arc<App>, room: &RoomId) -> Outcome<()> {
    let hub = peers::active(app, room.hub()).await?;
    loop {
        let name = LogName::Replica(room.clone());
        let log =
            logs::find(&mut app.store.snapshot().await?, &name).await?.ok_or(Code::NotFound)?;
        let max = u32::try_from(limit::BATCH_ENTRIES).unwrap_or(u32::MAX);
        let ask = BackfillRequest { after: log.head, max };
        let batch =
            relay::asked(app, &hub, Box::pin(app.federation.backfill(&hub, room, ask))).await?;
        if batch.range.n == 0 {
            return Ok(());
        }
        let messages = FanoutMessage::decode_batch(&batch.body).map_err(|e| {
            Stop::Refused(protocol::Refusal::because(Code::Malformed, e.to_string()))
        })?;
        let rest_gone = batch.range.first > log.head.next();
        let incoming = Incoming {
            room: room.clone(),
            range: batch.range,
            members: batch.members,
            messages,
            rest_gone,
        };
        match receive::receive(app, incoming).await? {
            Received::Stored(head) if head > log.head => {}
            Received::Stored(_) | Received::Behind(_) => return Ok(()),
        }
    }
}

const PAGE: usize = 256;
