//! `protocol::mls` against messages that OpenMLS makes, under both cipher suites: same kind, same names, same end.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of tests may fail the test"
)]

use openmls::component::ComponentData;
use openmls::extensions::{AppDataDictionary, AppDataDictionaryExtension};
use openmls::group::{PURE_PLAINTEXT_WIRE_FORMAT_POLICY, Propose};
use openmls::messages::external_proposals::{ExternalProposal, JoinProposal};
use openmls::prelude::*;
use openmls::schedule::PreSharedKeyId;
use openmls::treesync::LeafNodeParameters;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::SignatureScheme;

use protocol::mls::{
    ContentType, Frame, GroupInfoFrame, KeyPackageFrame, Message, Sender, TreeFrame, WelcomeFrame,
    WireFormat,
};
use tls_codec::Deserialize as _;

const GROUP: &str = "mimi://a.example/g/x";
const COMPONENT: u16 = 0x0022;
const SUITES: [Ciphersuite; 2] = [
    Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
    Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519,
];

struct Device {
    provider: OpenMlsRustCrypto,
    credential: CredentialWithKey,
    signer: Key,
}

struct Key {
    private: Vec<u8>,
    scheme: SignatureScheme,
}

impl Signer for Key {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        let provider = OpenMlsRustCrypto::default();
        provider
            .crypto()
            .sign(self.scheme, payload, &self.private)
            .map_err(SignerError::CryptoError)
    }

    fn signature_scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

impl Device {
    fn new(suite: Ciphersuite, name: &str) -> Self {
        let provider = OpenMlsRustCrypto::default();
        let (private, public) =
            provider.crypto().signature_key_gen(suite.signature_algorithm()).unwrap();
        let signer = Key { private, scheme: suite.signature_algorithm() };
        let credential = CredentialWithKey {
            credential: BasicCredential::new(name.as_bytes().to_vec()).into(),
            signature_key: public.into(),
        };
        Self { provider, credential, signer }
    }

    fn key_package(&self, suite: Ciphersuite) -> KeyPackage {
        KeyPackage::builder()
            .leaf_node_capabilities(capabilities())
            .build(suite, &self.provider, &self.signer, self.credential.clone())
            .unwrap()
            .key_package()
            .clone()
    }
}

fn capabilities() -> Capabilities {
    let proposals = [ProposalType::AppDataUpdate, ProposalType::SelfRemove];
    let extensions = [ExtensionType::AppDataDictionary];
    Capabilities::new(None, Some(&SUITES), Some(&extensions), Some(&proposals), None)
}

fn bytes(message: &impl tls_codec::Serialize) -> Vec<u8> {
    message.tls_serialize_detached().unwrap()
}

fn body(message: &[u8]) -> MlsMessageBodyIn {
    MlsMessageIn::tls_deserialize(&mut &message[..]).unwrap().extract()
}

/// What a frame should say.
#[derive(Debug, PartialEq)]
struct Said {
    name: &'static str,
    epoch: u64,
    content: ContentType,
    sender: Option<Sender>,
}

/// Everything that travels in the life of one room.
struct Room {
    suite: Ciphersuite,
    frames: Vec<(Said, Vec<u8>)>,
    welcome: Vec<u8>,
    joiners: Vec<KeyPackage>,
    group_infos: Vec<Vec<u8>>,
    tree: Vec<u8>,
    members: usize,
}

impl Room {
    fn said(
        &mut self,
        name: &'static str,
        epoch: u64,
        sender: impl Into<Option<Sender>>,
        message: &MlsMessageOut,
    ) -> Vec<u8> {
        let content = match name.split(' ').next() {
            Some("propose") => ContentType::Proposal,
            Some("commit") => ContentType::Commit,
            _ => ContentType::Application,
        };
        let message = bytes(message);
        self.frames.push((Said { name, epoch, content, sender: sender.into() }, message.clone()));
        message
    }
}

