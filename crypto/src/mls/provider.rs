//! What the MLS library asks for: cryptography, randomness, storage.

use std::sync::LazyLock;

use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;
use openmls_traits::random::OpenMlsRand;
use protocol::Entropy;

use super::Storage;

/// The cryptographic algorithms. One for the process: it seeds a generator of its own for HPKE's ephemeral keys.
pub(crate) fn crypto() -> &'static RustCrypto {
    static CRYPTO: LazyLock<RustCrypto> = LazyLock::new(RustCrypto::default);
    &CRYPTO
}

/// Everything the MLS library asks for, for the time of one call.
pub(crate) struct Provider<'a> {
    storage: &'a Storage,
    chance: Chance<'a>,
}

impl<'a> Provider<'a> {
    /// For a step that makes something new.
    pub(crate) fn new(storage: &'a Storage, entropy: &'a dyn Entropy) -> Self {
        Self { storage, chance: Chance(Some(entropy)) }
    }

    /// For a step that only reads and verifies.
    pub(crate) fn without_chance(storage: &'a Storage) -> Self {
        Self { storage, chance: Chance(None) }
    }
}

impl<'a> OpenMlsProvider for Provider<'a> {
    type CryptoProvider = RustCrypto;
    type RandProvider = Chance<'a>;
    type StorageProvider = Storage;

    fn storage(&self) -> &Storage {
        self.storage
    }

    fn crypto(&self) -> &RustCrypto {
        crypto()
    }

    fn rand(&self) -> &Chance<'a> {
        &self.chance
    }
}

/// The injected entropy, in the library's shape.
pub(crate) struct Chance<'a>(Option<&'a dyn Entropy>);

/// A step that should only verify asked for randomness.
#[derive(Debug, thiserror::Error)]
#[error("this step has no randomness to give")]
pub(crate) struct NoChance;

impl OpenMlsRand for Chance<'_> {
    type Error = NoChance;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], NoChance> {
        let mut out = [0; N];
        self.0.ok_or(NoChance)?.fill(&mut out);
        Ok(out)
    }

    fn random_vec(&self, len: usize) -> Result<Vec<u8>, NoChance> {
        let mut out = vec![0; len];
        self.0.ok_or(NoChance)?.fill(&mut out);
        Ok(out)
    }
}
