//! Taking a commit: PROTOCOL §7.4 in the order of its checks. The cheap ones come first, the copy of the group last.

use std::collections::BTreeSet;

use openmls::messages::Welcome as MlsWelcome;
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::{
    KeyPackageVerifyError, ProcessedMessageContent, ProposalValidationError, PublicMessageIn,
    PublicProcessMessageError, Sender, StageCommitError, StagedCommit, ValidationError,
};
use openmls::treesync::errors::LeafNodeValidationError;
use protocol::mimi::{
    CommitBytes, GroupInfoBytes, HandshakeBundle, RatchetTreeOption, WelcomeBytes,
};
use protocol::{Code, DeviceId, Refusal, Timestamp, limit};

use super::{Applied, HubGroup, PendingKind, Welcome, internal};
use crate::mls::facts::{self, Added, Reading};
use crate::mls::{crypto, settings, wire};
use crate::{Error, KeyPackageRef, keypackage};

struct Parts {
    commit: CommitBytes,
    welcome: Option<WelcomeBytes>,
    group_info: GroupInfoBytes,
}

impl HubGroup {
    /// Checks a commit bundle (MIMI `UpdateRequest` bytes) and gives the room after it. `signature` is the committer's over
    /// the bundle (PROTOCOL §7.4); a foreign peer's commit may come without, and then nobody notices a `membership_tag`
    /// that was changed on the way.
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
        let parts = read(bundle)?;
        let message = wire::public_message(parts.commit.as_slice())?;
        check_frame(self, &message)?;
        let tag = message.confirmation_tag().map(wire::encode);
        let tag = tag.ok_or(Refusal::because(Code::InvalidCommit, "no confirmation tag"))?;

        let (staged, sender) = self.stage(message)?;
        let reading = facts::read(&facts::Source {
            staged: &staged,
            sender: &sender,
            external_leaf: self.mls.ext_commit_sender_index(&staged).map_err(ours)?.u32(),
            roster: &self.roster().map_err(internal)?,
            context: self.mls.group_context(),
        })?;
        let to = welcomed(&reading.added, now)?;
        let welcome = match_welcome(parts.welcome, to)?;
        let lost = self.check_pending(&reading)?;
        check_group_info(&parts.group_info, &staged, &tag, &reading)?;
        if let Some(signature) = signature {
            wire::check_bundle(bundle, &self.room, &reading.key, signature)?;
        }
        let group = self.merged(staged, parts.group_info).map_err(internal)?;
        if welcome.is_some() || reading.facts.external {
            fits_a_joiner(group.tree_bytes().len())?;
        }
        Ok(Applied {
            group,
            facts: reading.facts,
            commit: parts.commit.into_vec(),
            welcome,
            certificates: reading.certificates,
            lost,
        })
    }

    /// Lets the library verify the commit, with the participant list that its updates lead to.
    fn stage(&self, message: PublicMessageIn) -> Result<(StagedCommit, Sender), Refusal> {
        let opened = self.mls.process_message(crypto(), message).map_err(|e| refuse(self, &e))?;
        if opened.aad() != self.room.as_str().as_bytes() {
            return Err(Refusal::because(Code::InvalidCommit, "it is bound to another room"));
        }
        let sender = opened.sender().clone();
        let staged = match opened.into_content() {
            ProcessedMessageContent::StagedCommitMessage(staged) => *staged,
            ProcessedMessageContent::UnresolvedAppDataCommit(commit) => {
                let before = settings::participants(self.mls.group_context())?;
                let updates = commit.app_data_update_proposals();
                let after = facts::participants_after(&before, updates)?;
                let old = self.mls.app_data_dictionary_updater();
                let change = settings::dictionary_change(old, &after);
                self.mls
                    .stage_app_data_commit(crypto(), *commit, change)
                    .map_err(|e| refuse_staging(&e))?
            }
            _ => return Err(Refusal::because(Code::InvalidCommit, "it is no commit")),
        };
        Ok((staged, sender))
    }

    /// Every pending departure must be carried out. Only a join cannot carry out removals, just SelfRemoves: what it drops
    /// is given back.
    fn check_pending(&self, reading: &Reading) -> Result<Vec<DeviceId>, Refusal> {
        let missing = self.pending.iter().filter(|p| !reading.gone.contains(&p.leaf));
        if !reading.facts.external {
            return match missing.count() {
                0 => Ok(Vec::new()),
                _ => Err(Refusal::new(Code::MissingProposal)),
            };
        }
        let mut lost = Vec::new();
        for pending in missing {
            match pending.kind {
                PendingKind::SelfRemove => return Err(Refusal::new(Code::MissingProposal)),
                PendingKind::Remove => lost.push(pending.device.clone()),
            }
        }
        Ok(lost)
    }

    fn merged(&self, staged: StagedCommit, group_info: GroupInfoBytes) -> Result<Self, Error> {
        let (mut mls, storage) = self.copy()?;
        mls.merge_commit(&storage, staged).map_err(|e| Error::Mls(e.to_string()))?;
        Ok(Self {
            room: self.room.clone(),
            mls,
            rows: storage.into_rows(),
            group_info,
            pending: Vec::new(),
        })
    }
}

