//! One `waxwing-node` as a process of its own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use node::clock::{SystemClock, SystemEntropy};
use node::store::{Location, Options, Store};
use protocol::Domain;
use protocol::api::NodeInfo;
use protocol::invite::{Line, LineKind};
use rustls::ClientConfig;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::waxwing::api::Api;
use crate::{Outcome, failed, process};

/// A node that does not answer for so long after a start will not.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// One machine plays thousands of people, so the bounds that keep strangers in check are lifted. All else is as it comes.
const SETTINGS: &[(&str, &str)] = &[
    ("limits.connections", "19000"),
    ("limits.connections_per_address", "19000"),
    ("limits.submits_per_second", "1000000"),
    ("limits.claims_per_minute", "1000000"),
    ("limits.sign_ins_per_minute", "1000000"),
    ("limits.peer_requests_per_second", "1000000"),
    ("disk.ballast_mib", "1"),
    ("log.level", "warn"),
];

/// A node: its folder, and its process while it runs.
pub struct Node {
    /// Its name.
    pub domain: Domain,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it says of itself.
    pub info: NodeInfo,
    /// For HTTP/1.1, which streams begin with.
    pub h1: Arc<ClientConfig>,
    /// For HTTP/2, which requests go over.
    pub h2: Arc<ClientConfig>,
    folder: PathBuf,
    process: Child,
}

impl Node {
    /// Makes a node under `folder` and starts it.
    ///
    /// # Errors
    /// When `waxwing-node` is missing, refuses or does not get ready.
    pub async fn start(folder: &Path, domain: &str) -> Outcome<Self> {
        std::fs::create_dir_all(folder)?;
        let data = folder.join("data").display().to_string();
        process::output(&mut prepared(
            folder,
            None,
            &["init", "--domain", domain, "--data-dir", &data],
        )?)?;
        let (process, address) = run(folder, None).await?;
        let domain = Domain::parse(domain)?;
        let key = node_key(folder, address)?;
        let config = |alpn: &[u8]| -> Outcome<Arc<ClientConfig>> {
            let clock = Arc::new(SystemClock);
            let config = federation::tls::client_config(None, key, &domain, clock)?;
            let mut config = (*config).clone();
            config.alpn_protocols = vec![alpn.to_vec()];
            Ok(Arc::new(config))
        };
        let (h1, h2) = (config(b"http/1.1")?, config(b"h2")?);
        let info = Api::connect(address, &domain, h2.clone()).await?.node().await?;
        Ok(Self { domain, address, info, h1, h2, folder: folder.to_owned(), process })
    }

    /// Its process.
    #[must_use]
    pub fn roots(&self) -> Vec<u32> {
        self.process.id().into_iter().collect()
    }

    /// Where its data are.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A connection for requests.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn api(&self) -> Outcome<Api> {
        Api::connect(self.address, &self.domain, self.h2.clone()).await
    }

    /// Its database, opened beside it.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn store(&self) -> Outcome<Store> {
        let location = Location::Sqlite(self.data().join("node.db"));
        let options = Options::new(location, self.domain.clone());
        Ok(Store::open(options, &SystemClock, &SystemEntropy).await?)
    }

    /// Pairs it with another node.
    ///
    /// # Errors
    /// When either refuses.
    pub fn pair(&self, other: &Self) -> Outcome<()> {
        let line = self.command(&["peer", "invite"])?;
        let line = line.split_whitespace().find(|w| Line::parse(LineKind::Peer, w).is_ok());
        let line = line.ok_or("the node gave no line")?;
        other.command(&["peer", "add", line]).map(drop)
    }

    fn command(&self, args: &[&str]) -> Outcome<String> {
        process::output(&mut prepared(&self.folder, Some(self.address), args)?)
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        process::kill(&mut self.process).await;
    }

    /// Starts it again where it was; how long that took.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn resume(&mut self) -> Outcome<Duration> {
        let begun = Instant::now();
        (self.process, self.address) = run(&self.folder, Some(self.address)).await?;
        Ok(begun.elapsed())
    }

    /// SIGTERM, and waits.
    pub async fn stop(&mut self) {
        process::end(&mut self.process).await;
    }
}

fn prepared(folder: &Path, at: Option<SocketAddr>, args: &[&str]) -> Outcome<Command> {
    let mut command = Command::new(process::program("waxwing-node")?);
    command.arg("--config").arg(folder.join("node.toml")).args(args);
    let address = at.map_or_else(|| "127.0.0.1:0".to_owned(), |a| a.to_string());
    let port = at.map_or(0, |a| a.port()).to_string();
    let own = [
        ("listen.address", address.as_str()),
        ("public.host", "127.0.0.1"),
        ("public.port", &port),
    ];
    let settings = own.iter().chain(SETTINGS).map(|(key, value)| {
        let name = format!("WAXWING_NODE_{}", key.replace('.', "__").to_uppercase());
        (name, OsString::from(value))
    });
    command.env_clear().envs(settings).current_dir(folder);
    Ok(command)
}

async fn run(folder: &Path, at: Option<SocketAddr>) -> Outcome<(Child, SocketAddr)> {
    let begun = Instant::now();
    let file = folder.join("data/address");
    if file.exists() {
        std::fs::remove_file(&file)?;
    }
    let log = folder.join("node.log");
    let mut process = process::spawn(prepared(folder, at, &["run"])?, &log)?;
    while begun.elapsed() < READY_WITHIN {
        if let Some(status) = process.try_wait()? {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return failed(format!("the node ended with {status}: {}", said.trim()));
        }
        // It is written once the port is open.
        let address = std::fs::read_to_string(&file).ok().and_then(|t| t.trim().parse().ok());
        if let Some(address) = address {
            return Ok((process, address));
        }
        sleep(Duration::from_millis(5)).await;
    }
    failed(format!("the node is not ready after {READY_WITHIN:?}"))
}

/// The key to pin, from a line that nobody uses.
fn node_key(folder: &Path, at: SocketAddr) -> Outcome<[u8; 32]> {
    let text = process::output(&mut prepared(folder, Some(at), &["invite", "create"])?)?;
    let line = text.split_whitespace().find_map(|w| Line::parse(LineKind::Person, w).ok());
    Ok(line.ok_or("the node gave no line")?.node_key)
}
