//! Configuration: defaults, then the TOML file, then `WAXWING_NODE_SECTION__KEY`, then flags. Everything has a default
//! but the domain and the data directory; an unknown key is an error with a suggestion.

mod check;
mod example;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use protocol::{Domain, limit};
use serde::{Deserialize, Serialize};

pub use example::example;

/// The prefix of environment variables.
pub const ENV_PREFIX: &str = "WAXWING_NODE_";

/// Everything an operator can set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The node's name, the part after the last `@` of people's names. Cannot change later.
    pub domain: String,
    /// Where keys, the SQLite database and the ballast file live.
    pub data_dir: PathBuf,
    /// See [`Listen`].
    pub listen: Listen,
    /// See [`Public`].
    pub public: Public,
    /// See [`Database`].
    pub database: Database,
    /// See [`Limits`].
    pub limits: Limits,
    /// See [`Retention`].
    pub retention: Retention,
    /// See [`Disk`].
    pub disk: Disk,
    /// See [`Federation`].
    pub federation: Federation,
    /// See [`Log`].
    pub log: Log,
}

/// The one port that devices and peers connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port; port 0 takes a free one, which is written to `<data_dir>/address`.
    pub address: SocketAddr,
}

/// How others reach the node: what invitation lines say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Public {
    /// Host name or address; empty for the domain.
    pub host: String,
    /// Port; 0 for the port the node listens on.
    pub port: u16,
}

/// Where the data is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgres://…`, or empty for `<data_dir>/node.db` (SQLite).
    pub url: String,
}

/// Bounds on what strangers can make the node do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Open connections in all.
    pub connections: usize,
    /// Open connections from one address.
    pub connections_per_address: usize,
    /// Milliseconds a TLS handshake may take.
    pub handshake_ms: u64,
    /// Milliseconds a request's header may take.
    pub header_ms: u64,
    /// Milliseconds a body may take before it must keep to `body_bytes_per_second`.
    pub body_ms: u64,
    /// Slowest body accepted, in bytes per second.
    pub body_bytes_per_second: u64,
    /// Milliseconds without any sign of life after which a device's stream is closed.
    pub stream_idle_ms: u64,
    /// Milliseconds one write to a device's stream may take.
    pub stream_write_ms: u64,
    /// Passwords hashed at the same time; each takes 19 MiB.
    pub passwords_at_once: usize,
    /// Registrations and logins per minute from one address.
    pub sign_ins_per_minute: u32,
    /// Submissions per second of one device, sustained.
    pub submits_per_second: u32,
    /// Key material requests per minute of one user.
    pub claims_per_minute: u32,
    /// Requests per second of one peer, sustained.
    pub peer_requests_per_second: u32,
    /// Rooms of one peer that people here are or were in; beyond it the peer's further rooms wait there.
    pub rooms_per_peer: u32,
}

/// How long things are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Days an entry waits for a reader, at most 30.
    pub days: u64,
}

/// What keeps a full disk from stopping deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Below this much free space nothing new is taken.
    pub low_water_mib: u64,
    /// Size of the file that is given up so that deletes work on a full disk.
    pub ballast_mib: u64,
}

/// Traffic with peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Federation {
    /// Requests in flight to one peer.
    pub in_flight_per_peer: usize,
    /// Milliseconds one request to a peer may take.
    pub timeout_ms: u64,
}

/// What the log looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,node::worker=debug`.
    pub level: String,
}

/// See [`Log::format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            domain: String::new(),
            data_dir: PathBuf::new(),
            listen: Listen { address: SocketAddr::from(([0, 0, 0, 0], 8443)) },
            public: Public::default(),
            database: Database::default(),
            limits: Limits::default(),
            retention: Retention { days: limit::RETENTION.as_secs() / DAY },
            disk: Disk { low_water_mib: 256, ballast_mib: 64 },
            federation: Federation { in_flight_per_peer: 8, timeout_ms: 15_000 },
            log: Log { format: LogFormat::Text, level: "info".to_owned() },
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8_192,
            connections_per_address: 512,
            handshake_ms: 10_000,
            header_ms: 15_000,
            body_ms: 10_000,
            body_bytes_per_second: 1_024,
            stream_idle_ms: 90_000,
            stream_write_ms: 30_000,
            passwords_at_once: 4,
            sign_ins_per_minute: 60,
            submits_per_second: 100,
            claims_per_minute: 120,
            peer_requests_per_second: 500,
            rooms_per_peer: 50_000,
        }
    }
}

/// A configuration that cannot be used, with what a person needs to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct ConfigError {
    /// What is wrong.
    pub what: String,
    /// The file, variable or flag and the key.
    pub at: String,
    /// What to do.
    pub hint: String,
}

/// Settings from the command line; they win over the file and the environment.
#[derive(Clone, Debug, Default, Serialize, clap::Args)]
pub struct Flags {
    /// The part after the last @ of people's names. It cannot be changed later.
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Where keys and database are.
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, global = true)]
    #[serde(rename = "listen", skip_serializing_if = "Option::is_none", serialize_with = "nested")]
    pub listen: Option<SocketAddr>,
}

/// `--listen` is the key `listen.address`.
#[expect(clippy::ref_option, reason = "the form that serde asks for")]
fn nested<S: serde::Serializer>(address: &Option<SocketAddr>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(address.iter().map(|address| ("address", address)))
}

