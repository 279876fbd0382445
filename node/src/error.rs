//! Three kinds of "no": a [`Refusal`] is the other side's doing, an outcome is `Ok`, an [`Error`] is ours.

use protocol::{Code, Refusal};

use crate::store::StoreError;

/// Something inside the node went wrong: a disk, a database, a bug. Goes to the log; the other side hears "internal".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or socket.
    #[error("{what}: {source}")]
    Io {
        /// Which file or socket, and what was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A node runs on the data directory.
    #[error("a node is running on {}", .0.display())]
    Running(std::path::PathBuf),
    /// The configuration.
    #[error("configuration: {0}")]
    Config(String),
    /// The node's keys or certificates.
    #[error("keys: {0}")]
    Keys(String),
    /// MLS state or certificates that we stored ourselves.
    #[error("stored key material: {0}")]
    Crypto(#[source] crypto::Error),
    /// What we stored ourselves does not read back.
    #[error("stored data is damaged: {0}")]
    Damaged(&'static str),
    /// A task of ours panicked.
    #[error("a task of the node failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    /// An I/O error with what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Why a service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Theirs.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Ours.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<Code> for Stop {
    fn from(code: Code) -> Self {
        Self::Refused(code.into())
    }
}

impl From<StoreError> for Stop {
    fn from(e: StoreError) -> Self {
        match e {
            // Not our failure and not theirs: the node has too much to do, or no room. They may come again.
            StoreError::Full => Self::Refused(Code::DiskFull.into()),
            StoreError::Busy | StoreError::Conflict { .. } => {
                Self::Refused(Refusal::new(Code::Unavailable).retry_after_ms(BUSY_RETRY_MS))
            }
            StoreError::Unreachable(error) => {
                tracing::warn!(%error, "the database is in trouble");
                Self::Refused(Refusal::new(Code::Unavailable).retry_after_ms(BUSY_RETRY_MS))
            }
            StoreError::Closed => Self::Refused(Code::Unavailable.into()),
            e => Self::Failed(e.into()),
        }
    }
}

impl From<crypto::Error> for Stop {
    fn from(e: crypto::Error) -> Self {
        match e {
            crypto::Error::Refused(refusal) => Self::Refused(refusal),
            e => Self::Failed(Error::Crypto(e)),
        }
    }
}

impl Stop {
    /// What the other side is told. Logs our own errors: this is the one place where they are handled.
    #[must_use]
    pub fn into_refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Failed(error) => {
                tracing::error!(%error, "a request failed");
                Refusal::new(Code::Internal)
            }
        }
    }
}

/// What services return.
pub type Outcome<T> = Result<T, Stop>;

const BUSY_RETRY_MS: u32 = 1_000;
