//! One run: who is there at the beginning, the storm, the calm after it, the end.

use std::collections::BTreeSet;
use std::rc::Rc;

use protocol::log::Chain;
use protocol::{Cursor, Incarnation, Seq};

use crate::chance::Chance;
use crate::ctx::{Ctx, EPOCH_MS, End, Happening};
use crate::device::{self, Action, Device, LogPlace, RoomRow, Status};
use crate::names::{DevNo, Names, NodeNo, RoomNo};
use crate::node::{self, Evil, Lie, LogName, LogRow, Node, Trick, Who};
use crate::plan::{Plan, Scenario};
use crate::record::{Event, Fault, Place, Recorder};
use crate::sealed::{Core, Group, HubGroup, Package, hash};

/// Key packages that each device leaves at its node.
const STOCK: u64 = 12;
/// Everything must be at rest within this time after the storm, in milliseconds.
const REST_MS: u64 = 4 * 3_600_000;
/// For so long only a hub, a follower and two devices are up.
const PAIR_MS: u64 = 20 * 60_000;

/// See the module.
pub struct World {
    cx: Ctx,
    nodes: Vec<Node>,
    devices: Vec<Device>,
    ops: u64,
    /// A node that is restored in this run, once.
    restored: bool,
    /// Who starts by itself after a crash.
    restarts: bool,
}

/// Runs a plan to its end; what was recorded.
#[must_use]
pub fn run(plan: &Plan) -> Recorder {
    let mut world = World::new(plan);
    world.storm();
    world.calm();
    world.end();
    world.cx.record
}

/// How many store calls a run makes before the calm.
#[must_use]
pub fn store_calls(plan: &Plan) -> u64 {
    let mut world = World::new(plan);
    world.storm();
    world.cx.calls
}

impl World {
    fn new(plan: &Plan) -> Self {
        let names = Rc::new(Names::new(plan.nodes, &plan.homes, &plan.hubs));
        let mut cx = Ctx::new(Rc::new(plan.clone()), Rc::clone(&names));
        let lives: Vec<Incarnation> =
            names.nodes().map(|_| Incarnation::from_bytes(cx.chance.bytes16())).collect();
        let mut nodes: Vec<Node> = names
            .nodes()
            .zip(&lives)
            .map(|(no, life)| Node::new(no, node::State::new(*life)))
            .collect();
        let mut states: Vec<device::State> = Vec::new();
        for device in names.devices() {
            let node = &mut nodes[usize::from(names.home(device).0)];
            let mut state = device::State::default();
            for _ in 0..STOCK {
                let package = Package {
                    device: device.0,
                    no: cx.number(),
                    from_ms: EPOCH_MS - 24 * 3_600_000,
                    to_ms: EPOCH_MS + 60 * 24 * 3_600_000,
                };
                state.packages.insert(package.no);
                node.disk.write(move |s| s.packages.entry(device).or_default().push_back(package));
            }
            node.disk.write(move |s| {
                s.inboxes.entry(device).or_default();
            });
            states.push(state);
        }
        for room in names.rooms() {
            found(&mut cx, &names, &mut nodes, &mut states, &lives, room);
        }
        for node in &mut nodes {
            node.disk.commit();
            node.disk.sync(1);
        }
        let devices =
            names.devices().zip(states).map(|(no, state)| Device::new(no, state)).collect();
        Self { cx, nodes, devices, ops: 0, restored: false, restarts: true }
    }

    fn node(&mut self, no: NodeNo) -> (&mut Node, &mut Ctx) {
        (&mut self.nodes[usize::from(no.0)], &mut self.cx)
    }

    fn device(&mut self, no: DevNo) -> (&mut Device, &mut Ctx) {
        (&mut self.devices[usize::from(no.0)], &mut self.cx)
    }

