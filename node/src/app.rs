//! Everything the services share. The node keeps no state that its database does not have: what is here beside the
//! store is configuration, keys, connections, and memory of who is connected.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use delivery::age::Age;
use federation::client::Timeouts;
use protocol::api::{NodeInfo, VERSION};
use protocol::{Clock, Code, Domain, Entropy, Incarnation, Refusal, Timestamp};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::error::{Error, Outcome, Stop};
use crate::nodekey::NodeKeys;
use crate::quota::Quotas;
use crate::store::Store;
use crate::stream::Streams;
use crate::wake::Wakes;
use crate::worker::backfill::Filling;
use crate::worker::carrier::Running;
use crate::worker::peers::Peers;

/// A node's shared state. Services are functions over `&App`.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) domain: Domain,
    /// The present life of the database.
    pub(crate) incarnation: Incarnation,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    /// How far time has gone, and when that was last looked at on the clock that nobody sets.
    age: Mutex<(Age, Instant)>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) keys: NodeKeys,
    pub(crate) federation: federation::Client,
    pub(crate) streams: Streams,
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) quotas: Quotas,
    pub(crate) peers: Peers,
    /// Lanes that run in this process.
    pub(crate) running: Running,
    /// Replicas that are being filled up now.
    pub(crate) filling: Filling,
    /// Cancelled when the node is to stop.
    pub(crate) stop: CancellationToken,
    /// Everything that runs beside requests.
    pub(crate) tasks: TaskTracker,
    passwords: Arc<Semaphore>,
    heavy: Arc<Semaphore>,
    /// KiB of request bodies that may be under way.
    pub(crate) bodies: Semaphore,
    accepting: AtomicBool,
    port: AtomicU16,
}

/// What [`App::new`] needs.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) domain: Domain,
    pub(crate) incarnation: Incarnation,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) age: Age,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) keys: NodeKeys,
    pub(crate) wakes: Arc<Wakes>,
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { config, domain, incarnation, store, clock, age, entropy, keys, wakes } = parts;
        let answer = Duration::from_millis(config.federation.timeout_ms);
        let timeouts = Timeouts { answer, ..Timeouts::default() };
        Self {
            federation: federation::Client::new(keys.identity(), clock.clone(), timeouts),
            streams: Streams::default(),
            quotas: Quotas::new(&config.limits),
            peers: Peers::new(config.federation.in_flight_per_peer),
            running: Running::default(),
            filling: Filling::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            passwords: at_once(config.limits.passwords_at_once),
            heavy: at_once(HEAVY_AT_ONCE),
            bodies: Semaphore::new(BODIES_KIB),
            accepting: AtomicBool::new(true),
            port: AtomicU16::new(config.listen.address.port()),
            config,
            domain,
            incarnation,
            store,
            clock,
            age: Mutex::new((age, Instant::now())),
            entropy,
            keys,
            wakes,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How far time has gone by now. Asked for often enough, it is never far behind a clock that is right.
    pub(crate) fn age(&self) -> Age {
        let mut age = self.age.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = Instant::now();
        let time = looked.duration_since(age.1);
        // Many looks at once would each lose a fraction.
        if time >= LOOK_APART {
            age.0.pass(time, self.now());
            age.1 = looked;
        }
        age.0
    }

    /// The time before which things may be taken to have ended, and removed.
    pub(crate) fn surely(&self) -> Timestamp {
        self.age().surely(self.now())
    }

    /// The time at which an offer that ends must still be good.
    pub(crate) fn possibly(&self) -> Timestamp {
        self.age().possibly(self.now())
    }

    /// What anyone may know about the node.
    pub(crate) fn info(&self) -> NodeInfo {
        NodeInfo {
            domain: self.domain.clone(),
            version: VERSION,
            incarnation: self.incarnation,
            node_key: *self.keys.identity().node_key(),
            hub_key: *self.keys.hub().public().as_bytes(),
            now: self.now(),
            reconnect_ms: RECONNECT_MS,
        }
    }

    /// Whether the disk has room for anything new.
    ///
    /// # Errors
    /// `DiskFull`.
    pub(crate) fn room_for_more(&self) -> Result<(), Refusal> {
        if self.accepting.load(Ordering::Relaxed) { Ok(()) } else { Err(Code::DiskFull.into()) }
    }

    /// The disk watch's verdict.
    pub(crate) fn set_accepting(&self, accepting: bool) {
        if self.accepting.swap(accepting, Ordering::Relaxed) != accepting {
            tracing::warn!(accepting, "the disk watch changed its mind about new submissions");
        }
    }

    /// The port that the listener really has.
    pub(crate) fn set_port(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    /// Host and port for invitation lines.
    pub(crate) fn public_address(&self) -> (String, u16) {
        self.config.public_address(self.port.load(Ordering::Relaxed))
    }

    /// Runs something with passwords off the async threads, a few at a time: each takes 19 MiB.
    pub(crate) async fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Outcome<T> {
        blocking(&self.passwords, work).await
    }

    /// Runs MLS work on whole groups off the async threads.
    pub(crate) async fn heavy<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Outcome<T> {
        blocking(&self.heavy, work).await
    }
}

fn at_once(n: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS)))
}

async fn blocking<T: Send + 'static>(
    at_once: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Outcome<T> {
    // Whoever waits longer than this would have given up; their place is worth more to the others.
    let Ok(permit) = tokio::time::timeout(BLOCKING_WAIT, at_once.clone().acquire_owned()).await
    else {
        return Err(Refusal::new(Code::Unavailable).retry_after_ms(BLOCKING_RETRY_MS).into());
    };
    let permit = permit.map_err(|_| Stop::from(Code::Unavailable))?;
    // The place is the work's own: when the caller goes away the work still runs.
    let job = move || {
        let _permit = permit;
        work()
    };
    Ok(tokio::task::spawn_blocking(job).await.map_err(Error::Task)?)
}

const LOOK_APART: Duration = Duration::from_secs(1);
const HEAVY_AT_ONCE: usize = 8;
const BODIES_KIB: usize = 256 * 1024;
const BLOCKING_WAIT: Duration = Duration::from_secs(10);
const BLOCKING_RETRY_MS: u32 = 3_000;
/// The window in which reconnecting devices spread: short, because a node of one organisation has thousands of devices and not millions.
const RECONNECT_MS: u32 = 2_000;

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "App({})", self.domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_keeps_its_place_when_its_caller_goes_away() {
        let places = at_once(1);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (begun, started) = tokio::sync::oneshot::channel();
        let work = move || {
            begun.send(()).unwrap();
            wait.recv().unwrap();
        };
        let caller = tokio::spawn({
            let places = places.clone();
            async move { blocking(&places, work).await.is_ok() }
        });
        started.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert_eq!(places.available_permits(), 0, "the work still runs");
        go.send(()).unwrap();
        drop(places.acquire().await.unwrap());
    }
}
