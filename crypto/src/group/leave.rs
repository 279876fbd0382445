//! Leaving a room.

use openmls::ciphersuite::hash_ref::ProposalRef;
use openmls::prelude::{LeafNodeIndex, QueuedProposal};
use protocol::mimi::{HandshakeBundle, ProposalBytes};
use protocol::{Code, DeviceId, Entropy, Refusal};

use super::{Bundle, Group, ours};
use crate::Error;
use crate::mls::{Provider, wire};

impl Group {
    /// Asks to leave with this device and the given other devices of the same user. Somebody else's commit carries it out.
    /// Nothing changes here until the hub's echo comes in through [`Self::receive`].
    ///
    /// # Errors
    /// Refused when a device is not there or another user's, or a commit of our own is pending.
    pub fn leave(&mut self, others: &[DeviceId], entropy: &dyn Entropy) -> Result<Bundle, Error> {
        if self.has_pending_commit() {
            return Err(Refusal::because(Code::Conflict, "a commit is pending").into());
        }
        let leaves = self.leaves_of(others)?;
        let provider = Provider::new(&self.storage, entropy);
        let signer = self.identity.key();
        let uri = self.room.as_str().as_bytes().to_vec();

        let pending: Vec<_> = self.mls.pending_proposals().map(reference).collect();

        self.mls.set_aad(uri.clone());
        let first = self.mls.leave_group_via_self_remove(&provider, signer).map_err(ours)?;
        let mut more = Vec::with_capacity(leaves.len());
        for leaf in leaves {
            self.mls.set_aad(uri.clone());
            let removal = self.mls.propose_remove_member(&provider, signer, leaf);
            more.push(proposal(&wire::encode(&removal.map_err(ours)?.0))?);
        }
        // The library has queued them; they count only once the hub has them.
        let queued: Vec<_> = self.mls.pending_proposals().map(reference).collect();
        for reference in queued.iter().filter(|r| !pending.contains(r)) {
            self.mls.remove_pending_proposal(&self.storage, reference).map_err(ours)?;
        }
        let bundle = HandshakeBundle::Proposals { first: proposal(&wire::encode(&first))?, more };
        let update_request = bundle.encode();
        Ok(Bundle { signature: self.sign_bundle(&update_request), update_request })
    }

    fn leaves_of(&self, devices: &[DeviceId]) -> Result<Vec<LeafNodeIndex>, Error> {
        let user = self.identity.device().user();
        let roster = self.roster()?;
        let leaf = |device: &DeviceId| {
            if device.user() != user || device == self.identity.device() {
                return Err(Refusal::because(Code::NotAllowed, "not another device of yours"));
            }
            let found = roster.iter().find(|(_, c)| c.device() == device);
            let (leaf, _) =
                found.ok_or(Refusal::because(Code::NotFound, "no such device in the room"))?;
            Ok(LeafNodeIndex::new(*leaf))
        };
        Ok(devices.iter().map(leaf).collect::<Result<_, _>>()?)
    }
}

fn proposal(bytes: &[u8]) -> Result<ProposalBytes, Error> {
    Ok(ProposalBytes::parse(bytes).map_err(Refusal::from)?)
}

fn reference(proposal: &QueuedProposal) -> ProposalRef {
    proposal.proposal_reference_ref().clone()
}
