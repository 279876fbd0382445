//! Requests to peers, over one connection each. PROTOCOL §9.4.
//!
//! A request waits for nobody but its own peer: each peer has its own connection, dialled when somebody needs it, under timeouts
//! for each part. Nothing is retried here but a request that was never on the wire; retrying is the lane's business.

mod answer;
mod connection;
mod slot;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::Full;
use protocol::invite::Line;
use protocol::mimi::{
    BackfillRequest, CONTENT_TYPE, Directory, FanoutMessage, GroupInfoResponse,
    KeyMaterialResponse, Malformed, SubmitMessageResponse, UpdateRoomResponse,
};
use protocol::{Clock, Code, Domain, Refusal, RoomId, Seq, UserId, limit};
use tokio::time::timeout;

use crate::directory::{self, Endpoints, Template};
use crate::headers::{self, BundleSignature, FanoutRange, MemberEffects};
use crate::outcome::Stage;
use crate::pairing::{self, PairAnswer, PairRequest};
use crate::tls::NodeIdentity;
use crate::{Outcome, Peer, Why, endpoint};
use answer::{Failure, succeeded};
use connection::{Reply, Unsent};
use slot::{Known, Slot};

/// How long each part of a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution and the TCP connection.
    pub connect: Duration,
    /// The TLS and HTTP handshakes.
    pub handshake: Duration,
    /// From the first byte of the request to the last of the answer, if both are short; long ones may take longer, at no less than
    /// 16 KiB a second.
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
    /// Concatenated FanoutMessages, up to [`limit::PEER_BODY_BYTES`]: the exact bytes, so that a second try is the same request.
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

/// Talks to peers. Clones share their connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    identity: Mutex<Arc<NodeIdentity>>,
    clock: Arc<dyn Clock>,
    timeouts: Timeouts,
    slots: Mutex<BTreeMap<Domain, Arc<Slot>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.identity()).finish()
    }
}

/// A request before it has a connection.
struct Ask {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    body: Bytes,
    /// The longest answer that is read.
    max: usize,
}

impl Client {
    /// A client that shows `identity`. It dials nobody yet.
    #[must_use]
    pub fn new(identity: Arc<NodeIdentity>, clock: Arc<dyn Clock>, timeouts: Timeouts) -> Self {
        let slots = Mutex::default();
        Self(Arc::new(Inner { identity: Mutex::new(identity), clock, timeouts, slots }))
    }

    /// Shows `identity` from now on; requests under way end on their old connections.
    pub fn renew(&self, identity: Arc<NodeIdentity>) {
        *self.0.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
        self.slots().clear();
    }

    /// Closes the connection to a peer that was removed.
    pub fn forget(&self, domain: &Domain) {
        self.slots().remove(domain);
    }

    /// The peer's directory, fetched anew: what it can do, for people who look.
    pub async fn directory(&self, peer: &Peer) -> Outcome<Directory> {
        let fetched = async { self.fetch_directory(&*self.slot(peer)?).await.map(|(d, _)| d) };
        fetched.await.into()
    }

    /// `keyMaterial`: a KeyMaterialRequest for devices of `target`, as the requesting device signed it.
    pub async fn key_material(
        &self,
        peer: &Peer,
        target: &UserId,
        body: Bytes,
    ) -> Outcome<KeyMaterialResponse> {
        let path = |e: &Endpoints| Some(e.key_material.clone());
        let reply = self.call(peer, &path, target.as_str(), (HeaderMap::new(), body)).await;
        reply.and_then(|r| decoded(KeyMaterialResponse::decode(&r.body))).into()
    }

    /// `update`: an UpdateRequest for `room`, as the committing device made and signed it.
    pub async fn update(
        &self,
        peer: &Peer,
        room: &RoomId,
        body: Bytes,
        signature: &BundleSignature,
    ) -> Outcome<UpdateRoomResponse> {
        let mut headers = HeaderMap::new();
        signature.write(&mut headers);
        let path = |e: &Endpoints| Some(e.update.clone());
        let reply = self.call(peer, &path, room.as_str(), (headers, body)).await;
        reply.and_then(|r| decoded(UpdateRoomResponse::decode(&r.body))).into()
    }

    /// `submitMessage`: a SubmitMessageRequest for `room`.
    pub async fn submit_message(
        &self,
        peer: &Peer,
        room: &RoomId,
        body: Bytes,
    ) -> Outcome<SubmitMessageResponse> {
        let path = |e: &Endpoints| Some(e.submit_message.clone());
        let reply = self.call(peer, &path, room.as_str(), (HeaderMap::new(), body)).await;
        reply.and_then(|r| decoded(SubmitMessageResponse::decode(&r.body))).into()
    }

