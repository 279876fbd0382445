//! Finding mistakes in a configuration, and saying how to mend them.

use std::path::Path;

use figment::Figment;
use figment::value::{Dict, Value};

use protocol::limit;
use tracing_subscriber::EnvFilter;

use super::{Config, ConfigError, DAY, ENV_PREFIX};

/// Refuses a file with a key nobody reads.
pub(super) fn keys(text: &str, file: &str) -> Result<(), ConfigError> {
    let table: toml::Table = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |s| line_of(text, s.start));
        ConfigError {
            what: format!("the configuration is not valid TOML: {}", e.message()),
            at: format!("{file}, line {line}"),
            hint: "mend that line; `waxwing-node init` writes a commented example".to_owned(),
        }
    })?;
    let known = known_keys();
    for key in flatten_toml("", &table) {
        if !known.contains(&key) {
            let hint = misplaced(&key, &known).unwrap_or_else(|| nearest(&key, &known));
            let at = format!("{file}, line {}", line_of_key(text, &key));
            return Err(unknown(&key, at, hint));
        }
    }
    Ok(())
}

/// Refuses an environment variable nobody reads.
pub(super) fn environment(environment: &Figment) -> Result<(), ConfigError> {
    let values: Dict = environment.extract().unwrap_or_default();
    let known = known_keys();
    for key in flatten_dict("", &values) {
        if !known.contains(&key) {
            let name = format!("{ENV_PREFIX}{}", key.replace('.', "__").to_uppercase());
            let hint = nearest(&key, &known);
            return Err(unknown(&key, format!("environment variable {name}"), hint));
        }
    }
    Ok(())
}

/// A value of the wrong type, as a sentence.
pub(super) fn value_error(error: &figment::Error, file: &Path) -> ConfigError {
    let key = error.path.join(".");
    let variable = format!("{ENV_PREFIX}{}", key.replace('.', "__").to_uppercase());
    let from_environment = error.metadata.as_ref().is_some_and(|m| m.name.contains("environment"));
    ConfigError {
        what: format!("{key}: {}", error.kind),
        at: if from_environment {
            format!("environment variable {variable}")
        } else {
            format!("{key} in {}", file.display())
        },
        hint: "give it a value of the kind the comment in the example describes".to_owned(),
    }
}

/// Refuses values outside their range.
pub(super) fn values(config: &Config, file: &str) -> Result<(), ConfigError> {
    let bad = |key: &str, what: String, hint: &str| {
        Err(ConfigError {
            what: format!("{key}: {what}"),
            at: format!("{key} in {file}"),
            hint: hint.to_owned(),
        })
    };
    if config.domain.is_empty() {
        return bad("domain", "it is missing".to_owned(), "write domain = \"your.domain\"");
    }
    if let Err(e) = config.domain() {
        return Err(ConfigError { at: format!("domain in {file}"), ..e });
    }
    if config.data_dir.as_os_str().is_empty() {
        return bad(
            "data_dir",
            "it is missing".to_owned(),
            "name a folder that only the node may read",
        );
    }
    let url = &config.database.url;
    if !(url.is_empty() || url.starts_with("sqlite://") || url.starts_with("postgres")) {
        return bad(
            "database.url",
            "unknown kind of database".to_owned(),
            "leave it empty, or write postgres://…",
        );
    }
    if EnvFilter::try_new(&config.log.level).is_err() {
        let hint = "write error, warn, info, debug or trace, or a filter such as info,node=debug";
        return bad("log.level", format!("{:?} is no level", config.log.level), hint);
    }
    if !is_host(&config.public.host) {
        let what = format!("{:?} is no host name or address", config.public.host);
        return bad("public.host", what, "write a name such as chat.a.example, or [2001:db8::1]");
    }
    let longest = limit::RETENTION.as_secs() / DAY;
    if config.retention.days > longest {
        // Key packages live only a week longer: a commit read later would lock its reader out.
        let what = format!("messages are kept for at most {longest} days");
        return bad("retention.days", what, "write a smaller number");
    }
    let l = &config.limits;
    let numbers = [
        ("limits.connections", l.connections as u64),
        ("limits.connections_per_address", l.connections_per_address as u64),
        ("limits.handshake_ms", l.handshake_ms),
        ("limits.header_ms", l.header_ms),
        ("limits.body_ms", l.body_ms),
        ("limits.body_bytes_per_second", l.body_bytes_per_second),
        ("limits.stream_idle_ms", l.stream_idle_ms),
        ("limits.stream_write_ms", l.stream_write_ms),
        ("limits.passwords_at_once", l.passwords_at_once as u64),
        ("limits.sign_ins_per_minute", u64::from(l.sign_ins_per_minute)),
        ("limits.submits_per_second", u64::from(l.submits_per_second)),
        ("limits.claims_per_minute", u64::from(l.claims_per_minute)),
        ("limits.peer_requests_per_second", u64::from(l.peer_requests_per_second)),
        ("limits.rooms_per_peer", u64::from(l.rooms_per_peer)),
        ("retention.days", config.retention.days),
        ("federation.in_flight_per_peer", config.federation.in_flight_per_peer as u64),
        ("federation.timeout_ms", config.federation.timeout_ms),
    ];
    match numbers.iter().find(|(_, n)| *n == 0) {
        Some((key, _)) => bad(key, "0 would stop the node".to_owned(), "write a number above 0"),
        None => Ok(()),
    }
}

