//! A node's list of endpoints, ours and a peer's. PROTOCOL §9.2.
//!
//! A peer's directory says under which paths it serves; where it is dialled stays what its row says. So a directory can neither
//! lead us to another host nor to another key.

use std::time::Duration;

use http::uri::PathAndQuery;
use protocol::mimi::{Directory, Extension, expand};
use protocol::{Domain, limit};

use crate::Peer;
use crate::endpoint::BACKFILL;

/// The longest directory that is read.
pub const BODY_BYTES: usize = 64 * 1024;

/// One URI template.
const TEMPLATE_BYTES: usize = 1024;

/// A peer's directory is good for at least this long, and
const MIN_AGE: Duration = Duration::from_mins(1);
/// at most this long, whatever its `Cache-Control` says.
const MAX_AGE: Duration = Duration::from_hours(24);
/// How long when it says nothing.
const DEFAULT_AGE: Duration = Duration::from_hours(1);

/// Our directory, for a node whose endpoints are all under `base`, such as `https://a.example:8443`.
#[must_use]
pub fn ours(base: &str, node_key: &[u8; 32]) -> Directory {
    use base64::Engine as _;
    let base = base.trim_end_matches('/');
    let features =
        [Extension::IDEMPOTENT, Extension::SEQ, Extension::BACKFILL, Extension::BUNDLE_SIGNATURE];
    let extension = Extension {
        features: features.map(str::to_owned).to_vec(),
        node_key: base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(node_key),
        backfill: Some(format!("{base}{BACKFILL}{{roomId}}")),
        max_body: limit::PEER_BODY_BYTES as u64,
        max_batch: u32::try_from(limit::BATCH_ENTRIES).unwrap_or(u32::MAX),
    };
    Directory::under(base, extension)
}

/// A peer's endpoints as paths with one variable, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) key_material: Template,
    pub(crate) update: Template,
    pub(crate) notify: Template,
    pub(crate) submit_message: Template,
    pub(crate) group_info: Template,
    /// Missing at a node of another kind.
    pub(crate) backfill: Option<Template>,
}

/// The path of a URI template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(String);

impl Endpoints {
    /// Checks a peer's directory: each template is an `https` URL of the peer's domain or of the host in its row, with one
    /// variable in its path and nothing after the path.
    pub(crate) fn of(directory: &Directory, peer: &Peer) -> Result<Self, String> {
        let one = |name: &str, url: &str| {
            Template::of(url, peer)
                .ok_or_else(|| format!("its directory's {name} is not a path of its own"))
        };
        let backfill = directory.extension.as_ref().and_then(|e| e.backfill.as_deref());
        Ok(Self {
            key_material: one("keyMaterial", &directory.key_material)?,
            update: one("update", &directory.update)?,
            notify: one("notify", &directory.notify)?,
            submit_message: one("submitMessage", &directory.submit_message)?,
            group_info: one("groupInfo", &directory.group_info)?,
            backfill: backfill.map(|url| one("backfill", url)).transpose()?,
        })
    }
}

impl Template {
    fn of(url: &str, peer: &Peer) -> Option<Self> {
        if url.len() > TEMPLATE_BYTES {
            return None;
        }
        let (authority, path) = url.strip_prefix("https://")?.split_once('/')?;
        // `@` would put what looks like a host into the user's name.
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => host,
            _ => authority,
        };
        let own = host == peer.domain.as_str() || host.eq_ignore_ascii_case(&peer.host);
        let template = Self(format!("/{path}"));
        let plain = !path.contains(['?', '#', '\\']) && template.path("x").is_some();
        if own && plain { Some(template) } else { None }
    }

    /// The path for `uri`.
    pub(crate) fn path(&self, uri: &str) -> Option<PathAndQuery> {
        PathAndQuery::try_from(expand(&self.0, uri).ok()?).ok()
    }
}

