//! What devices read: the list of their logs, entries after a cursor, acknowledgements.

use std::collections::BTreeMap;

use delivery::reader::{self, Acknowledged, Limits, Reader, Span, Window};
use protocol::api::{self, Ack, Body, Entries, Gap, LogRef, LogState, Logs};
use protocol::log::{Chain, EntryKind};
use protocol::{Code, Cursor, DeviceId, Refusal, Seq, limit};

use crate::app::App;
use crate::error::{Outcome, Stop};
use crate::store::logs::{self, Bodies, Log, LogName};
use crate::store::readers::{self, Stay};
use crate::store::{Fresh, StoreError, Tx};

/// Logs of one device: its rooms, those it left and is still owed something of, and its inbox.
pub(crate) const LOGS_MAX: usize = 2 * limit::ROOMS_PER_DEVICE + 1;

/// A log as a device names it. It does not see uplinks.
pub(crate) fn log_ref(name: &LogName) -> Option<LogRef> {
    match name {
        LogName::Inbox(_) => Some(LogRef::Inbox),
        LogName::Room(room) | LogName::Replica(room) => Some(LogRef::Room(room.clone())),
        LogName::Uplink(_) => None,
    }
}

/// The stay that is served now: the oldest that is not over, else the last one.
pub(crate) fn current(stays: &[Stay]) -> Option<Reader> {
    let stays = || stays.iter().map(|s| (*s).into());
    stays().find(|r: &Reader| !r.done()).or(stays().next_back())
}

/// One log of a device and where the device stands in it.
pub(crate) async fn find(
    tx: &mut Tx,
    app: &App,
    device: &DeviceId,
    log: &LogRef,
) -> Outcome<(Log, Reader)> {
    let name = match log {
        LogRef::Inbox => LogName::Inbox(device.clone()),
        LogRef::Room(room) if *room.hub() == app.domain => LogName::Room(room.clone()),
        LogRef::Room(room) => LogName::Replica(room.clone()),
    };
    // A room that is not there and one that the device is not in look the same.
    let log = logs::find(tx, &name).await?.ok_or(Code::NotFound)?;
    let stays = readers::stays(tx, log.id, &device.clone().into()).await?;
    let reader = current(&stays).ok_or(Code::NotFound)?;
    Ok((log, reader))
}

/// Every log that a device reads, with its present stay in each.
pub(crate) async fn all(
    tx: &mut Tx,
    device: &DeviceId,
) -> Result<Vec<(LogRef, Log, Reader)>, StoreError> {
    let rows = readers::of_reader(tx, &device.clone().into(), LOGS_MAX).await?;
    let mut found: BTreeMap<LogRef, (Log, Vec<Stay>)> = BTreeMap::new();
    for (log, stay) in rows {
        if let Some(name) = log_ref(&log.name) {
            found.entry(name).or_insert_with(|| (log, Vec::new())).1.push(stay);
        }
    }
    let with_reader =
        |(name, (log, stays)): (LogRef, (Log, Vec<Stay>))| current(&stays).map(|r| (name, log, r));
    Ok(found.into_iter().filter_map(with_reader).collect())
}

/// `GET /v1/rooms`.
pub(crate) async fn list(app: &App, device: &DeviceId) -> Outcome<Logs> {
    let mut tx = app.store.snapshot().await?;
    let state = |(name, log, reader): (LogRef, Log, Reader)| LogState {
        log: name,
        cursor: Cursor { incarnation: log.incarnation, seq: reader.cursor },
        head: log.head,
        until: reader.until,
    };
    Ok(Logs { logs: all(&mut tx, device).await?.into_iter().map(state).collect() })
}