fn read(bundle: &[u8]) -> Result<Parts, Refusal> {
    if bundle.len() > limit::BUNDLE_BYTES {
        return Err(Refusal::new(Code::TooLarge));
    }
    match HandshakeBundle::decode(bundle)? {
        HandshakeBundle::Commit {
            commit,
            welcome,
            group_info,
            tree: RatchetTreeOption::DistributionService,
        } => Ok(Parts { commit, welcome, group_info }),
        HandshakeBundle::Commit { .. } => {
            Err(Refusal::because(Code::InvalidCommit, "the tree must be left to the hub"))
        }
        HandshakeBundle::Proposals { .. } => {
            Err(Refusal::because(Code::Malformed, "proposals where a commit belongs"))
        }
    }
}

/// The room and the epoch that a handshake names.
pub(super) fn check_frame(hub: &HubGroup, message: &PublicMessageIn) -> Result<(), Refusal> {
    if *message.group_id() != settings::group_id(&hub.room) {
        return Err(Refusal::because(Code::InvalidCommit, "it is for another room"));
    }
    if message.epoch() != hub.mls.group_context().epoch() {
        return Err(Refusal::new(Code::WrongEpoch).at_epoch(hub.epoch()));
    }
    Ok(())
}

/// The KeyPackages that a commit adds, each with its device.
fn welcomed(added: &[Added], now: Timestamp) -> Result<Vec<(KeyPackageRef, DeviceId)>, Refusal> {
    let mut to = Vec::with_capacity(added.len());
    for added in added {
        let info = keypackage::info(&added.package)?;
        if info.not_after < now.after(limit::KEYPACKAGE_REMAINING_AT_HUB) {
            return Err(Refusal::because(Code::BadKeyPackage, "a key package expires too soon"));
        }
        to.push((info.reference, added.certificate.device().clone()));
    }
    Ok(to)
}

/// The Welcome must be for exactly those whom the commit adds.
fn match_welcome(
    welcome: Option<WelcomeBytes>,
    to: Vec<(KeyPackageRef, DeviceId)>,
) -> Result<Option<Welcome>, Refusal> {
    let bad = |why| Refusal::because(Code::InvalidCommit, why);
    let Some(welcome) = welcome else {
        return if to.is_empty() { Ok(None) } else { Err(bad("the Welcome is missing")) };
    };
    // The library's reading as well: what it cannot read, no joiner can.
    let read: MlsWelcome = wire::decode("the Welcome", welcome.as_slice())?;
    let secrets = read.secrets().iter().map(|s| s.new_member().as_slice().to_vec());
    let secrets: Vec<Vec<u8>> = secrets.collect();
    let found: BTreeSet<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
    let wanted: BTreeSet<&[u8]> = to.iter().map(|(r, _)| r.as_bytes().as_slice()).collect();
    if to.is_empty() || found != wanted || found.len() != secrets.len() || wanted.len() != to.len()
    {
        return Err(bad("the Welcome is not for exactly those whom the commit adds"));
    }
    Ok(Some(Welcome { message: welcome.to_message(), to }))
}

/// The GroupInfo must describe the group after the commit: the one thing that shows the confirmation tag to be the
/// committer's own, since no hub can compute it.
fn check_group_info(
    group_info: &GroupInfoBytes,
    staged: &StagedCommit,
    tag: &[u8],
    reading: &Reading,
) -> Result<(), Refusal> {
    let bad = |why| Refusal::because(Code::InvalidCommit, why);
    let read: VerifiableGroupInfo = wire::decode("the GroupInfo", group_info.as_slice())?;
    if read.extensions().external_pub().is_none() {
        return Err(bad("the GroupInfo lacks the key for external joins"));
    }
    if read.extensions().ratchet_tree().is_some() {
        return Err(bad("the tree must be left to the hub"));
    }
    wire::check_group_info(
        group_info.as_slice(),
        &wire::Expected {
            context: &wire::encode(staged.group_context()),
            confirmation_tag: tag,
            signer: reading.leaf,
            key: &reading.key,
        },
    )
}

/// A tree that no joiner takes must not come about by a join: whoever is added could never come in.
fn fits_a_joiner(tree_bytes: usize) -> Result<(), Refusal> {
    if tree_bytes > limit::TREE_BYTES {
        return Err(Refusal::because(Code::TooLarge, "the room's tree would be too large to join"));
    }
    Ok(())
}

fn ours(e: impl std::error::Error) -> Refusal {
    Refusal::because(Code::Internal, e.to_string())
}

/// What the library's no means for the submitter.
pub(super) fn refuse(hub: &HubGroup, e: &PublicProcessMessageError) -> Refusal {
    match e {
        PublicProcessMessageError::ValidationError(ValidationError::WrongEpoch) => {
            Refusal::new(Code::WrongEpoch).at_epoch(hub.epoch())
        }
        PublicProcessMessageError::ValidationError(ValidationError::KeyPackageVerifyError(
            KeyPackageVerifyError::LifetimeError(e),
        )) => Refusal::because(Code::BadKeyPackage, e.to_string()),
        PublicProcessMessageError::InvalidCommit(e) => refuse_staging(e),
        PublicProcessMessageError::LibraryError(e) => ours(e),
        other => Refusal::because(Code::InvalidCommit, other.to_string()),
    }
}

fn refuse_staging(e: &StageCommitError) -> Refusal {
    match e {
        StageCommitError::ProposalValidationError(ProposalValidationError::LeafNodeValidation(
            LeafNodeValidationError::Lifetime(e),
        )) => Refusal::because(Code::BadKeyPackage, e.to_string()),
        other => Refusal::because(Code::InvalidCommit, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_no_joiner_would_take_is_refused() {
        assert!(fits_a_joiner(limit::TREE_BYTES).is_ok());
        assert_eq!(fits_a_joiner(limit::TREE_BYTES + 1).unwrap_err().code, Code::TooLarge);
    }
}
