//! A device's stream: what to push next, and who is connected. `http::stream` moves the bytes.
//!
//! One stream per device; the newest wins. A stream holds no more than a window of entries per log that was sent and not
//! acknowledged, and reads entries from the database only when the socket can take them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use delivery::reader::{self, Acknowledged, LogEnds, Reader};
use delivery::stream::Push;
use protocol::api::{Ack, Entries, LogRef};
use protocol::log::Chain;
use protocol::{Code, DeviceId, Refusal, Seq};
use tokio::sync::watch;

use crate::app::App;
use crate::error::Outcome;
use crate::reading;
use crate::store::logs::{self, Log, LogId, LogName};
use crate::store::{Advance, StoreError, Tx, devices, readers};
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
    logs: BTreeMap<LogRef, Served>,
    names: BTreeMap<LogId, LogRef>,
}

/// One log of a feed.
struct Served {
    log: Log,
    reader: Reader,
    /// The last entry on the wire, and the chain at it.
    sent: Option<(Seq, Chain)>,
}

impl Served {
    /// From where on the log matters to this stream.
    fn position(&self) -> Seq {
        self.sent.map_or(self.reader.cursor, |(seq, _)| seq.max(self.reader.cursor))
    }

    /// The ends of the log, when there is no hole after the position.
    fn ends(&self) -> LogEnds {
        let Log { incarnation, tail, head, .. } = self.log;
        LogEnds { incarnation, tail, head, hole: None }
    }
}

