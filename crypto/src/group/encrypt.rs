//! Sending.

use openmls::group::{CreateMessageError, MlsGroupStateError};
use protocol::{Code, Entropy, Refusal};

use super::Group;
use crate::Error;
use crate::mls::{Provider, wire};

impl Group {
    /// Encrypts a message for the present epoch: `MLSMessage` bytes, padded to the next `limit::PADDING_BYTES`. The room's
    /// URI goes along as authenticated data (PROTOCOL §7.5).
    ///
    /// # Errors
    /// `MissingProposal` while a proposal is pending (commit it first), `NotAllowed` after removal; or ours.
    pub fn encrypt(&mut self, content: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, Error> {
        self.bind_to_room();
        let provider = Provider::new(&self.storage, entropy);
        match self.mls.create_message(&provider, self.identity.key(), content) {
            Ok(message) => Ok(wire::encode(&message)),
            Err(CreateMessageError::GroupStateError(MlsGroupStateError::PendingProposal)) => {
                Err(Refusal::new(Code::MissingProposal).into())
            }
            Err(CreateMessageError::GroupStateError(_)) => {
                Err(Refusal::because(Code::NotAllowed, "this device is not in the room").into())
            }
            Err(CreateMessageError::LibraryError(e)) => Err(Error::Mls(e.to_string())),
        }
    }
}
