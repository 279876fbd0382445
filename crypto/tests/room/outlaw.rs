//! A member with a modified client: the MLS library without our rules around it. Hub and members must refuse it, each for
//! itself, since either may be the only honest one.

use crypto::group::{Received, Why};
use crypto::{DeviceKey, Group, HubGroup, keypackage};
use openmls::component::ComponentData;
use openmls::extensions::{AppDataDictionary, AppDataDictionaryExtension};
use openmls::group::{
    CommitMessageBundle, GroupId, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig,
    PURE_PLAINTEXT_WIRE_FORMAT_POLICY,
};
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::{
    AppDataUpdateProposal, BasicCredential, Capabilities, Ciphersuite, CredentialWithKey,
    Extension, ExtensionType, Extensions, ExternalSender, KeyPackage, KeyPackageIn, LeafNodeIndex,
    LeafNodeParameters, MlsMessageOut, Proposal, ProposalType, ProtocolVersion, RatchetTreeIn,
    RequiredCapabilitiesExtension,
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::OpenMlsProvider as _;
use protocol::mimi::{
    CommitBytes, GroupInfoBytes, HandshakeBundle, ProposalBytes, RatchetTreeOption, WelcomeBytes,
};
use protocol::room::{PARTICIPANT_LIST, Participants, ParticipantsUpdate};
use protocol::{Code, RoomId};
use tls_codec::{Deserialize as _, Serialize};

use crate::common::{Device, Dice, device_id, hub_key, identity, now, room, user};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
    value.tls_serialize_detached().unwrap()
}

fn capabilities() -> Capabilities {
    Capabilities::new(
        None,
        None,
        Some(&[ExtensionType::AppDataDictionary]),
        Some(&[ProposalType::AppDataUpdate, ProposalType::SelfRemove]),
        None,
    )
}

fn credential(key: &DeviceKey, identity: &[u8]) -> CredentialWithKey {
    CredentialWithKey {
        credential: BasicCredential::new(identity.to_vec()).into(),
        signature_key: key.public().as_bytes().as_slice().into(),
    }
}

/// The group context of a room of ours, with its participants' list and its hub left to choose.
fn context(participants: &Participants, hub: &str) -> Extensions<openmls::group::GroupContext> {
    let mut dictionary = AppDataDictionary::new();
    dictionary.insert(PARTICIPANT_LIST, participants.encode());
    let hub = BasicCredential::new(hub.as_bytes().to_vec()).into();
    Extensions::from_vec(vec![
        Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(
            &[ExtensionType::AppDataDictionary],
            &[ProposalType::AppDataUpdate, ProposalType::SelfRemove],
            &[],
        )),
        Extension::ExternalSenders(vec![ExternalSender::new(
            hub_key().public().as_bytes().as_slice().into(),
            hub,
        )]),
        Extension::AppDataDictionary(AppDataDictionaryExtension::new(dictionary)),
    ])
    .unwrap()
}

/// A founder with a good certificate and a modified client.
struct Outlaw {
    provider: OpenMlsRustCrypto,
    key: DeviceKey,
    mls: MlsGroup,
}

impl Outlaw {
    fn found(room: &RoomId, context: Extensions<openmls::group::GroupContext>) -> Self {
        let provider = OpenMlsRustCrypto::default();
        let me = identity("ana/1");
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .capabilities(capabilities())
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(false)
            .with_group_context_extensions(context)
            .build();
        let mls = MlsGroup::new_with_group_id(
            &provider,
            me.key(),
            &config,
            GroupId::from_slice(room.group().as_str().as_bytes()),
            credential(me.key(), me.certificate().as_bytes()),
        )
        .unwrap();
        Self { provider, key: me.key().clone(), mls }
    }

    fn hub(&self) -> Result<HubGroup, protocol::Refusal> {
        let info = self.mls.export_group_info(self.provider.crypto(), &self.key, false).unwrap();
        let tree = bytes(&self.mls.export_ratchet_tree());
        let founder = device_id("ana/1");
        HubGroup::create(&room(), &hub_key().public(), &bytes(&info), &tree, &founder)
    }

    fn bound(&mut self) -> &mut Self {
        self.mls.set_aad(room().as_str().as_bytes().to_vec());
        self
    }

    /// Commits whatever it is told to.
    fn commit(&mut self, proposals: Vec<Proposal>) -> Vec<u8> {
        self.commit_with(Vec::new(), proposals, None)
    }

