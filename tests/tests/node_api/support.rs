//! A node in this process, a raw HTTPS client, and devices that do their own MLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crypto::group::{Founding, Received};
use crypto::keypackage::{self, Made, Use};
use crypto::{DeviceIdentity, DeviceKey, Group, IdentityKey, PublicKey, Suite};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use node::Node;
use node::clock::{SystemClock, SystemEntropy};
use node::config::{Config, Flags};
use protocol::api::{
    self, Accepted, CreateRoom, Entries, Handshake, InboxItem, LogRef, NodeInfo, Payload, Read,
    Register, SignedIn, Submit, SubmitReply, UploadKeyPackages,
};
use protocol::{
    Clock as _, Code, Cursor, DeviceId, Domain, Entropy as _, Incarnation, Refusal, RoomId, Seq,
    SubmitId, UserId, refusal,
};
use sqlx::Connection as _;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A clock that is ahead.
pub struct Later(pub Duration);

impl protocol::Clock for Later {
    fn now(&self) -> protocol::Timestamp {
        SystemClock.now().after(self.0)
    }
}

/// A node that runs in this process until it is dropped or stopped.
pub struct TestNode {
    pub folder: tempfile::TempDir,
    pub domain: Domain,
    pub address: SocketAddr,
    pub info: NodeInfo,
    later: Duration,
    stop: Option<oneshot::Sender<()>>,
    running: tokio::task::JoinHandle<Result<(), node::error::Error>>,
}

impl TestNode {
    pub async fn start(domain: &str) -> Self {
        Self::with(domain, "").await
    }

    /// A node with its data in files that a test can copy, whatever the others of this run use.
    pub async fn in_files(domain: &str) -> Self {
        let folder = init(domain, "").await;
        Self::resume(folder, domain, "").await
    }

    /// A node with `settings` added to its configuration.
    pub async fn with(domain: &str, settings: &str) -> Self {
        let folder = init(domain, &database(domain).await).await;
        Self::resume(folder, domain, settings).await
    }

    pub async fn resume(folder: tempfile::TempDir, domain: &str, settings: &str) -> Self {
        Self::started(folder, domain, settings, (0, Duration::ZERO)).await
    }

    /// On the port it had, where its peers look for it.
    pub async fn resume_at(folder: tempfile::TempDir, domain: &str, port: u16) -> Self {
        Self::started(folder, domain, "", (port, Duration::ZERO)).await
    }

    /// On the port it had, so much later; it has lived through the time.
    pub async fn resume_later(
        folder: tempfile::TempDir,
        domain: &str,
        port: u16,
        by: Duration,
    ) -> Self {
        let config = Config::load(&folder.path().join("node.toml"), &Flags::default()).unwrap();
        let ms = i64::try_from(by.as_millis()).unwrap();
        let grown = "UPDATE node SET aged_ms = aged_ms + $1";
        if config.database.url.starts_with("postgres") {
            let mut db = sqlx::PgConnection::connect(&config.database.url).await.unwrap();
            sqlx::query(grown).bind(ms).execute(&mut db).await.unwrap();
        } else {
            let file = format!("sqlite://{}", config.data_dir.join("node.db").display());
            let mut db = sqlx::SqliteConnection::connect(&file).await.unwrap();
            sqlx::query(grown).bind(ms).execute(&mut db).await.unwrap();
            db.close().await.unwrap();
        }
        Self::started(folder, domain, "", (port, by)).await
    }

    async fn started(
        folder: tempfile::TempDir,
        domain: &str,
        settings: &str,
        (port, later): (u16, Duration),
    ) -> Self {
        let file = folder.path().join("node.toml");
        let mut text = std::fs::read_to_string(&file).unwrap();
        text.push_str(settings);
        std::fs::write(&file, text).unwrap();
        let mut config = Config::load(&file, &Flags::default()).unwrap();
        config.listen.address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        config.public.host = "127.0.0.1".into();
        let node =
            Node::build(config, Arc::new(Later(later)), Arc::new(SystemEntropy)).await.unwrap();
        let address = node.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(node.run(async move { drop(stopped.await) }));
        let domain = Domain::parse(domain).unwrap();
        let pin = node_key(folder.path());
        let info =
            Http::connect_later(address, &domain, pin, later).await.get("/v1/node", None).await;
        let info: NodeInfo = api::decode(&info.body).unwrap();
        Self { folder, domain, address, info, later, stop: Some(stop), running }
    }

