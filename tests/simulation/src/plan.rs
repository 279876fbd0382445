//! What a run is: who takes part, what may go wrong, how often. All of it drawn from the seed; each run draws which faults are on.

use crate::bug::Bug;
use crate::chance::Chance;
use crate::names::NodeNo;

/// The scenarios; each ends in the liveness phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// S-1: network faults alone.
    Network,
    /// S-2: crashes as well.
    Crashes,
    /// S-3: cuts in one or both directions.
    Cuts,
    /// S-4: full and slow disks.
    Disks,
    /// S-5: many commits at once.
    Commits,
    /// S-6: clocks.
    Clocks,
    /// S-8: a hub that meddles with handshakes.
    BadHandshakes,
    /// S-9: a hub or follower that lies about history.
    BadHistory,
    /// S-10: devices come, go, and come back after very long.
    Lives,
    /// A node is restored from a backup (S-9's rollback without malice).
    Restore,
    /// Everything that honest parties can run into.
    Everything,
}

impl Scenario {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Network,
        Self::Crashes,
        Self::Cuts,
        Self::Disks,
        Self::Commits,
        Self::Clocks,
        Self::BadHandshakes,
        Self::BadHistory,
        Self::Lives,
        Self::Restore,
        Self::Everything,
    ];

    /// Whether somebody is dishonest in it.
    #[must_use]
    pub const fn malicious(self) -> bool {
        matches!(self, Self::BadHandshakes | Self::BadHistory)
    }
}

/// A crash at one store call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashAt {
    /// Which store call, from 1.
    pub call: u64,
    /// How much of what is unsynced survives: 0 none, 1 some, 2 all.
    pub keep: u8,
}

/// See the module. Odds are per million.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub scenario: Scenario,
    pub bug: Option<Bug>,
    pub crash_at: Option<CrashAt>,
    /// Devices by node and user.
    pub homes: Vec<(NodeNo, u8)>,
    pub nodes: usize,
    /// Each room's hub.
    pub hubs: Vec<NodeNo>,
    pub ops: u64,
    /// Milliseconds between operations, at most.
    pub pace_ms: u64,
    /// Of a hundred operations so many are changes to a room.
    pub changes: u64,
    pub loss: u64,
    pub double: u64,
    pub latency_ms: u64,
    pub clog: u64,
    pub reset: u64,
    /// Between faults that are drawn by time, on average; 0: none.
    pub fault_ms: u64,
    pub crashes: bool,
    pub cuts: bool,
    pub one_way: bool,
    pub disk_full: bool,
    pub disk_slow: bool,
    pub sync_errors: bool,
    pub clocks: bool,
    pub refusals: bool,
    pub expiry: bool,
    pub restore: bool,
    /// Odds of a crash at a store call.
    pub call_crash: u64,
}

