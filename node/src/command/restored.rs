//! `restored`: the database is a backup, and numbers that it gave after that must not be taken for new ones.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;

use super::Opened;
use super::report::{Exit, Failure, Fault, Report};
use crate::clock::SystemEntropy;
use crate::life;

pub(super) async fn restored(opened: &Opened) -> Result<Report, Failure> {
    let folder = &opened.config.data_dir;
    if let Some(address) = running(&folder.join("address")) {
        return Err(Fault {
            code: "RUNNING".to_owned(),
            what: "the node is running".to_owned(),
            at: address.to_string(),
            why: "a node knows its life from its start; it would go on in the old one".to_owned(),
            hint: "stop the node, run this again, start it".to_owned(),
            exit: Exit::Failed,
        }
        .into());
    }
    let (old, new) = life::restored(&opened.store, folder, &SystemEntropy).await?;
    let text = format!("a new life begins: {new}, after {old}");
    Ok(Report::new(text, &json!({"old": old.to_string(), "new": new.to_string()})))
}

/// Where the node listens. One that was killed left its address behind, so somebody must answer there.
fn running(file: &std::path::Path) -> Option<SocketAddr> {
    let address: SocketAddr = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok().map(|_| address)
}