    /// Stops it and gives its folder back.
    pub async fn stop(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        self.running.await.unwrap().unwrap();
        self.folder
    }

    pub async fn http(&self) -> Http {
        Http::connect_later(self.address, &self.domain, self.info.node_key, self.later).await
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("node.toml")
    }

    /// The secret of an invitation for one person.
    pub async fn invite(&self) -> String {
        let line = self.command(&["invite", "create"]).await;
        let line =
            protocol::invite::Line::parse(protocol::invite::LineKind::Person, &line).unwrap();
        line.secret_text()
    }

    /// Runs the operator's program beside the node.
    pub async fn command(&self, args: &[&str]) -> String {
        let port = self.address.port().to_string();
        run(
            &self.config(),
            args,
            &[("WAXWING_NODE_PUBLIC__HOST", "127.0.0.1"), ("WAXWING_NODE_PUBLIC__PORT", &port)],
        )
        .await
    }

    /// A person with a first device.
    pub async fn person(&self, name: &str) -> Person {
        let identity = IdentityKey::generate(&SystemEntropy);
        let user = UserId::new(&self.domain, name).unwrap();
        let invite = self.invite().await;
        let device = Draft::new(&identity, &user);
        let ask = Register {
            invite,
            user: user.clone(),
            password: "correct horse".into(),
            identity_key: *identity.public().as_bytes(),
            device_name: "first".into(),
            certificate: device.identity.certificate().as_bytes().to_vec(),
        };
        let reply = self.http().await.post("/v1/register", None, &ask).await;
        let signed_in: SignedIn = reply.cbor();
        Person { identity, device: device.signed_in(self, signed_in.token).await }
    }
}

impl TestNode {
    /// A further device of a person.
    pub async fn further(&self, person: &Person) -> Device {
        let draft = Draft::new(&person.identity, &person.user());
        let ask = api::Login {
            user: person.user(),
            password: "correct horse".into(),
            device_name: "further".into(),
            certificate: draft.identity.certificate().as_bytes().to_vec(),
        };
        let signed_in: SignedIn = self.http().await.post("/v1/login", None, &ask).await.cbor();
        draft.signed_in(self, signed_in.token).await
    }
}

async fn init(domain: &str, database: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let args = ["init", "--domain", domain, "--data-dir", &data, "--database", database];
    run(&folder.path().join("node.toml"), &args, &[]).await;
    folder
}

/// A schema of its own on PostgreSQL where there is one, else the default.
async fn database(domain: &str) -> String {
    static NODES: AtomicU64 = AtomicU64::new(0);
    let number = NODES.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}_{number}", domain.replace('.', "_"));
    tests::postgres::schema(&name).await.unwrap().unwrap_or_default()
}

/// The operator's program, built beside this test.
pub async fn run(config: &std::path::Path, args: &[&str], env: &[(&str, &str)]) -> String {
    let output = program(config, args, env).await;
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub async fn program(
    config: &std::path::Path,
    args: &[&str],
    env: &[(&str, &str)],
) -> std::process::Output {
    let program = tests::folder::program("waxwing-node").unwrap();
    let mut command = tokio::process::Command::new(program);
    command.arg("--config").arg(config).args(args).env_clear().envs(env.iter().copied());
    command.output().await.unwrap()
}

fn node_key(folder: &std::path::Path) -> [u8; 32] {
    *crypto::NodeKey::from_bytes(&seed(folder)).public().as_bytes()
}

fn seed(folder: &std::path::Path) -> [u8; 32] {
    use base64::Engine as _;
    let text = std::fs::read_to_string(folder.join("data/node.key")).unwrap();
    let seed = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text.trim()).unwrap();
    seed.try_into().unwrap()
}

