//! One connection to a peer: made, used, ended.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::CertificateError;
use rustls_pki_types::ServerName;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Timeouts;
use crate::dial::{DialError, dial};
use crate::headers::HEADER_LIST_BYTES;
use crate::outcome::Stage;
use crate::{Peer, PinError, Why};

type Outgoing = Request<Full<Bytes>>;

/// A connection that nobody answers on is found out this soon, even without a request.
const PING: Duration = Duration::from_secs(20);
const PING_ANSWER: Duration = Duration::from_secs(10);

/// Bytes per second of the slowest network on which a long request or answer is waited for.
const SLOWEST: u64 = 16 * 1024;

/// What HTTP/1.1 reads at once; its headers must fit.
const HTTP1_BUFFER: usize = 128 * 1024;

/// Ends the connection's task when the last one who uses it is gone.
#[derive(Debug)]
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A connection to a peer that proved to be itself.
#[derive(Debug)]
pub(super) struct Connection {
    sender: Sender,
    driver: Arc<Driver>,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A request that got no answer.
#[derive(Debug)]
pub(super) enum Unsent {
    /// The connection ended before the request was on it: it can be sent again, whatever it asks.
    Intact(Box<Outgoing>),
    /// The peer may have seen it.
    Failed(Why),
}

impl Connection {
    /// Dials the peer and shakes hands.
    pub(super) async fn open(
        peer: &Peer,
        tls: &Arc<rustls::ClientConfig>,
        timeouts: &Timeouts,
    ) -> Result<Self, Why> {
        let dialling = dial(&peer.host, peer.port, peer.reach);
        let stream = match timeout(timeouts.connect, dialling).await {
            Err(_) => return Err(Why::Timeout(Stage::Connecting)),
            Ok(Err(DialError::Unreachable(why))) => return Err(Why::Unreachable(why)),
            Ok(Err(DialError::Forbidden(why))) => return Err(Why::Forbidden(why)),
            Ok(Ok(stream)) => stream,
        };
        let name = ServerName::try_from(peer.domain.as_str().to_owned())
            .map_err(|_| Why::Ours(format!("{} is not a host name", peer.domain)))?;
        let shaking = async {
            let tls = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
            Self::start(tls.map_err(|e| tls_error(&e))?).await
        };
        timeout(timeouts.handshake, shaking).await.unwrap_or(Err(Why::Timeout(Stage::Handshake)))
    }

    async fn start(stream: TlsStream<tokio::net::TcpStream>) -> Result<Self, Why> {
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let failed = |e: hyper::Error| Why::Lost(describe(&e));
        let (sender, task) = if http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING_ANSWER)
                .keep_alive_while_idle(true)
                .max_header_list_size(HEADER_LIST_BYTES)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(failed)?;
            (Sender::Http2(sender), tokio::spawn(async { drop(connection.await) }))
        } else {
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(HTTP1_BUFFER)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(failed)?;
            (Sender::Http1(sender), tokio::spawn(async { drop(connection.await) }))
        };
        Ok(Self { sender, driver: Arc::new(Driver(task.abort_handle())) })
    }

    /// A second handle on the same connection; HTTP/1.1 has none, as it carries one request at a time.
    pub(super) fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) if sender.is_closed() => None,
            Sender::Http2(sender) => Some(Self {
                sender: Sender::Http2(sender.clone()),
                driver: Arc::clone(&self.driver),
            }),
        }
    }

    /// Whether both are handles on one connection.
    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.driver, &other.driver)
    }

    /// Sends a request and reads the whole answer, up to `max` bytes of body. `patience` is how long a small one may take; a
    /// long one may take longer, at no less than [`SLOWEST`].
    pub(super) async fn send(
        &mut self,
        request: Outgoing,
        max: usize,
        patience: Duration,
    ) -> Result<Reply, Unsent> {
        let upload = request.body().size_hint().exact().unwrap_or_default();
        let sending = async {
            match &mut self.sender {
                Sender::Http1(sender) => sender.try_send_request(origin_form(request)).await,
                Sender::Http2(sender) => sender.try_send_request(request).await,
            }
        };
        match timeout(patience + at_slowest(upload), sending).await {
            Ok(Ok(response)) => read(response, max, patience).await.map_err(Unsent::Failed),
            Ok(Err(e)) => Err(unsent(e)),
            Err(_) => Err(Unsent::Failed(Why::Timeout(Stage::Answer))),
        }
    }
}

fn unsent(mut error: TrySendError<Outgoing>) -> Unsent {
    match error.take_message() {
        Some(request) => Unsent::Intact(Box::new(request)),
        None => Unsent::Failed(Why::Lost(describe(error.error()))),
    }
}

/// HTTP/1.1 names the host in a header and only the path in the first line.
fn origin_form(mut request: Outgoing) -> Outgoing {
    let host = request.uri().authority().and_then(|a| http::HeaderValue::from_str(a.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(http::header::HOST, host);
    }
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    request
}

/// Reads the answer's body. What has come buys time for the rest, so that a long answer over a weak network arrives and one that
/// drips does not hold us.
async fn read(response: Response<Incoming>, max: usize, patience: Duration) -> Result<Reply, Why> {
    let (parts, body) = response.into_parts();
    let mut body = Limited::new(body, max);
    let mut bytes = BytesMut::new();
    let started = Instant::now();
    loop {
        let deadline = started + patience + at_slowest(bytes.len() as u64);
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(Why::Timeout(Stage::Answer)),
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(e))) if e.is::<http_body_util::LengthLimitError>() => {
                return Err(Why::Answer(format!("it is longer than {max} bytes")));
            }
            Ok(Some(Err(e))) => return Err(Why::Lost(e.to_string())),
        };
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Reply { status: parts.status, headers: parts.headers, body: bytes.freeze() })
}

/// How long so many bytes take at the slowest pace that is waited for.
fn at_slowest(bytes: u64) -> Duration {
    Duration::from_secs(bytes / SLOWEST)
}

/// Our verifier's reason is inside rustls' error, which is inside the I/O error.
fn tls_error(error: &std::io::Error) -> Why {
    let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) else {
        return Why::Lost(error.to_string());
    };
    if let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = tls
        && let Some(pin) = other.0.downcast_ref::<PinError>()
    {
        return Why::Certificate(*pin);
    }
    Why::Tls(tls.to_string())
}

/// hyper's errors say what happened only in their sources.
fn describe(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