fn found(suite: Ciphersuite, alice: &Device, hub: &Device) -> MlsGroup {
    let mut dictionary = AppDataDictionary::new();
    dictionary.insert(COMPONENT, b"[alice]".to_vec());
    let sender = ExternalSender::new(
        hub.credential.signature_key.clone(),
        hub.credential.credential.clone(),
    );
    let extensions = Extensions::from_vec(vec![
        Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(
            &[ExtensionType::AppDataDictionary],
            &[ProposalType::AppDataUpdate, ProposalType::SelfRemove],
            &[],
        )),
        Extension::ExternalSenders(vec![sender]),
        Extension::AppDataDictionary(AppDataDictionaryExtension::new(dictionary)),
    ]);
    let config = MlsGroupCreateConfig::builder()
        .ciphersuite(suite)
        .capabilities(capabilities())
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .with_group_context_extensions(extensions.unwrap())
        .build();
    let id = GroupId::from_slice(GROUP.as_bytes());
    let (signer, credential) = (&alice.signer, alice.credential.clone());
    MlsGroup::new_with_group_id(&alice.provider, signer, &config, id, credential).unwrap()
}

/// A commit with `added` and a change of the component; merged.
fn commit(
    group: &mut MlsGroup,
    by: &Device,
    added: &[KeyPackage],
    list: &[u8],
) -> (MlsMessageOut, Option<Welcome>) {
    let update = AppDataUpdateProposal::update(COMPONENT, list.to_vec());
    let mut stage = group
        .commit_builder()
        .force_self_update(!added.is_empty())
        .propose_adds(added.to_vec())
        .add_proposals(vec![Proposal::AppDataUpdate(Box::new(update))])
        .load_psks(by.provider.storage())
        .unwrap();
    let mut updater = stage.app_data_dictionary_updater();
    updater.set(ComponentData::from_parts(COMPONENT, list.to_vec().into()));
    let changes = updater.changes();
    stage.with_app_data_dictionary_updates(changes);
    let (rand, crypto) = (by.provider.rand(), by.provider.crypto());
    let staged = stage.build(rand, crypto, &by.signer, |_| true).unwrap();
    let (message, welcome, _) = staged.stage_commit(&by.provider).unwrap().into_contents();
    group.merge_pending_commit(&by.provider).unwrap();
    (message, welcome)
}

/// Every proposal a member makes by itself, as a frame of its own.
fn proposals(room: &mut Room, group: &mut MlsGroup, by: &Device, epoch: u64, leaf: u32) {
    let p = &by.provider;
    let psk = PreSharedKeyId::external(b"psk".to_vec(), vec![7; 32]);
    psk.store(p, b"a secret of some length for a key").unwrap();
    let extensions = group.extensions().clone();
    let more = Device::new(room.suite, "mimi://a.example/d/more/1").key_package(room.suite);
    let component_id = COMPONENT;
    let list: Vec<(&'static str, Propose)> = vec![
        ("propose Add", Propose::Add(more)),
        ("propose Update", Propose::Update(LeafNodeParameters::default())),
        ("propose Remove", Propose::Remove(leaf + 1)),
        ("propose PreSharedKey", Propose::PreSharedKey(psk)),
        ("propose GroupContextExtensions", Propose::GroupContextExtensions(extensions)),
        (
            "propose AppDataUpdate (update)",
            Propose::UpdateAppDataComponent { component_id, update: vec![1; 100] },
        ),
        ("propose AppDataUpdate (remove)", Propose::RemoveAppDataComponent { component_id }),
    ];
    for (name, propose) in list {
        let kind = ProposalOrRefType::Reference;
        match group.propose(p, &by.signer, propose, kind) {
            Ok((message, _)) => {
                room.said(name, epoch, Sender::Member(leaf), &message);
            }
            Err(e) => panic!("{name}: {e:?}"),
        }
        group.clear_pending_proposals(p.storage()).unwrap();
    }
}

