//! Passwords, as a node keeps them: argon2id, never the password.

use protocol::Entropy;

/// Hashes a password with a fresh salt, as a PHC string. Takes about 20 ms and 19 MiB: call it off the async threads.
#[must_use]
pub fn hash(password: &str, entropy: &dyn Entropy) -> String {
    let _ = (password, entropy);
    todo!()
}

/// Whether `password` is the one behind `stored`, a PHC string of [`hash`]. `None` is a user who does not exist: the
/// answer is no, and it takes as long.
#[must_use]
pub fn verify(password: &str, stored: Option<&str>) -> bool {
    let _ = (password, stored);
    todo!()
}
