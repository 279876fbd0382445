//! MLS bytes in and out through the library, and what is signed around them.

use openmls::prelude::{MlsMessageBodyIn, MlsMessageIn, PublicMessageIn};
use protocol::{Code, Refusal, RoomId};
use sha2::{Digest as _, Sha256};
use tls_codec::{Deserialize, Serialize, VLBytes};

use crate::PublicKey;

/// The label of a bundle's signature. PROTOCOL §7.4.
pub(crate) const BUNDLE_LABEL: &str = "FedBundleTBS";
/// RFC 9420 §12.4.3: the label of a GroupInfo's signature.
const GROUP_INFO_LABEL: &str = "GroupInfoTBS";

pub(crate) fn malformed(what: &str) -> Refusal {
    Refusal::because(Code::Malformed, format!("{what} could not be read"))
}

/// The bytes of a value that is known to fit.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    value
        .tls_serialize_detached()
        .expect("writing to memory does not fail, and lengths are bounded")
}

/// Reads a value and requires that nothing follows.
pub(crate) fn decode<T: Deserialize>(what: &str, bytes: &[u8]) -> Result<T, Refusal> {
    let mut rest = bytes;
    let value = take(what, &mut rest)?;
    if rest.is_empty() { Ok(value) } else { Err(malformed(what)) }
}

fn take<T: Deserialize>(what: &str, rest: &mut &[u8]) -> Result<T, Refusal> {
    T::tls_deserialize(rest).map_err(|_| malformed(what))
}

/// Reads an `MLSMessage` whole.
pub(crate) fn message(bytes: &[u8]) -> Result<MlsMessageBodyIn, Refusal> {
    Ok(decode::<MlsMessageIn>("the MLS message", bytes)?.extract())
}

/// Reads an `MLSMessage` that is a PublicMessage.
pub(crate) fn public_message(bytes: &[u8]) -> Result<PublicMessageIn, Refusal> {
    match message(bytes)? {
        MlsMessageBodyIn::PublicMessage(message) => Ok(message),
        _ => Err(malformed("the handshake message")),
    }
}

/// What a bundle's signature covers. PROTOCOL §7.4.
pub(crate) fn bundle_content(bundle: &[u8], room: &RoomId) -> Vec<u8> {
    [Sha256::digest(bundle).as_slice(), room.as_str().as_bytes()].concat()
}

/// Checks a bundle's signature. PROTOCOL §7.4.
pub(crate) fn check_bundle(
    bundle: &[u8],
    room: &RoomId,
    key: &PublicKey,
    signature: &[u8],
) -> Result<(), Refusal> {
    if key.verify(BUNDLE_LABEL, &bundle_content(bundle, room), signature) {
        Ok(())
    } else {
        Err(Refusal::because(Code::InvalidCommit, "the bundle's signature does not verify"))
    }
}

/// What a GroupInfo must be.
pub(crate) struct Expected<'a> {
    /// The group context, encoded.
    pub(crate) context: &'a [u8],
    /// The confirmation tag, encoded.
    pub(crate) confirmation_tag: &'a [u8],
    /// The signer's leaf and key.
    pub(crate) signer: u32,
    pub(crate) key: &'a PublicKey,
}

/// Checks that `bytes` is the GroupInfo that is expected. Compared by its bytes: the library would verify every leaf of the
/// tree once more.
pub(crate) fn check_group_info(bytes: &[u8], expected: &Expected<'_>) -> Result<(), Refusal> {
    const WHAT: &str = "the GroupInfo";
    let bad = |why| Refusal::because(Code::InvalidCommit, format!("the GroupInfo {why}"));
    let mut rest = bytes
        .strip_prefix(expected.context)
        .ok_or(bad("does not describe the group after the commit"))?;
    let _extensions: VLBytes = take(WHAT, &mut rest)?;
    rest = rest
        .strip_prefix(expected.confirmation_tag)
        .ok_or(bad("has another confirmation tag than the commit"))?;
    let signer: u32 = take(WHAT, &mut rest)?;
    let end = bytes.len().saturating_sub(rest.len());
    let signature: VLBytes = take(WHAT, &mut rest)?;
    let content = bytes.get(..end).ok_or_else(|| malformed(WHAT))?;
    if rest.is_empty()
        && signer == expected.signer
        && expected.key.verify(GROUP_INFO_LABEL, content, signature.as_slice())
    {
        Ok(())
    } else {
        Err(bad("is not signed by the committer"))
    }
}
