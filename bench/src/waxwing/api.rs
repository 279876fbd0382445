//! Requests to a node over one HTTP/2 connection, on behalf of many devices.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use protocol::Domain;
use protocol::api::{self, NodeInfo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Outcome, failed};

/// A connection for requests.
pub struct Api {
    sender: SendRequest<Full<Bytes>>,
    domain: Domain,
}

impl Api {
    /// Connects.
    ///
    /// # Errors
    /// When the node cannot be reached.
    pub async fn connect(
        address: SocketAddr,
        domain: &Domain,
        config: Arc<ClientConfig>,
    ) -> Outcome<Self> {
        let tls = dial(address, domain.as_str(), config).await?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, domain: domain.clone() })
    }

    /// What the node says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn node(&self) -> Outcome<NodeInfo> {
        Ok(api::decode(&self.exchange(Method::GET, "/v1/node", "", Bytes::new()).await?)?)
    }

    /// A request of the device with this token.
    ///
    /// # Errors
    /// When the node refuses or does not answer.
    pub async fn post<T, R>(&self, path: &str, token: &str, body: &T) -> Outcome<R>
    where
        T: minicbor::Encode<()>,
        R: for<'b> minicbor::Decode<'b, ()>,
    {
        let bytes = self.exchange(Method::POST, path, token, api::encode(body).into()).await?;
        Ok(api::decode(&bytes)?)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Bytes,
    ) -> Outcome<Bytes> {
        let uri = format!("https://{}{path}", self.domain);
        let mut request = Request::builder().method(method).uri(uri);
        if !token.is_empty() {
            request = request
                .header("authorization", format!("Bearer {token}"))
                .header("content-type", "application/cbor");
        }
        let mut sender = self.sender.clone();
        sender.ready().await?;
        let response = sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return Ok(bytes);
        }
        failed(format!("{path}: {status}: {}", String::from_utf8_lossy(&bytes)))
    }
}

/// TLS to somebody.
///
/// # Errors
/// When they cannot be reached or are not who they should be.
pub async fn dial(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> Outcome<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned())?;
    Ok(TlsConnector::from(config).connect(name, tcp).await?)
}
