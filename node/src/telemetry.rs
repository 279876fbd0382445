//! Logs: to stderr, as text or as one JSON object a line. Ids appear as salted tags, secrets and content never.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::OnceLock;

use protocol::Entropy;
use protocol::log::Digest;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging for this process. A second call has no effect.
pub fn start(log: &Log, entropy: &dyn Entropy) {
    let _ = SALT.get_or_init(|| entropy.bytes16());
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was already started");
    }
}

static SALT: OnceLock<[u8; 16]> = OnceLock::new();

/// How an id appears in a log: eight hexadecimal digits that are the same for the same id within one run of the
/// process, and mean nothing outside it.
pub struct Tag<'a>(pub &'a str);

impl fmt::Display for Tag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut salted = SALT.get().copied().unwrap_or_default().to_vec();
        salted.extend_from_slice(self.0.as_bytes());
        let digest = Digest::of_bytes(&salted);
        digest.as_bytes().iter().take(4).try_for_each(|b| write!(f, "{b:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_stable_and_hides_the_id() {
        let tag = Tag("mimi://a.example/u/ana").to_string();
        assert_eq!(tag, Tag("mimi://a.example/u/ana").to_string());
        assert_ne!(tag, Tag("mimi://a.example/u/bo").to_string());
        assert_eq!(tag.len(), 8);
    }
}
