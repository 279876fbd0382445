//! Two federated nodes on loopback with people who talk: `cargo xtask dev`. With `--check` the nodes are killed in the middle of
//! traffic, and what everybody shows in the end is compared.

mod cast;
mod check;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tests::seed::Seed;
use tests::{Outcome, Trouble};

#[derive(Parser)]
#[command(name = "waxwing-dev", about = "Two federated nodes on loopback, with people who talk")]
struct Args {
    /// Kill and restart the nodes in the middle of traffic, verify that nothing was lost, doubled or reordered, and exit
    #[arg(long)]
    check: bool,
    /// Go on with the data of the run before, if it is there
    #[arg(long)]
    keep: bool,
    /// Repeat a run's chance (also SEED)
    #[arg(long)]
    seed: Option<u64>,
    /// Messages that each organisation sends at least, with --check
    #[arg(long, default_value_t = 200)]
    messages: usize,
    /// SIGKILLs over both nodes at least, with --check
    #[arg(long, default_value_t = 10)]
    kills: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("waxwing-dev: {trouble}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Outcome<()> {
    let folder = folder(if args.check { "dev-check" } else { "dev" })?;
    if folder.exists() && !args.keep {
        std::fs::remove_dir_all(&folder)?;
    }
    if args.check {
        let seed = args.seed.map_or_else(|| Seed::from_environment(1), Seed::new);
        let plan = check::Plan { messages: args.messages, kills: args.kills };
        check::run(&folder, plan, seed).await
    } else {
        story::run(&folder).await
    }
}

/// A folder beside the build's profiles: `target/dev`, wherever `target` is.
fn folder(name: &str) -> Outcome<PathBuf> {
    let me = std::env::current_exe()?;
    let target = me.ancestors().nth(2).ok_or_else(|| Trouble::new("this program is nowhere"))?;
    Ok(target.join(name))
}
