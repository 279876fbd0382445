//! What is kept per peer: its connection and its directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::{Clock, Timestamp};
use rustls::ClientConfig;
use tokio::sync::{Mutex, Semaphore};

use super::Timeouts;
use super::connection::Connection;
use crate::directory::Endpoints;
use crate::tls::{NodeIdentity, client_config};
use crate::{Peer, Why};

/// Requests to one peer under way at once: well under what HTTP/2 servers let in by default, so that none waits for another
/// unseen, and few enough that a peer that stops answering holds little.
const REQUESTS: usize = 64;

/// One peer, as it was when the slot was made: a row that changed gets a new slot and thus a new connection.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) peer: Peer,
    pub(super) directory: Mutex<Option<Known>>,
    pub(super) permits: Semaphore,
    tls: Arc<ClientConfig>,
    dials: AtomicU64,
    state: Mutex<State>,
}

/// A peer's endpoints and how long they are good for.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) until: Timestamp,
}

#[derive(Debug, Default)]
struct State {
    live: Option<Connection>,
    failed: Option<Why>,
}

impl Slot {
    pub(super) fn new(
        peer: &Peer,
        identity: &NodeIdentity,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, crate::tls::Error> {
        Ok(Self {
            peer: peer.clone(),
            directory: Mutex::default(),
            permits: Semaphore::new(REQUESTS),
            tls: client_config(Some(identity), peer.node_key, &peer.domain, clock)?,
            dials: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }

    /// The peer's connection, dialled if there is none. Requests that wait while somebody else dials share how that ends, so a
    /// dead peer costs each of them one timeout and not one after the other.
    pub(super) async fn connection(&self, timeouts: &Timeouts) -> Result<Connection, Why> {
        let seen = self.dials.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        if let Some(shared) = state.live.as_ref().and_then(Connection::share) {
            return Ok(shared);
        }
        state.live = None;
        if self.dials.load(Ordering::Acquire) != seen
            && let Some(why) = &state.failed
        {
            return Err(why.clone());
        }
        let opened = Connection::open(&self.peer, &self.tls, timeouts).await;
        self.dials.fetch_add(1, Ordering::Release);
        match opened {
            Ok(connection) => {
                state.failed = None;
                state.live = connection.share();
                Ok(connection)
            }
            Err(why) => {
                state.failed = Some(why.clone());
                Err(why)
            }
        }
    }

    /// Forgets a connection that did not answer: the next request dials.
    pub(super) async fn discard(&self, connection: &Connection) {
        let mut state = self.state.lock().await;
        if state.live.as_ref().is_some_and(|live| live.same(connection)) {
            state.live = None;
        }
    }
}
