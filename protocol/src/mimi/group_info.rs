//! `groupInfo`: what a device needs to join by external commit (draft-ietf-mimi-protocol-06 section 5.6). PROTOCOL §6.6.

use super::bytes::{GroupInfoBytes, ProposalBytes};
use super::field::{self, Credential};
use super::update::RatchetTreeOption;
use super::{MLS10, body};
use crate::tls::{Malformed, Reader, Write};
use crate::{RoomId, Timestamp, limit};

/// Asks the hub for the group's state. Signed by the asking device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfoRequest {
    /// Cipher suite of the keys here.
    pub suite: u16,
    /// The asking device's MLS signature key.
    pub signature_key: Vec<u8>,
    /// The asking device's credential, under the same key.
    pub credential: Credential,
    /// Made for this request: the answer is sealed to it.
    pub hpke_key: Vec<u8>,
    /// A code that lets somebody in, at most [`limit::JOINING_CODE_BYTES`].
    pub joining_code: Option<Vec<u8>>,
    /// `SignWithLabel` over [`Self::to_be_signed`] under [`Self::LABEL`]. Empty until signed.
    pub signature: Vec<u8>,
}

body!(GroupInfoRequest, limit::REQUEST_BYTES);

impl GroupInfoRequest {
    /// Label of the signature, without the prefix `MLS 1.0 ` that `SignWithLabel` adds.
    pub const LABEL: &str = "GroupInfoRequestTBS";

    /// What is signed: all but the signature. It names no room, so it proves a wish to join, never which room.
    #[must_use]
    pub fn to_be_signed(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(MLS10);
        out.put_u16(self.suite);
        out.put_vector(&self.signature_key);
        self.credential.write(&mut out);
        out.put_vector(&self.hpke_key);
        out.put_optional(self.joining_code.as_ref(), |out, code| out.put_vector(code));
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_raw(&self.to_be_signed());
        out.put_vector(&self.signature);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        field::mls10(r)?;
        Ok(Self {
            suite: r.u16()?,
            signature_key: field::key(r)?,
            credential: Credential::read(r)?,
            hpke_key: field::key(r)?,
            joining_code: field::optional(r, |r| {
                r.vector_max(limit::JOINING_CODE_BYTES).map(<[u8]>::to_vec)
            })?,
            signature: field::signature(r)?,
        })
    }
}

/// The hub's answer to a [`GroupInfoRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfoResponse {
    /// The room it is about.
    pub room: RoomId,
    /// What the hub says.
    pub answer: GroupInfoAnswer,
}

/// What the hub says to a [`GroupInfoRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupInfoAnswer {
    /// Here it is.
    Success(SealedGroupInfo),
    /// May not join, or there is no such room.
    NotAuthorized,
    /// There is no such room.
    NoSuchRoom,
}

/// The group's state, sealed to the asking device and signed by the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedGroupInfo {
    /// Cipher suite number.
    pub suite: u16,
    /// The hub, as the group knows it.
    pub hub: ExternalSender,
    /// A [`GroupInfoRatchetTree`], sealed by `EncryptWithLabel` under [`GroupInfoRatchetTree::LABEL`] with the room's
    /// URI as context.
    pub sealed: HpkeCiphertext,
    /// `SignWithLabel` over [`GroupInfoResponse::to_be_signed`] under [`GroupInfoResponse::LABEL`]. Empty until signed.
    pub signature: Vec<u8>,
}

/// An MLS `ExternalSender` (RFC 9420 §12.1.8.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalSender {
    /// Its signature key.
    pub signature_key: Vec<u8>,
    /// Its credential.
    pub credential: Credential,
}

/// An MLS `HPKECiphertext` (RFC 9420 §7.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpkeCiphertext {
    /// The encapsulated key.
    pub kem_output: Vec<u8>,
    /// The sealed bytes, at most [`limit::SEALED_GROUP_BYTES`].
    pub ciphertext: Vec<u8>,
}

