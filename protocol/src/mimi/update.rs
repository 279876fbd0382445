//! `update`: a proposal or a commit for a room (draft-ietf-mimi-protocol-06 section 5.3). PROTOCOL §7.4.

use super::body;
use super::bytes::{CommitBytes, GroupInfoBytes, ProposalBytes, TreeBytes, WelcomeBytes};
use super::field;
use crate::tls::{Malformed, Reader, Write};
use crate::{Epoch, Timestamp, limit};

/// What a device hands to the hub to change a room. As a body it is the draft's `UpdateRequest`, which adds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeBundle {
    /// A change that takes effect.
    Commit {
        /// The commit.
        commit: CommitBytes,
        /// For those it adds; without a ratchet tree.
        welcome: Option<WelcomeBytes>,
        /// The group after it, signed by the committer.
        group_info: GroupInfoBytes,
        /// The tree after it, or that the hub has it.
        tree: RatchetTreeOption,
    },
    /// Changes that somebody else commits.
    Proposals {
        /// The first.
        first: ProposalBytes,
        /// More, at most [`limit::PROPOSALS_PER_BUNDLE`].
        more: Vec<ProposalBytes>,
    },
}

body!(HandshakeBundle, limit::BUNDLE_BYTES);

impl HandshakeBundle {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Commit { commit, welcome, group_info, tree } => {
                commit.write(out);
                out.put_optional(welcome.as_ref(), |out, w| w.write(out));
                out.put_u8(FULL);
                group_info.write(out);
                tree.write(out);
            }
            Self::Proposals { first, more } => {
                first.write(out);
                out.put_list(more, |out, p| p.write(out));
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        match kind(r)? {
            crate::mls::ContentType::Commit => Ok(Self::Commit {
                commit: CommitBytes::read(r)?,
                welcome: field::optional(r, WelcomeBytes::read)?,
                group_info: group_info_option(r)?,
                tree: RatchetTreeOption::read(r)?,
            }),
            crate::mls::ContentType::Proposal => {
                Ok(Self::Proposals { first: ProposalBytes::read(r)?, more: proposals(r)? })
            }
            crate::mls::ContentType::Application => Err(r.fail("neither a commit nor a proposal")),
        }
    }
}

/// What the next MLS frame carries.
pub(super) fn kind(r: &Reader<'_>) -> Result<crate::mls::ContentType, Malformed> {
    let (frame, _) = crate::mls::Frame::read(r.rest()).map_err(|m| m.moved(r.at()))?;
    Ok(frame.content_type)
}

pub(super) fn proposals(r: &mut Reader<'_>) -> Result<Vec<ProposalBytes>, Malformed> {
    field::list(r, limit::PROPOSALS_PER_BUNDLE, ProposalBytes::read)
}

/// `GroupInfoOption`; PROTOCOL §7.4 takes the full form only, because the hub checks it against its own state.
fn group_info_option(r: &mut Reader<'_>) -> Result<GroupInfoBytes, Malformed> {
    let start = *r;
    match r.u8()? {
        FULL => GroupInfoBytes::read(r),
        2 => Err(start.fail("a partial GroupInfo, which this node does not take")),
        _ => Err(start.fail("an unknown form of GroupInfo")),
    }
}

/// Where the ratchet tree is (draft-mahy-mls-ratchet-tree-options-03).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RatchetTreeOption {
    /// Here.
    Full(TreeBytes),
    /// At an address.
    HttpsUri {
        /// The address, at most [`limit::URI_BYTES`].
        url: Vec<u8>,
        /// The signer's signature over the tree.
        signature: Vec<u8>,
    },
    /// Somewhere the receiver knows.
    OutOfBand {
        /// The signer's signature over the tree.
        signature: Vec<u8>,
    },
    /// The hub builds it: what devices send.
    DistributionService,
}

impl RatchetTreeOption {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Full(tree) => {
                out.put_u8(1);
                tree.write(out);
            }
            Self::HttpsUri { url, signature } => {
                out.put_u8(2);
                out.put_vector(url);
                out.put_vector(signature);
            }
            Self::OutOfBand { signature } => {
                out.put_u8(3);
                out.put_vector(signature);
            }
            Self::DistributionService => out.put_u8(4),
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = *r;
        Ok(match r.u8()? {
            1 => Self::Full(TreeBytes::read(r)?),
            2 => Self::HttpsUri {
                url: r.vector_max(limit::URI_BYTES)?.to_vec(),
                signature: field::signature(r)?,
            },
            3 => Self::OutOfBand { signature: field::signature(r)? },
            4 => Self::DistributionService,
            _ => return Err(start.fail("an unknown place of the ratchet tree")),
        })
    }
}

/// The hub's answer to a [`HandshakeBundle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateRoomResponse {
    /// What became of it.
    pub outcome: UpdateOutcome,
    /// For a log, never shown as it is; cut after [`limit::DETAIL_BYTES`].
    pub detail: String,
}

/// What became of a [`HandshakeBundle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// In the room's log since this time, hub clock.
    Success(Timestamp),
    /// Made for another epoch than this one.
    WrongEpoch(Epoch),
    /// Against the room's policy.
    NotAllowed,
    /// A commit with proposals that are not valid, or without ones it must have: their ProposalRefs.
    InvalidProposal(Vec<Vec<u8>>),
}

body!(UpdateRoomResponse, limit::REQUEST_BYTES);

impl UpdateRoomResponse {
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(match self.outcome {
            UpdateOutcome::Success(_) => 0,
            UpdateOutcome::WrongEpoch(_) => 1,
            UpdateOutcome::NotAllowed => 2,
            UpdateOutcome::InvalidProposal(_) => 3,
        });
        let end = (0..=limit::DETAIL_BYTES).rev().find(|i| self.detail.is_char_boundary(*i));
        let detail = end.and_then(|end| self.detail.get(..end)).unwrap_or(&self.detail);
        out.put_vector(detail.as_bytes());
        match &self.outcome {
            UpdateOutcome::Success(at) => out.put_u64(at.ms()),
            UpdateOutcome::WrongEpoch(epoch) => out.put_u64(epoch.get()),
            UpdateOutcome::NotAllowed => {}
            UpdateOutcome::InvalidProposal(refs) => out.put_list(refs, |out, r| out.put_vector(r)),
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = *r;
        let code = r.u8()?;
        let text = *r;
        let detail = std::str::from_utf8(r.vector_max(limit::DETAIL_BYTES)?)
            .map_err(|_| text.fail("a text that is not UTF-8"))?
            .to_owned();
        let outcome = match code {
            0 => UpdateOutcome::Success(Timestamp::from_ms(r.u64()?)),
            1 => UpdateOutcome::WrongEpoch(Epoch::new(r.u64()?)),
            2 => UpdateOutcome::NotAllowed,
            3 => UpdateOutcome::InvalidProposal(field::list(r, limit::PROPOSAL_REFS, |r| {
                r.vector_max(limit::HASH_BYTES).map(<[u8]>::to_vec)
            })?),
            _ => return Err(start.fail("an unknown status of an update")),
        };
        Ok(Self { outcome, detail })
    }
}

const FULL: u8 = 1;