    fn storm(&mut self) {
        self.beginning();
        let pace = self.cx.plan.pace_ms;
        self.cx.after(1_000, Happening::Op);
        self.cx.after(self.cx.plan.fault_ms, Happening::Trouble);
        // Long enough for all operations, and never without end.
        let until = self.cx.now + 30_000 + self.cx.plan.ops * pace * 2;
        while let Some(what) = self.cx.next(until) {
            self.happen(what);
            if self.ops >= self.cx.plan.ops && self.cx.plan.crash_at.is_none() {
                break;
            }
        }
    }

    fn beginning(&mut self) {
        for no in self.cx.names.nodes() {
            let clocks = self.cx.plan.clocks;
            let offset = offset(&mut self.cx.chance, clocks);
            let (node, cx) = self.node(no);
            node.offset_ms = offset;
            if offset != 0 {
                cx.fault(Fault::ClockJump, End::Node(no));
            }
            node.start(cx);
        }
        for no in self.cx.names.devices() {
            let clocks = self.cx.plan.clocks;
            let offset = offset(&mut self.cx.chance, clocks);
            let (device, cx) = self.device(no);
            device.offset_ms = offset;
            if offset != 0 {
                cx.fault(Fault::ClockJump, End::Device(no));
            }
            device.start(cx);
            // What everybody has at the beginning.
            let rows = device.disk.synced().clone();
            for row in rows.rooms.values() {
                let Some(place) = row.place else { continue };
                let place = device::place(&place.cursor);
                cx.note(Event::Entered { device: no.0, room: row.room.0, place, commit: None });
            }
        }
        self.deceive();
    }

