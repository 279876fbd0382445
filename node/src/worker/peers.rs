//! What this process knows of each peer now. Not kept: after a restart the first attempt finds out again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use delivery::breaker::{Breaker, Dial};
use federation::{Outcome, Why};
use protocol::{Code, Domain, Refusal, Timestamp};
use tokio::sync::{Semaphore, watch};

use crate::app::App;
use crate::error;
use crate::store::peers;

/// All peers that were talked to since the start.
#[derive(Debug)]
pub(crate) struct Peers {
    known: Mutex<BTreeMap<Domain, Arc<Line>>>,
    in_flight: usize,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Line {
    breaker: Mutex<Breaker>,
    /// Requests that may be in flight to it.
    pub(crate) slots: Semaphore,
    /// Counts signs of life, so that whoever waits for the peer notices one.
    pub(crate) contacts: watch::Sender<u64>,
    /// Counts whatever was learnt about it, so that those who wait for a probe notice its end.
    pub(crate) results: watch::Sender<u64>,
    noted: Mutex<Timestamp>,
}

impl Peers {
    pub(crate) fn new(in_flight: usize) -> Self {
        Self { known: Mutex::default(), in_flight: in_flight.min(Semaphore::MAX_PERMITS) }
    }

    /// The line to `peer`.
    pub(crate) fn line(&self, peer: &Domain) -> Arc<Line> {
        let mut known = locked(&self.known);
        let line = known.entry(peer.clone()).or_insert_with(|| {
            Arc::new(Line {
                breaker: Mutex::default(),
                slots: Semaphore::new(self.in_flight),
                contacts: watch::channel(0).0,
                results: watch::channel(0).0,
                noted: Mutex::default(),
            })
        });
        line.clone()
    }
}

impl Line {
    /// Whether the peer may be dialled now.
    pub(crate) fn dial(&self, now: Timestamp) -> Dial {
        locked(&self.breaker).dial(now)
    }

    /// The peer answered, or asked.
    pub(crate) fn alive(&self) {
        self.answered();
        self.contacts.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// After a silence this is a sign of life for all lanes, not only for the one that probed.
    fn answered(&self) {
        let before = std::mem::take(&mut *locked(&self.breaker));
        if before != Breaker::default() {
            self.results.send_modify(|n| *n = n.wrapping_add(1));
            self.contacts.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// The peer did not answer.
    pub(crate) fn silent(&self, now: Timestamp, jitter: u32) {
        locked(&self.breaker).silent(now, jitter);
        // Those who waited for the probe look again, and find when to.
        self.results.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Takes in how a request to the peer ended, for all its lanes.
    pub(crate) fn learn<T>(&self, outcome: &Outcome<T>, now: Timestamp, jitter: u32) {
        match outcome {
            Outcome::Done(_) | Outcome::Refused(_) => self.answered(),
            Outcome::Retry { why, .. } => match why {
                Why::Busy(_) | Why::Estranged(_) | Why::Answer(_) => self.answered(),
                Why::Unreachable(_)
                | Why::Forbidden(_)
                | Why::Timeout(_)
                | Why::Certificate(_)
                | Why::Tls(_)
                | Why::Lost(_)
                | Why::Ours(_) => self.silent(now, jitter),
            },
        }
    }
}

/// The peer's row, when it may be talked to.
///
/// # Errors
/// `UnknownPeer` when it is not on the allow-list or was blocked.
pub(crate) async fn active(app: &App, peer: &Domain) -> error::Outcome<federation::Peer> {
    let found = peers::find(&mut app.store.snapshot().await?, peer).await?;
    let open = found.and_then(peers::Peer::open).ok_or_else(|| {
        Refusal::because(Code::UnknownPeer, format!("{peer} is not paired with this node."))
    })?;
    Ok(open)
}

/// An authenticated request of a peer came in: whatever waits for it may go. Noted in the database to the minute.
pub(crate) fn contact(app: &Arc<App>, peer: &Domain) {
    let line = app.peers.line(peer);
    line.alive();
    let now = app.now();
    {
        let mut noted = locked(&line.noted);
        // A clock that was set back must not end the noting.
        if now >= *noted && now.since(*noted) < NOTE_EVERY {
            return;
        }
        *noted = now;
    }
    let (shared, peer) = (app.clone(), peer.clone());
    app.tasks.spawn(async move {
        let noted = shared
            .store
            .write(move |tx| Box::pin(async move { peers::contact(tx, &peer, now).await }))
            .await;
        if let Err(error) = noted {
            tracing::debug!(%error, "a peer's contact could not be noted");
        }
    });
}

const NOTE_EVERY: Duration = Duration::from_mins(1);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
