//! Bearer tokens: random, told once, kept as hashes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::Entropy;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// A fresh token: 32 random bytes in base64url without padding, 43 characters.
#[must_use]
pub fn make(entropy: &dyn Entropy) -> String {
    let bytes = Zeroizing::new(entropy.bytes32());
    URL_SAFE_NO_PAD.encode(*bytes)
}

/// What a node stores and looks up instead of the token: SHA-256 over its text.
#[must_use]
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestEntropy;

    #[test]
    fn tokens_differ_are_url_safe_and_are_found_by_their_hash() {
        let entropy = TestEntropy::default();
        let (one, two) = (make(&entropy), make(&entropy));
        assert_ne!(one, two);
        assert_eq!(one.len(), 43);
        assert!(one.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert_eq!(hash(&one), hash(&one));
        assert_ne!(hash(&one), hash(&two));
    }
}
