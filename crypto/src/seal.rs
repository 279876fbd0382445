//! Sealing: what a client stores, and what one device hands another through the node.
//!
//! XChaCha20-Poly1305 with a random 24-byte nonce in front. The context goes in as associated data, so a sealed value
//! cannot be moved to another row.

use protocol::Entropy;
use zeroize::Zeroizing;

use crate::Error;

/// Bytes that sealing adds: nonce and tag.
pub const OVERHEAD_BYTES: usize = 24 + 16;
/// Bytes of the salt of a passphrase.
pub const SALT_BYTES: usize = 16;

/// A key that seals.
#[derive(Clone)]
pub struct SealKey(Zeroizing<[u8; 32]>);

impl SealKey {
    /// A fresh random key.
    #[must_use]
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(Zeroizing::new(entropy.bytes32()))
    }

    /// The key from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key that a passphrase gives: argon2id, 64 MiB, 3 passes. Takes about 150 ms.
    ///
    /// # Errors
    /// Never in practice; [`Error::Mls`] when the parameters do not fit.
    pub fn from_passphrase(passphrase: &str, salt: &[u8; SALT_BYTES]) -> Result<Self, Error> {
        let _ = (passphrase, salt);
        todo!()
    }

    /// The key that a shared secret of full strength gives under `label`: HKDF-SHA-256. For link offers.
    #[must_use]
    pub fn from_secret(secret: &[u8], label: &str) -> Self {
        let _ = (secret, label);
        todo!()
    }

    /// Seals `plaintext`; `context` must be given again to open it.
    #[must_use]
    pub fn seal(&self, context: &[u8], plaintext: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
        let _ = (context, plaintext, entropy);
        todo!()
    }

    /// Opens what [`Self::seal`] made.
    ///
    /// # Errors
    /// [`Error::Unopenable`] with another key or context, or when a bit has changed.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let _ = (context, sealed);
        todo!()
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(..)")
    }
}
