//! How a request to a peer ended.

use std::time::Duration;

use protocol::Refusal;

use crate::PinError;

/// How a request ended: done, refused for good, or worth trying again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome<T> {
    /// The peer answered.
    Done(T),
    /// The same request will be refused again.
    Refused(Refusal),
    /// The same request may succeed later; nothing is known about whether the peer carried it out.
    Retry {
        /// What went wrong.
        why: Why,
        /// The least time to wait, when the peer said so.
        retry_after: Option<Duration>,
    },
}

/// What went wrong with a request that is to be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The peer's host could not be resolved or did not take the connection.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// The host leads to an address that may not be dialled. Somebody must look at the peer's row.
    #[error("its address may not be dialled: {0}")]
    Forbidden(String),
    /// It answered too slowly.
    #[error("no answer in time while {0}")]
    Timeout(Stage),
    /// It is not who it should be. Somebody must look: the peer lost its key, or someone stands in between.
    #[error("its certificate was not accepted: {0}")]
    Certificate(PinError),
    /// It did not agree on TLS.
    #[error("no TLS connection: {0}")]
    Tls(String),
    /// The connection ended before the answer.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// It speaks, but not what we expect.
    #[error("its answer cannot be used: {0}")]
    Answer(String),
    /// It said no for now.
    #[error("refused for now: {0}")]
    Busy(Refusal),
    /// It refuses us, not what was sent: it does not know us, or not what we speak. Somebody must look.
    #[error("it does not take us: {0}")]
    Estranged(Refusal),
    /// Ours: the request could not be made.
    #[error("the request could not be made: {0}")]
    Ours(String),
}

/// What a request was waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Name resolution and the TCP connection.
    Connecting,
    /// The TLS and HTTP handshakes.
    Handshake,
    /// The answer.
    Answer,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Handshake => "shaking hands",
            Self::Answer => "waiting for the answer",
        })
    }
}

impl Why {
    /// Whether an operator must look at it: waiting alone does not help.
    #[must_use]
    pub fn alarming(&self) -> bool {
        matches!(self, Self::Certificate(_) | Self::Forbidden(_) | Self::Estranged(_))
    }
}

impl<T> Outcome<T> {
    /// The same outcome with what was done replaced.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Done(value) => Outcome::Done(f(value)),
            Self::Refused(refusal) => Outcome::Refused(refusal),
            Self::Retry { why, retry_after } => Outcome::Retry { why, retry_after },
        }
    }
}
