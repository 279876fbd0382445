//! Device and node: CBOR bodies of requests, and frames of the stream. PROTOCOL §6.
//!
//! Structs are CBOR arrays by field number; readers skip fields they do not know, so fields may be added at the end.
//! Lengths are not checked here: a body is bounded before it is decoded, and what is in it by whoever takes it in ([`crate::limit`]).

use minicbor::{Decode, Encode};

use crate::log::{Chain, Digest};
use crate::{
    Cursor, DeviceId, Domain, Incarnation, Refusal, RoomId, Seq, SubmitId, Timestamp, UserId,
};

/// Version of this API, in the path (`/v1/`) and in [`NodeInfo`].
pub const VERSION: u32 = 1;

/// Encodes a body or frame.
#[must_use]
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to a Vec cannot fail")
}

/// Decodes a body or frame; all of it must be used up.
///
/// # Errors
/// When the bytes are not exactly one `T`.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, minicbor::decode::Error> {
    let mut d = minicbor::Decoder::new(bytes);
    let value = d.decode()?;
    if d.position() == bytes.len() {
        Ok(value)
    } else {
        Err(minicbor::decode::Error::message("bytes after the end"))
    }
}

impl<C> Encode<C> for Timestamp {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u64(self.ms())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Timestamp {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.u64().map(Self::from_ms)
    }
}

/// `GET /v1/node`, open to anyone.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeInfo {
    /// The node's name.
    #[n(0)]
    pub domain: Domain,
    /// [`VERSION`].
    #[n(1)]
    pub version: u32,
    /// The present life of its database.
    #[n(2)]
    pub incarnation: Incarnation,
    /// Ed25519 public key that peers and devices pin.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub node_key: [u8; 32],
    /// Ed25519 public key under which the node proposes removals in rooms it hubs (MLS external sender).
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub hub_key: [u8; 32],
    /// The node's clock, now.
    #[n(5)]
    pub now: Timestamp,
    /// A reconnecting client waits a random time up to this many milliseconds.
    #[n(6)]
    pub reconnect_ms: u32,
}

/// `POST /v1/register` → [`SignedIn`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Register {
    /// The secret part of the invitation.
    #[n(0)]
    pub invite: String,
    /// The wanted user.
    #[n(1)]
    pub user: UserId,
    /// 8 to 1,024 bytes.
    #[n(2)]
    pub password: String,
    /// The user's Ed25519 identity key.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub identity_key: [u8; 32],
    /// What the person calls the device.
    #[n(4)]
    pub device_name: String,
    /// The first device's certificate, encoded as in PROTOCOL §7.1.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
}

/// `POST /v1/login` → [`SignedIn`]: a further device of a user, certified by the identity key the node knows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Login {
    /// Who.
    #[n(0)]
    pub user: UserId,
    /// Their password.
    #[n(1)]
    pub password: String,
    /// What the person calls the device.
    #[n(2)]
    pub device_name: String,
    /// The device's certificate, PROTOCOL §7.1.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
}

/// A device is signed in. Repeating the request with the same certificate gives a new token for the same device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedIn {
    /// The device, as its certificate names it.
    #[n(0)]
    pub device: DeviceId,
    /// The bearer token, 32 random bytes in base64url. The node keeps only its hash.
    #[n(1)]
    pub token: String,
}

/// `GET /v1/devices`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Devices {
    /// The caller's devices, oldest first.
    #[n(0)]
    pub devices: Vec<DeviceInfo>,
}

/// One device of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeviceInfo {
    /// Its name on the wire.
    #[n(0)]
    pub device: DeviceId,
    /// What the person calls it.
    #[n(1)]
    pub name: String,
    /// When it signed in first.
    #[n(2)]
    pub created: Timestamp,
    /// When it was connected last, to the minute.
    #[n(3)]
    pub seen: Option<Timestamp>,
    /// When it was revoked.
    #[n(4)]
    pub revoked: Option<Timestamp>,
}

