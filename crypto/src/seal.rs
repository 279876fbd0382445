//! Sealing: what a client stores, and what one device hands another through the node.
//!
//! XChaCha20-Poly1305 with a random 24-byte nonce in front. The context goes in as associated data, so a sealed value
//! cannot be moved to another row.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use openmls_traits::crypto::OpenMlsCrypto as _;
use openmls_traits::types::HashType;
use protocol::Entropy;
use zeroize::Zeroizing;

use crate::{Error, mls};

const NONCE_BYTES: usize = 24;
/// Memory in KiB, passes, lanes for a passphrase: it guards everything a device stores, and is asked once.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;

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
    /// [`Error::Mls`] for a passphrase of more than 4 GiB.
    pub fn from_passphrase(passphrase: &str, salt: &[u8; SALT_BYTES]) -> Result<Self, Error> {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(32))
            .map_err(|e| Error::Mls(e.to_string()))?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), salt, key.as_mut())
            .map_err(|e| Error::Mls(e.to_string()))?;
        Ok(Self(key))
    }

    /// The key that a shared secret of full strength gives under `label`: HKDF-SHA-256. For link offers.
    #[must_use]
    pub fn from_secret(secret: &[u8], label: &str) -> Self {
        let crypto = mls::crypto();
        let extracted = crypto
            .hkdf_extract(HashType::Sha2_256, b"waxwing seal 1", secret)
            .expect("HKDF-SHA-256 extracts from any input");
        let expanded = crypto
            .hkdf_expand(HashType::Sha2_256, extracted.as_slice(), label.as_bytes(), 32)
            .expect("HKDF-SHA-256 expands to 32 bytes");
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(expanded.as_slice());
        Self(key)
    }

    /// Seals `plaintext`; `context` must be given again to open it.
    #[must_use]
    pub fn seal(&self, context: &[u8], plaintext: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce);
        let sealed = self
            .cipher()
            .encrypt(&nonce.into(), Payload { msg: plaintext, aad: context })
            .expect("what fits in memory is far below the cipher's bound");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens what [`Self::seal`] made.
    ///
    /// # Errors
    /// [`Error::Unopenable`] with another key or context, or when a bit has changed.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let (nonce, sealed) = sealed.split_first_chunk().ok_or(Error::Unopenable)?;
        let nonce: &[u8; NONCE_BYTES] = nonce;
        self.cipher()
            .decrypt(&(*nonce).into(), Payload { msg: sealed, aad: context })
            .map(Zeroizing::new)
            .map_err(|_| Error::Unopenable)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestEntropy;

    #[test]
    fn what_is_sealed_opens_only_with_the_same_key_and_context_and_unchanged() {
        let entropy = TestEntropy::default();
        let key = SealKey::generate(&entropy);
        let sealed = key.seal(b"row 1", b"secret", &entropy);
        assert_eq!(sealed.len(), 6 + NONCE_BYTES + 16);
        assert_eq!(key.open(b"row 1", &sealed).unwrap().as_slice(), b"secret");
        assert!(key.open(b"row 2", &sealed).is_err(), "moved to another row");
        assert!(SealKey::generate(&entropy).open(b"row 1", &sealed).is_err());
        for i in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[i] ^= 0x80;
            assert!(key.open(b"row 1", &bad).is_err(), "byte {i}");
            assert!(key.open(b"row 1", &sealed[..i]).is_err(), "cut at {i}");
        }
        assert_ne!(sealed, key.seal(b"row 1", b"secret", &entropy), "a nonce is never used twice");
    }

    #[test]
    fn a_passphrase_gives_the_same_key_again_and_another_salt_another_one() {
        let key = |words, salt| *SealKey::from_passphrase(words, &[salt; 16]).unwrap().as_bytes();
        let one = key("a b c", 1);
        assert_eq!(one, key("a b c", 1));
        assert_ne!(one, key("a b c", 2));
        assert_ne!(one, key("a b d", 1));
    }

    #[test]
    fn a_secret_gives_another_key_under_another_label() {
        let key = |label| *SealKey::from_secret(b"0123456789abcdef", label).as_bytes();
        assert_eq!(key("link"), key("link"));
        assert_ne!(key("link"), key("other"));
    }
}
