//! `init`: everything a node needs, made once.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use clap::Args;
use serde_json::json;

use super::report::{Exit, Failure, Fault, Report};
use crate::clock::{SystemClock, SystemEntropy};
use crate::config::{Config, Flags, example};
use crate::error::Error;
use crate::nodekey::{self, NodeKeys};
use crate::store::{Options, Store, identity};

#[derive(Debug, Args)]
pub(super) struct Init {
    /// Host name or address in invitation lines; the domain if not given.
    #[arg(long, default_value = "")]
    public_host: String,
    /// Port in invitation lines; the one listened on if not given.
    #[arg(long, default_value_t = 0)]
    public_port: u16,
    /// `postgres://…`; SQLite in the data directory if not given.
    #[arg(long, default_value = "")]
    database: String,
}

/// Where a node's data goes if nobody says otherwise.
const DATA_DIR: &str = "/var/lib/waxwing";

pub(super) async fn init(file: &Path, init: &Init, flags: &Flags) -> Result<Report, Failure> {
    if file.exists() {
        return Err(exists(file));
    }
    let data_dir = flags.data_dir.as_deref().unwrap_or(Path::new(DATA_DIR));
    if let Some(key) = nodekey::present(data_dir) {
        return Err(exists(&key));
    }
    let domain = flags.domain.clone().unwrap_or_default();
    protocol::Domain::parse(&domain).map_err(|e| Fault {
        code: "CONFIG".to_owned(),
        what: format!("domain {domain:?}: {e}"),
        at: "--domain".to_owned(),
        why: "people's names end in it, and it cannot be changed later".to_owned(),
        hint: "write a lower-case host name, such as a.example".to_owned(),
        exit: Exit::Config,
    })?;
    let data_dir = std::path::absolute(data_dir).map_err(Error::io("the data directory"))?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&data_dir)
        .map_err(Error::io(format!("{} cannot be made", data_dir.display())))?;
    write_config(file, &settings(init, flags, &domain, &data_dir))?;
    let made = make(file).await;
    if made.is_err() {
        // Run again after mending what was wrong: a half-made node would be in the way.
        let _gone = std::fs::remove_file(file);
        nodekey::remove(&data_dir);
    }
    made
}

async fn make(file: &Path) -> Result<Report, Failure> {
    let config = Config::load(file, &Flags::default())?;
    let domain = config.domain()?;
    NodeKeys::create(&config.data_dir, &SystemEntropy)?;
    let options =
        Options { create: true, ..Options::new(crate::location(&config), domain.clone()) };
    let store = Store::open(options, &SystemClock, &SystemEntropy).await?;
    let node = identity::load(&mut store.snapshot().await?).await?;
    store.close().await;
    let node_key = nodekey::public_key(&config.data_dir)?;
    let key = hex(&node_key);
    let text = format!(
        "{domain} is ready in {}\nnode key {key}\nnext: waxwing-node -c {} run",
        config.data_dir.display(),
        file.display()
    );
    Ok(Report::new(
        text,
        &json!({
            "domain": domain,
            "config": file,
            "data_dir": config.data_dir,
            "node_key": key,
            "incarnation": node.incarnation,
        }),
    ))
}

/// The example with what was asked for in it.
fn settings(init: &Init, flags: &Flags, domain: &str, data_dir: &Path) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let listen = flags.listen.unwrap_or(Config::default().listen.address);
    example(domain, data_dir)
        .replace("address = \"0.0.0.0:8443\"", &format!("address = \"{listen}\""))
        .replace("host = \"\"", &format!("host = {}", quoted(&init.public_host)))
        .replace("port = 0\n", &format!("port = {}\n", init.public_port))
        .replace("url = \"\"\n", &format!("url = {}\n", quoted(&init.database)))
}

/// The file may hold a database password, so it is the node's alone.
fn write_config(file: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let failed = |e: std::io::Error| Failure::from(Error::io(format!("{}", file.display()))(e));
    if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut open = std::fs::OpenOptions::new();
    let mut made = open.write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    made.write_all(text.as_bytes()).map_err(failed)
}

fn exists(file: &Path) -> Failure {
    Fault {
        code: "EXISTS".to_owned(),
        what: "there is a node already".to_owned(),
        at: file.display().to_string(),
        why: "its name, keys and messages would be lost".to_owned(),
        hint: "use another --config and --data-dir, or `waxwing-node run`".to_owned(),
        exit: Exit::Failed,
    }
    .into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        use std::fmt::Write as _;
        let _infallible = write!(out, "{b:02x}");
        out
    })
}
