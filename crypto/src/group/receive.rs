//! Opening entries of a room's log.

use openmls::framing::errors::{MessageDecryptionError, SecretTreeError};
use openmls::group::{
    ProcessMessageError, ProposalValidationError, StageCommitError, ValidationError,
};
use openmls::prelude::{
    KeyPackageVerifyError, MlsMessageBodyIn, ProcessedMessage, ProcessedMessageContent,
    ProtocolMessage, QueuedProposal, Sender,
};
use openmls::treesync::errors::{ApplyUpdatePathError, LeafNodeValidationError};
use protocol::Epoch;

use super::{Group, Message, Proposed, Received, StagedCommit, Why, is_own, ours};
use crate::Error;
use crate::mls::storage::StorageError;
use crate::mls::{Provider, facts, settings, wire};

impl Group {
    /// Opens an entry of the room's log: one `MLSMessage`.
    ///
    /// # Errors
    /// Ours only; whatever is wrong with the entry is [`Received::Unreadable`].
    pub fn receive(&mut self, message: &[u8]) -> Result<Received, Error> {
        let read = match self.read(message) {
            Ok(read) => read,
            Err(why) => return Ok(Received::Unreadable(why)),
        };
        let Some(read) = read else { return Ok(Received::OwnCommit { merged: true }) };
        let provider = Provider::without_chance(&self.storage);
        let opened = match self.mls.process_message(&provider, read) {
            Ok(opened) => opened,
            Err(e) => return why(&e).map(Received::Unreadable),
        };
        // The hub's own proposals carry no such data: the library gives no way to add it.
        if !matches!(opened.sender(), Sender::External(_))
            && opened.aad() != self.room.as_str().as_bytes()
        {
            return Ok(forged("it is bound to another room"));
        }
        self.sort(opened).or_else(|e| match e {
            Error::Refused(refusal) => Ok(forged(&refusal.detail)),
            ours => Err(ours),
        })
    }

    /// Reads the framing. `None` is our own external commit or one merged before.
    fn read(&self, bytes: &[u8]) -> Result<Option<ProtocolMessage>, Why> {
        let forged = |why: &str| Why::Forged(why.to_owned());
        let body = wire::message(bytes).map_err(|r| Why::Forged(r.detail))?;
        let message: ProtocolMessage = match body {
            MlsMessageBodyIn::PublicMessage(m) => m.into(),
            MlsMessageBodyIn::PrivateMessage(m) => m.into(),
            _ => return Err(forged("it is no message to a group")),
        };
        if *message.group_id() != settings::group_id(&self.room) {
            return Err(forged("it is for another room"));
        }
        if !self.is_member() {
            return Err(Why::OutOfStep);
        }
        let epoch = Epoch::new(message.epoch().as_u64());
        if epoch > self.epoch() {
            return Err(Why::OutOfStep);
        }
        if message.is_handshake_message() && epoch < self.epoch() {
            return if is_own(&self.storage, bytes) { Ok(None) } else { Err(Why::TooOld) };
        }
        Ok(Some(message))
    }

    fn sort(&mut self, opened: ProcessedMessage) -> Result<Received, Error> {
        let sender = opened.sender().clone();
        let epoch = Epoch::new(opened.epoch().as_u64());
        let credential = opened.credential().clone();
        match opened.into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => {
                let from = facts::certificate(&credential)?.device().clone();
                Ok(Received::Application(Message { from, epoch, content: message.into_bytes() }))
            }
            ProcessedMessageContent::OwnPrivateMessage => Ok(Received::Own),
            ProcessedMessageContent::OwnPendingCommit => Ok(Received::OwnCommit { merged: false }),
            ProcessedMessageContent::ProposalMessage(proposal) => self.keep(*proposal),
            ProcessedMessageContent::ExternalJoinProposalMessage(_) => {
                Ok(forged("nobody proposes to add themselves here"))
            }
            ProcessedMessageContent::StagedCommitMessage(staged) => self.stage(*staged, &sender),
            ProcessedMessageContent::UnresolvedAppDataCommit(commit) => {
                let context = self.mls.public_group().group_context();
                let before = settings::participants(context)?;
                let updates = commit.app_data_update_proposals();
                let after = facts::participants_after(&before, updates)?;
                let old = self.mls.app_data_dictionary_updater();
                let change = settings::dictionary_change(old, &after);
                let provider = Provider::without_chance(&self.storage);
                match self.mls.stage_app_data_commit(&provider, *commit, change) {
                    Ok(staged) => self.stage(staged, &sender),
                    Err(e) => Ok(Received::Unreadable(why_not_staged(&e))),
                }
            }
        }
    }

    fn keep(&mut self, proposal: QueuedProposal) -> Result<Received, Error> {
        let departure = facts::departure(&self.roster()?, &proposal)?;
        self.mls.store_pending_proposal(&self.storage, proposal).map_err(ours)?;
        Ok(Received::Proposal(Proposed { by: departure.by, device: departure.device }))
    }

    fn stage(
        &self,
        staged: openmls::group::StagedCommit,
        sender: &Sender,
    ) -> Result<Received, Error> {
        let reading = facts::read(&facts::Source {
            staged: &staged,
            sender,
            external_leaf: self.mls.ext_commit_sender_index(&staged).map_err(ours)?.u32(),
            roster: &self.roster()?,
            context: self.mls.public_group().group_context(),
        })?;
        Ok(Received::Commit(Box::new(StagedCommit {
            mls: staged,
            facts: reading.facts,
            certificates: reading.certificates,
        })))
    }
}

