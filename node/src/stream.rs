//! A device's stream: what to push next, and who is connected. `http::stream` moves the bytes.
//!
//! One stream per device; the newest wins. A stream holds no more than a window of entries per log that was sent and not
//! acknowledged, and reads entries from the database only when the socket can take them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use delivery::reader::{LogEnds, Reader};
use delivery::stream::Push;
use protocol::api::{Entries, LogRef};
use protocol::{Code, DeviceId, Refusal};
use tokio::sync::watch;

use crate::app::App;
use crate::error::Outcome;
use crate::reading;
use crate::store::logs::{self, Log, LogId};
use crate::store::{devices, readers};
use crate::wake::{News, Sleeper};

/// Who is connected.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: Mutex<BTreeMap<DeviceId, Open>>,
    next: std::sync::atomic::AtomicU64,
}

#[derive(Debug)]
struct Open {
    number: u64,
    end: watch::Sender<Option<Refusal>>,
}

/// A stream's place among the open ones.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    /// Becomes the reason once the stream must end.
    pub(crate) ended: watch::Receiver<Option<Refusal>>,
}

impl Streams {
    /// Opens a stream for `device` and ends the one it had, for `reason`.
    pub(crate) fn open(&self, device: &DeviceId, reason: Refusal) -> Ticket {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (end, ended) = watch::channel(None);
        let former = self.locked().insert(device.clone(), Open { number, end });
        if let Some(former) = former {
            former.end.send_replace(Some(reason));
        }
        Ticket { number, ended }
    }

    /// Ends the stream of `device`, if it has one.
    pub(crate) fn close(&self, device: &DeviceId, reason: Refusal) {
        if let Some(open) = self.locked().remove(device) {
            open.end.send_replace(Some(reason));
        }
    }

    /// The stream with this ticket has ended.
    pub(crate) fn closed(&self, device: &DeviceId, ticket: &Ticket) {
        let mut open = self.locked();
        if open.get(device).is_some_and(|o| o.number == ticket.number) {
            open.remove(device);
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<DeviceId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one stream has to push.
pub(crate) struct Feed {
    app: Arc<App>,
    device: DeviceId,
    sleeper: Arc<Sleeper>,
    machine: delivery::stream::Stream,
    logs: BTreeMap<LogRef, Log>,
    names: BTreeMap<LogId, LogRef>,
}

impl Feed {
    /// A feed of everything that `device` reads, each log from its cursor on.
    pub(crate) async fn open(app: Arc<App>, device: DeviceId) -> Outcome<Self> {
        let sleeper = Arc::new(Sleeper::default());
        // First listening, then looking: what is committed in between is seen twice and missed never.
        app.wakes.attend(&device, &sleeper);
        let mut feed = Self {
            app,
            device,
            sleeper,
            machine: delivery::stream::Stream::default(),
            logs: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        feed.reload().await?;
        Ok(feed)
    }

    /// Who is woken when there may be more.
    pub(crate) fn sleeper(&self) -> Arc<Sleeper> {
        self.sleeper.clone()
    }

    /// Takes news in.
    pub(crate) async fn take(&mut self, news: News) -> Outcome<()> {
        if news.reload {
            return self.reload().await;
        }
        let changed: Vec<LogId> =
            news.changed.into_iter().filter(|l| self.names.contains_key(l)).collect();
        self.refresh(&changed).await
    }

    /// Looks at every log again: the list itself may have changed.
    pub(crate) async fn reload(&mut self) -> Outcome<()> {
        let mut tx = self.app.store.snapshot().await?;
        // Another process may have revoked the device.
        let row = devices::find(&mut tx, &self.device).await?;
        if row.is_none_or(|d| d.revoked.is_some()) {
            return Err(Code::Unauthenticated.into());
        }
        let found = reading::all(&mut tx, &self.device).await?;
        drop(tx);
        let gone: Vec<LogRef> = self
            .logs
            .keys()
            .filter(|name| !found.iter().any(|(n, _, _)| n == *name))
            .cloned()
            .collect();
        for name in gone {
            self.machine.remove(&name);
            if let Some(log) = self.logs.remove(&name) {
                self.names.remove(&log.id);
            }
        }
        let mut fresh = Vec::new();
        let mut tx = self.app.store.snapshot().await?;
        for (name, log, reader) in found {
            let ends = logs::ends(&mut tx, &log, reader.cursor).await?;
            if self.names.insert(log.id, name.clone()).is_none() {
                self.app.wakes.subscribe(log.id, &self.sleeper);
                fresh.push(log.id);
            }
            self.update(name, log, reader, ends);
        }
        drop(tx);
        // What was committed between the look and the subscription.
        self.refresh(&fresh).await
    }

    async fn refresh(&mut self, changed: &[LogId]) -> Outcome<()> {
        if changed.is_empty() {
            return Ok(());
        }
        let mut tx = self.app.store.snapshot().await?;
        let reader = self.device.clone().into();
        let mut seen = Vec::with_capacity(changed.len());
        for id in changed {
            let log = logs::get(&mut tx, *id).await?;
            let stays = readers::stays(&mut tx, *id, &reader).await?;
            if let Some(reader) = reading::current(&stays) {
                let ends = logs::ends(&mut tx, &log, reader.cursor).await?;
                seen.push((log, reader, ends));
            }
        }
        drop(tx);
        for (log, reader, ends) in seen {
            if let Some(name) = self.names.get(&log.id).cloned() {
                self.update(name, log, reader, ends);
            }
        }
        Ok(())
    }

    fn update(&mut self, name: LogRef, log: Log, reader: Reader, ends: LogEnds) {
        self.machine.update(name.clone(), reader, ends);
        self.logs.insert(name, log);
    }

    /// These logs were acknowledged; look at their cursors.
    pub(crate) async fn acknowledged(&mut self, names: &[LogRef]) -> Outcome<()> {
        let ids: Vec<LogId> = names.iter().filter_map(|n| self.logs.get(n)).map(|l| l.id).collect();
        self.refresh(&ids).await
    }

    /// The device wants this log again from its cursor on.
    pub(crate) fn rewind(&mut self, name: &LogRef) {
        self.machine.rewind(name);
    }

    /// The next run of entries to send; `None` until there is news or an acknowledgement.
    pub(crate) async fn next(&mut self) -> Outcome<Option<Entries>> {
        while let Some(Push { log: name, entries, gap }) = self.machine.next_push() {
            let Some(log) = self.logs.get(&name) else {
                self.machine.remove(&name);
                continue;
            };
            let id = log.id;
            let mut tx = self.app.store.snapshot().await?;
            let log = logs::get(&mut tx, id).await?;
            let run = reading::entries(&mut tx, &name, &log, (entries, gap), log.head).await?;
            drop(tx);
            let sent = run.entries.last().map(|e| e.seq).or(run.gap.as_ref().map(|g| g.last));
            let Some(sent) = sent else {
                // Entries went away between the look and the reading; their new ends tell the machine.
                self.refresh(&[id]).await?;
                return Ok(None);
            };
            self.machine.sent(&name, sent);
            return Ok(Some(run));
        }
        Ok(None)
    }
}