/// `POST /v1/read`: entries after a cursor; nothing moves.
pub(crate) async fn read(app: &App, device: &DeviceId, ask: &api::Read) -> Outcome<Entries> {
    let mut tx = app.store.snapshot().await?;
    let (log, reader) = find(&mut tx, app, device, &ask.log).await?;
    if ask.after.incarnation != log.incarnation {
        return Err(Code::WrongIncarnation.into());
    }
    // Nothing from before the device joined, and the window does not count: the device asks for as much as it can take.
    let after = ask.after.seq.max(reader.from.prev());
    let batch = u64::from(ask.max).clamp(1, Limits::DEVICE.batch);
    let ends = logs::ends(&mut tx, &log, after).await?;
    let window = reader::window(&reader, &ends, after, Limits { batch, window: u64::MAX });
    let (span, gap) = match window {
        Window::Send { entries, gap } => (entries, gap),
        Window::Full | Window::CaughtUp | Window::Ended => (None, None),
    };
    let at = At { after, chain: None };
    Ok(entries(&mut tx, &ask.log, &log, (span, gap), at).await?.entries)
}

/// Where a run of entries is read from.
#[derive(Clone, Copy)]
pub(crate) struct At {
    /// The place whose chain is told when there is nothing to send.
    pub(crate) after: Seq,
    /// A chain that is known already.
    pub(crate) chain: Option<(Seq, Chain)>,
}

/// A run of entries, and where it ends.
pub(crate) struct Run {
    pub(crate) entries: Entries,
    /// The last entry, or the end of the gap when there is none; with the chain there.
    pub(crate) last: Option<(Seq, Chain)>,
}

/// A run of entries of `log` as a device gets them: those of `what.0`, and word of the gap `what.1` before them.
pub(crate) async fn entries(
    tx: &mut Tx,
    name: &LogRef,
    log: &Log,
    what: (Option<Span>, Option<Gap>),
    at: At,
) -> Result<Run, StoreError> {
    let (span, gap) = what;
    let run = match span {
        Some(span) => logs::read(tx, log.id, span, limit::BATCH_BYTES, Bodies::NoWelcomes).await?,
        None => Vec::new(),
    };
    let before = match (run.first(), gap.as_ref()) {
        (Some(first), _) => first.seq.prev(),
        (None, Some(gap)) => gap.last,
        (None, None) => at.after,
    };
    let chain = match (name, at.chain) {
        (LogRef::Inbox, _) => None,
        (_, Some((seq, chain))) if seq == before => Some(chain),
        _ => {
            // As this snapshot has it: what was before may have been trimmed since the caller looked.
            let log = logs::get(tx, log.id).await?;
            logs::chain_at(tx, &log, before).await?
        }
    };
    // Nobody follows the chain of an inbox.
    let gone = gap.as_ref().map(|g| (g.last, chain.unwrap_or(log.chain)));
    let last = run.last().map(|e| (e.seq, e.chain)).or(gone);
    let entries = Entries {
        log: name.clone(),
        incarnation: log.incarnation,
        prev_chain: chain,
        entries: run.into_iter().map(shown).collect(),
        head: log.head,
        gap,
    };
    Ok(Run { entries, last })
}

/// An entry as a device gets it. A Welcome is for others.
fn shown(entry: logs::Entry) -> api::Entry {
    let body = match entry.body {
        Some(body) if entry.kind != EntryKind::Welcome => Body::Full(body),
        _ => Body::Withheld(entry.digest),
    };
    api::Entry { seq: entry.seq, at: entry.at, kind: entry.kind.code(), body }
}

/// The same from memory, when all of `span` and what goes with it is there.
pub(crate) fn fresh(
    fresh: &Fresh,
    name: &LogRef,
    log: &Log,
    span: Span,
    sent: Option<(Seq, Chain)>,
) -> Option<Run> {
    let (before, run) = fresh.read(log.id, log.incarnation, span, limit::BATCH_BYTES)?;
    let prev_chain = match (name, sent) {
        (LogRef::Inbox, _) => None,
        (_, Some((seq, chain))) if seq == span.first().prev() => Some(chain),
        _ => Some(before?.chain),
    };
    let last = run.last().map(|e| (e.seq, e.chain));
    let entries = Entries {
        log: name.clone(),
        incarnation: log.incarnation,
        prev_chain,
        entries: run.iter().map(|e| shown(logs::Entry::clone(e))).collect(),
        head: log.head,
        gap: None,
    };
    Some(Run { entries, last })
}

