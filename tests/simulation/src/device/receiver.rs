//! Entries and items on their way in: each is checked against the chain, opened, and taken in together with everything it changes. Only then
//! is it acknowledged.

use std::rc::Rc;

use delivery::sender::{self, Finding, Header, Neighbours, Seen};
use protocol::api::{Accepted, Body, Entries, Entry, Gap, GapReason};
use protocol::log::{Chain, Digest, EntryKind};
use protocol::{Cursor, Incarnation, MessageId, Seq, SubmitId};

use super::state::{Action, Content, LogPlace, MessageRow, RoomRow, Status};
use super::{Device, Shared, place};
use crate::bug::Bug;
use crate::ctx::Ctx;
use crate::names::{DevNo, RoomNo};
use crate::record::{Alarm, Event, short};
use crate::sealed::{Core, Group, Received, Welcome, Why, decode};
use crate::wire::{Item, Log, Up};

/// Entries that a connected node has not pushed within this time, although it was asked for them, are not going to come; in milliseconds.
const STILL: u64 = 30_000;

/// A room while its entries are taken in.
struct Walk {
    row: RoomRow,
    group: Group,
    place: LogPlace,
}

/// What became of one entry.
enum Fate {
    Taken,
    Out,
    Held(Alarm),
}

/// Where to begin in a batch.
enum Start {
    At(LogPlace),
    Again,
    Wait,
    Held(Seq, Alarm),
}

impl Device {
    /// Entries of a room came.
    pub(super) fn entries(&mut self, cx: &mut Ctx, room: RoomNo, entries: &Entries) {
        for entry in &entries.entries {
            let place = place(&Cursor { incarnation: entries.incarnation, seq: entry.seq });
            cx.note(Event::Pushed { device: self.no.0, room: room.0, place });
        }
        let Some(row) = self.rows().rooms.get(&room).cloned() else { return };
        let group = self.rows().groups.get(&room).cloned();
        if let (Status::Left, Some(last)) = (&row.status, entries.entries.last()) {
            // The last acknowledgement may have got lost.
            if let Some(at) = row.place.filter(|p| p.cursor.incarnation == entries.incarnation) {
                let seq = at.cursor.seq.min(last.seq);
                self.send(cx, Up::Ack(Log::Room(room), Cursor { seq, ..at.cursor }));
            }
            return;
        }
        let Some(group) = group else { return };
        let mut row = row;
        let place = match self.begin(cx, &mut row, entries) {
            Start::At(place) => place,
            Start::Again => {
                self.rewind(cx, Log::Room(room));
                if self.commit(cx) {
                    self.look(cx);
                }
                return;
            }
            Start::Wait => return,
            Start::Held(seq, alarm) => {
                self.hold(&mut row, seq, alarm);
                self.save_room(&row);
                self.commit(cx);
                return;
            }
        };
        let walk = Walk { row, group: (*group).clone(), place };
        self.walk(cx, walk, entries);
    }

    fn save_room(&mut self, row: &RoomRow) {
        let row = row.clone();
        self.disk.write(move |s| {
            s.rooms.insert(row.room, row.clone());
        });
    }

    fn save_group(&mut self, room: RoomNo, group: Group) {
        let group: Shared<Group> = Rc::new(group);
        self.disk.write(move |s| drop(s.groups.insert(room, Rc::clone(&group))));
    }

    fn begin(&mut self, cx: &mut Ctx, row: &mut RoomRow, entries: &Entries) -> Start {
        let room = row.room;
        let cursor = |seq: Seq| Cursor { incarnation: entries.incarnation, seq };
        let Some(first) = entries.entries.first().map(|e| e.seq) else {
            return self.nothing(cx, row, entries);
        };
        let start = || Chain::start(&entries.incarnation, cx.names.room(room));
        let before = LogPlace {
            cursor: cursor(first.prev()),
            chain: entries.prev_chain.unwrap_or_else(start),
        };
        let Some(known) = row.place else { return Start::At(before) };
        let next = known.cursor.seq.next();
        let gap = entries.gap.filter(|gap| gap.last >= next);
        if let Some(gap) = gap {
            self.gap(room, gap.first, gap.last, gap.reason == GapReason::Expired);
        } else if first > next && row.status == Status::Joining {
            self.gap(room, next, first.prev(), false);
        } else if first > next && !cx.bug(Bug::GapSkipped) {
            return self.skipped(cx, row, known.cursor.seq);
        }
        if known.cursor.incarnation != entries.incarnation {
            return self.restored(cx, room, before);
        }
        if gap.is_some() || first > next {
            return Start::At(before);
        }
        let mut chain = before.chain;
        for entry in entries.entries.iter().take_while(|e| e.seq <= known.cursor.seq) {
            chain = chain.next(entry.seq, &digests(entry).0);
        }
        let ends_before = entries.entries.last().is_some_and(|e| e.seq < known.cursor.seq);
        if ends_before || chain == known.chain {
            return Start::At(known);
        }
        Start::Held(known.cursor.seq.next(), Alarm::Chain)
    }

