//! `restored`: the database is a backup, and numbers that it gave after that must not be taken for new ones.

use serde_json::json;

use super::Opened;
use super::report::{Failure, Report};
use crate::clock::SystemEntropy;
use crate::folder::Held;
use crate::life;

pub(super) async fn restored(opened: &Opened) -> Result<Report, Failure> {
    let folder = &opened.config.data_dir;
    // A node knows its life from its start; one that runs would go on in the old one.
    let _held = Held::take(folder).await?;
    let (old, new) = life::restored(&opened.store, folder, &SystemEntropy).await?;
    let text = format!("a new life begins: {new}, after {old}");
    Ok(Report::new(text, &json!({"old": old.to_string(), "new": new.to_string()})))
}
