//! What commands print: data on stdout, as text or as JSON with a stable schema; mistakes on stderr in four lines.

use std::fmt::Write as _;

use protocol::Refusal;
use serde::Serialize;

use crate::config::ConfigError;
use crate::error::{Error, Stop};
use crate::store::StoreError;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// The result of a command.
pub(super) struct Report {
    text: String,
    json: serde_json::Value,
}

impl Report {
    /// A result that reads as `text` or as the JSON of `value`.
    pub(super) fn new(text: impl Into<String>, value: &impl Serialize) -> Self {
        Self { text: text.into(), json: serde_json::to_value(value).unwrap_or_default() }
    }

    pub(super) fn print(&self, output: Output) {
        use std::io::Write as _;
        let shown = match output {
            Output::Text => self.text.trim_end().to_owned(),
            Output::Json => self.json.to_string(),
        };
        // Whoever closed our stdout does not want to read it.
        let _closed = writeln!(std::io::stdout(), "{shown}");
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure(Box<Fault>);

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self(Box::new(fault))
    }
}

/// What a failure says, line by line.
#[derive(Debug)]
pub(super) struct Fault {
    /// Stable: `CONFIG`, `STORE`, `PEER-<refusal code>` and so on.
    pub(super) code: String,
    /// What happened.
    pub(super) what: String,
    /// Which file, key, peer.
    pub(super) at: String,
    /// What does not work because of it.
    pub(super) why: String,
    /// What to do.
    pub(super) hint: String,
    /// See [`Exit`].
    pub(super) exit: Exit,
}

/// Exit codes; stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// Failed, and the caller can mend it.
    Failed = 1,
    /// A server or a device of the machine does not answer.
    Unreachable = 3,
    /// The key or certificate of the other side is not the one that is known.
    Distrust = 4,
    /// Too often.
    RateLimited = 5,
    /// A bug.
    Internal = 70,
    /// Not now: somebody else is at it.
    Busy = 75,
    /// Bad configuration.
    Config = 78,
}

impl Failure {
    /// The exit code.
    pub(super) fn exit(&self) -> u8 {
        self.0.exit as u8
    }

    pub(super) fn print(&self, output: Output) {
        use std::io::Write as _;
        let shown = match output {
            Output::Text => self.0.lines(),
            Output::Json => serde_json::json!({"error": {
                "code": self.0.code,
                "message": self.0.what,
                "at": self.0.at,
                "why": self.0.why,
                "retryable": matches!(self.0.exit, Exit::Unreachable | Exit::RateLimited | Exit::Busy),
                "hint": self.0.hint,
            }})
            .to_string(),
        };
        let _closed = writeln!(std::io::stderr(), "{shown}");
    }
}

impl Fault {
    fn lines(&self) -> String {
        let mut out = format!("error[{}]: {}", self.code, self.what);
        for (label, line) in
            [("where", &self.at), ("why it matters", &self.why), ("try", &self.hint)]
        {
            let _infallible = write!(out, "\n  {label}: {line}");
        }
        out
    }
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Self {
        Fault {
            code: "CONFIG".to_owned(),
            what: e.what,
            at: e.at,
            why: "the node does not start with a setting it does not understand".to_owned(),
            hint: e.hint,
            exit: Exit::Config,
        }
        .into()
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let mut why = "nothing was changed";
        let (code, at, hint, exit) = match &e {
            Error::Store(StoreError::Broken) => {
                why = "what was answered is kept, and nothing more was taken";
                (
                    "DISK",
                    "the disk of the database",
                    "see what the system's log says of the disk, then start the node again",
                    Exit::Unreachable,
                )
            }
            Error::Store(store) => of_store(store),
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                DISK_FULL
            }
            Error::Io { .. } => (
                "IO",
                "the file or socket named above",
                "check that it exists and may be used",
                Exit::Unreachable,
            ),
            Error::Running(_) => (
                "RUNNING",
                "the data directory",
                "stop that node first; `waxwing-node status` tells where it listens",
                Exit::Busy,
            ),
            Error::Config(_) => {
                ("CONFIG", "the configuration", "run `waxwing-node config check`", Exit::Config)
            }
            Error::Keys(_) => (
                "KEYS",
                "node.key and hub.key in data_dir",
                "restore them from a backup, or run `waxwing-node init` for a new node",
                Exit::Failed,
            ),
            Error::Damaged(_) | Error::Crypto(_) => {
                ("DAMAGED", "the database", "restore the database from a backup", Exit::Internal)
            }
            Error::Task(_) => ("BUG", "the program", "report it with the log", Exit::Internal),
        };
        Fault {
            code: code.to_owned(),
            what: e.to_string(),
            at: at.to_owned(),
            why: why.to_owned(),
            hint: hint.to_owned(),
            exit,
        }
        .into()
    }
}

/// Code, place, what to do, exit code.
type Words = (&'static str, &'static str, &'static str, Exit);

const DISK_FULL: Words = (
    "DISK-FULL",
    "the disk of data_dir",
    "make room on it, then run the same again",
    Exit::Unreachable,
);

fn of_store(error: &StoreError) -> Words {
    let database = "the database";
    match error {
        StoreError::Full => DISK_FULL,
        StoreError::OlderSchema { .. } => (
            "SCHEMA",
            database,
            "back it up, then stop the older node and start this one: `waxwing-node run` brings it up to date",
            Exit::Failed,
        ),
        StoreError::NewerSchema { .. } => {
            ("SCHEMA", database, "run the newer version, or restore a backup", Exit::Failed)
        }
        StoreError::Missing(_) | StoreError::OtherNode { .. } => {
            ("STORE", database, "check domain, data_dir and database.url", Exit::Failed)
        }
        StoreError::Corrupt { .. } => {
            ("DAMAGED", database, "restore the database from a backup", Exit::Internal)
        }
        _ => (
            "STORE",
            database,
            "check that it answers: database.url, the disk, and the rights of its files",
            Exit::Unreachable,
        ),
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let exit = match refusal.code {
            protocol::Code::RateLimited => Exit::RateLimited,
            protocol::Code::PeerUnreachable | protocol::Code::Unavailable => Exit::Unreachable,
            // Not who it says, or not who it was: only a person can decide whom to believe.
            protocol::Code::PeerCertificate
            | protocol::Code::BadCertificate
            | protocol::Code::DomainMismatch
            | protocol::Code::Conflict => Exit::Distrust,
            _ => Exit::Failed,
        };
        Fault {
            code: refusal.code.as_str().to_uppercase(),
            what: refusal.detail.clone(),
            at: "the answer to the request".to_owned(),
            why: "nothing was changed".to_owned(),
            hint: refusal.code.sentence().to_owned(),
            exit,
        }
        .into()
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Refused(refusal) => refusal.into(),
            Stop::Failed(error) => error.into(),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        Error::from(e).into()
    }
}
