//! Requests to the node: CBOR over HTTP/2, one connection kept warm. PROTOCOL §6.
//!
//! Every request may be repeated without a second effect, so a request whose kept connection broke is sent once more on
//! a fresh one; further tries are the caller's, who knows how urgent it is.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use minicbor::{Decode, Encode};
use protocol::api::{
    self, ClaimKeyMaterial, CreateRoom, Devices, FetchGroupInfo, KeyPackageCount, LinkOffer, Login,
    Logs, NodeInfo, OfferLink, Register, Revoke, SignedIn, SubmitReply, TakeLink,
    UploadKeyPackages,
};
use protocol::{Code, Refusal, limit, refusal};
use tokio::sync::Mutex;

use crate::net::{Alpn, Dialler};
use crate::{Error, Result};

/// How long one request may take. Claims of key material wait for a second node.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// The largest answer: group info with a ratchet tree.
const ANSWER_BYTES: usize = limit::PEER_BODY_BYTES;

/// The node's HTTP side, as this device sees it.
pub(crate) struct Api {
    dialler: Dialler,
    token: Option<String>,
    kept: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Api {
    /// Without a token only the requests work that need none.
    pub(crate) fn new(dialler: Dialler, token: Option<String>) -> Self {
        Self { dialler, token, kept: Mutex::new(None) }
    }

    pub(crate) async fn node(&self) -> Result<NodeInfo> {
        let bytes = self.exchange(Method::GET, "/v1/node", Bytes::new()).await?;
        answer(&bytes, "node")
    }

    pub(crate) async fn register(&self, request: &Register) -> Result<SignedIn> {
        self.call("/v1/register", request).await
    }

    pub(crate) async fn login(&self, request: &Login) -> Result<SignedIn> {
        self.call("/v1/login", request).await
    }

    pub(crate) async fn devices(&self) -> Result<Devices> {
        let bytes = self.exchange(Method::GET, "/v1/devices", Bytes::new()).await?;
        answer(&bytes, "devices")
    }

    /// The logs that this device reads, and how far each goes.
    pub(crate) async fn logs(&self) -> Result<Logs> {
        let bytes = self.exchange(Method::GET, "/v1/rooms", Bytes::new()).await?;
        answer(&bytes, "rooms")
    }

    pub(crate) async fn revoke(&self, request: &Revoke) -> Result<()> {
        self.post("/v1/devices/revoke", request).await.map(|_| ())
    }

    pub(crate) async fn upload(&self, request: &UploadKeyPackages) -> Result<KeyPackageCount> {
        self.call("/v1/keypackages", request).await
    }

    /// The bytes of a MIMI `KeyMaterialResponse`.
    pub(crate) async fn key_material(&self, request: &ClaimKeyMaterial) -> Result<Bytes> {
        self.post("/v1/keymaterial", request).await
    }

    pub(crate) async fn create_room(&self, request: &CreateRoom) -> Result<SubmitReply> {
        self.call("/v1/rooms", request).await
    }

    /// The bytes of a MIMI `GroupInfoResponse`.
    pub(crate) async fn group_info(&self, request: &FetchGroupInfo) -> Result<Bytes> {
        self.post("/v1/groupinfo", request).await
    }

    pub(crate) async fn offer_link(&self, request: &OfferLink) -> Result<()> {
        self.post("/v1/link", request).await.map(|_| ())
    }

    pub(crate) async fn take_link(&self, request: &TakeLink) -> Result<LinkOffer> {
        self.call("/v1/link/take", request).await
    }

    async fn call<T: for<'b> Decode<'b, ()>>(
        &self,
        path: &'static str,
        request: &impl Encode<()>,
    ) -> Result<T> {
        answer(&self.post(path, request).await?, path)
    }

    async fn post(&self, path: &'static str, request: &impl Encode<()>) -> Result<Bytes> {
        self.exchange(Method::POST, path, api::encode(request).into()).await
    }

    async fn exchange(&self, method: Method, path: &'static str, body: Bytes) -> Result<Bytes> {
        let work = async {
            if let Some(kept) = self.kept().await {
                match self.attempt(kept, &method, path, body.clone()).await {
                    Err(Error::Unreachable { .. }) => {}
                    other => return other,
                }
            }
            let fresh = self.connect().await?;
            self.attempt(fresh, &method, path, body.clone()).await
        };
        tokio::time::timeout(REQUEST_MAX, work)
            .await
            .unwrap_or_else(|_| Err(self.dialler.node().unreachable(&"no answer within 30 s")))
    }

    async fn kept(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.kept.lock().await.clone().filter(SendRequest::is_ready)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let tls = self.dialler.dial(Alpn::H2).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|e| self.dialler.node().unreachable(&e))?;
        // Ends by itself when the last sender is dropped, which is with this `Api`.
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!(cause = %e, "the request connection ended");
            }
        });
        *self.kept.lock().await = Some(sender.clone());
        Ok(sender)
    }

    async fn attempt(
        &self,
        mut to: SendRequest<Full<Bytes>>,
        method: &Method,
        path: &'static str,
        body: Bytes,
    ) -> Result<Bytes> {
        let lost = |e: &dyn std::fmt::Display| self.dialler.node().unreachable(&e);
        let uri = format!("https://{}{path}", self.dialler.node().domain);
        let mut request = Request::builder().method(method.clone()).uri(uri);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/cbor");
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|e| lost(&e))?;
        let response = to.send_request(request).await.map_err(|e| lost(&e))?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), ANSWER_BYTES)
            .collect()
            .await
            .map_err(|e| lost(&e))?
            .to_bytes();
        if status.is_success() { Ok(bytes) } else { Err(Error::Refused(refused(status, &bytes))) }
    }
}

fn answer<T: for<'b> Decode<'b, ()>>(bytes: &[u8], what: &'static str) -> Result<T> {
    api::decode(bytes).map_err(|_| Error::Answer { what })
}

/// The refusal in an answer that is not a success; something in between may have answered instead of the node.
pub(crate) fn refused(status: StatusCode, body: &[u8]) -> Refusal {
    serde_json::from_slice::<refusal::Body>(body).map_or_else(
        |_| {
            let code = match status {
                StatusCode::UNAUTHORIZED => Code::Unauthenticated,
                StatusCode::TOO_MANY_REQUESTS => Code::RateLimited,
                _ => Code::Unavailable,
            };
            Refusal::because(code, format!("The node answered with HTTP status {status}."))
        },
        refusal::Body::into_refusal,
    )
}
