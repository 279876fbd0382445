//! MLS structures as bytes of a proven kind and length.

use std::fmt;

use crate::limit;
use crate::mls::{
    self, ContentType, Frame, GroupInfoFrame, KeyPackageFrame, Message, TreeFrame, WelcomeFrame,
    WireFormat,
};
use crate::tls::{Malformed, Reader, Write};

macro_rules! mls_bytes {
    ($(#[$doc:meta])* $name:ident, $view:ident, $read:path, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(Vec<u8>);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }

        impl $name {
            /// Checks and keeps the bytes.
            ///
            /// # Errors
            /// When they are not exactly one of this kind, or too many.
            pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, Malformed> {
                let bytes = bytes.into();
                if bytes.len() > $max {
                    return Err(Malformed::over_limit("an MLS structure over its limit", $max));
                }
                let (_, rest) = $read(&bytes)?;
                let end = bytes.len() - rest.len();
                if rest.is_empty() {
                    Ok(Self(bytes))
                } else {
                    Err(Malformed::new("bytes after the end", end))
                }
            }

            pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
                let (_, rest) = $read(r.rest()).map_err(|m| m.moved(r.at()))?;
                let len = r.rest().len() - rest.len();
                if len > $max {
                    return Err(Malformed::over_limit("an MLS structure over its limit", r.at()));
                }
                r.take(len).map(|bytes| Self(bytes.to_vec()))
            }

            pub(super) fn write(&self, out: &mut Vec<u8>) {
                out.put_raw(&self.0);
            }

            /// What the framing says.
            #[must_use]
            pub fn view(&self) -> $view<'_> {
                $read(&self.0).expect("the bytes were checked when they were taken").0
            }

            /// The bytes.
            #[must_use]
            pub fn as_slice(&self) -> &[u8] {
                &self.0
            }

            /// The bytes.
            #[must_use]
            pub fn into_vec(self) -> Vec<u8> {
                self.0
            }
        }
    };
}

mls_bytes!(
    /// An `MLSMessage` that is a PublicMessage with a commit.
    CommitBytes, Frame, commit, limit::BUNDLE_BYTES);
mls_bytes!(
    /// An `MLSMessage` that is a PublicMessage with a proposal.
    ProposalBytes, Frame, proposal, limit::BUNDLE_BYTES);
mls_bytes!(
    /// An `MLSMessage` that is a PrivateMessage with application data.
    ApplicationBytes, Frame, application, limit::MESSAGE_BYTES);
mls_bytes!(
    /// A bare `Welcome`.
    WelcomeBytes, WelcomeFrame, WelcomeFrame::read, limit::BUNDLE_BYTES);
mls_bytes!(
    /// An `MLSMessage` that is a Welcome.
    WelcomeMessageBytes, WelcomeFrame, welcome, limit::BUNDLE_BYTES);
mls_bytes!(
    /// A bare `GroupInfo`.
    GroupInfoBytes, GroupInfoFrame, GroupInfoFrame::read, limit::BUNDLE_BYTES);
mls_bytes!(
    /// A bare `KeyPackage`.
    KeyPackageBytes, KeyPackageFrame, KeyPackageFrame::read, limit::KEYPACKAGE_BYTES);
mls_bytes!(
    /// `optional<Node> ratchet_tree<V>`, its length field included.
    TreeBytes, TreeFrame, TreeFrame::read, limit::TREE_BYTES);

macro_rules! bare {
    ($name:ident, $kind:ident, $header:path) => {
        impl $name {
            /// Takes it out of an `MLSMessage`.
            ///
            /// # Errors
            /// When the bytes are not exactly one `MLSMessage` of this kind.
            pub fn from_message(bytes: &[u8]) -> Result<Self, Malformed> {
                match Message::read_exact(bytes)? {
                    Message::$kind(view) => Self::parse(view.bytes),
                    _ => Err(Malformed::new("an MLS message of another kind", 0)),
                }
            }

            /// Puts it into an `MLSMessage`.
            #[must_use]
            pub fn to_message(&self) -> Vec<u8> {
                [&$header[..], &self.0].concat()
            }
        }
    };
}

bare!(WelcomeBytes, Welcome, mls::WELCOME_HEADER);
bare!(GroupInfoBytes, GroupInfo, mls::GROUP_INFO_HEADER);
bare!(KeyPackageBytes, KeyPackage, mls::KEY_PACKAGE_HEADER);

impl From<&WelcomeBytes> for WelcomeMessageBytes {
    fn from(bare: &WelcomeBytes) -> Self {
        Self(bare.to_message())
    }
}

impl WelcomeMessageBytes {
    /// The bare `Welcome`.
    #[must_use]
    pub fn bare(&self) -> WelcomeBytes {
        WelcomeBytes(self.view().bytes.to_vec())
    }
}

fn welcome(bytes: &[u8]) -> Result<(WelcomeFrame<'_>, &[u8]), Malformed> {
    match Message::read(bytes)? {
        (Message::Welcome(view), rest) => Ok((view, rest)),
        _ => Err(Malformed::new("not a Welcome", 0)),
    }
}

type Taken<'a> = Result<(Frame<'a>, &'a [u8]), Malformed>;

fn commit(bytes: &[u8]) -> Taken<'_> {
    framed(bytes, WireFormat::Public, ContentType::Commit, "not a public commit")
}

fn proposal(bytes: &[u8]) -> Taken<'_> {
    framed(bytes, WireFormat::Public, ContentType::Proposal, "not a public proposal")
}

fn application(bytes: &[u8]) -> Taken<'_> {
    framed(
        bytes,
        WireFormat::Private,
        ContentType::Application,
        "not a private application message",
    )
}

fn framed<'a>(
    bytes: &'a [u8],
    wire_format: WireFormat,
    content_type: ContentType,
    else_what: &'static str,
) -> Taken<'a> {
    let (frame, rest) = Frame::read(bytes)?;
    if frame.wire_format == wire_format && frame.content_type == content_type {
        Ok((frame, rest))
    } else {
        Err(Malformed::new(else_what, 0))
    }
}
