//! MIMI content against the examples of draft-ietf-mimi-content-08 and draft-mahy-mimi-message-status-01.

#![expect(clippy::unwrap_used, reason = "a helper of tests may fail the test")]

use std::path::PathBuf;

use protocol::content::{MimiContent, StatusReport, message_id};
use protocol::{MessageId, RoomId, UserId};

/// The folder with the drafts' examples, which are not part of this project.
fn vectors() -> Option<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "only tests read vectors, so it is no configuration"
    )]
    let folder = std::env::var("WAXWING_VECTORS").ok();
    folder.map(|f| PathBuf::from(f).join("mimi"))
}

#[derive(serde::Deserialize)]
struct Example {
    name: String,
    cbor_hex: String,
    sender_uri: String,
    room_uri: String,
    salt: String,
    message_id: String,
    replaces: Option<String>,
    in_reply_to: Option<String>,
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn id(text: &str) -> MessageId {
    text.parse().unwrap()
}

#[test]
fn the_drafts_examples_are_read_written_back_and_have_the_listed_ids() {
    let Some(folder) = vectors() else {
        println!("skipped: mimi content vectors");
        return;
    };
    let list = std::fs::read(folder.join("mimi-content-messageid.json")).unwrap();
    let examples: Vec<Example> = serde_json::from_slice(&list).unwrap();
    assert_eq!(examples.len(), 14);
    for e in examples {
        let bytes = unhex(&e.cbor_hex);
        let file = folder.join("mimi-content/examples").join(format!("{}.cbor", e.name));
        assert_eq!(std::fs::read(file).unwrap(), bytes, "{}", e.name);
        let content = MimiContent::decode(&bytes).unwrap_or_else(|m| panic!("{}: {m}", e.name));
        assert_eq!(content.encode().unwrap(), bytes, "{}", e.name);
        let (sender, room) =
            (UserId::parse(&e.sender_uri).unwrap(), RoomId::parse(&e.room_uri).unwrap());
        assert_eq!(message_id(&sender, &room, &bytes).unwrap(), id(&e.message_id), "{}", e.name);
        assert_eq!(content.salt.to_vec(), unhex(&e.salt), "{}", e.name);
        assert_eq!(content.replaces, e.replaces.as_deref().map(id), "{}", e.name);
        assert_eq!(content.in_reply_to, e.in_reply_to.as_deref().map(id), "{}", e.name);
        assert_eq!((content.sender, content.room), (Some(sender), Some(room)), "{}", e.name);
        for cut in 0..bytes.len() {
            assert!(MimiContent::decode(&bytes[..cut]).is_err(), "{} cut at {cut}", e.name);
        }
    }
}

#[test]
fn the_drafts_status_report_is_read_and_written_back() {
    let Some(folder) = vectors() else {
        println!("skipped: mimi content vectors");
        return;
    };
    let status = std::fs::read(folder.join("mimi-message-status/status.cbor")).unwrap();
    let report = StatusReport::decode(&status).unwrap();
    assert_eq!(report.statuses.len(), 4);
    assert_eq!(report.statuses[3].1, protocol::content::Status::EXPIRED);
    assert_eq!(report.encode(), status);
}
