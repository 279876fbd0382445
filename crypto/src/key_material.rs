//! Signed requests for KeyPackages (draft-ietf-mimi-protocol-06 section 5.2). PROTOCOL §6.5.

use protocol::mimi::{Credential, KeyMaterialRequest as Wire};
use protocol::{Code, Refusal, RoomId, UserId};

use crate::group_info;
use crate::mls::settings;
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
    /// Suites that fit, the preferred one first. Unknown ones are left out, so it may be empty.
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
    let mut request = Wire {
        requesting_user: identity.device().user(),
        target_user: target.clone(),
        room: room.clone(),
        suites: suites.iter().map(|s| s.code()).collect(),
        required: settings::required_numbers(),
        signature_key: identity.certificate().key().as_bytes().to_vec(),
        credential: Credential::basic(identity.certificate().as_bytes()),
        signature: Vec::new(),
    };
    request.signature = identity.key().sign(Wire::LABEL, &request.to_be_signed());
    request.encode()
}

/// Reads a request and checks its signature and its certificate.
///
/// # Errors
/// `Malformed`, or `BadCertificate` when the certificate or the signature does not verify.
pub fn verify(bytes: &[u8]) -> Result<KeyMaterialRequest, Refusal> {
    let request = Wire::decode(bytes)?;
    let from = group_info::signer(&request.credential, &request.signature_key)?;
    if !from.key().verify(Wire::LABEL, &request.to_be_signed(), &request.signature) {
        return Err(group_info::unsigned());
    }
    if from.user() != request.requesting_user {
        return Err(Refusal::because(
            Code::BadCertificate,
            "the request is in another user's name",
        ));
    }
    Ok(KeyMaterialRequest {
        from,
        target: request.target_user,
        room: request.room,
        suites: request.suites.into_iter().filter_map(Suite::from_code).collect(),
    })
}

#[cfg(test)]
mod tests {
    use protocol::{DeviceId, Timestamp};

    use super::*;
    use crate::{DeviceKey, IdentityKey};

    fn device() -> DeviceIdentity {
        let key = DeviceKey::from_bytes(&[2; 32]);
        let device = DeviceId::parse("mimi://a.example/d/ana/1").unwrap();
        let identity = IdentityKey::from_bytes(&[1; 32]);
        let certificate = identity.certify(&device, &key.public(), Timestamp::from_ms(1));
        DeviceIdentity::new(key, certificate).unwrap()
    }

    #[test]
    fn a_request_says_who_asks_for_whom_and_where_and_no_bit_of_it_can_change() {
        let bo = UserId::parse("mimi://b.example/u/bo").unwrap();
        let room = RoomId::parse("mimi://a.example/r/x").unwrap();
        let bytes = request(&device(), &bo, &room, &[Suite::Hybrid, Suite::Classic]);
        let read = verify(&bytes).unwrap();
        assert_eq!(read.from, *device().certificate());
        assert_eq!((read.target, read.room), (bo, room));
        assert_eq!(read.suites, [Suite::Hybrid, Suite::Classic]);
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            assert!(verify(&bad).is_err(), "byte {i}");
        }
    }

    #[test]
    fn a_request_in_another_users_name_is_refused() {
        let mut wire = Wire::decode(&request(
            &device(),
            &UserId::parse("mimi://b.example/u/bo").unwrap(),
            &RoomId::parse("mimi://a.example/r/x").unwrap(),
            &[Suite::Classic],
        ))
        .unwrap();
        wire.requesting_user = UserId::parse("mimi://a.example/u/eve").unwrap();
        wire.signature = device().key().sign(Wire::LABEL, &wire.to_be_signed());
        assert_eq!(verify(&wire.encode()).unwrap_err().code, Code::BadCertificate);
    }
}
