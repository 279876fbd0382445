//! One `waxwing-node` process with its data, which outlives the process.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use protocol::Domain;
use protocol::invite::{Line, LineKind};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::command::Ran;
use crate::proxy::Proxy;
use crate::trouble::During as _;
use crate::{Outcome, Trouble, folder};

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its name.
    pub domain: Domain,
    /// Settings as `(key with dots, value)`, on top of the harness's own.
    pub settings: Vec<(String, String)>,
    /// Put the data here instead of into the world's folder.
    pub data: Option<PathBuf>,
}

/// A node: its folder, its port, and its process while it runs.
pub struct Node {
    domain: Domain,
    folder: PathBuf,
    data: PathBuf,
    settings: Vec<(String, String)>,
    /// Variables that are none of its settings.
    variables: Vec<(String, OsString)>,
    process: Option<Child>,
    address: Option<SocketAddr>,
    /// Where peers and new devices are told to dial.
    door: Proxy,
    starts: u32,
    kills: u32,
    longest_start: Duration,
}

/// A node that does not answer for so long after a start will not.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// And one that has not said where it listens after so long may have no room to write it down.
const FILE_WITHIN: Duration = Duration::from_secs(2);

impl Node {
    /// Makes a node's folder and configuration (or takes those that are there), and starts it.
    ///
    /// # Errors
    /// When `waxwing-node` is missing, refuses, or does not get ready.
    pub async fn start(folder: &Path, setup: Setup) -> Outcome<Self> {
        let data = setup.data.unwrap_or_else(|| folder.join("data"));
        let mut node = Self {
            domain: setup.domain,
            folder: folder.to_owned(),
            data,
            settings: setup.settings,
            variables: Vec::new(),
            process: None,
            address: None,
            door: Proxy::start_at(stored_port(&folder.join("door")).unwrap_or(0)).await?,
            starts: 0,
            kills: 0,
            longest_start: Duration::ZERO,
        };
        fs::create_dir_all(folder).during(folder.display())?;
        // Devices and peers of a former run know these ports.
        fs::write(folder.join("door"), node.door.address().to_string())?;
        node.address = stored(&node.data.join("address"));
        if !node.config().exists() {
            let domain = node.domain.to_string();
            let data = node.data.display().to_string();
            node.command(&["init", "--domain", &domain, "--data-dir", &data]).await?;
        }
        node.resume().await?;
        Ok(node)
    }

