//! Prosody as a child process, everything in its own files as it comes. It never syncs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::process::Child;

use super::stage::{Host, PASSWORD};
use super::stream::Door;
use crate::tls::{self, Certificate};
use crate::{Outcome, process};

const READY_WITHIN: Duration = Duration::from_mins(1);

/// A running server.
pub struct Prosody {
    domain: String,
    address: SocketAddr,
    certificate: Certificate,
    folder: PathBuf,
    process: Child,
}

impl Prosody {
    /// Makes a server under `folder` and starts it.
    ///
    /// # Errors
    /// When Prosody is not there or does not get ready.
    pub async fn start(folder: &Path, domain: &str) -> Outcome<Self> {
        std::fs::create_dir_all(folder.join("data"))?;
        std::fs::create_dir_all(folder.join("certs"))?;
        let certificate = Certificate::make(&[domain])?;
        certificate.write(&folder.join("certificate.pem"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], process::free_port()?));
        std::fs::write(folder.join("prosody.cfg.lua"), configuration(folder, domain, address))?;
        let process = run(folder, address).await?;
        let (domain, folder) = (domain.to_owned(), folder.to_owned());
        Ok(Self { domain, address, certificate, folder, process })
    }

    /// Its process.
    #[must_use]
    pub fn roots(&self) -> Vec<u32> {
        self.process.id().into_iter().collect()
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        process::kill(&mut self.process).await;
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn resume(&mut self) -> Outcome<()> {
        self.process = run(&self.folder, self.address).await?;
        Ok(())
    }

    /// SIGTERM, and waits.
    pub async fn stop(&mut self) {
        process::end(&mut self.process).await;
    }
}

impl Host for Prosody {
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
        // As the storage escapes a domain in the name of a folder.
        let escaped = self.domain.replace('.', "%2e").replace('-', "%2d");
        let accounts = self.folder.join("data").join(escaped).join("accounts");
        std::fs::create_dir_all(&accounts)?;
        for name in names {
            let text = format!("return {{ [\"password\"] = \"{PASSWORD}\"; }};\n");
            std::fs::write(accounts.join(format!("{name}.dat")), text)?;
        }
        Ok(())
    }
}

async fn run(folder: &Path, address: SocketAddr) -> Outcome<Child> {
    let mut command = Command::new("prosody");
    command.arg("--config").arg(folder.join("prosody.cfg.lua")).arg("-F").current_dir(folder);
    let mut process = process::spawn(command, &folder.join("prosody.log"))?;
    process::listening(&mut process, address, READY_WITHIN).await.map_err(|e| {
        let said = std::fs::read_to_string(folder.join("prosody.log")).unwrap_or_default();
        format!("Prosody: {e}: {}", said.trim())
    })?;
    Ok(process)
}

fn configuration(folder: &Path, domain: &str, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    let folder = folder.display();
    format!(
        "run_as_root = true\ndaemonize = false\npidfile = \"{folder}/prosody.pid\"\ndata_path = \"{folder}/data\"\n\
         interfaces = {{ \"{ip}\" }}\nc2s_ports = {{}}\ns2s_ports = {{}}\nhttp_ports = {{}}\nhttps_ports = {{}}\n\
         c2s_direct_tls_ports = {{ {port} }}\nc2s_direct_tls_ssl = {{ certificate = \"{folder}/certificate.pem\"; key = \"{folder}/certificate.pem\"; }}\n\
         ssl = {{ certificate = \"{folder}/certificate.pem\"; key = \"{folder}/certificate.pem\"; }}\n\
         authentication = \"internal_plain\"\nc2s_require_encryption = true\nallow_unencrypted_plain_auth = false\n\
         network_backend = \"epoll\"\nnetwork_settings = {{ tcp_backlog = 1024 }}\n\
         modules_enabled = {{ \"disco\", \"roster\", \"saslauth\", \"tls\", \"ping\", \"smacks\", \"mam\" }}\n\
         modules_disabled = {{ \"s2s\" }}\n\
         default_archive_policy = true\narchive_expires_after = \"never\"\n\
         storage_archive_item_limit = 100000000\n\
         log = {{ warn = \"*console\"; }}\n\
         VirtualHost \"{domain}\"\n\
         Component \"conference.{domain}\" \"muc\"\n\
         modules_enabled = {{ \"muc_mam\" }}\nmuc_room_locking = false\nmuc_log_by_default = true\n"
    )
}
