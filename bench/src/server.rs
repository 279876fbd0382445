//! A server of any of the systems that are compared.

use std::path::Path;
use std::time::Duration;

use crate::letter::Person;
use crate::link::Account;
use crate::waxwing::node::Node;
use crate::waxwing::{people, stage as ours};
use crate::work::Script;
use crate::xmpp::ejabberd::Ejabberd;
use crate::xmpp::install;
use crate::xmpp::prosody::Prosody;
use crate::xmpp::stage::{self as theirs, Host};
use crate::{Outcome, failed};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// This node, on SQLite.
    Waxwing,
    /// ejabberd with PostgreSQL.
    Ejabberd,
    /// Prosody with its own files.
    Prosody,
}

impl Kind {
    /// All of them, the reference right after our own.
    pub const ALL: [Self; 3] = [Self::Waxwing, Self::Ejabberd, Self::Prosody];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waxwing => "Waxwing",
            Self::Ejabberd => "ejabberd",
            Self::Prosody => "Prosody",
        }
    }

    /// Installs what it needs.
    ///
    /// # Errors
    /// A sentence that says what cannot be had.
    pub fn install(self) -> Outcome<()> {
        match self {
            Self::Waxwing => Ok(()),
            Self::Ejabberd => install::install(install::EJABBERD),
            Self::Prosody => install::install(install::PROSODY),
        }
    }
}

/// A running server, with its database.
pub enum Server {
    /// See [`Kind::Waxwing`].
    Waxwing(Box<Node>),
    /// See [`Kind::Ejabberd`].
    Ejabberd(Box<Ejabberd>),
    /// See [`Kind::Prosody`].
    Prosody(Box<Prosody>),
}

impl Server {
    /// Makes one in `folder` and starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(kind: Kind, folder: &Path) -> Outcome<Self> {
        let domain = "a.example";
        Ok(match kind {
            Kind::Waxwing => Self::Waxwing(Box::new(Node::start(folder, domain).await?)),
            Kind::Ejabberd => {
                Self::Ejabberd(Box::new(Ejabberd::start(folder, domain, None).await?))
            }
            Kind::Prosody => Self::Prosody(Box::new(Prosody::start(folder, domain).await?)),
        })
    }

    /// Makes two that talk to each other.
    ///
    /// # Errors
    /// When they cannot be started or paired, or the system is not set up for that here.
    pub async fn start_two(kind: Kind, folder: &Path) -> Outcome<[Self; 2]> {
        let (a, b) = (folder.join("a"), folder.join("b"));
        match kind {
            Kind::Waxwing => {
                let a = Node::start(&a, "a.example").await?;
                let b = Node::start(&b, "b.example").await?;
                a.pair(&b)?;
                Ok([Self::Waxwing(Box::new(a)), Self::Waxwing(Box::new(b))])
            }
            Kind::Ejabberd => {
                let port = crate::process::free_port()?;
                let a = Ejabberd::start(&a, "127.0.0.11", Some(port)).await?;
                let b = Ejabberd::start(&b, "127.0.0.12", Some(port)).await?;
                Ok([Self::Ejabberd(Box::new(a)), Self::Ejabberd(Box::new(b))])
            }
            Kind::Prosody => failed("Prosody is not measured across two servers"),
        }
    }

    /// The processes that everything it does runs under.
    #[must_use]
    pub fn roots(&self) -> Vec<u32> {
        match self {
            Self::Waxwing(node) => node.roots(),
            Self::Ejabberd(server) => server.roots(),
            Self::Prosody(server) => server.roots(),
        }
    }

    /// SIGKILL to all of them.
    pub async fn kill(&mut self) {
        match self {
            Self::Waxwing(node) => node.kill().await,
            Self::Ejabberd(server) => server.kill().await,
            Self::Prosody(server) => server.kill().await,
        }
    }

    /// Starts it again on its data; how long until it answers.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn resume(&mut self) -> Outcome<Duration> {
        let begun = tokio::time::Instant::now();
        match self {
            Self::Waxwing(node) => return node.resume().await,
            Self::Ejabberd(server) => server.resume().await?,
            Self::Prosody(server) => server.resume().await?,
        }
        Ok(begun.elapsed())
    }

    /// Ends it.
    pub async fn stop(&mut self) {
        match self {
            Self::Waxwing(node) => node.stop().await,
            Self::Ejabberd(server) => server.stop().await,
            Self::Prosody(server) => server.stop().await,
        }
    }

    fn host(&self) -> Option<&dyn Host> {
        match self {
            Self::Waxwing(_) => None,
            Self::Ejabberd(server) => Some(server.as_ref()),
            Self::Prosody(server) => Some(server.as_ref()),
        }
    }

    fn node(&self) -> Option<&Node> {
        match self {
            Self::Waxwing(node) => Some(node),
            Self::Ejabberd(_) | Self::Prosody(_) => None,
        }
    }

    /// People in twos; the second of each two is at the last of `servers`, which are of one system.
    ///
    /// # Errors
    /// When a server refuses.
    pub async fn pairs(
        servers: &[&Self],
        count: usize,
        script: Script,
    ) -> Outcome<Vec<[Person; 2]>> {
        let hosts: Vec<&dyn Host> = servers.iter().filter_map(|s| s.host()).collect();
        if !hosts.is_empty() {
            return theirs::pairs(&hosts, count, script);
        }
        let nodes: Vec<&Node> = servers.iter().filter_map(|s| s.node()).collect();
        ours::pairs(&nodes, count, script).await
    }

    /// One room; the first `speakers` have something to say.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn room(
        &self,
        members: usize,
        speakers: usize,
        script: Script,
    ) -> Outcome<Vec<Person>> {
        match (self.node(), self.host()) {
            (Some(node), _) => ours::room(node, members, speakers, script).await,
            (None, Some(host)) => theirs::room(host, members, speakers, script),
            (None, None) => failed("a server of no kind"),
        }
    }

    /// People with something to say to somebody who is absent.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn absent(&self, senders: usize, script: Script) -> Outcome<(Vec<Person>, Person)> {
        match (self.node(), self.host()) {
            (Some(node), _) => ours::absent(node, senders, script).await,
            (None, Some(host)) => theirs::absent(host, senders, script),
            (None, None) => failed("a server of no kind"),
        }
    }

    /// People who only sign in.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn idle(&self, count: usize) -> Outcome<Vec<Account>> {
        match (self.node(), self.host()) {
            (Some(node), _) => {
                let devices = people::register(node, "i", count).await?;
                Ok(devices.iter().map(|device| ours::account(node, device)).collect())
            }
            (None, Some(host)) => theirs::idle(host, count),
            (None, None) => failed("a server of no kind"),
        }
    }
}
