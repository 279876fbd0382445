//! Requests as wrong as they can be: a refusal with a code each time, and nothing changes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use crypto::keypackage::Use;
use http::{Method, StatusCode};
use http_body_util::Full;
use protocol::api::{self, LogRef, Payload, Submit};
use protocol::{Code, RoomId, SubmitId, limit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Device, TestNode, program, refused, tls};

const POSTS: &[&str] = &[
    "/v1/register",
    "/v1/login",
    "/v1/devices/revoke",
    "/v1/keypackages",
    "/v1/keymaterial",
    "/v1/rooms",
    "/v1/groupinfo",
    "/v1/submit",
    "/v1/read",
    "/v1/ack",
    "/v1/link",
    "/v1/link/take",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_truncated_and_oversized_bodies_are_refused_on_every_route() {
    let node = TestNode::with(
        "a.example",
        "\n[limits]\nsign_ins_per_minute = 10000\nsubmits_per_second = 10000\n",
    )
    .await;
    let ana = node.person("ana").await;
    let token = Some(ana.device.token.as_str());
    let mut http = node.http().await;
    let submit = Submit {
        submit_id: SubmitId::from_bytes([1; 16]),
        room: RoomId::parse("mimi://a.example/r/x").unwrap(),
        payload: Payload::Application(vec![0; 40]),
    };
    let whole = api::encode(&submit);
    for path in POSTS {
        let mut bad: Vec<Vec<u8>> =
            vec![Vec::new(), b"{}".to_vec(), vec![0xff; 64], vec![0x9f; 4096]];
        bad.push([&whole[..], &[0]].concat());
        bad.extend((0..whole.len()).step_by(7).map(|cut| whole[..cut].to_vec()));
        // A list that claims to be longer than the memory of the machine.
        bad.push(vec![0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        for body in bad {
            let reply = http.post_bytes(path, token, body.clone()).await;
            assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{path} {body:02x?}");
            assert_eq!(reply.refusal().code, Code::Malformed, "{path}");
        }
        // One that only announces too much is refused before a byte of it is read.
        let announced = limit::BUNDLE_BYTES + 64 * 1024;
        let mut stream = tls(node.address, &node.domain, node.info.node_key, "http/1.1").await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a.example\r\nauthorization: Bearer {}\r\ncontent-length: {announced}\r\n\r\n",
            ana.device.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 413", "{path}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_an_unread_body_arrives_over_http_2() {
    use http_body_util::BodyExt as _;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let node = TestNode::start("a.example").await;
    let stream = tls(node.address, &node.domain, node.info.node_key, "h2").await;
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    for (path, status, code) in [
        ("/v1/login", StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge),
        ("/v1/submit", StatusCode::UNAUTHORIZED, Code::Unauthenticated),
        ("/v1/nothing", StatusCode::NOT_FOUND, Code::UnknownEndpoint),
    ] {
        let request = http::Request::post(format!("https://a.example{path}"))
            .body(Full::new(Bytes::from(vec![0; 1_500_000])))
            .unwrap();
        let reply = sender.send_request(request).await.unwrap();
        assert_eq!(reply.status(), status, "{path}");
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(body.to_string().contains(code.as_str()), "{path}: {body}");
    }
    drop(sender);
    connection.abort();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_routes_and_methods_are_refused_with_a_code() {
    let node = TestNode::start("a.example").await;
    let mut http = node.http().await;
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/v2/node"),
        (Method::POST, "/v1/node"),
        (Method::DELETE, "/v1/devices"),
        (Method::PUT, "/v1/submit"),
        (Method::GET, "/v1/submit"),
        (Method::POST, "/.well-known/mimi-protocol-directory"),
    ] {
        let request = http.request(method, path, None).body(Full::<Bytes>::default()).unwrap();
        let reply = http.raw(request).await;
        assert_eq!(
            (reply.status, reply.refusal().code),
            (StatusCode::NOT_FOUND, Code::UnknownEndpoint),
            "{path}"
        );
    }
    assert!(http.get("/healthz/live", None).await.status.is_success());
    assert!(http.get("/healthz/ready", None).await.status.is_success());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_without_a_good_token_gets_anything() {
    let node = TestNode::start("a.example").await;
    let ana = node.person("ana").await;
    let good = ana.device.token.clone();
    let tokens: Vec<Option<String>> = vec![
        None,
        Some(String::new()),
        Some("x".repeat(43)),
        Some("x".repeat(10_000)),
        Some(good[..42].to_owned()),
        Some(format!("{good}A")),
        Some(good.to_lowercase()),
        // What a thief of the database has.
        Some(URL_SAFE_NO_PAD.encode(crypto::token::hash(&good))),
    ];
    let open = ["/v1/register", "/v1/login", "/v1/link/take"];
    let mut http = node.http().await;
    let mut first: Option<Bytes> = None;
    for token in &tokens {
        for path in POSTS.iter().filter(|p| !open.contains(p)) {
            let reply = http.post_bytes(path, token.as_deref(), Vec::new()).await;
            assert_eq!(
                (reply.status, reply.refusal().code),
                (StatusCode::UNAUTHORIZED, Code::Unauthenticated),
                "{path}"
            );
            assert_eq!(
                *first.get_or_insert(reply.body.clone()),
                reply.body,
                "the same answer to all"
            );
        }
        for path in ["/v1/devices", "/v1/rooms", "/v1/stream"] {
            assert_eq!(
                http.get(path, token.as_deref()).await.status,
                StatusCode::UNAUTHORIZED,
                "{path}"
            );
        }
    }
    // In the wrong scheme or place it is worth nothing.
    let request = http.request(Method::GET, &format!("/v1/devices?token={good}"), None);
    let request =
        request.header("authorization", format!("Basic {good}")).body(Full::default()).unwrap();
    assert_eq!(http.raw(request).await.status, StatusCode::UNAUTHORIZED);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_endpoints_are_closed_to_devices_and_strangers() {
    let node = TestNode::start("a.example").await;
    let ana = node.person("ana").await;
    let mut http = node.http().await;
    let room = "mimi%3A%2F%2Fa.example%2Fr%2Fx";
    for path in ["keyMaterial", "update", "submitMessage", "notify", "groupInfo", "x/backfill"] {
        let reply =
            http.post_bytes(&format!("/v1/{path}/{room}"), Some(&ana.device.token), vec![1]).await;
        assert_eq!(
            (reply.status, reply.refusal().code),
            (StatusCode::FORBIDDEN, Code::PeerCertificate),
            "{path}"
        );
    }
    let reply = http.post_bytes("/v1/pair", None, b"{}".to_vec()).await;
    assert!(matches!(reply.refusal().code, Code::Malformed | Code::PeerCertificate));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_drips_is_cut_off_and_others_are_served() {
    let limits = "\n[limits]\nhandshake_ms = 300\nheader_ms = 300\nbody_ms = 300\n";
    let node = TestNode::with("a.example", limits).await;
    let began = tokio::time::Instant::now();
    // No handshake, no header, half a body.
    let mut silent = tokio::net::TcpStream::connect(node.address).await.unwrap();
    let mut no_request = tls(node.address, &node.domain, node.info.node_key, "http/1.1").await;
    let mut no_preface = tls(node.address, &node.domain, node.info.node_key, "h2").await;
    let mut half_header = tls(node.address, &node.domain, node.info.node_key, "http/1.1").await;
    half_header.write_all(b"POST /v1/login HTTP/1.1\r\nhost: a").await.unwrap();
    let mut half_body = tls(node.address, &node.domain, node.info.node_key, "http/1.1").await;
    half_body
        .write_all(b"POST /v1/login HTTP/1.1\r\nhost: a.example\r\ncontent-length: 9\r\n\r\n1")
        .await
        .unwrap();
    let mut end = Vec::new();
    // An error is an end as well.
    drop(silent.read_to_end(&mut end).await);
    drop(no_request.read_to_end(&mut end).await);
    drop(no_preface.read_to_end(&mut end).await);
    drop(half_header.read_to_end(&mut end).await);
    let mut answer = [0; 16];
    half_body.read_exact(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&answer));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(node.http().await.get("/healthz/live", None).await.status.is_success());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooder_is_told_to_wait_and_a_polite_person_is_not() {
    let node = TestNode::with("a.example", "\n[limits]\nsubmits_per_second = 5\n").await;
    let (ana, bo) = (node.person("ana").await, node.person("bo").await);
    let mut room = ana.device.found().await;
    let mut refusal = None;
    for n in 0..40 {
        if let Err(r) = ana.device.say(&mut room, &n.to_string()).await {
            refusal = Some(r);
            break;
        }
    }
    let refusal = refusal.expect("the flood is stopped");
    assert_eq!(refusal.code, Code::RateLimited);
    assert!(refusal.retry_after_ms.is_some_and(|ms| ms > 0));
    let log = LogRef::Inbox;
    assert!(bo.device.read(log, node.info.incarnation, 0).await.is_ok());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_packages_of_others_and_wrong_ones_are_refused() {
    let node = TestNode::start("a.example").await;
    let (ana, bo) = (node.person("ana").await, node.person("bo").await);
    let now = protocol::Clock::now(&node::clock::SystemClock);
    let make = |device: &crate::support::Device, what| {
        crypto::keypackage::make(
            crypto::Suite::Classic,
            &device.identity,
            what,
            now,
            &node::clock::SystemEntropy,
        )
        .unwrap()
        .public
    };
    let ask = |packages: Vec<Vec<u8>>, last: Vec<Vec<u8>>| api::UploadKeyPackages {
        packages: packages.into_iter().map(Into::into).collect(),
        last_resort: last.into_iter().map(Into::into).collect(),
    };
    let mine = make(&ana.device, Use::Once);
    let cases = [
        (ask(vec![make(&bo.device, Use::Once)], vec![]), Code::BadKeyPackage),
        (ask(vec![b"junk".to_vec()], vec![]), Code::BadKeyPackage),
        (ask(vec![mine.clone(), b"junk".to_vec()], vec![]), Code::BadKeyPackage),
        (ask(vec![], vec![mine.clone()]), Code::BadKeyPackage),
        (ask(vec![make(&ana.device, Use::LastResort)], vec![]), Code::BadKeyPackage),
        (ask(vec![mine.clone(); 101], vec![]), Code::TooLarge),
    ];
    for (ask, code) in cases {
        let refusal = ana.device.post("/v1/keypackages", &ask).await.refusal();
        assert!(refusal.code == code || refusal.code == Code::Malformed, "{refusal}");
    }
    let count: api::KeyPackageCount =
        ana.device.post("/v1/keypackages", &ask(vec![mine.clone()], vec![])).await.cbor();
    assert_eq!(count.left, [(1, 1)]);
    let count: api::KeyPackageCount =
        ana.device.post("/v1/keypackages", &ask(vec![mine], vec![])).await.cbor();
    assert_eq!(count.left, [(1, 1)], "the same package counts once");
    // Nobody outside the room gets a package for it.
    let room = ana.device.found().await;
    let reply = bo.device.claim(&room, &ana.user()).await;
    assert_eq!(reply.refusal().code, Code::NotFound);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_time_packages_are_handed_out_once_and_then_the_last_resort() {
    let node = TestNode::start("a.example").await;
    let (ana, mut bo) = (node.person("ana").await, node.person("bo").await);
    bo.device.upload(2).await;
    let room = ana.device.found().await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let reply = ana.device.claim(&room, &bo.user()).await;
        let material = protocol::mimi::KeyMaterialResponse::decode(&reply.body).unwrap();
        let protocol::mimi::ClientOutcome::Success(package) = &material.clients[0].outcome else {
            panic!()
        };
        seen.push(package.as_slice().to_vec());
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(seen[2], seen[3], "the last resort");
    assert!(!seen[..2].contains(&seen[2]));
    assert!(bo.device.inbox().await.iter().any(|i| matches!(i, api::InboxItem::KeyPackagesLow(_))));
    // Somebody who does not exist looks like somebody without packages.
    let nobody = protocol::UserId::parse("mimi://a.example/u/nobody").unwrap();
    let eve = node.person("eve").await;
    let (a, b) =
        (ana.device.claim(&room, &nobody).await, ana.device.claim(&room, &eve.user()).await);
    let status = |r: &crate::support::Reply| {
        protocol::mimi::KeyMaterialResponse::decode(&r.body).unwrap().status
    };
    assert_eq!(status(&a), status(&b));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_say_what_is_wrong_and_exit_with_the_right_code() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("node.toml");
    let missing = program(&config, &["config", "check"], &[]).await;
    assert_eq!(missing.status.code(), Some(78));
    let bad = program(&config, &["init", "--domain", "NOT A DOMAIN"], &[]).await;
    assert_eq!(bad.status.code(), Some(78));
    let data = folder.path().join("data").display().to_string();
    crate::support::run(&config, &["init", "--domain", "a.example", "--data-dir", &data], &[])
        .await;
    let again =
        program(&config, &["init", "--domain", "a.example", "--data-dir", &data], &[]).await;
    assert_eq!(again.status.code(), Some(1));
    let wrong = program(
        &config,
        &["-o", "json", "config", "check"],
        &[("WAXWING_NODE_LIMITS__CONECTIONS", "1")],
    )
    .await;
    assert_eq!(wrong.status.code(), Some(78));
    let said: serde_json::Value = serde_json::from_slice(&wrong.stderr).unwrap();
    assert!(said["error"]["hint"].as_str().unwrap().contains("limits.connections"), "{said}");
    let text = String::from_utf8(program(&config, &["peer", "add", "nonsense"], &[]).await.stderr)
        .unwrap();
    assert!(text.starts_with("error[LINE]:") && text.lines().count() == 4, "{text}");
    let usage = program(&config, &["no-such-command"], &[]).await;
    assert_eq!(usage.status.code(), Some(2));
    let status = program(&config, &["-o", "json", "status"], &[]).await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((status["domain"].as_str(), status["rooms"].as_u64()), (Some("a.example"), Some(0)));
    for key in ["data/node.key", "data/hub.key"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tampered_bundle_changes_nothing() {
    let node = TestNode::start("a.example").await;
    let ana = node.person("ana").await;
    let mut room = ana.device.found().await;
    let renew = crypto::group::Change { renew: true, ..Default::default() };
    let now = protocol::Clock::now(&node::clock::SystemClock);
    let bundle = room.commit(&renew, now, &node::clock::SystemEntropy).unwrap();
    let mut unsigned = bundle.signature.clone();
    unsigned[0] ^= 1;
    refused(
        ana.device
            .submit(&Device::handshake(room.room(), bundle.update_request.clone(), unsigned))
            .await,
        Code::InvalidCommit,
    );
    for at in (0..bundle.update_request.len()).step_by(37) {
        let mut bytes = bundle.update_request.clone();
        bytes[at] ^= 0x10;
        let submit = Device::handshake(room.room(), bytes, bundle.signature.clone());
        assert!(ana.device.submit(&submit).await.is_err(), "byte {at}");
    }
    let good = Device::handshake(room.room(), bundle.update_request, bundle.signature);
    ana.device.submit(&good).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_what_is_new_and_nothing_else() {
    let node = TestNode::in_files("a.example").await;
    let ana = node.person("ana").await;
    let mut room = ana.device.found().await;
    ana.device.say(&mut room, "before").await.unwrap();
    let text = std::fs::read_to_string(node.config()).unwrap();
    let folder = node.stop().await;
    // More than any disk has free.
    let full = text.replace("low_water_mib = 256", "low_water_mib = 1000000000");
    std::fs::write(folder.path().join("node.toml"), full).unwrap();
    let node = TestNode::resume(folder, "a.example", "").await;
    *ana.device.http.lock().await = node.http().await;
    let mut refusal = None;
    for _ in 0..50 {
        match ana.device.say(&mut room, "more").await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(r) => {
                refusal = Some(r);
                break;
            }
        }
    }
    let refusal = refusal.expect("the disk watch looked");
    assert_eq!(refusal.code, Code::DiskFull);
    assert!(refusal.retry_after_ms.is_some());
    let reply = ana.device.post("/v1/submit", &Device::message(&mut room, "more")).await;
    assert_eq!(reply.status, StatusCode::INSUFFICIENT_STORAGE);
    assert!(reply.headers.contains_key("retry-after"), "whoever is sent away is told for how long");
    let mut http = node.http().await;
    assert_eq!(http.get("/healthz/ready", None).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let log = LogRef::Room(room.room().clone());
    let entries = ana.device.read(log.clone(), node.info.incarnation, 0).await.unwrap();
    assert!(!entries.entries.is_empty(), "what is held is still delivered");
    let cursor =
        protocol::Cursor { incarnation: node.info.incarnation, seq: entries.entries[0].seq };
    assert!(ana.device.post("/v1/ack", &api::Ack { log, cursor }).await.status.is_success());
    node.stop().await;
}