    /// Its name.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Where it keeps everything.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("waxwing-node.toml")
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("node.log")
    }

    /// The hop that peers and devices take to it.
    #[must_use]
    pub fn door(&self) -> &Proxy {
        &self.door
    }

    /// Where it listens itself.
    ///
    /// # Errors
    /// When it was never started.
    pub fn address(&self) -> Outcome<SocketAddr> {
        self.address.ok_or_else(|| Trouble::new(format!("{} was never started", self.domain)))
    }

    /// How often it was killed.
    #[must_use]
    pub const fn kills(&self) -> u32 {
        self.kills
    }

    /// How often it was started.
    #[must_use]
    pub const fn starts(&self) -> u32 {
        self.starts
    }

    /// The longest time from a start to the first accepted connection.
    #[must_use]
    pub const fn longest_start(&self) -> Duration {
        self.longest_start
    }

    /// Whether the process is there.
    #[must_use]
    pub const fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Overrides a setting from the next start on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// Sets a variable of its environment from the next start on: something about the process, not about the node.
    pub fn set_variable(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// The id of its process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Outcome<u32> {
        self.process()?.id().ok_or_else(|| Trouble::new(format!("{} has ended", self.domain)))
    }

    fn environment(&self) -> Vec<(String, OsString)> {
        let listen = self.address.map_or_else(|| "127.0.0.1:0".to_owned(), |a| a.to_string());
        let door = self.door.address();
        let own = [
            ("listen.address", listen),
            ("public.host", door.ip().to_string()),
            ("public.port", door.port().to_string()),
        ];
        let own = own.into_iter().map(|(k, v)| (k.to_owned(), v));
        own.chain(self.settings.iter().cloned())
            .map(|(key, value)| {
                let name = format!("WAXWING_NODE_{}", key.replace('.', "__").to_uppercase());
                (name, OsString::from(value))
            })
            .collect()
    }

    fn prepared(&self, args: &[&str]) -> Outcome<Command> {
        let mut command = Command::new(folder::program("waxwing-node")?);
        command.arg("--config").arg(self.config()).args(args);
        command.env_clear().envs(self.environment()).env("RUST_BACKTRACE", "1");
        command.envs(self.variables.iter().cloned());
        command.stdin(Stdio::null()).current_dir(&self.folder);
        Ok(command)
    }

    /// Runs one of the operator's commands and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub async fn command(&self, args: &[&str]) -> Outcome<String> {
        let ran = self.run(args, &[]).await?;
        if ran.code == Some(0) {
            return Ok(ran.stdout.trim().to_owned());
        }
        let (args, said) = (args.join(" "), ran.stderr.trim());
        Trouble::is(format!("waxwing-node {args}: {:?}: {said}", ran.code))
    }

    /// Runs `waxwing-node` to its end, with further environment variables.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub async fn run(&self, args: &[&str], environment: &[(&str, &str)]) -> Outcome<Ran> {
        let mut command = self.prepared(args)?;
        command.envs(environment.iter().copied());
        let output = tokio::process::Command::from(command).kill_on_drop(true).output();
        let output = tokio::time::timeout(READY_WITHIN, output)
            .await
            .map_err(|_| Trouble::new(format!("waxwing-node {} hangs", args.join(" "))))??;
        Ok(Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts `waxwing-node` and lets it run; what it says is lost.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, args: &[&str]) -> Outcome<Child> {
        let mut command = self.prepared(args)?;
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(tokio::process::Command::from(command).kill_on_drop(true).spawn()?)
    }

    /// Starts the process on the port it had, and waits until it answers.
    ///
    /// # Errors
    /// When it exits or does not get ready.
    pub async fn resume(&mut self) -> Outcome<()> {
        let begun = Instant::now();
        let file = self.data.join("address");
        if let Err(e) = fs::remove_file(&file)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(e).during(file.display());
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = self.prepared(&["run"])?;
        command.stdout(Stdio::from(File::try_clone(&log)?)).stderr(Stdio::from(log));
        let mut command = tokio::process::Command::from(command);
        self.process = Some(command.kill_on_drop(true).spawn()?);
        self.starts += 1;
        let address = self.ready(&file, begun).await?;
        self.address = Some(address);
        self.door.lead_to(address);
        self.longest_start = self.longest_start.max(begun.elapsed());
        Ok(())
    }

    async fn ready(&mut self, file: &Path, begun: Instant) -> Outcome<SocketAddr> {
        while begun.elapsed() < READY_WITHIN {
            if let Some(process) = &mut self.process
                && let Some(status) = process.try_wait()?
            {
                self.process = None;
                return Trouble::is(format!(
                    "{} ended with {status} instead of starting: {}",
                    self.domain,
                    tail(&self.log(), 10)
                ));
            }
            // It is written once the port is open.
            if let Some(address) = stored(file) {
                return Ok(address);
            }
            // Unless its disk is full: then it answers on the port it had.
            if begun.elapsed() > FILE_WITHIN
                && let Some(address) = self.address
                && TcpStream::connect(address).await.is_ok()
            {
                return Ok(address);
            }
            sleep(Duration::from_millis(10)).await;
        }
        Trouble::is(format!("{} is not ready after {READY_WITHIN:?}", self.domain))
    }

    /// SIGKILL: no goodbye, nothing flushed. Waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill_nine(&mut self) -> Outcome<()> {
        let mut process = self.take()?;
        process.kill().await?;
        self.kills += 1;
        Ok(())
    }

    /// SIGTERM, and waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not run, or does not end within 15 s.
    pub async fn stop(&mut self) -> Outcome<()> {
        let mut process = self.take()?;
        signal(&process, "TERM").await?;
        let ended = tokio::time::timeout(Duration::from_secs(15), process.wait()).await;
        let status =
            ended.map_err(|_| Trouble::new(format!("{} does not stop", self.domain)))??;
        if status.success() {
            Ok(())
        } else {
            Trouble::is(format!("{} stopped with {status}", self.domain))
        }
    }

    /// SIGSTOP: it is there and answers nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn freeze(&self) -> Outcome<()> {
        signal(self.process()?, "STOP").await
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn thaw(&self) -> Outcome<()> {
        signal(self.process()?, "CONT").await
    }

    /// A copy of its data, as an operator makes one.
    ///
    /// # Errors
    /// When it runs, or a file cannot be copied.
    pub fn back_up(&self, to: &Path) -> Outcome<()> {
        if self.runs() {
            return Trouble::is(format!("{} runs: a copy would not be whole", self.domain));
        }
        fs::create_dir_all(to).during(to.display())?;
        copy(&self.data, to, |_| true)
    }

    /// Puts a copy back in the place of its data. Without `whole`, only the database: the files beside it know that it is older than it was.
    ///
    /// # Errors
    /// When it runs, or a file cannot be copied.
    pub fn put_back(&self, from: &Path, whole: bool) -> Outcome<()> {
        if self.runs() {
            return Trouble::is(format!("{} runs: its data cannot be replaced", self.domain));
        }
        let database = |name: &str| matches!(name, "node.db" | "node.db-wal" | "node.db-shm");
        for entry in fs::read_dir(&self.data)? {
            let entry = entry?;
            if database(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).during(entry.path().display())?;
            }
        }
        copy(from, &self.data, |name| whole || database(name))
    }

    /// SIGKILL and a start.
    ///
    /// # Errors
    /// As the two.
    pub async fn crash(&mut self) -> Outcome<()> {
        self.kill_nine().await?;
        self.resume().await
    }

    fn process(&self) -> Outcome<&Child> {
        self.process.as_ref().ok_or_else(|| Trouble::new(format!("{} does not run", self.domain)))
    }

    fn take(&mut self) -> Outcome<Child> {
        let process = self.process.take();
        process.ok_or_else(|| Trouble::new(format!("{} does not run", self.domain)))
    }

    /// A line for a new person; what it leads to is the node's door.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn invite(&self) -> Outcome<String> {
        let text = self.command(&["invite", "create"]).await?;
        find_line(&text, LineKind::Person)
    }

    /// Pairs two nodes: a line from this one, pasted into the other.
    ///
    /// # Errors
    /// When either refuses.
    pub async fn pair(&self, other: &Self) -> Outcome<()> {
        let text = self.command(&["peer", "invite"]).await?;
        let line = find_line(&text, LineKind::Peer)?;
        other.command(&["peer", "add", &line]).await.map(drop)
    }
}