    /// `notify`: entries of `room`, which we are the hub of.
    pub async fn notify(&self, peer: &Peer, room: &RoomId, batch: &Batch) -> Outcome<Notified> {
        let mut headers = HeaderMap::new();
        batch.range.write(&mut headers);
        batch.members.write(&mut headers);
        let path = |e: &Endpoints| Some(e.notify.clone());
        let reply = match self.ask(peer, &path, room.as_str(), (headers, batch.body.clone())).await
        {
            Ok(reply) => reply,
            Err(failure) => return Err(failure).into(),
        };
        // What another kind of node writes here, or a wrong one of ours, is no reason to send again what it has.
        let head = headers::read_head(&reply.headers).ok().flatten();
        if !reply.status.is_success()
            && answer::refusal(&reply).is_some_and(|r| r.code == Code::SeqGap)
        {
            return Outcome::Done(Notified::Behind(head));
        }
        succeeded(reply).map(|_| Notified::Stored(head)).into()
    }

    /// `groupInfo`: a GroupInfoRequest for `room`, as the joining device signed it.
    pub async fn group_info(
        &self,
        peer: &Peer,
        room: &RoomId,
        body: Bytes,
    ) -> Outcome<GroupInfoResponse> {
        let path = |e: &Endpoints| Some(e.group_info.clone());
        let reply = self.call(peer, &path, room.as_str(), (HeaderMap::new(), body)).await;
        reply.and_then(|r| decoded(GroupInfoResponse::decode(&r.body))).into()
    }

    /// `backfill`: the entries of `room` after a gap, with what they do to our devices.
    pub async fn backfill(
        &self,
        peer: &Peer,
        room: &RoomId,
        ask: BackfillRequest,
    ) -> Outcome<Batch> {
        let path = |e: &Endpoints| e.backfill.clone();
        let reply =
            self.call(peer, &path, room.as_str(), (HeaderMap::new(), ask.encode().into())).await;
        reply.and_then(|r| self.batch(r, ask)).into()
    }

    /// Pairs with the node of `line`. Its proof has been checked when this is done; then the peer's row can be written.
    pub async fn pair(&self, line: &Line, request: &PairRequest) -> Outcome<PairAnswer> {
        self.pair_once(line, request).await.into()
    }

    async fn pair_once(&self, line: &Line, request: &PairRequest) -> Result<PairAnswer, Failure> {
        // Not among the peers yet, so it gets no slot that stays.
        let slot = self.fresh_slot(&pairing::peer_of_line(line))?;
        let ask = Ask {
            method: Method::POST,
            path: PathAndQuery::from_static(endpoint::PAIR),
            headers: content_type("application/json"),
            body: request.encode().into(),
            max: pairing::BODY_BYTES,
        };
        let reply = succeeded(self.exchange(&slot, ask).await?)?;
        let answer = PairAnswer::decode(&reply.body)
            .map_err(|e| Failure::from(Why::Answer(e.to_string())))?;
        let us = self.identity();
        answer.check(line, us.node_key(), request).map_err(Failure::Refused)?;
        Ok(answer)
    }

    /// Reads a backfill answer: the entries that were asked for and no others.
    fn batch(&self, reply: Reply, ask: BackfillRequest) -> Result<Batch, Failure> {
        let wrong = |e: Refusal| Failure::from(Why::Answer(e.detail));
        let range = FanoutRange::read(&reply.headers).map_err(wrong)?;
        let members =
            MemberEffects::read(&reply.headers, self.identity().domain()).map_err(wrong)?;
        // It may begin later: then the hub has nothing any more of what lies between.
        let asked = range.first > ask.after && range.n <= ask.max;
        let count = if reply.body.is_empty() {
            0
        } else {
            decoded(FanoutMessage::decode_batch(&reply.body))?.len()
        };
        if !asked || usize::try_from(range.n).ok() != Some(count) {
            return Err(Why::Answer("it holds other entries than were asked for".into()).into());
        }
        Ok(Batch { range, members, body: reply.body })
    }

    /// [`Self::ask`], and anything but a success is a failure.
    async fn call(
        &self,
        peer: &Peer,
        endpoint: &(dyn Fn(&Endpoints) -> Option<Template> + Sync),
        uri: &str,
        request: (HeaderMap, Bytes),
    ) -> Result<Reply, Failure> {
        succeeded(self.ask(peer, endpoint, uri, request).await?)
    }

    /// Posts to an endpoint of the peer's directory. When nothing is there, the directory is fetched anew, once.
    async fn ask(
        &self,
        peer: &Peer,
        endpoint: &(dyn Fn(&Endpoints) -> Option<Template> + Sync),
        uri: &str,
        (headers, body): (HeaderMap, Bytes),
    ) -> Result<Reply, Failure> {
        let slot = self.slot(peer)?;
        let endpoints = self.endpoints(&slot).await?;
        let first = endpoint(&endpoints);
        let reply = self.post(&slot, first.as_ref(), uri, (headers.clone(), body.clone())).await?;
        let gone = matches!(reply.status.as_u16(), 404 | 410)
            && answer::refusal(&reply).is_none_or(|r| r.code == Code::UnknownEndpoint);
        if !gone {
            return Ok(reply);
        }
        let (_, endpoints) = self.fetch_directory(&slot).await?;
        let second = endpoint(&endpoints);
        if second == first {
            return Ok(reply);
        }
        self.post(&slot, second.as_ref(), uri, (headers, body)).await
    }

