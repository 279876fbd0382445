//! What a device needs to enter a room by its own commit: a signed request and the hub's sealed answer. PROTOCOL §6.6.

use openmls_traits::crypto::OpenMlsCrypto as _;
use openmls_traits::types::{HpkeCiphertext as LibraryCiphertext, HpkePrivateKey};
use protocol::mimi::{
    Credential, ExternalSender, GroupInfoAnswer, GroupInfoRatchetTree, GroupInfoResponse,
    HpkeCiphertext, SealedGroupInfo,
};
use protocol::{Code, Entropy, Refusal, RoomId};
use tls_codec::VLByteSlice;
use zeroize::Zeroizing;

use crate::mls::{crypto, wire};
use crate::{Certificate, DeviceIdentity, Error, NodeKey, PublicKey, Suite};

/// A verified `GroupInfoRequest`. It proves who asks; not for which room, nor when.
#[derive(Clone, Debug)]
pub struct GroupInfoRequest {
    /// The device that asks.
    pub from: Certificate,
    /// The suite of the answer's seal.
    pub suite: Suite,
    hpke_key: Vec<u8>,
}

/// Reads a request and checks its signature and its certificate.
///
/// # Errors
/// `Malformed`, or `BadCertificate` when the certificate or the signature does not verify.
pub fn verify(bytes: &[u8]) -> Result<GroupInfoRequest, Refusal> {
    let request = protocol::mimi::GroupInfoRequest::decode(bytes)?;
    let from = signer(&request.credential, &request.signature_key)?;
    let label = protocol::mimi::GroupInfoRequest::LABEL;
    if !from.key().verify(label, &request.to_be_signed(), &request.signature) {
        return Err(unsigned());
    }
    let suite = Suite::from_code(request.suite)
        .ok_or(Refusal::because(Code::Malformed, "unknown cipher suite"))?;
    Ok(GroupInfoRequest { from, suite, hpke_key: request.hpke_key })
}

/// The device that a request says it is from.
pub(crate) fn signer(credential: &Credential, key: &[u8]) -> Result<Certificate, Refusal> {
    let none = || Refusal::because(Code::BadCertificate, "the request has no device certificate");
    let certificate = Certificate::verify(credential.identity().ok_or_else(none)?)?;
    if certificate.key().as_bytes() == key {
        Ok(certificate)
    } else {
        Err(Refusal::because(Code::BadCertificate, "the device certificate is for another key"))
    }
}

pub(crate) fn unsigned() -> Refusal {
    Refusal::because(Code::BadCertificate, "the request's signature does not verify")
}

/// Makes a request and the key that opens its answer.
pub(crate) fn request(
    identity: &DeviceIdentity,
    suite: Suite,
    entropy: &dyn Entropy,
) -> Result<(Vec<u8>, AnswerKey), Error> {
    let seed = Zeroizing::new(entropy.bytes32());
    let pair = crypto()
        .derive_hpke_keypair(suite.mls().hpke_config(), seed.as_slice())
        .map_err(|e| Error::Mls(e.to_string()))?;
    let mut request = protocol::mimi::GroupInfoRequest {
        suite: suite.code(),
        signature_key: identity.certificate().key().as_bytes().to_vec(),
        credential: Credential::basic(identity.certificate().as_bytes()),
        hpke_key: pair.public,
        joining_code: None,
        signature: Vec::new(),
    };
    request.signature =
        identity.key().sign(protocol::mimi::GroupInfoRequest::LABEL, &request.to_be_signed());
    Ok((request.encode(), AnswerKey { suite, private: pair.private }))
}

/// Opens one answer.
pub(crate) struct AnswerKey {
    suite: Suite,
    private: HpkePrivateKey,
}

impl AnswerKey {
    /// Checks that the answer is the hub's, for this room and for us, and opens it.
    pub(crate) fn open(
        &self,
        room: &RoomId,
        response: &[u8],
        hub_key: &PublicKey,
    ) -> Result<GroupInfoRatchetTree, Refusal> {
        let response = GroupInfoResponse::decode(response)?;
        let sealed = match response.answer {
            GroupInfoAnswer::Success(sealed) => sealed,
            GroupInfoAnswer::NotAuthorized => return Err(Refusal::new(Code::NotAllowed)),
            GroupInfoAnswer::NoSuchRoom => return Err(Refusal::new(Code::NotFound)),
        };
        let signed = GroupInfoResponse::to_be_signed(&response.room, &sealed);
        if response.room != *room
            || !hub_key.verify(GroupInfoResponse::LABEL, &signed, &sealed.signature)
        {
            return Err(Refusal::because(Code::InvalidCommit, "the answer is not the hub's"));
        }
        let ciphertext = LibraryCiphertext {
            kem_output: sealed.sealed.kem_output.into(),
            ciphertext: sealed.sealed.ciphertext.into(),
        };
        let private: &[u8] = &self.private;
        let opened = crypto()
            .hpke_open(self.suite.mls().hpke_config(), &ciphertext, private, &info(room), &[])
            .map_err(|_| Refusal::because(Code::Malformed, "the answer is sealed for another"))?;
        Ok(GroupInfoRatchetTree::decode(&opened)?)
    }
}

/// Seals an answer to the one who asked, and signs it: MIMI `GroupInfoResponse` bytes.
pub(crate) fn seal(
    room: &RoomId,
    request: &GroupInfoRequest,
    content: &GroupInfoRatchetTree,
    hub_key: &NodeKey,
) -> Result<Vec<u8>, Refusal> {
    let sealed = crypto()
        .hpke_seal(
            request.suite.mls().hpke_config(),
            &request.hpke_key,
            &info(room),
            &[],
            &content.encode(),
        )
        .map_err(|_| Refusal::because(Code::Malformed, "the request's key is not valid"))?;
    let mut sealed = SealedGroupInfo {
        suite: request.suite.code(),
        hub: ExternalSender {
            signature_key: hub_key.public().as_bytes().to_vec(),
            credential: Credential::basic(room.hub().uri()),
        },
        sealed: HpkeCiphertext {
            kem_output: sealed.kem_output.as_slice().to_vec(),
            ciphertext: sealed.ciphertext.as_slice().to_vec(),
        },
        signature: Vec::new(),
    };
    let signed = GroupInfoResponse::to_be_signed(room, &sealed);
    sealed.signature = hub_key.sign(GroupInfoResponse::LABEL, &signed);
    let answer = GroupInfoAnswer::Success(sealed);
    Ok(GroupInfoResponse { room: room.clone(), answer }.encode())
}

/// RFC 9420 §5.1.3: `EncryptContext { opaque label<V> = "MLS 1.0 " + label; opaque context<V> }`.
fn info(room: &RoomId) -> Vec<u8> {
    let label = format!("MLS 1.0 {}", GroupInfoRatchetTree::LABEL);
    let parts = [label.as_bytes(), room.as_str().as_bytes()];
    parts.map(|part| wire::encode(&VLByteSlice(part))).concat()
}
