//! `peer`: becoming and listing peers.

use clap::Subcommand;
use federation::client::Timeouts;
use federation::pairing::PairRequest;
use protocol::Clock as _;
use protocol::invite::{Line, LineKind};
use serde_json::json;

use super::init::hex;
use super::lines::{Lifetime, made};
use super::report::{Exit, Failure, Fault, Report};
use super::{Opened, clock};
use crate::clock::{SystemClock, SystemEntropy};
use crate::nodekey::NodeKeys;
use crate::pairing;
use crate::store::{peers, status};

#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// Make a line with which another organisation's node becomes a peer, once.
    Invite(Lifetime),
    /// Become a peer of the node that made this line.
    Add {
        /// The line, `waxwing-peer:…`.
        line: String,
    },
    /// Show all peers.
    List,
}

pub(super) async fn peer(opened: &Opened, command: PeerCommand) -> Result<Report, Failure> {
    match command {
        PeerCommand::Invite(lifetime) => made(opened, LineKind::Peer, &lifetime).await,
        PeerCommand::Add { line } => add(opened, &line).await,
        PeerCommand::List => list(opened).await,
    }
}

async fn add(opened: &Opened, text: &str) -> Result<Report, Failure> {
    let line = Line::parse(LineKind::Peer, text).map_err(|e| Fault {
        code: "LINE".to_owned(),
        what: e.to_string(),
        at: "the line".to_owned(),
        why: "the two nodes cannot be paired without it".to_owned(),
        hint: "run `waxwing-node peer invite` on the other node and paste what it prints"
            .to_owned(),
        exit: Exit::Failed,
    })?;
    let at = opened.reachable()?;
    let request = PairRequest::new(&line, &opened.domain, &at.host, at.port)?;
    let now = SystemClock.now();
    let keys = NodeKeys::load(&opened.config.data_dir, &opened.domain, &SystemEntropy, now)?;
    let client = federation::Client::new(keys.identity(), clock(), Timeouts::default());
    let peer = pairing::join(&opened.store, &client, &line, &request, now).await?;
    opened.store.close().await;
    let text = format!("{} is a peer now, at {}:{}", peer.domain, peer.host, peer.port);
    Ok(Report::new(text, &shown(&peer, 0)))
}

fn shown(peer: &peers::Peer, queued: u64) -> serde_json::Value {
    json!({
        "domain": peer.domain,
        "host": peer.host,
        "port": peer.port,
        "node_key": hex(&peer.node_key),
        "state": peer.state.as_str(),
        "added_ms": peer.added.ms(),
        "last_contact_ms": peer.last_contact.map(protocol::Timestamp::ms),
        "last_error": peer.last_error,
        "queued": queued,
    })
}

async fn list(opened: &Opened) -> Result<Report, Failure> {
    let mut tx = opened.store.snapshot().await?;
    let peers = peers::list(&mut tx).await?;
    let waiting = status::waiting(&mut tx).await?;
    drop(tx);
    opened.store.close().await;
    let queued =
        |p: &peers::Peer| waiting.iter().find(|w| w.peer == p.domain).map_or(0, |w| w.entries);
    let mut text = String::new();
    let mut rows = Vec::new();
    for peer in &peers {
        let line = format!(
            "{} at {}:{} {}, {} waiting{}\n",
            peer.domain,
            peer.host,
            peer.port,
            peer.state.as_str(),
            queued(peer),
            peer.last_error.as_deref().map_or(String::new(), |e| format!("; last error: {e}")),
        );
        text.push_str(&line);
        rows.push(shown(peer, queued(peer)));
    }
    if peers.is_empty() {
        text.push_str("no peers; `waxwing-node peer invite` makes a line for one");
    }
    Ok(Report::new(text, &json!({"peers": rows})))
}
