//! Ed25519 under labels: the `SignWithLabel` of RFC 9420 §5.1.2, for everything that is signed anywhere in the project.

use std::fmt;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use tls_codec::{Serialize as _, VLByteSlice};

/// An Ed25519 public key: of a user's identity, of a device, of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Wraps the bytes. Bytes that are no key verify nothing.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Takes a slice of 32 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` (64 bytes) was made by this key over `message` under `label`.
    ///
    /// Strict: weak keys and signatures with more than one valid form are refused.
    #[must_use]
    pub fn verify(&self, label: &str, message: &[u8], signature: &[u8]) -> bool {
        let (Ok(key), Ok(signature)) =
            (VerifyingKey::from_bytes(&self.0), Signature::from_slice(signature))
        else {
            return false;
        };
        key.verify_strict(&sign_content(label, message), &signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Signs `message` under `label`: 64 bytes.
pub(crate) fn sign(key: &SigningKey, label: &str, message: &[u8]) -> Vec<u8> {
    key.sign(&sign_content(label, message)).to_bytes().to_vec()
}

/// `SignContent { opaque label<V> = "MLS 1.0 " + label; opaque content<V> }`.
fn sign_content(label: &str, message: &[u8]) -> Vec<u8> {
    let label = format!("MLS 1.0 {label}");
    let mut out = Vec::with_capacity(label.len() + message.len() + 8);
    for part in [label.as_bytes(), message] {
        VLByteSlice(part).tls_serialize(&mut out).expect("writing to memory does not fail");
    }
    out
}