    async fn post(
        &self,
        slot: &Slot,
        template: Option<&Template>,
        uri: &str,
        (mut headers, body): (HeaderMap, Bytes),
    ) -> Result<Reply, Failure> {
        let no_endpoint = || {
            Why::Estranged(Refusal::because(
                Code::UnknownEndpoint,
                "Its directory does not list this.",
            ))
        };
        let path = template.and_then(|t| t.path(uri)).ok_or_else(no_endpoint)?;
        headers.extend(content_type(CONTENT_TYPE));
        let ask = Ask { method: Method::POST, path, headers, body, max: limit::PEER_BODY_BYTES };
        self.exchange(slot, ask).await
    }

    /// The peer's endpoints, from memory while they are good.
    async fn endpoints(&self, slot: &Slot) -> Result<Arc<Endpoints>, Failure> {
        let known = slot.directory.lock().await.clone();
        match known {
            Some(known) if self.0.clock.now() < known.until => Ok(known.endpoints),
            _ => self.fetch_directory(slot).await.map(|(_, endpoints)| endpoints),
        }
    }

    async fn fetch_directory(&self, slot: &Slot) -> Result<(Directory, Arc<Endpoints>), Failure> {
        let ask = Ask {
            method: Method::GET,
            path: PathAndQuery::from_static(endpoint::DIRECTORY),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            max: directory::BODY_BYTES,
        };
        let reply = succeeded(self.exchange(slot, ask).await?)?;
        let directory: Directory = serde_json::from_slice(&reply.body)
            .map_err(|e| Why::Answer(format!("its directory: {e}")))?;
        let endpoints = Arc::new(Endpoints::of(&directory, &slot.peer).map_err(Why::Answer)?);
        let until = self.0.clock.now().after(directory::max_age(&reply.headers));
        *slot.directory.lock().await = Some(Known { endpoints: Arc::clone(&endpoints), until });
        Ok((directory, endpoints))
    }

    /// One request and its answer, over the peer's connection or a new one.
    async fn exchange(&self, slot: &Slot, ask: Ask) -> Result<Reply, Failure> {
        let wait = self.0.timeouts.answer;
        let late = |_| Why::Timeout(Stage::Answer);
        let permit = timeout(wait, slot.permits.acquire()).await.map_err(late)?;
        let _permit = permit.map_err(|_| Why::Ours("the client is closed".into()))?;
        let max = ask.max;
        let mut request = self.request(&slot.peer, ask)?;
        let mut connection = slot.connection(&self.0.timeouts).await?;
        // A kept connection may have ended unnoticed; then the request was not sent and gets one new connection.
        for last in [false, true] {
            match connection.send(request, max, wait).await {
                Ok(reply) => return Ok(reply),
                Err(Unsent::Failed(why)) => {
                    if why == Why::Timeout(Stage::Answer) {
                        slot.discard(&connection).await;
                    }
                    return Err(why.into());
                }
                Err(Unsent::Intact(same)) if !last => {
                    slot.discard(&connection).await;
                    request = *same;
                    connection = slot.connection(&self.0.timeouts).await?;
                }
                Err(Unsent::Intact(_)) => break,
            }
        }
        Err(Why::Lost("it ended before the request was sent".into()).into())
    }

    fn request(&self, peer: &Peer, ask: Ask) -> Result<Request<Full<Bytes>>, Why> {
        let ours = |e: http::Error| Why::Ours(e.to_string());
        let authority = match peer.port {
            443 => peer.domain.to_string(),
            port => format!("{}:{port}", peer.domain),
        };
        let uri =
            http::Uri::builder().scheme("https").authority(authority).path_and_query(ask.path);
        let request = Request::builder().method(ask.method).uri(uri.build().map_err(ours)?);
        let mut request = request.body(Full::new(ask.body)).map_err(ours)?;
        *request.headers_mut() = ask.headers;
        headers::write_from(request.headers_mut(), self.identity().domain());
        Ok(request)
    }

    fn identity(&self) -> Arc<NodeIdentity> {
        Arc::clone(&self.0.identity.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<Domain, Arc<Slot>>> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer's slot; a row that changed since (key, host, port) gets a new one.
    fn slot(&self, peer: &Peer) -> Result<Arc<Slot>, Failure> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(&peer.domain).filter(|s| s.peer == *peer) {
            return Ok(Arc::clone(slot));
        }
        let slot = Arc::new(self.fresh_slot(peer)?);
        slots.insert(peer.domain.clone(), Arc::clone(&slot));
        Ok(slot)
    }

    fn fresh_slot(&self, peer: &Peer) -> Result<Slot, Failure> {
        let identity = self.identity();
        if peer.domain == *identity.domain() {
            return Err(Why::Forbidden("it is this node".into()).into());
        }
        Slot::new(peer, &identity, Arc::clone(&self.0.clock))
            .map_err(|e| Why::Ours(e.to_string()).into())
    }
}

fn content_type(text: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(text))])
}

fn decoded<T>(result: Result<T, Malformed>) -> Result<T, Failure> {
    result.map_err(|e| Why::Answer(e.to_string()).into())
}
