//! Every bound of the protocol, one constant each, with its reason. PROTOCOL §2 lists them.

use std::time::Duration;

/// A host name in DNS (RFC 1035 section 2.3.4).
pub const DOMAIN_BYTES: usize = 253;
/// One path segment of a MIMI URI.
pub const SEGMENT_BYTES: usize = 128;
/// A whole MIMI URI.
pub const URI_BYTES: usize = 512;
/// A name a person gives to a device.
pub const DEVICE_NAME_BYTES: usize = 64;
/// A password; argon2id takes more, but a longer one only costs time.
pub const PASSWORD_BYTES: usize = 1024;
/// The least a password must have.
pub const PASSWORD_MIN_BYTES: usize = 8;

/// One submission's MLS message: 64 KiB of text in UTF-8 and padding, with room to spare.
pub const MESSAGE_BYTES: usize = 256 * 1024;
/// A handshake bundle: a commit that adds [`ADDS_PER_COMMIT`] devices under the post-quantum suite, its Welcome and GroupInfo.
pub const BUNDLE_BYTES: usize = 4 * 1024 * 1024;
/// Devices one commit may add: keeps a Welcome under [`BUNDLE_BYTES`].
pub const ADDS_PER_COMMIT: usize = 256;
/// Changes of the participant list in one commit: one is enough, and each costs a copy of the list.
pub const LIST_UPDATES_PER_COMMIT: usize = 16;
/// A ratchet tree as sent to a joiner.
pub const TREE_BYTES: usize = 8 * 1024 * 1024;
/// Any other request body of a device.
pub const REQUEST_BYTES: usize = 1024 * 1024;
/// A request body of a peer.
pub const PEER_BODY_BYTES: usize = 16 * 1024 * 1024;

/// What the entries of one request do to the devices of its receiver, written out (`Fed-Members`, PROTOCOL §9.5): a commit that adds
/// [`ADDS_PER_COMMIT`] devices with URIs of about 60 bytes fits well. What one entry does must fit, so no commit is taken that would not.
pub const MEMBERS_HEADER_BYTES: usize = 56 * 1024;

/// Entries in one push, read or notify.
pub const BATCH_ENTRIES: usize = 64;
/// Bytes of entries in one push, read or notify; a single larger entry goes alone.
pub const BATCH_BYTES: usize = 256 * 1024;
/// Entries sent to a device and not yet acknowledged, per log: bounds what a slow device makes the node hold.
pub const WINDOW_ENTRIES: u64 = 512;

/// KeyPackages in one upload.
pub const KEYPACKAGES_PER_UPLOAD: usize = 100;
/// KeyPackages a node keeps per device.
pub const KEYPACKAGES_PER_DEVICE: usize = 200;
/// How many one-time KeyPackages a device keeps in stock.
pub const KEYPACKAGE_STOCK: usize = 50;
/// Below this the node tells the device to upload more.
pub const KEYPACKAGE_LOW: usize = 20;
/// One KeyPackage, post-quantum suite included.
pub const KEYPACKAGE_BYTES: usize = 16 * 1024;
/// A KeyPackage is valid from this long before it was made: tolerates slow clocks.
pub const KEYPACKAGE_BACKDATE: Duration = Duration::from_hours(24);
/// A KeyPackage is valid until this long after it was made.
pub const KEYPACKAGE_LIFETIME: Duration = Duration::from_hours(60 * 24);
/// Nodes take in and hand out only KeyPackages that live at least this long: queue retention and a week,
/// so that no device in reach of its queue finds an Add expired and forks for good.
pub const KEYPACKAGE_REMAINING: Duration = Duration::from_hours(37 * 24);
/// The hub still takes a commit that adds KeyPackages with at least this left: a week less than what is handed out, because a commit can wait
/// that long in an uplink, and never less than [`RETENTION`], because of which there is a minimum at all.
pub const KEYPACKAGE_REMAINING_AT_HUB: Duration = Duration::from_hours(30 * 24);

/// How long an entry waits for a reader.
pub const RETENTION: Duration = Duration::from_hours(30 * 24);
/// How long the answer to a submission is remembered; never shorter than [`RETENTION`].
pub const IDEMPOTENCY: Duration = Duration::from_hours(30 * 24);
/// How far a hub's time may run ahead of its clock before it refuses (PROTOCOL §4.2).
pub const HUB_TIME_AHEAD: Duration = Duration::from_secs(2);
/// After how long it is asked again at the latest: its clock may be set right at any moment.
pub const HUB_TIME_RETRY: Duration = Duration::from_secs(5);

/// Devices one person may have.
pub const DEVICES_PER_USER: usize = 32;
/// Rooms one device may be in.
pub const ROOMS_PER_DEVICE: usize = 2_000;
/// Devices in one room.
pub const DEVICES_PER_ROOM: usize = 10_000;
/// Entries waiting in the uplink of one room: beyond it a submission is refused, never dropped later.
pub const UPLINK_ENTRIES: u64 = 10_000;
/// How long a linking offer waits for the new device.
pub const LINK_LIFETIME: Duration = Duration::from_mins(10);
/// A sealed linking offer.
pub const LINK_BYTES: usize = 256 * 1024;

/// Padding bucket of application messages, so that sizes say little.
pub const PADDING_BYTES: usize = 256;

/// Proposals after the first in one bundle: a person leaves with all their devices, a `Remove` each.
pub const PROPOSALS_PER_BUNDLE: usize = 2 * DEVICES_PER_USER;
/// ProposalRefs or pending proposals in one answer.
pub const PROPOSAL_REFS: usize = 1_024;
/// A hash of any cipher suite.
pub const HASH_BYTES: usize = 64;
/// A signature of any cipher suite; ML-DSA-87 has 4,627 bytes.
pub const SIGNATURE_BYTES: usize = 8 * 1024;
/// A public key or encapsulated key of any cipher suite; ML-DSA-87 has 2,592 bytes.
pub const PUBLIC_KEY_BYTES: usize = 4 * 1024;
/// A credential outside of a leaf; a chain of certificates fits.
pub const CREDENTIAL_BYTES: usize = 16 * 1024;
/// Numbers (suites, extensions, …) in one list of capabilities.
pub const MLS_NUMBERS: usize = 256;
/// A code that lets somebody join.
pub const JOINING_CODE_BYTES: usize = 1024;
/// A text that explains a refusal.
pub const DETAIL_BYTES: usize = 1024;
/// A sealed GroupInfo, ratchet tree and pending proposals.
pub const SEALED_GROUP_BYTES: usize = TREE_BYTES + BUNDLE_BYTES;

/// Name of a media type, or one of its parameters.
pub const MEDIA_TYPE_BYTES: usize = 255;
/// Parameters of a media type.
pub const MEDIA_TYPE_PARAMETERS: usize = 16;
/// A topic of MIMI content (draft-ietf-mimi-content-08).
pub const TOPIC_BYTES: usize = 4096;
/// Levels of parts in MIMI content (the same draft).
pub const PART_DEPTH: usize = 4;
/// Parts in one MIMI content (the same draft).
pub const PARTS: usize = 1024;
/// Levels of arrays and maps in an extension of MIMI content (the same draft).
pub const EXTENSION_DEPTH: usize = 4;
/// Key of an extension of MIMI content, when it is a text (the same draft).
pub const EXTENSION_KEY_BYTES: usize = 255;
/// Messages in one status report.
pub const STATUS_ENTRIES: usize = 1024;
