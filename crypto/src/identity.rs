//! Who is who: a user's identity key, a device's key and its certificate, a node's key.
//!
//! A user's devices share the identity key; it signs each device's certificate, and the certificate is the device's MLS
//! credential. So a node cannot add a ghost device: it has no identity key to certify one with.

use std::fmt;

use ed25519_dalek::SigningKey;
use protocol::{DeviceId, Entropy, Refusal, Timestamp, UserId};
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

impl IdentityKey {
    /// Certifies that `key` is the signature key of `device`, which belongs to this identity's user. PROTOCOL §7.1.
    #[must_use]
    pub fn certify(&self, device: &DeviceId, key: &PublicKey, issued: Timestamp) -> Certificate {
        let _ = (device, key, issued);
        todo!()
    }
}

impl NodeKey {
    /// The key as PKCS#8 DER, for TLS.
    #[must_use]
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        todo!()
    }
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
        let _ = bytes;
        todo!()
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
        let _ = (key, certificate);
        todo!()
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
}

/// The number two people compare to be sure of each other's identity keys: 12 groups of 5 digits, the same on both sides.
#[must_use]
pub fn safety_number(a: (&UserId, &PublicKey), b: (&UserId, &PublicKey)) -> String {
    let _ = (a, b);
    todo!()
}