/// `POST /v1/devices/revoke` → nothing. Takes effect at once; open streams of the device end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Revoke {
    /// One of the caller's devices.
    #[n(0)]
    pub device: DeviceId,
}

/// `POST /v1/keypackages` → [`KeyPackageCount`]. The same package uploaded twice counts once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UploadKeyPackages {
    /// One-time packages, each an MLS `KeyPackage` of the calling device.
    #[n(0)]
    pub packages: Vec<minicbor::bytes::ByteVec>,
    /// Replaces the last-resort package of its cipher suite, which is handed out only when no other is left.
    #[n(1)]
    pub last_resort: Vec<minicbor::bytes::ByteVec>,
}

/// One-time packages left, per cipher suite number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyPackageCount {
    /// `(suite, how many)`.
    #[n(0)]
    pub left: Vec<(u16, u32)>,
}

/// `POST /v1/keymaterial` → the bytes of a MIMI `KeyMaterialResponse`. PROTOCOL §6.5.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClaimKeyMaterial {
    /// The room the packages are for; its hub relays the request.
    #[n(0)]
    pub room: RoomId,
    /// A MIMI `KeyMaterialRequest`, signed by the device.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub request: Vec<u8>,
}

/// `POST /v1/rooms` → [`SubmitReply`]. Repeating it has no further effect.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreateRoom {
    /// A room at the caller's own node, its local part 16 random bytes in base64url.
    #[n(0)]
    pub room: RoomId,
    /// The MLS GroupInfo (an `MLSMessage`) of epoch 0, signed by the caller.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub group_info: Vec<u8>,
    /// The ratchet tree: one leaf, the caller's.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub tree: Vec<u8>,
}

/// `POST /v1/groupinfo` → the bytes of a MIMI `GroupInfoResponse`. PROTOCOL §6.6.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetchGroupInfo {
    /// The room to join by external commit.
    #[n(0)]
    pub room: RoomId,
    /// A MIMI `GroupInfoRequest`, signed by the device.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub request: Vec<u8>,
}

/// `GET /v1/rooms` → the logs the calling device reads.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Logs {
    /// One per log.
    #[n(0)]
    pub logs: Vec<LogState>,
}

/// Where the calling device stands in one log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LogState {
    /// Which.
    #[n(0)]
    pub log: LogRef,
    /// Its incarnation and the device's cursor.
    #[n(1)]
    pub cursor: Cursor,
    /// The newest entry on this node.
    #[n(2)]
    pub head: Seq,
    /// The last entry the device may read, when it was removed.
    #[n(3)]
    pub until: Option<Seq>,
}

/// A log, as a device names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum LogRef {
    /// The device's own inbox.
    #[n(0)]
    Inbox,
    /// A room it is in.
    #[n(1)]
    Room(#[n(0)] RoomId),
}

/// `POST /v1/read` → [`Entries`]: what comes after a seq, without moving the cursor.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Read {
    /// Which log.
    #[n(0)]
    pub log: LogRef,
    /// Entries after this one.
    #[n(1)]
    pub after: Cursor,
    /// At most so many; capped by the node.
    #[n(2)]
    pub max: u32,
}

/// A run of consecutive entries.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entries {
    /// Which log.
    #[n(0)]
    pub log: LogRef,
    /// Whose life the numbers belong to.
    #[n(1)]
    pub incarnation: Incarnation,
    /// The chain before the first of `entries`; absent for an inbox.
    #[n(2)]
    pub prev_chain: Option<Chain>,
    /// Consecutive entries.
    #[n(3)]
    pub entries: Vec<Entry>,
    /// The newest entry the node has.
    #[n(4)]
    pub head: Seq,
    /// Entries before the first of `entries` that the device should have got and never will.
    #[n(5)]
    pub gap: Option<Gap>,
}

