//! What can go wrong on our own side, and the door for what the other side did wrong.

use protocol::Refusal;

/// Why an operation on key material did not happen. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else's doing: the bytes, the certificate, the state of the room.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Our own rows do not hold what they should: they were damaged or mixed up.
    #[error("stored MLS state is damaged: {0}")]
    Damaged(&'static str),
    /// The MLS library gave up where it should not have.
    #[error("MLS: {0}")]
    Mls(String),
    /// A key or a sealed value cannot be opened: wrong key, wrong context, or damaged.
    #[error("cannot be opened: wrong key or damaged")]
    Unopenable,
}
