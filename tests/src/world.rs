//! The nodes and people of one test.

use std::path::{Path, PathBuf};

use client::Seal;
use protocol::Domain;

use crate::device::Device;
use crate::node::{Node, Setup, lead_line, tail};
use crate::{Outcome, Trouble, folder};

/// Some nodes, all paired with each other. When it goes without [`World::passed`], it shows the ends of their logs, and with
/// `WAXWING_KEEP` set it leaves its folder behind.
pub struct World {
    /// The nodes, in the order they were asked for.
    pub nodes: Vec<Node>,
    root: PathBuf,
    temporary: Option<tempfile::TempDir>,
    devices: u32,
    passed: bool,
}

impl World {
    /// Starts a node for each name, in a new folder, and pairs them.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(name: &str, domains: &[&str]) -> Outcome<Self> {
        let setups = domains.iter().map(|d| setup(d)).collect::<Outcome<Vec<_>>>()?;
        Self::start_with(name, setups).await
    }

    /// The same, with settings.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start_with(name: &str, setups: Vec<Setup>) -> Outcome<Self> {
        let temporary = folder::temporary(name)?;
        let root = temporary.path().to_owned();
        Self::start_at(&root, Some(temporary), setups, true).await
    }

    /// The same, in a folder that stays; `pair` them, unless a former run did.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start_in(root: &Path, setups: Vec<Setup>, pair: bool) -> Outcome<Self> {
        Self::start_at(root, None, setups, pair).await
    }

    async fn start_at(
        root: &Path,
        temporary: Option<tempfile::TempDir>,
        setups: Vec<Setup>,
        pair: bool,
    ) -> Outcome<Self> {
        let mut world =
            Self { nodes: Vec::new(), root: root.to_owned(), temporary, devices: 0, passed: false };
        for setup in setups {
            let folder = root.join(setup.domain.as_str());
            world.nodes.push(Node::start(&folder, setup).await?);
        }
        for (i, one) in world.nodes.iter().enumerate() {
            for other in world.nodes.iter().skip(i + 1) {
                if pair {
                    one.pair(other).await?;
                }
            }
        }
        Ok(world)
    }

    /// Where everything is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The node at this place.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&mut self, i: usize) -> Outcome<&mut Node> {
        self.nodes.get_mut(i).ok_or_else(|| Trouble::new(format!("there is no node {i}")))
    }

    /// Two of the nodes at once.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn two(&mut self) -> Outcome<(&mut Node, &mut Node)> {
        match self.nodes.as_mut_slice() {
            [a, b, ..] => Ok((a, b)),
            _ => Trouble::is("there are not two nodes"),
        }
    }

    /// A new folder for a device.
    pub fn device_folder(&mut self, name: &str) -> PathBuf {
        self.devices += 1;
        self.root.join(format!("{name}-{}", self.devices))
    }

    /// A line for a new person at node `i` that leads straight to it, past its door.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn invite(&mut self, i: usize) -> Outcome<String> {
        let node = self.node(i)?;
        lead_line(&node.invite().await?, node.address()?)
    }

    /// A new person at node `i`, with one device, online.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn person(&mut self, i: usize, name: &str) -> Outcome<Device> {
        let line = self.invite(i).await?;
        Device::register(&self.device_folder(name), Seal::KeyFile, &line, name).await
    }

    /// A further device of the person, online.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn further(&mut self, device: &Device) -> Outcome<Device> {
        let folder = self.device_folder(device.user().local());
        device.link(&folder, Seal::KeyFile).await
    }

    /// The test has seen everything it wanted: nothing more to show.
    pub fn passed(mut self) {
        self.passed = true;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.passed {
            return;
        }
        for node in &self.nodes {
            println!("── the end of {}'s log", node.domain());
            println!("{}", tail(&node.log(), 60));
        }
        if std::env::var_os("WAXWING_KEEP").is_some()
            && let Some(temporary) = self.temporary.take()
        {
            println!("kept: {}", temporary.keep().display());
        }
    }
}

/// A node of this name, with settings that suit a test: retries come quickly, and the disk may be small.
///
/// # Errors
/// When it is not a domain.
pub fn setup(domain: &str) -> Outcome<Setup> {
    let settings = [
        ("disk.low_water_mib", "8"),
        ("disk.ballast_mib", "1"),
        ("limits.submits_per_second", "5000"),
        ("limits.sign_ins_per_minute", "6000"),
        ("limits.claims_per_minute", "6000"),
        ("log.level", "info"),
    ];
    let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    Ok(Setup { domain: Domain::parse(domain)?, settings, data: None })
}
