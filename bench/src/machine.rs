//! The machine that was measured, in a few lines for the page.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::process::output;

/// What numbers depend on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Processors and their kind.
    pub processor: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Kernel.
    pub system: String,
    /// Of the folder that holds the servers' data.
    pub disk: String,
    /// Programs compared, with versions.
    pub versions: Vec<String>,
}

/// Looks at this machine; the data will lie under `folder`.
#[must_use]
pub fn describe(folder: &Path) -> Machine {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    Machine {
        processor: format!("{cores} × {}", model.unwrap_or("unknown")),
        memory_mib: kib / 1024,
        system: output(Command::new("uname").args(["-s", "-r", "-m"])).unwrap_or_default(),
        disk: disk(folder),
        versions: versions(),
    }
}

fn disk(folder: &Path) -> String {
    let mut df = Command::new("df");
    df.args(["--output=fstype,source"]).arg(folder);
    let text = output(&mut df).unwrap_or_default();
    text.lines().nth(1).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" on ")
}

fn versions() -> Vec<String> {
    ["ejabberd", "prosody", "postgresql-15", "postgresql"]
        .into_iter()
        .filter_map(|package| {
            let mut query = Command::new("dpkg-query");
            let version = output(query.args(["-W", "-f", "${Version}", package])).ok()?;
            (!version.is_empty()).then(|| format!("{package} {version}"))
        })
        .collect()
}