fn room(suite: Ciphersuite) -> Room {
    let device = |name: &str| Device::new(suite, &format!("mimi://a.example/d/{name}"));
    let (alice, bob, cleo, hub) =
        (device("alice/1"), device("bob/1"), device("cleo/1"), device(""));
    let mut group = found(suite, &alice, &hub);
    let joiners = vec![bob.key_package(suite), cleo.key_package(suite)];
    let mut room = Room {
        suite,
        frames: Vec::new(),
        welcome: Vec::new(),
        joiners,
        group_infos: Vec::new(),
        tree: Vec::new(),
        members: 4,
    };
    let (message, welcome) = commit(&mut group, &alice, &room.joiners.clone(), b"[a, b, c]");
    room.said("commit with Adds and path", 0, Sender::Member(0), &message);
    let welcome = welcome.unwrap();
    room.welcome = bytes(&welcome);
    let join =
        MlsGroupJoinConfig::builder().wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY).build();
    let tree = group.export_ratchet_tree();
    let staged =
        StagedWelcome::new_from_welcome(&bob.provider, &join, welcome, Some(tree.into())).unwrap();
    let mut bobs = staged.into_group(&bob.provider).unwrap();

    proposals(&mut room, &mut group, &alice, 1, 0);
    bobs.set_aad(b"mimi://a.example/r/x".to_vec());
    let message = bobs.create_message(&bob.provider, &bob.signer, b"hello").unwrap();
    room.said("application", 1, None, &message);
    let message = bobs.leave_group_via_self_remove(&bob.provider, &bob.signer).unwrap();
    room.said("propose SelfRemove", 1, Sender::Member(1), &message);

    let (id, epoch) = (group.group_id().clone(), group.epoch());
    let first = SenderExtensionIndex::new(0);
    let message = ExternalProposal::new_remove::<OpenMlsRustCrypto>(
        bobs.own_leaf_index(),
        id.clone(),
        epoch,
        &hub.signer,
        first,
    );
    room.said("propose Remove by the hub", 1, Sender::External(0), &message.unwrap());
    let message = JoinProposal::new::<<OpenMlsRustCrypto as OpenMlsProvider>::StorageProvider>(
        cleo.key_package(suite),
        id,
        epoch,
        &cleo.signer,
    );
    room.said("propose to join", 1, Sender::NewMemberProposal, &message.unwrap());

    let (message, _) = commit(&mut group, &alice, &[], b"[a, b]");
    room.said("commit without path", 1, Sender::Member(0), &message);

    for with_tree in [false, true] {
        let info = group.export_group_info(alice.provider.crypto(), &alice.signer, with_tree);
        room.group_infos.push(bytes(&info.unwrap()));
    }
    outside(&mut room, &group, join);
    room
}

/// A commit from outside, after which the room's tree is kept.
fn outside(room: &mut Room, group: &MlsGroup, join: MlsGroupJoinConfig) {
    let dan = Device::new(room.suite, "mimi://a.example/d/dan/1");
    let MlsMessageBodyIn::GroupInfo(info) = body(&room.group_infos[0]) else { panic!() };
    let leaf = LeafNodeParameters::builder().with_capabilities(capabilities()).build();
    let (rand, crypto) = (dan.provider.rand(), dan.provider.crypto());
    let (group, bundle) = MlsGroup::external_commit_builder()
        .with_ratchet_tree(group.export_ratchet_tree().into())
        .with_config(join)
        .build_group(&dan.provider, info, dan.credential.clone())
        .unwrap()
        .leaf_node_parameters(leaf)
        .load_psks(dan.provider.storage())
        .unwrap()
        .build(rand, crypto, &dan.signer, |_| true)
        .unwrap()
        .finalize(&dan.provider)
        .unwrap();
    room.said("commit from outside", 2, Sender::NewMemberCommit, &bundle.into_contents().0);
    room.tree = bytes(&group.export_ratchet_tree());
}

/// Where OpenMLS sees the end of an `MLSMessage`, if it can read it.
fn openmls_len(message: &[u8]) -> Option<usize> {
    let mut rest = message;
    MlsMessageIn::tls_deserialize(&mut rest).ok()?;
    Some(message.len() - rest.len())
}

