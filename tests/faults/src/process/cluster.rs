//! A PostgreSQL server of one test's own, to be killed, filled up and closed for writing.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tests::disk::SmallDisk;
use tests::trouble::During as _;
use tests::{Outcome, Trouble};

/// A server with its data on a small disk where this user may mount one. Dropping it stops it.
pub struct Cluster {
    binaries: PathBuf,
    folder: PathBuf,
    user: Option<(u32, u32)>,
    port: u16,
    disk: Option<SmallDisk>,
}

impl Cluster {
    /// Makes one in `folder` and starts it; none where PostgreSQL is not installed or cannot run.
    ///
    /// # Errors
    /// When it is there and does not start.
    pub fn start(folder: &Path, mib: u32) -> Outcome<Option<Self>> {
        let Some(binaries) = find() else { return Ok(None) };
        let user = if own_id()? == 0 { unprivileged() } else { None };
        if own_id()? == 0 && user.is_none() {
            return Ok(None);
        }
        let disk = SmallDisk::mount(folder, mib);
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let cluster = Self { binaries, folder: folder.to_owned(), user, port, disk };
        if let Some((uid, gid)) = user {
            chown(folder, Some(uid), Some(gid)).during(folder.display())?;
        }
        let data = cluster.data().display().to_string();
        let fixed = ["--auth=trust", "--username=waxwing", "--encoding=UTF8", "--locale=C", "-N"];
        cluster.run("initdb", &[&fixed[..], &["--wal-segsize=1", "-D", &data]].concat())?;
        cluster.resume()?;
        Ok(Some(cluster))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where a node finds it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://waxwing@127.0.0.1:{}/postgres", self.port)
    }

    /// The small disk that its data is on.
    #[must_use]
    pub fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    /// As the user that PostgreSQL runs as.
    fn run(&self, program: &str, args: &[&str]) -> Outcome<()> {
        let mut command = Command::new(self.binaries.join(program));
        // What it starts would keep a pipe open.
        command.args(args).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).env_clear().env("PATH", "/usr/bin:/bin");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        let status = command.status().during(program)?;
        if status.success() {
            return Ok(());
        }
        let log = tests::node::tail(&self.folder.join("log"), 5);
        Trouble::is(format!("{program} {}: {status}: {log}", args.join(" ")))
    }

    fn control(&self, args: &[&str]) -> Outcome<()> {
        let data = self.data().display().to_string();
        self.run("pg_ctl", &[args, &["-w", "-t", "30", "-D", &data]].concat())
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn resume(&self) -> Outcome<()> {
        let log = self.folder.join("log").display().to_string();
        let options = format!(
            "-k {} -h 127.0.0.1 -p {} -F -c max_connections=40 -c min_wal_size=2MB -c max_wal_size=8MB -c shared_buffers=16MB",
            self.folder.display(),
            self.port
        );
        self.control(&["start", "-l", &log, "-o", &options])
    }

    /// Kills it as a crash would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self) -> Outcome<()> {
        self.control(&["stop", "-m", "immediate"])
    }

    /// Whether the server's process is there.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.control(&["status"]).is_ok()
    }

    async fn connect(&self) -> Outcome<PgConnection> {
        let options: PgConnectOptions = self.url().parse()?;
        let connected = tokio::time::timeout(Duration::from_secs(5), options.connect()).await;
        connected.map_err(|_| Trouble::new("PostgreSQL does not answer"))?.during("PostgreSQL")
    }

    /// Ends every connection that the node has; how many those were.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn hang_up(&self) -> Outcome<i64> {
        let mut db = self.connect().await?;
        let ended: (i64,) = sqlx::query_as(
            "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'waxwing-node'",
        )
        .fetch_one(&mut db)
        .await?;
        db.close().await?;
        Ok(ended.0)
    }

    /// The connections that the node has.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn connections(&self) -> Outcome<i64> {
        let mut db = self.connect().await?;
        let count: (i64,) = sqlx::query_as(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'waxwing-node'",
        )
        .fetch_one(&mut db)
        .await?;
        db.close().await?;
        Ok(count.0)
    }

    /// Whether transactions may write, from now on.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn read_only(&self, on: bool) -> Outcome<()> {
        let mut db = self.connect().await?;
        sqlx::query("SET default_transaction_read_only = off").execute(&mut db).await?;
        let change = if on {
            "ALTER SYSTEM SET default_transaction_read_only = on"
        } else {
            "ALTER SYSTEM RESET default_transaction_read_only"
        };
        sqlx::query(change).execute(&mut db).await?;
        sqlx::query("SELECT pg_reload_conf()").execute(&mut db).await?;
        Ok(db.close().await?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.kill().is_err() {
            eprintln!("PostgreSQL in {} was not running at the end", self.folder.display());
        }
    }
}

fn own_id() -> Outcome<u32> {
    let output = Command::new("id").arg("-u").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// PostgreSQL refuses to run as root.
fn unprivileged() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let ids = |name: &str| {
        let line = users.lines().find(|l| l.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody"))
}

/// The newest folder that holds its programs.
fn find() -> Option<PathBuf> {
    let complete = |folder: &PathBuf| {
        ["initdb", "postgres", "pg_ctl"].iter().all(|program| folder.join(program).is_file())
    };
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, folder)| folder).find(complete)
}