    /// Entries between what is known and what came are missing.
    fn skipped(&mut self, cx: &Ctx, row: &RoomRow, known: Seq) -> Start {
        if matches!(row.status, Status::Held(..)) {
            return Start::Wait;
        }
        if self.stands_still(cx, row.room, known) {
            return Start::Held(known.next(), Alarm::Held);
        }
        Start::Again
    }

    /// The hub lives another life.
    fn restored(&mut self, cx: &Ctx, room: RoomNo, before: LogPlace) -> Start {
        self.disk.write(move |s| {
            s.places.retain(|(r, _), _| *r != room);
            s.bodies.retain(|(r, _)| *r != room);
        });
        self.alarm(room, Alarm::Restored);
        for item in self.memory.outbox.hub_restored(cx.names.room(room)) {
            self.save_item(&item);
        }
        self.stored_commands(|c| c.room == room);
        self.memory.sent.clear();
        Start::At(before)
    }

    /// All that was left to get is gone.
    fn nothing(&mut self, cx: &Ctx, row: &RoomRow, entries: &Entries) -> Start {
        let (Some(known), Some(gap)) = (row.place, entries.gap) else { return Start::Again };
        if gap.last <= known.cursor.seq {
            return Start::Again;
        }
        self.gap(row.room, gap.first, gap.last, gap.reason == GapReason::Expired);
        let chain = entries.prev_chain.unwrap_or(known.chain);
        let cursor = Cursor { incarnation: entries.incarnation, seq: gap.last };
        let place = LogPlace { cursor, chain };
        if known.cursor.incarnation == entries.incarnation {
            return Start::At(place);
        }
        self.restored(cx, row.room, place)
    }

    fn stands_still(&mut self, cx: &Ctx, room: RoomNo, seq: Seq) -> bool {
        match self.memory.still.get(&room) {
            Some((at, since)) if *at == seq => cx.now >= since + STILL,
            _ => {
                self.memory.still.insert(room, (seq, cx.now));
                false
            }
        }
    }

    fn gap(&mut self, room: RoomNo, first: Seq, last: Seq, expired: bool) {
        let (device, room) = (self.no.0, room.0);
        let (first, last) = (first.get(), last.get());
        self.events.push(Event::Gap { device, room, first, last, expired });
    }

    fn alarm(&mut self, room: RoomNo, kind: Alarm) {
        self.events.push(Event::Alarm { device: self.no.0, room: Some(room.0), kind });
    }

    fn hold(&mut self, row: &mut RoomRow, seq: Seq, alarm: Alarm) {
        let status = Status::Held(seq, alarm);
        if row.status != status {
            row.status = status;
            self.alarm(row.room, alarm);
        }
    }

