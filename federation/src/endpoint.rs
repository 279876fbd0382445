//! The paths a node serves to peers. PROTOCOL §9.4.
//!
//! The last segment is a whole URI, percent-encoded. The directory's and the bodies' media types are in [`protocol::mimi`].

/// `GET`: the directory.
pub const DIRECTORY: &str = protocol::mimi::DIRECTORY_PATH;
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