/// Entries a reader never got, and why. PROTOCOL §4.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Gap {
    /// The first missing entry.
    #[n(0)]
    pub first: Seq,
    /// The last missing entry.
    #[n(1)]
    pub last: Seq,
    /// Why.
    #[n(2)]
    pub reason: GapReason,
}

/// Why entries are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum GapReason {
    /// Older than what the node, or the room's hub, keeps.
    #[n(0)]
    Expired,
    /// They never came to the node, for any other reason.
    #[n(1)]
    Lost,
}

/// One entry as a device gets it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Its number.
    #[n(0)]
    pub seq: Seq,
    /// The hub's time of acceptance; strictly increasing in a room.
    #[n(1)]
    pub at: Timestamp,
    /// [`crate::log::EntryKind::code`].
    #[n(2)]
    pub kind: u8,
    /// The content, or only its digest where the content is for others (a Welcome).
    #[n(3)]
    pub body: Body,
}

/// An entry's content.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Body {
    /// All of it.
    #[n(0)]
    Full(
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        Vec<u8>,
    ),
    /// Its [`Digest`] only, so that the chain can be followed.
    #[n(1)]
    Withheld(#[n(0)] Digest),
}

/// An item of a device's inbox (an entry of kind `Item`).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum InboxItem {
    /// The device was added to a room.
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    /// What became of a submission that this node had only stored for a foreign hub.
    #[n(1)]
    Outcome(#[n(0)] Outcome),
    /// Few one-time KeyPackages are left.
    #[n(2)]
    KeyPackagesLow(#[n(0)] KeyPackageCount),
    /// Another device of the same person is ready to be added, or was revoked: `GET /v1/devices` tells.
    #[n(3)]
    DevicesChanged,
}

/// An invitation into a room that this device can open.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// Which room.
    #[n(0)]
    pub room: RoomId,
    /// The commit that added the device; it reads the room's log after this.
    #[n(1)]
    pub cursor: Cursor,
    /// The chain at that commit.
    #[n(2)]
    pub chain: Chain,
    /// The hub's time of that commit.
    #[n(3)]
    pub at: Timestamp,
    /// The MLS Welcome (an `MLSMessage`).
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub welcome: Vec<u8>,
    /// The ratchet tree after that commit, as RFC 9420 section 12.4.3.3 encodes it.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub tree: Vec<u8>,
}

/// The hub's late answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Outcome {
    /// The submission.
    #[n(0)]
    pub submit_id: SubmitId,
    /// Its room.
    #[n(1)]
    pub room: RoomId,
    /// Why the hub refused it. (Acceptance shows as the entry in the room's log.)
    #[n(2)]
    pub refusal: Refusal,
    /// What was refused ([`Payload::digest`]): a SubmitId that is free again may have been handed in with other bytes since.
    #[n(3)]
    pub payload: Digest,
}

/// `POST /v1/submit` or a stream frame → [`SubmitReply`]. PROTOCOL §5.1.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Submit {
    /// The device's own name for it.
    #[n(0)]
    pub submit_id: SubmitId,
    /// Where to.
    #[n(1)]
    pub room: RoomId,
    /// What.
    #[n(2)]
    pub payload: Payload,
}

/// What a device submits.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Payload {
    /// One MLS PrivateMessage (an `MLSMessage`).
    #[n(0)]
    Application(
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        Vec<u8>,
    ),
    /// A MIMI `HandshakeBundle` with the committer's signature over it.
    #[n(1)]
    Handshake(#[n(0)] Handshake),
}

impl Payload {
    /// The bytes that a repetition must equal.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_bytes(&encode(self))
    }
}

/// A handshake submission. PROTOCOL §7.4.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Handshake {
    /// The MIMI `UpdateRequest` bytes.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub bundle: Vec<u8>,
    /// `SignWithLabel(leaf key, "FedBundleTBS", SHA-256(bundle) ‖ room URI)` by the sender's leaf key after the commit; 64 bytes.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

