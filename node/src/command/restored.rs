//! `restored`: the database is a backup, and numbers that it gave after that must not be taken for new ones.

use serde_json::json;

use super::Opened;
use super::report::{Failure, Report};
use crate::clock::SystemEntropy;
use crate::config::Config;
use crate::folder::Held;
use crate::life;
use crate::store::Older;

pub(super) async fn restored(config: Config) -> Result<Report, Failure> {
    // A node knows its life from its start; one that runs would go on in the old one.
    let _held = Held::take(&config.data_dir).await?;
    // The backup may be of an older version, and the new life begins before the node is started.
    let opened = Opened::of(config, Older::Update).await?;
    let begun = life::restored(&opened.store, &opened.config.data_dir, &SystemEntropy).await;
    opened.store.close().await;
    let (old, new) = begun?;
    let text = format!("a new life begins: {new}, after {old}");
    Ok(Report::new(text, &json!({"old": old.to_string(), "new": new.to_string()})))
}
