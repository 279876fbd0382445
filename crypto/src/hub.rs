//! A hub's view of a room: it follows the group from its public handshakes, checks every one, and can read nothing.
//!
//! Every step takes `&self` and gives the next [`HubGroup`]; nothing changes until the caller has stored it.

use protocol::room::{CommitFacts, Participants};
use protocol::{DeviceId, Epoch, Refusal, RoomId, Timestamp};

use crate::group_info::GroupInfoRequest;
use crate::{Certificate, Error, KeyPackageRef, NodeKey, PublicKey, Suite};

/// The public state of one room.
pub struct HubGroup {
    room: RoomId,
}

/// What an accepted commit leads to.
pub struct Applied {
    /// The room after it.
    pub group: HubGroup,
    /// What it does; the caller judges it before it stores anything.
    pub facts: CommitFacts,
    /// The commit as an `MLSMessage`: the body of its log entry.
    pub commit: Vec<u8>,
    /// The Welcome, when somebody was added.
    pub welcome: Option<Welcome>,
    /// Certificates of the leaves it brings in or renews: to be checked against what the users' nodes know.
    pub certificates: Vec<Certificate>,
}

/// A Welcome and whom it is for.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// The Welcome as an `MLSMessage`: the body of its log entry.
    pub message: Vec<u8>,
    /// The KeyPackages it is for and their devices, one per added leaf.
    pub to: Vec<(KeyPackageRef, DeviceId)>,
}

/// What accepted proposals lead to.
pub struct Proposed {
    /// The room, with the proposals pending.
    pub group: HubGroup,
    /// Who proposed.
    pub by: DeviceId,
    /// The devices that are to go, all of one user.
    pub leaving: Vec<DeviceId>,
    /// The proposals, each an `MLSMessage`: the bodies of their log entries.
    pub messages: Vec<Vec<u8>>,
}

/// A removal that the hub proposed.
pub struct Expelled {
    /// The room, with the proposal pending.
    pub group: HubGroup,
    /// The proposal as an `MLSMessage`: the body of its log entry.
    pub message: Vec<u8>,
}

impl HubGroup {
    /// Takes a new room: epoch 0, one leaf, the founder's, who is the only participant and owner; with the settings of
    /// PROTOCOL §7.2 and `hub_key` as the only external sender. `group_info` is an `MLSMessage`.
    ///
    /// # Errors
    /// `InvalidCommit`, `BadCertificate` or `Malformed`.
    pub fn create(
        room: &RoomId,
        hub_key: &PublicKey,
        group_info: &[u8],
        tree: &[u8],
        founder: &DeviceId,
    ) -> Result<Self, Refusal> {
        let _ = (room, hub_key, group_info, tree, founder);
        todo!()
    }

    /// Loads what [`Self::to_bytes`] saved.
    ///
    /// # Errors
    /// [`Error::Damaged`], found by a checksum.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let _ = bytes;
        todo!()
    }

    /// The whole state: about 700 bytes per member.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> &RoomId {
        &self.room
    }

    /// The present epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        todo!()
    }

    /// The suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        todo!()
    }

    /// Every device with a leaf.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn members(&self) -> Result<Vec<DeviceId>, Error> {
        todo!()
    }

    /// The participant list.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn participants(&self) -> Result<Participants, Error> {
        todo!()
    }

    /// Devices that pending proposals are to remove.
    #[must_use]
    pub fn leaving(&self) -> Vec<DeviceId> {
        todo!()
    }

    /// The ratchet tree, for a joiner.
    #[must_use]
    pub fn tree_bytes(&self) -> Vec<u8> {
        todo!()
    }

    /// Checks a commit bundle (MIMI `UpdateRequest` bytes) and gives the room after it. `signature` is the committer's over the
    /// bundle (PROTOCOL §7.4); a foreign peer's commit may come without.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`, `WrongEpoch` (with the present one), `InvalidCommit`, `MissingProposal`, `BadKeyPackage`,
    /// `BadCertificate`.
    pub fn apply(
        &self,
        bundle: &[u8],
        signature: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Applied, Refusal> {
        let _ = (bundle, signature, now);
        todo!()
    }

    /// Checks a proposal bundle (MIMI `UpdateRequest` bytes): devices of one user who leave.
    ///
    /// # Errors
    /// As [`Self::apply`]; `NotAllowed` for anything but leaving.
    pub fn propose(
        &self,
        bundle: &[u8],
        signature: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Proposed, Refusal> {
        let _ = (bundle, signature, now);
        todo!()
    }

    /// Proposes, as the hub, to remove a device.
    ///
    /// # Errors
    /// `NotFound` when it is not in the room.
    pub fn expel(
        &self,
        device: &DeviceId,
        hub_key: &NodeKey,
        now: Timestamp,
    ) -> Result<Expelled, Refusal> {
        let _ = (device, hub_key, now);
        todo!()
    }

    /// Answers a joiner: GroupInfo, tree and pending proposals, sealed to its key, signed by the hub: MIMI
    /// `GroupInfoResponse` bytes. Whether the joiner may is the caller's question.
    ///
    /// # Errors
    /// Ours, or refused when the request is for another suite.
    pub fn seal_group_info(
        &self,
        request: &GroupInfoRequest,
        hub_key: &NodeKey,
    ) -> Result<Vec<u8>, Error> {
        let _ = (request, hub_key);
        todo!()
    }
}
