//! A throw-away PostgreSQL cluster for the tests: on a free loopback port, in memory where there is room, gone at the end.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::guard::Guard;

/// Where the tests find their database.
pub(crate) const VARIABLE: &str = "WAXWING_POSTGRES";

/// A running cluster; dropping it stops it and removes its data.
pub(crate) struct Cluster {
    /// What [`VARIABLE`] is set to.
    pub(crate) url: String,
    _guard: Guard,
}

/// Runs the server until the pipe closes, then stops it and removes everything. `$1` binaries, `$2` folder, `$3` port.
const SERVE: &str = r#"trap "" INT
"$1/postgres" -D "$2/data" -k "$2" -h 127.0.0.1 -p "$3" -F -c max_connections=200 \
  -c synchronous_commit=off -c full_page_writes=off -c log_min_messages=fatal >"$2/log" 2>&1 &
server=$!
read _
kill -INT $server 2>/dev/null
wait $server
rm -rf "$2""#;

impl Cluster {
    /// Finds or installs PostgreSQL and starts a cluster.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub(crate) fn start() -> Result<Self, String> {
        let binaries = match find() {
            Some(folder) => folder,
            None => install()?,
        };
        let user = if user_id("-u") == Some(0) { Some(unprivileged()?) } else { None };
        let folder = make_folder(user)?;
        let start = || {
            init(&binaries, &folder, user)?;
            serve(&binaries, &folder, user)
        };
        start().inspect_err(|_| {
            if let Err(e) = fs::remove_dir_all(&folder) {
                eprintln!("xtask: cannot remove {}: {e}", folder.display());
            }
        })
    }
}

fn serve(binaries: &Path, folder: &Path, user: Option<(u32, u32)>) -> Result<Cluster, String> {
    let port = free_port().map_err(|e| format!("no free port: {e}"))?;
    let (binaries, place) = (binaries.display().to_string(), folder.display().to_string());
    let guard = Guard::start(SERVE, &[&binaries, &place, &port.to_string()], user)
        .map_err(|e| format!("cannot start PostgreSQL: {e}"))?;
    let cluster =
        Cluster { url: format!("postgres://waxwing@127.0.0.1:{port}/postgres"), _guard: guard };
    // The server writes its state into the last line of this file.
    let pid_file = folder.join("data/postmaster.pid");
    for _ in 0..300 {
        let state = fs::read_to_string(&pid_file).unwrap_or_default();
        if state.lines().last().is_some_and(|l| l.trim() == "ready") {
            return Ok(cluster);
        }
        sleep(Duration::from_millis(100));
    }
    let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
    Err(format!("PostgreSQL did not get ready within 30 s: {}", log.trim()))
}

fn init(binaries: &Path, folder: &Path, user: Option<(u32, u32)>) -> Result<(), String> {
    let mut command = Command::new(binaries.join("initdb"));
    command.args([
        "--auth=trust",
        "--username=waxwing",
        "--encoding=UTF8",
        "--locale=C",
        "-N",
        "-D",
    ]);
    command.arg(folder.join("data")).current_dir("/").stdin(Stdio::null());
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    let output = command.output().map_err(|e| format!("cannot start initdb: {e}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// A folder that only the cluster's user can look into; in memory when there is half a gigabyte to spare.
fn make_folder(user: Option<(u32, u32)>) -> Result<PathBuf, String> {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() && free_megabytes(memory).is_some_and(|m| m > 512) {
        memory.to_path_buf()
    } else {
        std::env::temp_dir()
    };
    let folder = parent.join(format!("waxwing-postgres-{}", std::process::id()));
    let made = fs::DirBuilder::new().mode(0o700).create(&folder);
    made.map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
    if let Some((uid, gid)) = user {
        chown(&folder, Some(uid), Some(gid))
            .map_err(|e| format!("cannot hand over {}: {e}", folder.display()))?;
    }
    Ok(folder)
}

fn free_megabytes(folder: &Path) -> Option<u64> {
    let output = Command::new("df").args(["-Pm"]).arg(folder).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn user_id(what: &str) -> Option<u32> {
    let output = Command::new("id").arg(what).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// PostgreSQL refuses to run as root: the user to run it as.
fn unprivileged() -> Result<(u32, u32), String> {
    let users = fs::read_to_string("/etc/passwd").map_err(|e| format!("/etc/passwd: {e}"))?;
    let ids = |name: &str| {
        let line = users.lines().find(|l| l.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody")).ok_or_else(|| {
        "PostgreSQL does not run as root, and there is neither a user postgres nor nobody"
            .to_owned()
    })
}

/// The newest folder that holds both programs we need.
fn find() -> Option<PathBuf> {
    let complete =
        |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    versions.into_iter().rev().map(|(_, folder)| folder).chain(on_path).find(complete)
}

/// Installs it with the system's package manager, where this user may.
fn install() -> Result<PathBuf, String> {
    if user_id("-u") != Some(0) {
        return Err("PostgreSQL is not installed, and only root may install it; try: sudo apt-get install postgresql".to_owned());
    }
    for args in [
        ["update", "-q", "-q", "-y"].as_slice(),
        ["install", "-q", "-q", "-y", "--no-install-recommends", "postgresql"].as_slice(),
    ] {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        let status = command.status().map_err(|e| {
            format!("PostgreSQL is not installed, and apt-get is not there to install it: {e}")
        })?;
        if !status.success() {
            return Err(format!(
                "PostgreSQL is not installed, and apt-get {} failed",
                args.join(" ")
            ));
        }
    }
    find().ok_or_else(|| "PostgreSQL was installed, but its programs were not found".to_owned())
}
