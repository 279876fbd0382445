//! What every part of a run works with: time, chance, the network, the record.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::rc::Rc;

use protocol::Timestamp;

use crate::bug::Bug;
use crate::chance::Chance;
use crate::names::{DevNo, Names, NodeNo, RoomNo};
use crate::plan::Plan;
use crate::record::{Event, Fault, Recorder};

/// When time begins, so that clocks can be off in both directions.
pub const EPOCH_MS: u64 = 1_900_000_000_000;

/// One end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    Node(NodeNo),
    Device(DevNo),
}

impl End {
    /// A number for the record: nodes from 0, devices from 100.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Node(n) => n.0,
            Self::Device(d) => d.0.saturating_add(100),
        }
    }
}

/// Something that happens at a time.
pub enum Happening {
    /// A person does something.
    Op,
    /// Something goes wrong.
    Trouble,
    /// A cut ends.
    Heal(End, End),
    /// Somebody who crashed starts.
    Start(End),
    /// A crash that a store call drew.
    Crash { whom: End, life: u64, keep: u8 },
    /// A disk is as it should be again.
    DiskWell(NodeNo),
    /// A clock is set right.
    ClockWell(End),
    /// A node takes everything again.
    RefusalsEnd(NodeNo),
    /// A node's oldest unsynced transactions are safe.
    Synced { node: NodeNo, life: u64, upto: u64 },
    /// A lane may have something to do.
    Lane { node: NodeNo, life: u64, lane: crate::node::LaneKey },
    /// A node looks for what may go.
    Sweep { node: NodeNo, life: u64 },
    /// A request reaches a node.
    Request { from: NodeNo, to: NodeNo, id: u64, ask: Rc<crate::node::Ask> },
    /// Its answer comes back.
    Response { to: NodeNo, id: u64, answer: Rc<crate::node::Answer> },
    /// No answer came.
    Timeout { node: NodeNo, life: u64, id: u64 },
    /// A device dials its node.
    Dial { device: DevNo, life: u64 },
    /// The dialling reaches the node.
    Opened { device: DevNo, conn: u64 },
    /// A frame reaches a node.
    Up { device: DevNo, conn: u64, frame: crate::wire::Up },
    /// A frame reaches a device.
    Down { device: DevNo, conn: u64, frame: crate::wire::Down },
    /// A device notices that its connection is gone.
    Gone { device: DevNo, conn: u64 },
    /// A device may have something to do.
    Look { device: DevNo, life: u64 },
}

/// A device's connection to its node.
#[derive(Clone, Copy, Debug)]
struct Line {
    conn: u64,
    up_at: u64,
    down_at: u64,
    broken: bool,
}

struct Queued(Reverse<(u64, u64)>, Happening);

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// See the module.
pub struct Ctx {
    pub now: u64,
    pub chance: Chance,
    pub names: Rc<Names>,
    pub plan: Rc<Plan>,
    pub record: Recorder,
    /// Whether faults happen.
    pub storm: bool,
    /// Store calls so far.
    pub calls: u64,
    queue: BinaryHeap<Queued>,
    order: u64,
    /// Directions in which nothing passes.
    cuts: BTreeSet<(End, End)>,
    conns: u64,
    lines: std::collections::BTreeMap<DevNo, Line>,
    /// Numbers for requests, messages, packages.
    numbers: u64,
}

impl Ctx {
    pub fn new(plan: Rc<Plan>, names: Rc<Names>) -> Self {
        Self {
            now: 0,
            chance: Chance::new(plan.seed),
            names,
            plan,
            record: Recorder::default(),
            storm: true,
            calls: 0,
            queue: BinaryHeap::new(),
            order: 0,
            cuts: BTreeSet::new(),
            conns: 0,
            lines: std::collections::BTreeMap::new(),
            numbers: 0,
        }
    }

    /// Whether this bug is planted.
    #[must_use]
    pub fn bug(&self, bug: Bug) -> bool {
        self.plan.bug == Some(bug)
    }

    /// Writes an event down.
    pub fn note(&mut self, event: Event) {
        self.record.note(self.now, event);
    }

