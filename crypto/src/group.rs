//! A device's view of a room: the only door to the MLS library for members.
//!
//! | state | `encrypt` | `commit` | `receive` of a commit | leaves by |
//! |---|---|---|---|---|
//! | member | yes | → pending | [`Group::accept`] → member | `accept` of our removal → out |
//! | pending | yes | refused | the winner: `accept` → member, ours is dropped; our own echo: [`Group::merge_pending`] → member | [`Group::clear_pending`] → member |
//! | out | no | no | `Unreadable(OutOfStep)` | nothing: rejoin is a new `Group` |
//!
//! Every step works on rows in memory. Nothing is durable until the caller has stored [`Group::writes`], in the same
//! transaction as what the step gave it.

use protocol::room::{CommitFacts, Participants, ParticipantsUpdate};
use protocol::{DeviceId, Domain, Entropy, Epoch, RoomId, Timestamp};

use crate::{Certificate, DeviceIdentity, Error, PublicKey, Rows, Suite, WriteSet};

/// One device's membership in one room.
pub struct Group {
    room: RoomId,
}

/// How to found a room.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The room; its hub is its domain's node.
    pub room: RoomId,
    /// The cipher suite, for good.
    pub suite: Suite,
    /// The hub's key, with which it may propose removals.
    pub hub_key: PublicKey,
}

/// A room just founded: epoch 0, the founder alone.
pub struct Founded {
    /// The group.
    pub group: Group,
    /// The `GroupInfo`, as an `MLSMessage`, for the hub.
    pub group_info: Vec<u8>,
    /// The ratchet tree, for the hub.
    pub tree: Vec<u8>,
}

/// A member of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its leaf in the tree.
    pub leaf: u32,
    /// Which device, certified by whom.
    pub certificate: Certificate,
}

/// What to change in one commit. Every pending proposal goes in as well.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// KeyPackages of the devices to add.
    pub add: Vec<Vec<u8>>,
    /// Devices to remove.
    pub remove: Vec<DeviceId>,
    /// The change to the participant list.
    pub participants: ParticipantsUpdate,
    /// Renews this device's own keys even when nothing else would.
    pub renew: bool,
}

/// A commit to submit; the group waits in state pending until it is merged or cleared.
#[derive(Clone, Debug)]
pub struct CommitBundle {
    /// The MIMI `UpdateRequest`: commit, Welcome, GroupInfo of the new epoch, "tree from the hub".
    pub update_request: Vec<u8>,
    /// 64 bytes by this device's leaf key over the request and the room (PROTOCOL §7.4).
    pub signature: Vec<u8>,
    /// What the commit does, for the same judgement that the hub will pass.
    pub facts: CommitFacts,
}

/// Proposals to submit: this device and its user's other devices want to leave.
#[derive(Clone, Debug)]
pub struct ProposalBundle {
    /// The MIMI `UpdateRequest`: the first proposal and the others.
    pub update_request: Vec<u8>,
    /// 64 bytes by this device's leaf key over the request and the room (PROTOCOL §7.4).
    pub signature: Vec<u8>,
}

/// An entry of the room's log, opened.
#[derive(Debug)]
pub enum Received {
    /// A message of another device.
    Application(Message),
    /// A proposal; it is now pending.
    Proposal(Proposed),
    /// Somebody's commit. Judge its facts, then [`Group::accept`] it or drop it.
    Commit(Box<StagedCommit>),
    /// The echo of this device's own commit. With `merged: false` it waits for [`Group::merge_pending`]; the commit of
    /// an external join is merged from the start.
    OwnCommit {
        /// Whether the group is in the commit's epoch already.
        merged: bool,
    },
    /// The echo of a message or proposal of this device.
    Own,
    /// It cannot be opened, for the given reason. Nothing was changed.
    Unreadable(Why),
}

