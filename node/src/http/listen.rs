//! The listener: accepts connections under caps, shakes hands under a deadline, serves HTTP/1.1 and HTTP/2 on them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use federation::PeerCertificate;
use federation::headers::HEADER_LIST_BYTES;
use federation::tls::NodeIdentity;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use protocol::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::unread;
use crate::app::App;
use crate::config::Limits;
use crate::error::Error;

/// What a handler may know about the connection a request came on.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// The other end.
    pub(crate) address: SocketAddr,
    /// Who the other end is as a node, when it showed certificates that hold together. Which key is the right one is
    /// decided at every request.
    pub(crate) certificate: Option<PeerCertificate>,
}

/// Everything a connection task needs.
pub(crate) struct Server {
    /// TLS 1.3 with the node's present certificates.
    pub(crate) tls: Tls,
    /// All routes.
    pub(crate) router: Router,
    /// Caps and deadlines.
    pub(crate) limits: Limits,
    /// Judges certificates.
    pub(crate) clock: Arc<dyn Clock>,
}

impl Server {
    /// Accepts and serves until `stop`, then lets requests in progress end.
    pub(crate) async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let graceful = GracefulShutdown::new();
        let gate = Gate::new(&self.limits);
        let server = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (tcp, address) = match accepted {
                Ok(pair) => pair,
                Err(error) => {
                    // Out of file descriptors, mostly: waiting is all that helps, and a tight loop would only hurt.
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Over a cap the connection is closed unanswered: a handshake would cost us more than the other side.
            let Some(pass) = gate.enter(address.ip()) else { continue };
            let (server, watcher) = (server.clone(), graceful.watcher());
            tasks.spawn(async move {
                let _pass = pass;
                server.connection(tcp, address, watcher).await;
            });
        }
        drop(listener);
        tasks.close();
        let drain = async {
            graceful.shutdown().await;
            tasks.wait().await;
        };
        if timeout(DRAIN, drain).await.is_err() {
            tracing::warn!("some requests did not end in time and were cut off");
        }
    }

    async fn connection(&self, tcp: TcpStream, address: SocketAddr, watcher: Watcher) {
        // Small answers must not wait for more data; a socket that refuses this is about to fail anyway.
        if tcp.set_nodelay(true).is_err() {
            return;
        }
        let deadline = Duration::from_millis(self.limits.handshake_ms);
        let acceptor = match self.tls.acceptor() {
            Ok(acceptor) => acceptor,
            Err(error) => {
                tracing::error!(%error, "TLS cannot be set up");
                return;
            }
        };
        let tls = match timeout(deadline, acceptor.accept(tcp)).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                tracing::info!(%address, %error, "a TLS handshake failed");
                return;
            }
            Err(_) => {
                tracing::info!(%address, "a TLS handshake took too long");
                return;
            }
        };
        self.requests(tls, address, watcher).await;
    }

    async fn requests(&self, tls: TlsStream<TcpStream>, address: SocketAddr, watcher: Watcher) {
        let session = tls.get_ref().1;
        let h2 = session.alpn_protocol() == Some(b"h2");
        let shown = session.peer_certificates();
        let certificate = match federation::tls::peer_certificate(shown, self.clock.now()) {
            Ok(certificate) => certificate,
            Err(error) => {
                tracing::info!(%address, %error, "a peer's certificate was refused");
                return;
            }
        };
        let spoke = Arc::new(AtomicBool::new(false));
        let about = Connection { address, certificate };
        let service = service_fn({
            let (router, spoke) = (self.router.clone(), spoke.clone());
            move |mut request: Request<Incoming>| {
                spoke.store(true, Ordering::Relaxed);
                request.extensions_mut().insert(about.clone());
                let router = router.clone();
                async move {
                    let (request, left) = unread::watch(request);
                    let response = router.oneshot(request).await;
                    if h2 && response.as_ref().is_ok_and(|r| !r.status().is_success()) {
                        unread::drain(left).await;
                    }
                    response
                }
            }
        });
        let builder = self.builder(h2);
        let served = watcher
            .watch(builder.serve_connection_with_upgrades(TokioIo::new(tls), service).into_owned());
        tokio::pin!(served);
        // Neither hyper nor h2 bounds the time before the first byte of HTTP.
        let first = sleep(Duration::from_millis(self.limits.header_ms));
        tokio::pin!(first);
        let mut waiting = true;
        loop {
            tokio::select! {
                ended = &mut served => {
                    if let Err(error) = ended {
                        tracing::debug!(%address, %error, "a connection ended");
                    }
                    return;
                }
                () = &mut first, if waiting => {
                    waiting = false;
                    if !spoke.load(Ordering::Relaxed) {
                        tracing::info!(%address, "a connection sent no request");
                        return;
                    }
                }
            }
        }
    }

    /// The protocol is the one that TLS agreed on, so that nothing has to be guessed from the first bytes.
    fn builder(&self, h2: bool) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(self.limits.header_ms))
            .max_headers(MAX_HEADERS)
            .max_buf_size(HTTP1_BUFFER);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS)
            .max_header_list_size(HEADER_LIST_BYTES)
            .keep_alive_interval(H2_PING)
            .keep_alive_timeout(H2_PING)
            .enable_connect_protocol();
        if h2 { builder.http2_only() } else { builder.http1_only() }
    }
}

