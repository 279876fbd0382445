//! What a connected device is sent.

use std::collections::BTreeSet;
use std::rc::Rc;

use delivery::reader::{Acknowledged, LogEnds, Reader, Span, acknowledge};
use delivery::retention;
use delivery::stream::{Push, Stream};
use protocol::api::{Body, Entries, Entry, Gap, LogRef};
use protocol::log::EntryKind;
use protocol::{Cursor, Seq};

use super::evil::Seen;
use super::state::{LogName, LogRow, Who};
use super::{Node, Then};
use crate::bug::Bug;
use crate::ctx::{Ctx, Happening};
use crate::names::{DevNo, RoomNo};
use crate::wire::{Down, Log};

/// One stream.
pub(super) struct Feed {
    conn: u64,
    machine: Stream,
    known: BTreeSet<Log>,
}

fn name(cx: &Ctx, log: Log) -> LogRef {
    match log {
        Log::Inbox => LogRef::Inbox,
        Log::Room(room) => LogRef::Room(cx.names.room(room).clone()),
    }
}

impl Node {
    /// A device connected; the newest stream wins.
    pub fn opened(&mut self, cx: &mut Ctx, device: DevNo, conn: u64) {
        if self.view(cx).revoked.contains(&device) {
            return;
        }
        let feed = Feed { conn, machine: Stream::default(), known: BTreeSet::new() };
        self.memory.feeds.insert(device, feed);
        let incarnation = self.view(cx).incarnation;
        cx.send_down(device, conn, Down::Hello(incarnation));
        self.reload(cx, device);
    }

    /// Whether this is the stream that the device has here.
    pub fn hears(&self, device: DevNo, conn: u64) -> bool {
        self.memory.feeds.get(&device).is_some_and(|f| f.conn == conn)
    }

    /// Looks at every log of a device again.
    pub(super) fn reload(&mut self, cx: &mut Ctx, device: DevNo) {
        if !self.memory.feeds.contains_key(&device) {
            return;
        }
        let who = Who::Device(device);
        let view = self.view(cx);
        let mut logs = vec![Log::Inbox];
        for (name, log) in &view.logs {
            if let LogName::Room(room) | LogName::Replica(room) = name
                && log.readers.contains_key(&who)
            {
                logs.push(Log::Room(*room));
            }
        }
        for log in logs {
            self.update(cx, device, log);
        }
        self.pump(cx, device);
    }

    pub(super) fn refresh(&mut self, cx: &mut Ctx, device: DevNo, log: Log) {
        self.update(cx, device, log);
        self.pump(cx, device);
    }

    pub(super) fn grown_for_devices(&mut self, cx: &mut Ctx, log: Log) {
        if cx.bug(Bug::WakeLost) && cx.chance.odds(300_000) {
            return;
        }
        let feeds = self.memory.feeds.iter();
        let devices: Vec<DevNo> =
            feeds.filter(|(_, f)| f.known.contains(&log)).map(|(d, _)| *d).collect();
        for device in devices {
            self.refresh(cx, device, log);
        }
    }

    /// Where a device stands in a log, and the log's ends, as this node shows them.
    fn standing(&self, cx: &Ctx, device: DevNo, log: Log) -> Option<(Reader, LogEnds)> {
        let view = self.view(cx);
        match log {
            Log::Inbox => {
                let inbox = view.inboxes.get(&device)?;
                let incarnation = view.incarnation;
                let ends = LogEnds { incarnation, tail: inbox.tail, head: inbox.head, hole: None };
                Some((inbox.reader, ends))
            }
            Log::Room(room) => {
                let (_, log) = view.room(room)?;
                let reader = log.stay(Who::Device(device))?;
                let shown = self.shown(device, room).unwrap_or(log);
                Some((reader, shown.ends(reader.cursor)))
            }
        }
    }

    fn shown(&self, device: DevNo, room: RoomNo) -> Option<&LogRow> {
        self.evil.as_ref()?.view(device, room)
    }

