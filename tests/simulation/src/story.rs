//! A run as a story for a person, and many runs as numbers.

use std::collections::BTreeMap;

use crate::check::{Violation, check};
use crate::plan::Plan;
use crate::record::{Fault, Recorder};
use crate::world;

/// One run, judged.
pub struct Judged {
    pub seed: u64,
    pub hash: u64,
    pub violations: Vec<Violation>,
    pub faults: BTreeMap<Fault, u64>,
    pub events: u64,
}

impl Judged {
    /// A run that ended in a panic.
    fn of_panic(seed: u64) -> Self {
        let what = "the run ended in a panic; see above".to_owned();
        let violations = vec![Violation { rule: "panic", what }];
        let faults = BTreeMap::from([(Fault::Lost, 1)]);
        Self { seed, hash: 0, violations, faults, events: 0 }
    }
}

/// Runs a plan and judges it.
#[must_use]
pub fn judge(plan: &Plan) -> Judged {
    let record = world::run(plan);
    judged(plan, &record)
}

fn judged(plan: &Plan, record: &Recorder) -> Judged {
    Judged {
        seed: plan.seed,
        hash: record.hash(),
        violations: check(record.events()),
        faults: record.faults().clone(),
        events: record.events().len() as u64,
    }
}

/// Runs a plan and prints everything that happened, in order.
#[must_use]
pub fn tell(plan: &Plan) -> Judged {
    println!("{plan:#?}");
    let record = world::run(plan);
    for (at, event) in record.events() {
        println!("{:>10}.{:03}  {event:?}", at / 1_000, at % 1_000);
    }
    let judged = judged(plan, &record);
    println!("hash {:016x}", judged.hash);
    for violation in &judged.violations {
        println!("VIOLATED {}: {}", violation.rule, violation.what);
    }
    judged
}

/// Many runs.
#[derive(Default)]
pub struct Tally {
    pub runs: u64,
    pub events: u64,
    pub idle: u64,
    pub faults: BTreeMap<Fault, u64>,
    pub scenarios: BTreeMap<crate::plan::Scenario, u64>,
    pub failed: Vec<(u64, Vec<Violation>)>,
}

impl Tally {
    /// Counts a run.
    pub fn add(&mut self, plan: &Plan, judged: Judged) {
        self.runs += 1;
        self.events += judged.events;
        *self.scenarios.entry(plan.scenario).or_default() += 1;
        if judged.faults.values().sum::<u64>() == 0 {
            self.idle += 1;
        }
        for (fault, n) in judged.faults {
            *self.faults.entry(fault).or_default() += n;
        }
        if !judged.violations.is_empty() {
            self.failed.push((judged.seed, judged.violations));
        }
    }

    /// Takes another tally in.
    pub fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.events += other.events;
        self.idle += other.idle;
        for (fault, n) in other.faults {
            *self.faults.entry(fault).or_default() += n;
        }
        for (scenario, n) in other.scenarios {
            *self.scenarios.entry(scenario).or_default() += n;
        }
        self.failed.extend(other.failed);
        self.failed.sort_by_key(|(seed, _)| *seed);
    }
}

/// Runs seeds `from..from + n` on so many threads.
#[must_use]
pub fn many(from: u64, n: u64, threads: u64) -> Tally {
    let share = |k: u64| {
        let mut tally = Tally::default();
        for seed in (from..from + n).filter(|s| s % threads == k) {
            let plan = Plan::of(seed);
            let caught = std::panic::catch_unwind(|| judge(&plan));
            let judged = caught.unwrap_or_else(|_| Judged::of_panic(seed));
            tally.add(&plan, judged);
        }
        tally
    };
    let mut all = Tally::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|k| scope.spawn(move || share(k))).collect();
        for thread in running {
            all.merge(thread.join().expect("a run does not panic"));
        }
    });
    all
}
