//! What an MLS message is, read from its framing alone (RFC 9420 §6): group, epoch, kind and exact end.
//!
//! Needs no key, allocates nothing and does not recurse. It finds the end of every structure by walking all of its
//! fields, so concatenated ones can be split; it does not check signatures, tags or meaning.

mod walk;

pub use crate::tls::Malformed;
use crate::tls::Reader;
use crate::{Epoch, GroupId};
pub(crate) use walk::credential;

/// An `MLSMessage`: any of the kinds that travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A PublicMessage or PrivateMessage.
    Frame(Frame<'a>),
    /// A Welcome.
    Welcome(WelcomeFrame<'a>),
    /// A GroupInfo.
    GroupInfo(GroupInfoFrame<'a>),
    /// A KeyPackage.
    KeyPackage(KeyPackageFrame<'a>),
}

impl<'a> Message<'a> {
    /// Reads one `MLSMessage` from the front of `bytes`; gives it and what follows.
    ///
    /// # Errors
    /// When it is not whole, not exact, or of a version or wire format that this project does not take.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let mut r = Reader::new(bytes);
        let message = walk::message(&mut r)?;
        Ok((message, r.rest()))
    }

    /// Reads one `MLSMessage` that fills `bytes`.
    ///
    /// # Errors
    /// As [`Self::read`], and when bytes follow.
    pub fn read_exact(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let message = walk::message(&mut r)?;
        r.finish()?;
        Ok(message)
    }
}

/// How a frame protects its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireFormat {
    /// Signed, readable by nodes: proposals and commits.
    Public,
    /// Encrypted: application messages.
    Private,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// Application data; only in a [`WireFormat::Private`] frame.
    Application,
    /// One proposal.
    Proposal,
    /// A commit.
    Commit,
}

/// Who sent a [`WireFormat::Public`] frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The member at this leaf.
    Member(u32),
    /// The external sender at this index of the group's list: a room's hub.
    External(u32),
    /// Somebody outside proposes to be added.
    NewMemberProposal,
    /// Somebody outside joins by this commit.
    NewMemberCommit,
}

/// A PublicMessage or PrivateMessage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// How it is protected.
    pub wire_format: WireFormat,
    /// The MLS group: UTF-8 of a `mimi://…/g/…` URI, see [`Frame::group`].
    pub group_id: &'a [u8],
    /// The epoch it was made in.
    pub epoch: Epoch,
    /// What it carries.
    pub content_type: ContentType,
    /// What the sender authenticates but does not encrypt; the room's URI in application messages (PROTOCOL §7.5).
    pub authenticated_data: &'a [u8],
    /// Who sent it; [`None`] in a private frame, where it is encrypted.
    pub sender: Option<Sender>,
    /// The whole `MLSMessage`, its four-byte header included.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads one `MLSMessage` that is a PublicMessage or PrivateMessage from the front of `bytes`; gives it and what follows.
    ///
    /// # Errors
    /// As [`Message::read`], and when it is of another kind.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        match Message::read(bytes)? {
            (Message::Frame(frame), rest) => Ok((frame, rest)),
            _ => Err(Malformed::new("neither a PublicMessage nor a PrivateMessage", 0)),
        }
    }

    /// Reads one that fills `bytes`.
    ///
    /// # Errors
    /// As [`Self::read`], and when bytes follow.
    pub fn read_exact(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match Message::read_exact(bytes)? {
            Message::Frame(frame) => Ok(frame),
            _ => Err(Malformed::new("neither a PublicMessage nor a PrivateMessage", 0)),
        }
    }

    /// The group's name, when it is one of PROTOCOL §1.1.
    #[must_use]
    pub fn group(&self) -> Option<GroupId> {
        group(self.group_id)
    }
}

/// A Welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WelcomeFrame<'a> {
    /// Cipher suite number.
    pub suite: u16,
    /// The bare `Welcome`, without the header of an `MLSMessage`.
    pub bytes: &'a [u8],
    /// The items of `secrets`, walked once already.
    secrets: &'a [u8],
}

