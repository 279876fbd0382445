//! A device: rows on a simulated disk, and around the machines of `delivery` a shell that follows the client's step by step.
//!
//! | module | does |
//! |---|---|
//! | [`state`] | the rows |
//! | [`sender`] | messages on their way out |
//! | [`receiver`] | entries and items on their way in |
//! | [`commands`] | changes to rooms |

mod commands;
mod receiver;
mod sender;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use delivery::backoff::{Backoff, uniform};
use delivery::clock::Calibration;
use delivery::outbox::{Item, Outbox};
use delivery::timeline::{Message, Timeline};
use protocol::{Cursor, Seq, SubmitId, Timestamp};

pub use state::{Action, LogPlace, RoomRow, State, Status};

use crate::bug::Bug;
use crate::ctx::{Ctx, End, Happening};
use crate::disk::Disk;
use crate::names::{DevNo, RoomNo};
use crate::record::{Event, Place, short};
use crate::wire::{Down, Log, Up};

/// The same log is not asked for again more often than this, in milliseconds.
const REWIND_EVERY: u64 = 1_000;
/// How often a held room is tried again, in milliseconds.
const PING: u64 = 30_000;

/// A node that says nothing for so long is gone, in milliseconds.
const SILENCE: u64 = 90_000;

/// See the module.
pub struct Device {
    pub no: DevNo,
    pub disk: Disk<State>,
    pub up: bool,
    pub life: u64,
    pub offset_ms: i64,
    /// Whether its person has turned it off, so that it does not start again by itself.
    pub off: bool,
    memory: Memory,
    /// What a transaction that is not committed will tell.
    events: Vec<Event>,
}

/// What a crash takes with it.
#[derive(Default)]
struct Memory {
    outbox: Outbox,
    postponed: BTreeSet<SubmitId>,
    behind: BTreeMap<RoomNo, u64>,
    still: BTreeMap<RoomNo, (Seq, u64)>,
    calibration: Calibration,
    conn: Option<u64>,
    online: bool,
    attempt: u32,
    sent: BTreeSet<SubmitId>,
    again: BTreeMap<SubmitId, u64>,
    rewinds: BTreeMap<Log, u64>,
    rewound: BTreeMap<Log, u64>,
    timelines: BTreeMap<RoomNo, Timeline>,
    /// Commands that were asked something for and have no answer, until this time.
    waiting: BTreeMap<u64, u64>,
    looks_at: Option<u64>,
    pinged: u64,
    /// Planted: counters that were not saved.
    counters: BTreeMap<RoomNo, u64>,
    heard: u64,
}

impl Device {
    pub fn new(no: DevNo, state: State) -> Self {
        Self {
            no,
            disk: Disk::new(state),
            up: false,
            life: 0,
            offset_ms: 0,
            off: false,
            memory: Memory::default(),
            events: Vec::new(),
        }
    }

    fn now(&self, cx: &Ctx) -> Timestamp {
        cx.clock(self.offset_ms)
    }

    fn rows(&self) -> &State {
        self.disk.live()
    }

    /// Starts: what is on its way is read from the rows.
    pub fn start(&mut self, cx: &mut Ctx) {
        self.up = true;
        self.life += 1;
        let live = |s: &&state::SubRow| {
            use delivery::outbox::State as Fate;
            matches!(s.item.state, Fate::Queued | Fate::Sending | Fate::Stored)
        };
        if !cx.bug(Bug::OutboxNotRead) {
            let items: Vec<Item> =
                self.rows().items.values().filter(live).map(|s| s.item.clone()).collect();
            self.memory.outbox = Outbox::new(items);
        }
        let mut timelines: BTreeMap<RoomNo, Timeline> = BTreeMap::new();
        for ((room, id), row) in &self.rows().messages {
            if let Some(seq) = row.seq {
                let sender = cx.names.device(row.sender).clone();
                let message = Message { id: *id, sender, counter: row.counter, seq };
                let _known = timelines.entry(*room).or_default().insert(&message);
            }
        }
        self.memory.timelines = timelines;
        cx.after(1, Happening::Dial { device: self.no, life: self.life });
    }

    /// Goes down.
    pub fn crash(&mut self, cx: &mut Ctx) {
        self.disk.crash(0);
        self.memory = Memory::default();
        self.events.clear();
        self.up = false;
        self.life += 1;
        cx.break_line(self.no);
    }

