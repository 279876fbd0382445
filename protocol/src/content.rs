//! Device and device, inside the encryption: MIMI content (draft-ietf-mimi-content-08). PROTOCOL §7.5.
//!
//! Content is deterministic CBOR (RFC 8949 §4.2.1). A message id is a hash over the exact bytes, so there is one encoding
//! only: the reader refuses every other one, and what it takes is written again byte for byte.

mod cbor;
mod framing;
mod header;
mod part;
mod status;

use minicbor::encode::{Encoder, Write};
use sha2::{Digest as _, Sha256};

use cbor::{Decoder, Written};

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
        if self.topic_id.len() > limit::TOPIC_BYTES {
            return Err(Malformed::over_limit("a topic over its limit", 0));
        }
        self.part.check()?;
        let extensions = self.all_extensions()?;
        let mut e = Encoder::new(Vec::new());
        self.write(&extensions, &mut e).expect("writing to a Vec cannot fail");
        let bytes = e.into_writer();
        if bytes.len() > limit::MESSAGE_BYTES {
            return Err(Malformed::over_limit("content over its limit", limit::MESSAGE_BYTES));
        }
        Ok(bytes)
    }

    fn write<W: Write>(&self, extensions: &Extensions, e: &mut Encoder<W>) -> Written<W> {
        let id = |e: &mut Encoder<W>, id: &Option<MessageId>| match id {
            Some(id) => e.bytes(id.as_bytes())?.ok(),
            None => e.null()?.ok(),
        };
        e.array(7)?.bytes(&self.salt)?;
        id(e, &self.replaces)?;
        e.bytes(&self.topic_id)?;
        match self.expires {
            Some(Expires::AfterReading(seconds)) => e.array(2)?.bool(true)?.u32(seconds)?,
            Some(Expires::At(seconds)) => e.array(2)?.bool(false)?.u32(seconds)?,
            None => e.null()?,
        };
        id(e, &self.in_reply_to)?;
        extensions.write(e)?;
        self.part.write(e)
    }

    /// The extensions with those that are fields here.
    fn all_extensions(&self) -> Result<Extensions, Malformed> {
        let mut all = self.extensions.clone();
        let text = |t: &str| Value::written(|e| e.str(t)?.ok());
        if let Some(sender) = &self.sender {
            all.keep(&Key::Number(cbor::SENDER), text(sender.as_str()))?;
        }
        if let Some(room) = &self.room {
            all.keep(&Key::Number(cbor::ROOM), text(room.as_str()))?;
        }
        if let Some(header) = &self.header {
            all.keep(&Key::Number(cbor::HEADER), Value::written(|e| header.write(e)))?;
        }
        Ok(all)
    }

    /// Reads exactly one message.
    ///
    /// # Errors
    /// When it is not the one deterministic encoding of a valid message, or passes a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > limit::MESSAGE_BYTES {
            return Err(Malformed::over_limit("content over its limit", limit::MESSAGE_BYTES));
        }
        let mut d = Decoder::new(bytes);
        d.array_exact(7)?;
        let mut content = Self::of(d.array_of()?, NestedPart::null());
        let id = |d: &mut Decoder<'_>| d.array_of().map(MessageId::from_bytes);
        content.replaces = d.nullable(id)?;
        let topic = d;
        content.topic_id = d.bytes()?.to_vec();
        if content.topic_id.len() > limit::TOPIC_BYTES {
            return Err(Malformed::over_limit("a topic over its limit", topic.at()));
        }
        content.expires = d.nullable(Expires::read)?;
        content.in_reply_to = d.nullable(id)?;
        content.read_extensions(&mut d)?;
        content.part = NestedPart::read(&mut d, 1, &mut { limit::PARTS })?;
        d.finish()?;
        Ok(content)
    }

    fn read_extensions(&mut self, d: &mut Decoder<'_>) -> Result<(), Malformed> {
        let mut last_key = None;
        for _ in 0..d.map()? {
            let (key, bytes) = d.key_after(last_key)?;
            last_key = Some(bytes);
            let start = *d;
            let value = d.value()?;
            let mut inside = Decoder::new(value.as_slice());
            // A foreign client may name things by other rules and use the private key for something else. Such values
            // are kept like any extension: the message can be read, it only lacks the field.
            let field = match key {
                Key::Number(cbor::SENDER) => {
                    let text = inside.text().map_err(|m| m.moved(start.at()))?;
                    self.sender = UserId::parse(text).ok();
                    self.sender.is_some()
                }
                Key::Number(cbor::ROOM) => {
                    let text = inside.text().map_err(|m| m.moved(start.at()))?;
                    self.room = RoomId::parse(text).ok();
                    self.room.is_some()
                }
                Key::Number(cbor::HEADER) => {
                    let header = Header::read(&mut inside);
                    self.header = header.ok().filter(|_| inside.finish().is_ok());
                    self.header.is_some()
                }
                Key::Number(_) | Key::Text(_) => false,
            };
            if !field {
                self.extensions.keep(&key, value)?;
            }
        }
        Ok(())
    }

    /// What a plain client shows: the first text part that is for showing, if there is one.
    #[must_use]
    pub fn plain_text(&self) -> Option<&str> {
        self.part.plain_text()
    }
}

