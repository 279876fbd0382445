//! Measures Waxwing beside what people would pick instead, and writes `docs/BENCHMARKS.md`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bench::curve::{self, Points};
use bench::report::results::Results;
use bench::report::{page, plot};
use bench::server::Kind;
use bench::work::plan::{NAMES, Plan, Size};
use bench::{Outcome, ceiling, failed, machine};
use clap::Parser;

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// What to measure: W1 to W6; members, depth, rooms, connections for how costs grow; all of it when nothing is named.
    what: Vec<String>,
    /// Everything small and once: shows that it works, in seconds. Nothing is written.
    #[arg(long)]
    quick: bool,
    /// A million waiting messages as well, which takes minutes.
    #[arg(long)]
    deep: bool,
    /// How often each system has its turn.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only this system, by name; may be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// A folder on the disk to measure, for the servers' data.
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// Leaves the servers' data and logs there.
    #[arg(long)]
    keep: bool,
    /// Where the page and its numbers are.
    #[arg(long)]
    docs: Option<PathBuf>,
    #[arg(long, hide = true)]
    serve_echo: Option<PathBuf>,
    #[arg(long, hide = true)]
    serve_insert: Option<PathBuf>,
    #[arg(long, hide = true, default_value_t = 300)]
    bytes: usize,
    #[arg(long, hide = true, default_value_t = 1.0)]
    seconds: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|r| r.block_on(execute(arguments)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(arguments: Arguments) -> Outcome<()> {
    if let Some(folder) = &arguments.serve_echo {
        return ceiling::echo::serve(folder).await;
    }
    if let Some(folder) = &arguments.serve_insert {
        let time = Duration::from_secs_f64(arguments.seconds);
        return ceiling::insert::serve(folder, arguments.bytes, time).await;
    }
    let kinds = chosen(&arguments.only)?;
    for kind in &kinds {
        kind.install()?;
    }
    sweep(&arguments.folder)?;
    let kept = if arguments.keep { "kept-" } else { "" };
    let name = format!("{PREFIX}{kept}{}", std::process::id());
    let folder = arguments.folder.join(name);
    std::fs::create_dir(&folder)?;
    let size = if arguments.quick { Size::QUICK } else { Size::FULL };
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 3 });
    let plan = Plan { size, rounds, kinds, folder: folder.clone(), keep: arguments.keep };
    let measured = measure(&arguments, &plan).await;
    if arguments.keep {
        eprintln!("bench: kept {}", folder.display());
        return measured;
    }
    let removed = std::fs::remove_dir_all(&folder);
    measured?;
    Ok(removed?)
}

/// The folder of a run, with the number of its process.
const PREFIX: &str = "waxwing-bench-";

/// Removes what a run left that was killed.
fn sweep(folder: &Path) -> Outcome<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)) else { continue };
        let number = process.bytes().all(|b| b.is_ascii_digit());
        if number && !Path::new("/proc").join(process).exists() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn chosen(only: &[String]) -> Outcome<Vec<Kind>> {
    if only.is_empty() {
        return Ok(Kind::ALL.to_vec());
    }
    let find = |name: &String| {
        let found = Kind::ALL.into_iter().find(|k| k.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("{name} is not compared").into())
    };
    only.iter().map(find).collect()
}

async fn measure(arguments: &Arguments, plan: &Plan) -> Outcome<()> {
    let wanted: Vec<&str> = if arguments.what.is_empty() {
        NAMES.iter().chain(curve::NAMES).copied().collect()
    } else {
        arguments.what.iter().map(String::as_str).collect()
    };
    let known = |name: &str| NAMES.contains(&name) || curve::NAMES.contains(&name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        let (works, curves) = (NAMES.join(" "), curve::NAMES.join(" "));
        return failed(format!("there is no {unknown}; there are {works} {curves}"));
    }
    let points = if arguments.quick { Points::quick() } else { Points::full(arguments.deep) };
    let docs = arguments.docs.as_deref().filter(|_| !arguments.quick);
    let file = docs.map(|docs| docs.join("bench/results.json"));
    let mut results = match &file {
        Some(file) => Results::load(file)?,
        None => Results::default(),
    };
    results.machine = machine::describe(&plan.folder);
    for name in wanted {
        if curve::NAMES.contains(&name) {
            let curve = curve::measure(name, &points, &plan.folder).await?;
            results.curves.insert(name.to_owned(), curve);
        } else {
            let mut work = plan.run(name).await?;
            work.day = today();
            results.works.insert(name.to_owned(), work);
        }
        // After each work, so that nothing is lost when a later one fails.
        keep(docs, &results)?;
    }
    println!("{}", page::write(&results)?);
    Ok(())
}

fn keep(docs: Option<&Path>, results: &Results) -> Outcome<()> {
    let Some(docs) = docs else { return Ok(()) };
    results.save(&docs.join("bench/results.json"))?;
    for (name, curve) in &results.curves {
        std::fs::write(docs.join(format!("bench/{name}.svg")), plot::draw(curve)?)?;
    }
    Ok(std::fs::write(docs.join("BENCHMARKS.md"), page::write(results)?)?)
}

fn today() -> String {
    let mut date = std::process::Command::new("date");
    bench::process::output(date.args(["-u", "+%Y-%m-%d"])).unwrap_or_default()
}