    /// Dials its node.
    pub fn dial(&mut self, cx: &mut Ctx) {
        if self.memory.conn.is_some() {
            return;
        }
        let conn = cx.dial(self.no);
        match conn {
            Some(conn) => {
                self.memory.conn = Some(conn);
                // Whoever hears no hello gives up.
                cx.after(10_000, Happening::Gone { device: self.no, conn: conn | HELLO });
            }
            None => self.redial(cx, false),
        }
    }

    fn redial(&mut self, cx: &mut Ctx, was_up: bool) {
        let jitter = cx.chance.jitter();
        let wait = if was_up {
            self.memory.attempt = 0;
            uniform(std::time::Duration::from_secs(2), jitter)
        } else {
            self.memory.attempt += 1;
            Backoff::STANDARD.delay(self.memory.attempt - 1, jitter, None)
        };
        let ms = u64::try_from(wait.as_millis()).unwrap_or(0) + 1;
        cx.after(ms, Happening::Dial { device: self.no, life: self.life });
    }

    /// The connection is gone, or says nothing.
    pub fn gone(&mut self, cx: &mut Ctx, conn: u64) {
        let (hello, conn) = (conn & HELLO != 0, conn & !HELLO);
        if self.memory.conn != Some(conn) || hello && self.memory.online {
            return;
        }
        let was_up = self.memory.online;
        self.memory.conn = None;
        self.memory.online = false;
        self.memory.still.clear();
        let lost = self.memory.outbox.online(false);
        if cx.bug(Bug::LostIsFailed) {
            for item in lost {
                let refusal = protocol::Code::PeerUnreachable.into();
                if let Some(item) = self.memory.outbox.fail(&item.id, refusal).cloned() {
                    self.save_item(&item);
                }
            }
            if !self.commit(cx) {
                return;
            }
        }
        cx.close(self.no, conn);
        self.redial(cx, was_up);
    }

    pub const fn conn(&self) -> Option<u64> {
        self.memory.conn
    }

    /// Ends a transaction. False when the device went down in it: then nothing more is to be done.
    fn commit(&mut self, cx: &mut Ctx) -> bool {
        let crash = cx.call_now(End::Device(self.no));
        if crash == Some(0) {
            self.disk.crash(0);
        } else {
            self.disk.commit();
            let n = self.disk.unsynced();
            self.disk.sync(n);
            for event in std::mem::take(&mut self.events) {
                cx.note(event);
            }
        }
        self.events.clear();
        if crash.is_none() {
            return true;
        }
        self.crash(cx);
        cx.start_later(End::Device(self.no));
        false
    }

    fn send(&self, cx: &mut Ctx, frame: Up) {
        if let Some(conn) = self.memory.conn {
            cx.send_up(self.no, conn, frame);
        }
    }

    /// A frame of the node.
    pub fn frame(&mut self, cx: &mut Ctx, frame: Down) {
        self.memory.heard = cx.now;
        match frame {
            Down::Hello(incarnation) => self.welcome(cx, incarnation),
            Down::Entries(Log::Room(room), entries) => self.entries(cx, room, &entries),
            Down::Entries(Log::Inbox, _) => {}
            Down::Items(life, items, gap) => self.items(cx, life, items, gap),
            Down::Reply(id, reply) => self.reply(cx, id, reply),
            Down::Pong(sent, server) => {
                let received = self.now(cx);
                self.memory.calibration.pong(sent, server, received);
            }
            Down::Claimed { position, package } => self.claimed(cx, position, package),
            Down::Told { position, info } => self.told(cx, position, info),
        }
    }

    fn welcome(&mut self, cx: &mut Ctx, incarnation: protocol::Incarnation) {
        let known = self.rows().node;
        if known.is_some_and(|known| known != incarnation) {
            self.unstore();
        }
        if known != Some(incarnation) {
            self.disk.write(move |s| s.node = Some(incarnation));
            if !self.commit(cx) {
                return;
            }
        }
        self.memory.attempt = 0;
        self.memory.online = true;
        self.memory.outbox.online(true);
        self.memory.sent.clear();
        self.memory.again.clear();
        self.memory.waiting.clear();
        self.memory.pinged = cx.now;
        let now = self.now(cx);
        self.send(cx, Up::Ping(now));
        self.look(cx);
    }

    /// What became of whatever the node has stored is not known.
    fn unstore(&mut self) {
        for item in self.memory.outbox.node_restored() {
            self.save_item(&item);
        }
        self.stored_commands(|_| true);
        self.memory.sent.clear();
    }

