//! A node: rows on a simulated disk, and around the rules of `delivery` a shell as thin as the real one's.
//!
//! | module | does |
//! |---|---|
//! | [`state`] | the rows |
//! | [`rooms`] | gives submissions their place, keeps those for foreign hubs, follows |
//! | [`lanes`] | delivers to other nodes |
//! | [`feed`] | delivers to devices |
//! | [`evil`] | what a dishonest node shows |

mod evil;
mod feed;
mod lanes;
mod rooms;
mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use delivery::disk::{Ballast, Disk as Space, Marks};
use protocol::api::SubmitReply;
use protocol::{Code, Incarnation, Refusal, Timestamp};

pub use evil::{Evil, Lie, Trick};
pub use lanes::{Answer, Ask, LaneKey};
pub use state::{LogName, LogRow, State, Who};

use crate::bug::Bug;
use crate::ctx::{Ctx, End, Happening};
use crate::disk::Disk;
use crate::names::{DevNo, NodeNo, RoomNo};
use crate::record::{Event, Fault};
use crate::wire::{Down, Log, Payload, Up};

/// What a full disk looks like, in units of writes.
const MARKS: Marks = Marks { critical: 10, low: 20, high: 40, ballast: 40 };

/// See the module.
pub struct Node {
    pub no: NodeNo,
    pub disk: Disk<State>,
    pub up: bool,
    pub life: u64,
    /// How far its clock is off.
    pub offset_ms: i64,
    /// Free space, in writes.
    pub free: u64,
    pub space: Space,
    pub slow: bool,
    /// Whether it refuses its people everything new, as an operator may want.
    pub refusing: bool,
    /// Whether the next sync fails.
    pub sync_fails: bool,
    pub backup: Option<State>,
    pub evil: Option<Evil>,
    /// Requests with lower numbers are of its former life.
    pub speaks_from: u64,
    memory: Memory,
    waiting: VecDeque<Vec<Then>>,
    committed: u64,
    syncing: bool,
}

/// What a crash takes with it.
#[derive(Default)]
struct Memory {
    feeds: BTreeMap<DevNo, feed::Feed>,
    lanes: BTreeMap<LaneKey, lanes::Run>,
    asked: BTreeMap<u64, lanes::Asked>,
    filling: BTreeSet<RoomNo>,
}

/// What follows once a transaction is safe.
enum Then {
    Reply(DevNo, u64, Box<Down>),
    Respond(NodeNo, u64, Answer),
    Grown(LogName),
    Reload(DevNo),
    Read(DevNo, Log),
    Dial(LaneKey, u64, Box<Ask>),
    Lane(LaneKey),
    Lanes(NodeNo),
    Fill(RoomNo),
}

impl Node {
    pub fn new(no: NodeNo, state: State) -> Self {
        Self {
            no,
            disk: Disk::new(state),
            up: false,
            life: 0,
            offset_ms: 0,
            free: 1_000_000,
            space: Space::new(MARKS, Ballast::Whole),
            slow: false,
            refusing: false,
            sync_fails: false,
            backup: None,
            evil: None,
            speaks_from: 0,
            memory: Memory::default(),
            waiting: VecDeque::new(),
            committed: 0,
            syncing: false,
        }
    }

    fn now(&self, cx: &Ctx) -> Timestamp {
        cx.clock(self.offset_ms)
    }

    /// What its readers see.
    fn view(&self, cx: &Ctx) -> &State {
        if cx.bug(Bug::PushBeforeSync) { self.disk.live() } else { self.disk.synced() }
    }

    /// Starts: everything that must go on is read from the rows.
    pub fn start(&mut self, cx: &mut Ctx) {
        self.up = true;
        self.life += 1;
        if !cx.bug(Bug::LanesNotStarted) {
            self.run_lanes(cx, None);
        }
        // A restored database is behind without anybody noticing.
        for room in self.view(cx).replicas() {
            self.fill(cx, room);
        }
        cx.after(10_000, Happening::Sweep { node: self.no, life: self.life });
    }

