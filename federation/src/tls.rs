//! TLS between nodes: certificates under the node's own key, and the settings of both ends. PROTOCOL §9.1.
//!
//! TLS 1.3 only, Ed25519 only, ALPN `h2` then `http/1.1`. Session tickets and 0-RTT are off: every connection shows its
//! certificates, so nothing that was valid once is resumed after it is not.

mod issue;
mod verifier;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use protocol::{Clock, Domain, Timestamp};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

pub use issue::NodeIdentity;
use verifier::{AnyNode, PinnedNode};

use crate::{PeerCertificate, PinError, Usage, verify_chain};

/// TLS could not be set up. Ours, always.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate could not be made.
    #[error("cannot issue a certificate")]
    Issue(#[from] rcgen::Error),
    /// The settings do not fit together.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The domain cannot stand in a certificate: it looks like an address.
    #[error("{0} cannot be a node's domain: it looks like an address")]
    Domain(Domain),
}

/// The only signatures we make or accept, in certificates and handshakes.
static ED25519: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[webpki::aws_lc_rs::ED25519],
    mapping: &[(SignatureScheme::ED25519, &[webpki::aws_lc_rs::ED25519])],
};

/// What is offered in ALPN.
fn protocols() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    provider.signature_verification_algorithms = ED25519;
    Arc::new(provider)
}

/// rustls asks the injected clock.
struct Time(Arc<dyn Clock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(self.0.now()))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

fn unix(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(now.ms()))
}

/// The settings of the end that listens, for devices and peers alike: a client certificate is asked for and may be left out;
/// one that does not hold together ends the handshake. Whether its key is the pinned one is decided per request
/// ([`crate::verify`]). Make new settings for new connections when [`NodeIdentity::due`] says so.
///
/// # Errors
/// When the settings do not fit together, which a test excludes.
pub fn server_config(
    identity: &NodeIdentity,
    clock: Arc<dyn Clock>,
) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(Time(clock)))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AnyNode))
        .with_single_cert(identity.chain().to_vec(), identity.key())?;
    config.alpn_protocols = protocols();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The settings of the end that dials the node of `domain`, which must have the key `pin`. With `identity` it shows our own
/// certificates.
///
/// # Errors
/// When the settings do not fit together, which a test excludes.
pub fn client_config(
    identity: Option<&NodeIdentity>,
    pin: [u8; 32],
    domain: &Domain,
    clock: Arc<dyn Clock>,
) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(Time(clock)))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedNode { domain: domain.clone(), pin }));
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain().to_vec(), identity.key())?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// The certificates that the other end of an accepted connection showed, read once per connection
/// (`ServerConnection::peer_certificates`). `None` when it showed none: a device.
///
/// # Errors
/// Why they are not accepted. The handshake has checked the same, so this happens only when one has expired in between.
pub fn peer_certificate(
    shown: Option<&[CertificateDer<'_>]>,
    now: Timestamp,
) -> Result<Option<PeerCertificate>, PinError> {
    match shown {
        None | Some([]) => Ok(None),
        Some(chain) => verify_chain(chain, Usage::Client, None, unix(now)).map(Some),
    }
}
