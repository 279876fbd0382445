//! Certificates of every wrong kind.

use std::sync::Arc;

use federation::tls::NodeIdentity;
use protocol::{Domain, Timestamp};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose as Eku, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use crate::support::{DAY, NOW, TestEntropy, node_key};

/// What the end under test shows.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// PKCS #8.
    pub(crate) key: Vec<u8>,
}

impl Shown {
    pub(crate) fn honest(identity: &NodeIdentity, key: &KeyPair) -> Self {
        Self { chain: identity.chain().to_vec(), key: key.serialize_der() }
    }
}

/// Shows a chain, whatever the other end asks for.
#[derive(Debug)]
pub(crate) struct Always(Arc<CertifiedKey>);

impl Always {
    pub(crate) fn new(shown: &Shown) -> Arc<Self> {
        let key = PrivatePkcs8KeyDer::from(shown.key.clone()).into();
        let key = any_supported_type(&key).unwrap();
        Arc::new(Self(Arc::new(CertifiedKey::new(shown.chain.clone(), key))))
    }
}

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Always {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// The key pair of a node with this seed, as rcgen has it.
pub(crate) fn node_pair(seed: u8) -> KeyPair {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend(node_key(seed).to_bytes().as_slice());
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519).unwrap()
}

/// The identity of [`NodeIdentity::issue`] and the key of its connection.
pub(crate) fn issue(domain: &Domain, seed: u8, now: Timestamp) -> (NodeIdentity, KeyPair) {
    use protocol::Entropy as _;
    let identity =
        NodeIdentity::issue(domain, &node_key(seed), &TestEntropy::default(), now).unwrap();
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend(TestEntropy::default().bytes32());
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519);
    (identity, pair.unwrap())
}

pub(crate) fn date(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at.ms() / 1000).unwrap()).unwrap()
}

fn name(text: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, text);
    dn
}

/// An authority as a node has it.
pub(crate) fn authority() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = name("Waxwing node");
    params.not_before = date(NOW.before(10 * DAY));
    params.not_after = date(NOW.after(1000 * DAY));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// A connection's certificate for these names as a node has it.
pub(crate) fn leaf(names: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = name("b.example");
    params.subject_alt_names = names;
    params.not_before = date(NOW.before(DAY));
    params.not_after = date(NOW.after(90 * DAY));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
    params
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// A subject alternative name extension of one dNSName with these bytes, which rcgen would not write.
pub(crate) fn raw_dns(bytes: &[u8]) -> CustomExtension {
    let n = u8::try_from(bytes.len()).unwrap();
    let mut content = vec![0x30, n + 2, 0x82, n];
    content.extend(bytes);
    CustomExtension::from_oid_content(&[2, 5, 29, 17], content)
}

/// `leaf` under the authority that `issuer` makes of `node`, and that authority.
pub(crate) fn chain(
    leaf: &CertificateParams,
    key: &KeyPair,
    issuer: &CertificateParams,
    node: &KeyPair,
) -> Vec<CertificateDer<'static>> {
    let root = issuer.self_signed(node).unwrap();
    vec![der(&leaf.signed_by(key, &Issuer::from_params(issuer, node)).unwrap()), der(&root)]
}

pub(crate) fn der(certificate: &Certificate) -> CertificateDer<'static> {
    certificate.der().clone()
}