    fn walk(&mut self, cx: &mut Ctx, mut walk: Walk, entries: &Entries) {
        let room = walk.row.room;
        let (mut healthy, mut out) = (true, false);
        let last = entries.entries.last().map(|e| e.seq).max(entries.gap.map(|g| g.last));
        if cx.bug(Bug::CursorFirst)
            && let Some(last) = entries.entries.last()
        {
            let chain = entries.entries.iter().filter(|e| e.seq > walk.place.cursor.seq);
            let chain = chain.fold(walk.place.chain, |c, e| c.next(e.seq, &digests(e).0));
            let cursor = Cursor { seq: last.seq.max(walk.place.cursor.seq), ..walk.place.cursor };
            let row = RoomRow { place: Some(LogPlace { cursor, chain }), ..walk.row.clone() };
            self.save_room(&row);
            if !self.commit(cx) {
                return;
            }
        }
        for entry in &entries.entries {
            if entry.seq <= walk.place.cursor.seq {
                continue;
            }
            let (digest, body) = digests(entry);
            let next = LogPlace {
                cursor: Cursor { seq: entry.seq, ..walk.place.cursor },
                chain: walk.place.chain.next(entry.seq, &digest),
            };
            match self.take(cx, &mut walk, entry, &next) {
                Fate::Taken => {}
                Fate::Out => out = true,
                Fate::Held(_) if cx.bug(Bug::HeldSkipped) => {}
                Fate::Held(alarm) => {
                    self.hold(&mut walk.row, entry.seq, alarm);
                    healthy = false;
                    break;
                }
            }
            let (at, key) = (next.chain, *body.as_bytes());
            self.disk.write(move |s| {
                s.places.insert((room, next.cursor.seq.get()), at);
                s.bodies.insert((room, key));
            });
            walk.place = next;
            if out {
                break;
            }
        }
        walk.row.place = Some(walk.place);
        if healthy && matches!(walk.row.status, Status::Held(..)) {
            walk.row.status = Status::Active;
        }
        if out {
            self.left(cx, walk.row);
            self.rewind(cx, Log::Inbox);
        } else {
            self.save_room(&walk.row);
            self.save_group(room, walk.group);
        }
        self.reconsider(cx);
        let seq = walk.place.cursor.seq.min(last.unwrap_or(walk.place.cursor.seq));
        let ack = Up::Ack(Log::Room(room), Cursor { seq, ..walk.place.cursor });
        if cx.bug(Bug::DeviceAcknowledgesFirst) {
            self.send(cx, ack.clone());
        }
        if self.commit(cx) {
            self.send(cx, ack);
            self.look(cx);
        }
    }

    fn take(&mut self, cx: &mut Ctx, walk: &mut Walk, entry: &Entry, next: &LogPlace) -> Fate {
        match (EntryKind::from_code(entry.kind), &entry.body) {
            (Some(EntryKind::Application), Body::Full(bytes)) => {
                match self.content(cx, walk, entry, bytes, next) {
                    Ok(message) => {
                        self.taken(walk, entry, next, message);
                        Fate::Taken
                    }
                    Err(alarm) => Fate::Held(alarm),
                }
            }
            (Some(EntryKind::Proposal), Body::Full(bytes)) => {
                let fate = self.proposal(cx, walk, bytes);
                self.taken_unless_held(walk, entry, next, fate)
            }
            (Some(EntryKind::Commit), Body::Full(bytes)) => {
                let fate = self.commit_entry(cx, walk, entry, bytes);
                self.taken_unless_held(walk, entry, next, fate)
            }
            (Some(EntryKind::Welcome), _) => {
                self.taken(walk, entry, next, None);
                Fate::Taken
            }
            _ => Fate::Held(Alarm::Held),
        }
    }

    fn taken_unless_held(
        &mut self,
        walk: &Walk,
        entry: &Entry,
        next: &LogPlace,
        fate: Fate,
    ) -> Fate {
        if !matches!(fate, Fate::Held(_)) {
            self.taken(walk, entry, next, None);
        }
        fate
    }

    fn taken(&mut self, walk: &Walk, entry: &Entry, next: &LogPlace, message: Option<u64>) {
        self.events.push(Event::Taken {
            device: self.no.0,
            room: walk.row.room.0,
            place: place(&next.cursor),
            digest: short(digests(entry).1.as_bytes()),
            at: entry.at.ms(),
            message,
        });
    }

