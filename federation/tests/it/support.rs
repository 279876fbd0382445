//! A clock and chance that tests set, and a node's listening end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crypto::NodeKey;
use federation::client::Timeouts;
use federation::tls::{self, NodeIdentity};
use federation::{Client, Peer, PeerCertificate, Reach};
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use protocol::{Clock, Domain, Entropy, Refusal, Timestamp};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// When the tests happen.
pub(crate) const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);
pub(crate) const DAY: Duration = Duration::from_hours(24);

#[derive(Debug)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(NOW.ms())))
    }

    pub(crate) fn pass(&self, by: Duration) {
        self.0.store(self.now().after(by).ms(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::SeqCst))
    }
}

/// Different bytes each time, the same in every run.
#[derive(Debug, Default)]
pub(crate) struct TestEntropy(AtomicU64);

impl Entropy for TestEntropy {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let n = self.0.fetch_add(1, Ordering::SeqCst);
            let bytes = protocol::log::Digest::of_bytes(&n.to_be_bytes());
            chunk.copy_from_slice(&bytes.as_bytes()[..chunk.len()]);
        }
    }
}

pub(crate) fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

pub(crate) fn node_key(seed: u8) -> NodeKey {
    NodeKey::from_bytes(&[seed; 32])
}

/// The identity of the node with this domain and seed.
pub(crate) fn identity(name: &str, seed: u8) -> Arc<NodeIdentity> {
    Arc::new(
        NodeIdentity::issue(&domain(name), &node_key(seed), &TestEntropy::default(), NOW).unwrap(),
    )
}

/// A request as a node sees it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    pub(crate) certificate: Option<PeerCertificate>,
}

pub(crate) type Answer = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;
type Handler = Arc<dyn Fn(Seen) -> Answer + Send + Sync>;

/// A node's listening end; it ends with this.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Listens with `config` and answers by `handler`.
    pub(crate) async fn start(
        config: Arc<ServerConfig>,
        handler: impl Fn(Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), config, handler).await
    }

    pub(crate) async fn at(
        address: SocketAddr,
        config: Arc<ServerConfig>,
        handler: impl Fn(Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let handler: Handler = Arc::new(handler);
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let acceptor = TlsAcceptor::from(Arc::clone(&config));
                let handler = Arc::clone(&handler);
                tasks.spawn(serve(stream, acceptor, handler));
            }
        });
        Self { address, connections, task }
    }

    /// A node of `identity` as it would be.
    pub(crate) async fn of(
        identity: &NodeIdentity,
        clock: &Arc<TestClock>,
        handler: impl Fn(Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
        Self::start(tls::server_config(identity, clock).unwrap(), handler).await
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The row that a peer has of the node of `identity`, which listens here.
    pub(crate) fn row(&self, identity: &NodeIdentity) -> Peer {
        row(identity, self.address)
    }
}

pub(crate) fn row(identity: &NodeIdentity, address: SocketAddr) -> Peer {
    Peer {
        domain: identity.domain().clone(),
        node_key: *identity.node_key(),
        host: address.ip().to_string(),
        port: address.port(),
        reach: Reach::Anywhere,
    }
}

/// One connection, to its end.
async fn serve(stream: tokio::net::TcpStream, acceptor: TlsAcceptor, handler: Handler) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let shown = stream.get_ref().1.peer_certificates();
    let certificate = tls::peer_certificate(shown, NOW).unwrap();
    let service = service_fn(move |request| {
        let (handler, certificate) = (Arc::clone(&handler), certificate.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(request, certificate, &handler).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_header_list_size(federation::headers::HEADER_LIST_BYTES);
    drop(builder.serve_connection(TokioIo::new(stream), service).await);
}

async fn answer(
    request: Request<Incoming>,
    certificate: Option<PeerCertificate>,
    handler: &Handler,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    handler(Seen { parts, body, certificate }).await
}

pub(crate) fn ready(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

pub(crate) fn refuse(status: u16, refusal: &Refusal) -> Response<Full<Bytes>> {
    ready(status, serde_json::to_vec(&refusal.to_body()).unwrap())
}

/// Timeouts that tests can wait for.
pub(crate) const SHORT: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    handshake: Duration::from_secs(2),
    answer: Duration::from_secs(2),
};

pub(crate) fn client(
    identity: &Arc<NodeIdentity>,
    clock: &Arc<TestClock>,
    timeouts: Timeouts,
) -> Client {
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
    Client::new(Arc::clone(identity), clock, timeouts)
}
