//! A node's certificates, checked: two of them, the node's own key over the key of the connection. PROTOCOL §9.1.
//!
//! No public authority has a say. A node makes a certificate authority of its own Ed25519 key and issues a short-lived
//! certificate under it; whoever talks to the node pins that key. Nodes check each other with this, devices check their node.
//! Which key is the right one is the caller's question: [`verify_chain`] says which key a chain is under and for which domain,
//! [`PeerCertificate::check_pin`] compares it.
//!
//! Left out of WebAssembly builds, where the browser does TLS.

use std::time::Duration;

use protocol::{Domain, Timestamp};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::aws_lc_rs::ED25519;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

/// One certificate. Ours have about 400 bytes.
const CERTIFICATE_BYTES: usize = 4096;

/// `id-kp-serverAuth` and `id-kp-clientAuth` as webpki takes them: the object identifier's bytes without tag and length.
const SERVER_AUTH: &[u8] = &[43, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[43, 6, 1, 5, 5, 7, 3, 2];

/// Which end of a connection presented the certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The end that was dialled.
    Server,
    /// The end that dialled.
    Client,
}

/// What a chain proves: whoever presented it has the node key `node_key` and names itself `domain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The one name in the certificate.
    pub domain: Domain,
    /// The Ed25519 key that issued it.
    pub node_key: [u8; 32],
    /// The last moment of its validity, for checking again on every request of a long connection.
    pub not_after: Timestamp,
}

/// Why certificates were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Not exactly the two certificates of PROTOCOL §9.1.
    #[error("the chain must have two certificates: the connection's and the node's")]
    ChainLength,
    /// Not a certificate, too large, or bytes after its end.
    #[error("a certificate cannot be read")]
    Unreadable,
    /// A key or signature of another kind than Ed25519.
    #[error("a certificate has a key or signature that is not Ed25519")]
    Algorithm,
    /// The second certificate is not an authority that signed itself.
    #[error("the node's certificate is not a self-signed authority")]
    NotAuthority,
    /// The first certificate is not signed by the second one's key, or is itself an authority.
    #[error("the connection's certificate was not issued under the node's key")]
    NotIssued,
    /// Before the validity of either certificate.
    #[error("a certificate is not valid yet")]
    NotYetValid,
    /// After the validity of either certificate.
    #[error("a certificate has expired")]
    Expired,
    /// The extended key usage is missing or lacks this end of the connection.
    #[error("the certificate is not meant for this end of a connection")]
    Usage,
    /// Not exactly one name, or one that is not a [`Domain`]: a wildcard, an address, upper case, a dot at the end.
    #[error("the certificate must have exactly one name, a plain domain")]
    Name,
    /// Valid, but for another domain.
    #[error("the certificate is for another domain")]
    OtherDomain,
    /// Valid, but under another key than the pinned one.
    #[error("the node's key is not the pinned one")]
    OtherKey,
}

impl PeerCertificate {
    /// Whether the chain is under the key `pin`.
    ///
    /// # Errors
    /// [`PinError::OtherKey`] when it is under another one.
    pub fn check_pin(&self, pin: &[u8; 32]) -> Result<(), PinError> {
        if self.node_key == *pin { Ok(()) } else { Err(PinError::OtherKey) }
    }
}

/// Checks that `chain` is `[connection's certificate, node's certificate]` of one node, valid at `now` for this `usage`, and says
/// whose. With `domain`, it must be that node's. Nothing is looked up anywhere; the key is not compared with any pin.
///
/// # Errors
/// The first reason found not to accept it.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    usage: Usage,
    domain: Option<&Domain>,
    now: UnixTime,
) -> Result<PeerCertificate, PinError> {
    let [leaf_der, authority_der] = chain else { return Err(PinError::ChainLength) };
    let (leaf, authority) = (read(leaf_der)?, read(authority_der)?);
    let node_key = authority_key(&authority, now)?;
    ed25519_key(leaf.public_key())?;
    check_issued(leaf_der, authority_der, usage, now)?;
    let found = only_name(&leaf)?;
    if domain.is_some_and(|expected| *expected != found) {
        return Err(PinError::OtherDomain);
    }
    let last =
        leaf.validity().not_after.timestamp().min(authority.validity().not_after.timestamp());
    let last = u64::try_from(last).map_err(|_| PinError::Expired)?;
    // The whole last second is valid.
    let not_after = Timestamp::from_ms(last.saturating_mul(1000)).after(Duration::from_millis(999));
    Ok(PeerCertificate { domain: found, node_key, not_after })
}