    /// Handshakes that the node had stored are handed in again.
    fn stored_commands(&mut self, which: impl Fn(&state::Command) -> bool) {
        let all = self.rows().commands.values().filter(|c| c.stored && which(c));
        let stored: Vec<u64> = all.map(|c| c.position).collect();
        for position in stored {
            self.disk.write(move |s| {
                if let Some(command) = s.commands.get_mut(&position) {
                    command.stored = false;
                }
            });
        }
    }

    fn rewind(&mut self, cx: &mut Ctx, log: Log) {
        let at =
            self.memory.rewound.get(&log).map_or(cx.now, |last| cx.now.max(last + REWIND_EVERY));
        self.memory.rewinds.insert(log, at);
    }

    /// Looks for something to do and does it.
    pub fn look(&mut self, cx: &mut Ctx) {
        self.memory.looks_at = None;
        if !self.up {
            return;
        }
        let mut next = cx.now + 60_000;
        if self.memory.online {
            if cx.now >= self.memory.pinged + PING {
                self.ping(cx);
            }
            next = next.min(self.memory.pinged + PING);
            let due: Vec<Log> = self
                .memory
                .rewinds
                .iter()
                .filter(|(_, at)| **at <= cx.now)
                .map(|(l, _)| *l)
                .collect();
            for log in due {
                self.memory.rewinds.remove(&log);
                self.memory.rewound.insert(log, cx.now);
                self.send(cx, Up::Rewind(log));
            }
            self.memory.again.retain(|_, at| *at > cx.now);
            self.hand_over_commands(cx);
            let Some(at) = self.hand_over(cx) else { return };
            next = next.min(at);
        }
        let Some(at) = self.carry_out(cx) else { return };
        next = next.min(at);
        let timers = self.memory.again.values().chain(self.memory.rewinds.values());
        next = timers.fold(next, |next, at| next.min(*at)).max(cx.now + 1);
        self.look_at(cx, next);
    }

    fn look_at(&mut self, cx: &mut Ctx, at: u64) {
        if self.memory.looks_at.is_none_or(|t| t > at || t <= cx.now) {
            self.memory.looks_at = Some(at);
            cx.after(at - cx.now, Happening::Look { device: self.no, life: self.life });
        }
    }

    /// Whether this look was not overtaken by an earlier one.
    pub fn looks_now(&self, cx: &Ctx) -> bool {
        self.memory.looks_at.is_some_and(|at| at <= cx.now)
    }

    fn ping(&mut self, cx: &mut Ctx) {
        if cx.now > self.memory.heard + SILENCE
            && let Some(conn) = self.memory.conn
        {
            return self.gone(cx, conn);
        }
        self.memory.pinged = cx.now;
        let now = self.now(cx);
        self.send(cx, Up::Ping(now));
        let held = |r: &&RoomRow| matches!(r.status, Status::Held(..) | Status::Joining);
        let rooms: Vec<RoomNo> = self.rows().rooms.values().filter(held).map(|r| r.room).collect();
        for room in rooms {
            self.rewind(cx, Log::Room(room));
        }
    }

    /// Milliseconds until a time on this device's clock.
    fn until(&self, cx: &Ctx, at: Timestamp) -> u64 {
        let ms = u64::try_from(at.since(self.now(cx)).as_millis()).unwrap_or(u64::MAX);
        cx.now.saturating_add(ms.clamp(1, 60_000))
    }

    /// Notes how far it is, for the end of a run.
    pub fn finals(&self, cx: &mut Ctx, round: u8, head: impl Fn(RoomNo) -> Place) {
        let mut notes = Vec::new();
        let rows = self.rows();
        for row in rows.rooms.values() {
            let room = row.room;
            let group = rows.groups.get(&room);
            let inside = matches!(row.status, Status::Active | Status::Held(..));
            notes.push(Event::Final {
                device: self.no.0,
                room: room.0,
                round,
                inside,
                at: row.place.map_or(Place { life: 0, seq: 0 }, |p| place(&p.cursor)),
                head: head(room),
                epoch: group.map_or(0, |g| g.core.epoch),
                authenticator: group.map_or(0, |g| short(&g.core.authenticator())),
                tree: group.map_or(0, |g| short(&g.core.tree())),
            });
            notes.push(self.timeline(cx, room, round));
        }
        let live = rows.items.values().filter(|s| {
            use delivery::outbox::State as Fate;
            matches!(s.item.state, Fate::Queued | Fate::Sending | Fate::Stored)
        });
        let left = |r: RoomNo| rows.rooms.get(&r).is_none_or(|r| r.status == Status::Left);
        let waiting = live.filter(|s| !left(s.room)).count() as u64;
        let commands = rows.commands.values().filter(|c| {
            c.asked
                && !matches!(
                    c.change.next(Timestamp::from_ms(u64::MAX)),
                    delivery::commit::Step::Ended
                )
        });
        let commands = commands.filter(|c| !left(c.room)).count() as u64;
        for (what, count) in [("outbox", waiting), ("commands", commands)] {
            if count > 0 {
                notes.push(Event::Left { what, whom: self.no.0, count });
            }
        }
        if !self.memory.online {
            notes.push(Event::Left {
                what: "offline",
                whom: self.no.0,
                count: self.memory.attempt.into(),
            });
        }
        if self.memory.conn.is_some() && !self.memory.online {
            notes.push(Event::Left { what: "dialling", whom: self.no.0, count: 1 });
        }
        for note in notes {
            cx.note(note);
        }
    }

