//! What a request to a peer meets: answers, silence, floods, strangers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use federation::client::{Batch, Notified, Timeouts};
use federation::headers::{
    self, BundleSignature, FanoutRange, MemberChange, MemberEffect, MemberEffects,
};

use federation::pairing::{self, Offer, PairAnswer, PairRequest, Paired};
use federation::tls::{self, NodeIdentity};
use federation::verify::Claim;
use federation::{Client, Outcome, Peer, PinError, Reach, Stage, Why, directory, endpoint};
use protocol::invite::{Line, LineKind};
use protocol::log::Chain;
use protocol::mimi::{
    BackfillRequest, SubmitMessageResponse, SubmitOutcome, UpdateOutcome, UpdateRoomResponse,
};
use protocol::{Clock, Code, DeviceId, Incarnation, Refusal, RoomId, Seq, UserId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{
    Answer, DAY, NOW, SHORT, Seen, Server, TestClock, client, domain, identity, node_key, ready,
    refuse, row,
};

fn room() -> RoomId {
    RoomId::parse("mimi://b.example/r/x").unwrap()
}

fn now(answer: http::Response<http_body_util::Full<Bytes>>) -> Answer {
    Box::pin(async move { answer })
}

/// Serves the directory, and everything else by `rest`.
fn with_directory(
    rest: impl Fn(Seen) -> Answer + Send + Sync + 'static,
) -> impl Fn(Seen) -> Answer + Send + Sync + 'static {
    move |seen| {
        if seen.parts.uri.path() == endpoint::DIRECTORY {
            let ours = directory::ours("https://b.example", node_key(2).public().as_bytes());
            return now(ready(200, serde_json::to_vec(&ours).unwrap()));
        }
        rest(seen)
    }
}

fn accepted() -> Vec<u8> {
    SubmitMessageResponse { outcome: SubmitOutcome::Accepted { at: NOW, frank: None } }.encode()
}

struct World {
    clock: Arc<TestClock>,
    a: Arc<NodeIdentity>,
    b: Arc<NodeIdentity>,
    client: Client,
}

impl World {
    fn new(timeouts: Timeouts) -> Self {
        let clock = TestClock::new();
        let a = identity("a.example", 1);
        let client = client(&a, &clock, timeouts);
        Self { clock, client, a, b: identity("b.example", 2) }
    }

    async fn serve(&self, handler: impl Fn(Seen) -> Answer + Send + Sync + 'static) -> Server {
        Server::of(&self.b, &self.clock, handler).await
    }

    async fn submit(&self, peer: &Peer) -> Outcome<SubmitMessageResponse> {
        self.client.submit_message(peer, &room(), Bytes::from_static(b"x")).await
    }
}

