//! What can go wrong, each with a stable code, a sentence for a person, and whether trying again can help.

use std::time::Duration;

use protocol::refusal::Lasting;
use protocol::{Refusal, RoomId, SubmitId};

/// Why a call failed. What happens to a submission later is not here but in [`crate::State`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The node said no.
    #[error("{}", .0.detail)]
    Refused(Refusal),
    /// The node could not be reached.
    #[error(
        "the node at {address} cannot be reached: {cause}. Check the network and the node, then try again"
    )]
    Unreachable {
        /// Host and port that were dialled.
        address: String,
        /// What the system or TLS said.
        cause: String,
    },
    /// The node showed another key than the one pinned when this device was set up.
    #[error(
        "the node at {address} is not the one this device knows: its key differs. Nothing was sent; ask its operator whether the node was replaced"
    )]
    NodeKey {
        /// Host and port that were dialled.
        address: String,
    },
    /// The node's answer could not be understood.
    #[error("the node's answer to {what} could not be understood; update the older side")]
    Answer {
        /// The request.
        what: &'static str,
    },
    /// It took too long.
    #[error("it took longer than {} s. What was asked stays queued and is carried out when possible", .0.as_secs())]
    Timeout(Duration),
    /// Another process has the folder.
    #[error("another process is using this device's data in {0}. Close it first")]
    Locked(String),
    /// The passphrase or key file is not the one the store was sealed with.
    #[error("the passphrase or key does not open this store")]
    WrongSeal,
    /// The folder has no account.
    #[error("there is no account in {0}. Register from an invitation or link this device first")]
    NoAccount(String),
    /// The folder has an account already.
    #[error("there is an account in {0} already. Use another folder for another account")]
    AccountExists(String),
    /// The store was written by a newer program.
    #[error("this store was written by a newer version of the program. Update the program")]
    NewerStore,
    /// A line could not be read.
    #[error(transparent)]
    Line(#[from] protocol::invite::LineError),
    /// A name could not be read.
    #[error(transparent)]
    Name(#[from] protocol::id::IdError),
    /// An argument breaks a rule.
    #[error("{0}")]
    Invalid(&'static str),
    /// This device is not in the room.
    #[error("this device is not in the room {0}")]
    UnknownRoom(RoomId),
    /// This device never submitted that.
    #[error("this device has no submission {0}")]
    UnknownSubmission(SubmitId),
    /// The background work has ended.
    #[error("the client was shut down")]
    Stopped,
    /// A row does not hold what it must.
    #[error("the store is damaged: table {table}. Restore is not possible; link this device again")]
    Corrupt {
        /// Where.
        table: &'static str,
    },
    /// The store's file is not what was written.
    #[error(
        "this device's store cannot be read: the file client.db is damaged, or is not one of this program. Nothing in it was changed"
    )]
    Damaged {
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// Nothing can be written any more.
    #[error(
        "the disk that holds this device's data is full. Nothing was written; make room, then do the same again"
    )]
    DiskFull {
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// The database failed.
    #[error("the store failed: {0}")]
    Store(sqlx::Error),
    /// A file in the folder could not be used.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// An MLS or sealing operation failed that should not: a bug.
    #[error("cryptography failed: {0}")]
    Crypto(String),
}

/// SQLite's own codes; the upper bits of what it reports say more and do not matter here.
mod sqlite {
    pub(super) const ERROR: i32 = 1;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const NOT_A_DATABASE: i32 = 26;
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        match primary(&source) {
            Some(sqlite::CORRUPT | sqlite::NOT_A_DATABASE) => Self::Damaged { source },
            Some(sqlite::FULL) => Self::DiskFull { source },
            _ => Self::Store(source),
        }
    }
}

fn primary(error: &sqlx::Error) -> Option<i32> {
    let sqlx::Error::Database(error) = error else { return None };
    error.code()?.parse::<i32>().ok().map(|code| code & 0xff)
}

impl Error {
    /// The same while the store is being opened: a table or column that is missing then was never one of ours.
    pub(crate) fn opening(self) -> Self {
        match self {
            Self::Store(source) if primary(&source) == Some(sqlite::ERROR) => {
                Self::Damaged { source }
            }
            other => other,
        }
    }

    /// What went wrong in the crypto crate, as ours.
    pub(crate) fn crypto(error: crypto::Error) -> Self {
        match error {
            crypto::Error::Refused(refusal) => Self::Refused(refusal),
            other => Self::Crypto(other.to_string()),
        }
    }

    /// A stable code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(r) => r.code.as_str(),
            Self::Unreachable { .. } => "unreachable",
            Self::NodeKey { .. } => "node-key",
            Self::Answer { .. } => "bad-answer",
            Self::Timeout(_) => "timeout",
            Self::Locked(_) => "locked",
            Self::WrongSeal => "wrong-seal",
            Self::NoAccount(_) => "no-account",
            Self::AccountExists(_) => "account-exists",
            Self::NewerStore => "newer-store",
            Self::Line(_) => "bad-line",
            Self::Name(_) => "bad-name",
            Self::Invalid(_) => "invalid",
            Self::UnknownRoom(_) => "unknown-room",
            Self::UnknownSubmission(_) => "unknown-submission",
            Self::Stopped => "stopped",
            Self::Corrupt { .. } => "corrupt",
            Self::Damaged { .. } => "damaged",
            Self::DiskFull { .. } => "device-full",
            Self::Store(_) => "store",
            Self::File { .. } => "file",
            Self::Crypto(_) => "crypto",
        }
    }

    /// What happened and what to do, for a person.
    #[must_use]
    pub fn sentence(&self) -> String {
        self.to_string()
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Refused(r) => r.code.lasting() == Lasting::Transient,
            Self::Unreachable { .. }
            | Self::Timeout(_)
            | Self::Locked(_)
            | Self::DiskFull { .. } => true,
            _ => false,
        }
    }

    /// How long the node asked to wait before the next try.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(r) => r.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
            _ => None,
        }
    }
}
