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

/// What precedes a bare structure in an `MLSMessage`: version `mls10` and the wire format.
pub(crate) const WELCOME_HEADER: [u8; 4] = [0, 1, 0, 3];
pub(crate) const GROUP_INFO_HEADER: [u8; 4] = [0, 1, 0, 4];
pub(crate) const KEY_PACKAGE_HEADER: [u8; 4] = [0, 1, 0, 5];

fn group(bytes: &[u8]) -> Option<GroupId> {
    std::str::from_utf8(bytes).ok().and_then(|text| GroupId::parse(text).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tls::Write as _;

    /// A PublicMessage with a member's proposal `proposal`.
    fn public(proposal: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 1, 0, 1];
        out.put_vector(b"mimi://a.example/g/x");
        out.put_u64(7);
        out.put_raw(&[1, 0, 0, 0, 3]);
        out.put_vector(b"");
        out.put_u8(2);
        out.put_raw(proposal);
        out.put_vector(&[8; 64]);
        out.put_vector(&[9; 32]);
        out
    }

    #[test]
    fn what_this_project_does_not_take_is_refused() {
        let good = public(&[0, 10]);
        let frame = Frame::read_exact(&good).unwrap();
        assert_eq!((frame.epoch, frame.sender), (Epoch::new(7), Some(Sender::Member(3))));
        let sender = 4 + 21 + 8;
        let content = sender + 5 + 1;
        for (at, to, what) in [
            (1, 2, "version 2"),
            (3, 0, "wire format 0"),
            (3, 6, "a targeted message"),
            (sender, 0, "sender 0"),
            (sender, 5, "sender 5"),
            (content, 0, "content type 0"),
            (content, 1, "application data in the clear"),
            (content, 4, "content type 4"),
            (content + 2, 0x0b, "an unknown proposal"),
            (4, 0x80, "a longer length field"),
        ] {
            let mut bad = good.clone();
            bad[at] = to;
            assert!(Frame::read_exact(&bad).is_err(), "{what}");
        }
        assert_eq!(Frame::read_exact(&[&good[..], &[0]].concat()).unwrap_err().at(), good.len());
    }

    #[test]
    fn a_length_that_points_past_the_end_is_refused_before_anything_is_read() {
        let mut message = vec![0, 1, 0, 2, 0xbf, 0xff, 0xff, 0xff];
        message.resize(100, 0);
        assert!(Frame::read(&message).is_err());
    }

    /// Each structure in every state of nesting that hostile input can claim: long lists of the smallest items.
    #[test]
    fn long_lists_cost_a_loop_and_no_stack() {
        let mut refs = Vec::new();
        for _ in 0..1_000_000 {
            refs.put_raw(&[2, 0]);
        }
        let mut commit = vec![0, 1, 0, 1, 0];
        commit.put_u64(0);
        commit.put_raw(&[4, 0, 3]);
        commit.put_vector(&refs);
        commit.put_raw(&[0, 0, 0]);
        assert_eq!(Frame::read_exact(&commit).unwrap().content_type, ContentType::Commit);
        let mut tree = Vec::new();
        tree.put_vector(&vec![0; 1_000_000]);
        assert_eq!(TreeFrame::read(&tree).unwrap().0.leaves, 0);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_never_end_outside(
            kind in 0_u8..8,
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            proposal in prop::collection::vec(prop_oneof![0_u8..12, any::<u8>()], 0..100),
        ) {
            let framed = [&[0, 1, 0, kind][..], &bytes].concat();
            for bytes in [&bytes, &framed, &public(&proposal)] {
                if let Ok((_, rest)) = Message::read(bytes) {
                    prop_assert!(bytes.ends_with(rest));
                }
                if let Ok((welcome, _)) = WelcomeFrame::read(bytes) {
                    prop_assert!(welcome.new_members().count() <= bytes.len());
                }
                GroupInfoFrame::read(bytes).ok();
                KeyPackageFrame::read(bytes).ok();
                TreeFrame::read(bytes).ok();
            }
        }
    }
}