    /// The same, and other settings.
    fn commit_with(
        &mut self,
        add: Vec<KeyPackage>,
        proposals: Vec<Proposal>,
        settings: Option<Extensions<openmls::group::GroupContext>>,
    ) -> Vec<u8> {
        let aad = self.mls.aad().to_vec();
        self.mls.clear_pending_commit(self.provider.storage()).unwrap();
        self.mls.set_aad(aad);
        let mut builder = self.mls.commit_builder().force_self_update(true);
        if let Some(settings) = settings {
            builder = builder.propose_group_context_extensions(settings).unwrap();
        }
        let mut builder = builder
            .propose_adds(add)
            .add_proposals(proposals)
            .load_psks(self.provider.storage())
            .unwrap();
        let changes = {
            let updates: Vec<_> = builder.app_data_update_proposals().cloned().collect();
            let mut dictionary = builder.app_data_dictionary_updater();
            for update in updates {
                // Whatever comes out, it is the same for everybody.
                let data = Participants::founded_by(user("ana")).encode();
                dictionary.set(ComponentData::from_parts(update.component_id(), data.into()));
            }
            dictionary.changes()
        };
        builder.with_app_data_dictionary_updates(changes);
        let bundle = builder
            .create_group_info(true)
            .build(self.provider.rand(), self.provider.crypto(), &self.key, |_| true)
            .unwrap()
            .stage_commit(&self.provider)
            .unwrap();
        request(bundle)
    }
}

fn request(bundle: CommitMessageBundle) -> Vec<u8> {
    let (commit, welcome, group_info) = bundle.into_contents();
    HandshakeBundle::Commit {
        commit: CommitBytes::parse(bytes(&commit)).unwrap(),
        welcome: welcome.map(|w| WelcomeBytes::parse(bytes(&w)).unwrap()),
        group_info: GroupInfoBytes::parse(bytes(&group_info.unwrap())).unwrap(),
        tree: RatchetTreeOption::DistributionService,
    }
    .encode()
}

fn commit_message(request: &[u8]) -> Vec<u8> {
    match HandshakeBundle::decode(request).unwrap() {
        HandshakeBundle::Commit { commit, .. } => commit.into_vec(),
        HandshakeBundle::Proposals { .. } => panic!("no commit"),
    }
}

/// An outlaw's room with an honest hub and one honest member, bo/1.
fn gang() -> (Outlaw, HubGroup, Device) {
    let participants = Participants::founded_by(user("ana"));
    let mut outlaw = Outlaw::found(&room(), context(&participants, "mimi://a.example"));
    let hub = outlaw.hub().unwrap();
    let made = keypackage::make(
        crypto::Suite::Classic,
        &identity("bo/1"),
        keypackage::Use::Once,
        now(),
        &Dice::new(),
    )
    .unwrap();
    // The outlaw keeps to the rules for now; who may be in is not this crate's question.
    let request = outlaw.bound().commit_with(vec![package(&made.public)], Vec::new(), None);
    let applied = hub.apply(&request, None, now()).unwrap();
    outlaw.mls.merge_pending_commit(&outlaw.provider).unwrap();
    let welcome = applied.welcome.unwrap().message;
    let tree = applied.group.tree_bytes();
    let bo = Group::join(&room(), &welcome, &tree, &made.private, identity("bo/1")).unwrap();
    (outlaw, applied.group, Device::new("bo/1", bo))
}

fn package(package: &[u8]) -> KeyPackage {
    let package = KeyPackageIn::tls_deserialize(&mut &package[..]).unwrap();
    let provider = OpenMlsRustCrypto::default();
    package.validate(provider.crypto(), ProtocolVersion::Mls10).unwrap()
}

/// Credentials with which a leaf must never enter: `(what, key, credential's identity)`.
fn ghosts() -> Vec<(&'static str, DeviceKey, Vec<u8>)> {
    let key = || DeviceKey::from_bytes(&[77; 32]);
    let good = identity("cy/1").certificate().as_bytes().to_vec();
    let own = crate::common::identity_key("cy").certify(&device_id("cy/1"), &key().public(), now());
    let mut bent = own.as_bytes().to_vec();
    *bent.last_mut().unwrap() ^= 1;
    vec![
        ("no certificate", key(), b"mimi://a.example/d/cy/1".to_vec()),
        ("a certificate for another key", key(), good),
        ("a certificate that does not verify", key(), bent),
    ]
}