    /// Goes down: `keep` of what is unsynced survives (0 none, 1 some, 2 all).
    pub fn crash(&mut self, cx: &mut Ctx, keep: u8) {
        let unsynced = self.disk.unsynced();
        let kept = match keep {
            0 => 0,
            1 => cx.chance.below(unsynced + 1),
            _ => unsynced,
        };
        self.disk.crash(kept);
        self.memory = Memory::default();
        self.waiting.clear();
        self.syncing = false;
        self.up = false;
        self.life += 1;
        for device in cx.names.devices() {
            if cx.names.home(device) == self.no {
                cx.break_line(device);
            }
        }
    }

    /// Puts the backup back, and begins a new life.
    pub fn restore(&mut self, cx: &mut Ctx) {
        let Some(rows) = self.backup.clone() else { return };
        self.disk.restore(rows);
        self.speaks_from = cx.number();
        if !cx.bug(Bug::LifeNotRenewed) {
            let life = Incarnation::from_bytes(cx.chance.bytes16());
            self.disk.write(move |s| s.new_life(life));
            self.disk.commit();
            self.disk.sync(1);
        }
    }

    /// Whether a write can be made at all.
    fn writable(&mut self, cx: &Ctx) -> bool {
        if !cx.storm || self.free > 0 {
            self.free = self.free.saturating_sub(1);
            return true;
        }
        false
    }

    /// Whether the disk has room for something new.
    fn room_for_more(&mut self) -> Result<(), Refusal> {
        use delivery::disk::Step;
        match self.space.observe(self.free) {
            Step::FreeBallast => {
                self.free += MARKS.ballast;
                self.space.freed();
            }
            Step::RebuildBallast => {
                self.free -= MARKS.ballast;
                self.space.rebuilt();
            }
            Step::Accept | Step::RefuseNew => {}
        }
        if self.space.accepting() {
            return Ok(());
        }
        Err(Refusal::new(Code::DiskFull).retry_after_ms(5_000))
    }

    /// Ends a transaction; what follows waits for the disk.
    fn commit(&mut self, cx: &mut Ctx, then: Vec<Then>) {
        self.disk.commit();
        self.committed += 1;
        let (now, later): (Vec<Then>, Vec<Then>) = then.into_iter().partition(|t| {
            let answer = matches!(t, Then::Reply(..) | Then::Respond(..));
            let push = matches!(t, Then::Grown(_) | Then::Reload(_));
            answer && cx.bug(Bug::AcknowledgeBeforeSync) || push && cx.bug(Bug::PushBeforeSync)
        });
        self.waiting.push_back(later);
        cx.call(End::Node(self.no), self.life);
        if !self.syncing {
            self.sync_later(cx);
        }
        self.carry(cx, now);
    }

    fn sync_later(&mut self, cx: &mut Ctx) {
        self.syncing = true;
        let ms = if !cx.storm {
            1
        } else if self.slow {
            cx.chance.between(50, 5_000)
        } else {
            cx.chance.between(1, 6)
        };
        let (node, life, upto) = (self.no, self.life, self.committed);
        cx.after(ms, Happening::Synced { node, life, upto });
    }

    /// Everything committed up to there is safe, unless the disk says no: then nothing is known of it, and the node goes down.
    pub fn synced(&mut self, cx: &mut Ctx, upto: u64) {
        if self.sync_fails {
            self.sync_fails = false;
            cx.fault(Fault::SyncError, End::Node(self.no));
            let (whom, life) = (End::Node(self.no), self.life);
            let keep = u8::try_from(cx.chance.below(3)).unwrap_or(0);
            cx.after(0, Happening::Crash { whom, life, keep });
            return;
        }
        let open = self.committed - self.disk.unsynced() as u64;
        let n = usize::try_from(upto.saturating_sub(open)).unwrap_or(0);
        self.disk.sync(n);
        self.syncing = false;
        if self.disk.unsynced() > 0 {
            self.sync_later(cx);
        }
        let then: Vec<Then> = self.waiting.drain(..n.min(self.waiting.len())).flatten().collect();
        self.carry(cx, then);
    }