body!(GroupInfoResponse, limit::PEER_BODY_BYTES);

impl GroupInfoResponse {
    /// Label of the signature, without the prefix `MLS 1.0 ` that `SignWithLabel` adds.
    pub const LABEL: &str = "GroupInfoResponseTBS";

    /// What the hub signs when it says yes: all but the signature.
    #[must_use]
    pub fn to_be_signed(room: &RoomId, info: &SealedGroupInfo) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(MLS10);
        out.put_vector(room.as_str().as_bytes());
        out.put_u8(SUCCESS);
        out.put_u16(info.suite);
        out.put_vector(&info.hub.signature_key);
        info.hub.credential.write(&mut out);
        out.put_vector(&info.sealed.kem_output);
        out.put_vector(&info.sealed.ciphertext);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        let refused = match &self.answer {
            GroupInfoAnswer::Success(info) => {
                out.put_raw(&Self::to_be_signed(&self.room, info));
                out.put_vector(&info.signature);
                return;
            }
            GroupInfoAnswer::NotAuthorized => NOT_AUTHORIZED,
            GroupInfoAnswer::NoSuchRoom => NO_SUCH_ROOM,
        };
        out.put_u8(MLS10);
        out.put_vector(self.room.as_str().as_bytes());
        out.put_u8(refused);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        field::mls10(r)?;
        let room = field::room(r)?;
        let start = *r;
        let answer = match r.u8()? {
            SUCCESS => GroupInfoAnswer::Success(SealedGroupInfo {
                suite: r.u16()?,
                hub: ExternalSender {
                    signature_key: field::key(r)?,
                    credential: Credential::read(r)?,
                },
                sealed: HpkeCiphertext {
                    kem_output: field::key(r)?,
                    ciphertext: r.vector_max(limit::SEALED_GROUP_BYTES)?.to_vec(),
                },
                signature: field::signature(r)?,
            }),
            NOT_AUTHORIZED => GroupInfoAnswer::NotAuthorized,
            NO_SUCH_ROOM => GroupInfoAnswer::NoSuchRoom,
            _ => return Err(start.fail("an unknown status of a group's state")),
        };
        Ok(Self { room, answer })
    }
}

/// What is sealed in a [`SealedGroupInfo`]: the draft's `GroupInfoRatchetTreeTBE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfoRatchetTree {
    /// The group, signed by a member.
    pub group_info: GroupInfoBytes,
    /// Its tree.
    pub tree: RatchetTreeOption,
    /// Proposals that the joiner must include.
    pub pending: Vec<PendingProposal>,
}

/// A proposal waiting for a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingProposal {
    /// The proposal.
    pub proposal: ProposalBytes,
    /// When the hub accepted it.
    pub at: Timestamp,
}

body!(GroupInfoRatchetTree, limit::SEALED_GROUP_BYTES);

impl GroupInfoRatchetTree {
    /// Label of the seal, without the prefix `MLS 1.0 ` that `EncryptWithLabel` adds.
    pub const LABEL: &str = "GroupInfo and ratchet_tree encryption";

    fn write(&self, out: &mut Vec<u8>) {
        self.group_info.write(out);
        self.tree.write(out);
        out.put_list(&self.pending, |out, p| {
            p.proposal.write(out);
            out.put_u64(p.at.ms());
        });
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            group_info: GroupInfoBytes::read(r)?,
            tree: RatchetTreeOption::read(r)?,
            pending: field::list(r, limit::PROPOSAL_REFS, |r| {
                let proposal = ProposalBytes::read(r)?;
                Ok(PendingProposal { proposal, at: Timestamp::from_ms(r.u64()?) })
            })?,
        })
    }
}

const SUCCESS: u8 = 1;
const NOT_AUTHORIZED: u8 = 2;
const NO_SUCH_ROOM: u8 = 3;
