//! Parts of a message: nothing, one thing, a thing elsewhere, or several parts.

/// A part of a message, with those inside it.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug, PartialEq)]
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

    pub(super) fn plain_text(&self) -> Option<&str> {
        todo!()
    }
}