/// Empty, a name, an IPv4 address, or an IPv6 address in brackets: what fits into an invitation line.
fn is_host(text: &str) -> bool {
    let inside = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    match inside {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')),
    }
}

fn unknown(key: &str, at: String, hint: String) -> ConfigError {
    ConfigError { what: format!("unknown key `{key}`"), at, hint }
}

/// A key of the right name in the wrong place. In TOML a key belongs to the last `[table]` above it, so one that is appended to a file
/// lands in the last table.
fn misplaced(key: &str, known: &[String]) -> Option<String> {
    let (table, name) = key.split_once('.').map_or((None, key), |(t, n)| (Some(t), n));
    let here = table.map_or("at the top of the file".to_owned(), |t| format!("in [{t}]"));
    let stands = table.map_or("above the first [table]".to_owned(), |t| format!("below [{t}]"));
    if table.is_some() && known.iter().any(|k| k == name) {
        return Some(format!(
            "`{name}` stands {stands} and so counts as {here}; move it to the top of the file, above the first [table]"
        ));
    }
    if table.is_some() && known.iter().any(|k| k.split_once('.').is_some_and(|(t, _)| t == name)) {
        return Some(format!(
            "`{name}` is a table of its own: write [{name}] on a line by itself and its keys below it; where it stands, {stands}, it counts as {here}"
        ));
    }
    let homes = known.iter().filter_map(|k| k.split_once('.').filter(|(_, n)| *n == name));
    let home = homes.map(|(t, _)| t).next()?;
    Some(format!(
        "did you mean `{home}.{name}`? It stands {stands} and so counts as {here}; move it below [{home}]"
    ))
}

/// The known key that is most like it.
fn nearest(key: &str, known: &[String]) -> String {
    let last = |k: &str| k.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |k: &String| strsim::jaro_winkler(k, key);
    let nearest = known
        .iter()
        // Two keys of one table begin alike and may mean nothing like each other.
        .filter(|k| likeness(k) > 0.8 && strsim::jaro_winkler(&last(k), &last(key)) > 0.8)
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        Some(k) => format!("did you mean `{k}`?"),
        None => "remove it; `waxwing-node init` writes a commented example".to_owned(),
    }
}

/// Where a key stands: in its table, or as a table's own line.
fn line_of_key(text: &str, key: &str) -> usize {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut inside = "";
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if let Some(header) = line.strip_prefix('[') {
            inside = header.split(']').next().unwrap_or_default().trim();
            if inside == key {
                return number;
            }
        } else if inside == table
            && let Some(rest) = line.trim_start_matches('"').strip_prefix(name)
            && rest.trim_start_matches('"').trim_start().starts_with(['=', '.'])
        {
            return number;
        }
    }
    1
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

fn known_keys() -> Vec<String> {
    let all = Figment::from(figment::providers::Serialized::defaults(Config::default()));
    flatten_dict("", &all.extract::<Dict>().unwrap_or_default())
}

fn flatten_dict(prefix: &str, dict: &Dict) -> Vec<String> {
    dict.iter()
        .flat_map(|(key, value)| {
            let key = format!("{prefix}{key}");
            match value {
                // Sections are one level deep, so this does not go further than the input allows.
                Value::Dict(_, inner) if prefix.is_empty() => {
                    flatten_dict(&format!("{key}."), inner)
                }
                _ => vec![key],
            }
        })
        .collect()
}

fn flatten_toml(prefix: &str, table: &toml::Table) -> Vec<String> {
    table
        .iter()
        .flat_map(|(key, value)| {
            let key = format!("{prefix}{key}");
            match value {
                toml::Value::Table(inner) if prefix.is_empty() => {
                    flatten_toml(&format!("{key}."), inner)
                }
                _ => vec![key],
            }
        })
        .collect()
}