    /// Writes a fault down.
    pub fn fault(&mut self, fault: Fault, whom: End) {
        self.note(Event::Injected { fault, whom: whom.number() });
    }

    /// Queues something, so many milliseconds from now.
    pub fn after(&mut self, ms: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Queued(Reverse((self.now + ms, self.order)), what));
    }

    /// The next thing, not later than this.
    pub fn next(&mut self, until: u64) -> Option<Happening> {
        if self.queue.peek().is_none_or(|q| q.0.0.0 > until) {
            return None;
        }
        let Queued(Reverse((at, _)), what) = self.queue.pop()?;
        self.now = self.now.max(at);
        Some(what)
    }

    /// A fresh number.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The time on a clock that is this much off.
    #[must_use]
    pub fn clock(&self, offset_ms: i64) -> Timestamp {
        Timestamp::from_ms((EPOCH_MS + self.now).saturating_add_signed(offset_ms))
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: End, to: End) {
        self.cuts.insert((from, to));
    }

    /// Ends cuts between the two.
    pub fn heal(&mut self, a: End, b: End) {
        self.cuts.remove(&(a, b));
        self.cuts.remove(&(b, a));
    }

    /// Ends all cuts.
    pub fn heal_all(&mut self) {
        self.cuts.clear();
    }

    /// Whether something can pass.
    #[must_use]
    pub fn passes(&self, from: End, to: End) -> bool {
        !self.cuts.contains(&(from, to))
    }

    /// How long something travels.
    pub fn latency(&mut self, whom: End) -> u64 {
        if !self.storm {
            return self.chance.between(1, 20);
        }
        let plan = Rc::clone(&self.plan);
        if self.chance.odds(plan.clog) {
            self.fault(Fault::Delayed, whom);
            return self.chance.between(1_000, 30_000);
        }
        self.chance.between(1, plan.latency_ms)
    }

    /// Sends a request between nodes: it may get lost, come twice, late, out of order.
    pub fn request(&mut self, from: NodeNo, to: NodeNo, id: u64, ask: crate::node::Ask) {
        let ask = Rc::new(ask);
        for _ in 0..self.copies(End::Node(from), End::Node(to)) {
            let ms = self.latency(End::Node(to));
            self.after(ms, Happening::Request { from, to, id, ask: Rc::clone(&ask) });
        }
    }

    /// Answers a request.
    pub fn respond(&mut self, from: NodeNo, to: NodeNo, id: u64, answer: Rc<crate::node::Answer>) {
        for _ in 0..self.copies(End::Node(from), End::Node(to)) {
            let ms = self.latency(End::Node(to));
            self.after(ms, Happening::Response { to, id, answer: Rc::clone(&answer) });
        }
    }

    fn copies(&mut self, from: End, to: End) -> u8 {
        if !self.passes(from, to) {
            return 0;
        }
        if !self.storm {
            return 1;
        }
        let plan = Rc::clone(&self.plan);
        if self.chance.odds(plan.loss) {
            self.fault(Fault::Lost, to);
            return 0;
        }
        if self.chance.odds(plan.double) {
            self.fault(Fault::Doubled, to);
            return 2;
        }
        1
    }

    /// The node that orders a room.
    #[must_use]
    pub fn hub(&self, room: RoomNo) -> NodeNo {
        self.names.hub(room)
    }
}

/// Connections of devices: in order while they last, and gone at any time.
impl Ctx {
    /// Dials; `None` when the node cannot be reached.
    pub fn dial(&mut self, device: DevNo) -> Option<u64> {
        let (me, node) = (End::Device(device), End::Node(self.names.home(device)));
        if !self.passes(me, node) || !self.passes(node, me) {
            return None;
        }
        self.conns += 1;
        let conn = self.conns;
        let ms = self.latency(node);
        self.lines
            .insert(device, Line { conn, up_at: self.now + ms, down_at: self.now, broken: false });
        self.after(ms, Happening::Opened { device, conn });
        Some(conn)
    }

    /// A device gives its connection up.
    pub fn close(&mut self, device: DevNo, conn: u64) {
        if let Some(line) = self.lines.get_mut(&device).filter(|l| l.conn == conn) {
            line.broken = true;
        }
    }