    /// An application entry; the message it shows.
    fn content(
        &mut self,
        cx: &mut Ctx,
        walk: &mut Walk,
        entry: &Entry,
        bytes: &[u8],
        next: &LogPlace,
    ) -> Result<Option<u64>, Alarm> {
        let room = walk.row.room;
        let body = Digest::of_bytes(bytes);
        if let Some((id, message)) = self.own(room, bytes)
            && !cx.bug(Bug::EchoForeign)
        {
            let accepted = Accepted { place: next.cursor, at: entry.at, chain: next.chain };
            self.shown_own(cx, id, accepted);
            return Ok(Some(short(message.as_bytes())));
        }
        if self.rows().bodies.contains(&(room, *body.as_bytes())) {
            self.alarm(room, Alarm::Repeated);
            return Ok(None);
        }
        match walk.group.receive(bytes, self.now(cx).ms()) {
            Received::App { from, content } => {
                Ok(self.open(cx, walk, entry, (from, &content), next))
            }
            Received::Own | Received::Bad(Why::Duplicate) => Ok(None),
            // It is of an epoch whose commit never came.
            Received::Bad(Why::OutOfStep) if walk.row.status != Status::Joining => Err(Alarm::Held),
            _ => {
                self.gap(room, entry.seq, entry.seq, false);
                self.alarm(room, Alarm::Undecryptable);
                Ok(None)
            }
        }
    }

    fn own(&self, room: RoomNo, bytes: &[u8]) -> Option<(SubmitId, MessageId)> {
        let same = |s: &&super::state::SubRow| s.room == room && s.cipher.as_deref() == Some(bytes);
        self.rows().items.values().find(same).map(|s| (s.item.id, s.message))
    }

    fn open(
        &mut self,
        cx: &mut Ctx,
        walk: &Walk,
        entry: &Entry,
        (from, bytes): (DevNo, &[u8]),
        next: &LogPlace,
    ) -> Option<u64> {
        let room = walk.row.room;
        let Some(content) = decode::<Content>(bytes) else {
            self.gap(room, entry.seq, entry.seq, false);
            self.alarm(room, Alarm::Undecryptable);
            return None;
        };
        let digest = Digest::of_bytes(bytes);
        let id = MessageId::from_bytes(*digest.as_bytes());
        let seen = self.compare(cx, walk, entry.seq, &content);
        let known = self.rows().messages.contains_key(&(room, id));
        if !known {
            let header = Header { counter: content.counter, content: digest, prev: content.prev };
            let neighbours = self.neighbours(room, from, content.counter, &id);
            for finding in sender::check(&header, &neighbours, seen) {
                match finding {
                    Finding::Forked => self.alarm(room, Alarm::Fork),
                    Finding::Repeated | Finding::Broken => self.alarm(room, Alarm::Header),
                    Finding::Missing { .. } => {}
                }
            }
            let row = MessageRow {
                sender: from,
                counter: content.counter,
                content: digest,
                prev: content.prev,
                bytes: bytes.into(),
                seq: None,
            };
            self.disk.write(move |s| {
                s.messages.insert((room, id), row.clone());
                s.by_sender.entry((room, from, row.counter)).or_default().push(id);
            });
        }
        self.place_message(cx, room, id, next.cursor);
        Some(short(id.as_bytes()))
    }

    fn neighbours(&self, room: RoomNo, from: DevNo, counter: u64, id: &MessageId) -> Neighbours {
        let rows = self.rows();
        let header = |id: &MessageId| {
            let row = rows.messages.get(&(room, *id))?;
            Some(Header { counter: row.counter, content: row.content, prev: row.prev })
        };
        let lower = rows.by_sender.range((room, from, 0)..(room, from, counter)).next_back();
        let before = lower.and_then(|(_, ids)| ids.first()).and_then(header);
        let same = rows.by_sender.get(&(room, from, counter));
        let same = same.and_then(|ids| ids.iter().find(|other| *other != id)).and_then(header);
        Neighbours { before, same }
    }

    fn compare(&mut self, cx: &Ctx, walk: &Walk, at: Seq, content: &Content) -> Seen {
        let Some((cursor, chain)) = &content.seen else { return Seen::Unknown };
        if cursor.incarnation != walk.place.cursor.incarnation || cx.bug(Bug::ForkIgnored) {
            return Seen::Unknown;
        }
        if cursor.seq >= at {
            self.alarm(walk.row.room, Alarm::Header);
            return Seen::Unknown;
        }
        let ours = self.rows().places.get(&(walk.row.room, cursor.seq.get()));
        Seen::compare(chain, ours)
    }

