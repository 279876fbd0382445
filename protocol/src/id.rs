//! Names and numbers. Every id is its own type with a private field, made by `parse` or from storage.
//!
//! URIs follow PROTOCOL §1.1: `mimi://<domain>/<kind>/<segment>`, compared byte by byte.

use std::fmt;
use std::str::FromStr;

use crate::{Timestamp, limit};

/// Why a name was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: {why}")]
pub struct IdError {
    what: &'static str,
    why: &'static str,
}

const fn bad(what: &'static str, why: &'static str) -> IdError {
    IdError { what, why }
}

/// A node's name: a lower-case host name of A-labels, at most 253 bytes. PROTOCOL §1.1.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(String);

impl Domain {
    /// Parses a domain.
    ///
    /// # Errors
    /// When it is empty, too long, has an empty or over-long label, a hyphen at a label's edge, or any byte outside `[a-z0-9.-]`.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        const WHAT: &str = "domain";
        if text.is_empty() || text.len() > limit::DOMAIN_BYTES {
            return Err(bad(WHAT, "it must have 1 to 253 characters"));
        }
        for label in text.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Err(bad(WHAT, "each part must have 1 to 63 characters"));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(bad(WHAT, "a part must not start or end with a hyphen"));
            }
            if !label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                return Err(bad(WHAT, "only a-z, 0-9, hyphens and dots are allowed"));
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `mimi://<domain>`, the node itself.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("mimi://{}", self.0)
    }
}

fn segment(what: &'static str, text: &str) -> Result<(), IdError> {
    if text.is_empty() || text.len() > limit::SEGMENT_BYTES {
        return Err(bad(what, "each path part must have 1 to 128 characters"));
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-')) {
        return Err(bad(what, "only letters, digits and . _ ~ - are allowed"));
    }
    if text == "." || text == ".." {
        return Err(bad(what, "a path part must not be . or .."));
    }
    Ok(())
}

/// Splits `mimi://domain/kind/rest`.
fn split<'a>(what: &'static str, kind: &str, text: &'a str) -> Result<(Domain, &'a str), IdError> {
    if text.len() > limit::URI_BYTES {
        return Err(bad(what, "it is longer than 512 bytes"));
    }
    let rest = text.strip_prefix("mimi://").ok_or(bad(what, "it must start with mimi://"))?;
    let (domain, path) = rest.split_once('/').ok_or(bad(what, "it has no path"))?;
    let (found, rest) = path.split_once('/').ok_or(bad(what, "its path is too short"))?;
    if found != kind {
        return Err(bad(what, "it names another kind of thing"));
    }
    Ok((Domain::parse(domain)?, rest))
}

macro_rules! text_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }
        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(self.as_str())?.ok()
            }
        }
        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                Self::parse(d.str()?).map_err(minicbor::decode::Error::message)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(Domain);