#[test]
fn frames_say_what_openmls_put_into_them_and_end_where_they_end() {
    for suite in SUITES {
        let room = room(suite);
        assert_eq!(room.frames.len(), 14);
        for (said, message) in &room.frames {
            let with_more = [&message[..], b"more"].concat();
            let (frame, rest) = Frame::read(&with_more).unwrap_or_else(|m| panic!("{said:?}: {m}"));
            assert_eq!(rest, b"more", "{said:?}");
            assert_eq!(frame.bytes, message, "{said:?}");
            assert_eq!(frame.group_id, GROUP.as_bytes());
            assert_eq!(frame.group().unwrap().as_str(), GROUP);
            assert_eq!(frame.epoch.get(), said.epoch, "{said:?}");
            assert_eq!(frame.content_type, said.content, "{said:?}");
            assert_eq!(frame.sender, said.sender, "{said:?}");
            let application = said.content == ContentType::Application;
            let format = if application { WireFormat::Private } else { WireFormat::Public };
            assert_eq!(frame.wire_format, format, "{said:?}");
            let aad: &[u8] = if application { b"mimi://a.example/r/x" } else { b"" };
            assert_eq!(frame.authenticated_data, aad, "{said:?}");
        }
    }
}

#[test]
fn welcomes_name_the_key_packages_they_are_for() {
    for suite in SUITES {
        let room = room(suite);
        let (welcome, rest) = WelcomeFrame::read(&room.welcome).unwrap();
        assert!(rest.is_empty());
        assert_eq!(welcome.suite, u16::from(suite));
        let crypto = OpenMlsRustCrypto::default();
        let mut wanted: Vec<Vec<u8>> = room
            .joiners
            .iter()
            .map(|p| p.hash_ref(crypto.crypto()).unwrap().as_slice().to_vec())
            .collect();
        let mut named: Vec<Vec<u8>> = welcome.new_members().map(<[u8]>::to_vec).collect();
        wanted.sort();
        named.sort();
        assert_eq!(named, wanted);
        let message = [&[0, 1, 0, 3], &room.welcome[..]].concat();
        assert_eq!(openmls_len(&message), Some(message.len()));
        assert_eq!(Message::read_exact(&message).unwrap(), Message::Welcome(welcome));
    }
}

#[test]
fn group_infos_key_packages_and_trees_end_where_they_end() {
    for suite in SUITES {
        let room = room(suite);
        for message in &room.group_infos {
            let (info, rest) = GroupInfoFrame::read(&message[4..]).unwrap();
            assert!(rest.is_empty());
            assert_eq!((info.suite, info.epoch.get(), info.signer), (u16::from(suite), 2, 0));
            assert_eq!(info.group().unwrap().as_str(), GROUP);
            assert_eq!(Message::read_exact(message).unwrap(), Message::GroupInfo(info));
        }
        for package in &room.joiners {
            let bare = [&bytes(package)[..], b"more"].concat();
            let (frame, rest) = KeyPackageFrame::read(&bare).unwrap();
            assert_eq!((frame.suite, rest), (u16::from(suite), &b"more"[..]));
            let message = bytes(&MlsMessageOut::from(package.clone()));
            assert_eq!(Message::read_exact(&message).unwrap(), Message::KeyPackage(frame));
        }
        let with_more = [&room.tree[..], b"more"].concat();
        let (tree, rest) = TreeFrame::read(&with_more).unwrap();
        assert_eq!((tree.leaves, rest), (room.members, &b"more"[..]));
    }
}

#[test]
fn messages_in_a_row_come_apart_again() {
    let room = room(SUITES[0]);
    let row: Vec<u8> = room.frames.iter().flat_map(|(_, m)| m.clone()).collect();
    let mut rest = &row[..];
    for (_, message) in &room.frames {
        let (frame, after) = Frame::read(rest).unwrap();
        assert_eq!(frame.bytes, message);
        rest = after;
    }
    assert!(rest.is_empty());
}

