//! Bearer tokens: random, told once, kept as hashes.

use protocol::Entropy;

/// A fresh token: 32 random bytes in base64url without padding, 43 characters.
#[must_use]
pub fn make(entropy: &dyn Entropy) -> String {
    let _ = entropy;
    todo!()
}

/// What a node stores and looks up instead of the token: SHA-256 over its text.
#[must_use]
pub fn hash(token: &str) -> [u8; 32] {
    let _ = token;
    todo!()
}

/// Compares two secrets or hashes in time that depends only on their lengths.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    let _ = (a, b);
    todo!()
}
