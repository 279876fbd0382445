//! The bytes of every MIMI struct, frozen in `vectors/*.hex`, and what they mean. They were laid out field by field from
//! the draft and PROTOCOL §9.4, independently of this project's codec.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a helper of tests may fail the test")]

use std::path::Path;

use proptest::prelude::*;
use protocol::log::EntryKind;
use protocol::mimi::*;
use protocol::mls::Malformed;
use protocol::{DeviceId, Epoch, RoomId, Seq, Timestamp, UserId};

/// The bytes of `vectors/<name>.hex`: hexadecimal, with a comment behind `#` in each line.
fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(format!("{name}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let digits: String =
        text.lines().flat_map(|l| l.split('#').next().unwrap().trim().chars()).collect();
    assert!(digits.len().is_multiple_of(2), "{name}");
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
        .collect()
}

type Again = fn(&[u8]) -> Result<Vec<u8>, Malformed>;

macro_rules! again {
    ($name:ident) => {
        |bytes| $name::decode(bytes).map(|v| v.encode())
    };
}

/// Every struct, with what reads it and writes it again.
const ALL: [(&str, Again); 29] = [
    ("key_material_request", again!(KeyMaterialRequest)),
    ("key_material_response", again!(KeyMaterialResponse)),
    ("key_material_response_no_consent", again!(KeyMaterialResponse)),
    ("update_commit", again!(HandshakeBundle)),
    ("update_commit_without_welcome", again!(HandshakeBundle)),
    ("update_proposals", again!(HandshakeBundle)),
    ("update_response_success", again!(UpdateRoomResponse)),
    ("update_response_wrong_epoch", again!(UpdateRoomResponse)),
    ("update_response_not_allowed", again!(UpdateRoomResponse)),
    ("update_response_invalid_proposal", again!(UpdateRoomResponse)),
    ("submit_request", again!(SubmitMessageRequest)),
    ("submit_response_accepted", again!(SubmitMessageResponse)),
    ("submit_response_accepted_frank", again!(SubmitMessageResponse)),
    ("submit_response_not_allowed", again!(SubmitMessageResponse)),
    ("submit_response_epoch_too_old", again!(SubmitMessageResponse)),
    ("fanout_application", again!(FanoutMessage)),
    ("fanout_application_frank", again!(FanoutMessage)),
    ("fanout_welcome", again!(FanoutMessage)),
    ("fanout_proposal", again!(FanoutMessage)),
    ("fanout_commit", again!(FanoutMessage)),
    ("group_info_request", again!(GroupInfoRequest)),
    ("group_info_request_code", again!(GroupInfoRequest)),
    ("group_info_response", again!(GroupInfoResponse)),
    ("group_info_response_not_authorized", again!(GroupInfoResponse)),
    ("group_info_response_no_such_room", again!(GroupInfoResponse)),
    ("group_info_tbe", again!(GroupInfoRatchetTree)),
    ("backfill_request", again!(BackfillRequest)),
    ("mls_welcome", |bytes| WelcomeBytes::parse(bytes).map(WelcomeBytes::into_vec)),
    ("mls_tree", |bytes| TreeBytes::parse(bytes).map(TreeBytes::into_vec)),
];

#[test]
fn every_struct_is_read_and_written_back_and_nothing_shorter_or_longer_is() {
    for (name, again) in ALL {
        let bytes = golden(name);
        assert_eq!(again(&bytes).unwrap_or_else(|m| panic!("{name}: {m}")), bytes, "{name}");
        for cut in 0..bytes.len() {
            assert!(again(&bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        assert!(again(&[&bytes[..], &[0]].concat()).is_err(), "{name} with a byte more");
    }
}

fn user() -> UserId {
    UserId::parse("mimi://a.example/u/ana").unwrap()
}

fn target() -> UserId {
    UserId::parse("mimi://b.example/u/bo").unwrap()
}

fn room() -> RoomId {
    RoomId::parse("mimi://a.example/r/x").unwrap()
}

fn at(more: u64) -> Timestamp {
    Timestamp::from_ms(1_700_000_000_123 + more)
}

fn commit() -> CommitBytes {
    CommitBytes::parse(golden("mls_commit")).unwrap()
}

fn proposal() -> ProposalBytes {
    ProposalBytes::parse(golden("mls_proposal")).unwrap()
}

fn application() -> ApplicationBytes {
    ApplicationBytes::parse(golden("mls_application")).unwrap()
}

fn welcome() -> WelcomeBytes {
    WelcomeBytes::parse(golden("mls_welcome")).unwrap()
}

fn group_info() -> GroupInfoBytes {
    GroupInfoBytes::parse(golden("mls_group_info")).unwrap()
}

fn tree() -> RatchetTreeOption {
    RatchetTreeOption::Full(TreeBytes::parse(golden("mls_tree")).unwrap())
}

fn frank() -> Frank {
    Frank { server_frank: [0x1d; 32], suite: 1, signature: vec![0x1e; 64] }
}

#[test]
fn key_material_means_what_it_says() {
    let request = KeyMaterialRequest {
        requesting_user: user(),
        target_user: target(),
        room: room(),
        suites: vec![0x0001, 0x004f],
        required: RequiredCapabilities {
            extensions: vec![0x0006],
            proposals: vec![0x0008, 0x000a],
            credentials: vec![],
        },
        signature_key: vec![0x21; 32],
        credential: Credential::basic("certificate"),
        signature: vec![0x23; 64],
    };
    assert_eq!(request.encode(), golden("key_material_request"));
    assert_eq!(request.to_be_signed(), golden("key_material_request_tbs"));
    assert_eq!(request.credential.identity(), Some(&b"certificate"[..]));

    let client = |n: &str, outcome| ClientKeyMaterial {
        client: DeviceId::new(&target(), n).unwrap(),
        outcome,
    };
    let package = KeyPackageBytes::parse(golden("mls_key_package")).unwrap();
    let can = Capabilities {
        versions: vec![1],
        suites: vec![1],
        credentials: vec![1],
        ..Capabilities::default()
    };
    let response = KeyMaterialResponse {
        status: KeyMaterialUserCode::PartialSuccess,
        user: target(),
        clients: vec![
            client("1", ClientOutcome::Success(package)),
            client("2", ClientOutcome::Exhausted),
            client("3", ClientOutcome::NothingCompatible(Some(can))),
            client("4", ClientOutcome::NothingCompatible(None)),
        ],
    };
    assert_eq!(response.encode(), golden("key_material_response"));
    let mut refused = response.clone();
    refused.status = KeyMaterialUserCode::NoConsent;
    assert!(KeyMaterialResponse::decode(&refused.encode()).is_err(), "devices without consent");
    refused.clients.clear();
    assert_eq!(refused.encode(), golden("key_material_response_no_consent"));
    let mut foreign = response;
    foreign.user = user();
    assert!(KeyMaterialResponse::decode(&foreign.encode()).is_err(), "another user's devices");
}

#[test]
fn bundles_mean_what_they_say() {
    let tree_at_hub = RatchetTreeOption::DistributionService;
    let bundle = HandshakeBundle::Commit {
        commit: commit(),
        welcome: Some(welcome()),
        group_info: group_info(),
        tree: tree_at_hub,
    };
    assert_eq!(bundle.encode(), golden("update_commit"));
    let bundle = HandshakeBundle::Commit {
        commit: commit(),
        welcome: None,
        group_info: group_info(),
        tree: tree(),
    };
    assert_eq!(bundle.encode(), golden("update_commit_without_welcome"));
    let HandshakeBundle::Proposals { first, more } =
        HandshakeBundle::decode(&golden("update_proposals")).unwrap()
    else {
        panic!("proposals");
    };
    assert_eq!((first, more.len()), (proposal(), 1));
    assert_eq!(commit().view().epoch, Epoch::new(7));

    let response = |outcome, detail: &str| UpdateRoomResponse { outcome, detail: detail.into() };
    for (name, value) in [
        ("success", response(UpdateOutcome::Success(at(0)), "")),
        ("wrong_epoch", response(UpdateOutcome::WrongEpoch(Epoch::new(9)), "late")),
        ("not_allowed", response(UpdateOutcome::NotAllowed, "")),
        (
            "invalid_proposal",
            response(
                UpdateOutcome::InvalidProposal(vec![vec![0xaa; 32], vec![0xab; 32]]),
                "missing-pending",
            ),
        ),
    ] {
        assert_eq!(value.encode(), golden(&format!("update_response_{name}")), "{name}");
    }
    let long = response(UpdateOutcome::NotAllowed, &"ä".repeat(600));
    let cut = UpdateRoomResponse::decode(&long.encode()).unwrap();
    assert_eq!(cut.detail.len(), 1024);
}

#[test]
fn a_partial_group_info_and_other_unknown_forms_are_refused() {
    let bytes = golden("update_commit");
    let option = commit().as_slice().len() + 1 + welcome().as_slice().len();
    assert_eq!(bytes[option], 1);
    for (form, why) in [(0, "unknown"), (2, "partial"), (3, "unknown")] {
        let mut changed = bytes.clone();
        changed[option] = form;
        let refused = HandshakeBundle::decode(&changed).unwrap_err();
        assert!(refused.what().contains(why), "{refused}");
        assert_eq!(refused.at(), option);
    }
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() = 5;
    assert!(HandshakeBundle::decode(&changed).is_err(), "unknown place of the tree");
    assert!(HandshakeBundle::decode(&golden("mls_application")).is_err(), "application message");
    assert!(CommitBytes::parse(golden("mls_proposal")).is_err());
    assert!(ProposalBytes::parse(golden("mls_commit")).is_err());
    assert!(ApplicationBytes::parse(golden("mls_commit")).is_err());
    assert!(WelcomeBytes::from_message(&golden("mls_commit")).is_err());
}

#[test]
fn submissions_mean_what_they_say() {
    let request = SubmitMessageRequest { message: application(), sender: user() };
    assert_eq!(request.encode(), golden("submit_request"));
    for (name, outcome) in [
        ("accepted", SubmitOutcome::Accepted { at: at(0), frank: None }),
        ("accepted_frank", SubmitOutcome::Accepted { at: at(0), frank: Some(frank()) }),
        ("not_allowed", SubmitOutcome::NotAllowed),
        ("epoch_too_old", SubmitOutcome::EpochTooOld(Epoch::new(9))),
    ] {
        let response = SubmitMessageResponse { outcome };
        assert_eq!(response.encode(), golden(&format!("submit_response_{name}")), "{name}");
    }
}

#[test]
fn names_of_another_kind_are_refused() {
    for (name, from, to) in [
        ("submit_request", "/u/", "/r/"),
        ("key_material_request", "/r/x", "/u/x"),
        ("key_material_response", "/d/bo/1", "/u/bo/1"),
        ("group_info_response", "/r/x", "/g/x"),
    ] {
        let bytes = golden(name);
        let position = bytes.windows(from.len()).rposition(|w| w == from.as_bytes()).unwrap();
        let mut changed = bytes.clone();
        changed[position..position + to.len()].copy_from_slice(to.as_bytes());
        let again = ALL.iter().find(|(n, _)| *n == name).unwrap().1;
        assert!(again(&changed).unwrap_err().what().contains("not the name"), "{name}");
    }
}

#[test]
fn fanout_means_what_it_says_and_is_one_entry_per_mls_message() {
    let first = FanoutMessage {
        at: at(0),
        content: Fanout::Application { message: application(), frank: None },
    };
    let commit_message = FanoutMessage {
        at: at(1),
        content: Fanout::Commit {
            commit: commit(),
            external_proposals: vec![
                ProposalBytes::parse(golden("mls_proposal_external")).unwrap(),
            ],
        },
    };
    let welcome_message = FanoutMessage {
        at: at(2),
        content: Fanout::Welcome { welcome: (&welcome()).into(), tree: tree() },
    };
    assert_eq!(first.encode(), golden("fanout_application"));
    assert_eq!(commit_message.encode(), golden("fanout_commit"));
    assert_eq!(welcome_message.encode(), golden("fanout_welcome"));
    let batch = FanoutMessage::decode_batch(&golden("fanout_batch")).unwrap();
    assert_eq!(batch.len(), 4);
    assert_eq!(batch[..3], [first.clone(), commit_message.clone(), welcome_message.clone()]);
    assert_eq!(FanoutMessage::encode_batch(&batch), golden("fanout_batch"));

    let kinds = |m: &FanoutMessage| m.entries().iter().map(|(k, _)| *k).collect::<Vec<_>>();
    assert_eq!(kinds(&first), [EntryKind::Application]);
    assert_eq!(kinds(&commit_message), [EntryKind::Commit, EntryKind::Proposal]);
    assert_eq!(kinds(&batch[3]), [EntryKind::Proposal, EntryKind::Proposal]);
    let entries = welcome_message.entries();
    assert_eq!(entries[0].1, welcome().to_message());
    for message in [&first, &welcome_message] {
        let (kind, body) = message.entries()[0];
        assert_eq!(&FanoutMessage::from_entry(kind, message.at, body, tree()).unwrap(), message);
    }
    let (kind, body) = commit_message.entries()[1];
    let alone = FanoutMessage::from_entry(kind, at(1), body, tree()).unwrap();
    assert_eq!(alone.entries(), [(EntryKind::Proposal, body)]);
    assert!(FanoutMessage::from_entry(EntryKind::Commit, at(1), body, tree()).is_err());
    assert!(FanoutMessage::from_entry(EntryKind::Item, at(1), body, tree()).is_err());
}

#[test]
fn a_batch_is_bounded_and_never_empty() {
    let one = golden("fanout_application");
    assert!(FanoutMessage::decode_batch(&[]).is_err());
    assert_eq!(FanoutMessage::decode_batch(&one.repeat(64)).unwrap().len(), 64);
    let refused = FanoutMessage::decode_batch(&one.repeat(65)).unwrap_err();
    assert_eq!(refused.code(), protocol::Code::TooLarge);
    for package in ["mls_key_package", "mls_group_info"] {
        let header = if package == "mls_key_package" { [0, 1, 0, 5] } else { [0, 1, 0, 4] };
        let body = [&[0; 8][..], &header, &golden(package)].concat();
        assert!(FanoutMessage::decode_batch(&body).is_err(), "{package}");
    }
}

#[test]
fn group_info_means_what_it_says() {
    let mut request = GroupInfoRequest {
        suite: 1,
        signature_key: vec![0x21; 32],
        credential: Credential::basic("certificate"),
        hpke_key: vec![0x24; 32],
        joining_code: None,
        signature: vec![0x25; 64],
    };
    assert_eq!(request.encode(), golden("group_info_request"));
    assert_eq!(request.to_be_signed(), golden("group_info_request_tbs"));
    request.joining_code = Some(b"let me in".to_vec());
    assert_eq!(request.encode(), golden("group_info_request_code"));

    let sealed = SealedGroupInfo {
        suite: 1,
        hub: ExternalSender {
            signature_key: vec![0x26; 32],
            credential: Credential::basic("mimi://a.example"),
        },
        sealed: HpkeCiphertext { kem_output: vec![0x27; 32], ciphertext: vec![0x28; 100] },
        signature: vec![0x29; 64],
    };
    let tbs = GroupInfoResponse::to_be_signed(&room(), &sealed);
    assert_eq!(tbs, golden("group_info_response_tbs"));
    for (name, answer) in [
        ("", GroupInfoAnswer::Success(sealed)),
        ("_not_authorized", GroupInfoAnswer::NotAuthorized),
        ("_no_such_room", GroupInfoAnswer::NoSuchRoom),
    ] {
        let response = GroupInfoResponse { room: room(), answer };
        assert_eq!(response.encode(), golden(&format!("group_info_response{name}")), "{name}");
    }
    let inside = GroupInfoRatchetTree {
        group_info: group_info(),
        tree: tree(),
        pending: vec![PendingProposal {
            proposal: proposal(),
            at: Timestamp::from_ms(1_700_000_000_122),
        }],
    };
    assert_eq!(inside.encode(), golden("group_info_tbe"));
    let backfill = BackfillRequest { after: Seq::new(41), max: 64 };
    assert_eq!(backfill.encode(), golden("backfill_request"));
}

#[test]
fn every_limit_refuses_with_its_own_code() {
    let too_large = |r: Result<Vec<u8>, Malformed>| {
        assert_eq!(r.unwrap_err().code(), protocol::Code::TooLarge);
    };
    let big = vec![0; 17 * 1024 * 1024];
    for (name, again) in ALL {
        if name.starts_with("mls") || name.starts_with("backfill") {
            continue;
        }
        too_large(again(&big));
    }
    let HandshakeBundle::Proposals { first, .. } =
        HandshakeBundle::decode(&golden("update_proposals")).unwrap()
    else {
        panic!("proposals");
    };
    let many = HandshakeBundle::Proposals { first: first.clone(), more: vec![first; 65] };
    too_large(HandshakeBundle::decode(&many.encode()).map(|b| b.encode()));
    let detail = UpdateOutcome::InvalidProposal(vec![vec![0; 65]]);
    let response = UpdateRoomResponse { outcome: detail, detail: String::new() };
    too_large(UpdateRoomResponse::decode(&response.encode()).map(|b| b.encode()));
    let clients = (0..33).map(|n| ClientKeyMaterial {
        client: DeviceId::new(&target(), &n.to_string()).unwrap(),
        outcome: ClientOutcome::Exhausted,
    });
    let response = KeyMaterialResponse {
        status: KeyMaterialUserCode::NoCompatibleMaterial,
        user: target(),
        clients: clients.collect(),
    };
    too_large(KeyMaterialResponse::decode(&response.encode()).map(|b| b.encode()));
}

#[test]
fn the_directory_is_plain_json_that_ignores_what_it_does_not_know() {
    let extension = Extension {
        features: vec![Extension::SEQ.into(), "later".into()],
        node_key: "AAAA".into(),
        backfill: Some("https://a.example:8443/v1/backfill/{roomId}".into()),
        max_body: 1 << 24,
        max_batch: 64,
    };
    let directory = Directory::under("https://a.example:8443", extension.clone());
    let json = serde_json::to_value(&directory).unwrap();
    assert_eq!(json["keyMaterial"], "https://a.example:8443/v1/keyMaterial/{targetUser}");
    assert_eq!(json["submitMessage"], "https://a.example:8443/v1/submitMessage/{roomId}");
    assert_eq!(json["https://waxwing.invalid/ns/fed/1"]["max_batch"], 64);
    assert_eq!(serde_json::from_value::<Directory>(json).unwrap(), directory);
    assert!(extension.has("seq") && !extension.has("idem"));

    let foreign = r#"{"keyMaterial": "k/{targetUser}", "update": "u/{roomId}", "notify": "n/{roomId}",
        "submitMessage": "s/{roomId}", "groupInfo": "g/{roomId}", "requestConsent": "c/{targetUser}",
        "somethingNew": {"a": [1]}}"#;
    let foreign: Directory = serde_json::from_str(foreign).unwrap();
    assert_eq!(foreign.request_consent.as_deref(), Some("c/{targetUser}"));
    assert_eq!(foreign.extension, None);
    assert!(serde_json::from_str::<Directory>(r#"{"update": "u"}"#).is_err());
}

#[test]
fn a_template_takes_one_uri_as_one_segment() {
    let uri = "mimi://a.example/r/x~y_z-1";
    assert_eq!(
        expand("https://a.example/v1/notify/{roomId}?x", uri).unwrap(),
        "https://a.example/v1/notify/mimi%3A%2F%2Fa.example%2Fr%2Fx~y_z-1?x"
    );
    assert_eq!(expand("{a}", "ä%/").unwrap(), "%C3%A4%25%2F");
    for bad in ["", "no variable", "{", "{}", "{a", "a}", "{a}{b}", "{+a}", "{a*}", "{a,b}", "}{a}"]
    {
        assert_eq!(expand(bad, uri), Err(TemplateError), "{bad}");
    }
}

proptest! {
    /// What is read is written again byte for byte, so that a signature or a hash over it can only mean one thing.
    #[test]
    fn a_changed_struct_is_refused_or_read_exactly(
        which in 0..ALL.len(),
        place in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let (name, again) = ALL[which];
        let mut bytes = golden(name);
        let place = place.index(bytes.len());
        bytes[place] = to;
        if let Ok(written) = again(&bytes) {
            prop_assert_eq!(written, bytes);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), keep in 0..400_usize) {
        for (name, again) in ALL {
            again(&bytes).ok();
            let mut head = golden(name);
            head.truncate(keep);
            again(&[head, bytes.clone()].concat()).ok();
        }
        FanoutMessage::decode_batch(&bytes).ok();
    }
}
