//! A hub's view of a room: it follows the group from its public handshakes, checks every one, and can read nothing.
//!
//! Every step takes `&self` and gives the next [`HubGroup`]; nothing changes until the caller has stored it.

mod answer;
mod apply;
mod create;
mod propose;
mod state;

use openmls::prelude::PublicGroup;
use protocol::mimi::GroupInfoBytes;
use protocol::room::{CommitFacts, Participants};
use protocol::{Code, DeviceId, Epoch, Refusal, RoomId, Timestamp};

use crate::mls::facts::{self, Roster};
use crate::mls::{Storage, settings, wire};
use crate::{Certificate, Error, KeyPackageRef, PublicKey, Rows, Suite};

/// The public state of one room.
pub struct HubGroup {
    room: RoomId,
    mls: PublicGroup,
    /// What `mls` was loaded from: the library has no other way to copy it.
    rows: Rows,
    /// Of the present epoch, by whoever committed last.
    group_info: GroupInfoBytes,
    pending: Vec<Pending>,
}

/// A proposal that waits for a commit.
#[derive(Clone)]
struct Pending {
    kind: PendingKind,
    /// The leaf that is to go.
    leaf: u32,
    device: DeviceId,
    /// When the hub took it.
    at: Timestamp,
    /// The proposal, an `MLSMessage`.
    message: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PendingKind {
    /// The leaf's own wish: any commit can carry it.
    SelfRemove,
    /// Somebody else's wish: an external commit cannot carry it.
    Remove,
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
    /// Devices whose pending removal got lost, because a join cannot carry it: [`HubGroup::expel`] them in the new epoch.
    pub lost: Vec<DeviceId>,
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
    /// The room.
    #[must_use]
    pub fn room(&self) -> &RoomId {
        &self.room
    }

    /// The present epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch::new(self.mls.group_context().epoch().as_u64())
    }

    /// The suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        // Checked when the room was taken.
        Suite::from_code(self.mls.ciphersuite().into()).unwrap_or_default()
    }

    /// Every device with a leaf, in leaf order.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn members(&self) -> Result<Vec<DeviceId>, Error> {
        Ok(self.roster()?.into_values().map(|c| c.device().clone()).collect())
    }

    /// The participant list.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn participants(&self) -> Result<Participants, Error> {
        settings::participants(self.mls.group_context())
            .map_err(|_| Error::Damaged("the participant list"))
    }

    /// Devices that pending proposals are to remove.
    #[must_use]
    pub fn leaving(&self) -> Vec<DeviceId> {
        self.pending.iter().map(|p| p.device.clone()).collect()
    }

    /// The GroupInfo of the present epoch, bare.
    #[must_use]
    pub fn group_info(&self) -> &GroupInfoBytes {
        &self.group_info
    }

    /// The ratchet tree, for a joiner.
    #[must_use]
    pub fn tree_bytes(&self) -> Vec<u8> {
        wire::encode(&self.mls.export_ratchet_tree())
    }

    /// The hub's key, as the room's settings say.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn hub_key(&self) -> Result<PublicKey, Error> {
        settings::check(&self.room, self.mls.group_context())
            .map_err(|_| Error::Damaged("the room's settings"))
    }

    /// Everybody by leaf. Their certificates were verified when they came in.
    fn roster(&self) -> Result<Roster, Error> {
        facts::roster(self.mls.members()).map_err(|_| Error::Damaged("a member's certificate"))
    }

    /// A copy of the library's group and its storage, to work on.
    fn copy(&self) -> Result<(PublicGroup, Storage), Error> {
        let storage = Storage::one_blob(self.rows.clone());
        let group = state::load(&self.room, &storage)?;
        Ok((group, storage))
    }
}

/// An error of ours, where only a refusal can be given.
fn internal(e: Error) -> Refusal {
    match e {
        Error::Refused(refusal) => refusal,
        Error::Damaged(_) | Error::Mls(_) | Error::Unopenable => {
            Refusal::because(Code::Internal, e.to_string())
        }
    }
}
