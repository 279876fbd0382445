//! Entering a room by a commit of our own: a further device of a participant, or one that is out of step.

use openmls::group::MlsGroup;
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::{LeafNodeParameters, RatchetTreeIn};
use openmls_traits::OpenMlsProvider as _;
use protocol::mimi::{GroupInfoRatchetTree, RatchetTreeOption};
use protocol::{Code, Entropy, Refusal, RoomId};

use super::{Bundle, Group, commit, ours, remember_own, theirs};
use crate::group_info::{self, AnswerKey};
use crate::mls::{Provider, Storage, crypto, facts, settings, wire};
use crate::{DeviceIdentity, Error, PublicKey, Suite};

/// An external join under way: the request is out, the answer is not in. Lives in memory only; after a crash it is asked
/// anew.
pub struct ExternalJoin {
    room: RoomId,
    identity: DeviceIdentity,
    key: AnswerKey,
}

impl ExternalJoin {
    /// Makes a `GroupInfoRequest` for the room's hub. The suite is that of the answer's seal, and any will do.
    ///
    /// # Errors
    /// Ours only.
    pub fn request(
        room: &RoomId,
        suite: Suite,
        identity: DeviceIdentity,
        entropy: &dyn Entropy,
    ) -> Result<(Self, Vec<u8>), Error> {
        let (request, key) = group_info::request(&identity, suite, entropy)?;
        Ok((Self { room: room.clone(), identity, key }, request))
    }

    /// Opens the hub's `GroupInfoResponse`, checks everything in it, and builds the external commit; an earlier leaf of this
    /// device goes with it, and so does every pending SelfRemove. The group is in the new epoch at once: keep its rows only
    /// if the hub accepts the bundle.
    ///
    /// # Errors
    /// Refused when the answer is a no, not by `hub_key`, or does not verify.
    pub fn finish(
        self,
        response: &[u8],
        hub_key: &PublicKey,
        entropy: &dyn Entropy,
    ) -> Result<(Group, Bundle), Error> {
        let answer = self.key.open(&self.room, response, hub_key)?;
        let (group_info, tree) = material(&answer, &self.room, hub_key)?;
        let pending = answer.pending.iter().map(|p| wire::public_message(p.proposal.as_slice()));

        let storage = Storage::default();
        let provider = Provider::new(&storage, entropy);
        let (mls, bundle) = MlsGroup::external_commit_builder()
            .with_proposals(pending.collect::<Result<_, _>>()?)
            .with_ratchet_tree(tree)
            .with_config(settings::join())
            .with_aad(self.room.as_str().as_bytes().to_vec())
            .skip_lifetime_validation()
            .build_group(&provider, group_info, self.identity.credential())
            .map_err(theirs)?
            .leaf_node_parameters(
                LeafNodeParameters::builder().with_capabilities(settings::capabilities()).build(),
            )
            .load_psks(&storage)
            .map_err(ours)?
            .create_group_info(true)
            .build(provider.rand(), crypto(), self.identity.key(), |_| true)
            .map_err(theirs)?
            .finalize(&provider)
            .map_err(ours)?;
        // Only now does the library show the tree: nothing has left this device yet.
        facts::verified_roster(mls.members())?;

        let (message, _, group_info) = bundle.into_contents();
        let message = wire::encode(&message);
        remember_own(&storage, &message);
        let group_info = group_info.ok_or(Error::Mls("a commit without its GroupInfo".into()))?;
        let update_request = commit::bundle_bytes(message, None, wire::encode(&group_info))?;
        let group = Group::new(self.room, self.identity, mls, storage);
        let signature = group.sign_bundle(&update_request);
        Ok((group, Bundle { update_request, signature }))
    }
}

/// The GroupInfo and the tree in an answer, of this room with this hub.
fn material(
    answer: &GroupInfoRatchetTree,
    room: &RoomId,
    hub_key: &PublicKey,
) -> Result<(VerifiableGroupInfo, RatchetTreeIn), Refusal> {
    let group_info: VerifiableGroupInfo =
        wire::decode("the GroupInfo", answer.group_info.as_slice())?;
    if settings::check(room, group_info.group_context())? != *hub_key {
        return Err(Refusal::because(Code::InvalidCommit, "the room has another hub's key"));
    }
    let RatchetTreeOption::Full(tree) = &answer.tree else {
        return Err(Refusal::because(Code::Malformed, "the answer has no tree"));
    };
    Ok((group_info, wire::decode("the tree", tree.as_slice())?))
}