impl Config {
    /// Reads the file at `path` and what overrides it, and checks the result.
    ///
    /// # Errors
    /// When the file cannot be read, has an unknown key, or a value does not follow the rules.
    pub fn load(path: &Path, flags: &Flags) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError {
            what: format!("the configuration file cannot be read: {e}"),
            at: path.display().to_string(),
            hint: "run `waxwing-node init`, or name the file with --config".to_owned(),
        })?;
        check::keys(&text, &path.display().to_string())?;
        let file = Figment::from(Toml::string(&text));
        let environment = Figment::from(Env::prefixed(ENV_PREFIX).split("__"));
        check::environment(&environment)?;
        let merged = Figment::from(Serialized::defaults(Self::default()))
            .merge(file)
            .merge(environment)
            .merge(Serialized::defaults(flags));
        let mut config: Self = merged.extract().map_err(|e| check::value_error(&e, path))?;
        // Paths in a file mean "next to the file", whatever directory the program was started in; no path means nothing.
        if config.data_dir.is_relative()
            && !config.data_dir.as_os_str().is_empty()
            && let Some(folder) = path.parent()
        {
            config.data_dir = match &flags.data_dir {
                // One on the command line means what it means in a shell.
                Some(given) => std::path::absolute(given).unwrap_or_else(|_| given.clone()),
                None => folder.join(&config.data_dir),
            };
        }
        check::values(&config, &path.display().to_string())?;
        Ok(config)
    }

    /// The node's name, already checked by [`Config::load`].
    ///
    /// # Errors
    /// When it is not a domain.
    pub fn domain(&self) -> Result<Domain, ConfigError> {
        Domain::parse(&self.domain).map_err(|e| ConfigError {
            what: format!("domain {:?}: {e}", self.domain),
            at: "domain".to_owned(),
            hint: "write the part after the last @ of people's names, such as a.example".to_owned(),
        })
    }

    /// `(host, port)` for invitation lines, given the port the node listens on.
    #[must_use]
    pub fn public_address(&self, listening: u16) -> (String, u16) {
        let host = if self.public.host.is_empty() { &self.domain } else { &self.public.host };
        (host.clone(), if self.public.port == 0 { listening } else { self.public.port })
    }

    /// How long an entry waits for a reader.
    #[must_use]
    pub const fn retention(&self) -> Duration {
        Duration::from_secs(self.retention.days.saturating_mul(DAY))
    }
}

/// Seconds.
const DAY: u64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path, &Flags::default())
    }

    #[test]
    fn the_example_is_short_commented_and_loads() {
        let text = example("a.example", Path::new("data"));
        assert!(text.lines().count() <= 40, "{} lines", text.lines().count());
        let config = load(&text).unwrap();
        assert_eq!(config.domain, "a.example");
        assert!(config.data_dir.is_absolute() && config.data_dir.ends_with("data"));
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.public_address(7), ("a.example".to_owned(), 7));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_a_suggestion() {
        let e = load("domian = \"a.example\"\ndata_dir = \"d\"\n").unwrap_err();
        assert!(e.what.contains("domian") && e.hint.contains("`domain`"), "{e:?}");
        let e = load("domain = \"a.example\"\ndata_dir = \"d\"\n[limits]\nconections = 3\n")
            .unwrap_err();
        assert!(e.what.contains("limits.conections"), "{e:?}");
        assert!(e.hint.contains("`limits.connections`"), "{e:?}");
        assert!(e.at.contains("line 4"), "{e:?}");
    }

    #[test]
    fn a_key_below_the_wrong_table_is_told_where_it_belongs() {
        let file = example("a.example", Path::new("data"));
        for (appended, key, said) in [
            ("domain = \"b.example\"", "log.domain", "above the first [table]"),
            ("federation = 3", "log.federation", "[federation] on a line by itself"),
            ("federation.timeout_ms = 3", "log.federation", "below [log]"),
            ("low_water_mib = 3", "log.low_water_mib", "move it below [disk]"),
            ("[log.federation]\ntimeout_ms = 3", "log.federation", "table of its own"),
            ("colour = true", "log.colour", "remove it"),
            ("fromat = \"json\"", "log.fromat", "`log.format`"),
        ] {
            let e = load(&format!("{file}{appended}\n")).unwrap_err();
            assert!(e.what.contains(&format!("`{key}`")) && e.hint.contains(said), "{e:?}");
            let line = file.lines().count() + 1;
            assert!(e.at.ends_with(&format!("line {line}")), "{appended}: {e:?}");
        }
        // And a key of a table that stands above all of them.
        let e = load(&format!("connections = 3\n{file}")).unwrap_err();
        assert!(e.hint.contains("move it below [limits]") && e.at.ends_with("line 1"), "{e:?}");
    }

    #[test]
    fn wrong_values_are_errors_that_name_the_key() {
        for (bad, key) in [
            ("data_dir = \"d\"", "domain"),
            ("domain = \"A.example\"\ndata_dir = \"d\"", "domain"),
            ("domain = \"a.example\"", "data_dir"),
            (
                "domain = \"a.example\"\ndata_dir = \"d\"\n[limits]\nconnections = 0",
                "limits.connections",
            ),
            (
                "domain = \"a.example\"\ndata_dir = \"d\"\n[limits]\nconnections = \"many\"",
                "limits.connections",
            ),
            ("domain = \"a.example\"\ndata_dir = \"d\"\n[log]\nformat = \"xml\"", "log.format"),
            (
                "domain = \"a.example\"\ndata_dir = \"d\"\n[database]\nurl = \"mysql://x\"",
                "database.url",
            ),
        ] {
            let e = load(bad).unwrap_err();
            assert!(e.at.contains(key) || e.what.contains(key), "{bad}: {e:?}");
        }
        assert!(load("domain = ").is_err());
    }
}