/// `POST /v1/ack` and frames of the stream: everything up to each cursor is safe on the device.
///
/// # Errors
/// The first acknowledgement that is refused, and `NotFound` only when no other reason is there. All that are not refused hold.
pub(crate) async fn acknowledge(
    app: &std::sync::Arc<App>,
    device: &DeviceId,
    acks: Vec<Ack>,
) -> Outcome<()> {
    let (shared, device) = (app.clone(), device.clone());
    let refused = app
        .store
        .write(move |tx| {
            Box::pin(async move {
                let mut refused: Option<Refusal> = None;
                for ack in &acks {
                    // A refusal comes before anything of this one is written.
                    match acknowledge_one(tx, &shared, &device, ack).await {
                        Ok(()) => {}
                        Err(Stop::Refused(refusal)) => {
                            let grave = refused.as_ref().is_some_and(|r| r.code != Code::NotFound);
                            if !grave {
                                refused = Some(refusal);
                            }
                        }
                        Err(failed) => return Err(failed),
                    }
                }
                Outcome::Ok(refused)
            })
        })
        .await?;
    refused.map_or(Ok(()), |refusal| Err(refusal.into()))
}

async fn acknowledge_one(tx: &mut Tx, app: &App, device: &DeviceId, ack: &Ack) -> Outcome<()> {
    let (log, reader) = find(tx, app, device, &ack.log).await?;
    let ends = logs::ends(tx, &log, reader.cursor).await?;
    match reader::acknowledge(&reader, &ends, ack.cursor)? {
        Acknowledged::Unchanged => {}
        Acknowledged::Moved(seq) => {
            readers::advance(tx, log.id, &device.clone().into(), seq).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use delivery::log::Head;
    use protocol::{Domain, Incarnation, RoomId, Timestamp};

    use super::*;
    use crate::clock::{SystemClock, SystemEntropy};
    use crate::store::logs::{LogName, Start};
    use crate::store::{Location, Options, Store};

    const LIFE: Incarnation = Incarnation::from_bytes([1; 16]);

    #[tokio::test]
    async fn the_chain_is_known_although_the_log_was_trimmed_since_it_was_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let domain = Domain::parse("b.example").unwrap();
        let location = Location::Sqlite(folder.path().join("node.db"));
        let options = Options { create: true, ..Options::new(location, domain.clone()) };
        let store = Store::open(options, &SystemClock, &SystemEntropy).await.unwrap();
        let room = RoomId::parse("mimi://a.example/r/x").unwrap();
        let mut head = Head { seq: Seq::new(0), chain: Chain::start(&LIFE, &room) };
        let start = Start {
            incarnation: LIFE,
            seq: head.seq,
            chain: head.chain,
            at: Timestamp::from_ms(0),
        };
        let (mut entries, mut chains) = (Vec::new(), vec![head.chain]);
        for n in 1..=5 {
            let placed = head.append(EntryKind::Application, Timestamp::from_ms(n), b"m");
            head = Head::after(&placed);
            chains.push(placed.chain);
            entries.push(logs::Entry::new(&placed, b"m".to_vec(), None));
        }
        let name = LogName::Replica(room.clone());
        let stale: Log = store
            .write::<_, StoreError, _>(move |tx| {
                Box::pin(async move {
                    let id = logs::create(tx, &name, &domain, &start, start.at).await?.unwrap();
                    logs::append(tx, id, &entries).await?;
                    logs::get(tx, id).await
                })
            })
            .await
            .unwrap();
        // Everybody has the first four, so the next sweep takes them away.
        let log = stale.clone();
        store
            .write(move |tx| Box::pin(async move { logs::trim(tx, &log, Seq::new(4)).await }))
            .await
            .unwrap();
        let name = LogRef::Room(room);
        let span = Span::new(Seq::new(5), Seq::new(5));
        let at = At { after: Seq::new(5), chain: None };
        let mut tx = store.snapshot().await.unwrap();
        let run = super::entries(&mut tx, &name, &stale, (span, None), at).await.unwrap();
        assert_eq!(run.entries.entries.len(), 1);
        assert_eq!(run.entries.prev_chain, chains.get(4).copied());
        drop(tx);
        store.close().await;
    }
}
