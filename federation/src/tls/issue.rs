//! The node's own certificates.

use std::fmt;
use std::time::Duration;

use crypto::NodeKey;
use protocol::{Domain, Entropy, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData as _, SanType, SerialNumber,
    date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use super::Error;

/// How long a certificate of a connection is valid after it was issued.
const LIFETIME: Duration = Duration::from_hours(90 * 24);
/// How long before it was issued it is valid already: tolerates slow clocks.
const BACKDATE: Duration = Duration::from_hours(24);
/// With less than this left it is issued anew.
const RENEW: Duration = Duration::from_hours(30 * 24);

/// What a node shows on connections: a short-lived certificate and the authority of the node's key that issued it.
///
/// Only the node key is kept for good. The rest is made anew at each start and every two months; peers pin the node key and
/// notice nothing.
pub struct NodeIdentity {
    domain: Domain,
    node_key: [u8; 32],
    chain: [CertificateDer<'static>; 2],
    key: PrivatePkcs8KeyDer<'static>,
    not_after: Timestamp,
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeIdentity({}, …)", self.domain)
    }
}

impl NodeIdentity {
    /// Issues certificates for `domain` under the node's key. The key of the connection is made on the spot.
    ///
    /// # Errors
    /// When the domain looks like an address, or the library refuses.
    pub fn issue(
        domain: &Domain,
        node_key: &NodeKey,
        entropy: &dyn Entropy,
        now: Timestamp,
    ) -> Result<Self, Error> {
        if domain.as_str().parse::<std::net::Ipv4Addr>().is_ok() {
            return Err(Error::Domain(domain.clone()));
        }
        let node = key_pair(node_key)?;
        let authority = authority()?;
        let authority_der = authority.self_signed(&node)?;
        let key = key_pair(&NodeKey::from_bytes(&entropy.bytes32()))?;
        let not_after = now.after(LIFETIME);
        let mut params = leaf(domain, now)?;
        params.serial_number = Some(serial(entropy));
        let leaf_der = params.signed_by(&key, &Issuer::from_params(&authority, &node))?;
        let node_key =
            node.der_bytes().try_into().map_err(|_| rcgen::Error::UnsupportedSignatureAlgorithm)?;
        Ok(Self {
            domain: domain.clone(),
            node_key,
            chain: [leaf_der.der().clone(), authority_der.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            not_after,
        })
    }

    /// Whether it is time to issue anew: less than 30 days are left, or the clock was set to before it was issued.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> bool {
        self.not_after.since(now) < RENEW || self.not_after.since(now) > LIFETIME + BACKDATE
    }

    /// The node's name.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The node's public key: what others pin.
    #[must_use]
    pub fn node_key(&self) -> &[u8; 32] {
        &self.node_key
    }

    /// The certificates as they are shown: the connection's, then the node's.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>; 2] {
        &self.chain
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key().into()
    }
}

fn key_pair(key: &NodeKey) -> Result<KeyPair, rcgen::Error> {
    let der = key.to_pkcs8_der();
    let der = PrivatePkcs8KeyDer::from(der.as_slice());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)
}

/// A name for people who look at certificates; nothing reads it.
fn cosmetic(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

/// The authority's certificate depends on nothing but the key, so that every process of a node shows the same one.
fn authority() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = cosmetic("Waxwing node");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.serial_number = Some(SerialNumber::from(1_u64));
    Ok(params)
}

fn leaf(domain: &Domain, now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = cosmetic("Waxwing connection");
    params.subject_alt_names = vec![SanType::DnsName(domain.as_str().try_into()?)];
    params.not_before = date(now.before(BACKDATE))?;
    params.not_after = date(now.after(LIFETIME))?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn date(at: Timestamp) -> Result<OffsetDateTime, rcgen::Error> {
    let seconds = i64::try_from(at.ms() / 1000).map_err(|_| rcgen::Error::Time)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| rcgen::Error::Time)
}

fn serial(entropy: &dyn Entropy) -> SerialNumber {
    let mut bytes = entropy.bytes16();
    // Positive and without a leading zero (RFC 5280 section 4.1.2.2).
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    SerialNumber::from_slice(&bytes)
}