impl Plan {
    /// What this seed gives.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x5eed_0fa1);
        let scenario = *chance.pick(Scenario::ALL).unwrap_or(&Scenario::Network);
        Self::drawn(seed, scenario, &mut chance)
    }

    /// The same for a given scenario.
    #[must_use]
    pub fn with(seed: u64, scenario: Scenario) -> Self {
        Self::drawn(seed, scenario, &mut Chance::new(seed ^ 0x5eed_0fa1))
    }

    fn drawn(seed: u64, scenario: Scenario, c: &mut Chance) -> Self {
        let most = if c.odds(200_000) { 5 } else { 3 };
        let nodes = 2 + c.below(most - 1);
        let node = |c: &mut Chance| NodeNo(u8::try_from(c.below(nodes)).unwrap_or(0));
        let many = scenario == Scenario::Commits && c.odds(300_000);
        let people = if many { c.between(6, 12) } else { c.between(3, 6) };
        let mut homes = Vec::new();
        for user in 0..people {
            let user = u8::try_from(user).unwrap_or(0);
            // The first two are on different nodes, so that there is always a hub and a follower.
            let home = if user < 2 { NodeNo(user) } else { node(c) };
            let devices = if c.odds(250_000) { 2 } else { 1 };
            homes.extend((0..devices).map(|_| (home, user)));
        }
        // Invitations into one room have to wait for nothing in another.
        let rooms = match scenario {
            Scenario::Lives => c.between(2, 5),
            _ if c.odds(300_000) => 2,
            _ => 1,
        };
        let hubs = (0..rooms).map(|_| NodeNo(u8::try_from(c.below(2)).unwrap_or(0))).collect();
        let mut plan = Self {
            seed,
            scenario,
            bug: None,
            crash_at: None,
            homes,
            nodes,
            hubs,
            ops: 0,
            pace_ms: *c.pick(&[50, 300, 1_000, 3_000]).unwrap_or(&300),
            changes: *c.pick(&[0, 5, 15]).unwrap_or(&5),
            loss: 0,
            double: 0,
            latency_ms: *c.pick(&[2, 50, 400, 2_000]).unwrap_or(&50),
            clog: 0,
            reset: 0,
            fault_ms: 0,
            crashes: false,
            cuts: false,
            one_way: false,
            disk_full: false,
            disk_slow: false,
            sync_errors: false,
            clocks: false,
            refusals: false,
            expiry: false,
            restore: false,
            call_crash: 0,
        };
        let most = if c.odds(100_000) { 200 } else { 60 };
        plan.ops = c.between(20, most);
        plan.network(c);
        plan.scene(c);
        plan
    }

    fn network(&mut self, c: &mut Chance) {
        let on = |c: &mut Chance, odds: u64, most: u64| {
            if c.odds(odds) { c.between(1_000, most) } else { 0 }
        };
        self.loss = on(c, 600_000, 300_000);
        self.double = on(c, 600_000, 500_000);
        self.clog = on(c, 300_000, 20_000);
        self.reset = on(c, 500_000, 30_000);
        if self.loss + self.double + self.clog + self.reset == 0 {
            self.loss = 100_000;
            self.reset = 10_000;
        }
    }

    fn scene(&mut self, c: &mut Chance) {
        match self.scenario {
            Scenario::Network => {}
            Scenario::Crashes => self.crashes = true,
            Scenario::Cuts => {
                self.cuts = true;
                self.one_way = c.odds(500_000);
            }
            Scenario::Disks => {
                self.disk_full = true;
                self.disk_slow = c.odds(500_000);
                self.sync_errors = c.odds(500_000);
            }
            Scenario::Commits => {
                self.changes = *c.pick(&[30, 60, 90]).unwrap_or(&60);
                self.pace_ms = *c.pick(&[5, 50, 300]).unwrap_or(&50);
                self.crashes = c.odds(300_000);
            }
            Scenario::Clocks => {
                self.clocks = true;
                self.changes = self.changes.max(10);
            }
            Scenario::BadHandshakes => self.changes = self.changes.max(15),
            Scenario::BadHistory => self.changes = 0,
            Scenario::Lives => {
                self.changes = 60;
                self.crashes = c.odds(300_000);
            }
            Scenario::Restore => {
                self.restore = true;
                self.changes = 0;
                self.crashes = c.odds(300_000);
            }
            Scenario::Everything => {
                for on in [
                    &mut self.crashes,
                    &mut self.cuts,
                    &mut self.one_way,
                    &mut self.disk_full,
                    &mut self.disk_slow,
                    &mut self.sync_errors,
                    &mut self.clocks,
                    &mut self.refusals,
                ] {
                    *on = c.odds(500_000);
                }
            }
        }
        if !self.scenario.malicious() && self.scenario != Scenario::Restore {
            self.refusals |= c.odds(150_000);
        }
        if self.crashes {
            self.call_crash = *c.pick(&[1_000, 5_000, 20_000]).unwrap_or(&1_000);
        }
        self.fault_ms = *c.pick(&[1_000, 5_000, 20_000]).unwrap_or(&5_000);
    }
}
