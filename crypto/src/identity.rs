//! Who is who: a user's identity key, a device's key and its certificate, a node's key.
//!
//! A user's devices share the identity key; it signs each device's certificate, and the certificate is the device's MLS
//! credential. So a node cannot add a ghost device: it has no identity key to certify one with.

use std::fmt;

use ed25519_dalek::SigningKey;
use openmls::prelude::{BasicCredential, CredentialWithKey};
use openmls_traits::signatures::SignerError;
use openmls_traits::types::SignatureScheme;
use protocol::{Code, DeviceId, Entropy, Refusal, Timestamp, UserId, limit};
use sha2::{Digest as _, Sha512};
use tls_codec::{Deserialize as _, Serialize as _, TlsDeserialize, TlsSerialize, TlsSize, VLBytes};
use zeroize::Zeroizing;

use crate::sign::{self, PublicKey};

macro_rules! signing_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SigningKey);

        impl $name {
            /// A fresh key.
            #[must_use]
            pub fn generate(entropy: &dyn Entropy) -> Self {
                let seed = Zeroizing::new(entropy.bytes32());
                Self(SigningKey::from_bytes(&seed))
            }

            /// The key from its 32 secret bytes.
            #[must_use]
            pub fn from_bytes(bytes: &[u8; 32]) -> Self {
                Self(SigningKey::from_bytes(bytes))
            }

            /// The 32 secret bytes.
            #[must_use]
            pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
                Zeroizing::new(self.0.to_bytes())
            }

            /// The public half.
            #[must_use]
            pub fn public(&self) -> PublicKey {
                PublicKey::from_bytes(self.0.verifying_key().to_bytes())
            }

            /// Signs `message` under `label` (RFC 9420 `SignWithLabel`): 64 bytes.
            #[must_use]
            pub fn sign(&self, label: &str, message: &[u8]) -> Vec<u8> {
                sign::sign(&self.0, label, message)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.public()).finish()
            }
        }
    };
}

signing_key!(
    /// A user's identity: made on the first device, kept by that user's devices and nobody else.
    IdentityKey
);
signing_key!(
    /// One device's MLS signature key. It never leaves the device.
    DeviceKey
);
signing_key!(
    /// A node's own key (TLS certificates are issued under it), or the key with which it proposes and answers as a hub.
    NodeKey
);

macro_rules! signs_for_the_library {
    ($name:ident) => {
        impl openmls_traits::signatures::Signer for $name {
            fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
                // The library has put its label around the payload already.
                Ok(ed25519_dalek::Signer::sign(&self.0, payload).to_bytes().to_vec())
            }

            fn signature_scheme(&self) -> SignatureScheme {
                SignatureScheme::ED25519
            }
        }
    };
}
signs_for_the_library!(DeviceKey);
signs_for_the_library!(NodeKey);

impl IdentityKey {
    /// Certifies that `key` is the signature key of `device`, which belongs to this identity's user. PROTOCOL §7.1.
    #[must_use]
    pub fn certify(&self, device: &DeviceId, key: &PublicKey, issued: Timestamp) -> Certificate {
        let body = CertificateBody {
            version: CERTIFICATE_VERSION,
            device: device.as_str().as_bytes().into(),
            user: device.user().as_str().as_bytes().into(),
            identity_key: *self.public().as_bytes(),
            signature_key: *key.as_bytes(),
            issued_ms: issued.ms(),
        };
        let mut bytes = body.tls_serialize_detached().expect("URIs fit their length fields");
        let signature = self.sign(CERTIFICATE_LABEL, &bytes);
        bytes.extend_from_slice(&signature);
        Certificate { device: device.clone(), identity: self.public(), key: *key, issued, bytes }
    }
}

impl NodeKey {
    /// The key as PKCS#8 DER, for TLS.
    #[must_use]
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        // RFC 8410 section 7: version 0, id-Ed25519, the seed in an octet string in an octet string.
        const PREFIX: [u8; 16] = [
            0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22,
            0x04, 0x20,
        ];
        let mut der = Zeroizing::new(Vec::with_capacity(PREFIX.len() + 32));
        der.extend_from_slice(&PREFIX);
        der.extend_from_slice(self.0.as_bytes());
        der
    }
}

const CERTIFICATE_VERSION: u8 = 1;
const CERTIFICATE_LABEL: &str = "WaxwingDeviceCertificate";
const SIGNATURE_BYTES: usize = 64;
/// Version, two URIs with their lengths, two keys, a time, a signature.
const CERTIFICATE_BYTES_MAX: usize = 1 + 2 * (limit::URI_BYTES + 2) + 2 * 32 + 8 + SIGNATURE_BYTES;

