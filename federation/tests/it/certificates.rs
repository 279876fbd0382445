//! Which certificates a node takes from whoever connects, and from whomever it dials: one table each, over real TLS.

use std::sync::Arc;

use federation::verify::Claim;
use federation::{PinError, Usage, headers, tls, verify_chain};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use protocol::{Clock, Code, Timestamp};
use rcgen::{
    ExtendedKeyUsagePurpose as Eku, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PKCS_RSA_SHA256, SanType,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::forge::{
    Always, Shown, authority, chain, date, der, dns, issue, leaf, node_pair, raw_dns,
};
use crate::support::{DAY, NOW, TestClock, domain, identity, node_key};

/// How a node receives a connection and the first request on it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Received {
    /// The handshake fails for this reason.
    Chain(PinError),
    /// The handshake fails: the connection's key does not match its certificate.
    Handshake,
    /// The request is refused.
    Refused(Code),
    /// The request is served.
    Served,
}

use Received::{Chain, Handshake, Refused, Served};

/// The seed of b.example's node key, which a.example has pinned.
const B: u8 = 2;

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

struct Forge {
    key: KeyPair,
    node: KeyPair,
}

type Params = rcgen::CertificateParams;

impl Forge {
    fn new() -> Self {
        Self { key: KeyPair::generate_for(&PKCS_ED25519).unwrap(), node: node_pair(B) }
    }

    fn shown(&self, chain: Vec<CertificateDer<'static>>) -> Shown {
        Shown { chain, key: self.key.serialize_der() }
    }

    /// b.example's certificates, but for one change to the first.
    fn leaf(&self, change: impl FnOnce(&mut Params)) -> Shown {
        let mut params = leaf(vec![dns("b.example")]);
        change(&mut params);
        self.shown(chain(&params, &self.key, &authority(), &self.node))
    }

    /// b.example's certificates, but for one change to the second.
    fn authority(&self, change: impl FnOnce(&mut Params)) -> Shown {
        let mut params = authority();
        change(&mut params);
        self.shown(chain(&leaf(vec![dns("b.example")]), &self.key, &params, &self.node))
    }

    fn names(&self, names: Vec<SanType>) -> Shown {
        self.leaf(|p| p.subject_alt_names = names)
    }

    fn raw_name(&self, bytes: &[u8]) -> Shown {
        self.leaf(|p| {
            p.subject_alt_names.clear();
            p.custom_extensions = vec![raw_dns(bytes)];
        })
    }

    fn under(&self, node: &KeyPair) -> Shown {
        self.shown(chain(&leaf(vec![dns("b.example")]), &self.key, &authority(), node))
    }

    /// Both certificates, to be bent.
    fn pair(&self) -> [CertificateDer<'static>; 2] {
        chain(&leaf(vec![dns("b.example")]), &self.key, &authority(), &self.node)
            .try_into()
            .unwrap()
    }

    /// A connection key of another kind. rustls will not sign with it, so the node sees no certificate at all.
    fn weak(&self, key: &KeyPair) -> Shown {
        let chain = chain(&leaf(vec![dns("b.example")]), key, &authority(), &self.node);
        Shown { chain, key: key.serialize_der() }
    }
}

/// `(case, domain in From, what is shown, how it is received)`.
type Case = (&'static str, &'static str, Shown, Received);

