//! Device and device, inside the encryption: MIMI content (draft-ietf-mimi-content-08). PROTOCOL §7.5.
//!
//! Content is deterministic CBOR (RFC 8949 §4.2.1). A message id is a hash over the exact bytes, so there is one encoding
//! only: the reader refuses every other one, and what it takes is written again byte for byte.

mod cbor;
mod framing;
mod header;
mod part;
mod status;

use sha2::{Digest as _, Sha256};

pub use crate::tls::Malformed;
use crate::{MessageId, RoomId, UserId, limit};
pub use cbor::{Extensions, Key, Value};
pub use framing::{
    ApplicationFraming, CONTENT_MEDIA_TYPES, MEDIA_TYPES, MediaType, Parameter, media_type_list,
};
pub use header::{Header, Seen};
pub use part::{Disposition, ExternalPart, NestedPart, PartBody, PartSemantics};
pub use status::{Status, StatusReport};

/// Media type of a [`MimiContent`].
pub const MIMI_CONTENT: &str = "application/mimi-content";
/// Media type of a [`StatusReport`].
pub const MESSAGE_STATUS: &str = "application/mimi-message-status";
/// Media type of what a person writes.
pub const MARKDOWN: &str = "text/markdown;variant=GFM-MIMI";

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct MimiContent {
    /// Random; makes ids of equal messages differ.
    pub salt: [u8; 16],
    /// The first version of the message that this one edits or deletes.
    pub replaces: Option<MessageId>,
    /// The topic it belongs to, at most [`limit::TOPIC_BYTES`]; empty for none.
    pub topic_id: Vec<u8>,
    /// When it should vanish.
    pub expires: Option<Expires>,
    /// The message it answers or reacts to.
    pub in_reply_to: Option<MessageId>,
    /// Who says it is theirs (extension 1); only for franking.
    pub sender: Option<UserId>,
    /// The room it is for (extension 2); only for franking.
    pub room: Option<RoomId>,
    /// This project's own header (extension -1).
    pub header: Option<Header>,
    /// All other extensions, kept as they came.
    pub extensions: Extensions,
    /// What it says.
    pub part: NestedPart,
}

/// When a message should vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// Seconds after it was read.
    AfterReading(u32),
    /// At this time, in seconds since the Unix epoch.
    At(u32),
}

impl MimiContent {
    /// A message that says `text`, as Markdown.
    #[must_use]
    pub fn text(salt: [u8; 16], text: impl Into<String>) -> Self {
        Self::of(salt, NestedPart::text(text))
    }

    /// A message that consists of `part`.
    #[must_use]
    pub fn of(salt: [u8; 16], part: NestedPart) -> Self {
        Self {
            salt,
            replaces: None,
            topic_id: Vec::new(),
            expires: None,
            in_reply_to: None,
            sender: None,
            room: None,
            header: None,
            extensions: Extensions::default(),
            part,
        }
    }

    /// The bytes that are framed, encrypted and hashed.
    ///
    /// # Errors
    /// When it passes a limit of the draft, such as five levels of parts or a multipart of one.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        todo!()
    }

    /// Reads exactly one message.
    ///
    /// # Errors
    /// When it is not the one deterministic encoding of a valid message, or passes a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let _ = (bytes, limit::URI_BYTES);
        todo!()
    }

    /// What a plain client shows: the first text part that is for showing, if there is one.
    #[must_use]
    pub fn plain_text(&self) -> Option<&str> {
        self.part.plain_text()
    }
}

/// The id of the message whose content is exactly `content`: `0x01 ‖ SHA-256(u16 len ‖ sender URI ‖ u16 len ‖ room URI ‖
/// content ‖ salt)[..31]`.
///
/// # Errors
/// When `content` does not start like one.
pub fn message_id(sender: &UserId, room: &RoomId, content: &[u8]) -> Result<MessageId, Malformed> {
    let salt = match content {
        [0x87, 0x50, rest @ ..] => rest.first_chunk::<16>(),
        _ => None,
    };
    let salt = salt.ok_or(Malformed::new("not MIMI content", 0))?;
    let mut h = Sha256::new();
    for uri in [sender.as_str(), room.as_str()] {
        let length = u16::try_from(uri.len()).expect("a URI has at most 512 bytes");
        h.update(length.to_be_bytes());
        h.update(uri);
    }
    h.update(content);
    h.update(salt);
    let hash: [u8; 32] = h.finalize().into();
    let mut id = [0x01; 32];
    for (to, from) in id.iter_mut().skip(1).zip(hash) {
        *to = from;
    }
    Ok(MessageId::from_bytes(id))
}
