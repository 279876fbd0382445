//! `status`: one screen of what the node holds and what waits for whom.

use protocol::{Clock as _, Timestamp};
use serde_json::json;

use super::Opened;
use super::report::{Failure, Report};
use crate::clock::SystemClock;
use crate::folder;
use crate::store::peers::{Peer, PeerState};
use crate::store::status::Waiting;
use crate::store::{disk, identity, peers, status};

pub(super) async fn status(opened: &Opened) -> Result<Report, Failure> {
    let mut tx = opened.store.snapshot().await?;
    let node = identity::load(&mut tx).await?;
    let totals = status::totals(&mut tx).await?;
    let peers = peers::list(&mut tx).await?;
    let waiting = status::waiting(&mut tx).await?;
    drop(tx);
    let now = SystemClock.now();
    let free = disk::free_bytes(&opened.config.data_dir)?;
    let address = folder::address(&opened.config.data_dir);
    let mut text = format!(
        "{}  incarnation {}  {}\n{} people, {} devices, {} rooms, {} entries ({} MiB)\n{} MiB free on the disk\n",
        node.domain,
        node.incarnation,
        address.map_or("not running".to_owned(), |a| format!("listening on {a}")),
        totals.accounts,
        totals.devices,
        totals.rooms,
        totals.entries,
        totals.bytes >> 20,
        free >> 20,
    );
    let refusing = free >> 20 < opened.config.disk.low_water_mib;
    if refusing {
        text.push_str(
            "new messages are refused until there is space; what is here is still delivered\n",
        );
    }
    let mut rows = Vec::new();
    for peer in &peers {
        let queue = waiting.iter().find(|w| w.peer == peer.domain);
        let (line, row) = one_peer(peer, queue, now);
        text.push_str(&line);
        rows.push(row);
    }
    Ok(Report::new(
        text,
        &json!({
            "domain": node.domain,
            "incarnation": node.incarnation,
            "schema": crate::store::schema(),
            "address": address.map(|a| a.to_string()),
            "accounts": totals.accounts,
            "devices": totals.devices,
            "rooms": totals.rooms,
            "entries": totals.entries,
            "bytes": totals.bytes,
            "disk_free_bytes": free,
            "disk_low": refusing,
            "peers": rows,
        }),
    ))
}

fn one_peer(peer: &Peer, queue: Option<&Waiting>, now: Timestamp) -> (String, serde_json::Value) {
    let oldest = queue.and_then(|w| w.oldest_at);
    let (queued, parked) = queue.map_or((0, 0), |w| (w.entries, w.parked));
    let line = format!(
        "peer {}{}  {} waiting{}{}{}\n",
        peer.domain,
        if peer.state == PeerState::Blocked { " blocked" } else { "" },
        queued,
        oldest.map_or(String::new(), |at| {
            format!(", the oldest for {} s", now.since(at).as_secs())
        }),
        if parked > 0 { format!(", {parked} rooms parked") } else { String::new() },
        peer.last_error.as_deref().map_or(String::new(), |e| format!("  last error: {e}")),
    );
    let row = json!({
        "domain": peer.domain,
        "state": peer.state.as_str(),
        "queued": queued,
        "parked": parked,
        "oldest_ms": oldest.map(Timestamp::ms),
        "last_contact_ms": peer.last_contact.map(Timestamp::ms),
        "last_error": peer.last_error,
    });
    (line, row)
}