/// One HTTP/1.1 connection to a node.
pub struct Http {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    domain: Domain,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn cbor<T: for<'b> minicbor::Decode<'b, ()>>(&self) -> T {
        assert!(
            self.status.is_success(),
            "{}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        api::decode(&self.body).unwrap()
    }

    pub fn refusal(&self) -> Refusal {
        assert!(!self.status.is_success(), "not refused: {self:?}");
        let body: refusal::Body = serde_json::from_slice(&self.body).unwrap();
        body.into_refusal()
    }
}

pub async fn tls(
    address: SocketAddr,
    domain: &Domain,
    pin: [u8; 32],
    alpn: &str,
) -> TlsStream<tokio::net::TcpStream> {
    let config = federation::tls::client_config(None, pin, domain, Arc::new(SystemClock)).unwrap();
    shake(address, domain, (*config).clone(), alpn).await
}

async fn shake(
    address: SocketAddr,
    domain: &Domain,
    mut config: rustls::ClientConfig,
    alpn: &str,
) -> TlsStream<tokio::net::TcpStream> {
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from(domain.as_str().to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

impl Http {
    pub async fn connect_later(
        address: SocketAddr,
        domain: &Domain,
        pin: [u8; 32],
        by: Duration,
    ) -> Self {
        let clock = Arc::new(Later(by));
        let config = federation::tls::client_config(None, pin, domain, clock).unwrap();
        Self::over(shake(address, domain, (*config).clone(), "http/1.1").await, domain).await
    }

    /// A connection with the certificates of `from`.
    pub async fn peer(from: &TestNode, to: &TestNode) -> Self {
        let key = crypto::NodeKey::from_bytes(&seed(from.folder.path()));
        let issued = federation::tls::NodeIdentity::issue(
            &from.domain,
            &key,
            &SystemEntropy,
            SystemClock.now(),
        );
        let (issued, pin) = (issued.unwrap(), to.info.node_key);
        let config =
            federation::tls::client_config(Some(&issued), pin, &to.domain, Arc::new(SystemClock))
                .unwrap();
        let stream = shake(to.address, &to.domain, (*config).clone(), "http/1.1").await;
        Self::over(stream, &to.domain).await
    }

    /// A peer's request.
    pub async fn ask(
        &mut self,
        path: &str,
        from: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Reply {
        let mut request = self.request(Method::POST, path, None).header("from", from);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.raw(request.body(Full::new(body.into())).unwrap()).await
    }

    pub async fn over<S>(stream: S, domain: &Domain) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Self { sender, domain: domain.clone() }
    }

    pub async fn raw(&mut self, request: Request<Full<Bytes>>) -> Reply {
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    pub fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
    ) -> http::request::Builder {
        let mut request =
            Request::builder().method(method).uri(path).header("host", self.domain.as_str());
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request
    }

    pub async fn get(&mut self, path: &str, token: Option<&str>) -> Reply {
        let request = self.request(Method::GET, path, token).body(Full::default()).unwrap();
        self.raw(request).await
    }

    pub async fn post<T: minicbor::Encode<()>>(
        &mut self,
        path: &str,
        token: Option<&str>,
        body: &T,
    ) -> Reply {
        self.post_bytes(path, token, api::encode(body)).await
    }

    pub async fn post_bytes(&mut self, path: &str, token: Option<&str>, body: Vec<u8>) -> Reply {
        let request = self.request(Method::POST, path, token);
        let request = request.header("content-type", "application/cbor");
        self.raw(request.body(Full::new(body.into())).unwrap()).await
    }
}

/// A device that is not signed in yet.
pub struct Draft {
    pub identity: DeviceIdentity,
}

impl Draft {
    pub fn new(identity: &IdentityKey, user: &UserId) -> Self {
        let key = DeviceKey::generate(&SystemEntropy);
        let name = SubmitId::from_bytes(SystemEntropy.bytes16()).to_string();
        let device = DeviceId::new(user, &name).unwrap();
        let certificate = identity.certify(&device, &key.public(), SystemClock.now());
        Self { identity: DeviceIdentity::new(key, certificate).unwrap() }
    }

    pub async fn signed_in(self, node: &TestNode, token: String) -> Device {
        Device {
            http: tokio::sync::Mutex::new(node.http().await),
            info: node.info.clone(),
            identity: self.identity,
            token,
            packages: Vec::new(),
        }
    }
}

/// A person with their first device.
pub struct Person {
    pub identity: IdentityKey,
    pub device: Device,
}

impl Person {
    pub fn user(&self) -> UserId {
        self.device.id().user()
    }
}

/// A device that is signed in.
pub struct Device {
    pub http: tokio::sync::Mutex<Http>,
    pub info: NodeInfo,
    pub identity: DeviceIdentity,
    pub token: String,
    pub packages: Vec<Made>,
}

impl Device {
    pub fn id(&self) -> &DeviceId {
        self.identity.device()
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.http.lock().await.get(path, Some(&self.token)).await
    }

    pub async fn post<T: minicbor::Encode<()>>(&self, path: &str, body: &T) -> Reply {
        self.http.lock().await.post(path, Some(&self.token), body).await
    }

    pub async fn upload(&mut self, count: usize) -> Reply {
        let make = |what| {
            keypackage::make(
                Suite::Classic,
                &self.identity,
                what,
                SystemClock.now(),
                &SystemEntropy,
            )
            .unwrap()
        };
        let once: Vec<Made> = (0..count).map(|_| make(Use::Once)).collect();
        let last = make(Use::LastResort);
        let ask = UploadKeyPackages {
            packages: once.iter().map(|m| m.public.clone().into()).collect(),
            last_resort: vec![last.public.clone().into()],
        };
        let reply = self.post("/v1/keypackages", &ask).await;
        self.packages.extend(once);
        self.packages.push(last);
        reply
    }

    /// Founds a room at the device's own node.
    pub async fn found(&self) -> Group {
        let room = RoomId::new(
            self.id().domain(),
            &SubmitId::from_bytes(SystemEntropy.bytes16()).to_string(),
        )
        .unwrap();
        let hub_key = PublicKey::from_bytes(self.info.hub_key);
        let founding = Founding { room: room.clone(), suite: Suite::Classic, hub_key };
        let founded =
            Group::create(&founding, self.identity.clone(), SystemClock.now(), &SystemEntropy)
                .unwrap();
        let ask = CreateRoom { room, group_info: founded.group_info, tree: founded.tree };
        let reply: SubmitReply = self.post("/v1/rooms", &ask).await.cbor();
        assert!(matches!(reply, SubmitReply::Accepted(_)), "{reply:?}");
        founded.group
    }

    pub async fn submit(&self, submit: &Submit) -> Result<SubmitReply, Refusal> {
        let reply = self.post("/v1/submit", submit).await;
        if reply.status.is_success() { Ok(reply.cbor()) } else { Err(reply.refusal()) }
    }

    /// Encrypts and submits; the place it got, if this node is the hub.
    pub async fn say(&self, group: &mut Group, text: &str) -> Result<Accepted, Refusal> {
        let submit = Self::message(group, text);
        match self.submit(&submit).await? {
            SubmitReply::Accepted(accepted) => Ok(accepted),
            other => panic!("{other:?}"),
        }
    }

    pub fn message(group: &mut Group, text: &str) -> Submit {
        let message = group.encrypt(text.as_bytes(), &SystemEntropy).unwrap();
        Self::payload(group.room().clone(), Payload::Application(message))
    }

    pub fn payload(room: RoomId, payload: Payload) -> Submit {
        Submit { submit_id: SubmitId::from_bytes(SystemEntropy.bytes16()), room, payload }
    }

    pub fn handshake(room: &RoomId, bundle: Vec<u8>, signature: Vec<u8>) -> Submit {
        Self::payload(room.clone(), Payload::Handshake(Handshake { bundle, signature }))
    }

    /// Claims KeyPackages of `target` for `group`'s room.
    pub async fn claim(&self, group: &Group, target: &UserId) -> Reply {
        let request =
            crypto::key_material::request(&self.identity, target, group.room(), &[group.suite()]);
        let ask = api::ClaimKeyMaterial { room: group.room().clone(), request };
        self.post("/v1/keymaterial", &ask).await
    }

    /// Adds a person with all their devices; merges the commit once the hub took it.
    pub async fn add(&self, group: &mut Group, target: &UserId) -> Result<SubmitReply, Refusal> {
        use protocol::mimi::{ClientOutcome, KeyMaterialResponse};
        use protocol::room::{Participant, ParticipantsUpdate, Role};
        let reply = self.claim(group, target).await;
        if !reply.status.is_success() {
            return Err(reply.refusal());
        }
        let material = KeyMaterialResponse::decode(&reply.body).unwrap();
        let packages = material.clients.into_iter().filter_map(|c| match c.outcome {
            ClientOutcome::Success(package) => Some(package.into_vec()),
            _ => None,
        });
        let known = group.participants().unwrap().role(target).is_some();
        let added = if known {
            vec![]
        } else {
            vec![Participant { user: target.clone(), role: Role::Member }]
        };
        let change = crypto::group::Change {
            add: packages.collect(),
            participants: ParticipantsUpdate { added, ..Default::default() },
            ..Default::default()
        };
        let bundle = group.commit(&change, SystemClock.now(), &SystemEntropy).unwrap();
        let submit = Self::handshake(group.room(), bundle.update_request, bundle.signature);
        let reply = self.submit(&submit).await?;
        if matches!(reply, SubmitReply::Accepted(_)) {
            group.merge_pending().unwrap();
        }
        Ok(reply)
    }

    pub async fn read(
        &self,
        log: LogRef,
        incarnation: Incarnation,
        after: u64,
    ) -> Result<Entries, Refusal> {
        let after = Cursor { incarnation, seq: Seq::new(after) };
        let reply = self.post("/v1/read", &Read { log, after, max: 64 }).await;
        if reply.status.is_success() { Ok(reply.cbor()) } else { Err(reply.refusal()) }
    }

    /// The items in the inbox.
    pub async fn inbox(&self) -> Vec<InboxItem> {
        let entries = self.read(LogRef::Inbox, self.info.incarnation, 0).await.unwrap();
        entries.entries.iter().map(|e| api::decode(full(&e.body)).unwrap()).collect()
    }

    /// Joins the room that the newest Welcome in the inbox is for.
    pub async fn join(&self) -> (Group, api::Welcome) {
        let items = self.inbox().await;
        let welcome = items.into_iter().rev().find_map(|i| match i {
            InboxItem::Welcome(w) => Some(w),
            _ => None,
        });
        let welcome = welcome.expect("a Welcome in the inbox");
        let references = Group::welcome_for(&welcome.welcome).unwrap();
        let package = self.packages.iter().find(|p| references.contains(&p.reference)).unwrap();
        let group = Group::join(
            &welcome.room,
            &welcome.welcome,
            &welcome.tree,
            &package.private,
            self.identity.clone(),
        );
        (group.unwrap(), welcome)
    }

    /// Reads the room after `after` and opens everything; the texts of others, in order.
    pub async fn hear(
        &self,
        group: &mut Group,
        incarnation: Incarnation,
        after: u64,
    ) -> Vec<String> {
        let log = LogRef::Room(group.room().clone());
        let entries = self.read(log, incarnation, after).await.unwrap();
        let mut heard = Vec::new();
        for entry in entries.entries {
            let api::Body::Full(body) = entry.body else { continue };
            match group.receive(&body).unwrap() {
                Received::Application(m) => heard.push(String::from_utf8(m.content).unwrap()),
                Received::Commit(staged) => group.accept(*staged).unwrap(),
                _ => {}
            }
        }
        heard
    }
}

pub fn full(body: &api::Body) -> &[u8] {
    match body {
        api::Body::Full(bytes) => bytes,
        api::Body::Withheld(_) => panic!("withheld"),
    }
}

#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>, code: Code) {
    let refusal = result.expect_err("it should have been refused");
    assert_eq!(refusal.code, code, "{refusal}");
}
