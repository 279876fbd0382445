//! Registering, signing in, revoking, linking.

use crypto::IdentityKey;
use http::StatusCode;
use node::clock::SystemEntropy;
use protocol::api::{Devices, LinkOffer, Login, OfferLink, Register, Revoke, SignedIn, TakeLink};
use protocol::{Code, UserId};

use crate::support::{Draft, TestNode, program};

fn register(invite: &str, user: &UserId, identity: &IdentityKey, draft: &Draft) -> Register {
    Register {
        invite: invite.into(),
        user: user.clone(),
        password: "correct horse".into(),
        identity_key: *identity.public().as_bytes(),
        device_name: "laptop".into(),
        certificate: draft.identity.certificate().as_bytes().to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_works_once_and_a_repetition_gives_the_same_device() {
    let node = TestNode::start("a.example").await;
    let mut http = node.http().await;
    let (identity, ana) =
        (IdentityKey::generate(&SystemEntropy), UserId::new(&node.domain, "ana").unwrap());
    let (draft, invite) = (Draft::new(&identity, &ana), node.invite().await);
    let ask = register(&invite, &ana, &identity, &draft);

    let wrong = Register { invite: "A".repeat(43), ..ask.clone() };
    assert_eq!(http.post("/v1/register", None, &wrong).await.refusal().code, Code::BadInvite);
    let first: SignedIn = http.post("/v1/register", None, &ask).await.cbor();
    let again: SignedIn = http.post("/v1/register", None, &ask).await.cbor();
    assert_eq!(first.device, again.device, "the answer was lost, the request came again");
    assert_eq!(
        http.get("/v1/devices", Some(&first.token)).await.status,
        StatusCode::UNAUTHORIZED,
        "one token a device"
    );
    assert!(http.get("/v1/devices", Some(&again.token)).await.status.is_success());

    let bo = UserId::new(&node.domain, "bo").unwrap();
    let other = IdentityKey::generate(&SystemEntropy);
    let used = register(&invite, &bo, &other, &Draft::new(&other, &bo));
    assert_eq!(http.post("/v1/register", None, &used).await.refusal().code, Code::BadInvite);
    let taken = register(&node.invite().await, &ana, &other, &Draft::new(&other, &ana));
    assert_eq!(http.post("/v1/register", None, &taken).await.refusal().code, Code::NameTaken);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_the_rules_is_refused_with_the_reason() {
    let node = TestNode::start("a.example").await;
    let mut http = node.http().await;
    let identity = IdentityKey::generate(&SystemEntropy);
    let ana = UserId::new(&node.domain, "ana").unwrap();
    let invite = node.invite().await;
    let draft = Draft::new(&identity, &ana);
    let good = register(&invite, &ana, &identity, &draft);
    let elsewhere = UserId::parse("mimi://b.example/u/ana").unwrap();
    let shouting = UserId::new(&node.domain, "ANA").unwrap();
    let stranger = IdentityKey::generate(&SystemEntropy);
    let cases = [
        (Register { password: "short".into(), ..good.clone() }, Code::Invalid),
        (Register { device_name: "x".repeat(65), ..good.clone() }, Code::Invalid),
        (Register { device_name: "bell\u{7}".into(), ..good.clone() }, Code::Invalid),
        (
            register(&invite, &elsewhere, &identity, &Draft::new(&identity, &elsewhere)),
            Code::Invalid,
        ),
        (register(&invite, &shouting, &identity, &Draft::new(&identity, &shouting)), Code::Invalid),
        (Register { certificate: vec![1, 2, 3], ..good.clone() }, Code::BadCertificate),
        (
            Register { identity_key: *stranger.public().as_bytes(), ..good.clone() },
            Code::BadCertificate,
        ),
        (
            Register { user: UserId::new(&node.domain, "bo").unwrap(), ..good.clone() },
            Code::BadCertificate,
        ),
    ];
    for (ask, code) in cases {
        assert_eq!(http.post("/v1/register", None, &ask).await.refusal().code, code, "{ask:?}");
    }
    assert!(
        http.post("/v1/register", None, &good).await.status.is_success(),
        "nothing used the invitation up"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_further_device_needs_the_password_and_the_identity() {
    let node = TestNode::start("a.example").await;
    let ana = node.person("ana").await;
    let mut http = node.http().await;
    let draft = Draft::new(&ana.identity, &ana.user());
    let certificate = draft.identity.certificate().as_bytes().to_vec();
    let good = Login {
        user: ana.user(),
        password: "correct horse".into(),
        device_name: "phone".into(),
        certificate,
    };

    let wrong = Login { password: "incorrect horse".into(), ..good.clone() };
    let unknown = UserId::new(&node.domain, "nobody").unwrap();
    let nobody = Draft::new(&ana.identity, &unknown).identity.certificate().as_bytes().to_vec();
    let nobody = Login { user: unknown, certificate: nobody, ..good.clone() };
    let (a, b) =
        (http.post("/v1/login", None, &wrong).await, http.post("/v1/login", None, &nobody).await);
    assert_eq!(
        (a.status, &a.body),
        (b.status, &b.body),
        "a name that exists looks like one that does not"
    );
    assert_eq!(a.refusal().code, Code::WrongPassword);
    let foreign = Draft::new(&IdentityKey::generate(&SystemEntropy), &ana.user());
    let foreign =
        Login { certificate: foreign.identity.certificate().as_bytes().to_vec(), ..good.clone() };
    assert_eq!(http.post("/v1/login", None, &foreign).await.refusal().code, Code::BadCertificate);

    let signed_in: SignedIn = http.post("/v1/login", None, &good).await.cbor();
    let devices: Devices = ana.device.get("/v1/devices").await.cbor();
    assert_eq!(devices.devices.len(), 2);
    assert_eq!(devices.devices[1].device, signed_in.device);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_device_is_out_at_once_and_never_comes_back() {
    let node = TestNode::start("a.example").await;
    let (ana, bo) = (node.person("ana").await, node.person("bo").await);
    let mut http = node.http().await;
    let draft = Draft::new(&ana.identity, &ana.user());
    let certificate = draft.identity.certificate().as_bytes().to_vec();
    let login = Login {
        user: ana.user(),
        password: "correct horse".into(),
        device_name: String::new(),
        certificate,
    };
    let phone: SignedIn = http.post("/v1/login", None, &login).await.cbor();

    let revoke = Revoke { device: phone.device.clone() };
    let foreign = bo.device.post("/v1/devices/revoke", &revoke).await;
    let absent = Revoke { device: protocol::DeviceId::new(&bo.user(), "none").unwrap() };
    let absent = bo.device.post("/v1/devices/revoke", &absent).await;
    assert_eq!(
        (foreign.status, &foreign.body),
        (absent.status, &absent.body),
        "not yours looks like not there"
    );
    assert_eq!(foreign.refusal().code, Code::NotFound);

    assert!(http.get("/v1/devices", Some(&phone.token)).await.status.is_success());
    assert!(ana.device.post("/v1/devices/revoke", &revoke).await.status.is_success());
    assert_eq!(
        http.get("/v1/devices", Some(&phone.token)).await.refusal().code,
        Code::Unauthenticated
    );
    assert_eq!(http.post("/v1/login", None, &login).await.refusal().code, Code::BadCertificate);
    assert!(
        ana.device.post("/v1/devices/revoke", &revoke).await.status.is_success(),
        "revoking again is no error"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linking_offer_is_handed_out_to_whoever_knows_its_secret_id() {
    let node = TestNode::start("a.example").await;
    let ana = node.person("ana").await;
    let offer = OfferLink { id: [7; 32], sealed: vec![1, 2, 3] };
    assert!(ana.device.post("/v1/link", &offer).await.status.is_success());
    let mut http = node.http().await;
    let wrong = http.post("/v1/link/take", None, &TakeLink { id: [8; 32] }).await;
    let right: LinkOffer = http.post("/v1/link/take", None, &TakeLink { id: [7; 32] }).await.cbor();
    assert_eq!(right.sealed, offer.sealed);
    let again: LinkOffer = http.post("/v1/link/take", None, &TakeLink { id: [7; 32] }).await.cbor();
    assert_eq!(again.sealed, offer.sealed, "the first answer may have got lost");
    assert_eq!(wrong.refusal().code, Code::NotFound);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_from_a_backup_begins_a_new_life_and_any_other_goes_on() {
    let node = TestNode::in_files("a.example").await;
    let old = node.info.incarnation;
    let running = program(&node.config(), &["restored"], &[]).await;
    assert!(!running.status.success(), "not while it runs");
    let folder = node.stop().await;
    let database = folder.path().join("data/node.db");
    let backup = std::fs::read(&database).unwrap();
    let node = TestNode::resume(folder, "a.example", "").await;
    assert_eq!(node.info.incarnation, old);
    let folder = node.stop().await;
    for rest in ["node.db-wal", "node.db-shm"] {
        let _absent = std::fs::remove_file(folder.path().join("data").join(rest));
    }
    std::fs::write(&database, backup).unwrap();
    let node = TestNode::resume(folder, "a.example", "").await;
    let new = node.info.incarnation;
    assert_ne!(new, old);
    let folder = node.stop().await;
    let node = TestNode::resume(folder, "a.example", "").await;
    assert_eq!(node.info.incarnation, new, "once");
    node.stop().await;
}
