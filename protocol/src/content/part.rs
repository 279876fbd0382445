//! Parts of a message: nothing, one thing, a thing elsewhere, or several parts.

use minicbor::encode::{Encoder, Write};

use super::cbor::{Decoder, Written};
use crate::limit;
use crate::tls::Malformed;

/// A part of a message, with those inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NestedPart {
    /// What it is for.
    pub disposition: Disposition,
    /// Its language, as a list of BCP 47 tags; empty for unknown.
    pub language: String,
    /// What it holds.
    pub body: PartBody,
}

/// What a part is for. Unknown numbers count as [`Disposition::RENDER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disposition(u8);

impl Disposition {
    /// Not said.
    pub const UNSPECIFIED: Self = Self(0);
    /// To be shown.
    pub const RENDER: Self = Self(1);
    /// A reaction to another message.
    pub const REACTION: Self = Self(2);
    /// About the sender.
    pub const PROFILE: Self = Self(3);
    /// Shown inside another part.
    pub const INLINE: Self = Self(4);
    /// A small picture.
    pub const ICON: Self = Self(5);
    /// To be saved.
    pub const ATTACHMENT: Self = Self(6);
    /// A call or conference.
    pub const SESSION: Self = Self(7);
    /// A preview of something else.
    pub const PREVIEW: Self = Self(8);

    /// The disposition with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        Self(code)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }
}

/// What a part holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartBody {
    /// Nothing: the message replaced by this one is deleted.
    Null,
    /// One thing.
    Single {
        /// Its media type.
        content_type: String,
        /// Its bytes.
        content: Vec<u8>,
    },
    /// A thing somewhere else.
    External(Box<ExternalPart>),
    /// Two or more parts.
    Multi {
        /// How they belong together.
        semantics: PartSemantics,
        /// The parts.
        parts: Vec<NestedPart>,
    },
}

/// How parts belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartSemantics {
    /// Show the first that can be shown.
    ChooseOne,
    /// Show all or none.
    SingleUnit,
    /// Show each that can be shown.
    ProcessAll,
}

/// A thing somewhere else, and how to get and open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalPart {
    /// Its media type.
    pub content_type: String,
    /// Where it is.
    pub url: String,
    /// Until when, in seconds since the Unix epoch; 0 for unknown.
    pub expires: u32,
    /// Its size in bytes; 0 for unknown.
    pub size: u64,
    /// IANA AEAD number; 0 for none.
    pub enc_alg: u16,
    /// The key.
    pub key: Vec<u8>,
    /// The nonce.
    pub nonce: Vec<u8>,
    /// Additional authenticated data.
    pub aad: Vec<u8>,
    /// IANA named-information hash algorithm; 0 for none.
    pub hash_alg: u8,
    /// The hash of what is there.
    pub content_hash: Vec<u8>,
    /// What it is, for people.
    pub description: String,
    /// A name to save it under.
    pub filename: String,
}