/// What the signature covers. PROTOCOL §7.1.
#[derive(TlsSerialize, TlsDeserialize, TlsSize)]
struct CertificateBody {
    version: u8,
    device: VLBytes,
    user: VLBytes,
    identity_key: [u8; 32],
    signature_key: [u8; 32],
    issued_ms: u64,
}

/// A device's certificate, verified. PROTOCOL §7.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    device: DeviceId,
    identity: PublicKey,
    key: PublicKey,
    issued: Timestamp,
    bytes: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate and checks it: lengths, that the device is the user's, and the identity key's signature.
    ///
    /// Whether the identity key is the one this user has is for the caller: pins, and what the user's node says.
    ///
    /// # Errors
    /// `BadCertificate`.
    pub fn verify(bytes: &[u8]) -> Result<Self, Refusal> {
        let certificate = Self::read(bytes)?;
        let (body, signature) = bytes
            .split_at_checked(bytes.len().saturating_sub(SIGNATURE_BYTES))
            .ok_or(Refusal::new(Code::BadCertificate))?;
        if certificate.identity.verify(CERTIFICATE_LABEL, body, signature) {
            Ok(certificate)
        } else {
            Err(bad("the signature does not verify"))
        }
    }

    /// Reads a certificate without checking the signature: for leaves that were checked when they came in.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > CERTIFICATE_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        let mut rest = bytes;
        let body = CertificateBody::tls_deserialize(&mut rest).map_err(|_| bad("it is damaged"))?;
        if body.version != CERTIFICATE_VERSION {
            return Err(bad("unknown version"));
        }
        if rest.len() != SIGNATURE_BYTES {
            return Err(bad("it is damaged"));
        }
        let text = |bytes: &VLBytes| String::from_utf8(bytes.as_slice().to_vec()).ok();
        let device = text(&body.device).and_then(|t| DeviceId::parse(&t).ok());
        let user = text(&body.user).and_then(|t| UserId::parse(&t).ok());
        let (Some(device), Some(user)) = (device, user) else {
            return Err(bad("a URI is not valid"));
        };
        if device.user() != user {
            return Err(bad("the device is not the user's"));
        }
        Ok(Self {
            device,
            identity: PublicKey::from_bytes(body.identity_key),
            key: PublicKey::from_bytes(body.signature_key),
            issued: Timestamp::from_ms(body.issued_ms),
            bytes: bytes.to_vec(),
        })
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &DeviceId {
        &self.device
    }

    /// Whose device it is.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.device.user()
    }

    /// The identity key that signed it.
    #[must_use]
    pub fn identity(&self) -> &PublicKey {
        &self.identity
    }

    /// The device's signature key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// When it was signed, by the signing device's clock.
    #[must_use]
    pub fn issued(&self) -> Timestamp {
        self.issued
    }

    /// The certificate as bytes; as MLS credential and in the device API.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a device is in MLS: its key and the certificate over it.
#[derive(Clone, Debug)]
pub struct DeviceIdentity {
    key: DeviceKey,
    certificate: Certificate,
}

