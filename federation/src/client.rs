//! Requests to peers, over one connection each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::invite::Line;
use protocol::{Clock, Domain, RoomId, Seq, UserId};

use crate::headers::{BundleSignature, FanoutRange, MemberEffects};
use crate::outcome::Why;
use crate::pairing::{PairAnswer, PairRequest};
use crate::tls::NodeIdentity;
use crate::{Outcome, Peer};

/// How long each part of a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution and the TCP connection.
    pub connect: Duration,
    /// The TLS and HTTP handshakes.
    pub handshake: Duration,
    /// From the first byte of the request to the last of the answer.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
            answer: Duration::from_secs(30),
        }
    }
}

/// Entries of a room for a follower: the body of a notify, and of a backfill answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Which entries.
    pub range: FanoutRange,
    /// What they do to the receiver's devices.
    pub members: MemberEffects,
    /// Concatenated FanoutMessages, up to [`protocol::limit::PEER_BODY_BYTES`].
    pub body: Bytes,
}

/// A follower's answer to a notify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notified {
    /// It has the entries, now or since before; with the last entry it has, if it says.
    Stored(Option<Seq>),
    /// It misses entries before these; with the last entry it has, if it says: go on after that one.
    Behind(Option<Seq>),
}

/// What a follower that sees a gap asks for. `u64 after_seq ‖ u32 max`, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// The last entry it has.
    pub after: Seq,
    /// How many at most.
    pub max: u32,
}

/// Talks to peers. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {}

impl Client {
    /// A client that shows `identity`. It dials nobody yet.
    #[must_use]
    pub fn new(identity: Arc<NodeIdentity>, clock: Arc<dyn Clock>, timeouts: Timeouts) -> Self {
        drop((identity, clock, timeouts));
        Self {}
    }

    /// Shows `identity` from now on; requests under way end on their old connections.
    pub fn renew(&self, identity: Arc<NodeIdentity>) {
        drop(identity);
    }

    /// Closes the connection to a peer that was removed.
    pub fn forget(&self, domain: &Domain) {
        let _ = domain;
    }

    /// `keyMaterial`: a KeyMaterialRequest for devices of `target`. Done with a KeyMaterialResponse.
    pub async fn key_material(&self, peer: &Peer, target: &UserId, body: Bytes) -> Outcome<Bytes> {
        unfinished(peer, target.as_str(), body)
    }

    /// `update`: an UpdateRequest for `room`. Done with an UpdateRoomResponse.
    pub async fn update(
        &self,
        peer: &Peer,
        room: &RoomId,
        body: Bytes,
        signature: &BundleSignature,
    ) -> Outcome<Bytes> {
        let _ = signature;
        unfinished(peer, room.as_str(), body)
    }

    /// `submitMessage`: a SubmitMessageRequest for `room`. Done with a SubmitMessageResponse.
    pub async fn submit_message(&self, peer: &Peer, room: &RoomId, body: Bytes) -> Outcome<Bytes> {
        unfinished(peer, room.as_str(), body)
    }

    /// `notify`: entries of `room`, which we are the hub of.
    pub async fn notify(&self, peer: &Peer, room: &RoomId, batch: &Batch) -> Outcome<Notified> {
        unfinished(peer, room.as_str(), batch.body.clone()).map(|_| Notified::Stored(None))
    }

    /// `groupInfo`: a GroupInfoRequest for `room`. Done with a GroupInfoResponse.
    pub async fn group_info(&self, peer: &Peer, room: &RoomId, body: Bytes) -> Outcome<Bytes> {
        unfinished(peer, room.as_str(), body)
    }

    /// `backfill`: the entries of `room` after a gap. `us` are we, whose devices the answer may name.
    pub async fn backfill(&self, peer: &Peer, room: &RoomId, ask: Backfill) -> Outcome<Batch> {
        let _ = ask;
        match unfinished(peer, room.as_str(), Bytes::new()) {
            Outcome::Retry { why, retry_after } => Outcome::Retry { why, retry_after },
            Outcome::Refused(r) => Outcome::Refused(r),
            Outcome::Done(_) => Outcome::retry(Why::Ours("unfinished".into())),
        }
    }

    /// Pairs with the node of `line`, whose proof has been checked when this is done.
    pub async fn pair(&self, line: &Line, request: &PairRequest) -> Outcome<PairAnswer> {
        let _ = request;
        match unfinished(&crate::pairing::peer_of_line(line), "", Bytes::new()) {
            Outcome::Refused(r) => Outcome::Refused(r),
            _ => Outcome::retry(Why::Ours("unfinished".into())),
        }
    }
}

fn unfinished(peer: &Peer, what: &str, body: Bytes) -> Outcome<Bytes> {
    Outcome::retry(Why::Ours(format!("unfinished: {} {what} {}", peer.domain, body.len())))
}
