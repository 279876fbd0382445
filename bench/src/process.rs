//! What a server costs: processor time, memory and writes of its whole process tree, as the kernel counts them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::process::Child;

use crate::{Outcome, failed};

/// The kernel counts in hundredths of a second, whatever its own tick is.
const TICK: Duration = Duration::from_millis(10);

/// What a process tree has used up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time together.
    pub cpu: Duration,
    /// Bytes handed to the disk.
    pub written: u64,
}

impl Usage {
    /// What was used since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            written: self.written.saturating_sub(before.written),
        }
    }
}

/// One line of the process table.
struct Stat {
    parent: u32,
    ticks: u32,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    let number = |n: usize| fields.get(n)?.parse::<u32>().ok();
    // Of the process itself and of those it has waited for: user, system, user, system.
    let ticks = (11..15).filter_map(number).sum();
    Some(Stat { parent: number(1)?, ticks })
}

/// These processes and all their descendants that are alive.
#[must_use]
pub fn tree(roots: &[u32]) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = roots.to_vec();
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(children.get(&pid).into_iter().flatten());
        at += 1;
    }
    found
}

/// What the trees under `roots` have used.
#[must_use]
pub fn usage(roots: &[u32]) -> Usage {
    tree(roots).into_iter().fold(Usage::default(), |sum, pid| Usage {
        cpu: sum.cpu + TICK * stat(pid).map_or(0, |s| s.ticks),
        written: sum.written + written(pid).unwrap_or(0),
    })
}

/// What this process has used, without the servers it started.
#[must_use]
pub fn own() -> Usage {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rfind(')').and_then(|at| text.get(at + 2..)).unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2).filter_map(|n| n.parse::<u32>().ok()).sum();
    Usage { cpu: TICK * ticks, written: written(std::process::id()).unwrap_or(0) }
}

fn written(pid: u32) -> Option<u64> {
    field(&format!("/proc/{pid}/io"), "write_bytes:")
}

fn field(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes of memory that the trees hold; what several processes share is counted once (the kernel's "proportional set size").
#[must_use]
pub fn resident(roots: &[u32]) -> u64 {
    let of = |pid: u32| {
        field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
            .or_else(|| field(&format!("/proc/{pid}/status"), "VmRSS:"))
    };
    tree(roots).into_iter().filter_map(of).sum::<u64>() * 1024
}

/// Starts a server that ends with this process or with the returned handle; what it says goes to `log`.
///
/// # Errors
/// When it cannot be started.
pub fn spawn(mut command: Command, log: &Path) -> Outcome<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
    let name = command.get_program().display().to_string();
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn();
    child.map_err(|e| format!("cannot start {name}: {e}").into())
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails; with what it said.
pub fn output(command: &mut Command) -> Outcome<String> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    failed(format!("{name}: {}: {said}", output.status))
}

/// SIGTERM, a while to end, then SIGKILL.
pub async fn end(child: &mut Child) {
    signal(child, "TERM");
    if tokio::time::timeout(Duration::from_secs(15), child.wait()).await.is_err() {
        kill(child).await;
    }
}

/// SIGKILL, and waits until it is gone.
pub async fn kill(child: &mut Child) {
    if let Err(e) = child.kill().await {
        eprintln!("bench: a server cannot be killed: {e}");
    }
}

/// Sends a signal by the system's own program.
pub fn signal(child: &Child, name: &str) {
    let Some(pid) = child.id() else { return };
    if let Err(e) = output(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string())) {
        eprintln!("bench: {e}");
    }
}

/// A port of `127.0.0.1` that is free now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Outcome<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A program of this workspace, which lies beside this one (or one folder up, for tests).
///
/// # Errors
/// When it was not built.
pub fn program(name: &str) -> Outcome<std::path::PathBuf> {
    let me = std::env::current_exe()?;
    let found = me.ancestors().skip(1).take(2).map(|f| f.join(name)).find(|p| p.is_file());
    found.ok_or_else(|| format!("{name} was not built; run: cargo build --workspace --bins").into())
}

/// Waits until somebody listens on `127.0.0.1:port`.
///
/// # Errors
/// When the server ends or nobody does within `limit`.
pub async fn listening(
    child: &mut Child,
    address: std::net::SocketAddr,
    limit: Duration,
) -> Outcome<()> {
    let end = tokio::time::Instant::now() + limit;
    while tokio::time::Instant::now() < end {
        if let Some(status) = child.try_wait()? {
            return failed(format!("a server ended with {status} instead of starting"));
        }
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    failed(format!("nobody listens on {address} after {limit:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_of_a_child_is_counted_with_its_starter() {
        let before = usage(&[std::process::id()]);
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        output(Command::new("sh").args(["-c", busy])).unwrap();
        let used = usage(&[std::process::id()]).since(before);
        assert!(used.cpu >= TICK, "{used:?}");
        assert!(resident(&[std::process::id()]) > 1024 * 1024);
    }

    #[test]
    fn a_tree_is_all_descendants() {
        let mut child = Command::new("sh").args(["-c", "sleep 30 & wait"]).spawn().unwrap();
        let mut found = Vec::new();
        for _ in 0..100 {
            found = tree(&[child.id()]);
            if found.len() == 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(found.len(), 2, "{found:?}");
        for pid in found {
            output(Command::new("kill").arg(pid.to_string())).unwrap();
        }
        child.wait().unwrap();
    }
}