    fn timeline(&self, cx: &Ctx, room: RoomNo, round: u8) -> Event {
        let mut messages = Vec::new();
        let mut last: BTreeMap<DevNo, u64> = BTreeMap::new();
        let all: Vec<Message> = self
            .rows()
            .messages
            .iter()
            .filter(|((r, _), row)| *r == room && row.seq.is_some())
            .map(|((_, id), row)| Message {
                id: *id,
                sender: cx.names.device(row.sender).clone(),
                counter: row.counter,
                seq: row.seq.unwrap_or_default(),
            })
            .collect();
        let order: Vec<_> = match self.memory.timelines.get(&room) {
            Some(t) if cx.bug(Bug::TimelineByArrival) => {
                let mut all: Vec<_> = t.iter().map(|(k, _, id)| (k.seq, *id)).collect();
                all.sort_unstable();
                all.into_iter().map(|(_, id)| id).collect()
            }
            // After a restore two lives may have given the same number, which only the rows can hold.
            _ => delivery::timeline::order(&all).into_iter().map(|(_, id)| id).collect(),
        };
        for id in order {
            let Some(row) = self.rows().messages.get(&(room, id)) else { continue };
            let before = last.insert(row.sender, row.counter);
            let gap = before.is_some_and(|b| b + 1 != row.counter);
            messages.push((short(id.as_bytes()), row.sender.0, row.counter, gap));
        }
        Event::Timeline { device: self.no.0, room: room.0, round, messages }
    }

    /// How far it is in a room, while few others are up.
    pub fn pair(&self, cx: &mut Ctx, room: RoomNo, head: Place) {
        let rows = self.rows();
        let Some(row) = rows.rooms.get(&room).filter(|r| r.status == Status::Active) else {
            return;
        };
        let Some(group) = rows.groups.get(&room) else { return };
        let at = row.place.map_or(Place { life: 0, seq: 0 }, |p| place(&p.cursor));
        let (epoch, authenticator) = (group.core.epoch, short(&group.core.authenticator()));
        cx.note(Event::Pair { room: room.0, device: self.no.0, head, at, epoch, authenticator });
    }

    /// Whether it has nothing to do any more, given where the rooms' heads are.
    pub fn idle(&self, head: impl Fn(RoomNo) -> Option<Place>) -> bool {
        use delivery::outbox::State as Fate;
        let rows = self.rows();
        let left = |r: RoomNo| rows.rooms.get(&r).is_none_or(|r| r.status == Status::Left);
        let live =
            |s: &state::SubRow| matches!(s.item.state, Fate::Queued | Fate::Sending | Fate::Stored);
        let ended = |c: &state::Command| {
            matches!(c.change.next(Timestamp::from_ms(u64::MAX)), delivery::commit::Step::Ended)
        };
        self.memory.online
            && !rows.items.values().any(|s| live(s) && !left(s.room))
            && !rows.commands.values().any(|c| !ended(c) && !left(c.room))
            && rows.rooms.values().all(|r| match r.status {
                Status::Left => true,
                Status::Active => {
                    head(r.room).is_none_or(|h| r.place.is_some_and(|p| place(&p.cursor) == h))
                }
                Status::Joining | Status::Held(..) => false,
            })
    }
}

/// Marks a [`Happening::Gone`] that only counts if no hello came.
const HELLO: u64 = 1 << 63;

/// As the record has it.
#[must_use]
pub fn place(cursor: &Cursor) -> Place {
    Place { life: short(cursor.incarnation.as_bytes()), seq: cursor.seq.get() }
}

/// For rows that are shared.
pub(crate) type Shared<T> = Rc<T>;
