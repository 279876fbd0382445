//! The build's own commands: `cargo xtask dev`, `cargo xtask test`, `cargo xtask sim`, `cargo xtask bench`.
//!
//! Nothing but clap and the standard library, so that it starts quickly on a fresh clone.

mod guard;
mod postgres;
mod report;
mod suite;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The build's own commands", disable_version_flag = true)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Two federated nodes on loopback, with people who talk; says how to join in.
    Dev {
        /// Kill and restart the nodes in the middle of traffic, verify that nothing was lost, and exit.
        #[arg(long)]
        check: bool,
        /// Keep the data of the run, and continue with it if it is there.
        #[arg(long)]
        keep: bool,
        /// Repeat the run with this seed.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Everything a contributor must pass, with what it needs started and stopped.
    Test {
        /// Only build, and run the tests whose name contains this.
        filter: Option<String>,
    },
    /// The simulator: many seeds, or the story of the one in `SEED`.
    Sim {
        /// How many seeds.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Measurements beside ejabberd and Prosody: W1 to W6, curves, `micro`, `group-commit`; `--quick` shows in seconds that they work.
    Bench {
        /// What to measure, and options of the bench (`--help` lists them).
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Args::parse().task {
        Task::Dev { check, keep, seed } => dev(check, keep, seed),
        Task::Test { filter } => Ok(suite::run(filter.as_deref())),
        Task::Sim { seeds, from } => sim(seeds, from),
        Task::Bench { args } => bench(&args),
    };
    result.unwrap_or_else(|sentence| {
        eprintln!("xtask: {sentence}");
        ExitCode::FAILURE
    })
}

/// A sentence for the person at the terminal.
type Sentence = String;

fn dev(check: bool, keep: bool, seed: Option<u64>) -> Result<ExitCode, Sentence> {
    build_binaries()?;
    let mut command = Command::new(program("waxwing-dev")?);
    if check {
        command.arg("--check");
    }
    if keep {
        command.arg("--keep");
    }
    if let Some(seed) = seed {
        command.arg("--seed").arg(seed.to_string());
    }
    become_program(command)
}

fn sim(seeds: u64, from: u64) -> Result<ExitCode, Sentence> {
    build_binaries()?;
    let mut command = Command::new(program("waxwing-sim")?);
    command.args(["--seeds", &seeds.to_string(), "--from", &from.to_string()]);
    become_program(command)
}

/// Numbers are of the release build, or with `--quick` of whatever there is: those mean nothing.
fn bench(args: &[String]) -> Result<ExitCode, Sentence> {
    let (name, rest) = match args.split_first() {
        Some((first, rest)) if first == "group-commit" => ("group_commit", rest),
        Some((first, rest)) if first == "micro" => ("waxwing-micro", rest),
        _ => ("waxwing-bench", args),
    };
    let quick = rest.iter().any(|a| a == "--quick");
    let path = if quick {
        build_binaries()?;
        program(name)?
    } else {
        // All of the workspace would take twice as long, and a part of it other features.
        let programs = ["waxwing-node", "waxwing-bench", "waxwing-micro", "group_commit"];
        let programs = programs.iter().flat_map(|name| ["--bin", name]);
        let args: Vec<&str> =
            ["build", "--release", "--workspace"].into_iter().chain(programs).collect();
        build(&args)?;
        // Programs of the release build lie beside the folder that this one lies in.
        let me = program("xtask")?;
        let target = me.parent().and_then(Path::parent).unwrap_or(Path::new("target"));
        target.join("release").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
    };
    // Thousands of connections need as many files as the system lets us have.
    let mut command = Command::new("sh");
    let script = "ulimit -S -n \"$(ulimit -H -n)\" 2>/dev/null; exec \"$@\"";
    command.args(["-c", script, "xtask-bench"]).arg(path).args(rest);
    if name == "waxwing-bench" {
        command.arg("--docs").arg(root().join("docs"));
    }
    // Servers that were started must not outlive it, however it ends.
    let status = guard::run(command, |_| Ok(())).map_err(|e| format!("cannot run {name}: {e}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds every program in one go: one profile, one set of features, so nothing is built twice.
fn build_binaries() -> Result<(), Sentence> {
    build(&["build", "--workspace", "--bins"])
}

fn build(args: &[&str]) -> Result<(), Sentence> {
    let status = cargo(args).status().map_err(|e| format!("cannot start cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err("the build failed; see above".to_owned()) }
}

/// Replaces this process, so that Ctrl-C and the exit code reach and come from the program itself.
#[cfg(unix)]
fn become_program(mut command: Command) -> Result<ExitCode, Sentence> {
    use std::os::unix::process::CommandExt as _;
    let error = command.exec();
    Err(format!("cannot start {}: {error}", command.get_program().display()))
}

#[cfg(not(unix))]
fn become_program(mut command: Command) -> Result<ExitCode, Sentence> {
    let status = command.status().map_err(|e| format!("cannot start the program: {e}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The cargo that runs us, with these arguments.
fn cargo(args: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(root());
    command
}

/// The workspace's folder.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// A program of this workspace: all lie beside this one.
fn program(name: &str) -> Result<PathBuf, Sentence> {
    let me = std::env::current_exe().map_err(|e| format!("cannot find myself: {e}"))?;
    let path = me.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if path.exists() { Ok(path) } else { Err(format!("{} was not built", path.display())) }
}
