//! A PostgreSQL cluster with its usual durability, for ejabberd's archive.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::process::Child;

use super::install::find;
use crate::{Outcome, failed, process};

/// A running cluster.
pub struct Cluster {
    /// Where it listens on `127.0.0.1`.
    pub port: u16,
    binaries: PathBuf,
    folder: PathBuf,
    owner: Option<(u32, u32)>,
    process: Child,
}

/// Recovery after a kill takes a moment.
const READY_WITHIN: Duration = Duration::from_mins(1);

impl Cluster {
    /// Makes a cluster under `folder` and starts it.
    ///
    /// # Errors
    /// When PostgreSQL is not there or does not get ready.
    pub async fn start(folder: &Path) -> Outcome<Self> {
        let initdb = find("/usr/lib/postgresql/*/bin/initdb").ok_or("PostgreSQL is not there")?;
        let binaries = initdb.parent().unwrap_or(Path::new("/")).to_owned();
        std::fs::create_dir_all(folder)?;
        let owner = owner()?;
        if let Some((uid, gid)) = owner {
            chown(folder, Some(uid), Some(gid))?;
        }
        let mut command = as_owner(&initdb, owner);
        command.args(["--auth=trust", "--username=waxwing", "--encoding=UTF8", "--locale=C", "-D"]);
        process::output(command.arg(folder.join("data")))?;
        let port = process::free_port()?;
        let process = serve(&binaries, folder, port, owner).await?;
        Ok(Self { port, binaries, folder: folder.to_owned(), owner, process })
    }

    /// Runs SQL in a database.
    ///
    /// # Errors
    /// When the database refuses; with what it said.
    pub fn sql(&self, database: &str, args: &[&str]) -> Outcome<String> {
        let mut command = Command::new(self.binaries.join("psql"));
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "waxwing"]);
        process::output(command.args(["-p", &self.port.to_string(), "-d", database]).args(args))
    }

    /// Its process.
    #[must_use]
    pub fn roots(&self) -> Vec<u32> {
        self.process.id().into_iter().collect()
    }

    /// SIGKILL to all of it.
    pub async fn kill(&mut self) {
        // Its children notice by themselves, but only after a while.
        for pid in process::tree(&self.roots()).into_iter().rev() {
            let killed = process::output(Command::new("kill").args(["-KILL", &pid.to_string()]));
            drop(killed);
        }
        process::kill(&mut self.process).await;
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn resume(&mut self) -> Outcome<()> {
        self.process = serve(&self.binaries, &self.folder, self.port, self.owner).await?;
        Ok(())
    }

    /// A fast shutdown.
    pub async fn stop(&mut self) {
        process::signal(&self.process, "INT");
        process::end(&mut self.process).await;
    }
}

async fn serve(
    binaries: &Path,
    folder: &Path,
    port: u16,
    owner: Option<(u32, u32)>,
) -> Outcome<Child> {
    let mut command = as_owner(&binaries.join("postgres"), owner);
    command.arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    let mut process = process::spawn(command, &folder.join("log"))?;
    let end = tokio::time::Instant::now() + READY_WITHIN;
    while tokio::time::Instant::now() < end {
        if let Some(status) = process.try_wait()? {
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            return failed(format!("PostgreSQL ended with {status}: {}", log.trim()));
        }
        // The server writes its state into the last line of this file.
        let state = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
        let ours = state.lines().next().and_then(|l| l.trim().parse().ok()) == process.id();
        if ours && state.lines().last().is_some_and(|l| l.trim() == "ready") {
            return Ok(process);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    failed(format!("PostgreSQL is not ready after {READY_WITHIN:?}"))
}

fn as_owner(program: &Path, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some((uid, gid)) = owner {
        command.uid(uid).gid(gid);
    }
    command
}

/// PostgreSQL refuses to run as root: the user to run it as.
fn owner() -> Outcome<Option<(u32, u32)>> {
    if process::output(Command::new("id").arg("-u"))? != "0" {
        return Ok(None);
    }
    let id = |what| process::output(Command::new("id").args([what, "postgres"]));
    Ok(Some((id("-u")?.parse()?, id("-g")?.parse()?)))
}