/// How long a directory is good for, from its `Cache-Control`.
pub(crate) fn max_age(headers: &http::HeaderMap) -> Duration {
    let text =
        headers.get(http::header::CACHE_CONTROL).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut age = DEFAULT_AGE;
    for part in text.split(',').map(|p| p.trim().to_ascii_lowercase()) {
        if let Some(seconds) = part.strip_prefix("max-age=").and_then(|s| s.parse().ok()) {
            age = Duration::from_secs(seconds);
        } else if part == "no-store" || part == "no-cache" {
            age = MIN_AGE;
        }
    }
    age.clamp(MIN_AGE, MAX_AGE)
}

/// The base URL under which a node of `domain` names its endpoints.
#[must_use]
pub fn base_url(domain: &Domain, port: u16) -> String {
    match port {
        443 => format!("https://{domain}"),
        _ => format!("https://{domain}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reach;

    fn peer() -> Peer {
        Peer {
            domain: Domain::parse("a.example").unwrap(),
            node_key: [1; 32],
            host: "127.0.0.1".into(),
            port: 8443,
            reach: Reach::Anywhere,
        }
    }

    #[test]
    fn our_own_directory_is_one_we_would_take() {
        let directory = ours(&base_url(&peer().domain, 8443), &[7; 32]);
        let json = serde_json::to_vec(&directory).unwrap();
        let endpoints = Endpoints::of(&serde_json::from_slice(&json).unwrap(), &peer()).unwrap();
        let path = |t: &Template| t.path("mimi://a.example/r/x").unwrap().to_string();
        let uri = "mimi%3A%2F%2Fa.example%2Fr%2Fx";
        assert_eq!(path(&endpoints.notify), format!("{}{uri}", crate::endpoint::NOTIFY));
        assert_eq!(path(&endpoints.update), format!("{}{uri}", crate::endpoint::UPDATE));
        assert_eq!(
            path(&endpoints.submit_message),
            format!("{}{uri}", crate::endpoint::SUBMIT_MESSAGE)
        );
        assert_eq!(path(&endpoints.group_info), format!("{}{uri}", crate::endpoint::GROUP_INFO));
        assert_eq!(
            path(&endpoints.key_material),
            format!("{}{uri}", crate::endpoint::KEY_MATERIAL)
        );
        assert_eq!(path(endpoints.backfill.as_ref().unwrap()), format!("{BACKFILL}{uri}"));
    }

    #[test]
    fn a_directory_cannot_lead_elsewhere() {
        for (url, good) in [
            ("https://a.example/x/{r}", true),
            ("https://a.example:1/x/{r}", true),
            ("https://127.0.0.1:8443/{r}/y", true),
            ("http://a.example/x/{r}", false),
            ("https://b.example/x/{r}", false),
            ("https://x.a.example/x/{r}", false),
            ("https://a.example@b.example/x/{r}", false),
            ("https://b.example@a.example/x/{r}", false),
            ("https://a.example.b.example/{r}", false),
            ("https://a.example", false),
            ("https://a.example/x", false),
            ("https://a.example/{r}/{s}", false),
            ("https://a.example/{+r}", false),
            ("https://a.example/x?y={r}", false),
            ("https://a.example/{r}#x", false),
            ("https://a.example/{r} HTTP/1.1\r\nX: y", false),
            ("//a.example/{r}", false),
            ("", false),
        ] {
            assert_eq!(Template::of(url, &peer()).is_some(), good, "{url}");
        }
        let long = format!("https://a.example/{}/{{r}}", "x".repeat(TEMPLATE_BYTES));
        assert!(Template::of(&long, &peer()).is_none());
    }

    #[test]
    fn a_directory_is_kept_between_a_minute_and_a_day() {
        for (text, seconds) in [
            ("", 3600),
            ("max-age=120", 120),
            ("public, Max-Age=7200", 7200),
            ("max-age=0", 60),
            ("no-store", 60),
            ("max-age=99999999", 24 * 3600),
            ("max-age=-1", 3600),
        ] {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::CACHE_CONTROL, text.parse().unwrap());
            assert_eq!(max_age(&headers).as_secs(), seconds, "{text}");
        }
    }
}
