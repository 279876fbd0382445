//! Proposals: members who leave, and the hub that expels.

use openmls::extensions::SenderExtensionIndex;
use openmls::messages::external_proposals::ExternalProposal;
use openmls::prelude::{
    LeafNodeIndex, ProcessedMessageContent, PublicGroup, PublicMessageIn, QueuedProposal, Sender,
};
use protocol::mimi::{HandshakeBundle, ProposalBytes};
use protocol::{Code, DeviceId, Refusal, Timestamp, limit};

use super::apply::{check_frame, refuse};
use super::{Expelled, HubGroup, Pending, PendingKind, Proposed, internal};
use crate::mls::facts::{self, Departure, Roster};
use crate::mls::{Provider, Storage, crypto, wire};
use crate::{Error, NodeKey};

impl HubGroup {
    /// Checks a proposal bundle (MIMI `UpdateRequest` bytes): devices of one user who leave. `signature` as for
    /// [`Self::apply`].
    ///
    /// # Errors
    /// As [`Self::apply`]; `NotAllowed` for anything but leaving, `WrongEpoch` when they are leaving already.
    pub fn propose(
        &self,
        bundle: &[u8],
        signature: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Proposed, Refusal> {
        if bundle.len() > limit::BUNDLE_BYTES {
            return Err(Refusal::new(Code::TooLarge));
        }
        let HandshakeBundle::Proposals { first, more } = HandshakeBundle::decode(bundle)? else {
            return Err(Refusal::because(Code::Malformed, "a commit where proposals belong"));
        };
        let roster = self.roster().map_err(internal)?;
        let (mut mls, storage) = self.copy().map_err(internal)?;
        let mut pending = self.pending.clone();
        let mut sender = None;
        for message in std::iter::once(&first).chain(&more) {
            let (proposal, departure) = self.departure(message, &roster)?;
            let Sender::Member(by) = proposal.sender() else {
                return Err(Refusal::because(Code::NotAllowed, "only a member can leave"));
            };
            if *sender.get_or_insert(by.u32()) != by.u32() {
                return Err(Refusal::because(Code::NotAllowed, "one device at a time"));
            }
            self.note(&mut pending, &departure, message.as_slice(), now)?;
            mls.add_proposal(&storage, proposal)
                .map_err(|e| internal(Error::Mls(e.to_string())))?;
        }
        let by = sender.and_then(|leaf| roster.get(&leaf));
        let by = by.ok_or(Refusal::because(Code::NotAllowed, "only a member can leave"))?;
        if let Some(signature) = signature {
            wire::check_bundle(bundle, &self.room, by.key(), signature)?;
        }
        let new = pending.iter().skip(self.pending.len());
        Ok(Proposed {
            by: by.device().clone(),
            leaving: new.clone().map(|p| p.device.clone()).collect(),
            messages: new.map(|p| p.message.clone()).collect(),
            group: self.with_pending(mls, storage, pending),
        })
    }

    /// Proposes, as the hub, to remove a device.
    ///
    /// # Errors
    /// `NotFound` when it is not in the room, `WrongEpoch` when it is leaving already.
    pub fn expel(
        &self,
        device: &DeviceId,
        hub_key: &NodeKey,
        now: Timestamp,
    ) -> Result<Expelled, Refusal> {
        let roster = self.roster().map_err(internal)?;
        let found = roster.iter().find(|(_, c)| c.device() == device);
        let (leaf, _) =
            found.ok_or(Refusal::because(Code::NotFound, "no such device in the room"))?;
        let message = ExternalProposal::new_remove::<Provider<'_>>(
            LeafNodeIndex::new(*leaf),
            self.mls.group_id().clone(),
            self.mls.group_context().epoch(),
            hub_key,
            SenderExtensionIndex::new(0),
        )
        .map_err(|e| internal(Error::Mls(e.to_string())))?;
        let message = ProposalBytes::parse(wire::encode(&message))?;

        let (mut mls, storage) = self.copy().map_err(internal)?;
        let (proposal, departure) = self.departure(&message, &roster)?;
        let mut pending = self.pending.clone();
        self.note(&mut pending, &departure, message.as_slice(), now)?;
        mls.add_proposal(&storage, proposal).map_err(|e| internal(Error::Mls(e.to_string())))?;
        Ok(Expelled {
            group: self.with_pending(mls, storage, pending),
            message: message.into_vec(),
        })
    }

    /// Verifies a proposal and reads who is to go.
    fn departure(
        &self,
        message: &ProposalBytes,
        roster: &Roster,
    ) -> Result<(QueuedProposal, Departure), Refusal> {
        let message: PublicMessageIn = wire::public_message(message.as_slice())?;
        check_frame(self, &message)?;
        let opened = self.mls.process_message(crypto(), message).map_err(|e| refuse(self, &e))?;
        let bound = opened.aad() == self.room.as_str().as_bytes();
        if !bound && !matches!(opened.sender(), Sender::External(_)) {
            return Err(Refusal::because(Code::InvalidCommit, "it is bound to another room"));
        }
        match opened.into_content() {
            ProcessedMessageContent::ProposalMessage(proposal) => {
                let departure = facts::departure(roster, &proposal)?;
                Ok((*proposal, departure))
            }
            _ => Err(Refusal::because(Code::NotAllowed, "only a departure can be proposed")),
        }
    }

    fn note(
        &self,
        pending: &mut Vec<Pending>,
        departure: &Departure,
        message: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if pending.iter().any(|p| p.leaf == departure.leaf) {
            // Whoever looks again finds the wish fulfilled. PROTOCOL §7.4.
            let detail = "the device is leaving already";
            return Err(Refusal::because(Code::WrongEpoch, detail).at_epoch(self.epoch()));
        }
        pending.push(Pending {
            kind: if departure.own { PendingKind::SelfRemove } else { PendingKind::Remove },
            leaf: departure.leaf,
            device: departure.device.clone(),
            at: now,
            message: message.to_vec(),
        });
        Ok(())
    }

    fn with_pending(&self, mls: PublicGroup, storage: Storage, pending: Vec<Pending>) -> Self {
        Self {
            room: self.room.clone(),
            mls,
            rows: storage.into_rows(),
            group_info: self.group_info.clone(),
            pending,
        }
    }
}