    fn carry(&mut self, cx: &mut Ctx, then: Vec<Then>) {
        for then in then {
            match then {
                Then::Reply(device, conn, frame) => cx.send_down(device, conn, *frame),
                Then::Respond(to, id, answer) => cx.respond(self.no, to, id, Rc::new(answer)),
                Then::Grown(log) => self.grown(cx, &log),
                Then::Reload(device) => self.reload(cx, device),
                Then::Read(device, log) => self.refresh(cx, device, log),
                Then::Dial(key, id, ask) => {
                    self.memory.asked.insert(id, lanes::Asked::Lane(key));
                    self.ask(cx, key.peer(&cx.names), id, *ask);
                }
                Then::Lane(key) => self.lane(cx, key),
                Then::Lanes(peer) => self.run_lanes(cx, Some(peer)),
                Then::Fill(room) => self.fill(cx, room),
            }
        }
    }

    fn ask(&mut self, cx: &mut Ctx, peer: NodeNo, id: u64, ask: Ask) {
        cx.request(self.no, peer, id, ask);
        let (node, life) = (self.no, self.life);
        cx.after(30_000, Happening::Timeout { node, life, id });
    }

    /// A log grew, on disk.
    fn grown(&mut self, cx: &mut Ctx, log: &LogName) {
        match *log {
            LogName::Room(room) => {
                self.grown_for_devices(cx, Log::Room(room));
                self.lanes_of(cx, room);
            }
            LogName::Replica(room) => self.grown_for_devices(cx, Log::Room(room)),
            LogName::Uplink(room) => self.lane(cx, LaneKey::Uplink(room)),
        }
    }

    /// A frame of a device.
    pub fn frame(&mut self, cx: &mut Ctx, device: DevNo, conn: u64, frame: Up) {
        match frame {
            Up::Submit { id, room, payload } => {
                let answer = self.submit(cx, device, conn, (id, room), &payload);
                if let Some(refusal) = answer {
                    cx.send_down(device, conn, Down::Reply(id, SubmitReply::Refused(refusal)));
                }
            }
            Up::Ack(log, cursor) => self.acknowledged(cx, device, log, cursor),
            Up::Rewind(log) => self.rewound(cx, device, log),
            Up::Ping(token) => {
                let now = self.now(cx);
                cx.send_down(device, conn, Down::Pong(token, now));
            }
            Up::Claim { of, position } => self.claim(cx, device, conn, of, position),
            Up::AskInfo { room, position } => self.info(cx, device, conn, room, position),
        }
    }

    /// What is kept of a payload's kind.
    fn digest(payload: &Payload) -> protocol::log::Digest {
        let (Payload::App(bytes) | Payload::Handshake(bytes)) = payload;
        protocol::log::Digest::of_bytes(bytes)
    }

    /// How much of its queues is not empty, for the end of a run.
    pub fn left(&self, cx: &mut Ctx) {
        let state = self.disk.synced();
        let mut notes = Vec::new();
        for (name, log) in &state.logs {
            for (who, stays) in &log.readers {
                let behind: u64 = stays
                    .iter()
                    .map(|s| {
                        s.until
                            .unwrap_or(log.head)
                            .min(log.head)
                            .get()
                            .saturating_sub(s.cursor.get())
                    })
                    .sum();
                let what = match (name, who) {
                    (LogName::Uplink(_), _) => "uplink",
                    (_, Who::Peer(_)) => "peer",
                    (_, Who::Device(_)) => "device",
                };
                if behind > 0 {
                    let whom =
                        if let Who::Device(d) = who { End::Device(*d) } else { End::Node(self.no) };
                    notes.push((what, whom.number(), behind));
                }
            }
        }
        for inbox in state.inboxes.values() {
            let behind = inbox.head.get() - inbox.reader.cursor.get();
            if behind > 0 {
                notes.push(("inbox", self.no.0, behind));
            }
        }
        if self.disk.unsynced() > 0 {
            notes.push(("unsynced", self.no.0, self.disk.unsynced() as u64));
        }
        for (what, whom, count) in notes {
            cx.note(Event::Left { what, whom, count });
        }
        for (room, group) in &state.groups {
            for device in group.members.difference(&state.revoked) {
                cx.note(Event::Member { device: device.0, room: room.0 });
            }
        }
    }
}