/// Why an entry cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// A KeyPackage in the commit is not valid yet, or no more, by this device's clock. A wrong clock heals, so the commit must
    /// be kept unacknowledged, the clock compared with the node's, and the entry tried again.
    WaitForClock,
    /// It was opened before.
    Duplicate,
    /// Its keys are gone: more than 5 epochs or 64 messages late, or older than this device's membership.
    TooOld,
    /// This device is not where the room is: an epoch ahead of ours, or a commit that does not apply. A rejoin heals it.
    OutOfStep,
    /// It does not verify: not from a member, damaged, for another room, or it breaks a rule.
    Forged(String),
}

/// A decrypted message.
#[derive(Clone)]
pub struct Message {
    /// The device that sent it.
    pub from: DeviceId,
    /// The epoch it was encrypted in.
    pub epoch: Epoch,
    /// The content, as its sender gave it to [`Group::encrypt`].
    pub content: Vec<u8>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({} bytes)", self.content.len())
    }
}

/// A pending proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The device that proposed, or none when the hub did.
    pub by: Option<DeviceId>,
    /// The device that is to go.
    pub device: DeviceId,
}

/// A commit that verifies and is not applied yet.
#[derive(Debug)]
pub struct StagedCommit {
    facts: CommitFacts,
}

impl StagedCommit {
    /// What it does.
    #[must_use]
    pub fn facts(&self) -> &CommitFacts {
        &self.facts
    }

    /// Whether it removes this very device.
    #[must_use]
    pub fn removes_us(&self) -> bool {
        todo!()
    }

    /// The epoch it leads to.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        todo!()
    }

    /// The certificates of the devices it brings in or renews.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        todo!()
    }
}

impl Group {
    /// Founds a room with this device as its only member and its user as owner.
    ///
    /// # Errors
    /// Ours only.
    pub fn create(
        founding: &Founding,
        identity: DeviceIdentity,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Founded, Error> {
        let _ = (founding, identity, now, entropy);
        todo!()
    }

    /// Enters a room by a Welcome (`MLSMessage` bytes), with the tree the hub gave and the private rows of the KeyPackage that
    /// the Welcome is for. Every member's certificate is checked against its leaf; lifetimes are not (PROTOCOL §7.2).
    ///
    /// # Errors
    /// Refused when the Welcome is for another room or KeyPackage, does not fit the tree, or a member has no certificate.
    pub fn join(
        room: &RoomId,
        welcome: &[u8],
        tree: &[u8],
        key_package: &Rows,
        identity: DeviceIdentity,
    ) -> Result<Self, Error> {
        let _ = (room, welcome, tree, key_package, identity);
        todo!()
    }

    /// The KeyPackages that a Welcome (`MLSMessage` bytes) is for; to find which of our own to join with.
    ///
    /// # Errors
    /// Refused when it is not a Welcome.
    pub fn welcome_for(welcome: &[u8]) -> Result<Vec<crate::KeyPackageRef>, Error> {
        let _ = welcome;
        todo!()
    }

    /// Loads a group from its rows.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn load(rows: Rows, identity: DeviceIdentity) -> Result<Self, Error> {
        let _ = (rows, identity);
        todo!()
    }

    /// Everything that changed since the last call, for the caller's transaction.
    #[must_use]
    pub fn writes(&mut self) -> WriteSet {
        todo!()
    }