    /// In some scenarios one node lies.
    fn deceive(&mut self) {
        let tricks = match self.cx.plan.scenario {
            Scenario::BadHistory => Trick::HISTORY,
            Scenario::BadHandshakes => Trick::HANDSHAKE,
            _ => return,
        };
        let room = RoomNo(0);
        let hub = self.cx.hub(room);
        let Some(log) = self.nodes[usize::from(hub.0)].disk.synced().groups.get(&room) else {
            return;
        };
        let members: Vec<DevNo> = log.members.iter().copied().collect();
        let homes: Vec<NodeNo> = members.iter().map(|d| self.cx.names.home(*d)).collect();
        let chance = &mut self.cx.chance;
        let Some(liar) = chance.pick(&homes).copied() else { return };
        let ours: Vec<DevNo> =
            members.iter().copied().filter(|d| self.cx.names.home(*d) == liar).collect();
        let chance = &mut self.cx.chance;
        let mut victims: BTreeSet<DevNo> =
            ours.iter().copied().filter(|_| chance.odds(500_000)).collect();
        victims.extend(chance.pick(&ours).copied());
        if victims.len() == members.len() {
            victims.pop_last();
        }
        let trick = *chance.pick(tricks).unwrap_or(&Trick::Drop);
        let from = chance.between(1_000, 10_000);
        let lie = Lie { room, victims, trick, from };
        self.nodes[usize::from(liar.0)].evil = Some(Evil::new(lie));
        self.cx.note(Event::Liar { node: liar.0 });
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Op if self.cx.storm => self.op(),
            Happening::Trouble if self.cx.storm => self.trouble(),
            Happening::Heal(a, b) => self.cx.heal(a, b),
            Happening::Start(whom) => {
                if self.restarts {
                    self.start(whom);
                }
            }
            Happening::Crash { whom, life, keep } => {
                if self.life(whom) == life && self.cx.storm {
                    self.crash(whom, keep);
                    self.cx.start_later(whom);
                }
            }
            Happening::DiskWell(no) => self.disk_well(no),
            Happening::ClockWell(whom) => self.set_clock(whom, 0),
            Happening::RefusalsEnd(no) => self.node(no).0.refusing = false,
            Happening::Synced { node: no, life, upto } => {
                let (node, cx) = self.node(no);
                if node.life == life && node.up {
                    node.synced(cx, upto);
                }
            }
            Happening::Lane { node: no, life, lane } => {
                let (node, cx) = self.node(no);
                if node.life == life && node.up {
                    node.lane(cx, lane);
                }
            }
            Happening::Sweep { node: no, life } => {
                let (node, cx) = self.node(no);
                if node.life == life && node.up {
                    node.sweep(cx, None);
                }
            }
            other => self.traffic(other),
        }
    }

    fn traffic(&mut self, what: Happening) {
        match what {
            Happening::Request { from, to, id, ask } => {
                // What a node sent before it was restored does not arrive after it.
                let since = self.nodes[usize::from(from.0)].speaks_from;
                let (node, cx) = self.node(to);
                if node.up && id >= since && cx.passes(End::Node(from), End::Node(to)) {
                    node.asked(cx, from, id, &ask);
                }
            }
            Happening::Response { to, id, answer } => {
                let (node, cx) = self.node(to);
                if node.up {
                    node.answered(cx, id, Some(&answer));
                }
            }
            Happening::Timeout { node: no, life, id } => {
                let (node, cx) = self.node(no);
                if node.life == life && node.up {
                    node.answered(cx, id, None);
                }
            }
            Happening::Dial { device: no, life } => {
                let (device, cx) = self.device(no);
                if device.life == life && device.up {
                    device.dial(cx);
                }
            }
            Happening::Opened { device, conn } => {
                let home = self.cx.names.home(device);
                let arrives = self.cx.arrives(device, conn);
                let (node, cx) = self.node(home);
                if node.up && arrives {
                    node.opened(cx, device, conn);
                }
            }
            Happening::Up { device, conn, frame } => {
                let home = self.cx.names.home(device);
                let arrives = self.cx.arrives(device, conn);
                let (node, cx) = self.node(home);
                if node.up && arrives && node.hears(device, conn) {
                    node.frame(cx, device, conn, frame);
                }
            }
            Happening::Down { device: no, conn, frame } => {
                let arrives = self.cx.arrives(no, conn);
                let (device, cx) = self.device(no);
                if device.up && arrives && device.conn() == Some(conn) {
                    device.frame(cx, frame);
                }
            }
            Happening::Gone { device: no, conn } => {
                let (device, cx) = self.device(no);
                if device.up {
                    device.gone(cx, conn);
                }
            }
            Happening::Look { device: no, life } => {
                let (device, cx) = self.device(no);
                if device.life == life && device.up && device.looks_now(cx) {
                    device.look(cx);
                }
            }
            _ => {}
        }
    }

    /// A person does something.
    fn op(&mut self) {
        self.ops += 1;
        let pace = self.cx.plan.pace_ms;
        let ms = self.cx.chance.between(1, pace);
        if self.ops < self.cx.plan.ops {
            self.cx.after(ms, Happening::Op);
        }
        if self.ops == 3 {
            // Whatever else the seed draws, something goes wrong.
            let device = DevNo(0);
            self.cx.fault(Fault::Reset, End::Device(device));
            self.cx.break_line(device);
        }
        let up: Vec<DevNo> = self.devices.iter().filter(|d| d.up && !d.off).map(|d| d.no).collect();
        let Some(no) = self.cx.chance.pick(&up).copied() else { return };
        let changes = self.cx.plan.changes;
        if self.cx.chance.between(0, 99) < changes {
            self.change(no);
            return;
        }
        if self.cx.chance.odds(30_000) {
            let (device, cx) = self.device(no);
            return device.retry(cx);
        }
        let rooms = self.device(no).0.writable();
        let Some(room) = self.cx.chance.pick(&rooms).copied() else { return };
        let (device, cx) = self.device(no);
        device.write(cx, room);
    }

    fn change(&mut self, no: DevNo) {
        let held = self.device(no).0.held();
        if let Some(room) = self.cx.chance.pick(&held).copied() {
            if !self.cx.plan.scenario.malicious() && self.cx.chance.odds(500_000) {
                let (device, cx) = self.device(no);
                device.rejoin(cx, room);
            }
            return;
        }
        let rooms: Vec<RoomNo> = self.cx.names.rooms().collect();
        let Some(room) = self.cx.chance.pick(&rooms).copied() else { return };
        let members = self.device(no).0.members(room);
        if members.is_empty() {
            return;
        }
        let all: Vec<DevNo> = self.cx.names.devices().collect();
        let others: Vec<DevNo> = all.into_iter().filter(|d| !members.contains(d)).collect();
        let kind = self.cx.chance.between(0, 9);
        let action = match kind {
            0..=4 => self.cx.chance.pick(&others).copied().map(Action::Add),
            5..=6 if members.len() > 2 => {
                let gone = self.cx.chance.pick(&members).copied();
                gone.filter(|d| *d != no && d.0 > 1).map(Action::Remove)
            }
            7 if members.len() > 2 && no.0 > 1 => Some(Action::Leave),
            _ => None,
        };
        let (device, cx) = self.device(no);
        device.want(cx, room, action.unwrap_or(Action::Renew));
    }

    fn life(&self, whom: End) -> u64 {
        match whom {
            End::Node(n) => self.nodes[usize::from(n.0)].life,
            End::Device(d) => self.devices[usize::from(d.0)].life,
        }
    }

    fn start(&mut self, whom: End) {
        match whom {
            End::Node(no) => {
                let (node, cx) = self.node(no);
                if !node.up {
                    node.start(cx);
                }
            }
            End::Device(no) => {
                let (device, cx) = self.device(no);
                if !device.up && !device.off {
                    device.start(cx);
                }
            }
        }
    }

    fn crash(&mut self, whom: End, keep: u8) {
        match whom {
            End::Node(no) => {
                let (node, cx) = self.node(no);
                if node.up {
                    cx.fault(Fault::NodeCrash, whom);
                    node.crash(cx, keep);
                }
            }
            End::Device(no) => {
                let (device, cx) = self.device(no);
                if device.up {
                    cx.fault(Fault::DeviceCrash, whom);
                    device.crash(cx);
                }
            }
        }
    }

    fn anybody(&mut self) -> End {
        let (n, d) = (self.nodes.len(), self.devices.len());
        let pick = self.cx.chance.below(2 * n + d);
        let number = |n: usize| u8::try_from(n).unwrap_or(0);
        if pick < 2 * n {
            End::Node(NodeNo(number(pick / 2)))
        } else {
            End::Device(DevNo(number(pick - 2 * n)))
        }
    }

    /// Something goes wrong, of what may in this run.
    fn trouble(&mut self) {
        let plan = Rc::clone(&self.cx.plan);
        let ms = self.cx.chance.between(1, 2 * plan.fault_ms);
        self.cx.after(ms, Happening::Trouble);
        let whom = self.anybody();
        let on = [
            plan.crashes,
            plan.cuts,
            plan.disk_full,
            plan.disk_slow,
            plan.sync_errors,
            plan.clocks,
            plan.refusals,
            plan.expiry,
            plan.restore && !self.restored,
        ];
        let kinds: Vec<usize> = (0..on.len()).filter(|i| on[*i]).collect();
        let Some(kind) = self.cx.chance.pick(&kinds).copied() else { return };
        let ms = self.cx.chance.between(100, 30_000);
        let nodes = self.nodes.len();
        let no = NodeNo(u8::try_from(self.cx.chance.below(nodes)).unwrap_or(0));
        match kind {
            0 => {
                let keep = u8::try_from(self.cx.chance.below(3)).unwrap_or(0);
                self.crash(whom, keep);
                self.cx.after(ms, Happening::Start(whom));
            }
            1 => self.cut(whom, ms),
            2 => {
                let free = self.cx.chance.between(0, 30);
                self.node(no).0.free = free;
                self.cx.fault(Fault::DiskFull, End::Node(no));
                self.cx.after(ms, Happening::DiskWell(no));
            }
            3 => {
                self.node(no).0.slow = true;
                self.cx.fault(Fault::DiskSlow, End::Node(no));
                self.cx.after(ms, Happening::DiskWell(no));
            }
            4 => self.node(no).0.sync_fails = true,
            5 => {
                let offset = offset(&mut self.cx.chance, true);
                self.set_clock(whom, offset);
                self.cx.fault(Fault::ClockJump, whom);
                self.cx.after(ms, Happening::ClockWell(whom));
            }
            6 => {
                self.node(no).0.refusing = true;
                self.cx.fault(Fault::Refusal, End::Node(no));
                self.cx.after(ms / 4, Happening::RefusalsEnd(no));
            }
            7 => self.expire(),
            _ => self.restore(ms),
        }
    }

    fn cut(&mut self, whom: End, ms: u64) {
        let other = match whom {
            End::Device(d) => End::Node(self.cx.names.home(d)),
            End::Node(n) => {
                let others: Vec<NodeNo> = self.cx.names.nodes().filter(|o| *o != n).collect();
                End::Node(self.cx.chance.pick(&others).copied().unwrap_or(n))
            }
        };
        self.cx.cut(whom, other);
        if !self.cx.plan.one_way || self.cx.chance.odds(500_000) {
            self.cx.cut(other, whom);
        }
        self.cx.fault(Fault::Cut, whom);
        self.cx.after(ms, Happening::Heal(whom, other));
    }

    fn disk_well(&mut self, no: NodeNo) {
        let node = self.node(no).0;
        node.free = 1_000_000;
        node.slow = false;
    }

    fn set_clock(&mut self, whom: End, offset: i64) {
        match whom {
            End::Node(no) => self.node(no).0.offset_ms = offset,
            End::Device(no) => self.device(no).0.offset_ms = offset,
        }
    }

    /// A device is away for so long that what waits for it is too old.
    fn expire(&mut self) {
        let devices = self.devices.len();
        let no = DevNo(u8::try_from(self.cx.chance.below(devices)).unwrap_or(0));
        let rooms: Vec<RoomNo> = self.cx.names.rooms().collect();
        let room = self.cx.chance.pick(&rooms).copied().unwrap_or(RoomNo(0));
        let home = self.cx.names.home(no);
        let (node, cx) = self.node(home);
        if node.up {
            cx.fault(Fault::Expiry, End::Device(no));
            node.sweep(cx, Some(room));
        }
    }

    /// A node's backup is taken, and put back after a while.
    fn restore(&mut self, ms: u64) {
        let room = RoomNo(0);
        let chance = &mut self.cx.chance;
        let node = if chance.odds(700_000) { self.cx.names.hub(room) } else { NodeNo(1) };
        let no = usize::from(node.0);
        if self.nodes[no].backup.is_none() {
            self.nodes[no].backup = Some(self.nodes[no].disk.synced().clone());
            return;
        }
        self.crash(End::Node(node), 2);
        self.restored = true;
        let (node, cx) = self.node(node);
        node.restore(cx);
        cx.fault(Fault::Restore, End::Node(node.no));
        cx.note(Event::Restored { node: node.no.0 });
        cx.after(ms, Happening::Start(End::Node(node.no)));
    }
}

