//! The directory: where a node's endpoints are, and what else it can do (draft-ietf-mimi-protocol-06 section 5.1).
//! PROTOCOL §9.2.

use serde::{Deserialize, Serialize};

/// `GET /.well-known/mimi-protocol-directory`: URI templates, each with one variable. Unknown keys are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Directory {
    /// `…/keyMaterial/{targetUser}`
    pub key_material: String,
    /// `…/update/{roomId}`
    pub update: String,
    /// `…/notify/{roomId}`
    pub notify: String,
    /// `…/submitMessage/{roomId}`
    pub submit_message: String,
    /// `…/groupInfo/{roomId}`
    pub group_info: String,
    /// `…/requestConsent/{targetUser}`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_consent: Option<String>,
    /// `…/updateConsent/{requesterUser}`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_consent: Option<String>,
    /// `…/identifierQuery/{domain}`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier_query: Option<String>,
    /// `…/reportAbuse/{roomId}`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_abuse: Option<String>,
    /// `…/proxyDownload/{downloadUrl}`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_download: Option<String>,
    /// What nodes of this project say beyond the draft; absent for a foreign node.
    #[serde(
        default,
        rename = "https://waxwing.invalid/ns/fed/1",
        skip_serializing_if = "Option::is_none"
    )]
    pub extension: Option<Extension>,
}

/// What nodes of this project say beyond the draft.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// Names of what the node can do: see the constants here. Unknown ones are ignored.
    pub features: Vec<String>,
    /// The node's Ed25519 key, base64url without padding.
    pub node_key: String,
    /// `…/backfill/{roomId}`: entries that a follower missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backfill: Option<String>,
    /// Largest request body in bytes.
    pub max_body: u64,
    /// Most entries in one `notify`.
    pub max_batch: u32,
}

impl Extension {
    /// A repeated submission gets the same answer (PROTOCOL §5.2).
    pub const IDEMPOTENT: &str = "idem";
    /// Lanes carry `Fed-Seq`, `Fed-Chain` and `Fed-Incarnation` (PROTOCOL §9.5).
    pub const SEQ: &str = "seq";
    /// Missed entries can be asked for (PROTOCOL §9.7).
    pub const BACKFILL: &str = "backfill";
    /// Handshake bundles carry and need a signature (PROTOCOL §7.4).
    pub const BUNDLE_SIGNATURE: &str = "bundle-sig";

    /// Whether the node can do `feature`.
    #[must_use]
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|f| f == feature)
    }
}

impl Directory {
    /// The directory of a node whose endpoints are all under `base`, such as `https://a.example:8443`, without a slash
    /// at its end.
    #[must_use]
    pub fn under(base: &str, extension: Extension) -> Self {
        let at = |path: &str| format!("{base}/v1/{path}");
        Self {
            key_material: at("keyMaterial/{targetUser}"),
            update: at("update/{roomId}"),
            notify: at("notify/{roomId}"),
            submit_message: at("submitMessage/{roomId}"),
            group_info: at("groupInfo/{roomId}"),
            request_consent: None,
            update_consent: None,
            identifier_query: None,
            report_abuse: None,
            proxy_download: None,
            extension: Some(extension),
        }
    }
}

/// A URI template this project does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a URI template must have exactly one variable in braces")]
pub struct TemplateError;

/// Puts `uri` in the place of the template's one variable: RFC 6570 simple expansion, which percent-encodes all but
/// `A-Z a-z 0-9 - . _ ~`.
///
/// # Errors
/// When the template has no variable, several, or an operator.
pub fn expand(template: &str, uri: &str) -> Result<String, TemplateError> {
    let (before, rest) = template.split_once('{').ok_or(TemplateError)?;
    let (name, after) = rest.split_once('}').ok_or(TemplateError)?;
    let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !named || [before, after].iter().any(|part| part.contains(['{', '}'])) {
        return Err(TemplateError);
    }
    let mut out = before.to_owned();
    for b in uri.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(b));
        } else {
            out.push('%');
            for digit in [b >> 4, b & 15] {
                out.extend(char::from_digit(u32::from(digit), 16).map(|c| c.to_ascii_uppercase()));
            }
        }
    }
    out.push_str(after);
    Ok(out)
}
