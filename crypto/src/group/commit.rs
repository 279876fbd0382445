//! Changing a room.

use std::collections::BTreeSet;

use openmls::prelude::{AppDataUpdateProposal, KeyPackage, LeafNodeIndex, Proposal, Sender};
use openmls_traits::OpenMlsProvider as _;
use protocol::mimi::{
    CommitBytes, GroupInfoBytes, HandshakeBundle, RatchetTreeOption, WelcomeBytes,
};
use protocol::room::{CommitFacts, PARTICIPANT_LIST};
use protocol::{Code, Entropy, Refusal, Timestamp, limit};

use super::{Change, CommitBundle, Group, ours, remember_own, theirs};
use crate::mls::facts::{self, Roster};
use crate::mls::{Provider, crypto, settings, wire};
use crate::{Error, keypackage};

impl Group {
    /// Builds a commit from a change and every pending proposal. The group waits in state pending until
    /// [`Self::merge_pending`] or [`Self::clear_pending`]; so does its row, across restarts.
    ///
    /// # Errors
    /// Refused when a KeyPackage is bad or expires too soon, a device is not there, the list's change does not fit, this
    /// device is itself leaving, or a commit is pending already.
    pub fn commit(
        &mut self,
        change: &Change,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<CommitBundle, Error> {
        if self.has_pending_commit() {
            return Err(Refusal::because(Code::Conflict, "a commit is pending already").into());
        }
        let roster = self.roster()?;
        let packages = self.packages(change, now)?;
        let removals = self.removals(change, &roster)?;
        let before = self.participants()?;
        let update = (!change.participants.is_empty()).then(|| {
            let data = change.participants.encode();
            Proposal::AppDataUpdate(Box::new(AppDataUpdateProposal::update(PARTICIPANT_LIST, data)))
        });

        self.bind_to_room();
        let provider = Provider::new(&self.storage, entropy);
        let mut builder = self
            .mls
            .commit_builder()
            .force_self_update(change.renew)
            .propose_adds(packages)
            .propose_removals(removals)
            .add_proposals(update)
            .load_psks(&self.storage)
            .map_err(ours)?;
        let after = facts::participants_after(&before, builder.app_data_update_proposals())?;
        if !change.participants.is_empty() {
            let updater = builder.app_data_dictionary_updater();
            let dictionary = settings::dictionary_change(updater, &after);
            builder.with_app_data_dictionary_updates(dictionary);
        }
        let bundle = builder
            .create_group_info(true)
            .build(provider.rand(), crypto(), self.identity.key(), |_| true)
            .map_err(theirs)?
            .stage_commit(&provider)
            .map_err(ours)?;
        let (commit, welcome, group_info) = bundle.into_contents();
        let commit = wire::encode(&commit);
        remember_own(&self.storage, &commit);
        let group_info = group_info.ok_or(Error::Mls("a commit without its GroupInfo".into()))?;
        let update_request =
            bundle_bytes(commit, welcome.map(|w| wire::encode(&w)), wire::encode(&group_info))?;
        Ok(CommitBundle {
            signature: self.sign_bundle(&update_request),
            update_request,
            facts: self.pending_facts(&roster)?,
        })
    }

    fn packages(&self, change: &Change, now: Timestamp) -> Result<Vec<KeyPackage>, Refusal> {
        if change.add.len() > limit::ADDS_PER_COMMIT {
            return Err(Refusal::because(Code::TooLarge, "too many devices at once"));
        }
        let mut packages = Vec::with_capacity(change.add.len());
        for bytes in &change.add {
            let (package, info) = keypackage::parse(bytes)?;
            if info.suite != self.suite() {
                return Err(Refusal::because(
                    Code::BadKeyPackage,
                    "it is for another cipher suite",
                ));
            }
            if !info.lives_long_enough(now) {
                return Err(Refusal::because(Code::BadKeyPackage, "it expires too soon"));
            }
            packages.push(package);
        }
        Ok(packages)
    }

    /// Leaves to remove, without those that pending proposals remove anyway.
    fn removals(&self, change: &Change, roster: &Roster) -> Result<Vec<LeafNodeIndex>, Error> {
        let own = self.identity.device();
        let departures = self.mls.pending_proposals().map(|p| facts::departure(roster, p));
        let departures: Vec<_> = departures.collect::<Result<_, _>>()?;
        if change.remove.contains(own) || departures.iter().any(|d| d.device == *own) {
            return Err(Refusal::because(Code::NotAllowed, "a device cannot remove itself").into());
        }
        let leaving: BTreeSet<u32> = departures.iter().map(|d| d.leaf).collect();
        let mut leaves = BTreeSet::new();
        for device in &change.remove {
            let leaf = roster.iter().find(|(_, c)| c.device() == device).map(|(leaf, _)| *leaf);
            leaves.insert(
                leaf.ok_or(Refusal::because(Code::NotFound, "no such device in the room"))?,
            );
        }
        Ok(leaves.difference(&leaving).map(|leaf| LeafNodeIndex::new(*leaf)).collect())
    }

    fn pending_facts(&self, roster: &Roster) -> Result<CommitFacts, Error> {
        let staged = self.mls.pending_commit().ok_or(Error::Mls("no pending commit".into()))?;
        let own = self.mls.own_leaf_index();
        let reading = facts::read(&facts::Source {
            staged,
            sender: &Sender::Member(own),
            external_leaf: own.u32(),
            roster,
            context: self.mls.public_group().group_context(),
        })?;
        Ok(reading.facts)
    }

    /// Applies our own pending commit: the hub has accepted it.
    ///
    /// # Errors
    /// Ours, or `Conflict` when none is pending.
    pub fn merge_pending(&mut self) -> Result<(), Error> {
        if !self.has_pending_commit() {
            return Err(Refusal::because(Code::Conflict, "no commit is pending").into());
        }
        self.mls.merge_pending_commit(&Provider::without_chance(&self.storage)).map_err(ours)
    }

    /// Drops our own pending commit: another one won, or the hub refused it. Nothing happens when none is pending.
    ///
    /// # Errors
    /// Ours only.
    pub fn clear_pending(&mut self) -> Result<(), Error> {
        if self.has_pending_commit() {
            self.mls.clear_pending_commit(&self.storage).map_err(ours)?;
        }
        Ok(())
    }
}

/// A commit bundle on the wire; the tree is left to the hub.
pub(super) fn bundle_bytes(
    commit: Vec<u8>,
    welcome: Option<Vec<u8>>,
    group_info: Vec<u8>,
) -> Result<Vec<u8>, Error> {
    let bundle = HandshakeBundle::Commit {
        commit: CommitBytes::parse(commit).map_err(Refusal::from)?,
        welcome: welcome.map(WelcomeBytes::parse).transpose().map_err(Refusal::from)?,
        group_info: GroupInfoBytes::parse(group_info).map_err(Refusal::from)?,
        tree: RatchetTreeOption::DistributionService,
    };
    let bytes = bundle.encode();
    if bytes.len() > limit::BUNDLE_BYTES {
        return Err(
            Refusal::because(Code::TooLarge, "the change is too large for one commit").into()
        );
    }
    Ok(bytes)
}
