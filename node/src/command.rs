//! The program: arguments, and one function per command. Commands other than `run` open the database directly and work beside a
//! running node.

mod init;
mod lines;
mod peer;
mod report;
mod restored;
mod run;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};

use clap::{Parser, Subcommand};

use crate::clock::{SystemClock, SystemEntropy};
use crate::config::{Config, Flags};
use crate::error::Error;
use crate::store::{Older, Options, Store};
use report::{Failure, Fault, Report};

pub use report::Output;

/// The node of an organisation: it stores, orders and forwards sealed messages and never holds a key that opens one.
#[derive(Debug, Parser)]
#[command(name = "waxwing-node", version = VERSION.as_str(), about)]
struct Arguments {
    /// The configuration file.
    #[arg(short, long, global = true, default_value = "/etc/waxwing/node.toml")]
    config: PathBuf,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Command,
}

/// Its version, the commit it was built from where that is known, and the schema it keeps.
static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{}, schema {}", env!("WAXWING_VERSION"), crate::store::schema()));

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a node: its keys, its database and a configuration file.
    Init(init::Init),
    /// Run the node until SIGTERM.
    Run,
    /// Invitations for people.
    #[command(subcommand)]
    Invite(lines::Invite),
    /// Other organisations' nodes.
    #[command(subcommand)]
    Peer(peer::PeerCommand),
    /// What the node holds and what waits for whom.
    Status,
    /// Say that the database was restored from a backup: a new life begins. Not while the node runs.
    Restored,
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the file and what overrides it.
    Check,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = arguments.output;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(execute(arguments)),
        Err(e) => Err(Error::io("the runtime cannot be started")(e).into()),
    };
    match result {
        Ok(report) => {
            if let Some(report) = report {
                report.print(output);
            }
            ExitCode::SUCCESS
        }
        Err(failure) => {
            failure.print(output);
            ExitCode::from(failure.exit())
        }
    }
}

async fn execute(arguments: Arguments) -> Result<Option<Report>, Failure> {
    let Arguments { config: file, command, flags, .. } = arguments;
    if let Command::Init(init) = command {
        return init::init(&file, &init, &flags).await.map(Some);
    }
    let config = Config::load(&file, &flags)?;
    match command {
        Command::Init(_) => Ok(None),
        Command::Run => run::run(config).await.map(|()| None),
        Command::Restored => restored::restored(config).await.map(Some),
        Command::Config(ConfigCommand::Check) => {
            // What only the data can tell: whether the folder, the keys and the database are there and are this node's.
            crate::nodekey::public_key(&config.data_dir)?;
            Opened::of(config.clone(), Older::Refuse).await?.store.close().await;
            let text = format!(
                "{} is fine: {} on {}",
                file.display(),
                config.domain,
                config.listen.address
            );
            let json = serde_json::json!({
                "ok": true,
                "file": file,
                "domain": config.domain,
                "data_dir": config.data_dir,
                "listen": config.listen.address,
            });
            Ok(Some(Report::new(text, &json)))
        }
        beside => {
            let opened = Opened::of(config, Older::Refuse).await?;
            let done = execute_beside(&opened, beside).await;
            // Whatever came of it: the writer's thread must not outlive the runtime.
            opened.store.close().await;
            done
        }
    }
}

/// The commands that work on the database, beside a node that may be running.
async fn execute_beside(opened: &Opened, command: Command) -> Result<Option<Report>, Failure> {
    match command {
        Command::Init(_) | Command::Run | Command::Restored | Command::Config(_) => Ok(None),
        Command::Invite(invite) => lines::invite(opened, &invite).await.map(Some),
        Command::Peer(command) => peer::peer(opened, command).await.map(Some),
        Command::Status => status::status(opened).await.map(Some),
    }
}

/// A node's data, opened beside whatever else has it open.
struct Opened {
    config: Config,
    domain: protocol::Domain,
    store: Store,
}

impl Opened {
    /// Opens them; with [`Older::Update`] only where no node can be running.
    async fn of(config: Config, older: Older) -> Result<Self, Failure> {
        let domain = config.domain()?;
        let options = Options { older, ..Options::new(crate::location(&config), domain.clone()) };
        let store = Store::open(options, &SystemClock, &SystemEntropy).await?;
        Ok(Self { config, domain, store })
    }

    /// The port in lines: the one that the running node listens on, if it was free to choose.
    fn port(&self) -> u16 {
        let configured = self.config.listen.address.port();
        if configured != 0 {
            return configured;
        }
        crate::folder::address(&self.config.data_dir).map_or(0, |a| a.port())
    }

    /// How the node is reached, for lines.
    fn reachable(&self) -> Result<crate::pairing::Reachable, Failure> {
        let (host, port) = self.config.public_address(self.port());
        if port == 0 {
            return Err(Fault {
                code: "NO-PORT".to_owned(),
                what: "the node's port is not known".to_owned(),
                at: "listen.address has port 0 and the node is not running".to_owned(),
                why: "an invitation must say where the node is reached".to_owned(),
                hint: "start the node first, or set public.port".to_owned(),
                exit: report::Exit::Failed,
            }
            .into());
        }
        let node_key = crate::nodekey::public_key(&self.config.data_dir)?;
        Ok(crate::pairing::Reachable { domain: self.domain.clone(), host, port, node_key })
    }
}

/// The system's clock, shared.
fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound_and_every_command_can_be_read() {
        Arguments::command().debug_assert();
        for line in [
            "init --domain a.example",
            "run --data-dir d --listen 127.0.0.1:0",
            "invite create --expires 7d",
            "peer invite",
            "peer add waxwing-peer:x",
            "peer list",
            "peer block b.example",
            "peer unblock b.example",
            "peer remove b.example --yes --domain a.example",
            "status",
            "restored",
            "config check",
        ] {
            let words = std::iter::once("waxwing-node").chain(line.split(' '));
            assert!(Arguments::try_parse_from(words).is_ok(), "{line}");
        }
        assert!(Arguments::try_parse_from(["waxwing-node", "peer", "block", "no domain"]).is_err());
    }
}