/// What the listener shows: certificates that are issued anew from time to time.
pub(crate) struct Tls {
    app: Arc<App>,
    present: Mutex<Option<(Arc<NodeIdentity>, TlsAcceptor)>>,
}

impl Tls {
    /// For the node's certificates, whatever they are when a connection comes.
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self { app, present: Mutex::default() }
    }

    /// The settings for the next connection.
    ///
    /// # Errors
    /// When the certificates do not fit together.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, Error> {
        let identity = self.app.keys.identity();
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, acceptor)) = present.as_ref()
            && Arc::ptr_eq(of, &identity)
        {
            return Ok(acceptor.clone());
        }
        let config = federation::tls::server_config(&identity, self.app.clock.clone());
        let acceptor = TlsAcceptor::from(config.map_err(|e| Error::Keys(e.to_string()))?);
        *present = Some((identity, acceptor.clone()));
        Ok(acceptor)
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const DRAIN: Duration = Duration::from_secs(8);
const H2_PING: Duration = Duration::from_secs(30);
const H2_STREAMS: u32 = 128;
/// An HTTP/1.1 header must fit into it, and `Fed-Members` is the longest we take.
const HTTP1_BUFFER: usize = HEADER_LIST_BYTES as usize + 8 * 1024;
const MAX_HEADERS: usize = 64;

/// Counts open connections, in all and by address.
#[derive(Clone)]
struct Gate {
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    per_address: usize,
}

/// A place among the open connections; given back when dropped.
struct Pass {
    gate: Gate,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    fn new(limits: &Limits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            by_address: Arc::default(),
            per_address: limits.connections_per_address,
        }
    }

    fn enter(&self, address: IpAddr) -> Option<Pass> {
        let address = address.to_canonical();
        let permit = self.all.clone().try_acquire_owned().ok()?;
        let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Pass { gate: self.clone(), address, _permit: permit })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut counts = self.gate.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_closes_per_address_and_in_all_and_opens_again() {
        let limits = Limits { connections: 3, connections_per_address: 2, ..Limits::default() };
        let gate = Gate::new(&limits);
        let (a, b) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let first = gate.enter(a).unwrap();
        let _second = gate.enter(a).unwrap();
        assert!(gate.enter(a).is_none(), "two from one address");
        let _third = gate.enter(b).unwrap();
        assert!(gate.enter(b).is_none(), "three in all");
        drop(first);
        assert!(gate.enter(b).is_some());
    }
}
