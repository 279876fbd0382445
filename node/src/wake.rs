//! After-commit wake-ups: who must look at the database again. A wake-up carries no data and may be lost without
//! losing a message; it only saves waiting for the next look. Coalesced: a thousand appends wake a sleeper once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use protocol::{DeviceId, Domain};
use tokio::sync::Notify;

use crate::store::{LogId, Wake};

/// Somebody who sleeps until a log or the list of logs changes.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    changed: Mutex<BTreeSet<LogId>>,
    peers: Mutex<BTreeSet<Domain>>,
    reload: AtomicBool,
    notify: Notify,
}

/// What happened since a sleeper looked last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct News {
    /// Logs that grew. Never more than the sleeper subscribed to.
    pub(crate) changed: BTreeSet<LogId>,
    /// Peers for whom there is something. Only the carrier of lanes hears of them.
    pub(crate) peers: BTreeSet<Domain>,
    /// Whether the list of logs changed.
    pub(crate) reload: bool,
}

impl Sleeper {
    /// Waits for news. Cancel-safe: news that was not taken stays.
    pub(crate) async fn news(&self) -> News {
        loop {
            let news = self.take();
            if news.reload || !news.changed.is_empty() || !news.peers.is_empty() {
                return news;
            }
            self.notify.notified().await;
        }
    }

    fn take(&self) -> News {
        News {
            changed: std::mem::take(&mut *locked(&self.changed)),
            peers: std::mem::take(&mut *locked(&self.peers)),
            reload: self.reload.swap(false, Ordering::AcqRel),
        }
    }

    /// A log grew.
    pub(crate) fn log(&self, log: LogId) {
        locked(&self.changed).insert(log);
        self.notify.notify_one();
    }

    /// There is something for a peer.
    fn peer(&self, peer: Domain) {
        locked(&self.peers).insert(peer);
        self.notify.notify_one();
    }

    /// Everything may have changed.
    pub(crate) fn reload(&self) {
        self.reload.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}

/// Who sleeps on what.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    by_log: Mutex<BTreeMap<LogId, Vec<Weak<Sleeper>>>>,
    by_device: Mutex<BTreeMap<DeviceId, Weak<Sleeper>>>,
    lanes: Arc<Sleeper>,
}

impl Wakes {
    /// Passes on what a committed transaction asks for.
    pub(crate) fn wake(&self, wake: Wake) {
        match wake {
            Wake::Log(log) => self.log(log),
            Wake::Device(device) => self.device(&device),
            Wake::Peer(peer) => self.lanes.peer(peer),
        }
    }

    /// A log of this node grew.
    fn log(&self, log: LogId) {
        self.lanes.log(log);
        if let Some(sleepers) = locked(&self.by_log).get(&log) {
            sleepers.iter().filter_map(Weak::upgrade).for_each(|s| s.log(log));
        }
    }

    /// The list of logs that a device reads changed.
    fn device(&self, device: &DeviceId) {
        if let Some(sleeper) = locked(&self.by_device).get(device).and_then(Weak::upgrade) {
            sleeper.reload();
        }
    }

    /// The sleeper of those who carry entries to peers and hubs: woken by every log.
    pub(crate) fn lanes(&self) -> Arc<Sleeper> {
        self.lanes.clone()
    }

    /// Registers the stream of a device.
    pub(crate) fn attend(&self, device: &DeviceId, sleeper: &Arc<Sleeper>) {
        locked(&self.by_device).insert(device.clone(), Arc::downgrade(sleeper));
    }

    /// Wakes `sleeper` when `log` grows, until it is dropped.
    pub(crate) fn subscribe(&self, log: LogId, sleeper: &Arc<Sleeper>) {
        let mut by_log = locked(&self.by_log);
        let sleepers = by_log.entry(log).or_default();
        sleepers
            .retain(|s| s.strong_count() > 0 && !std::ptr::eq(s.as_ptr(), Arc::as_ptr(sleeper)));
        sleepers.push(Arc::downgrade(sleeper));
    }

    /// Forgets sleepers that are gone. Called now and then, so that memory follows the present load.
    pub(crate) fn forget_gone(&self) {
        locked(&self.by_log).retain(|_, sleepers| {
            sleepers.retain(|s| s.strong_count() > 0);
            !sleepers.is_empty()
        });
        locked(&self.by_device).retain(|_, s| s.strong_count() > 0);
    }
}

/// What these locks guard is replaced whole, so a panic elsewhere leaves nothing half-done in it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
