//! Invitations for people and for peers, and becoming peers. PROTOCOL §8 and §9.3.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use federation::pairing::{self, Offer, PairAnswer, PairRequest, Paired};
use federation::verify::Claim;
use federation::{Outcome as Answer, Reach, Why};
use protocol::invite::{Line, LineKind};
use protocol::log::Digest;
use protocol::{Clock, Code, Domain, Entropy, Refusal, Timestamp};

use crate::app::App;
use crate::error::{Error, Outcome};
use crate::store::peers::{self, Peer, PeerState};
use crate::store::{Store, Wake, accounts};

/// How long an invitation works unless the operator says otherwise.
pub(crate) const LINE_LIFETIME: Duration = Duration::from_hours(7 * 24);

/// A line that was made, and until when it works.
pub(crate) struct Made {
    pub(crate) line: Line,
    pub(crate) expires: Timestamp,
}

/// Where and how a node is reached, for lines.
pub(crate) struct Reachable {
    pub(crate) domain: Domain,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) node_key: [u8; 32],
}

/// Makes a line of `kind` that works once within `lifetime`. Only the hash of its secret is kept.
///
/// # Errors
/// When the database fails.
pub(crate) async fn make_line(
    store: &Store,
    (clock, entropy): (&dyn Clock, &dyn Entropy),
    kind: LineKind,
    at: Reachable,
    lifetime: Duration,
) -> Result<Made, Error> {
    let secret = entropy.bytes32();
    let hash = *Digest::of_bytes(&secret).as_bytes();
    let now = clock.now();
    let expires = now.after(lifetime);
    store
        .write(move |tx| {
            Box::pin(async move {
                match kind {
                    LineKind::Peer => peers::create_invite(tx, &hash, now, expires).await,
                    LineKind::Person | LineKind::Device => {
                        accounts::create_invite(tx, &hash, now, expires).await
                    }
                }
            })
        })
        .await?;
    let Reachable { domain, host, port, node_key } = at;
    Ok(Made { line: Line { kind, domain, host, port, node_key, secret }, expires })
}

/// The other node's operator made a line for us and we pasted it: asks that node, and adds it.
///
/// # Errors
/// What the other node says, or that it cannot be reached.
pub(crate) async fn join(
    store: &Store,
    client: &federation::Client,
    line: &Line,
    request: &PairRequest,
    now: Timestamp,
) -> Outcome<Peer> {
    match client.pair(line, request).await {
        Answer::Done(_) => {}
        Answer::Refused(refusal) => return Err(refusal.into()),
        Answer::Retry { why: Why::Estranged(refusal), .. } => {
            let detail = format!("{} does not take this node ({}).", line.domain, refusal.code);
            return Err(Refusal::because(refusal.code, detail).into());
        }
        Answer::Retry { why, .. } => {
            let detail = format!("{} cannot be paired with now: {why}.", line.domain);
            let code = match why {
                Why::Certificate(_) => Code::PeerCertificate,
                _ => Code::PeerUnreachable,
            };
            return Err(Refusal::because(code, detail).into());
        }
    }
    let peer = row(pairing::peer_of_line(line), now);
    let saved = peer.clone();
    store
        .write(move |tx| {
            Box::pin(async move {
                peers::save(tx, &saved).await?;
                peers::contact(tx, &saved.domain, now).await?;
                tx.wake(Wake::Peer(saved.domain.clone()));
                Outcome::Ok(())
            })
        })
        .await?;
    Ok(peer)
}

/// Another node pasted our line: decides, adds it, and answers with the proof.
///
/// # Errors
/// `BadInvite`, `DomainMismatch`, `Conflict`, `Malformed`; `UnknownPeer` for one that is blocked.
pub(crate) async fn accept(
    app: &Arc<App>,
    claim: Claim,
    request: PairRequest,
    from: IpAddr,
) -> Outcome<PairAnswer> {
    let identity = app.keys.identity();
    let answer = PairAnswer::new(&app.domain, identity.node_key(), &claim, &request)?;
    let key = *request.offer_key()?.as_bytes();
    let (shared, peer) = (app.clone(), claim.domain().clone());
    app.store
        .write(move |tx| {
            Box::pin(async move {
                let now = shared.now();
                let known = peers::find(tx, claim.domain()).await?;
                if known.as_ref().is_some_and(|p| p.state == PeerState::Blocked) {
                    // Neither with a fresh line nor with the one that it used: only an operator of ours lets it in again.
                    return Err(Code::UnknownPeer.into());
                }
                let pinned = known.as_ref().map(|p| p.node_key);
                // True for a fresh offer, and for one that this domain took before.
                let works = peers::take_invite(tx, &key, claim.domain(), shared.possibly()).await?;
                let before = pinned.filter(|p| p == claim.node_key());
                let offer = works.then(|| Offer {
                    expires: now,
                    used_by: before.map(|_| claim.domain().clone()),
                });
                let decided = pairing::accept(
                    &shared.domain,
                    &claim,
                    &request,
                    offer.as_ref(),
                    pinned.as_ref(),
                    now,
                )?;
                let peer = match decided {
                    Paired::New(peer) => peer,
                    // The line was made for a peer that we have already: its address may be new.
                    Paired::Again => federation::Peer {
                        domain: request.domain.clone(),
                        node_key: *claim.node_key(),
                        host: request.host.clone(),
                        port: request.port,
                        reach: Reach::Public,
                    },
                };
                let peer =
                    federation::Peer { reach: Reach::seen_from(from.to_canonical()), ..peer };
                let saved = row(peer, now);
                peers::save(tx, &saved).await?;
                peers::contact(tx, &saved.domain, now).await?;
                tx.wake(Wake::Peer(saved.domain));
                Outcome::Ok(())
            })
        })
        .await?;
    tracing::info!(%peer, "a peer was paired with one of this node's lines");
    Ok(answer)
}

fn row(peer: federation::Peer, now: Timestamp) -> Peer {
    Peer {
        domain: peer.domain,
        host: peer.host,
        port: peer.port,
        node_key: peer.node_key,
        reach: peer.reach,
        state: PeerState::Active,
        added: now,
        last_contact: Some(now),
        last_error: None,
    }
}