fn forged(why: &str) -> Received {
    Received::Unreadable(Why::Forged(why.to_owned()))
}

/// What the library's no means for the device.
fn why(e: &ProcessMessageError<StorageError>) -> Result<Why, Error> {
    Ok(match e {
        ProcessMessageError::StorageError(_) | ProcessMessageError::LibraryError(_) => {
            return Err(Error::Mls(e.to_string()));
        }
        ProcessMessageError::ValidationError(e) => why_not_valid(e),
        ProcessMessageError::InvalidCommit(e) => why_not_staged(e),
        ProcessMessageError::GroupStateError(_) => Why::OutOfStep,
        ProcessMessageError::IncompatibleWireFormat
        | ProcessMessageError::UnauthorizedExternalApplicationMessage
        | ProcessMessageError::UnauthorizedExternalCommitMessage
        | ProcessMessageError::UnsupportedProposalType
        | ProcessMessageError::MalformedSafeAad => Why::Forged(e.to_string()),
    })
}

fn why_not_valid(e: &ValidationError) -> Why {
    use MessageDecryptionError::SecretTreeError as Keys;
    match e {
        ValidationError::UnableToDecrypt(Keys(SecretTreeError::SecretReuseError)) => Why::Duplicate,
        ValidationError::UnableToDecrypt(Keys(SecretTreeError::TooDistantInThePast))
        | ValidationError::NoPastEpochData => Why::TooOld,
        ValidationError::UnableToDecrypt(Keys(SecretTreeError::TooDistantInTheFuture))
        | ValidationError::WrongEpoch => Why::OutOfStep,
        ValidationError::KeyPackageVerifyError(KeyPackageVerifyError::LifetimeError(_)) => {
            Why::WaitForClock
        }
        other => Why::Forged(other.to_string()),
    }
}

fn why_not_staged(e: &StageCommitError) -> Why {
    use LeafNodeValidationError::Lifetime;
    match e {
        StageCommitError::LeafNodeValidation(Lifetime(_))
        | StageCommitError::ProposalValidationError(ProposalValidationError::LeafNodeValidation(
            Lifetime(_),
        )) => Why::WaitForClock,
        StageCommitError::OwnCommitMismatch
        | StageCommitError::MissingProposal
        | StageCommitError::MissingDecryptionKey
        | StageCommitError::OwnKeyNotFound
        | StageCommitError::UpdatePathError(ApplyUpdatePathError::UnableToDecrypt)
        | StageCommitError::ConfirmationTagMismatch => Why::OutOfStep,
        other => Why::Forged(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use openmls::treesync::errors::LifetimeError;

    use super::*;

    #[test]
    fn a_clock_that_is_wrong_either_way_means_wait_and_never_forged() {
        let early = LifetimeError::NotValidYet { not_before: 2, now: 1 };
        let late = LifetimeError::Expired { not_after: 1, now: 2 };
        for e in [early, late] {
            let package = KeyPackageVerifyError::LifetimeError(e.clone());
            assert_eq!(why_not_valid(&package.into()), Why::WaitForClock);
            let leaf = LeafNodeValidationError::Lifetime(e);
            assert_eq!(why_not_staged(&leaf.clone().into()), Why::WaitForClock);
            let proposal = ProposalValidationError::LeafNodeValidation(leaf);
            assert_eq!(why_not_staged(&proposal.into()), Why::WaitForClock);
        }
    }
}