impl<'a> WelcomeFrame<'a> {
    /// Reads a bare `Welcome` from the front of `bytes`; gives it and what follows.
    ///
    /// # Errors
    /// When it is not whole or not exact.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let mut r = Reader::new(bytes);
        let welcome = walk::welcome(&mut r)?;
        Ok((welcome, r.rest()))
    }

    /// The KeyPackageRefs of those it lets in, in order.
    pub fn new_members(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut secrets = Reader::new(self.secrets);
        std::iter::from_fn(move || {
            (!secrets.is_empty()).then(|| walk::group_secrets(&mut secrets).ok()).flatten()
        })
    }
}

/// A GroupInfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupInfoFrame<'a> {
    /// Cipher suite number.
    pub suite: u16,
    /// The MLS group.
    pub group_id: &'a [u8],
    /// The epoch it describes.
    pub epoch: Epoch,
    /// The leaf of the member that signed it.
    pub signer: u32,
    /// The bare `GroupInfo`, without the header of an `MLSMessage`.
    pub bytes: &'a [u8],
}

impl<'a> GroupInfoFrame<'a> {
    /// Reads a bare `GroupInfo` from the front of `bytes`; gives it and what follows.
    ///
    /// # Errors
    /// When it is not whole or not exact.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let mut r = Reader::new(bytes);
        let info = walk::group_info(&mut r)?;
        Ok((info, r.rest()))
    }

    /// The group's name, when it is one of PROTOCOL §1.1.
    #[must_use]
    pub fn group(&self) -> Option<GroupId> {
        group(self.group_id)
    }
}

/// A KeyPackage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPackageFrame<'a> {
    /// Cipher suite number.
    pub suite: u16,
    /// The bare `KeyPackage`, without the header of an `MLSMessage`.
    pub bytes: &'a [u8],
}

impl<'a> KeyPackageFrame<'a> {
    /// Reads a bare `KeyPackage` from the front of `bytes`; gives it and what follows.
    ///
    /// # Errors
    /// When it is not whole or not exact.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let mut r = Reader::new(bytes);
        let package = walk::key_package(&mut r)?;
        Ok((package, r.rest()))
    }
}

/// A ratchet tree: `optional<Node> ratchet_tree<V>` (RFC 9420 §12.4.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeFrame<'a> {
    /// Leaves that are not blank.
    pub leaves: usize,
    /// The tree with its length field.
    pub bytes: &'a [u8],
}

impl<'a> TreeFrame<'a> {
    /// Reads a tree from the front of `bytes`; gives it and what follows.
    ///
    /// # Errors
    /// When it is not whole or not exact.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let mut r = Reader::new(bytes);
        let tree = walk::tree(&mut r)?;
        Ok((tree, r.rest()))
    }
}

/// The length in bytes of the bare `GroupInfo` at the front of `bytes`.
///
/// # Errors
/// As [`GroupInfoFrame::read`].
pub fn group_info_len(bytes: &[u8]) -> Result<usize, Malformed> {
    GroupInfoFrame::read(bytes).map(|(info, _)| info.bytes.len())
}

/// The length in bytes of the bare `KeyPackage` at the front of `bytes`.
///
/// # Errors
/// As [`KeyPackageFrame::read`].
pub fn key_package_len(bytes: &[u8]) -> Result<usize, Malformed> {
    KeyPackageFrame::read(bytes).map(|(package, _)| package.bytes.len())
}

/// What precedes a bare structure in an `MLSMessage`: version `mls10` and the wire format.
pub(crate) const WELCOME_HEADER: [u8; 4] = [0, 1, 0, 3];
pub(crate) const GROUP_INFO_HEADER: [u8; 4] = [0, 1, 0, 4];
pub(crate) const KEY_PACKAGE_HEADER: [u8; 4] = [0, 1, 0, 5];

fn group(bytes: &[u8]) -> Option<GroupId> {
    std::str::from_utf8(bytes).ok().and_then(|text| GroupId::parse(text).ok())
}
