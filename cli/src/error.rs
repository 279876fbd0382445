//! What a person or a script is told when something did not work.

use std::process::ExitCode;
use std::time::Duration;

use protocol::Code;
use protocol::refusal::Lasting;
use serde::Serialize;

/// Exit codes; stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It worked.
    Done = 0,
    /// The caller can fix it.
    Failed = 1,
    /// The node is unreachable, or a file could not be used.
    Unreachable = 3,
    /// Somebody is not who they were: a person must decide.
    Trust = 4,
    /// Come back later; the error says when.
    RateLimited = 5,
    /// Some of it worked.
    Partly = 6,
    /// A bug, or a damaged store.
    Internal = 70,
    /// The same command may work later.
    Temporary = 75,
    /// The configuration is wrong.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not work, ready to be shown.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// How the program ends.
    pub(crate) exit: Exit,
    /// Stable, for scripts.
    pub(crate) code: String,
    /// What happened.
    pub(crate) message: String,
    /// What that means for what was asked.
    pub(crate) matters: &'static str,
    /// What to do.
    pub(crate) hint: String,
    /// Whether the same command may work later.
    pub(crate) retryable: bool,
    /// How long the node asked to wait.
    pub(crate) retry_after: Option<Duration>,
}

/// The JSON object: `{"error": {"code", "message", "retryable", "hint", "docs", "retry_after_ms"?}}`.
#[derive(Serialize)]
pub(crate) struct FailureJson<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    code: &'a str,
    message: &'a str,
    retryable: bool,
    hint: &'a str,
    docs: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Failure {
    /// A mistake of the caller.
    pub(crate) fn caller(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            code: code.to_owned(),
            message: message.into(),
            matters: "nothing was changed",
            hint: hint.into(),
            retryable: false,
            retry_after: None,
        }
    }

    /// A bug or a broken machine.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        let hint = "run it again with -vv and report what it says";
        Self { exit: Exit::Internal, ..Self::caller("internal", message, hint) }
    }

    /// A file that cannot be used.
    pub(crate) fn file(path: &std::path::Path, cause: &std::io::Error) -> Self {
        let message = format!("{}: {cause}", path.display());
        let hint = "check that the path exists and that you may read and write it";
        Self { exit: Exit::Unreachable, ..Self::caller("file", message, hint) }
    }

    /// The JSON form.
    pub(crate) fn json(&self) -> FailureJson<'_> {
        FailureJson {
            error: Inner {
                code: &self.code,
                message: &self.message,
                retryable: self.retryable,
                hint: &self.hint,
                docs: "docs/CLI.md#errors",
                retry_after_ms: self
                    .retry_after
                    .map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            },
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let exit = exit_of(&error);
        Self {
            exit,
            code: error.code().to_owned(),
            message: error.sentence(),
            matters: matters(exit),
            hint: hint(&error).to_owned(),
            retryable: error.retryable(),
            retry_after: error.retry_after(),
        }
    }
}

/// The exit code of a refusal.
pub(crate) fn exit_of_code(code: Code) -> Exit {
    match code {
        Code::RateLimited => Exit::RateLimited,
        Code::PeerUnreachable => Exit::Unreachable,
        // Not who it says, or not who it was: only a person can decide whom to believe.
        Code::PeerCertificate
        | Code::BadCertificate
        | Code::DomainMismatch
        | Code::ChainMismatch => Exit::Trust,
        _ if code.lasting() == Lasting::Transient => Exit::Temporary,
        _ => Exit::Failed,
    }
}

fn exit_of(error: &client::Error) -> Exit {
    use client::Error as E;
    match error {
        E::Refused(refusal) => exit_of_code(refusal.code),
        E::Unreachable { .. } | E::File { .. } | E::DiskFull { .. } => Exit::Unreachable,
        E::NodeKey { .. } => Exit::Trust,
        E::Timeout(_) | E::Locked(_) => Exit::Temporary,
        E::Stopped | E::Corrupt { .. } | E::Damaged { .. } | E::Store(_) | E::Crypto(_) => {
            Exit::Internal
        }
        _ => Exit::Failed,
    }
}

const fn matters(exit: Exit) -> &'static str {
    match exit {
        Exit::Trust => "what you send might reach somebody else, so nothing was sent",
        Exit::Unreachable | Exit::Temporary | Exit::RateLimited => {
            "it did not happen now; what was written down before is kept and carried out when possible"
        }
        Exit::Internal => "this device may not be able to go on",
        _ => "nothing was changed",
    }
}

fn hint(error: &client::Error) -> &'static str {
    use client::Error as E;
    match error {
        E::Refused(refusal) if refusal.code == Code::Unauthenticated => {
            "waxwing devices add on another device, then waxwing link LINE in a new folder"
        }
        E::Refused(refusal) if refusal.code.lasting() == Lasting::Permanent => {
            "change what the message says is wrong"
        }
        E::Refused(_) | E::Timeout(_) => "the same command again, a little later",
        E::Unreachable { .. } => "the same command again when the network and the node are up",
        E::NodeKey { .. } => {
            "ask the node's operator, by another way, whether its key was replaced"
        }
        E::Locked(_) => "close the other waxwing, or use another folder with --dir",
        E::WrongSeal => "--passphrase-file FILE with the passphrase this folder was made with",
        E::NoAccount(_) => "waxwing register LINE --name NAME, or --dir FOLDER for another folder",
        E::AccountExists(_) => "--dir FOLDER with a folder that does not exist yet",
        E::Line(_) => "copy the line again, whole, in quotes",
        E::UnknownRoom(_) => "waxwing room list",
        E::DiskFull { .. } => "the same command again when there is room on the disk",
        E::Corrupt { .. } | E::Damaged { .. } => {
            "waxwing devices add on another device, then waxwing link LINE here in a new folder"
        }
        _ => "change what the message says is wrong, or run it again with -vv to see more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_to_believe_is_for_a_person_to_decide() {
        for code in Code::ALL {
            let trust = matches!(
                code,
                Code::PeerCertificate
                    | Code::BadCertificate
                    | Code::DomainMismatch
                    | Code::ChainMismatch
            );
            assert_eq!(exit_of_code(*code) == Exit::Trust, trust, "{code}");
        }
    }
}
