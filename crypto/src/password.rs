//! Passwords, as a node keeps them: argon2id, never the password.

use std::sync::LazyLock;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use protocol::Entropy;

/// Memory in KiB, passes, lanes: the least that OWASP's ASVS 5 takes for argon2id.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Hashes a password with a fresh salt, as a PHC string. Takes about 20 ms and 19 MiB: call it off the async threads.
#[must_use]
pub fn hash(password: &str, entropy: &dyn Entropy) -> String {
    hasher()
        .hash_password_with_salt(password.as_bytes(), &entropy.bytes16())
        .expect("the parameters are constants within argon2's bounds")
        .to_string()
}

/// Whether `password` is the one behind `stored`, a PHC string of [`hash`]. `None` is a user who does not exist: the
/// answer is no, and it takes as long.
#[must_use]
pub fn verify(password: &str, stored: Option<&str>) -> bool {
    let known = stored.and_then(|text| PasswordHash::new(text).ok());
    let exists = known.is_some();
    let against = known.unwrap_or_else(dummy);
    hasher().verify_password(password.as_bytes(), &against).is_ok() && exists
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .expect("the parameters are constants within argon2's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// What a password is checked against when there is no user: the same work, and never a yes.
fn dummy() -> PasswordHash {
    static DUMMY: LazyLock<PasswordHash> = LazyLock::new(|| {
        hasher()
            .hash_password_with_salt(b"no such user", &[0; 16])
            .expect("the parameters are constants within argon2's bounds")
    });
    DUMMY.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestEntropy;

    #[test]
    fn only_the_right_password_of_an_existing_user_is_accepted() {
        let stored = hash("correct horse", &TestEntropy::default());
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify("correct horse", Some(&stored)));
        assert!(!verify("correct hors", Some(&stored)));
        assert!(!verify("", Some(&stored)));
        assert!(!verify("no such user", None));
        assert!(!verify("no such user", Some("damaged")));
    }

    #[test]
    fn equal_passwords_have_different_hashes() {
        let entropy = TestEntropy::default();
        assert_ne!(hash("same", &entropy), hash("same", &entropy));
    }
}