impl DeviceIdentity {
    /// Puts the two together.
    ///
    /// # Errors
    /// `BadCertificate` when the certificate is for another key.
    pub fn new(key: DeviceKey, certificate: Certificate) -> Result<Self, Refusal> {
        if key.public() == certificate.key {
            Ok(Self { key, certificate })
        } else {
            Err(bad("it is for another key"))
        }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &DeviceKey {
        &self.key
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &DeviceId {
        self.certificate.device()
    }

    /// The two as the MLS library wants them.
    pub(crate) fn credential(&self) -> CredentialWithKey {
        CredentialWithKey {
            credential: BasicCredential::new(self.certificate.bytes.clone()).into(),
            signature_key: self.certificate.key.as_bytes().as_slice().into(),
        }
    }
}

/// The number two people compare to be sure of each other's identity keys: 12 groups of 5 digits, the same on both sides.
#[must_use]
pub fn safety_number(a: (&UserId, &PublicKey), b: (&UserId, &PublicKey)) -> String {
    let mut sides = [a, b];
    sides.sort_unstable();
    let mut hash = Sha512::new_with_prefix(b"waxwing safety number 1");
    for (user, key) in sides {
        hash.update(user.as_str().as_bytes());
        // No URI holds a zero byte, so the boundary is clear.
        hash.update([0]);
        hash.update(key.as_bytes());
    }
    let digest = hash.finalize();
    let group = |bytes: &[u8]| bytes.iter().fold(0, |n: u64, b| (n << 8) | u64::from(*b)) % 100_000;
    let groups: Vec<String> =
        digest.chunks_exact(5).take(12).map(|c| format!("{:05}", group(c))).collect();
    groups.join(" ")
}

fn bad(why: &str) -> Refusal {
    Refusal::because(Code::BadCertificate, format!("device certificate: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> IdentityKey {
        IdentityKey::from_bytes(&[n; 32])
    }

    fn device(text: &str) -> DeviceId {
        DeviceId::parse(text).unwrap()
    }

    fn certificate() -> Certificate {
        let leaf = DeviceKey::from_bytes(&[9; 32]);
        key(1).certify(&device("mimi://a.example/d/ana/1"), &leaf.public(), Timestamp::from_ms(5))
    }

    #[test]
    fn a_certificate_verifies_and_says_what_was_certified() {
        let made = certificate();
        let read = Certificate::verify(made.as_bytes()).unwrap();
        assert_eq!(read, made);
        assert_eq!(read.user().as_str(), "mimi://a.example/u/ana");
        assert_eq!(*read.identity(), key(1).public());
    }

    #[test]
    fn a_certificate_with_any_bit_changed_is_refused() {
        let good = certificate();
        for i in 0..good.as_bytes().len() {
            let mut bytes = good.as_bytes().to_vec();
            bytes[i] ^= 1;
            let refusal = Certificate::verify(&bytes).unwrap_err();
            assert_eq!(refusal.code, Code::BadCertificate, "byte {i}");
        }
        for cut in 0..good.as_bytes().len() {
            assert!(Certificate::verify(&good.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Certificate::verify(&[good.as_bytes(), &[0]].concat()).is_err(), "a byte more");
    }

    #[test]
    fn a_certificate_for_somebody_elses_device_is_refused() {
        let body = CertificateBody {
            version: 1,
            device: b"mimi://a.example/d/ana/1".as_slice().into(),
            user: b"mimi://a.example/u/eve".as_slice().into(),
            identity_key: *key(1).public().as_bytes(),
            signature_key: [9; 32],
            issued_ms: 5,
        };
        let mut bytes = body.tls_serialize_detached().unwrap();
        let signature = key(1).sign(CERTIFICATE_LABEL, &bytes);
        bytes.extend_from_slice(&signature);
        assert_eq!(Certificate::verify(&bytes).unwrap_err().code, Code::BadCertificate);
    }

    #[test]
    fn a_device_takes_only_the_certificate_for_its_key() {
        assert!(DeviceIdentity::new(DeviceKey::from_bytes(&[9; 32]), certificate()).is_ok());
        assert!(DeviceIdentity::new(DeviceKey::from_bytes(&[8; 32]), certificate()).is_err());
    }

    #[test]
    fn both_sides_see_the_same_safety_number_and_any_other_key_another_one() {
        let (ana, bo) = (
            UserId::parse("mimi://a.example/u/ana").unwrap(),
            UserId::parse("mimi://b.example/u/bo").unwrap(),
        );
        let (one, two) = (key(1).public(), key(2).public());
        let number = safety_number((&ana, &one), (&bo, &two));
        assert_eq!(number, safety_number((&bo, &two), (&ana, &one)));
        assert_eq!(number.len(), 12 * 5 + 11);
        assert_ne!(number, safety_number((&ana, &two), (&bo, &one)), "keys swapped");
        assert_ne!(number, safety_number((&ana, &one), (&bo, &key(3).public())));
        // Fixed: two versions of the program must agree.
        assert_eq!(number, SAFETY_NUMBER);
    }

    const SAFETY_NUMBER: &str =
        "99109 49603 81259 90858 08291 84318 96881 47718 58421 26038 81643 87984";

    #[test]
    fn the_pkcs8_form_holds_the_seed() {
        let der = NodeKey::from_bytes(&[7; 32]).to_pkcs8_der();
        assert_eq!(der.len(), 48);
        assert!(der.ends_with(&[7; 32]));
    }

    #[test]
    fn secret_keys_do_not_print() {
        let text = format!("{:?}", DeviceKey::from_bytes(&[0xab; 32]));
        assert!(!text.contains("abab"), "{text}");
    }
}
