//! The paths a node serves to peers. PROTOCOL §9.4.
//!
//! The last segment is a whole URI, percent-encoded; axum and its kind decode it.

/// `GET`: the directory.
pub const DIRECTORY: &str = "/.well-known/mimi-protocol-directory";
/// `POST`: pairing.
pub const PAIR: &str = "/v1/pair";
/// `POST`, followed by the target user's URI.
pub const KEY_MATERIAL: &str = "/v1/keyMaterial/";
/// `POST`, followed by the room's URI.
pub const UPDATE: &str = "/v1/update/";
/// `POST`, followed by the room's URI.
pub const SUBMIT_MESSAGE: &str = "/v1/submitMessage/";
/// `POST`, followed by the room's URI.
pub const NOTIFY: &str = "/v1/notify/";
/// `POST`, followed by the room's URI.
pub const GROUP_INFO: &str = "/v1/groupInfo/";
/// `POST`, followed by the room's URI.
pub const BACKFILL: &str = "/v1/x/backfill/";

/// The media type of MIMI bodies.
pub const OCTETS: &str = "application/octet-stream";

/// `text` as one path segment (RFC 3986 section 2.1): everything but unreserved characters percent-encoded.
#[must_use]
pub fn encode_segment(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |n: u8| char::from(HEX.get(usize::from(n & 15)).copied().unwrap_or(b'0'));
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.extend(['%', digit(byte >> 4), digit(byte)]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_becomes_one_segment() {
        assert_eq!(encode_segment("mimi://a.example/r/x~1"), "mimi%3A%2F%2Fa.example%2Fr%2Fx~1");
    }
}
