//! What a device needs to enter a room by its own commit: a signed request and the hub's sealed answer. PROTOCOL §6.6.

use protocol::Refusal;

use crate::{Certificate, Suite};

/// A verified `GroupInfoRequest`. It proves who asks; not for which room, nor when.
#[derive(Clone, Debug)]
pub struct GroupInfoRequest {
    /// The device that asks.
    pub from: Certificate,
    /// The suite of its key.
    pub suite: Suite,
    pub(crate) hpke_key: Vec<u8>,
}

/// Reads a request and checks its signature and its certificate.
///
/// # Errors
/// `Malformed`, or `BadCertificate` when the certificate or the signature does not verify.
pub fn verify(bytes: &[u8]) -> Result<GroupInfoRequest, Refusal> {
    let _ = bytes;
    todo!()
}