/// Where the stream stands in a log, after it was left alone for a while: what is on the wire is not sent again.
fn go_on(machine: &mut delivery::stream::Stream, name: &LogRef, served: &Served) {
    if let Some((seq, _)) = served.sent {
        machine.sent(name, seq);
    }
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
        let asked: Vec<LogId> = news.changed.into_iter().filter(|id| !self.grew(*id)).collect();
        if asked.is_empty() {
            return Ok(());
        }
        let mut tx = self.app.store.snapshot().await?;
        let mut reborn = Vec::new();
        for id in asked {
            let Some(name) = self.names.get(&id).cloned() else { continue };
            let log = logs::get(&mut tx, id).await?;
            let Some(served) = self.logs.get(&name) else { continue };
            if served.log.incarnation == log.incarnation {
                // The log grew; where the device stands changes only by what this stream itself does, or with a reload.
                let reader = served.reader;
                self.update(&mut tx, name, log, reader).await?;
            } else {
                // Its hub lives another life, which takes the device back to where that began.
                reborn.push(name);
            }
        }
        drop(tx);
        self.refresh(&reborn).await
    }

    /// Takes in that a log grew, if that can be seen without the database.
    fn grew(&mut self, id: LogId) -> bool {
        let Some(name) = self.names.get(&id) else { return true };
        let Some(served) = self.logs.get_mut(name) else { return true };
        let after = served.position();
        let newest = self.app.store.fresh().newest(id, served.log.incarnation, after);
        let Some(newest) = newest else { return false };
        let log =
            Log { head: newest.seq, chain: newest.chain, last_at: newest.at, ..served.log.clone() };
        served.log = log;
        // All after that position is here, so there is no hole after it.
        self.machine.update(name.clone(), served.reader, served.ends());
        go_on(&mut self.machine, name, served);
        true
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
        let is_left = |name: &&LogRef| !found.iter().any(|(n, _, _)| n == *name);
        for name in self.logs.keys().filter(is_left).cloned().collect::<Vec<_>>() {
            self.remove(&name);
        }
        let mut fresh = Vec::new();
        for (name, log, reader) in found {
            if self.names.insert(log.id, name.clone()).is_none() {
                self.app.wakes.subscribe(log.id, &self.sleeper);
                fresh.push(name.clone());
            }
            self.update(&mut tx, name, log, reader).await?;
        }
        drop(tx);
        // What was committed between the look and the subscription.
        self.refresh(&fresh).await
    }

    /// Looks at some logs again, and at where the device stands in them.
    async fn refresh(&mut self, names: &[LogRef]) -> Outcome<()> {
        if names.is_empty() {
            return Ok(());
        }
        let mut tx = self.app.store.snapshot().await?;
        let device = self.device.clone().into();
        for name in names {
            let Some(id) = self.logs.get(name).map(|s| s.log.id) else { continue };
            let log = logs::get(&mut tx, id).await?;
            let stays = readers::stays(&mut tx, id, &device).await?;
            match reading::current(&stays) {
                Some(reader) => self.update(&mut tx, name.clone(), log, reader).await?,
                None => self.remove(name),
            }
        }
        Ok(())
    }

    async fn update(&mut self, tx: &mut Tx, name: LogRef, log: Log, reader: Reader) -> Outcome<()> {
        let before = self.logs.remove(&name);
        // Another stay, or another life of the hub, starts over.
        let same =
            |s: &Served| s.reader.from == reader.from && s.log.incarnation == log.incarnation;
        let sent = before.filter(same).and_then(|s| s.sent);
        let served = Served { log, reader, sent };
        let ends = match served.log.name {
            LogName::Replica(_) => logs::ends(tx, &served.log, served.position()).await?,
            // Only what comes from another node can have holes.
            _ => served.ends(),
        };
        self.machine.update(name.clone(), reader, ends);
        go_on(&mut self.machine, &name, &served);
        self.logs.insert(name, served);
        Ok(())
    }

    fn remove(&mut self, name: &LogRef) {
        self.machine.remove(name);
        if let Some(served) = self.logs.remove(name) {
            self.names.remove(&served.log.id);
        }
    }

    /// What an acknowledgement moves, as far as this stream knows: nothing when the database must say, because the device is ahead of what the
    /// stream knows, or its stay is over.
    pub(crate) fn advance(&self, ack: &Ack) -> Option<Advance> {
        let served = self.logs.get(&ack.log).filter(|s| s.reader.until.is_none())?;
        match reader::acknowledge(&served.reader, &served.ends(), ack.cursor) {
            Ok(Acknowledged::Moved(to)) => {
                let Log { id: log, incarnation, .. } = served.log;
                Some(Advance { log, incarnation, from: served.reader.from, to })
            }
            Ok(Acknowledged::Unchanged) | Err(_) => None,
        }
    }

    /// These cursors were moved by [`Self::advance`].
    pub(crate) fn advanced(&mut self, advances: &[Advance]) {
        for advance in advances {
            let Some(name) = self.names.get(&advance.log) else { continue };
            let Some(served) = self.logs.get_mut(name) else { continue };
            let same = served.log.incarnation == advance.incarnation
                && served.reader.from == advance.from
                && served.reader.cursor < advance.to;
            if same {
                let hole = self.machine.hole(name);
                served.reader.cursor = advance.to;
                self.machine.update(name.clone(), served.reader, LogEnds { hole, ..served.ends() });
                go_on(&mut self.machine, name, served);
            }
        }
    }

    /// These logs were acknowledged; look at their cursors.
    pub(crate) async fn acknowledged(&mut self, names: &[LogRef]) -> Outcome<()> {
        self.refresh(names).await
    }

    /// The device wants this log again from its cursor on.
    pub(crate) async fn rewind(&mut self, name: &LogRef) -> Outcome<()> {
        self.machine.rewind(name);
        if let Some(served) = self.logs.get_mut(name) {
            served.sent = None;
        }
        self.refresh(std::slice::from_ref(name)).await
    }

    /// The next run of entries to send; `None` until there is news or an acknowledgement.
    pub(crate) async fn next(&mut self) -> Outcome<Option<Entries>> {
        while let Some(Push { log: name, entries, gap }) = self.machine.next_push() {
            let Some(served) = self.logs.get_mut(&name) else {
                self.machine.remove(&name);
                continue;
            };
            let fresh = entries.filter(|_| gap.is_none()).and_then(|span| {
                reading::fresh(self.app.store.fresh(), &name, &served.log, span, served.sent)
            });
            let run = if let Some(run) = fresh {
                run
            } else {
                let mut tx = self.app.store.snapshot().await?;
                let at = reading::At { after: served.log.head, chain: served.sent };
                match reading::entries(&mut tx, &name, &served.log, (entries, gap), at).await {
                    // One bad sector must not cost the device all its other logs. This one is tried again when there is news of it.
                    Err(error @ StoreError::Corrupt { .. }) => {
                        tracing::error!(%error, log = served.log.id.get(), "a log cannot be delivered past a damaged entry");
                        self.machine.remove(&name);
                        continue;
                    }
                    run => run?,
                }
            };
            let last = run.last;
            let Some((seq, _)) = last else {
                // Entries went away between the look and the reading; their new ends tell the machine.
                self.refresh(&[name]).await?;
                return Ok(None);
            };
            served.sent = last;
            self.machine.sent(&name, seq);
            if run.entries.gap.is_some() {
                // There may be another hole further on.
                self.refresh(&[name]).await?;
            }
            return Ok(Some(run.entries));
        }
        Ok(None)
    }
}