/// What became of a submission, as far as the device's own node knows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SubmitReply {
    /// The hub gave it a place. It is durable.
    #[n(0)]
    Accepted(#[n(0)] Accepted),
    /// The node keeps it for the room's foreign hub. It is durable.
    #[n(1)]
    Stored,
    /// It was not taken and nothing was changed.
    #[n(2)]
    Refused(#[n(0)] Refusal),
}

/// A place in a room's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Accepted {
    /// Incarnation of the hub and number of the entry.
    #[n(0)]
    pub place: Cursor,
    /// The hub's time.
    #[n(1)]
    pub at: Timestamp,
    /// The chain at this entry.
    #[n(2)]
    pub chain: Chain,
}

/// `POST /v1/ack` or a stream frame: everything up to the cursor is safe on the device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    /// Which log.
    #[n(0)]
    pub log: LogRef,
    /// Up to here.
    #[n(1)]
    pub cursor: Cursor,
}

/// `POST /v1/link` → nothing: an existing device leaves a sealed offer for a new one. Kept 10 minutes, and handed out as often as it is asked for, because an answer may get lost.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OfferLink {
    /// SHA-256 of the secret in the link line: the name under which it is fetched.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub id: [u8; 32],
    /// Sealed under a key from the same secret; opaque to the node.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

/// `POST /v1/link/take`, without a token → [`LinkOffer`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TakeLink {
    /// See [`OfferLink::id`].
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub id: [u8; 32],
}

/// A sealed linking offer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LinkOffer {
    /// See [`OfferLink::sealed`].
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

/// A stream frame from the device. One CBOR value per binary WebSocket message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ToNode {
    /// See [`Ack`]. Not answered.
    #[n(0)]
    Ack(#[n(0)] Ack),
    /// See [`Submit`]. Answered by [`ToDevice::Reply`].
    #[n(1)]
    Submit(#[n(0)] Submit),
    /// Clock calibration and keep-alive. Answered by [`ToDevice::Pong`].
    #[n(2)]
    Ping(#[n(0)] Ping),
    /// Push this log again from its cursor on: the device could not take what was sent.
    #[n(3)]
    Rewind(#[n(0)] LogRef),
}

/// A stream frame from the node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ToDevice {
    /// The first frame: who the node thinks this is, and its state.
    #[n(0)]
    Hello(#[n(0)] NodeInfo),
    /// Pushed entries.
    #[n(1)]
    Entries(#[n(0)] Entries),
    /// The answer to a submission on this stream.
    #[n(2)]
    Reply(#[n(0)] Reply),
    /// The answer to a ping.
    #[n(3)]
    Pong(#[n(0)] Pong),
    /// The stream ends; the node closes it after this.
    #[n(4)]
    Bye(#[n(0)] Refusal),
}

/// See [`ToDevice::Reply`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reply {
    /// Which submission.
    #[n(0)]
    pub submit_id: SubmitId,
    /// What became of it.
    #[n(1)]
    pub reply: SubmitReply,
}

/// See [`ToNode::Ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ping {
    /// The device's own time, in any unit it likes; comes back unchanged.
    #[n(0)]
    pub token: u64,
}

/// See [`ToDevice::Pong`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pong {
    /// As it came.
    #[n(0)]
    pub token: u64,
    /// The node's time when it answered.
    #[n(1)]
    pub now: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire_and_trailing_bytes_do_not() {
        let frame = ToNode::Ack(Ack {
            log: LogRef::Room(RoomId::parse("mimi://a.example/r/x").unwrap()),
            cursor: Cursor { incarnation: Incarnation::from_bytes([7; 16]), seq: Seq::new(9) },
        });
        let mut bytes = encode(&frame);
        assert_eq!(decode::<ToNode>(&bytes).unwrap(), frame);
        bytes.push(0);
        assert!(decode::<ToNode>(&bytes).is_err());
        for cut in 0..bytes.len() - 1 {
            assert!(decode::<ToNode>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
