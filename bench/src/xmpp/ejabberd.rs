//! ejabberd as a child process, its accounts, archive and queues in PostgreSQL.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::process::Child;

use super::postgres::Cluster;
use super::stage::{Host, PASSWORD};
use super::stream::Door;
use crate::tls::{self, Certificate};
use crate::{Outcome, process};

/// An Erlang machine needs a while.
const READY_WITHIN: Duration = Duration::from_mins(2);
const DATABASE: &str = "ejabberd";

/// A running server with its database.
pub struct Ejabberd {
    domain: String,
    address: SocketAddr,
    certificate: Certificate,
    database: Cluster,
    folder: PathBuf,
    process: Child,
}

impl Ejabberd {
    /// Makes a server under `folder` and starts it with its database. With a port for other servers the domain is a loopback address:
    /// that is where others look for it, without a name server.
    ///
    /// # Errors
    /// When ejabberd is not there or does not get ready.
    pub async fn start(folder: &Path, domain: &str, federation: Option<u16>) -> Outcome<Self> {
        std::fs::create_dir_all(folder)?;
        let database = Cluster::start(&folder.join("postgres")).await?;
        database.sql("postgres", &["-c", "CREATE DATABASE ejabberd"])?;
        database.sql(DATABASE, &["-f", "/usr/share/ejabberd/sql/pg.sql"])?;
        let conference = format!("conference.{domain}");
        let certificate = Certificate::make(&[domain, &conference])?;
        certificate.write(&folder.join("certificate.pem"))?;
        let host = if federation.is_some() { domain.parse()? } else { Ipv4Addr::LOCALHOST };
        let address = SocketAddr::from((host, process::free_port()?));
        let text = configuration(folder, domain, address, &database, federation)?;
        std::fs::write(folder.join("ejabberd.yml"), text)?;
        // Nobody is asked for names.
        let resolver = "{lookup, [file]}.\n{resolv_conf, \"\"}.\n{hosts_file, \"\"}.\n";
        std::fs::write(folder.join("inetrc"), resolver)?;
        let process = run(folder, address).await?;
        let (domain, folder) = (domain.to_owned(), folder.to_owned());
        Ok(Self { domain, address, certificate, database, folder, process })
    }

    /// Its processes, the database's among them.
    #[must_use]
    pub fn roots(&self) -> Vec<u32> {
        self.process.id().into_iter().chain(self.database.roots()).collect()
    }

    /// SIGKILL to the server and to its database.
    pub async fn kill(&mut self) {
        process::kill(&mut self.process).await;
        self.database.kill().await;
    }

    /// Starts both again.
    ///
    /// # Errors
    /// When either does not get ready.
    pub async fn resume(&mut self) -> Outcome<()> {
        self.database.resume().await?;
        self.process = run(&self.folder, self.address).await?;
        Ok(())
    }

    /// Ends both.
    pub async fn stop(&mut self) {
        process::end(&mut self.process).await;
        self.database.stop().await;
    }

    /// The last of what it logged.
    #[must_use]
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("ejabberd.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}

impl Host for Ejabberd {
    fn door(&self) -> Door {
        Door {
            address: self.address,
            domain: self.domain.clone(),
            config: tls::client(&self.certificate.der).expect("the TLS library has its defaults"),
            user: String::new(),
            password: String::new(),
            room: None,
            acknowledged: false,
        }
    }

    fn register(&self, names: &[String]) -> Outcome<()> {
        let file = self.folder.join("people.tsv");
        let mut text = String::new();
        for name in names {
            writeln!(text, "{name}\t{PASSWORD}")?;
        }
        std::fs::write(&file, text)?;
        let copy = format!("\\copy users (username, password) FROM '{}'", file.display());
        self.database.sql(DATABASE, &["-c", &copy]).map(drop)
    }
}

async fn run(folder: &Path, address: SocketAddr) -> Outcome<Child> {
    let mut command = Command::new("erl");
    // As `ejabberdctl foreground` does, but under no name: nothing is registered anywhere, so several can run.
    command.args(["+K", "true", "+P", "250000", "-noinput", "-mnesia", "dir"]);
    command.arg(format!("\"{}\"", folder.join("mnesia").display())).args(["-s", "ejabberd"]);
    command.env("ERL_LIBS", "/usr/lib/x86_64-linux-gnu:/usr/lib/aarch64-linux-gnu");
    command.env("EJABBERD_CONFIG_PATH", folder.join("ejabberd.yml"));
    command.env("EJABBERD_LOG_PATH", folder.join("ejabberd.log"));
    command.env("ERL_INETRC", folder.join("inetrc"));
    command.env("ERL_CRASH_DUMP_BYTES", "0").env("ERL_MAX_PORTS", "19000").env("HOME", folder);
    command.current_dir(folder);
    let mut process = process::spawn(command, &folder.join("erlang.log"))?;
    process::listening(&mut process, address, READY_WITHIN).await.map_err(|e| {
        let said = std::fs::read_to_string(folder.join("erlang.log")).unwrap_or_default();
        format!("ejabberd: {e}: {}", said.trim())
    })?;
    Ok(process)
}

fn configuration(
    folder: &Path,
    domain: &str,
    address: SocketAddr,
    database: &Cluster,
    federation: Option<u16>,
) -> Outcome<String> {
    let certificate = folder.join("certificate.pem");
    let mut text = format!(
        "hosts: [\"{domain}\"]\nloglevel: warning\ncertfiles: [\"{certificate}\"]\nlisten:\n\
         \x20 - {{port: {port}, ip: \"{ip}\", module: ejabberd_c2s, tls: true, access: all, shaper: none, max_stanza_size: 262144, backlog: 1024}}\n",
        certificate = certificate.display(),
        port = address.port(),
        ip = address.ip(),
    );
    if let Some(port) = federation {
        write!(
            text,
            "  - {{port: {port}, ip: \"{ip}\", module: ejabberd_s2s_in, shaper: none, max_stanza_size: 524288}}\n\
             outgoing_s2s_port: {port}\ns2s_use_starttls: required\n",
            ip = address.ip(),
        )?;
    }
    write!(
        text,
        "auth_method: [sql]\nauth_password_format: plain\ndefault_db: sql\nsql_type: pgsql\nsql_server: \"127.0.0.1\"\n\
         sql_port: {}\nsql_database: \"{DATABASE}\"\nsql_username: \"waxwing\"\nsql_password: \"\"\n",
        database.port
    )?;
    text.push_str(MODULES);
    Ok(text)
}

/// What its default configuration has for messages, with the archive on, without its limits, and with nothing else.
const MODULES: &str = "\
shaper_rules:
  offline_unbounded: infinity
modules:
  mod_disco: {}
  mod_mam: {default: always, db_type: sql, request_activates_archiving: false}
  mod_muc:
    db_type: sql
    max_users: 2000
    history_size: 0
    default_room_options: {mam: true, max_users: 2000}
  mod_offline: {db_type: sql, access_max_user_messages: offline_unbounded}
  mod_ping: {}
  mod_roster: {}
  mod_s2s_dialback: {}
  mod_stream_mgmt: {resend_on_timeout: if_offline}
";