impl NestedPart {
    /// Text to be shown, as Markdown.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            disposition: Disposition::RENDER,
            language: String::new(),
            body: PartBody::Single {
                content_type: super::MARKDOWN.to_owned(),
                content: text.into().into_bytes(),
            },
        }
    }

    /// Nothing, without a purpose.
    pub(super) const fn null() -> Self {
        Self {
            disposition: Disposition::UNSPECIFIED,
            language: String::new(),
            body: PartBody::Null,
        }
    }

    /// The first text meant for showing, in the order of the parts.
    pub(super) fn plain_text(&self) -> Option<&str> {
        let mut todo = vec![self];
        while let Some(part) = todo.pop() {
            match &part.body {
                PartBody::Single { content_type, content } => {
                    if part.disposition.shown()
                        && is_text(content_type)
                        && let Ok(text) = std::str::from_utf8(content)
                    {
                        return Some(text);
                    }
                }
                PartBody::Multi { parts, .. } => todo.extend(parts.iter().rev()),
                PartBody::Null | PartBody::External(_) => {}
            }
        }
        None
    }

    /// Whether the draft's limits on parts hold, for parts that were not read but built.
    pub(super) fn check(&self) -> Result<(), Malformed> {
        let mut left = limit::PARTS;
        let mut todo = vec![(self, 1)];
        while let Some((part, depth)) = todo.pop() {
            left = left.checked_sub(1).ok_or(Malformed::over_limit("too many parts", 0))?;
            if let PartBody::Multi { parts, .. } = &part.body {
                if parts.len() < 2 {
                    return Err(Malformed::new("a multipart of fewer than two", 0));
                }
                if depth == limit::PART_DEPTH {
                    return Err(Malformed::over_limit("parts that are too deep", 0));
                }
                todo.extend(parts.iter().map(|p| (p, depth + 1)));
            }
        }
        Ok(())
    }

    /// Writes parts that [`Self::check`] found good.
    pub(super) fn write<W: Write>(&self, e: &mut Encoder<W>) -> Written<W> {
        let items = match &self.body {
            PartBody::Null => 3,
            PartBody::Single { .. } | PartBody::Multi { .. } => 5,
            PartBody::External(_) => 15,
        };
        e.array(items)?.u8(self.disposition.code())?.str(&self.language)?;
        match &self.body {
            PartBody::Null => e.u8(NULL)?.ok(),
            PartBody::Single { content_type, content } => {
                e.u8(SINGLE)?.str(content_type)?.bytes(content)?.ok()
            }
            PartBody::External(part) => {
                e.u8(EXTERNAL)?;
                part.write(e)
            }
            PartBody::Multi { semantics, parts } => {
                e.u8(MULTI)?.u8(semantics.code())?.array(parts.len() as u64)?;
                parts.iter().try_for_each(|part| part.write(e))
            }
        }
    }

    /// Reads a part with those inside it. Calls itself at most [`limit::PART_DEPTH`] deep.
    pub(super) fn read(
        d: &mut Decoder<'_>,
        depth: usize,
        left: &mut usize,
    ) -> Result<Self, Malformed> {
        let start = *d;
        if depth > limit::PART_DEPTH {
            return Err(Malformed::over_limit("parts that are too deep", d.at()));
        }
        *left = left.checked_sub(1).ok_or(Malformed::over_limit("too many parts", d.at()))?;
        let items = d.array()?;
        let disposition = Disposition(d.number()?);
        let language = d.text()?.to_owned();
        let body = match (d.number()?, items) {
            (NULL, 3) => PartBody::Null,
            (SINGLE, 5) => PartBody::Single {
                content_type: d.text()?.to_owned(),
                content: d.bytes()?.to_vec(),
            },
            (EXTERNAL, 15) => PartBody::External(Box::new(ExternalPart::read(d)?)),
            (MULTI, 5) => {
                let semantics = PartSemantics::read(d)?;
                let inside = *d;
                let len = d.array()?;
                if len < 2 {
                    return Err(inside.fail("a multipart of fewer than two"));
                }
                let parts = (0..len).map(|_| Self::read(d, depth + 1, left));
                PartBody::Multi { semantics, parts: parts.collect::<Result<_, _>>()? }
            }
            _ => return Err(start.fail("a part of an unknown shape")),
        };
        Ok(Self { disposition, language, body })
    }
}

impl Disposition {
    /// Whether a plain client shows such a part in the conversation.
    const fn shown(self) -> bool {
        !matches!(
            self,
            Self::PROFILE | Self::ICON | Self::ATTACHMENT | Self::SESSION | Self::PREVIEW
        )
    }
}

fn is_text(content_type: &str) -> bool {
    let name = content_type.split(';').next().unwrap_or_default().trim();
    ["text/plain", "text/markdown"].iter().any(|t| name.eq_ignore_ascii_case(t))
}

impl PartSemantics {
    const fn code(self) -> u8 {
        match self {
            Self::ChooseOne => 0,
            Self::SingleUnit => 1,
            Self::ProcessAll => 2,
        }
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let start = *d;
        match d.uint()? {
            0 => Ok(Self::ChooseOne),
            1 => Ok(Self::SingleUnit),
            2 => Ok(Self::ProcessAll),
            _ => Err(start.fail("parts that belong together in an unknown way")),
        }
    }
}

impl ExternalPart {
    fn write<W: Write>(&self, e: &mut Encoder<W>) -> Written<W> {
        e.str(&self.content_type)?.str(&self.url)?.u32(self.expires)?.u64(self.size)?;
        e.u16(self.enc_alg)?.bytes(&self.key)?.bytes(&self.nonce)?.bytes(&self.aad)?;
        e.u8(self.hash_alg)?.bytes(&self.content_hash)?;
        e.str(&self.description)?.str(&self.filename)?.ok()
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            content_type: d.text()?.to_owned(),
            url: d.text()?.to_owned(),
            expires: d.number()?,
            size: d.uint()?,
            enc_alg: d.number()?,
            key: d.bytes()?.to_vec(),
            nonce: d.bytes()?.to_vec(),
            aad: d.bytes()?.to_vec(),
            hash_alg: d.number()?,
            content_hash: d.bytes()?.to_vec(),
            description: d.text()?.to_owned(),
            filename: d.text()?.to_owned(),
        })
    }
}

const NULL: u8 = 0;
const SINGLE: u8 = 1;
const EXTERNAL: u8 = 2;
const MULTI: u8 = 3;
