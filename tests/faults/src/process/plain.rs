//! A device without a client: it says one thing at a time and sees the very answer, status and headers included.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use crypto::group::Founding;
use crypto::{DeviceIdentity, DeviceKey, Group, IdentityKey, NodeKey, PublicKey, Suite};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use node::clock::{SystemClock, SystemEntropy};
use protocol::api::{
    self, Accepted, Ack, Body, CreateRoom, Entries, LogRef, NodeInfo, Payload, Read, Register,
    SignedIn, Submit, SubmitReply,
};
use protocol::invite::{Line, LineKind};
use protocol::{
    Clock as _, Code, Cursor, DeviceId, Domain, Entropy as _, RoomId, Seq, SubmitId, UserId,
    refusal,
};
use tests::node::Node;
use tests::trouble::During as _;
use tests::{Outcome, Trouble};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whoever waits longer than this for an answer has got none.
const PATIENCE: Duration = Duration::from_secs(15);

/// A device, signed in, with a room of its own in which it is alone.
pub struct Plain {
    /// Where its node is.
    pub way: Way,
    token: String,
    device: DeviceId,
    group: Group,
    http: Option<Http>,
    /// Requests that found a connection.
    pub asked: u64,
    /// What it handed in, by the place that it was told.
    pub accepted: BTreeMap<u64, Submit>,
    /// Up to where it acknowledged; the node gives out what comes after.
    acknowledged: u64,
    /// The life of the node that it found its room in.
    pub info: NodeInfo,
}

/// How a node is reached.
#[derive(Clone, Debug)]
pub struct Way {
    /// Its address.
    pub address: SocketAddr,
    /// Its name.
    pub domain: Domain,
    /// Its key.
    pub pin: [u8; 32],
}

/// What the node said, and how long it took.
#[derive(Clone, Debug)]
pub struct Said {
    /// The status.
    pub status: StatusCode,
    /// Why not, when it was refused.
    pub code: Option<Code>,
    /// The header, in seconds.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: Bytes,
    /// From the request to the whole answer.
    pub took: Duration,
}

impl Said {
    /// The place, when a submission got one.
    #[must_use]
    pub fn place(&self) -> Option<Accepted> {
        match api::decode(&self.body) {
            Ok(SubmitReply::Accepted(accepted)) if self.status.is_success() => Some(accepted),
            _ => None,
        }
    }
}

impl Way {
    /// To this node.
    ///
    /// # Errors
    /// When it was never started or has no key.
    pub fn to(node: &Node) -> Outcome<Self> {
        let text = std::fs::read_to_string(node.data().join("node.key")).during("node.key")?;
        let seed: [u8; 32] = URL_SAFE_NO_PAD.decode(text.trim())?.as_slice().try_into()?;
        let pin = *NodeKey::from_bytes(&seed).public().as_bytes();
        Ok(Self { address: node.address()?, domain: node.domain().clone(), pin })
    }

    /// A connection on which HTTP/1.1 is spoken.
    ///
    /// # Errors
    /// When there is none within two seconds.
    pub async fn tls(&self) -> Outcome<TlsStream<TcpStream>> {
        let clock = Arc::new(SystemClock);
        let mut config =
            (*federation::tls::client_config(None, self.pin, &self.domain, clock)?).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = rustls_pki_types::ServerName::try_from(self.domain.as_str().to_owned())?;
        let shake = async {
            let tcp = TcpStream::connect(self.address).await?;
            TlsConnector::from(Arc::new(config)).connect(name, tcp).await
        };
        let shaken = timeout(Duration::from_secs(2), shake).await;
        Ok(shaken.map_err(|_| Trouble::new("no handshake within 2 s"))??)
    }

    async fn http(&self) -> Outcome<Http> {
        let stream = self.tls().await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with its last sender.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Http { sender, host: self.domain.to_string() })
    }
}

struct Http {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Http {
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Vec<u8>,
    ) -> Outcome<Said> {
        let begun = Instant::now();
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        request = request.header("content-type", "application/cbor");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.sender.ready().await?;
        let answered = self.sender.send_request(request.body(Full::new(body.into()))?);
        let answered = timeout(PATIENCE, answered).await;
        let (parts, body) = answered.map_err(|_| Trouble::new("no answer"))??.into_parts();
        let body = body.collect().await?.to_bytes();
        let refused: Option<refusal::Body> = serde_json::from_slice(&body).ok();
        let after = parts.headers.get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
        Ok(Said {
            status: parts.status,
            code: refused.filter(|_| !parts.status.is_success()).map(|r| r.into_refusal().code),
            retry_after: after,
            body,
            took: begun.elapsed(),
        })
    }
}