fn chains(f: &Forge) -> Vec<Case> {
    let b = "b.example";
    let [leaf_der, root] = f.pair();
    let other = node_pair(9);
    let foreign = der(&authority().self_signed(&other).unwrap());
    let cross =
        der(&authority().signed_by(&f.node, &Issuer::from_params(&authority(), &other)).unwrap());
    let own = der(&leaf(vec![dns(b)]).self_signed(&f.key).unwrap());
    let (identity, key) = issue(&domain(b), B, NOW);
    let all =
        |list: &[&CertificateDer<'static>]| f.shown(list.iter().map(|c| (*c).clone()).collect());
    vec![
        ("none", b, all(&[]), Refused(Code::PeerCertificate)),
        ("ours", b, f.leaf(|_| {}), Served),
        ("issued by a node", b, Shown::honest(&identity, &key), Served),
        ("self-signed, alone", b, all(&[&own]), Chain(PinError::ChainLength)),
        ("self-signed, beside the node's", b, all(&[&own, &root]), Chain(PinError::NotIssued)),
        ("unknown authority: wrong pin", b, f.under(&other), Refused(Code::PeerCertificate)),
        (
            "signed by another key of the same name",
            b,
            all(&[&leaf_der, &foreign]),
            Chain(PinError::NotIssued),
        ),
        ("authority missing", b, all(&[&leaf_der]), Chain(PinError::ChainLength)),
        ("three certificates", b, all(&[&leaf_der, &root, &root]), Chain(PinError::ChainLength)),
        ("in the wrong order", b, all(&[&root, &leaf_der]), Chain(PinError::NotAuthority)),
        (
            "authority signed by another",
            b,
            all(&[&leaf_der, &cross]),
            Chain(PinError::NotAuthority),
        ),
    ]
}

fn bytes(f: &Forge) -> Vec<Case> {
    let b = "b.example";
    let [leaf_der, root] = f.pair();
    let bent = |change: fn(&mut Vec<u8>), which: usize| {
        let mut pair = [leaf_der.to_vec(), root.to_vec()];
        change(&mut pair[which]);
        f.shown(pair.map(CertificateDer::from).to_vec())
    };
    let flip = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    let large = rcgen::CustomExtension::from_oid_content(&[1, 2, 3], vec![0; 5000]);
    let stranger = KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_der();
    let stolen = Shown { chain: f.pair().to_vec(), key: stranger };
    vec![
        ("signature bent", b, bent(flip, 0), Chain(PinError::NotIssued)),
        ("authority's signature bent", b, bent(flip, 1), Chain(PinError::NotAuthority)),
        ("bytes after the end", b, bent(|d| d.push(0), 1), Chain(PinError::Unreadable)),
        ("cut off", b, bent(|d| d.truncate(100), 1), Chain(PinError::Unreadable)),
        ("not a certificate", b, bent(|d| *d = vec![1, 2, 3], 1), Chain(PinError::Unreadable)),
        (
            "much too large",
            b,
            f.leaf(|p| p.custom_extensions = vec![large]),
            Chain(PinError::Unreadable),
        ),
        ("somebody else's certificates", b, stolen, Handshake),
    ]
}

fn names(f: &Forge) -> Vec<Case> {
    let b = "b.example";
    let ip = || SanType::IpAddress([127, 0, 0, 1].into());
    let uri = SanType::URI("mimi://b.example".try_into().unwrap());
    let wrong = Chain(PinError::Name);
    vec![
        (
            "right key, wrong name",
            "c.example",
            f.names(vec![dns("c.example")]),
            Refused(Code::UnknownPeer),
        ),
        (
            "wrong name, From ours",
            b,
            f.names(vec![dns("c.example")]),
            Refused(Code::DomainMismatch),
        ),
        ("right name, From another", "c.example", f.leaf(|_| {}), Refused(Code::DomainMismatch)),
        // U+0432 looks like a b; its A-label is just another domain.
        (
            "look-alike",
            "xn--b1a.example",
            f.names(vec![dns("xn--b1a.example")]),
            Refused(Code::UnknownPeer),
        ),
        ("common name only", b, f.names(vec![]), wrong.clone()),
        ("wildcard", b, f.names(vec![dns("*.example")]), wrong.clone()),
        ("address", b, f.names(vec![ip()]), wrong.clone()),
        ("address as a name", b, f.names(vec![dns("127.0.0.1")]), wrong.clone()),
        ("two names, one right", b, f.names(vec![dns(b), dns("c.example")]), wrong.clone()),
        ("the same name twice", b, f.names(vec![dns(b), dns(b)]), wrong.clone()),
        ("a name and an address", b, f.names(vec![dns(b), ip()]), wrong.clone()),
        ("a URI", b, f.names(vec![uri]), wrong.clone()),
        ("upper case", b, f.names(vec![dns("B.example")]), wrong.clone()),
        ("dot at the end", b, f.names(vec![dns("b.example.")]), wrong.clone()),
        ("space", b, f.names(vec![dns("b.example ")]), wrong.clone()),
        ("empty", b, f.raw_name(b""), wrong.clone()),
        ("U-label", b, f.raw_name("b\u{e9}.example".as_bytes()), wrong.clone()),
        ("Latin-1", b, f.raw_name(b"b\xe9.example"), wrong.clone()),
        ("zero byte", b, f.raw_name(b"b.example\0.evil"), wrong.clone()),
        ("xn-- of plain letters", b, f.names(vec![dns("xn--b-.example")]), wrong),
    ]
}

fn rules(f: &Forge) -> Vec<Case> {
    let b = "b.example";
    let eku = |list: Vec<Eku>| f.leaf(|p| p.extended_key_usages = list);
    let mut unknown = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    unknown.set_criticality(true);
    let (before, after) = (date(NOW.before(SECOND)), date(NOW.after(SECOND)));
    vec![
        ("expired a second ago", b, f.leaf(|p| p.not_after = before), Chain(PinError::Expired)),
        ("in its last second", b, f.leaf(|p| p.not_after = date(NOW)), Served),
        ("valid in a second", b, f.leaf(|p| p.not_before = after), Chain(PinError::NotYetValid)),
        ("valid since now", b, f.leaf(|p| p.not_before = date(NOW)), Served),
        ("serverAuth only", b, eku(vec![Eku::ServerAuth]), Chain(PinError::Usage)),
        ("clientAuth only", b, eku(vec![Eku::ClientAuth]), Served),
        ("no extended key usage", b, eku(vec![]), Chain(PinError::Usage)),
        ("any extended key usage", b, eku(vec![Eku::Any]), Chain(PinError::Usage)),
        (
            "an authority itself",
            b,
            f.leaf(|p| p.is_ca = authority().is_ca),
            Chain(PinError::NotIssued),
        ),
        (
            "unknown critical extension",
            b,
            f.leaf(|p| p.custom_extensions = vec![unknown]),
            Chain(PinError::Unreadable),
        ),
    ]
}

fn authorities(f: &Forge) -> Vec<Case> {
    let b = "b.example";
    let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let (before, after) = (date(NOW.before(SECOND)), date(NOW.after(SECOND)));
    let signs = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let none = Chain(PinError::NotAuthority);
    vec![
        ("authority expired", b, f.authority(|p| p.not_after = before), Chain(PinError::Expired)),
        (
            "authority not valid yet",
            b,
            f.authority(|p| p.not_before = after),
            Chain(PinError::NotYetValid),
        ),
        (
            "authority without the CA flag",
            b,
            f.authority(|p| p.is_ca = IsCa::ExplicitNoCa),
            none.clone(),
        ),
        ("authority without constraints", b, f.authority(|p| p.is_ca = IsCa::NoCa), none.clone()),
        ("authority that may not issue", b, f.authority(|p| p.key_usages = signs), none),
        ("authority with a P-256 key", b, f.under(&p256), Chain(PinError::Algorithm)),
        ("authority with an RSA key", b, f.under(&rsa), Chain(PinError::Algorithm)),
        ("connection with a P-256 key", b, f.weak(&p256), Refused(Code::PeerCertificate)),
        ("connection with an RSA key", b, f.weak(&rsa), Refused(Code::PeerCertificate)),
    ]
}

/// a.example's listening end: it has b.example pinned under the key of [`B`] and nobody else.
async fn receive(listener: &TcpListener, acceptor: &TlsAcceptor) -> Received {
    let (stream, _) = listener.accept().await.unwrap();
    let stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(e) => return reason(&e),
    };
    let certificate = tls::peer_certificate(stream.get_ref().1.peer_certificates(), NOW).unwrap();
    let result = Arc::new(std::sync::Mutex::new(None));
    let out = Arc::clone(&result);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let pin = *node_key(B).public().as_bytes();
        let check = Claim::of(certificate.as_ref(), request.headers(), NOW).and_then(|claim| {
            let pinned = (claim.domain().as_str() == "b.example").then_some(&pin);
            claim.confirm(pinned)
        });
        *out.lock().unwrap() = Some(check.map_or_else(|refusal| Refused(refusal.code), |_| Served));
        async {
            Ok::<_, std::convert::Infallible>(hyper::Response::new(Full::new(bytes::Bytes::new())))
        }
    });
    drop(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
    let received = result.lock().unwrap().take();
    received.expect("a request came")
}

