//! `run`: the node, until somebody stops it.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::report::Failure;
use crate::clock::{SystemClock, SystemEntropy};
use crate::config::Config;
use crate::error::Error;
use crate::{Node, telemetry};

pub(super) async fn run(config: Config) -> Result<(), Failure> {
    telemetry::start(&config.log, &SystemEntropy);
    let mut term = signal(SignalKind::terminate()).map_err(Error::io("SIGTERM"))?;
    let mut int = signal(SignalKind::interrupt()).map_err(Error::io("SIGINT"))?;
    let node = Node::build(config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await?;
    let shutdown = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    Ok(node.run(shutdown).await?)
}