fn offset(chance: &mut Chance, clocks: bool) -> i64 {
    if !clocks {
        return 0;
    }
    let most = *chance.pick(&[0, 1_000, 3_600_000, 48 * 3_600_000]).unwrap_or(&0);
    let ms = i64::try_from(chance.between(0, 2 * most)).unwrap_or(0);
    ms - i64::try_from(most).unwrap_or(0)
}

/// A room at the beginning: some devices are in it, at epoch 0, and its log is empty.
fn found(
    cx: &mut Ctx,
    names: &Names,
    nodes: &mut [Node],
    states: &mut [device::State],
    lives: &[Incarnation],
    room: RoomNo,
) {
    let hub = names.hub(room);
    let life = lives[usize::from(hub.0)];
    let chain = Chain::start(&life, names.room(room));
    let secret = hash(&[&cx.chance.bytes16(), b"room"]);
    // The first devices of the first two people, who are on different nodes, are always in.
    let first = |u: u8| names.devices().find(|d| names.user(*d) == u);
    let mut members: BTreeSet<DevNo> = [first(0), first(1)].into_iter().flatten().collect();
    for device in names.devices() {
        if cx.chance.odds(600_000) {
            members.insert(device);
        }
    }
    let core = Core { epoch: 0, secret, members: members.clone() };
    let group = HubGroup {
        epoch: 0,
        members: members.clone(),
        leaving: BTreeSet::new(),
        external: core.external(),
    };
    let homes: BTreeSet<NodeNo> = members.iter().map(|d| names.home(*d)).collect();
    for node in homes.iter().copied().chain([hub]).collect::<BTreeSet<_>>() {
        let mut log = LogRow::new(life, Seq::new(0), chain);
        for device in members.iter().filter(|d| names.home(**d) == node) {
            log.join(Who::Device(*device), Seq::new(1));
        }
        let name = if node == hub { LogName::Room(room) } else { LogName::Replica(room) };
        if node == hub {
            for peer in homes.iter().filter(|n| **n != hub) {
                log.join(Who::Peer(*peer), Seq::new(1));
            }
        }
        let group = group.clone();
        nodes[usize::from(node.0)].disk.write(move |s| {
            s.logs.insert(name, log.clone());
            if matches!(name, LogName::Room(_)) {
                s.groups.insert(room, group.clone());
            }
        });
    }
    for device in members {
        let state = &mut states[usize::from(device.0)];
        let cursor = Cursor { incarnation: life, seq: Seq::new(0) };
        let place = Some(LogPlace { cursor, chain });
        let row = RoomRow { room, status: Status::Active, place, counter: 0, prev: None };
        state.rooms.insert(room, row);
        state.groups.insert(room, Rc::new(Group::new(device, room, core.clone())));
    }
}

