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

mod commit;
mod create;
mod encrypt;
mod external;
mod join;
mod leave;
mod receive;

use std::time::Duration;

use openmls::group::{MlsGroup, PastEpochDeletion};
use protocol::room::{CommitFacts, Participants, ParticipantsUpdate};
use protocol::{Code, DeviceId, Domain, Epoch, Refusal, RoomId};
use sha2::{Digest as _, Sha256};

use crate::mls::facts::{self, Roster};
use crate::mls::{Provider, Storage, settings, wire};
use crate::{Certificate, DeviceIdentity, Error, PublicKey, Rows, Suite, WriteSet};

pub use external::ExternalJoin;

/// One device's membership in one room.
pub struct Group {
    room: RoomId,
    identity: DeviceIdentity,
    mls: MlsGroup,
    storage: Storage,
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

/// Proposals to leave, or an external commit, to submit.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The MIMI `UpdateRequest`.
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
    /// The echo of a message of this device.
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
    mls: openmls::group::StagedCommit,
    facts: CommitFacts,
    certificates: Vec<Certificate>,
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
        self.mls.self_removed()
    }

    /// The epoch it leads to.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch::new(self.mls.epoch().as_u64())
    }

    /// The certificates of the devices it brings in or renews.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }
}

impl Group {
    /// Loads a group from its rows.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn load(rows: Rows, identity: DeviceIdentity) -> Result<Self, Error> {
        let storage = Storage::new(rows);
        let room = storage.get_raw(ROOM_ROW).ok_or(Error::Damaged("no room's name"))?;
        let room = String::from_utf8(room).ok().and_then(|text| RoomId::parse(&text).ok());
        let room = room.ok_or(Error::Damaged("not a room's name"))?;
        let mls = MlsGroup::load(&storage, &settings::group_id(&room))
            .map_err(|e| Error::Mls(e.to_string()))?
            .ok_or(Error::Damaged("a row is missing"))?;
        // A device that was removed has no leaf any more.
        let own = mls.own_leaf_node().map(|leaf| leaf.signature_key().as_slice());
        if mls.is_active() && own != Some(identity.certificate().key().as_bytes().as_slice()) {
            return Err(Error::Damaged("the rows are another device's"));
        }
        Ok(Self { room, identity, mls, storage })
    }

    fn new(room: RoomId, identity: DeviceIdentity, mls: MlsGroup, storage: Storage) -> Self {
        storage.put_raw(ROOM_ROW.to_vec(), room.as_str().as_bytes().to_vec());
        Self { room, identity, mls, storage }
    }

    /// Everything that changed since the last call, for the caller's transaction.
    #[must_use]
    pub fn writes(&mut self) -> WriteSet {
        self.storage.take_writes()
    }

    /// Applies a commit that [`Self::receive`] gave and the policy allowed. Drops a pending commit of our own.
    ///
    /// # Errors
    /// Ours, or `WrongEpoch` when the group has moved on since.
    pub fn accept(&mut self, staged: StagedCommit) -> Result<(), Error> {
        if staged.epoch() != self.epoch().next() {
            return Err(Refusal::new(Code::WrongEpoch).at_epoch(self.epoch()).into());
        }
        self.mls
            .merge_staged_commit(&Provider::without_chance(&self.storage), staged.mls)
            .map_err(ours)?;
        Ok(())
    }

    /// Drops the keys of past epochs that ended more than two weeks ago; to be called now and then.
    ///
    /// # Errors
    /// Ours only.
    pub fn forget(&mut self) -> Result<(), Error> {
        let old = PastEpochDeletion::older_than_duration(PAST_EPOCH_AGE);
        let provider = Provider::without_chance(&self.storage);
        self.mls.delete_past_epoch_secrets(&provider, old).map_err(ours)
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

    /// The hub's key, as the group's settings say: one that changes without reason is another hub.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn hub_key(&self) -> Result<PublicKey, Error> {
        let context = self.mls.public_group().group_context();
        settings::check(&self.room, context).map_err(|_| Error::Damaged("the room's settings"))
    }

    /// The present epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch::new(self.mls.epoch().as_u64())
    }

    /// The suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        // Checked when the group was entered.
        Suite::from_code(self.mls.ciphersuite().into()).unwrap_or_default()
    }

    /// Whether this device still is a member.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.mls.is_active()
    }

    /// Everybody with a leaf, in leaf order.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn members(&self) -> Result<Vec<Member>, Error> {
        let member = |(leaf, certificate)| Member { leaf, certificate };
        Ok(self.roster()?.into_iter().map(member).collect())
    }

    /// The participant list.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn participants(&self) -> Result<Participants, Error> {
        let context = self.mls.public_group().group_context();
        settings::participants(context).map_err(|_| Error::Damaged("the participant list"))
    }

    /// Proposals that the next commit must carry.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn pending_proposals(&self) -> Result<Vec<Proposed>, Error> {
        let roster = self.roster()?;
        let proposed = |p| {
            let departure =
                facts::departure(&roster, p).map_err(|_| Error::Damaged("a pending proposal"))?;
            Ok(Proposed { by: departure.by, device: departure.device })
        };
        self.mls.pending_proposals().map(proposed).collect()
    }

    /// Whether a commit of our own is pending.
    #[must_use]
    pub fn has_pending_commit(&self) -> bool {
        self.mls.pending_commit().is_some()
    }

    /// A value that only members of this epoch know, the same for all of them: two members who compare it know that they
    /// are in the same room.
    #[must_use]
    pub fn epoch_authenticator(&self) -> Vec<u8> {
        self.mls.epoch_authenticator().as_slice().to_vec()
    }

    /// The hash of the ratchet tree.
    #[must_use]
    pub fn tree_hash(&self) -> Vec<u8> {
        self.mls.public_group().group_context().tree_hash().to_vec()
    }

    /// Everybody by leaf. Their certificates were verified when they came in.
    fn roster(&self) -> Result<Roster, Error> {
        facts::roster(self.mls.members()).map_err(|_| Error::Damaged("a member's certificate"))
    }

    /// What goes along with every message of ours as authenticated data. PROTOCOL §7.5.
    fn bind_to_room(&mut self) {
        self.mls.set_aad(self.room.as_str().as_bytes().to_vec());
    }

    /// A bundle with this device's signature under it.
    fn sign_bundle(&self, update_request: &[u8]) -> Vec<u8> {
        let content = wire::bundle_content(update_request, &self.room);
        self.identity.key().sign(wire::BUNDLE_LABEL, &content)
    }
}

