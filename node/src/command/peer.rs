//! `peer`: becoming, listing, blocking and forgetting peers. A node that runs finds in the database what it may do with whom, at every
//! request.

use std::time::Duration;

use clap::Subcommand;
use federation::client::Timeouts;
use federation::pairing::PairRequest;
use protocol::invite::{Line, LineKind};
use protocol::{Clock as _, Domain, Timestamp};
use serde_json::json;

use super::init::hex;
use super::lines::{Lifetime, made};
use super::report::{Exit, Failure, Fault, Report};
use super::{Opened, clock};
use crate::clock::{SystemClock, SystemEntropy};
use crate::nodekey::NodeKeys;
use crate::pairing;
use crate::store::peers::{self, PeerState};
use crate::store::{StoreError, status};

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
    /// Stop all traffic with a peer at once, in both directions; what waits for it is kept.
    Block {
        /// Its domain.
        #[arg(value_name = "DOMAIN")]
        peer: Domain,
    },
    /// Let a blocked peer go on where it stopped.
    Unblock {
        /// Its domain.
        #[arg(value_name = "DOMAIN")]
        peer: Domain,
    },
    /// Forget a peer; only a new line makes it one again.
    Remove {
        /// Its domain.
        #[arg(value_name = "DOMAIN")]
        peer: Domain,
        /// Although there are rooms with people of both.
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn peer(opened: &Opened, command: PeerCommand) -> Result<Report, Failure> {
    match command {
        PeerCommand::Invite(lifetime) => made(opened, LineKind::Peer, &lifetime).await,
        PeerCommand::Add { line } => add(opened, &line).await,
        PeerCommand::List => list(opened).await,
        PeerCommand::Block { peer } => block(opened, peer).await,
        PeerCommand::Unblock { peer } => unblock(opened, peer).await,
        PeerCommand::Remove { peer, yes } => remove(opened, peer, yes).await,
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
    let known = peers::find(&mut opened.store.snapshot().await?, &line.domain).await?;
    if known.is_some_and(|p| p.state == PeerState::Blocked) {
        return Err(blocked(&line.domain));
    }
    let at = opened.reachable()?;
    let request = PairRequest::new(&line, &opened.domain, &at.host, at.port)?;
    let (client, now) = client(opened)?;
    let peer = pairing::join(&opened.store, &client, &line, &request, now).await?;
    let text = format!("{} is a peer now, at {}:{}", peer.domain, peer.host, peer.port);
    Ok(Report::new(text, &shown(&peer, 0)))
}

/// One that speaks as this node, and the time.
fn client(opened: &Opened) -> Result<(federation::Client, Timestamp), Failure> {
    let now = SystemClock.now();
    let keys = NodeKeys::load(&opened.config.data_dir, &opened.domain, &SystemEntropy, now)?;
    Ok((federation::Client::new(keys.identity(), clock(), Timeouts::default()), now))
}

fn shown(peer: &peers::Peer, queued: u64) -> serde_json::Value {
    json!({
        "domain": peer.domain,
        "host": peer.host,
        "port": peer.port,
        "node_key": hex(&peer.node_key),
        "state": peer.state.as_str(),
        "added_ms": peer.added.ms(),
        "last_contact_ms": peer.last_contact.map(Timestamp::ms),
        "last_error": peer.last_error,
        "queued": queued,
    })
}

async fn list(opened: &Opened) -> Result<Report, Failure> {
    let mut tx = opened.store.snapshot().await?;
    let peers = peers::list(&mut tx).await?;
    let waiting = status::waiting(&mut tx).await?;
    drop(tx);
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

async fn block(opened: &Opened, domain: Domain) -> Result<Report, Failure> {
    let peer = set(opened, domain, PeerState::Blocked).await?;
    let text = format!(
        "{} is blocked: nothing is taken from it or sent to it; what waits for it is kept",
        peer.domain
    );
    Ok(Report::new(text, &shown(&peer, queued(opened, &peer.domain).await?)))
}

async fn unblock(opened: &Opened, domain: Domain) -> Result<Report, Failure> {
    let peer = set(opened, domain, PeerState::Active).await?;
    let text = format!("{} may go on; what waited follows within a minute", peer.domain);
    let report = Report::new(text, &shown(&peer, queued(opened, &peer.domain).await?));
    if let Some(to) = peer.open() {
        let (client, _) = client(opened)?;
        // A sign of life, so that what waits there for us comes now and not at the end of a backoff. Without it, it comes then.
        let _greeted = tokio::time::timeout(GREET, client.directory(&to)).await;
    }
    Ok(report)
}

const GREET: Duration = Duration::from_secs(5);

async fn remove(opened: &Opened, domain: Domain, yes: bool) -> Result<Report, Failure> {
    let gone = domain.clone();
    let (known, rooms) = opened
        .store
        .write(move |tx| {
            Box::pin(async move {
                let rooms = peers::shared_rooms(tx, &gone).await?;
                let known = peers::find(tx, &gone).await?.is_some();
                if known && (yes || rooms == 0) {
                    peers::remove(tx, &gone).await?;
                }
                Ok::<_, StoreError>((known, rooms))
            })
        })
        .await?;
    if !known {
        return Err(no_peer(&domain));
    }
    if rooms > 0 && !yes {
        return Err(Fault {
            code: "SHARED-ROOMS".to_owned(),
            what: format!("people here share rooms with people at {domain}: {rooms}"),
            at: domain.to_string(),
            why: "what is written there would no longer reach the others".to_owned(),
            hint: format!("waxwing-node peer block {domain} keeps more open, or add --yes"),
            exit: Exit::Failed,
        }
        .into());
    }
    let text = format!(
        "{domain} is no peer any more; what waits for it goes when it is paired again, unless it expires before"
    );
    Ok(Report::new(text, &json!({"domain": domain, "shared_rooms": rooms})))
}

/// Changes how we stand with a peer; the peer as it is then.
async fn set(opened: &Opened, domain: Domain, state: PeerState) -> Result<peers::Peer, Failure> {
    let wanted = domain.clone();
    let peer = opened
        .store
        .write(move |tx| {
            Box::pin(async move {
                peers::set_state(tx, &wanted, state).await?;
                peers::find(tx, &wanted).await
            })
        })
        .await?;
    peer.ok_or_else(|| no_peer(&domain))
}

async fn queued(opened: &Opened, peer: &Domain) -> Result<u64, Failure> {
    let waiting = status::waiting(&mut opened.store.snapshot().await?).await?;
    Ok(waiting.iter().find(|w| w.peer == *peer).map_or(0, |w| w.entries))
}

fn no_peer(domain: &Domain) -> Failure {
    Fault {
        code: "NO-PEER".to_owned(),
        what: format!("{domain} is no peer of this node"),
        at: domain.to_string(),
        why: "nothing was changed".to_owned(),
        hint: "waxwing-node peer list".to_owned(),
        exit: Exit::Failed,
    }
    .into()
}

fn blocked(domain: &Domain) -> Failure {
    Fault {
        code: "BLOCKED".to_owned(),
        what: format!("{domain} is a peer that this node blocks"),
        at: domain.to_string(),
        why: "pairing again would let it in again".to_owned(),
        hint: format!("waxwing-node peer unblock {domain}"),
        exit: Exit::Failed,
    }
    .into()
}