impl Expires {
    fn read(d: &mut Decoder<'_>) -> Result<Self, Malformed> {
        d.array_exact(2)?;
        Ok(if d.bool()? { Self::AfterReading(d.number()?) } else { Self::At(d.number()?) })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::Chain;
    use crate::{Cursor, Incarnation, Seq, Timestamp};

    fn header() -> Header {
        let incarnation = Incarnation::from_bytes([5; 16]);
        let cursor = Cursor { incarnation, seq: Seq::new(9) };
        Header {
            counter: 7,
            prev: Some([6; 32]),
            local: Timestamp::from_ms(1_700_000_000_000),
            seen: Some(Seen { cursor, chain: Chain::from_bytes([4; 32]) }),
        }
    }

    fn single(text: &str, content_type: &str) -> NestedPart {
        let body = PartBody::Single { content_type: content_type.into(), content: text.into() };
        NestedPart { disposition: Disposition::RENDER, language: String::new(), body }
    }

    fn multi(parts: Vec<NestedPart>) -> NestedPart {
        let body = PartBody::Multi { semantics: PartSemantics::ChooseOne, parts };
        NestedPart { disposition: Disposition::RENDER, language: String::new(), body }
    }

    /// `depth` levels, the innermost a text.
    fn nested(depth: usize) -> NestedPart {
        (1..depth).fold(NestedPart::text("x"), |part, _| multi(vec![part, NestedPart::text("y")]))
    }

    #[test]
    fn the_header_is_extension_minus_one_between_the_known_and_the_other_keys() {
        let mut content = MimiContent::text([1; 16], "hi");
        content.room = Some(RoomId::parse("mimi://a.example/r/x").unwrap());
        content.header = Some(header());
        let kept = Value::parse([0x81, 0x07]).unwrap();
        content.extensions.insert(&Key::Text("z".into()), kept.clone()).unwrap();
        content.extensions.insert(&Key::Number(-2), kept).unwrap();
        let bytes = content.encode().unwrap();
        assert_eq!(MimiContent::decode(&bytes).unwrap(), content);
        let map = bytes.iter().position(|b| *b == 0xa4).unwrap();
        assert_eq!(bytes[map + 1..][..3], [0x02, 0x74, b'm']);
        let header = [0x20, 0x84, 0x07, 0x58, 0x20, 6];
        let at = bytes.windows(6).position(|w| w == header).unwrap();
        assert!(at > map + 22);
        let rest = &bytes[at..];
        assert!(rest.windows(4).any(|w| w == [0x21, 0x81, 0x07, 0x61]), "-2, then the text");
        assert_eq!(MimiContent::text([1; 16], "hi").plain_text(), Some("hi"));
    }

    #[test]
    fn a_private_extension_of_somebody_else_does_not_make_a_message_unreadable() {
        for foreign in [&[0x07][..], &[0x84, 0, 0xf6, 0, 0xf6], &[0x84, 1, 0xf6, 0, 0x80]] {
            let mut content = MimiContent::text([1; 16], "hi");
            content.extensions.keep(&Key::Number(-1), Value::parse(foreign).unwrap()).unwrap();
            let bytes = content.encode().unwrap();
            let read = MimiContent::decode(&bytes).unwrap();
            assert_eq!(read.header, None);
            assert_eq!(read.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn limits_hold_when_writing_and_when_reading() {
        let of = |part| MimiContent::of([0; 16], part);
        MimiContent::decode(&of(nested(4)).encode().unwrap()).unwrap();
        of(nested(5)).encode().unwrap_err();
        of(multi(vec![NestedPart::text("x")])).encode().unwrap_err();
        of(multi(vec![NestedPart::null(); limit::PARTS - 1])).encode().unwrap();
        of(multi(vec![NestedPart::null(); limit::PARTS])).encode().unwrap_err();
        let mut topic = MimiContent::text([0; 16], "x");
        topic.topic_id = vec![0; limit::TOPIC_BYTES];
        MimiContent::decode(&topic.encode().unwrap()).unwrap();
        topic.topic_id.push(0);
        topic.encode().unwrap_err();
        let big = MimiContent::text([0; 16], "x".repeat(limit::MESSAGE_BYTES));
        assert_eq!(big.encode().unwrap_err().code(), crate::Code::TooLarge);
    }

    /// The bytes of a message whose part is `part`, whatever that is.
    fn raw(extensions: &[u8], part: &[u8]) -> Vec<u8> {
        let head = [&[0x87, 0x50][..], &[1; 16], &[0xf6, 0x40, 0xf6, 0xf6]].concat();
        [&head, extensions, part].concat()
    }

    #[test]
    fn every_other_encoding_is_refused() {
        let part = [0x85, 0x01, 0x60, 0x01, 0x61, b't', 0x41, b'x'];
        MimiContent::decode(&raw(&[0xa0], &part)).unwrap();
        let level =
            |inside: &[u8]| [&[0x85, 0x01, 0x60, 0x03, 0x00, 0x82][..], inside, &part].concat();
        let deep = level(&level(&level(&part)));
        MimiContent::decode(&raw(&[0xa0], &deep)).unwrap();
        let bad: &[(&[u8], &[u8], &str)] = &[
            (&[0xa0], &level(&deep), "five levels"),
            (&[0xa0], &[&[0x85, 0x01, 0x60, 0x03, 0x00, 0x81][..], &part].concat(), "multi of one"),
            (&[0xa0], &[0x85, 0x01, 0x60, 0x03, 0x00, 0x80], "multi of none"),
            (&[0xa0], &[0x85, 0x01, 0x60, 0x03, 0x03, 0x80], "unknown semantics"),
            (&[0xa0], &[0x85, 0x01, 0x60, 0x04, 0x61, b't', 0x41, b'x'], "unknown cardinality"),
            (&[0xa0], &[0x84, 0x01, 0x60, 0x00, 0xf6], "null part with an item"),
            (&[0xa0], &[0x85, 0x19, 0x01, 0x00, 0x60, 0x01, 0x61, b't', 0x41, b'x'], "disposition"),
            (&[0xa0], &[0x85, 0x01, 0x61, 0xff, 0x01, 0x61, b't', 0x41, b'x'], "bad UTF-8"),
            (&[0xa0], &[0x9f, 0x01, 0x60, 0x00, 0xff], "indefinite part"),
            (&[0xa0], &[0x85, 0x01, 0x60, 0x01, 0x61, b't', 0x5f, 0x41, b'x', 0xff], "chunks"),
            (&[0xa0], &[0x85, 0x01, 0x60, 0x01, 0x61, b't', 0x58, 0x01, b'x'], "long length"),
            (&[0xa0], &[0x85, 0x18, 0x01, 0x60, 0x01, 0x61, b't', 0x41, b'x'], "long number"),
            (&[0xa0], &[&part[..], &[0]].concat(), "trailing byte"),
            (&[0xa2, 0x20, 0x00, 0x03, 0x00], &part, "keys out of order"),
            (&[0xa2, 0x03, 0x00, 0x03, 0x00], &part, "key twice"),
            (&[0xbf, 0xff], &part, "indefinite map"),
            (&[0xa1, 0x01, 0x07], &part, "sender that is not a text"),
            (&[0xa1, 0x03, 0x81, 0x81, 0x81, 0x81, 0x80], &part, "deep extension"),
            (&[0xf6], &part, "no map"),
        ];
        for (extensions, part, what) in bad {
            assert!(MimiContent::decode(&raw(extensions, part)).is_err(), "{what}");
        }
    }

    #[test]
    fn text_is_found_where_a_plain_client_looks() {
        let html_first = multi(vec![single("<b>", "text/html"), single("b", "Text/Plain; x=y")]);
        assert_eq!(html_first.plain_text(), Some("b"));
        let mut file = single("secret plans", "text/plain");
        file.disposition = Disposition::ATTACHMENT;
        assert_eq!(multi(vec![file, NestedPart::null()]).plain_text(), None);
    }

    fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..max)
    }

    fn part() -> impl Strategy<Value = NestedPart> {
        let external = (any::<(u32, u64, u16, u8)>(), bytes(40), "\\PC{0,9}").prop_map(
            |((expires, size, enc_alg, hash_alg), key, url)| {
                PartBody::External(Box::new(ExternalPart {
                    content_type: "video/mp4".into(),
                    url,
                    expires,
                    size,
                    enc_alg,
                    nonce: key.clone(),
                    aad: Vec::new(),
                    content_hash: key.clone(),
                    key,
                    hash_alg,
                    description: String::new(),
                    filename: "f".into(),
                }))
            },
        );
        let single = ("\\PC{0,30}", bytes(300))
            .prop_map(|(content_type, content)| PartBody::Single { content_type, content });
        let leaf = prop_oneof![Just(PartBody::Null), single, external];
        let part = |body| {
            (any::<u8>(), "[a-z-]{0,9}", body).prop_map(|(d, language, body)| NestedPart {
                disposition: Disposition::from_code(d),
                language,
                body,
            })
        };
        part(leaf.boxed()).prop_recursive(3, 20, 4, move |inner| {
            let semantics = prop_oneof![
                Just(PartSemantics::ChooseOne),
                Just(PartSemantics::SingleUnit),
                Just(PartSemantics::ProcessAll)
            ];
            let body = (semantics, prop::collection::vec(inner, 2..4))
                .prop_map(|(semantics, parts)| PartBody::Multi { semantics, parts });
            part(body.boxed())
        })
    }

    fn content() -> impl Strategy<Value = MimiContent> {
        let key = prop_oneof![
            (-(1_i64 << 53) + 1..1 << 53).prop_map(Key::Number),
            "\\PC{1,20}".prop_map(Key::Text)
        ];
        let value = bytes(40).prop_map(|b| Value::written(|e| e.bytes(&b)?.ok()));
        let extensions = prop::collection::vec((key, value), 0..5);
        let expires = prop_oneof![
            Just(None),
            any::<u32>().prop_map(|n| Some(Expires::AfterReading(n))),
            any::<u32>().prop_map(|n| Some(Expires::At(n)))
        ];
        (any::<[u8; 16]>(), any::<Option<[u8; 32]>>(), bytes(50), expires, extensions, part())
            .prop_map(|(salt, id, topic_id, expires, extensions, part)| {
                let mut content = MimiContent::of(salt, part);
                content.replaces = id.map(MessageId::from_bytes);
                content.topic_id = topic_id;
                content.expires = expires;
                content.header = id.map(|prev| Header { prev: Some(prev), ..header() });
                for (key, value) in extensions {
                    // 1, 2 and -1 are fields; whether they are refused is tested elsewhere.
                    content.extensions.insert(&key, value).unwrap_or_default();
                }
                content
            })
    }

    proptest! {
        #[test]
        fn content_survives_its_encoding(content in content()) {
            let bytes = content.encode().unwrap();
            prop_assert_eq!(&MimiContent::decode(&bytes).unwrap(), &content);
            for cut in 0..bytes.len() {
                prop_assert!(MimiContent::decode(&bytes[..cut]).is_err());
            }
        }

        /// Whatever is read is written again byte for byte: there is no second encoding.
        #[test]
        fn changed_bytes_are_refused_or_read_exactly(
            content in content(),
            at in any::<prop::sample::Index>(),
            to in any::<u8>(),
        ) {
            let mut bytes = content.encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(read) = MimiContent::decode(&bytes) {
                prop_assert_eq!(read.encode().unwrap(), bytes);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in bytes(400)) {
            let head = [&[0x87, 0x50][..], &[1; 16], &[0xf6, 0x40, 0xf6, 0xf6]].concat();
            for bytes in [&bytes, &[head, bytes.clone()].concat()] {
                if let Ok(read) = MimiContent::decode(bytes) {
                    prop_assert_eq!(&read.encode().unwrap(), bytes);
                }
            }
            if let Ok(value) = Value::parse(bytes.clone()) {
                prop_assert_eq!(value.as_slice(), &bytes[..]);
            }
            StatusReport::decode(&bytes).ok();
            ApplicationFraming::decode(&bytes).ok();
        }
    }
}