/// A frame with a proposal that OpenMLS reads but does not make: the SelfRemove of `frame` replaced.
fn with_proposal(frame: &[u8], proposal: &[u8]) -> Vec<u8> {
    // Header, group, epoch, sender, authenticated data, content type.
    let at = 4 + 1 + GROUP.len() + 8 + 5 + 1 + 1;
    assert_eq!(frame[at..at + 2], [0, 0x0a]);
    [&frame[..at], proposal, &frame[at + 2..]].concat()
}

#[test]
fn proposals_that_openmls_only_reads_end_where_it_says() {
    let room = room(SUITES[0]);
    let (_, frame) = room.frames.iter().find(|(s, _)| s.name == "propose SelfRemove").unwrap();
    let group_and_epoch = [&[3][..], b"abc", &[0; 8]].concat();
    let list: Vec<(&str, Vec<u8>)> = vec![
        ("ReInit", [&[0, 5, 3][..], b"abc", &[0, 1, 0, 1, 4, 0xff, 1, 1, 9]].concat()),
        ("ExternalInit", vec![0, 6, 2, 7, 7]),
        ("resumption key", [&[0, 4, 2, 1][..], &group_and_epoch, &[1, 9]].concat()),
        ("application key", vec![0, 4, 3, 0x80, 1, 2, 7, 7, 1, 9]),
        ("AppEphemeral", vec![0, 9, 0x80, 1, 3, 1, 2, 3]),
    ];
    for (name, proposal) in list {
        let message = with_proposal(frame, &proposal);
        assert_eq!(openmls_len(&message), Some(message.len()), "{name}");
        assert_eq!(Frame::read_exact(&message).map(|f| f.bytes.len()), Ok(message.len()), "{name}");
    }
    for (name, proposal) in [
        ("unknown", &[0, 0x0b, 0][..]),
        ("AppDataUpdate of an unknown kind", &[0, 8, 0, 1, 3, 0]),
        ("key of an unknown kind", &[0, 4, 4, 0, 0]),
    ] {
        assert!(Frame::read_exact(&with_proposal(frame, proposal)).is_err(), "{name}");
    }
}

#[test]
fn a_message_that_is_cut_anywhere_is_refused() {
    let room = room(SUITES[0]);
    let frames = room.frames.iter().map(|(_, m)| m);
    for message in frames.chain(&room.group_infos) {
        for cut in 0..message.len() {
            assert!(Message::read(&message[..cut]).is_err(), "cut at {cut}");
        }
    }
    for cut in 0..room.welcome.len() {
        assert!(WelcomeFrame::read(&room.welcome[..cut]).is_err(), "cut at {cut}");
    }
    for cut in 0..room.tree.len() {
        assert!(TreeFrame::read(&room.tree[..cut]).is_err(), "cut at {cut}");
    }
}

/// Changes every byte of every message, length fields among them: whatever both readers take, they end at the same place.
#[test]
fn a_changed_byte_never_makes_this_reader_and_openmls_disagree_about_the_end() {
    let room = room(SUITES[0]);
    let package = bytes(&MlsMessageOut::from(room.joiners[0].clone()));
    let frames = room.frames.iter().map(|(_, m)| m);
    let (mut both, mut neither) = (0, 0);
    for message in frames.chain(&room.group_infos).chain([&package]) {
        for at in 0..message.len() {
            for change in [1_u8, 2, 0x40, 0x80, 0xff] {
                let mut changed = message.clone();
                changed[at] = changed[at].wrapping_add(change);
                let ours = Message::read(&changed).ok().map(|(_, rest)| changed.len() - rest.len());
                match (ours, openmls_len(&changed)) {
                    (Some(ours), Some(theirs)) => {
                        assert_eq!(ours, theirs, "byte {at} + {change}");
                        both += 1;
                    }
                    (None, None) => neither += 1,
                    // OpenMLS also reads what extensions and credentials hold; this reader knows fewer proposals.
                    (Some(_), None) | (None, Some(_)) => {}
                }
            }
        }
    }
    assert!(both > 1000 && neither > 1000, "{both} {neither}");
}
