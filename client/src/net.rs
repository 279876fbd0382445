//! Dialling the node: TLS 1.3, and only to the key this device pinned. PROTOCOL §6.1.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crypto::pin::{self, PinError, Usage};
use protocol::{Clock, Domain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Error, Result};

/// How long a connection may take, TLS included.
const DIAL_MAX: Duration = Duration::from_secs(10);

/// Which node, where it is, and how to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeAddress {
    pub(crate) domain: Domain,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) node_key: [u8; 32],
}

impl NodeAddress {
    /// Host and port, for people.
    pub(crate) fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(crate) fn unreachable(&self, cause: &(impl ToString + ?Sized)) -> Error {
        Error::Unreachable { address: self.shown(), cause: cause.to_string() }
    }
}

/// The application protocol to agree on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Alpn {
    /// HTTP/2, for requests.
    H2,
    /// HTTP/1.1, for the stream: a WebSocket upgrade.
    H1,
}

/// Dials one node.
#[derive(Clone)]
pub(crate) struct Dialler {
    node: NodeAddress,
    h2: TlsConnector,
    h1: TlsConnector,
}

impl Dialler {
    pub(crate) fn new(node: NodeAddress, clock: &Arc<dyn Clock>) -> Result<Self> {
        let connector = |alpn: &[u8]| -> Result<TlsConnector> {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let verifier = Pinned {
                domain: node.domain.clone(),
                key: node.node_key,
                clock: Arc::clone(clock),
                algorithms: provider.signature_verification_algorithms,
            };
            let mut config = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(|e| Error::Crypto(e.to_string()))?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth();
            config.alpn_protocols = vec![alpn.to_vec()];
            Ok(TlsConnector::from(Arc::new(config)))
        };
        let (h2, h1) = (connector(b"h2")?, connector(b"http/1.1")?);
        Ok(Self { node, h2, h1 })
    }

    pub(crate) fn node(&self) -> &NodeAddress {
        &self.node
    }

    /// Connects.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or [`Error::NodeKey`] when somebody else answers.
    pub(crate) async fn dial(&self, alpn: Alpn) -> Result<TlsStream<TcpStream>> {
        let connected = tokio::time::timeout(DIAL_MAX, self.connect(alpn)).await;
        connected.unwrap_or_else(|_| Err(self.node.unreachable(&"no answer within 10 s")))
    }

    async fn connect(&self, alpn: Alpn) -> Result<TlsStream<TcpStream>> {
        let host = self.node.host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((host, self.node.port))
            .await
            .map_err(|e| self.node.unreachable(&e))?;
        tcp.set_nodelay(true).map_err(|e| self.node.unreachable(&e))?;
        let name = ServerName::try_from(self.node.domain.as_str().to_owned())
            .map_err(|e| self.node.unreachable(&e))?;
        let connector = match alpn {
            Alpn::H2 => &self.h2,
            Alpn::H1 => &self.h1,
        };
        connector.connect(name, tcp).await.map_err(|e| self.tls_error(&e))
    }

    fn tls_error(&self, error: &std::io::Error) -> Error {
        match pin_error(error) {
            Some(PinError::OtherKey | PinError::OtherDomain) => {
                Error::NodeKey { address: self.node.shown() }
            }
            Some(e @ (PinError::Expired | PinError::NotYetValid)) => {
                self.node.unreachable(&format!("{e}; check the clock of this device"))
            }
            _ => self.node.unreachable(&error),
        }
    }
}

/// Why our own verifier said no, if it did.
fn pin_error(error: &std::io::Error) -> Option<&PinError> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(e))) => {
            e.downcast_ref::<PinError>()
        }
        _ => None,
    }
}

/// Accepts exactly the chain under the pinned key.
struct Pinned {
    domain: Domain,
    key: [u8; 32],
    clock: Arc<dyn Clock>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({})", self.domain)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        // Our own clock, not rustls's, so that a test or a simulator can set it.
        let now = UnixTime::since_unix_epoch(Duration::from_millis(self.clock.now().ms()));
        let chain: Vec<_> =
            std::iter::once(end_entity).chain(intermediates).map(|c| c.as_ref().into()).collect();
        pin::verify_chain(&chain, Usage::Server, Some(&self.domain), now)
            .and_then(|certificate| certificate.check_pin(&self.key))
            .map(|()| ServerCertVerified::assertion())
            .map_err(|e| CertificateError::Other(OtherError(Arc::new(e))).into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
