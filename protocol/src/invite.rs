//! One-line invitations: what an operator pastes. PROTOCOL §8.
//!
//! `waxwing-<kind>:1:<domain>:<host>:<port>:<node key>:<secret>`, keys and secrets in base64url without padding.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;

use crate::Domain;

/// What a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// A person may register at the node: `waxwing-invite`.
    Person,
    /// A node may become a peer: `waxwing-peer`.
    Peer,
    /// A new device of a person: `waxwing-device`.
    Device,
}

impl LineKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Person => "waxwing-invite",
            Self::Peer => "waxwing-peer",
            Self::Device => "waxwing-device",
        }
    }
}

/// A line: where a node is, which key it has, and a secret that works once.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    /// What it is for.
    pub kind: LineKind,
    /// The node's name.
    pub domain: Domain,
    /// Host name or address to dial.
    pub host: String,
    /// Port to dial.
    pub port: u16,
    /// The node's Ed25519 key, pinned from now on.
    pub node_key: [u8; 32],
    /// The secret.
    pub secret: [u8; 32],
}

/// A line could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {0} line: {1}; copy it again, whole, from where it was shown")]
pub struct LineError(&'static str, &'static str);

impl Line {
    /// Reads a line of one kind.
    ///
    /// # Errors
    /// When it is of another kind, damaged or of an unknown version.
    pub fn parse(kind: LineKind, text: &str) -> Result<Self, LineError> {
        let bad = |why| LineError(kind.prefix(), why);
        let text = text.trim();
        if text.len() > 1024 {
            return Err(bad("it is too long"));
        }
        let rest = text
            .strip_prefix(kind.prefix())
            .and_then(|r| r.strip_prefix(':'))
            .ok_or(bad("it starts differently"))?;
        let (version, rest) = rest.split_once(':').ok_or(bad("it is cut off"))?;
        if version != "1" {
            return Err(bad("its version is not 1"));
        }
        let (domain, rest) = rest.split_once(':').ok_or(bad("it is cut off"))?;
        let domain = Domain::parse(domain).map_err(|_| bad("its domain is not valid"))?;
        // The host may be an IPv6 address in brackets, so the rest is read from the end.
        let (rest, secret) = rest.rsplit_once(':').ok_or(bad("it is cut off"))?;
        let (rest, key) = rest.rsplit_once(':').ok_or(bad("it is cut off"))?;
        let (host, port) = rest.rsplit_once(':').ok_or(bad("it is cut off"))?;
        let bytes = |t: &str, why| {
            B64.decode(t).ok().and_then(|b| <[u8; 32]>::try_from(b).ok()).ok_or(bad(why))
        };
        if host.is_empty() || host.len() > 255 || host.contains(['/', '@', ' ']) {
            return Err(bad("its host is not valid"));
        }
        Ok(Self {
            kind,
            domain,
            host: host.to_owned(),
            port: port.parse().map_err(|_| bad("its port is not a number"))?,
            node_key: bytes(key, "its key is damaged")?,
            secret: bytes(secret, "its secret is damaged")?,
        })
    }

    /// The secret as text, for [`crate::api::Register::invite`].
    #[must_use]
    pub fn secret_text(&self) -> String {
        B64.encode(self.secret)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:1:{}:{}:{}:{}:{}",
            self.kind.prefix(),
            self.domain,
            self.host,
            self.port,
            B64.encode(self.node_key),
            B64.encode(self.secret)
        )
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({:?}, {}, …)", self.kind, self.domain)
    }
}

impl FromStr for LineKind {
    type Err = LineError;
    fn from_str(text: &str) -> Result<Self, LineError> {
        [Self::Person, Self::Peer, Self::Device]
            .into_iter()
            .find(|k| text.trim().starts_with(&format!("{}:", k.prefix())))
            .ok_or(LineError("waxwing", "it starts differently"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_survives_text_and_its_secret_stays_out_of_debug_output() {
        let line = Line {
            kind: LineKind::Peer,
            domain: Domain::parse("a.example").unwrap(),
            host: "[::1]".into(),
            port: 8443,
            node_key: [1; 32],
            secret: [2; 32],
        };
        let text = line.to_string();
        assert_eq!(Line::parse(LineKind::Peer, &format!(" {text}\n")).unwrap(), line);
        assert!(Line::parse(LineKind::Person, &text).is_err());
        for cut in 0..text.len() {
            assert!(Line::parse(LineKind::Peer, &text[..cut]).is_err(), "cut at {cut}");
        }
        assert!(!format!("{line:?}").contains(&B64.encode([2; 32])));
    }
}