fn read<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PinError> {
    if der.len() > CERTIFICATE_BYTES {
        return Err(PinError::Unreadable);
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(PinError::Unreadable),
    }
}

fn ed25519_key(key: &SubjectPublicKeyInfo<'_>) -> Result<[u8; 32], PinError> {
    if key.algorithm.algorithm != OID_SIG_ED25519 {
        return Err(PinError::Algorithm);
    }
    key.subject_public_key.data.as_ref().try_into().map_err(|_| PinError::Algorithm)
}

/// webpki takes a trust anchor as already checked, so the node's certificate is checked here. Its signature under itself proves
/// nothing about who holds the key; it keeps anybody from dressing a key up with other flags and dates.
fn authority_key(authority: &X509Certificate<'_>, now: UnixTime) -> Result<[u8; 32], PinError> {
    let key = ed25519_key(authority.public_key())?;
    if authority.signature_algorithm.algorithm != OID_SIG_ED25519 {
        return Err(PinError::Algorithm);
    }
    let constraints = authority.basic_constraints().map_err(|_| PinError::Unreadable)?;
    let may_sign = match authority.key_usage().map_err(|_| PinError::Unreadable)? {
        Some(usage) => usage.value.key_cert_sign(),
        None => true,
    };
    if !constraints.is_some_and(|c| c.value.ca)
        || !may_sign
        || authority.issuer() != authority.subject()
        || authority.verify_signature(None).is_err()
    {
        return Err(PinError::NotAuthority);
    }
    let now = i64::try_from(now.as_secs()).map_err(|_| PinError::Expired)?;
    if now < authority.validity().not_before.timestamp() {
        return Err(PinError::NotYetValid);
    }
    if now > authority.validity().not_after.timestamp() {
        return Err(PinError::Expired);
    }
    Ok(key)
}

/// Signature, validity, usage and basic constraints of the connection's certificate, as RFC 5280 section 6 has them.
fn check_issued(
    leaf: &CertificateDer<'_>,
    authority: &CertificateDer<'_>,
    usage: Usage,
    now: UnixTime,
) -> Result<(), PinError> {
    let anchor = [anchor_from_trusted_cert(authority).map_err(|_| PinError::Unreadable)?];
    let leaf = EndEntityCert::try_from(leaf).map_err(|_| PinError::Unreadable)?;
    // `required`: webpki's own `client_auth` would accept a certificate that names no usage at all.
    let usage = KeyUsage::required(match usage {
        Usage::Server => SERVER_AUTH,
        Usage::Client => CLIENT_AUTH,
    });
    match leaf.verify_for_usage(&[ED25519], &anchor, &[], now, usage, None, None) {
        Ok(_) => Ok(()),
        Err(webpki::Error::CertNotValidYet { .. }) => Err(PinError::NotYetValid),
        Err(webpki::Error::CertExpired { .. }) => Err(PinError::Expired),
        Err(webpki::Error::RequiredEkuNotFoundContext(_)) => Err(PinError::Usage),
        Err(_) => Err(PinError::NotIssued),
    }
}

/// The certificate's one name. A second one, of whatever kind, is refused, so that nobody has to choose between them.
fn only_name(leaf: &X509Certificate<'_>) -> Result<Domain, PinError> {
    let names = leaf.subject_alternative_name().map_err(|_| PinError::Name)?;
    let names = names.map(|n| n.value.general_names.as_slice()).unwrap_or_default();
    let [GeneralName::DNSName(name)] = names else { return Err(PinError::Name) };
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err(PinError::Name);
    }
    Domain::parse(name).map_err(|_| PinError::Name)
}
