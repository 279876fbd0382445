//! `status`: one screen of what the node holds and what waits for whom.

use std::fmt::Write as _;

use protocol::{Clock as _, Timestamp};
use serde_json::json;

use super::Opened;
use super::report::{Failure, Report};
use crate::clock::SystemClock;
use crate::store::{disk, identity, peers, status};

pub(super) async fn status(opened: &Opened) -> Result<Report, Failure> {
    let mut tx = opened.store.snapshot().await?;
    let node = identity::load(&mut tx).await?;
    let totals = status::totals(&mut tx).await?;
    let peers = peers::list(&mut tx).await?;
    let waiting = status::waiting(&mut tx).await?;
    drop(tx);
    opened.store.close().await;
    let now = SystemClock.now();
    let free = disk::free_bytes(&opened.config.data_dir)?;
    let running = opened.config.data_dir.join("address");
    let address = std::fs::read_to_string(running).ok().map(|a| a.trim().to_owned());
    let mut text = format!(
        "{}  incarnation {}  {}\n{} people, {} devices, {} rooms, {} entries ({} MiB)\n{} MiB free on the disk\n",
        node.domain,
        node.incarnation,
        address.as_deref().map_or("not running".to_owned(), |a| format!("listening on {a}")),
        totals.accounts,
        totals.devices,
        totals.rooms,
        totals.entries,
        totals.bytes >> 20,
        free >> 20,
    );
    let mut rows = Vec::new();
    for peer in &peers {
        let queue = waiting.iter().find(|w| w.peer == peer.domain);
        let age = queue.and_then(|w| w.oldest_at).map(|at| now.since(at).as_secs());
        let (queued, parked) = queue.map_or((0, 0), |w| (w.entries, w.parked));
        let _infallible = writeln!(
            text,
            "peer {}  {} waiting{}{}{}",
            peer.domain,
            queued,
            age.map_or(String::new(), |s| format!(", the oldest for {s} s")),
            if parked > 0 { format!(", {parked} rooms parked") } else { String::new() },
            peer.last_error.as_deref().map_or(String::new(), |e| format!("  last error: {e}")),
        );
        rows.push(json!({
            "domain": peer.domain,
            "state": peer.state.as_str(),
            "queued": queued,
            "parked": parked,
            "oldest_ms": queue.and_then(|w| w.oldest_at).map(Timestamp::ms),
            "last_contact_ms": peer.last_contact.map(Timestamp::ms),
            "last_error": peer.last_error,
        }));
    }
    Ok(Report::new(
        text,
        &json!({
            "domain": node.domain,
            "incarnation": node.incarnation,
            "schema": crate::store::schema(),
            "address": address,
            "accounts": totals.accounts,
            "devices": totals.devices,
            "rooms": totals.rooms,
            "entries": totals.entries,
            "bytes": totals.bytes,
            "disk_free_bytes": free,
            "peers": rows,
        }),
    ))
}