/// The calm after the storm, and the end.
impl World {
    fn run_until(&mut self, until: u64) {
        while let Some(what) = self.cx.next(until) {
            self.happen(what);
        }
        self.cx.now = self.cx.now.max(until);
    }

    fn calm(&mut self) {
        self.cx.storm = false;
        self.cx.note(Event::Calm);
        self.cx.heal_all();
        for no in self.cx.names.nodes() {
            self.disk_well(no);
            self.set_clock(End::Node(no), 0);
            let node = self.node(no).0;
            (node.refusing, node.sync_fails) = (false, false);
        }
        for no in self.cx.names.devices() {
            self.set_clock(End::Device(no), 0);
        }
        if self.cx.plan.clocks {
            // A hub whose clock went back takes nothing before its clock has caught up with its room's last entry. PROTOCOL §4.2.
            self.cx.now += 97 * 3_600_000;
        }
        if !self.cx.plan.scenario.malicious() {
            self.pair();
        }
        self.everybody();
        self.rest();
        // A lie is noticed once those who were told the truth have written about what they saw.
        for _ in 0..if self.cx.plan.scenario.malicious() { 4 } else { 2 } {
            self.everybody_writes();
            self.rest();
        }
    }

    /// Only a room's hub, one follower and two devices are up.
    fn pair(&mut self) {
        let room = RoomNo(0);
        let hub = self.cx.hub(room);
        let two = [DevNo(0), self.second()];
        let up: BTreeSet<NodeNo> =
            two.iter().map(|d| self.cx.names.home(*d)).chain([hub]).collect();
        self.restarts = false;
        for no in self.cx.names.nodes() {
            if up.contains(&no) { self.start(End::Node(no)) } else { self.stop(End::Node(no)) }
        }
        for no in self.cx.names.devices() {
            if two.contains(&no) { self.start(End::Device(no)) } else { self.stop(End::Device(no)) }
        }
        let until = self.cx.now + PAIR_MS;
        self.run_until(until);
        let head = self.head(room);
        for no in two {
            if let Some(head) = head {
                let (device, cx) = self.device(no);
                device.pair(cx, room, head);
            }
        }
    }