    fn proposal(&mut self, cx: &mut Ctx, walk: &mut Walk, bytes: &[u8]) -> Fate {
        match walk.group.receive(bytes, self.now(cx).ms()) {
            Received::Leave => {
                self.settle(cx, walk.row.room, &walk.group, std::time::Duration::ZERO);
                Fate::Taken
            }
            Received::Own | Received::Bad(Why::Duplicate) => Fate::Taken,
            Received::Bad(Why::Forged) => {
                self.alarm(walk.row.room, Alarm::Held);
                Fate::Taken
            }
            Received::Bad(_) if walk.row.status == Status::Joining => Fate::Taken,
            _ => Fate::Held(Alarm::Held),
        }
    }

    fn commit_entry(&mut self, cx: &mut Ctx, walk: &mut Walk, entry: &Entry, bytes: &[u8]) -> Fate {
        let room = walk.row.room;
        let digest = Digest::of_bytes(bytes);
        match walk.group.receive(bytes, self.now(cx).ms()) {
            Received::OwnCommit { merged: false } => {
                if let Some((digest, core)) = walk.group.pending.take() {
                    walk.group.advance(*core);
                    self.epoch(room, &walk.group, Some(&digest));
                }
                self.merged(cx, room);
                Fate::Taken
            }
            Received::OwnCommit { merged: true } => {
                self.merged(cx, room);
                walk.group.entering = None;
                if walk.row.status == Status::Joining {
                    walk.row.status = Status::Active;
                    self.entered(room, walk.place.cursor, None);
                    self.epoch(room, &walk.group, Some(digest.as_bytes()));
                }
                Fate::Taken
            }
            Received::Commit(staged) => {
                let epoch = walk.group.core.epoch;
                if !staged.core.members.contains(&self.no) {
                    let place = place(&Cursor { seq: entry.seq, ..walk.place.cursor });
                    self.events.push(Event::Out { device: self.no.0, room: room.0, place });
                    return Fate::Out;
                }
                if cx.bug(Bug::LoserKept)
                    && let Some((digest, core)) = walk.group.pending.take()
                {
                    walk.group.advance(*core);
                    self.merged(cx, room);
                    self.epoch(room, &walk.group, Some(&digest));
                    return Fate::Taken;
                }
                walk.group.advance(staged.core);
                self.lost_epoch(cx, room, epoch, &digest);
                self.epoch(room, &walk.group, Some(&staged.digest));
                Fate::Taken
            }
            Received::Bad(Why::Duplicate) => Fate::Taken,
            Received::Bad(_) if walk.row.status == Status::Joining => Fate::Taken,
            Received::Bad(Why::Clock) => Fate::Held(Alarm::HeldByClock),
            _ => Fate::Held(Alarm::Held),
        }
    }

    pub(super) fn epoch(&mut self, room: RoomNo, group: &Group, commit: Option<&[u8; 32]>) {
        self.events.push(Event::Epoch {
            device: self.no.0,
            room: room.0,
            epoch: group.core.epoch,
            commit: commit.map(|c| short(c)),
            authenticator: short(&group.core.authenticator()),
            tree: short(&group.core.tree()),
        });
    }

    fn entered(&mut self, room: RoomNo, cursor: Cursor, commit: Option<&[u8; 32]>) {
        let place = place(&cursor);
        let commit = commit.map(|c| short(c));
        self.events.push(Event::Entered { device: self.no.0, room: room.0, place, commit });
    }