fn reason(error: &std::io::Error) -> Received {
    let tls =
        error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()).expect("an error of TLS");
    match tls {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            Chain(*other.0.downcast_ref::<PinError>().expect("our reason"))
        }
        rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature) => Handshake,
        other => panic!("{other:?}"),
    }
}

/// The other end: shows what it is told to and sends one request.
async fn send(address: std::net::SocketAddr, pin: [u8; 32], from: &str, shown: &Shown) {
    let clock: Arc<dyn Clock> = TestClock::new();
    let config = tls::client_config(None, pin, &domain("a.example"), clock).unwrap();
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if !shown.chain.is_empty() {
        config.client_auth_cert_resolver = Always::new(shown);
    }
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let Ok(stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await else {
        return;
    };
    let Ok((mut sender, connection)) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await
    else {
        return;
    };
    let mut request = hyper::Request::new(Empty::<bytes::Bytes>::new());
    headers::write_from(request.headers_mut(), &domain(from));
    request.headers_mut().insert(http::header::HOST, "a.example".parse().unwrap());
    let exchange = async move {
        if let Ok(response) = sender.send_request(request).await {
            drop(response.collect().await);
        }
    };
    let ((), connection) = tokio::join!(exchange, connection);
    drop(connection);
}

#[tokio::test]
async fn a_connection_is_received_as_its_certificates_deserve() {
    let clock: Arc<dyn Clock> = TestClock::new();
    let us = identity("a.example", 1);
    let acceptor = TlsAcceptor::from(tls::server_config(&us, clock).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let forge = Forge::new();
    let (names, rules) = (names(&forge), rules(&forge));
    let cases = [chains(&forge), bytes(&forge), names, rules, authorities(&forge)].concat();
    assert!(cases.len() >= 20);
    let mut wrong = Vec::new();
    for (case, from, shown, expected) in &cases {
        let sending = send(address, *us.node_key(), from, shown);
        let (received, ()) = tokio::join!(receive(&listener, &acceptor), sending);
        if received != *expected {
            wrong.push(format!("{case}: {received:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn keys_of_other_kinds_are_refused_even_without_a_handshake() {
    let forge = Forge::new();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_millis(NOW.ms()));
    for alg in [&PKCS_ECDSA_P256_SHA256, &PKCS_RSA_SHA256] {
        let shown = forge.weak(&KeyPair::generate_for(alg).unwrap());
        assert_eq!(verify_chain(&shown.chain, Usage::Client, None, now), Err(PinError::Algorithm));
    }
}

/// What the dialling end makes of a node that shows this.
async fn dialled(shown: &Shown, pin: [u8; 32]) -> Result<(), Received> {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_no_client_auth()
    .with_cert_resolver(Always::new(shown));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let clock: Arc<dyn Clock> = TestClock::new();
    let ours = tls::client_config(None, pin, &domain("b.example"), clock).unwrap();
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        drop(TlsAcceptor::from(Arc::new(config)).accept(stream).await);
    };
    let connecting =
        TlsConnector::from(ours).connect(ServerName::try_from("b.example").unwrap(), stream);
    let (connected, ()) = tokio::join!(connecting, accepting);
    connected.map(drop).map_err(|e| reason(&e))
}

#[tokio::test]
async fn a_node_that_is_not_the_pinned_one_is_not_talked_to() {
    let f = Forge::new();
    let pin = *node_key(B).public().as_bytes();
    let eku = |list: Vec<Eku>| f.leaf(|p| p.extended_key_usages = list);
    let [leaf_der, root_der] = f.pair();
    let cases = [
        ("right", f.leaf(|_| {}), Ok(())),
        ("clientAuth only", eku(vec![Eku::ClientAuth]), Err(Chain(PinError::Usage))),
        ("serverAuth only", eku(vec![Eku::ServerAuth]), Ok(())),
        ("no usage", eku(vec![]), Err(Chain(PinError::Usage))),
        ("wrong name", f.names(vec![dns("c.example")]), Err(Chain(PinError::OtherDomain))),
        ("name below ours", f.names(vec![dns("x.b.example")]), Err(Chain(PinError::OtherDomain))),
        ("wildcard", f.names(vec![dns("*.example")]), Err(Chain(PinError::Name))),
        ("changed key", f.under(&node_pair(9)), Err(Chain(PinError::OtherKey))),
        (
            "expired",
            f.leaf(|p| p.not_after = date(NOW.before(SECOND))),
            Err(Chain(PinError::Expired)),
        ),
        (
            "without its authority",
            f.shown(vec![leaf_der.clone()]),
            Err(Chain(PinError::ChainLength)),
        ),
        (
            "somebody else's certificates",
            Shown {
                chain: vec![leaf_der, root_der],
                key: KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_der(),
            },
            Err(Handshake),
        ),
    ];
    for (case, shown, expected) in cases {
        assert_eq!(dialled(&shown, pin).await, expected, "{case}");
    }
}

#[test]
fn a_node_renews_its_certificate_in_time_and_never_its_key() {
    let first = identity("b.example", B);
    let at = |days: u32| Timestamp::from_ms(NOW.ms()).after(days * DAY);
    assert!(!first.due(NOW) && !first.due(at(59)));
    assert!(first.due(at(61)) && first.due(at(91)) && first.due(at(1000)));
    assert!(first.due(NOW.before(10 * DAY)), "issued in the future: the clock was wrong");
    let (second, _) = issue(&domain("b.example"), B, at(61));
    assert_eq!(first.node_key(), second.node_key());
    assert_eq!(first.node_key(), node_key(B).public().as_bytes());
    assert_eq!(first.chain()[1], second.chain()[1], "the authority is the same, byte for byte");
    assert_ne!(first.chain()[0], second.chain()[0]);
    let unix =
        |at: Timestamp| UnixTime::since_unix_epoch(std::time::Duration::from_millis(at.ms()));
    let check =
        |at| verify_chain(first.chain(), Usage::Client, Some(&domain("b.example")), unix(at));
    assert_eq!(check(NOW.before(DAY)).map(|c| c.node_key), Ok(*first.node_key()), "slow clocks");
    assert_eq!(
        check(at(90)).unwrap().not_after,
        at(90).after(std::time::Duration::from_millis(999))
    );
    assert_eq!(check(at(91)), Err(PinError::Expired));
    // A domain that looks like an address could not be told from one.
    let entropy = crate::support::TestEntropy::default();
    let address = tls::NodeIdentity::issue(&domain("127.0.0.1"), &node_key(B), &entropy, NOW);
    assert!(matches!(address, Err(tls::Error::Domain(_))));
}