    fn update(&mut self, cx: &mut Ctx, device: DevNo, log: Log) {
        if let (Log::Room(room), Some(evil)) = (log, &mut self.evil) {
            let synced = self.disk.synced();
            if let Some((_, honest)) = synced.room(room)
                && evil.look(cx, device, room, honest) == Seen::Lied
            {
                cx.fault(crate::record::Fault::Lie, crate::ctx::End::Device(device));
            }
        }
        let standing = self.standing(cx, device, log);
        let Some(feed) = self.memory.feeds.get_mut(&device) else { return };
        match standing {
            Some((reader, ends)) => {
                feed.known.insert(log);
                feed.machine.update(name(cx, log), reader, ends);
            }
            None => feed.machine.remove(&name(cx, log)),
        }
    }

    /// Sends all that may be sent.
    fn pump(&mut self, cx: &mut Ctx, device: DevNo) {
        let mut missed = 0;
        loop {
            let Some(feed) = self.memory.feeds.get_mut(&device) else { return };
            let Some(Push { log, entries, gap }) = feed.machine.next_push() else { return };
            let conn = feed.conn;
            let (last, frame) = match &log {
                LogRef::Inbox => self.items(cx, device, entries, gap),
                LogRef::Room(room) => {
                    let room = cx.names.room_no(room);
                    self.entries(cx, (device, room), &log, entries, gap)
                }
            };
            let Some(last) = last else {
                // Entries went away between the look and the reading; their new ends tell the machine.
                let known = match &log {
                    LogRef::Inbox => Log::Inbox,
                    LogRef::Room(room) => Log::Room(cx.names.room_no(room)),
                };
                self.update(cx, device, known);
                missed += 1;
                if missed > 3 {
                    return;
                }
                continue;
            };
            if let Some(feed) = self.memory.feeds.get_mut(&device) {
                feed.machine.sent(&log, last);
            }
            let had_gap = gap.is_some();
            cx.send_down(device, conn, frame);
            if had_gap && let LogRef::Room(room) = &log {
                let room = cx.names.room_no(room);
                self.update(cx, device, Log::Room(room));
            }
        }
    }

    fn items(
        &self,
        cx: &Ctx,
        device: DevNo,
        span: Option<Span>,
        gap: Option<Gap>,
    ) -> (Option<Seq>, Down) {
        let view = self.view(cx);
        let range = span.map_or(0..1, |s| s.first().get()..s.last().get() + 1);
        let inbox = view.inboxes.get(&device);
        let items: Vec<_> = inbox
            .iter()
            .flat_map(|i| i.items.range(range.clone()))
            .map(|(seq, item)| (Seq::new(*seq), Rc::clone(item)))
            .collect();
        let last = items.last().map(|(seq, _)| *seq).or(gap.map(|g| g.last));
        (last, Down::Items(view.incarnation, items, gap))
    }

    fn entries(
        &self,
        cx: &Ctx,
        (device, room): (DevNo, RoomNo),
        name: &LogRef,
        span: Option<Span>,
        gap: Option<Gap>,
    ) -> (Option<Seq>, Down) {
        let view = self.view(cx);
        let honest = view.room(room).map(|(_, log)| log);
        let nothing = || (None, Down::Pong(self.now(cx), self.now(cx)));
        let Some(log) = self.shown(device, room).or(honest) else { return nothing() };
        let range = span.map_or(0..1, |s| s.first().get()..s.last().get() + 1);
        let rows: Vec<_> = log.entries.range(range).map(|(_, e)| e).collect();
        let before = match (rows.first(), gap) {
            (Some(first), _) => first.seq.prev(),
            (None, Some(gap)) => gap.last,
            (None, None) => return nothing(),
        };
        let last = rows.last().map(|e| e.seq).or(gap.map(|g| g.last));
        let entry = |e: &Rc<super::state::EntryRow>| Entry {
            seq: e.seq,
            at: e.at,
            kind: e.kind.code(),
            body: if e.kind == EntryKind::Welcome {
                Body::Withheld(e.digest)
            } else {
                Body::Full(e.body.to_vec())
            },
        };
        let entries = Entries {
            log: name.clone(),
            incarnation: log.incarnation,
            prev_chain: log.chain_at(before),
            entries: rows.into_iter().map(entry).collect(),
            head: log.head,
            gap,
        };
        (last, Down::Entries(Log::Room(room), Rc::new(entries)))
    }

