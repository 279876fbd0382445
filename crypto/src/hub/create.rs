//! Taking a new room.

use openmls::group::ProposalStore;
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::{PublicGroup, RatchetTreeIn};
use protocol::mimi::GroupInfoBytes;
use protocol::room::Participants;
use protocol::{Code, DeviceId, Refusal, RoomId, limit};

use super::{HubGroup, internal};
use crate::mls::{Storage, crypto, facts, settings, wire};
use crate::{PublicKey, Rows};

impl HubGroup {
    /// Takes a new room: epoch 0, one leaf, the founder's, who is the only participant and owner; with the settings of
    /// PROTOCOL §7.2 and `hub_key` as the only external sender. `group_info` is an `MLSMessage`.
    ///
    /// # Errors
    /// `InvalidCommit`, `BadCertificate`, `TooLarge` or `Malformed`.
    pub fn create(
        room: &RoomId,
        hub_key: &PublicKey,
        group_info: &[u8],
        tree: &[u8],
        founder: &DeviceId,
    ) -> Result<Self, Refusal> {
        let bad = |why: &str| Refusal::because(Code::InvalidCommit, why);
        if group_info.len() > limit::REQUEST_BYTES || tree.len() > limit::REQUEST_BYTES {
            return Err(Refusal::new(Code::TooLarge));
        }
        let group_info = GroupInfoBytes::from_message(group_info)?;
        let verifiable: VerifiableGroupInfo = wire::decode("the GroupInfo", group_info.as_slice())?;
        let tree: RatchetTreeIn = wire::decode("the tree", tree)?;
        if settings::check(room, verifiable.group_context())? != *hub_key {
            return Err(bad("the room names another hub's key"));
        }
        if verifiable.epoch().as_u64() != 0 {
            return Err(bad("a new room starts at epoch 0"));
        }
        if verifiable.extensions().external_pub().is_none() {
            return Err(bad("the GroupInfo lacks the key for external joins"));
        }
        let storage = Storage::one_blob(Rows::default());
        let (mls, _) =
            PublicGroup::from_external(crypto(), &storage, tree, verifiable, ProposalStore::new())
                .map_err(|e| bad(&e.to_string()))?;
        let roster = facts::verified_roster(mls.members())?;
        if roster.len() != 1 || roster.values().any(|c| c.device() != founder) {
            return Err(bad("the founder must be the only member"));
        }
        let participants = settings::participants(mls.group_context())?;
        if participants != Participants::founded_by(founder.user()) {
            return Err(bad("the founder must be the only participant, and owner"));
        }
        let new = Self {
            room: room.clone(),
            mls,
            rows: storage.into_rows(),
            group_info,
            pending: Vec::new(),
        };
        // What cannot be loaded again must not be accepted.
        new.copy().map_err(internal)?;
        Ok(new)
    }
}