impl Plain {
    /// Registers a new person at the node, and founds a room.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn register(node: &Node, name: &str) -> Outcome<Self> {
        let way = Way::to(node)?;
        let mut http = way.http().await?;
        let info = http.ask(Method::GET, "/v1/node", None, Vec::new()).await?;
        let info: NodeInfo = api::decode(&info.body)?;
        let invite = Line::parse(LineKind::Person, &node.invite().await?)?.secret_text();
        let user = UserId::new(&way.domain, name)?;
        let identity = IdentityKey::generate(&SystemEntropy);
        let key = DeviceKey::generate(&SystemEntropy);
        let id = DeviceId::new(&user, &SubmitId::from_bytes(SystemEntropy.bytes16()).to_string())?;
        let certificate = identity.certify(&id, &key.public(), SystemClock.now());
        let device = DeviceIdentity::new(key, certificate)?;
        let ask = Register {
            invite,
            user,
            password: tests::device::PASSWORD.into(),
            identity_key: *identity.public().as_bytes(),
            device_name: name.into(),
            certificate: device.certificate().as_bytes().to_vec(),
        };
        let said = http.ask(Method::POST, "/v1/register", None, api::encode(&ask)).await?;
        let signed_in: SignedIn = api::decode(&said.body).during(format!("register: {said:?}"))?;
        let room =
            RoomId::new(&way.domain, &SubmitId::from_bytes(SystemEntropy.bytes16()).to_string())?;
        let hub_key = PublicKey::from_bytes(info.hub_key);
        let founding = Founding { room: room.clone(), suite: Suite::Classic, hub_key };
        let founded = Group::create(&founding, device, SystemClock.now(), &SystemEntropy)?;
        let ask = CreateRoom { room, group_info: founded.group_info, tree: founded.tree };
        let (token, device, group) = (signed_in.token, id, founded.group);
        let mut plain = Self {
            way,
            token,
            device,
            group,
            http: Some(http),
            asked: 0,
            accepted: BTreeMap::new(),
            acknowledged: 0,
            info,
        };
        let said = plain.post("/v1/rooms", &ask).await?;
        said.place().during(format!("a room: {said:?}"))?;
        Ok(plain)
    }

    /// Its token, for a connection of another kind.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Its name.
    #[must_use]
    pub const fn device(&self) -> &DeviceId {
        &self.device
    }

    /// A message that was not handed in yet.
    ///
    /// # Errors
    /// When it cannot be encrypted.
    pub fn message(&mut self, text: &str) -> Outcome<Submit> {
        let message = self.group.encrypt(text.as_bytes(), &SystemEntropy)?;
        let submit_id = SubmitId::from_bytes(SystemEntropy.bytes16());
        let room = self.group.room().clone();
        Ok(Submit { submit_id, room, payload: Payload::Application(message) })
    }

    /// Asks the node, on the connection there is or on a new one.
    ///
    /// # Errors
    /// When there is no answer: it may have been done or not.
    pub async fn post<T: minicbor::Encode<()>>(&mut self, path: &str, body: &T) -> Outcome<Said> {
        let mut http = match self.http.take() {
            Some(http) if !http.sender.is_closed() => http,
            _ => self.way.http().await?,
        };
        self.asked += 1;
        let said = http.ask(Method::POST, path, Some(&self.token), api::encode(body)).await?;
        self.http = Some(http);
        Ok(said)
    }

    /// Hands a message in, and notes the place that it is told.
    ///
    /// # Errors
    /// As [`Plain::post`].
    pub async fn submit(&mut self, submit: &Submit) -> Outcome<Said> {
        let said = self.post("/v1/submit", submit).await?;
        if let Some(accepted) = said.place() {
            self.accepted.insert(accepted.place.seq.get(), submit.clone());
        }
        Ok(said)
    }

    fn log(&self) -> LogRef {
        LogRef::Room(self.group.room().clone())
    }

    fn cursor(&self, seq: u64) -> Cursor {
        Cursor { incarnation: self.info.incarnation, seq: Seq::new(seq) }
    }

    /// Acknowledges its room up to there.
    ///
    /// # Errors
    /// As [`Plain::post`].
    pub async fn acknowledge(&mut self, seq: u64) -> Outcome<Said> {
        let ask = Ack { log: self.log(), cursor: self.cursor(seq) };
        let said = self.post("/v1/ack", &ask).await?;
        if said.status.is_success() {
            self.acknowledged = self.acknowledged.max(seq);
        }
        Ok(said)
    }

    /// What the node says when it is asked for the entries after this one.
    ///
    /// # Errors
    /// As [`Plain::post`].
    pub async fn read(&mut self, after: u64) -> Outcome<Said> {
        let ask = Read { log: self.log(), after: self.cursor(after), max: 256 };
        self.post("/v1/read", &ask).await
    }

    /// Compares everything that was accepted and not acknowledged with what the node has: it is there, at the place that was told, byte for byte, and
    /// nothing is there twice. How many messages there are.
    ///
    /// # Errors
    /// What is not so.
    pub async fn check(&mut self) -> Outcome<usize> {
        let mut found: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        loop {
            let after = found.last_key_value().map_or(self.acknowledged, |(seq, _)| *seq);
            let said = self.read(after).await?;
            let read: Entries = api::decode(&said.body).during(format!("{said:?}"))?;
            if read.entries.is_empty() {
                break;
            }
            for entry in read.entries {
                let body = if let Body::Full(body) = entry.body { body } else { Vec::new() };
                found.insert(entry.seq.get(), body);
            }
        }
        for (seq, submit) in self.accepted.range(self.acknowledged + 1..) {
            let Payload::Application(sent) = &submit.payload else { continue };
            if found.get(seq) != Some(sent) {
                return Trouble::is(format!(
                    "{} was accepted at {seq} and is not there",
                    submit.submit_id
                ));
            }
        }
        let mut bodies: Vec<&Vec<u8>> = found.values().collect();
        bodies.sort_unstable();
        bodies.dedup();
        if bodies.len() != found.len() {
            return Trouble::is(format!(
                "of {} entries {} are there twice",
                found.len(),
                found.len() - bodies.len()
            ));
        }
        Ok(found.len())
    }
}
