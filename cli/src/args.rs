//! What can be asked for. Unknown words are answered with the nearest known one (clap does that).

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use client::Stage;
use protocol::SubmitId;
use protocol::room::Role;

/// End-to-end encrypted messages, through your organisation's own node.
#[derive(Parser)]
#[command(name = "waxwing", version = env!("WAXWING_VERSION"), propagate_version = true, infer_subcommands = false)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed and you can fix it, 2 usage, 3 node unreachable or I/O, \
4 a trust decision is needed, 5 rate-limited, 6 partly done, 70 internal error, 75 temporary, 78 bad configuration."
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Group)]
pub(crate) struct Global {
    /// The device's folder [default: waxwing in the system's folder for data]
    #[arg(long, global = true, env = "WAXWING_DIR", value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
    /// How to print data
    #[arg(short, long, global = true, env = "WAXWING_OUTPUT", value_name = "FORM")]
    #[arg(value_enum, default_value_t = Form::Text, hide_env_values = true)]
    pub(crate) output: Form,
    /// No talk on stderr but errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Log what happens to stderr; more with -vv and -vvv
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// No colours (also NO_COLOR, TERM=dumb, or not a terminal)
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Give up waiting after this long: 30, 500ms, 2m [default: 30s; listen: never]
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_time)]
    pub(crate) timeout: Option<Duration>,
    /// The first line of this file opens the device's folder
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Do not ask before doing what cannot be undone
    #[arg(long, global = true)]
    pub(crate) yes: bool,
}

impl Global {
    /// How long to wait for a thing that ends.
    pub(crate) fn patience(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(30))
    }
}

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people
    Text,
    /// One JSON value
    Json,
    /// One JSON object a line
    Jsonl,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Become a new person at a node, from an invitation line
    Register(Register),
    /// Make this folder a further device of a person, from a line that `devices add` prints there
    Link(Link),
    /// This person's devices
    Devices {
        #[command(subcommand)]
        verb: Option<DevicesVerb>,
    },
    /// Rooms
    Room {
        #[command(subcommand)]
        verb: RoomVerb,
    },
    /// Send a message
    Send(Send),
    /// Send a message again that has failed
    Retry {
        /// Its SubmitId, as `send` printed it
        submit_id: SubmitId,
    },
    /// Print a room's messages
    Read(Read),
    /// Print messages as they come
    Listen(Listen),
    /// Who somebody really is
    Contact {
        #[command(subcommand)]
        verb: ContactVerb,
    },
    /// Who this device is
    Whoami,
}

#[derive(Group)]
pub(crate) struct Register {
    /// The waxwing-invite line; - reads it from stdin
    pub(crate) line: String,
    /// Your name: ana becomes @ana at the node's domain
    #[arg(long)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) sign_in: SignIn,
}

#[derive(Group)]
pub(crate) struct Link {
    /// The waxwing-device line; - reads it from stdin
    pub(crate) line: String,
    #[command(flatten)]
    pub(crate) sign_in: SignIn,
}

#[derive(Group)]
pub(crate) struct SignIn {
    /// What you call this device [default: the computer's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) device_name: Option<String>,
    /// The first line of this file is the password; else it is asked for
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Ask for a passphrase to seal this device's data with, instead of a key file beside it
    #[arg(long, conflicts_with = "unsealed")]
    pub(crate) passphrase: bool,
    /// Keep messages readable on this disk: only for looking for faults
    #[arg(long)]
    pub(crate) unsealed: bool,
}

#[derive(Subcommand)]
pub(crate) enum DevicesVerb {
    /// List them (what `devices` alone does)
    List,
    /// Print the line that links a further device
    Add,
    /// Shut a device out, at once and for good
    Revoke {
        /// Its URI, the end of it, or its name
        device: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum RoomVerb {
    /// Make a room of you alone
    Create {
        /// What you call it; only this device knows the name
        name: Option<String>,
        /// Use the hybrid post-quantum cipher suite
        #[arg(long)]
        post_quantum: bool,
    },
    /// List rooms and who is in them
    List,
    /// Add people
    Invite {
        /// The room: its URI, the beginning of its id, or your name for it
        room: String,
        /// @bea@b.example
        #[arg(required = true)]
        users: Vec<String>,
    },
    /// Remove people
    Remove {
        /// The room
        room: String,
        /// @bea@b.example
        #[arg(required = true)]
        users: Vec<String>,
    },
    /// Give somebody another role
    Role {
        /// The room
        room: String,
        /// @bea@b.example
        user: String,
        /// The role
        #[arg(value_enum)]
        role: RoleArg,
    },
    /// Come into a held room again; what was written since it is held is lost to this device
    Rejoin {
        /// The room
        room: String,
    },
    /// Leave with all your devices
    Leave {
        /// The room
        room: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum ContactVerb {
    /// Print the number to compare with somebody over the telephone: the same on both sides, or somebody is in between
    Verify {
        /// @bea@b.example
        user: String,
    },
    /// Accept the other identity that somebody showed; compare numbers first
    Accept {
        /// @bea@b.example
        user: String,
    },
}

/// Roles one can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Sends and reads
    Member,
    /// Also adds and removes members
    Admin,
    /// Also makes and unmakes admins and owners
    Owner,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Member => Self::Member,
            RoleArg::Admin => Self::Admin,
            RoleArg::Owner => Self::Owner,
        }
    }
}

#[derive(Group)]
pub(crate) struct Send {
    /// The room: its URI, the beginning of its id, or your name for it
    pub(crate) room: String,
    /// The text; - reads it from stdin
    #[arg(required = true)]
    pub(crate) text: Vec<String>,
    /// Return when the message has come so far
    #[arg(long, value_enum, default_value_t = Wait::Stored)]
    pub(crate) wait: Wait,
}

/// How far a message must come before `send` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    /// Durable on this device; it leaves with the next command that connects
    Queued,
    /// Durable on your node
    Stored,
    /// In its place in the room
    Accepted,
}

impl From<Wait> for Stage {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Queued => Self::Queued,
            Wait::Stored => Self::Stored,
            Wait::Accepted => Self::Accepted,
        }
    }
}

#[derive(Group)]
pub(crate) struct Read {
    /// The room: its URI, the beginning of its id, or your name for it
    pub(crate) room: String,
    /// Only messages whose place in the room is after this number
    #[arg(long, value_name = "SEQ")]
    pub(crate) after: Option<u64>,
    /// At most so many: the last ones, or with --after the first ones
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) limit: usize,
    /// Only what is on this device already
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Group)]
pub(crate) struct Listen {
    /// Only this room
    #[arg(long)]
    pub(crate) room: Option<String>,
    /// Begin with everything that no `listen` on this device has printed
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) since: Option<Since>,
    /// Also print states, joins and other events (always with -o json or jsonl)
    #[arg(long)]
    pub(crate) events: bool,
    /// Stop after so many messages
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
}

/// Where `listen` begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Since {
    /// Where the last `listen` ended
    Last,
}

/// Reads 30, 30s, 500ms or 2m.
fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "write it as 30, 30s, 500ms or 2m".to_owned())?;
    match unit {
        "" | "s" => Ok(Duration::from_secs(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err("write it as 30, 30s, 500ms or 2m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound_and_times_read_as_written() {
        Args::command().debug_assert();
        assert_eq!(parse_time("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_mins(2)));
        for bad in ["", "s", "1h", "-1", "1.5s"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
