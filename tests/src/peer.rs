//! A peer that says what it likes: real certificates of a paired node, and any request one can think of.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use node::clock::{SystemClock, SystemEntropy};
use protocol::{Clock as _, Code, Domain, refusal};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Outcome;
use crate::trouble::During as _;

/// It speaks to one node, with the key of another.
pub struct Peer {
    config: Arc<rustls::ClientConfig>,
    to: (SocketAddr, Domain),
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// What a node answered.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// Why it was refused, when it was.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        let body: refusal::Body = serde_json::from_slice(&self.body).ok()?;
        Some(body.into_refusal().code)
    }
}

impl Peer {
    /// Speaks as the node of `domain` whose data is in `data`, to the node at `address` whose key is `pin`.
    ///
    /// # Errors
    /// When there is no key.
    pub fn new(
        domain: &Domain,
        data: &Path,
        to: (SocketAddr, Domain),
        pin: [u8; 32],
    ) -> Outcome<Self> {
        let text = std::fs::read_to_string(data.join("node.key")).during("node.key")?;
        let seed: [u8; 32] = URL_SAFE_NO_PAD.decode(text.trim())?.as_slice().try_into()?;
        let key = crypto::NodeKey::from_bytes(&seed);
        let identity =
            federation::tls::NodeIdentity::issue(domain, &key, &SystemEntropy, SystemClock.now())?;
        let clock = Arc::new(SystemClock);
        let config = federation::tls::client_config(Some(&identity), pin, &to.1, clock)?;
        let mut config = (*config).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), to, sender: None })
    }

    /// Asks something, on a new connection if the last one is gone. Nothing when the node hangs up instead of answering.
    ///
    /// # Errors
    /// When the node cannot be dialled.
    pub async fn ask(
        &mut self,
        path: &str,
        from: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Outcome<Option<Answer>> {
        // A connection that was kept may be closed by the node just now; what a new one gets is the answer.
        if let Some(sender) = self.sender.take().filter(SendRequest::is_ready)
            && let Some(answer) = self.ask_on(sender, path, from, headers, body.clone()).await?
        {
            return Ok(Some(answer));
        }
        let sender = self.connect().await?;
        self.ask_on(sender, path, from, headers, body).await
    }

    async fn ask_on(
        &mut self,
        mut sender: SendRequest<Full<Bytes>>,
        path: &str,
        from: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Outcome<Option<Answer>> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", self.to.1.as_str())
            .header("from", from);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let Ok(response) = sender.send_request(request.body(Full::new(body.into()))?).await else {
            return Ok(None);
        };
        let status = response.status();
        let Ok(body) = response.into_body().collect().await else { return Ok(None) };
        self.sender = Some(sender);
        Ok(Some(Answer { status, body: body.to_bytes() }))
    }

    async fn connect(&self) -> Outcome<SendRequest<Full<Bytes>>> {
        let tcp = TcpStream::connect(self.to.0).await?;
        let name = rustls_pki_types::ServerName::try_from(self.to.1.as_str().to_owned())?;
        let tls = TlsConnector::from(Arc::clone(&self.config)).connect(name, tcp).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        // It ends with its last sender.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}