fn ghost_package(key: &DeviceKey, identity: &[u8]) -> Vec<u8> {
    let provider = OpenMlsRustCrypto::default();
    let builder = KeyPackage::builder().leaf_node_capabilities(capabilities());
    let bundle = builder.build(SUITE, &provider, key, credential(key, identity)).unwrap();
    bytes(bundle.key_package())
}

fn hub_refuses(hub: &HubGroup, request: &[u8]) -> Code {
    hub.apply(request, None, now()).err().expect("the hub refuses").code
}

fn member_refuses(member: &mut Device, message: &[u8], what: &str) {
    let stored = member.stored.clone();
    let received = member.group.receive(message).unwrap();
    assert!(matches!(received, Received::Unreadable(Why::Forged(_))), "{what}: {received:?}");
    member.save();
    assert_eq!(member.stored, stored, "{what}: nothing changed");
}

#[test]
fn a_device_without_its_own_certificate_gets_no_key_package_in() {
    for (what, key, identity) in ghosts() {
        let package = ghost_package(&key, &identity);
        let refusal = keypackage::inspect(&package, now()).unwrap_err();
        assert_eq!(refusal.code, Code::BadCertificate, "{what}");
        let (_, _, mut bo) = gang();
        let change = crypto::group::Change { add: vec![package], ..Default::default() };
        assert!(bo.group.commit(&change, now(), &Dice::new()).is_err(), "{what}");
        assert!(bo.group.writes().is_empty());
    }
}

#[test]
fn nobody_can_add_a_device_without_its_own_certificate() {
    for (what, key, identity) in ghosts() {
        let (mut outlaw, hub, mut bo) = gang();
        let ghost = package(&ghost_package(&key, &identity));
        let request = outlaw.bound().commit_with(vec![ghost], Vec::new(), None);
        assert_eq!(hub_refuses(&hub, &request), Code::BadCertificate, "{what}");
        member_refuses(&mut bo, &commit_message(&request), what);
    }
}

#[test]
fn a_further_device_of_a_person_comes_in_under_the_same_identity_only() {
    let (mut outlaw, hub, mut bo) = gang();
    let key = DeviceKey::from_bytes(&[78; 32]);
    let eve = crate::common::identity_key("eve");
    let certificate = eve.certify(&device_id("bo/2"), &key.public(), now());
    let ghost = package(&ghost_package(&key, certificate.as_bytes()));
    let request = outlaw.bound().commit_with(vec![ghost], Vec::new(), None);
    assert_eq!(hub_refuses(&hub, &request), Code::BadCertificate);
    member_refuses(&mut bo, &commit_message(&request), "another identity");
}

#[test]
fn nobody_can_join_by_an_own_commit_without_an_own_certificate() {
    for (what, key, identity) in ghosts() {
        let (outlaw, hub, mut bo) = gang();
        let provider = OpenMlsRustCrypto::default();
        let info = hub.group_info().as_slice();
        let info = VerifiableGroupInfo::tls_deserialize(&mut &info[..]).unwrap();
        let tree = RatchetTreeIn::tls_deserialize(&mut hub.tree_bytes().as_slice()).unwrap();
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .build();
        let (_, bundle) = MlsGroup::external_commit_builder()
            .with_ratchet_tree(tree)
            .with_config(config)
            .with_aad(room().as_str().as_bytes().to_vec())
            .build_group(&provider, info, credential(&key, &identity))
            .unwrap()
            .leaf_node_parameters(
                LeafNodeParameters::builder().with_capabilities(capabilities()).build(),
            )
            .load_psks(provider.storage())
            .unwrap()
            .create_group_info(true)
            .build(provider.rand(), provider.crypto(), &key, |_| true)
            .unwrap()
            .finalize(&provider)
            .unwrap();
        let request = request(bundle);
        assert_eq!(hub_refuses(&hub, &request), Code::BadCertificate, "{what}");
        member_refuses(&mut bo, &commit_message(&request), what);
        drop(outlaw);
    }
}