    pub(super) fn rewound(&mut self, cx: &mut Ctx, device: DevNo, log: Log) {
        self.update(cx, device, log);
        if let Some(feed) = self.memory.feeds.get_mut(&device) {
            feed.machine.rewind(&name(cx, log));
        }
        self.pump(cx, device);
    }

    pub(super) fn acknowledged(&mut self, cx: &mut Ctx, device: DevNo, log: Log, cursor: Cursor) {
        if !self.writable(cx) {
            // A stream whose acknowledgement cannot be written ends, so that the device acknowledges again.
            return cx.break_line(device);
        }
        let state = self.disk.live();
        let standing = match log {
            Log::Inbox => state.inboxes.get(&device).map(|i| {
                let incarnation = state.incarnation;
                (i.reader, LogEnds { incarnation, tail: i.tail, head: i.head, hole: None })
            }),
            Log::Room(room) => state
                .room(room)
                .and_then(|(_, l)| l.stay(Who::Device(device)).map(|r| (r, l.ends(r.cursor)))),
        };
        let Some((reader, ends)) = standing else { return };
        let Ok(Acknowledged::Moved(seq)) = acknowledge(&reader, &ends, cursor) else { return };
        self.disk.write(move |s| match log {
            Log::Inbox => {
                if let Some(inbox) = s.inboxes.get_mut(&device) {
                    inbox.reader.cursor = inbox.reader.cursor.max(seq);
                }
            }
            Log::Room(room) => {
                let name = s.room(room).map(|(name, _)| name);
                if let Some(log) = name.and_then(|name| s.logs.get_mut(&name)) {
                    log.advance(Who::Device(device), seq);
                }
            }
        });
        self.commit(cx, vec![Then::Read(device, log)]);
    }

    /// Removes what nobody needs any more.
    pub fn sweep(&mut self, cx: &mut Ctx, expire: Option<RoomNo>) {
        let mut cuts = Vec::new();
        for (name, log) in &self.disk.live().logs {
            let room = match name {
                LogName::Room(room) | LogName::Replica(room) => *room,
                LogName::Uplink(_) => continue,
            };
            let live = log.readers.values().flatten().filter(|s| !s.done());
            let cursors = live.map(|s| s.cursor.max(s.from.prev()));
            let least = if cx.bug(Bug::TrimmedEarly) { cursors.max() } else { cursors.min() };
            // Peers are never away for that long here: what is too old for one of them is a follower that begins anew.
            let peers = log.readers.iter().filter(|(who, _)| matches!(who, Who::Peer(_)));
            let peers = peers.flat_map(|(_, stays)| stays).filter(|s| !s.done());
            let old = peers.map(|s| s.cursor.min(log.head)).min().unwrap_or(log.head);
            let expired = if expire == Some(room) { old } else { Seq::new(0) };
            let ends = log.ends(log.tail.prev());
            if let Some(span) = retention::removable(&ends, least, expired) {
                cuts.push((*name, span.last()));
            }
        }
        if !cuts.is_empty() && self.writable(cx) {
            for (name, last) in cuts {
                self.disk.write(move |s| {
                    if let Some(log) = s.logs.get_mut(&name) {
                        log.trim(last);
                    }
                });
            }
            self.commit(cx, Vec::new());
        }
        if expire.is_none() {
            cx.after(10_000, Happening::Sweep { node: self.no, life: self.life });
        }
    }
}
