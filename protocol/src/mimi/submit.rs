//! `submitMessage`: an application message for a room (draft-ietf-mimi-protocol-06 section 5.4).

use super::bytes::ApplicationBytes;
use super::{MLS10, body, field};
use crate::tls::{Malformed, Reader, Write};
use crate::{Epoch, Timestamp, UserId, limit};

/// Hands an application message to the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmitMessageRequest {
    /// The message.
    pub message: ApplicationBytes,
    /// Whose it is; told to the hub, never to followers.
    pub sender: UserId,
}

body!(SubmitMessageRequest, limit::MESSAGE_BYTES + limit::URI_BYTES + 16);

impl SubmitMessageRequest {
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(MLS10);
        self.message.write(out);
        out.put_vector(self.sender.as_str().as_bytes());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        field::mls10(r)?;
        Ok(Self { message: ApplicationBytes::read(r)?, sender: field::user(r)? })
    }
}

/// The hub's answer to a [`SubmitMessageRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmitMessageResponse {
    /// What became of it.
    pub outcome: SubmitOutcome,
}

/// What became of a [`SubmitMessageRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitOutcome {
    /// In the room's log.
    Accepted {
        /// Since when, hub clock.
        at: Timestamp,
        /// The hub's mark for abuse reports; ours sets none.
        frank: Option<Frank>,
    },
    /// Not a participant, or may not send.
    NotAllowed,
    /// Encrypted for an epoch before this one.
    EpochTooOld(Epoch),
}

body!(SubmitMessageResponse, limit::REQUEST_BYTES);

impl SubmitMessageResponse {
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(MLS10);
        match &self.outcome {
            SubmitOutcome::Accepted { at, frank } => {
                out.put_u8(0);
                out.put_u64(at.ms());
                out.put_optional(frank.as_ref(), |out, frank| frank.write(out));
            }
            SubmitOutcome::NotAllowed => out.put_u8(1),
            SubmitOutcome::EpochTooOld(epoch) => {
                out.put_u8(2);
                out.put_u64(epoch.get());
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        field::mls10(r)?;
        let start = *r;
        let outcome = match r.u8()? {
            0 => SubmitOutcome::Accepted {
                at: Timestamp::from_ms(r.u64()?),
                frank: field::optional(r, Frank::read)?,
            },
            1 => SubmitOutcome::NotAllowed,
            2 => SubmitOutcome::EpochTooOld(Epoch::new(r.u64()?)),
            _ => return Err(start.fail("an unknown status of a submission")),
        };
        Ok(Self { outcome })
    }
}

/// A hub's mark on a message, by which an abuse report proves that it was sent (section 5.4.2). Carried, never made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frank {
    /// HMAC under the hub's key.
    pub server_frank: [u8; 32],
    /// Cipher suite of the signature.
    pub suite: u16,
    /// The hub's signature.
    pub signature: Vec<u8>,
}

impl Frank {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_raw(&self.server_frank);
        out.put_u16(self.suite);
        out.put_vector(&self.signature);
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { server_frank: r.array()?, suite: r.u16()?, signature: field::signature(r)? })
    }
}