    /// Items of the inbox came.
    pub(super) fn items(
        &mut self,
        cx: &mut Ctx,
        incarnation: Incarnation,
        items: Vec<(Seq, Rc<Item>)>,
        gap: Option<Gap>,
    ) {
        let reached = self.rows().inbox;
        let first = items.first().map_or(Seq::new(0), |(seq, _)| seq.prev());
        let begin = first.min(reached.map_or(Seq::new(0), |c| c.seq));
        let known = reached.filter(|c| c.incarnation == incarnation);
        let mut cursor = known.unwrap_or(Cursor { incarnation, seq: begin });
        let last = items.last().map(|(seq, _)| *seq);
        let mut rewinds = Vec::new();
        if let Some(gap) = gap.filter(|gap| gap.last > cursor.seq) {
            self.events.push(Event::Alarm { device: self.no.0, room: None, kind: Alarm::Missed });
            self.unstore();
            cursor.seq = gap.last;
        }
        for (seq, item) in items {
            if seq <= cursor.seq {
                continue;
            }
            if seq > cursor.seq.next() && !cx.bug(Bug::InboxSkips) {
                // One before it waits.
                rewinds.push(Log::Inbox);
                break;
            }
            let taken = match &*item {
                Item::Welcome { welcome, cursor, chain } => {
                    self.enter(cx, welcome, *cursor, *chain, &mut rewinds)
                }
                Item::Outcome(told) => {
                    self.refused_late(cx, told);
                    true
                }
            };
            if !taken {
                rewinds.push(Log::Inbox);
                break;
            }
            cursor.seq = seq;
        }
        self.disk.write(move |s| s.inbox = Some(cursor));
        for log in rewinds {
            self.rewind(cx, log);
        }
        if self.commit(cx) {
            let seq = last.map_or(cursor.seq, |last| cursor.seq.min(last));
            self.send(cx, Up::Ack(Log::Inbox, Cursor { seq, ..cursor }));
            self.look(cx);
        }
    }

    fn refused_late(&mut self, cx: &mut Ctx, told: &protocol::api::Outcome) {
        let id = told.submit_id;
        if let Some(position) = self.owner(&id) {
            self.refused_command(cx, position, told.refusal.clone(), Some(&told.payload));
            return;
        }
        let cipher = self.rows().items.get(&id).and_then(|s| s.cipher.clone());
        if cipher.is_some_and(|bytes| Digest::of_bytes(&bytes) == told.payload) {
            self.outcome(cx, &id, told.refusal.clone());
        }
    }

    /// A Welcome; whether it is taken in.
    fn enter(
        &mut self,
        cx: &mut Ctx,
        welcome: &Welcome,
        cursor: Cursor,
        chain: Chain,
        rewinds: &mut Vec<Log>,
    ) -> bool {
        let room = RoomNo(welcome.room);
        let known = self.rows().rooms.get(&room).cloned();
        let mut overtaken = None;
        if let Some(row) = &known
            && let Some(at) = row.place.filter(|p| p.cursor.incarnation == cursor.incarnation)
        {
            match row.status {
                Status::Active | Status::Held(..) if at.cursor.seq >= cursor.seq => return true,
                Status::Active | Status::Held(..) if self.stands_still(cx, room, at.cursor.seq) => {
                    overtaken = Some(at.cursor.seq);
                }
                Status::Active | Status::Held(..) => return false,
                Status::Joining | Status::Left => {}
            }
        }
        let mine = welcome.to.iter().find(|p| p.device == self.no.0);
        if !mine.is_some_and(|p| self.rows().packages.contains(&p.no)) {
            self.alarm(room, Alarm::Undecryptable);
            return true;
        }
        if let Some(at) = overtaken {
            self.gap(room, at.next(), cursor.seq, false);
        }
        let core = Core {
            epoch: welcome.epoch,
            secret: welcome.secret,
            members: welcome.members.iter().map(|d| DevNo(*d)).collect(),
        };
        let group = Group::new(self.no, room, core);
        let (counter, prev) = known.as_ref().map_or((0, None), |r| (r.counter, r.prev));
        let place = Some(LogPlace { cursor, chain });
        self.save_room(&RoomRow { room, status: Status::Active, place, counter, prev });
        self.entered(room, cursor, Some(&welcome.commit));
        self.epoch(room, &group, Some(&welcome.commit));
        self.save_group(room, group);
        self.finish(room, |action| matches!(action, Action::Join));
        self.reconsider(cx);
        rewinds.push(Log::Room(room));
        true
    }
}

/// The digest of an entry, and of its body alone.
fn digests(entry: &Entry) -> (Digest, Digest) {
    match (&entry.body, EntryKind::from_code(entry.kind)) {
        (Body::Full(bytes), Some(kind)) => {
            (Digest::of_entry(kind, entry.at, bytes), Digest::of_bytes(bytes))
        }
        (Body::Full(bytes), None) => (Digest::of_bytes(bytes), Digest::of_bytes(bytes)),
        (Body::Withheld(digest), _) => (*digest, *digest),
    }
}
