//! `cargo xtask sim`: many seeds, or the story of one.

use std::process::ExitCode;

use clap::Parser;
use simulation::plan::Plan;
use simulation::story::{many, tell};

#[derive(Parser)]
#[command(name = "waxwing-sim", about = "Runs the simulator", disable_version_flag = true)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs one and prints its story.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        let judged = tell(&Plan::of(seed));
        return if judged.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let begun = now();
    let tally = many(args.from, args.seeds, args.threads.max(1));
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{} seeds from {} in {took:.1} s, {:.0} seeds/s",
        tally.runs,
        args.from,
        f64::from(u32::try_from(args.seeds).unwrap_or(u32::MAX)) / took
    );
    println!("events recorded: {}", tally.events);
    for (scenario, n) in &tally.scenarios {
        println!("  {scenario:?}: {n} runs");
    }
    println!("faults injected:");
    for (fault, n) in &tally.faults {
        println!("  {fault:?}: {n}");
    }
    println!("runs without a fault: {}", tally.idle);
    for (seed, violations) in tally.failed.iter().take(20) {
        for violation in violations {
            println!("SEED={seed} VIOLATED {}: {}", violation.rule, violation.what);
        }
    }
    println!("runs with violations: {}", tally.failed.len());
    if tally.failed.is_empty() && tally.idle == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::disallowed_methods, reason = "only tells the person how long it took")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
