//! `crypto::pin` as rustls wants it.

use std::sync::Arc;

use protocol::Domain;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::ED25519;
use crate::{PinError, Usage, verify_chain};

/// Accepts the certificates of any node, as long as they hold together.
#[derive(Debug)]
pub(super) struct AnyNode;

/// Accepts the certificates of one node under one key.
#[derive(Debug)]
pub(super) struct PinnedNode {
    pub(super) domain: Domain,
    pub(super) pin: [u8; 32],
}

/// Keeps the reason: the dialling end finds it again in rustls' error.
fn refused(why: PinError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

fn whole<'a>(leaf: &CertificateDer<'a>, rest: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    // More than two are refused anyway; a long list is not copied first.
    std::iter::once(leaf).chain(rest.iter().take(2)).cloned().collect()
}

/// TLS 1.2 is not offered, so nobody gets here.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
}

macro_rules! handshake_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            no_tls12()
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &ED25519)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            ED25519.supported_schemes()
        }
    };
}

impl ClientCertVerifier for AnyNode {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        verify_chain(&whole(leaf, rest), Usage::Client, None, now)
            .map(|_| ClientCertVerified::assertion())
            .map_err(refused)
    }

    handshake_signatures!();
}

impl ServerCertVerifier for PinnedNode {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_chain(&whole(leaf, rest), Usage::Server, Some(&self.domain), now)
            .and_then(|node| node.check_pin(&self.pin))
            .map(|()| ServerCertVerified::assertion())
            .map_err(refused)
    }

    handshake_signatures!();
}