    fn second(&self) -> DevNo {
        let names = &self.cx.names;
        names.devices().find(|d| names.user(*d) == 1).unwrap_or(DevNo(1))
    }

    fn stop(&mut self, whom: End) {
        match whom {
            End::Node(no) => {
                let (node, cx) = self.node(no);
                if node.up {
                    node.crash(cx, 2);
                }
            }
            End::Device(no) => {
                let (device, cx) = self.device(no);
                if device.up {
                    device.crash(cx);
                }
            }
        }
    }

    fn everybody(&mut self) {
        self.restarts = true;
        for no in self.cx.names.nodes() {
            self.start(End::Node(no));
        }
        for no in self.cx.names.devices() {
            self.device(no).0.off = false;
            self.start(End::Device(no));
        }
    }

    /// Waits until nobody has anything to do, or for as long as that may take.
    fn rest(&mut self) {
        let until = self.cx.now + REST_MS;
        while self.cx.now < until {
            let next = self.cx.now + 20_000;
            self.run_until(next);
            if !self.cx.plan.scenario.malicious() {
                self.people_help();
            }
            if self.idle() {
                return;
            }
            if self.cx.plan.scenario.malicious() && self.cx.now + REST_MS > until + 600_000 {
                return;
            }
        }
    }

    /// What people do when a room is held for good: they join it anew.
    fn people_help(&mut self) {
        if !self.cx.plan.expiry && !self.cx.plan.restore {
            return;
        }
        for no in self.cx.names.nodes() {
            let (node, cx) = self.node(no);
            node.resume(cx);
        }
        for no in self.cx.names.devices() {
            for room in self.device(no).0.held() {
                let (device, cx) = self.device(no);
                device.rejoin(cx, room);
            }
        }
    }