fn copy(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) -> Outcome<()> {
    for entry in fs::read_dir(from).during(from.display())? {
        let entry = entry?;
        let name = entry.file_name();
        let is_wanted = wanted(&name.to_string_lossy());
        if is_wanted && entry.path().is_file() {
            fs::copy(entry.path(), to.join(name)).during(entry.path().display())?;
        }
    }
    Ok(())
}

/// The address in a file, when it is there.
#[must_use]
pub fn stored(file: &Path) -> Option<SocketAddr> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn stored_port(file: &Path) -> Option<u16> {
    stored(file).map(|address| address.port())
}

/// The line in what a command printed.
fn find_line(text: &str, kind: LineKind) -> Outcome<String> {
    text.split_whitespace()
        .find_map(|word| Line::parse(kind, word).ok())
        .map(|line| line.to_string())
        .ok_or_else(|| Trouble::new(format!("there is no {kind:?} line in {text:?}")))
}

/// The same line, leading elsewhere.
///
/// # Errors
/// When it is not a line.
pub fn lead_line(line: &str, to: SocketAddr) -> Outcome<String> {
    let kind: LineKind = line.parse()?;
    let line = Line { host: to.ip().to_string(), port: to.port(), ..Line::parse(kind, line)? };
    Ok(line.to_string())
}

async fn signal(process: &Child, name: &str) -> Outcome<()> {
    let id = process.id().ok_or_else(|| Trouble::new("the process has ended"))?;
    let status = tokio::process::Command::new("sh")
        .args(["-c", &format!("kill -{name} {id}")])
        .status()
        .await?;
    if status.success() { Ok(()) } else { Trouble::is(format!("kill -{name} {id}: {status}")) }
}

/// The last lines of a file.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