fn why<T: std::fmt::Debug>(outcome: Outcome<T>) -> Why {
    match outcome {
        Outcome::Retry { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

fn batch() -> Batch {
    let device = DeviceId::parse("mimi://b.example/d/bo/1").unwrap();
    let effect = MemberEffect { change: MemberChange::Joined, device, at: Seq::new(7) };
    Batch {
        range: FanoutRange {
            incarnation: Incarnation::from_bytes([3; 16]),
            first: Seq::new(7),
            n: 1,
            prev_chain: Chain::from_bytes([4; 32]),
        },
        members: MemberEffects::new(vec![effect]).unwrap(),
        body: Bytes::from_static(b"an entry"),
    }
}

#[tokio::test]
async fn a_request_arrives_with_its_headers_and_a_proven_caller() {
    let w = World::new(Timeouts::default());
    let pin = *w.a.node_key();
    let server = w
        .serve(with_directory(move |seen| {
            let claim = Claim::of(seen.certificate.as_ref(), &seen.parts.headers, NOW).unwrap();
            let caller = claim.confirm(Some(&pin)).unwrap();
            assert_eq!(caller.domain().as_str(), "a.example");
            assert_eq!(seen.parts.version, http::Version::HTTP_2);
            assert_eq!(seen.parts.method, http::Method::POST);
            assert_eq!(
                seen.parts.uri.host(),
                Some("b.example"),
                "the target is named by its domain, wherever it is dialled"
            );
            assert_eq!(seen.parts.headers["content-type"], "application/octet-stream");
            let path = seen.parts.uri.path();
            assert!(path.ends_with("mimi%3A%2F%2Fb.example%2Fr%2Fx"), "{path}");
            if path.starts_with(endpoint::UPDATE) {
                assert_eq!(
                    BundleSignature::read(&seen.parts.headers).unwrap().as_bytes(),
                    &[9; 64]
                );
                let outcome = UpdateOutcome::Success(NOW);
                now(ready(200, UpdateRoomResponse { outcome, detail: String::new() }.encode()))
            } else if path.starts_with(endpoint::NOTIFY) {
                assert_eq!(FanoutRange::read(&seen.parts.headers).unwrap(), batch().range);
                let b = domain("b.example");
                assert_eq!(MemberEffects::read(&seen.parts.headers, &b).unwrap(), batch().members);
                assert_eq!(seen.body, batch().body);
                let mut answer = ready(201, "");
                headers::write_head(answer.headers_mut(), Seq::new(7));
                now(answer)
            } else {
                assert!(path.starts_with(endpoint::SUBMIT_MESSAGE), "{path}");
                now(ready(200, accepted()))
            }
        }))
        .await;
    let peer = server.row(&w.b);
    let done = w.submit(&peer).await;
    assert_eq!(done, Outcome::Done(SubmitMessageResponse::decode(&accepted()).unwrap()));
    let updated = w
        .client
        .update(&peer, &room(), Bytes::from_static(b"u"), &BundleSignature::from_bytes([9; 64]))
        .await;
    assert!(matches!(
        updated,
        Outcome::Done(UpdateRoomResponse { outcome: UpdateOutcome::Success(NOW), .. })
    ));
    let notified = w.client.notify(&peer, &room(), &batch()).await;
    assert_eq!(notified, Outcome::Done(Notified::Stored(Some(Seq::new(7)))));
    assert_eq!(server.connections(), 1, "one connection carries them all");
}

#[tokio::test]
async fn a_commit_that_adds_as_many_devices_as_one_may_is_told_in_one_header() {
    let w = World::new(Timeouts::default());
    let device = |n: u64| {
        DeviceId::parse(&format!("mimi://b.example/d/{}-{n}/{n:016x}", "x".repeat(120))).unwrap()
    };
    let effect =
        |n| MemberEffect { change: MemberChange::Joined, device: device(n), at: Seq::new(n + 1) };
    let many =
        Batch { members: MemberEffects::new((0..256).map(effect).collect()).unwrap(), ..batch() };
    let expected = many.members.clone();
    let server = w
        .serve(with_directory(move |seen| {
            assert_eq!(
                MemberEffects::read(&seen.parts.headers, &domain("b.example")).unwrap(),
                expected
            );
            now(ready(201, ""))
        }))
        .await;
    let notified = w.client.notify(&server.row(&w.b), &room(), &many).await;
    assert_eq!(notified, Outcome::Done(Notified::Stored(None)));
}

#[tokio::test]
async fn a_long_body_arrives_whole_both_ways() {
    let w = World::new(Timeouts::default());
    let long = Bytes::from(vec![7; 5 * 1024 * 1024]);
    let sent = long.clone();
    let server = w
        .serve(with_directory(move |seen| {
            assert_eq!(seen.body, sent);
            now(ready(422, seen.body))
        }))
        .await;
    let refused = w.client.submit_message(&server.row(&w.b), &room(), long).await;
    assert!(matches!(refused, Outcome::Refused(r) if r.code == Code::Invalid));
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let w = World::new(Timeouts::default());
    let server = w.serve(with_directory(|_| now(ready(200, accepted())))).await;
    let peer = server.row(&w.b);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (client, peer) = (w.client.clone(), peer.clone());
        requests.spawn(async move { client.submit_message(&peer, &room(), Bytes::new()).await });
    }
    for outcome in requests.join_all().await {
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }
    assert_eq!(server.connections(), 1);
    let other = w
        .client
        .submit_message(&Peer { host: "127.0.0.2".into(), ..peer.clone() }, &room(), Bytes::new())
        .await;
    assert!(matches!(why(other), Why::Unreachable(_)), "another row is another connection");
    w.client.forget(&peer.domain);
    assert!(matches!(w.submit(&peer).await, Outcome::Done(_)));
    assert_eq!(server.connections(), 2);
    w.client.renew(identity("a.example", 1));
    assert!(matches!(w.submit(&peer).await, Outcome::Done(_)));
    assert_eq!(server.connections(), 3, "the new certificate is shown on a new connection");
}

#[tokio::test]
async fn a_peer_without_http2_is_served_too() {
    let w = World::new(Timeouts::default());
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(&w.clock);
    let mut config = Arc::unwrap_or_clone(tls::server_config(&w.b, clock).unwrap());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let server = Server::start(
        Arc::new(config),
        with_directory(|seen| {
            assert_eq!(seen.parts.version, http::Version::HTTP_11);
            assert!(seen.parts.headers["host"].to_str().unwrap().starts_with("b.example:"));
            now(ready(200, accepted()))
        }),
    )
    .await;
    assert!(matches!(w.submit(&server.row(&w.b)).await, Outcome::Done(_)));
}

#[tokio::test]
async fn a_peer_that_restarted_is_reached_again() {
    let w = World::new(Timeouts::default());
    let server = w.serve(with_directory(|_| now(ready(200, accepted())))).await;
    let address = server.address;
    assert!(matches!(w.submit(&server.row(&w.b)).await, Outcome::Done(_)));
    drop(server);
    let peer = row(&w.b, address);
    // The kept connection was cut, or the new one is refused.
    assert!(matches!(why(w.submit(&peer).await), Why::Unreachable(_) | Why::Lost(_)));
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(&w.clock);
    let config = tls::server_config(&w.b, clock).unwrap();
    let restarted =
        Server::at(address, config, with_directory(|_| now(ready(200, accepted())))).await;
    assert!(matches!(w.submit(&peer).await, Outcome::Done(_)));
    assert_eq!(restarted.connections(), 1);
}

#[tokio::test]
async fn a_stranger_at_the_address_gets_nothing() {
    let w = World::new(SHORT);
    let server = w.serve(|_| panic!("a request came")).await;
    let peer = server.row(&w.b);
    let repinned = Peer { node_key: [7; 32], ..peer.clone() };
    assert_eq!(why(w.submit(&repinned).await), Why::Certificate(PinError::OtherKey));
    let renamed = Peer { domain: domain("c.example"), ..peer.clone() };
    assert_eq!(why(w.submit(&renamed).await), Why::Certificate(PinError::OtherDomain));
    assert!(why(w.submit(&renamed).await).alarming());
    let ourselves = Peer { domain: domain("a.example"), ..peer.clone() };
    assert!(matches!(why(w.submit(&ourselves).await), Why::Forbidden(_)));
    let inside = Peer { reach: Reach::Public, ..peer };
    let connections = server.connections();
    assert!(matches!(why(w.submit(&inside).await), Why::Forbidden(_)));
    assert_eq!(server.connections(), connections, "not even dialled");
    w.clock.pass(91 * DAY);
    let later = server.row(&w.b);
    assert_eq!(why(w.submit(&later).await), Why::Certificate(PinError::Expired));
}

#[tokio::test]
async fn an_older_tls_is_not_spoken() {
    let w = World::new(SHORT);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (b, key) = crate::forge::issue(&domain("b.example"), 2, NOW);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(crate::forge::Always::new(&crate::forge::Shown::honest(&b, &key)));
    let server = Server::start(Arc::new(config), |_| panic!("a request came")).await;
    assert!(matches!(why(w.submit(&server.row(&w.b)).await), Why::Tls(_)));
}

#[tokio::test]
async fn our_node_does_not_answer_an_older_tls_either() {
    let w = World::new(SHORT);
    let server = w.serve(|_| panic!("a request came")).await;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("b.example").unwrap();
    let connected = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let error = connected.map(drop).unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn silence_is_waited_for_only_so_long() {
    let brief = Timeouts {
        handshake: Duration::from_millis(200),
        answer: Duration::from_millis(300),
        ..SHORT
    };
    let w = World::new(brief);
    // Accepts and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = row(&w.b, listener.local_addr().unwrap());
    let started = tokio::time::Instant::now();
    assert_eq!(why(w.submit(&mute).await), Why::Timeout(Stage::Handshake));
    // Many that wait for the same peer wait together, not one after the other.
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, peer) = (w.client.clone(), mute.clone());
        requests.spawn(async move { client.submit_message(&peer, &room(), Bytes::new()).await });
    }
    for outcome in requests.join_all().await {
        assert_eq!(why(outcome), Why::Timeout(Stage::Handshake));
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // Shakes hands, takes the request, never answers.
    let stuck = w.serve(with_directory(|_| Box::pin(std::future::pending()))).await;
    assert_eq!(why(w.submit(&stuck.row(&w.b)).await), Why::Timeout(Stage::Answer));
    let again = w.submit(&stuck.row(&w.b)).await;
    assert_eq!(why(again), Why::Timeout(Stage::Answer));
    assert_eq!(stuck.connections(), 2, "a connection that does not answer is not used again");
    // Nobody listens.
    drop(listener);
    assert!(matches!(why(w.submit(&mute).await), Why::Unreachable(_)));
    let nowhere = Peer { host: "no-such-host.invalid".into(), ..mute };
    assert!(matches!(
        why(w.submit(&nowhere).await),
        Why::Unreachable(_) | Why::Timeout(Stage::Connecting)
    ));
}

#[tokio::test]
async fn an_answer_that_drips_or_floods_is_cut_off() {
    let brief = Timeouts { answer: Duration::from_millis(500), ..SHORT };
    let w = World::new(brief);
    let flood = w.serve(with_directory(|_| now(ready(200, vec![0; 17 * 1024 * 1024])))).await;
    let started = why(w.submit(&flood.row(&w.b)).await);
    assert!(matches!(started, Why::Answer(_) | Why::Timeout(Stage::Answer)), "{started:?}");
    let directory = w.serve(|_| now(ready(200, vec![b' '; 65 * 1024]))).await;
    assert!(matches!(why(w.submit(&directory.row(&w.b)).await), Why::Answer(_)));
    // One byte at a time over HTTP/1.1, for ever.
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(&w.clock);
    let mut config = Arc::unwrap_or_clone(tls::server_config(&w.b, clock).unwrap());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let drip = row(&w.b, listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream =
            tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        let mut buffer = [0; 4096];
        let _read = stream.read(&mut buffer).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await.unwrap();
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while stream.write_all(b" ").await.is_ok() && stream.flush().await.is_ok() {
            tick.tick().await;
        }
    });
    assert_eq!(why(w.submit(&drip).await), Why::Timeout(Stage::Answer));
    task.abort();
}

#[tokio::test]
async fn what_is_not_an_answer_is_not_taken_for_one() {
    let w = World::new(SHORT);
    for (status, body) in [
        (200, Bytes::from_static(b"nonsense")),
        (200, Bytes::new()),
        (200, Bytes::from([accepted(), vec![0]].concat())),
        (302, Bytes::new()),
        (100, Bytes::new()),
    ] {
        let shown = body.clone();
        let status = if status == 100 { 204 } else { status };
        let server = w.serve(with_directory(move |_| now(ready(status, shown.clone())))).await;
        let got = why(w.submit(&server.row(&w.b)).await);
        assert!(matches!(got, Why::Answer(_)), "{status} {body:?}: {got:?}");
    }
}

#[tokio::test]
async fn nobody_is_followed_to_where_a_redirect_points() {
    let w = World::new(SHORT);
    let hits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hits);
    let target = Server::of(&w.b, &w.clock, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        now(ready(200, accepted()))
    })
    .await;
    let location = format!("https://b.example:{}/", target.address.port());
    let server = w
        .serve(with_directory(move |_| {
            let mut answer = ready(307, "");
            answer.headers_mut().insert("location", location.parse().unwrap());
            now(answer)
        }))
        .await;
    assert!(matches!(why(w.submit(&server.row(&w.b)).await), Why::Answer(_)));
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_refusal_is_for_good_or_for_now() {
    let w = World::new(SHORT);
    let cases = [
        (422, Refusal::new(Code::InvalidCommit), "refused"),
        (503, Refusal::new(Code::QueueFull).retry_after_ms(2500), "busy"),
        (403, Refusal::new(Code::UnknownPeer), "estranged"),
    ];
    for (status, refusal, expected) in cases {
        let said = refusal.clone();
        let server = w.serve(with_directory(move |_| now(refuse(status, &said)))).await;
        match (w.submit(&server.row(&w.b)).await, expected) {
            (Outcome::Refused(r), "refused") => assert_eq!(r, refusal),
            (Outcome::Retry { why: Why::Busy(r), retry_after }, "busy") => {
                assert_eq!(r, refusal);
                assert_eq!(retry_after, Some(Duration::from_millis(2500)));
            }
            (Outcome::Retry { why, .. }, "estranged") => {
                assert!(why.alarming());
                assert_eq!(why, Why::Estranged(refusal));
            }
            (other, _) => panic!("{expected}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_follower_that_misses_entries_says_where_to_go_on() {
    let w = World::new(SHORT);
    let server = w
        .serve(with_directory(|_| {
            let mut answer = refuse(409, &Refusal::new(Code::SeqGap));
            headers::write_head(answer.headers_mut(), Seq::new(3));
            now(answer)
        }))
        .await;
    let notified = w.client.notify(&server.row(&w.b), &room(), &batch()).await;
    assert_eq!(notified, Outcome::Done(Notified::Behind(Some(Seq::new(3)))));
}

#[tokio::test]
async fn a_directory_is_fetched_once_and_again_when_it_is_old_or_wrong() {
    let w = World::new(SHORT);
    let fetched = Arc::new(AtomicUsize::new(0));
    let moved = Arc::new(AtomicUsize::new(0));
    let (count, place) = (Arc::clone(&fetched), Arc::clone(&moved));
    let server = w
        .serve(move |seen| {
            let base = format!("https://b.example/m{}", place.load(Ordering::SeqCst));
            if seen.parts.uri.path() == endpoint::DIRECTORY {
                count.fetch_add(1, Ordering::SeqCst);
                let mut answer =
                    ready(200, serde_json::to_vec(&directory::ours(&base, &[0; 32])).unwrap());
                answer.headers_mut().insert("cache-control", "max-age=600".parse().unwrap());
                return now(answer);
            }
            let here = base.strip_prefix("https://b.example").unwrap();
            now(if seen.parts.uri.path().starts_with(here) {
                ready(200, accepted())
            } else {
                ready(404, "")
            })
        })
        .await;
    let peer = server.row(&w.b);
    for _ in 0..3 {
        assert!(matches!(w.submit(&peer).await, Outcome::Done(_)));
    }
    assert_eq!(fetched.load(Ordering::SeqCst), 1, "kept");
    w.clock.pass(Duration::from_secs(601));
    assert!(matches!(w.submit(&peer).await, Outcome::Done(_)));
    assert_eq!(fetched.load(Ordering::SeqCst), 2, "too old");
    moved.store(1, Ordering::SeqCst);
    assert!(matches!(w.submit(&peer).await, Outcome::Done(_)), "found again at its new place");
    assert_eq!(fetched.load(Ordering::SeqCst), 3);
    let listed = w.client.directory(&peer).await;
    assert!(matches!(listed, Outcome::Done(d) if d.notify.starts_with("https://b.example/m1/")));
}

#[tokio::test]
async fn a_gap_is_filled_with_what_was_asked_for_and_nothing_else() {
    let w = World::new(SHORT);
    let n = Arc::new(AtomicUsize::new(0));
    let answers = Arc::clone(&n);
    let server = w
        .serve(with_directory(move |seen| {
            let ask = BackfillRequest::decode(&seen.body).unwrap();
            assert_eq!(ask, BackfillRequest { after: Seq::new(4), max: 10 });
            let first = if answers.load(Ordering::SeqCst) == 0 { 5 } else { 4 };
            let mut answer = ready(200, "");
            let range = FanoutRange { first: Seq::new(first), n: 0, ..batch().range };
            range.write(answer.headers_mut());
            now(answer)
        }))
        .await;
    let peer = server.row(&w.b);
    let ask = BackfillRequest { after: Seq::new(4), max: 10 };
    match w.client.backfill(&peer, &room(), ask).await {
        Outcome::Done(batch) => assert_eq!((batch.range.first, batch.range.n), (Seq::new(5), 0)),
        other => panic!("{other:?}"),
    }
    n.store(1, Ordering::SeqCst);
    assert!(matches!(why(w.client.backfill(&peer, &room(), ask).await), Why::Answer(_)));
}

/// Node A's side of pairing, with one line out.
fn pairing_node(
    a: Arc<NodeIdentity>,
    secret: [u8; 32],
    pinned: Arc<std::sync::Mutex<Option<Peer>>>,
) -> impl Fn(Seen) -> Answer + Send + Sync + 'static {
    move |seen| {
        assert_eq!(seen.parts.uri.path(), endpoint::PAIR);
        let result =
            Claim::of(seen.certificate.as_ref(), &seen.parts.headers, NOW).and_then(|claim| {
                let request = PairRequest::decode(&seen.body)?;
                let mut row = pinned.lock().unwrap();
                let known = request.offer_key()? == protocol::log::Digest::of_bytes(&secret);
                let used_by = row.as_ref().map(|p| p.domain.clone());
                let offer = Offer { expires: NOW.after(DAY), used_by };
                let pinned = row.as_ref().map(|p| p.node_key);
                let offer = known.then_some(&offer);
                match pairing::accept(a.domain(), &claim, &request, offer, pinned.as_ref(), NOW)? {
                    Paired::New(peer) => *row = Some(peer),
                    Paired::Again => {}
                }
                PairAnswer::new(a.domain(), a.node_key(), &claim, &request)
            });
        now(match result {
            Ok(answer) => ready(200, answer.encode()),
            Err(refusal) => refuse(403, &refusal),
        })
    }
}

#[tokio::test]
async fn two_nodes_become_peers_with_one_line_and_a_lost_answer_does_not_matter() {
    let w = World::new(SHORT);
    let pinned = Arc::default();
    // Here b.example made the line, and a.example pastes it.
    let server = w.serve(pairing_node(Arc::clone(&w.b), [5; 32], Arc::clone(&pinned))).await;
    let line = Line {
        kind: LineKind::Peer,
        domain: domain("b.example"),
        host: "127.0.0.1".into(),
        port: server.address.port(),
        node_key: *w.b.node_key(),
        secret: [5; 32],
    };
    let us = domain("a.example");
    let wrong = Line { secret: [6; 32], ..line.clone() };
    let request = PairRequest::new(&wrong, &us, "a.example", 8443).unwrap();
    assert!(
        matches!(w.client.pair(&wrong, &request).await, Outcome::Refused(r) if r.code == Code::BadInvite)
    );
    let request = PairRequest::new(&line, &us, "a.example", 8443).unwrap();
    let before = pinned.lock().unwrap().clone();
    assert_eq!(before, None);
    for _ in 0..2 {
        let answer = w.client.pair(&line, &request).await;
        assert!(matches!(answer, Outcome::Done(_)), "{answer:?}");
    }
    let peer = pinned.lock().unwrap().clone().unwrap();
    assert_eq!((peer.domain, peer.node_key), (us, *w.a.node_key()));
    assert_eq!((peer.host.as_str(), peer.port, peer.reach), ("a.example", 8443, Reach::Public));
    assert_eq!(pairing::peer_of_line(&line).reach, Reach::Anywhere);
    // Somebody else with the same line.
    let thief = client(&identity("c.example", 3), &w.clock, SHORT);
    let request = PairRequest::new(&line, &domain("c.example"), "c.example", 8443).unwrap();
    assert!(
        matches!(thief.pair(&line, &request).await, Outcome::Refused(r) if r.code == Code::BadInvite)
    );
    // A line whose key is not the node's.
    let forged = Line { node_key: [1; 32], ..line };
    assert_eq!(why(thief.pair(&forged, &request).await), Why::Certificate(PinError::OtherKey));
}

#[tokio::test]
async fn an_answer_that_proves_nothing_pairs_nobody() {
    let w = World::new(SHORT);
    let line = |port| Line {
        kind: LineKind::Peer,
        domain: domain("b.example"),
        host: "127.0.0.1".into(),
        port,
        node_key: *w.b.node_key(),
        secret: [5; 32],
    };
    for body in [r#"{"domain":"b.example","proof":"AAAA"}"#, r#"{"domain":"b.example"}"#, "", "[]"]
    {
        let server = w.serve(move |_| now(ready(200, body))).await;
        let line = line(server.address.port());
        let request = PairRequest::new(&line, &domain("a.example"), "a.example", 8443).unwrap();
        match w.client.pair(&line, &request).await {
            Outcome::Refused(r) => assert_eq!(r.code, Code::BadInvite),
            Outcome::Retry { why: Why::Answer(_), .. } => {}
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn nothing_of_a_key_request_is_lost_on_the_way() {
    let w = World::new(SHORT);
    let server = w
        .serve(with_directory(|seen| {
            assert!(seen.parts.uri.path().ends_with("keyMaterial/mimi%3A%2F%2Fb.example%2Fu%2Fbo"));
            assert_eq!(seen.body, "signed by a device");
            now(ready(200, ""))
        }))
        .await;
    let bo = UserId::parse("mimi://b.example/u/bo").unwrap();
    let got = w
        .client
        .key_material(&server.row(&w.b), &bo, Bytes::from_static(b"signed by a device"))
        .await;
    assert!(matches!(why(got), Why::Answer(_)), "an empty answer is none");
}