macro_rules! uri_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            uri: String,
            domain: Domain,
        }

        impl $name {
            /// The whole URI.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.uri
            }

            /// The node that owns the name.
            #[must_use]
            pub fn domain(&self) -> &Domain {
                &self.domain
            }

            /// What comes after the kind: the part that the owning node chose.
            #[must_use]
            pub fn local(&self) -> &str {
                // "mimi://" + domain + "/" + kind + "/"
                self.uri.get(7 + self.domain.0.len() + 3..).unwrap_or_default()
            }
        }
        text_id!($name);
    };
    (@one $(#[$doc:meta])* $name:ident, $what:literal, $kind:literal) => {
        uri_id!($(#[$doc])* $name, $what, $kind);
        impl $name {
            /// Makes the name of `local` at `domain`.
            ///
            /// # Errors
            /// When `local` is not a path segment of PROTOCOL §1.1.
            pub fn new(domain: &Domain, local: &str) -> Result<Self, IdError> {
                segment($what, local)?;
                Self::parse(&format!(concat!("mimi://{}/", $kind, "/{}"), domain, local))
            }

            /// Parses the URI.
            ///
            /// # Errors
            /// When it is not of the form in PROTOCOL §1.1.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let (domain, local) = split($what, $kind, text)?;
                segment($what, local)?;
                Ok(Self { uri: text.to_owned(), domain })
            }
        }
    };
}

uri_id!(@one
    /// A person: `mimi://a.example/u/ana`, shown as `@ana@a.example`.
    UserId, "user", "u");
uri_id!(@one
    /// A room: `mimi://a.example/r/x`. Its domain is its hub.
    RoomId, "room", "r");
uri_id!(@one
    /// A room's MLS group: `mimi://a.example/g/x`. Its bytes are the MLS `group_id`.
    GroupId, "group", "g");
uri_id!(
    /// One installation of a client: `mimi://a.example/d/ana/7f3c`.
    DeviceId, "device", "d");

impl UserId {
    /// `@ana@a.example`, as people write it.
    #[must_use]
    pub fn handle(&self) -> String {
        format!("@{}@{}", self.local(), self.domain())
    }

    /// Parses `@ana@a.example`, `ana@a.example` or the URI.
    ///
    /// # Errors
    /// When it is none of them.
    pub fn parse_handle(text: &str) -> Result<Self, IdError> {
        if text.starts_with("mimi://") {
            return Self::parse(text);
        }
        let text = text.strip_prefix('@').unwrap_or(text);
        let (local, domain) = text.split_once('@').ok_or(bad("user", "write it as name@domain"))?;
        Self::new(&Domain::parse(domain)?, local)
    }
}

impl DeviceId {
    /// Makes the name of `user`'s device `local`.
    ///
    /// # Errors
    /// When `local` is not a path segment of PROTOCOL §1.1.
    pub fn new(user: &UserId, local: &str) -> Result<Self, IdError> {
        segment("device", local)?;
        Self::parse(&format!("mimi://{}/d/{}/{}", user.domain(), user.local(), local))
    }

    /// Parses the URI.
    ///
    /// # Errors
    /// When it is not of the form in PROTOCOL §1.1.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let (domain, rest) = split("device", "d", text)?;
        let (user, local) =
            rest.split_once('/').ok_or(bad("device", "it must name a user and a device"))?;
        segment("device", user)?;
        segment("device", local)?;
        Ok(Self { uri: text.to_owned(), domain })
    }

    /// Whose device it is.
    #[must_use]
    pub fn user(&self) -> UserId {
        let name = self.local().split('/').next().unwrap_or_default();
        UserId { uri: format!("mimi://{}/u/{}", self.domain, name), domain: self.domain.clone() }
    }
}

impl RoomId {
    /// The node that orders the room.
    #[must_use]
    pub fn hub(&self) -> &Domain {
        self.domain()
    }

    /// The room's first MLS group, which has the same local part.
    #[must_use]
    pub fn group(&self) -> GroupId {
        GroupId {
            uri: format!("mimi://{}/g/{}", self.domain, self.local()),
            domain: self.domain.clone(),
        }
    }
}

impl GroupId {
    /// The room whose first group this is.
    #[must_use]
    pub fn room(&self) -> RoomId {
        RoomId {
            uri: format!("mimi://{}/r/{}", self.domain, self.local()),
            domain: self.domain.clone(),
        }
    }
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Wraps the bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Takes a slice of exactly the right length.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                const WHAT: &str = stringify!($name);
                if text.len() != 2 * $len || !text.is_ascii() {
                    return Err(bad(WHAT, "wrong length"));
                }
                let mut out = [0; $len];
                for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| bad(WHAT, "not hexadecimal"))?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| bad(WHAT, "not hexadecimal"))?;
                }
                Ok(Self(out))
            }
        }
        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }
        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::from_slice(d.bytes()?)
                    .ok_or_else(|| minicbor::decode::Error::message("wrong length"))
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