/// Keys of past epochs are for mail that is late, not for ever: who steals a device reads no further back.
const PAST_EPOCH_AGE: Duration = Duration::from_hours(14 * 24);

/// The row with the room's URI.
const ROOM_ROW: &[u8] = b"R";
/// The row with the hashes of our own last commits, by which their echoes are known.
const OWN_COMMITS_ROW: &[u8] = b"W";
/// How many: a device builds the next one when it has seen the last one's echo, or a few refusals later.
const OWN_COMMITS: usize = 8;

/// Remembers a commit of our own (`MLSMessage` bytes).
fn remember_own(storage: &Storage, commit: &[u8]) {
    let hash = Sha256::digest(commit);
    let old = storage.get_raw(OWN_COMMITS_ROW).unwrap_or_default();
    let mut hashes: Vec<&[u8]> = old.chunks_exact(hash.len()).collect();
    hashes.push(&hash);
    let newest = hashes.len().saturating_sub(OWN_COMMITS);
    let row = hashes.split_off(newest).concat();
    storage.put_raw(OWN_COMMITS_ROW.to_vec(), row);
}

/// Whether it is one of our last commits.
fn is_own(storage: &Storage, commit: &[u8]) -> bool {
    let hash = Sha256::digest(commit);
    let row = storage.get_raw(OWN_COMMITS_ROW).unwrap_or_default();
    row.chunks_exact(hash.len()).any(|own| own == hash.as_slice())
}

/// An error of the library in a step that nobody else had a part in.
fn ours(e: impl std::error::Error) -> Error {
    Error::Mls(e.to_string())
}

/// An error of the library about what somebody else sent.
fn theirs(e: impl std::error::Error) -> Error {
    Refusal::because(Code::InvalidCommit, e.to_string()).into()
}
