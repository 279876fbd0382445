//! What happens to whole processes: how they are hurt, and what is looked at from outside.
//!
//! | module | holds |
//! |---|---|
//! | [`plain`] | a device without a client: one request, one answer, with its status and headers |
//! | [`cluster`] | a PostgreSQL server of one test, which may be killed, filled and closed for writing |
//! | [`clock`] | another time for one process |

use std::fs;
use std::time::Duration;

use tests::node::Node;
use tests::trouble::During as _;
use tests::{Outcome, Trouble};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

pub mod clock;
pub mod cluster;
pub mod plain;

/// A clock tick of `/proc`, which Linux fixes for programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Which part of one processor the node uses while `time` passes.
///
/// # Errors
/// When it does not run.
pub async fn load(node: &Node, time: Duration) -> Outcome<f64> {
    let before = ticks(node.pid()?)?;
    let begun = Instant::now();
    sleep(time).await;
    let used = ticks(node.pid()?)? - before;
    Ok(used / TICKS_PER_SECOND / begun.elapsed().as_secs_f64())
}

/// User and system time.
fn ticks(pid: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before it may have blanks.
    let (_, rest) = stat.rsplit_once(')').during("/proc/…/stat")?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || -> Outcome<f64> { Ok(fields.next().during("a time")?.parse()?) };
    Ok(next()? + next()?)
}

/// The file descriptors that it has open.
///
/// # Errors
/// When it does not run.
pub fn files(node: &Node) -> Outcome<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", node.pid()?))?.count())
}

/// Those of them whose path has this in it.
///
/// # Errors
/// When it does not run.
pub fn opened(node: &Node, part: &str) -> Outcome<usize> {
    let all = fs::read_dir(format!("/proc/{}/fd", node.pid()?))?.flatten();
    // One that is closed meanwhile leads nowhere.
    let paths = all.filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(paths.filter(|path| path.to_string_lossy().contains(part)).count())
}

/// From now on the process may have so many files open; what is open stays open. Its own hard limit stays, so that it can be given back.
///
/// # Errors
/// When it does not run, or `prlimit` refuses.
pub async fn limit_files(node: &Node, most: usize) -> Outcome<()> {
    let limit = format!("--nofile={most}:");
    let pid = node.pid()?.to_string();
    let output = Command::new("prlimit").args([limit.as_str(), "--pid", &pid]).output().await;
    let output = output.during("prlimit")?;
    if output.status.success() {
        return Ok(());
    }
    Trouble::is(format!("prlimit: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// How often the node's log says this.
///
/// # Errors
/// When there is no log.
pub fn logged(node: &Node, what: &str) -> Outcome<usize> {
    let log = fs::read(node.log()).during("the log")?;
    Ok(String::from_utf8_lossy(&log).matches(what).count())
}