    /// Encrypts a message for the present epoch: `MLSMessage` bytes. The room's URI goes along as authenticated data
    /// (PROTOCOL §7.5).
    ///
    /// # Errors
    /// Refused while a proposal is pending (commit it first) and after removal.
    pub fn encrypt(&mut self, content: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, Error> {
        let _ = (content, entropy);
        todo!()
    }

    /// Opens an entry of the room's log: one `MLSMessage`.
    ///
    /// # Errors
    /// Ours only; whatever is wrong with the entry is [`Received::Unreadable`].
    pub fn receive(&mut self, message: &[u8]) -> Result<Received, Error> {
        let _ = message;
        todo!()
    }

    /// Applies a commit that [`Self::receive`] gave and the policy allowed. Drops a pending commit of our own.
    ///
    /// # Errors
    /// Ours only.
    pub fn accept(&mut self, staged: StagedCommit) -> Result<(), Error> {
        let _ = staged;
        todo!()
    }

    /// Builds a commit from a change and every pending proposal.
    ///
    /// # Errors
    /// Refused when a KeyPackage is bad, a device is not there, the list's change does not fit, or a commit is pending already.
    pub fn commit(
        &mut self,
        change: &Change,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<CommitBundle, Error> {
        let _ = (change, now, entropy);
        todo!()
    }

    /// Applies our own pending commit: the hub has accepted it.
    ///
    /// # Errors
    /// Ours, or refused when none is pending.
    pub fn merge_pending(&mut self) -> Result<(), Error> {
        todo!()
    }

    /// Drops our own pending commit: another one won, or the hub refused it.
    ///
    /// # Errors
    /// Ours only.
    pub fn clear_pending(&mut self) -> Result<(), Error> {
        todo!()
    }

    /// Whether a commit of our own is pending.
    #[must_use]
    pub fn has_pending_commit(&self) -> bool {
        todo!()
    }

    /// Asks to leave with this device and the given other devices of the same user. Somebody else's commit carries it out.
    ///
    /// # Errors
    /// Refused when a device is not there or another user's.
    pub fn leave(
        &mut self,
        others: &[DeviceId],
        entropy: &dyn Entropy,
    ) -> Result<ProposalBundle, Error> {
        let _ = (others, entropy);
        todo!()
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> &RoomId {
        &self.room
    }

    /// The hub, the only one who may propose removals from outside.
    #[must_use]
    pub fn hub(&self) -> &Domain {
        self.room.hub()
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

    /// Whether this device still is a member.
    #[must_use]
    pub fn is_member(&self) -> bool {
        todo!()
    }

    /// Everybody with a leaf, in leaf order.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn members(&self) -> Result<Vec<Member>, Error> {
        todo!()
    }

    /// The participant list.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn participants(&self) -> Result<Participants, Error> {
        todo!()
    }

    /// Proposals that the next commit must carry.
    #[must_use]
    pub fn pending_proposals(&self) -> Vec<Proposed> {
        todo!()
    }

    /// A value that only members of this epoch know, the same for all of them: two members who compare it know that they
    /// are in the same room.
    #[must_use]
    pub fn epoch_authenticator(&self) -> Vec<u8> {
        todo!()
    }

    /// The hash of the ratchet tree.
    #[must_use]
    pub fn tree_hash(&self) -> Vec<u8> {
        todo!()
    }
}

/// An external join under way: the request is out, the answer is not in. Lives in memory only; after a crash it is asked anew.
pub struct ExternalJoin {
    room: RoomId,
}

impl ExternalJoin {
    /// Makes a `GroupInfoRequest` for the room's hub.
    ///
    /// # Errors
    /// Ours only.
    pub fn request(
        room: &RoomId,
        suite: Suite,
        identity: DeviceIdentity,
        entropy: &dyn Entropy,
    ) -> Result<(Self, Vec<u8>), Error> {
        let _ = (suite, identity, entropy, &room);
        todo!()
    }

    /// Opens the hub's `GroupInfoResponse`, checks everything in it, and builds the external commit; an earlier leaf of this
    /// device goes with it. The group is in the new epoch at once: keep its rows only if the hub accepts the bundle.
    ///
    /// # Errors
    /// Refused when the answer is a no, not by `hub_key`, or does not verify.
    pub fn finish(
        self,
        response: &[u8],
        hub_key: &PublicKey,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<(Group, CommitBundle), Error> {
        let _ = (response, hub_key, now, entropy, &self.room);
        todo!()
    }
}