    /// A connection breaks; the device notices sooner or later.
    pub fn break_line(&mut self, device: DevNo) {
        let Some(line) = self.lines.get_mut(&device).filter(|l| !l.broken) else { return };
        line.broken = true;
        let conn = line.conn;
        let most = if self.storm { 30_000 } else { 500 };
        let ms = if self.chance.odds(700_000) { 1 } else { self.chance.between(1, most) };
        self.after(ms, Happening::Gone { device, conn });
    }

    /// Whether what was sent on this connection still arrives: on a broken one, some of what was under way does.
    pub fn arrives(&mut self, device: DevNo, conn: u64) -> bool {
        match self.lines.get(&device) {
            Some(line) if line.conn == conn && !line.broken => true,
            _ => self.chance.odds(500_000),
        }
    }

    /// A frame from a device.
    pub fn send_up(&mut self, device: DevNo, conn: u64, frame: crate::wire::Up) {
        let (from, to) = (End::Device(device), End::Node(self.names.home(device)));
        let Some(ms) = self.travel(device, conn, (from, to)) else { return };
        let Some(line) = self.lines.get_mut(&device) else { return };
        line.up_at = line.up_at.max(self.now + ms);
        let ms = line.up_at - self.now;
        self.after(ms, Happening::Up { device, conn, frame });
    }

    /// A frame to a device.
    pub fn send_down(&mut self, device: DevNo, conn: u64, frame: crate::wire::Down) {
        let (from, to) = (End::Node(self.names.home(device)), End::Device(device));
        let Some(ms) = self.travel(device, conn, (from, to)) else { return };
        let Some(line) = self.lines.get_mut(&device) else { return };
        line.down_at = line.down_at.max(self.now + ms);
        let ms = line.down_at - self.now;
        self.after(ms, Happening::Down { device, conn, frame });
    }

    /// How long a frame travels: lost packets are sent again; a cut or a reset ends the connection.
    fn travel(&mut self, device: DevNo, conn: u64, (from, to): (End, End)) -> Option<u64> {
        let open = self.lines.get(&device).is_some_and(|l| l.conn == conn && !l.broken);
        if !open {
            return None;
        }
        let plan = Rc::clone(&self.plan);
        if !self.passes(from, to) {
            self.break_line(device);
            return None;
        }
        let mut ms = self.latency(to);
        if self.storm && self.chance.odds(plan.loss) {
            self.fault(Fault::Lost, to);
            ms += self.chance.between(200, 3_000);
        }
        if self.storm && self.chance.odds(plan.reset) {
            self.fault(Fault::Reset, from);
            let last = self.chance.odds(500_000);
            self.break_line(device);
            return last.then_some(ms);
        }
        Some(ms)
    }
}

/// Store calls, at which whoever makes them may go down.
impl Ctx {
    fn draws_crash(&mut self) -> Option<u8> {
        self.calls += 1;
        if !self.storm {
            return None;
        }
        let plan = Rc::clone(&self.plan);
        if let Some(at) = plan.crash_at {
            return (at.call == self.calls).then_some(at.keep);
        }
        if self.chance.odds(plan.call_crash) {
            return Some(u8::try_from(self.chance.below(3)).unwrap_or(0));
        }
        None
    }

    /// A node commits: it may go down before that is safe, or right after.
    pub fn call(&mut self, whom: End, life: u64) {
        let drawn = self.plan.crash_at.is_none();
        if let Some(keep) = self.draws_crash() {
            let ms = if drawn { self.chance.between(0, 8) } else { 0 };
            self.after(ms, Happening::Crash { whom, life, keep });
        }
    }

    /// A device commits, which is safe at once, or never: 0.
    pub fn call_now(&mut self, whom: End) -> Option<u8> {
        let keep = self.draws_crash()?;
        self.fault(Fault::DeviceCrash, whom);
        Some(if keep == 1 { u8::from(self.chance.odds(500_000)) } else { keep })
    }

    /// Somebody who went down starts again after a while.
    pub fn start_later(&mut self, whom: End) {
        let ms = self.chance.between(1, 10_000);
        self.after(ms, Happening::Start(whom));
    }
}
