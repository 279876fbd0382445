//! The simulator at work: many seeds without a violation, the same seed twice, a crash at every store call, every planted bug.

use simulation::bug::Bug;
use simulation::plan::{CrashAt, Plan, Scenario};
use simulation::story::{judge, many};
use simulation::world::store_calls;

const SEEDS: u64 = 10_000;
/// Within so many seeds every planted bug must be caught.
const CAUGHT_WITHIN: u64 = 4_000;

#[test]
fn ten_thousand_seeds_break_no_rule() {
    let tally = many(0, SEEDS, 2);
    println!("{} runs, {} events, faults: {:?}", tally.runs, tally.events, tally.faults);
    println!("scenarios: {:?}", tally.scenarios);
    assert_eq!(tally.idle, 0, "a run without a fault proves nothing");
    let failed: Vec<String> = tally
        .failed
        .iter()
        .take(10)
        .flat_map(|(seed, all)| {
            all.iter().map(move |v| format!("SEED={seed} {}: {}", v.rule, v.what))
        })
        .collect();
    assert!(failed.is_empty(), "{} runs:\n{}", tally.failed.len(), failed.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_record() {
    for seed in 0..200 {
        assert_eq!(judge(&Plan::of(seed)).hash, judge(&Plan::of(seed)).hash, "SEED={seed}");
    }
    assert_ne!(judge(&Plan::of(1)).hash, judge(&Plan::of(2)).hash);
}

/// S-2: a short run, with a crash before and after each of its transactions.
#[test]
fn a_crash_at_any_store_call_loses_nothing() {
    let mut crashes = 0;
    for seed in [3, 4] {
        let mut plan = Plan::with(seed, Scenario::Network);
        plan.ops = 15;
        plan.changes = 20;
        plan.crash_at = Some(CrashAt { call: 0, keep: 0 });
        for call in 1..=store_calls(&plan) {
            for keep in 0..3 {
                plan.crash_at = Some(CrashAt { call, keep });
                let judged = judge(&plan);
                assert_eq!(judged.violations, [], "seed {seed}, crash at {call}, keep {keep}");
                crashes += 1;
            }
        }
    }
    println!("{crashes} crashes, one at a time");
    assert!(crashes > 300);
}

#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let mut caught = None;
        for seed in 0..CAUGHT_WITHIN {
            let mut plan = Plan::of(seed);
            plan.bug = Some(*bug);
            let judged = std::panic::catch_unwind(|| judge(&plan)).map(|j| j.violations);
            let rule = match judged {
                Ok(violations) => violations.first().map(|v| v.rule),
                Err(_) => Some("an assertion"),
            };
            if let Some(rule) = rule {
                caught = Some((seed + 1, rule));
                break;
            }
        }
        match caught {
            Some((seeds, rule)) => println!("{bug:?}: caught within {seeds} seeds, by {rule}"),
            None => missed.push(*bug),
        }
    }
    println!("{} of {} caught", Bug::ALL.len() - missed.len(), Bug::ALL.len());
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