    fn head(&self, room: RoomNo) -> Option<Place> {
        let hub = self.cx.hub(room);
        let log = self.nodes[usize::from(hub.0)].disk.synced().logs.get(&LogName::Room(room))?;
        Some(device::place(&Cursor { incarnation: log.incarnation, seq: log.head }))
    }

    fn idle(&self) -> bool {
        let quiet = |n: &Node| {
            n.up && n.disk.unsynced() == 0
                && n.disk.synced().inboxes.values().all(|i| i.reader.cursor >= i.head)
                && n.disk.synced().logs.iter().all(|(name, log)| {
                    log.readers.iter().all(|(who, stays)| {
                        let counts =
                            matches!(who, Who::Peer(_)) || !matches!(name, LogName::Uplink(_));
                        !counts
                            || stays
                                .iter()
                                .all(|s| s.cursor >= s.until.unwrap_or(log.head).min(log.head))
                    })
                })
        };
        self.nodes.iter().all(quiet)
            && self.devices.iter().all(|d| d.up && d.idle(|room| self.head(room)))
    }

    fn everybody_writes(&mut self) {
        for no in self.cx.names.devices() {
            for room in self.device(no).0.writable() {
                let (device, cx) = self.device(no);
                device.write(cx, room);
            }
        }
    }

    fn end(&mut self) {
        self.finals(0);
        // Everybody goes down and comes back: nothing may change by that.
        for no in self.cx.names.nodes() {
            self.stop(End::Node(no));
        }
        for no in self.cx.names.devices() {
            self.stop(End::Device(no));
        }
        self.everybody();
        let until = self.cx.now + 60_000;
        self.run_until(until);
        self.finals(1);
    }

    fn finals(&mut self, round: u8) {
        let heads: Vec<Option<Place>> = self.cx.names.rooms().map(|r| self.head(r)).collect();
        for no in self.cx.names.devices() {
            let (device, cx) = self.device(no);
            device.finals(cx, round, |r| {
                heads[usize::from(r.0)].unwrap_or(Place { life: 0, seq: 0 })
            });
        }
        for no in self.cx.names.nodes() {
            let (node, cx) = self.node(no);
            node.left(cx);
        }
    }
}
