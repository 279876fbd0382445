//! Signed requests for KeyPackages (draft-ietf-mimi-protocol-06 section 5.2). PROTOCOL §6.5.

use protocol::{Refusal, RoomId, UserId};

use crate::{Certificate, DeviceIdentity, Suite};

/// A verified `KeyMaterialRequest`.
#[derive(Clone, Debug)]
pub struct KeyMaterialRequest {
    /// The device that asks; its user is the requesting user.
    pub from: Certificate,
    /// Whose devices to add.
    pub target: UserId,
    /// To which room.
    pub room: RoomId,
    /// Suites that fit, at least one. Unknown ones are left out.
    pub suites: Vec<Suite>,
}

/// Builds and signs a request: MIMI `KeyMaterialRequest` bytes.
#[must_use]
pub fn request(
    identity: &DeviceIdentity,
    target: &UserId,
    room: &RoomId,
    suites: &[Suite],
) -> Vec<u8> {
    let _ = (identity, target, room, suites);
    todo!()
}

/// Reads a request and checks its signature and its certificate.
///
/// # Errors
/// `Malformed`, or `BadCertificate` when the certificate or the signature does not verify.
pub fn verify(bytes: &[u8]) -> Result<KeyMaterialRequest, Refusal> {
    let _ = bytes;
    todo!()
}