#[test]
fn a_commit_that_changes_more_than_devices_and_participants_is_refused() {
    let update = |component, data: &[u8]| {
        Proposal::AppDataUpdate(Box::new(AppDataUpdateProposal::update(component, data.to_vec())))
    };
    let cases = [
        ("another component", update(0x8001, b"x")),
        ("a participant list that cannot be read", update(PARTICIPANT_LIST, b"\xff")),
        (
            "somebody removed from the list who is not in it",
            update(
                PARTICIPANT_LIST,
                &ParticipantsUpdate { removed: vec![9], ..Default::default() }.encode(),
            ),
        ),
        (
            "the list removed",
            Proposal::AppDataUpdate(Box::new(AppDataUpdateProposal::remove(PARTICIPANT_LIST))),
        ),
    ];
    for (what, proposal) in cases {
        let (mut outlaw, hub, mut bo) = gang();
        let request = outlaw.bound().commit(vec![proposal]);
        assert_eq!(hub_refuses(&hub, &request), Code::InvalidCommit, "{what}");
        member_refuses(&mut bo, &commit_message(&request), what);
    }
}

#[test]
fn a_commit_that_changes_the_rooms_settings_is_refused() {
    let (mut outlaw, hub, mut bo) = gang();
    let other_hub = context(&Participants::founded_by(user("ana")), "mimi://b.example");
    let request = outlaw.bound().commit_with(Vec::new(), Vec::new(), Some(other_hub));
    assert_eq!(hub_refuses(&hub, &request), Code::InvalidCommit);
    member_refuses(&mut bo, &commit_message(&request), "other settings");
}

#[test]
fn what_is_not_bound_to_the_room_is_refused() {
    let (mut outlaw, hub, mut bo) = gang();
    let request = outlaw.commit(Vec::new());
    assert_eq!(hub_refuses(&hub, &request), Code::InvalidCommit);
    member_refuses(&mut bo, &commit_message(&request), "a commit");
    outlaw.mls.clear_pending_commit(outlaw.provider.storage()).unwrap();
    outlaw.mls.set_aad(b"mimi://a.example/r/y".to_vec());
    let message = outlaw.mls.create_message(&outlaw.provider, &outlaw.key, b"hi").unwrap();
    let received = bo.receive(&bytes(&message));
    assert!(matches!(received, Received::Unreadable(Why::Forged(_))), "{received:?}");
}

#[test]
fn only_a_departure_can_be_proposed() {
    let proposal = |what: &str, outlaw: &mut Outlaw| -> MlsMessageOut {
        let (provider, key) = (&outlaw.provider, &outlaw.key);
        outlaw.mls.set_aad(room().as_str().as_bytes().to_vec());
        match what {
            "an addition" => {
                let cy = identity("cy/1");
                let cy = package(&ghost_package(cy.key(), cy.certificate().as_bytes()));
                outlaw.mls.propose_add_member(provider, key, &cy).unwrap().0
            }
            "somebody else's removal" => {
                let bo = LeafNodeIndex::new(1);
                outlaw.mls.propose_remove_member(provider, key, bo).unwrap().0
            }
            _ => {
                let parameters = LeafNodeParameters::default();
                outlaw.mls.propose_self_update(provider, key, parameters).unwrap().0
            }
        }
    };
    for what in ["an addition", "somebody else's removal", "an update"] {
        let (mut outlaw, hub, mut bo) = gang();
        let message = bytes(&proposal(what, &mut outlaw));
        let first = ProposalBytes::parse(message.clone()).unwrap();
        let request = HandshakeBundle::Proposals { first, more: Vec::new() }.encode();
        let refusal = hub.propose(&request, None, now()).err().expect(what);
        assert_eq!(refusal.code, Code::NotAllowed, "{what}");
        member_refuses(&mut bo, &message, what);
    }
}

#[test]
fn a_room_with_other_settings_is_not_taken_and_not_entered() {
    let ana = Participants::founded_by(user("ana"));
    let other = RoomId::parse("mimi://a.example/r/y").unwrap();
    let lists = [
        ("another hub", &room(), context(&ana, "mimi://b.example")),
        ("another room's group", &other, context(&ana, "mimi://a.example")),
        (
            "somebody else as owner",
            &room(),
            context(&Participants::founded_by(user("eve")), "mimi://a.example"),
        ),
    ];
    for (what, room, context) in lists {
        let refusal = Outlaw::found(room, context).hub().err().expect(what);
        assert_eq!(refusal.code, Code::InvalidCommit, "{what}");
    }
}