byte_id!(
    /// A device's own name for one submission, minted once, kept until the submission has ended. PROTOCOL §5.1.
    SubmitId, 16);

impl SubmitId {
    /// A fresh name: 48 bits of the device's time, so that names minted together lie together in a node's index, then 80 random bits.
    #[must_use]
    pub fn mint(now: Timestamp, random: [u8; 10]) -> Self {
        let [_, _, time @ ..] = now.ms().to_be_bytes();
        let mut bytes = [0; 16];
        for (byte, of) in bytes.iter_mut().zip(time.into_iter().chain(random)) {
            *byte = of;
        }
        Self::from_bytes(bytes)
    }
}
byte_id!(
    /// One life of a node's database: fresh at creation and at every restore. PROTOCOL §4.4.
    Incarnation, 16);
byte_id!(
    /// A message's id, computed from its content (draft-ietf-mimi-content-08 section 3.3).
    MessageId, 32);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Wraps the number.
            #[must_use]
            pub const fn new(n: u64) -> Self {
                Self(n)
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The next one. Saturates, which no log or group ever reaches.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.u64(self.0)?.ok()
            }
        }
        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                d.u64().map(Self)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_u64(self.0)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                u64::deserialize(d).map(Self)
            }
        }
    };
}

number!(
    /// An entry's place in its log. The first entry is 1; 0 means "before the first".
    Seq);
number!(
    /// An MLS epoch (RFC 9420 section 8).
    Epoch);

impl Seq {
    /// The one before; 0 stays 0.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// How far a reader has acknowledged a log. The incarnation keeps a number of a former life from being taken for one of this. PROTOCOL §4.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, minicbor::Encode, minicbor::Decode)]
pub struct Cursor {
    /// Whose life the number belongs to: the hub's for a room, the device's own node's for an inbox.
    #[n(0)]
    pub incarnation: Incarnation,
    /// The last acknowledged entry.
    #[n(1)]
    pub seq: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_of_every_kind_parse_and_name_their_parts() {
        let d = Domain::parse("a.example").unwrap();
        let u = UserId::new(&d, "ana").unwrap();
        assert_eq!(u.as_str(), "mimi://a.example/u/ana");
        assert_eq!((u.local(), u.handle().as_str()), ("ana", "@ana@a.example"));
        assert_eq!(UserId::parse_handle("@ana@a.example").unwrap(), u);
        let dev = DeviceId::new(&u, "7f3c").unwrap();
        assert_eq!(dev.as_str(), "mimi://a.example/d/ana/7f3c");
        assert_eq!((dev.user(), dev.local()), (u, "ana/7f3c"));
        let r = RoomId::new(&d, "ops").unwrap();
        assert_eq!(r.group().as_str(), "mimi://a.example/g/ops");
        assert_eq!(r.group().room(), r);
    }

    #[test]
    fn names_outside_the_syntax_are_refused() {
        for bad in [
            "",
            "A.example",
            "a..example",
            "-a.example",
            "a.example.",
            "a_b.example",
            "a.example:443",
            "ä.example",
        ] {
            assert!(Domain::parse(bad).is_err(), "{bad}");
        }
        for bad in [
            "mimi://a.example/r/ana",
            "mimi://a.example/u/",
            "mimi://a.example/u/a/b",
            "mimi://a.example/u/a%20b",
            "http://a.example/u/a",
            "mimi://a.example/u/..",
            "mimi://a.example/u/a?b",
            "mimi://u@a.example/u/a",
            "mimi://a.example",
        ] {
            assert!(UserId::parse(bad).is_err(), "{bad}");
        }
        assert!(UserId::parse(&format!("mimi://a.example/u/{}", "x".repeat(129))).is_err());
        assert!(DeviceId::parse("mimi://a.example/d/ana").is_err());
    }

    #[test]
    fn byte_ids_survive_text() {
        let id = SubmitId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse::<SubmitId>().unwrap(), id);
        assert!("zz".parse::<SubmitId>().is_err());
    }
}
