//! A hub, devices of ours and devices that run mls-rs, in one process with nothing between them.

use crypto::group::{Change, ExternalJoin, Founded, Founding, Received};
use crypto::group_info;
use crypto::hub::Applied;
use crypto::keypackage::{self, Use};
use crypto::{
    Certificate, DeviceIdentity, DeviceKey, Group, HubGroup, IdentityKey, NodeKey, Suite,
};
use mls_rs::client_builder::{MlsConfig, PaddingMode};
use mls_rs::crypto::{HpkeCiphertext, SignatureSecretKey};
use mls_rs::extension::ExtensionType;
use mls_rs::extension::built_in::{ExternalSendersExt, RequiredCapabilitiesExt};
use mls_rs::group::proposal::ProposalType;
use mls_rs::group::{CommitEffect, CommitOutput, ExportedTree, ReceivedMessage};
use mls_rs::identity::SigningIdentity;
use mls_rs::identity::basic::{BasicCredential, BasicIdentityProvider};
use mls_rs::mls_rules::{CommitOptions, DefaultMlsRules, EncryptionOptions};
use mls_rs::time::MlsTime;
use mls_rs::{
    CipherSuite, CipherSuiteProvider, Client, CryptoProvider, Extension, ExtensionList, MlsMessage,
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;
use protocol::mimi::{
    CommitBytes, Credential, GroupInfoAnswer, GroupInfoBytes, GroupInfoRatchetTree,
    GroupInfoRequest, GroupInfoResponse, HandshakeBundle, KeyPackageBytes, RatchetTreeOption,
    WelcomeBytes,
};
use protocol::room::{Participant, Participants, ParticipantsUpdate, Role};
use protocol::{DeviceId, Entropy, RoomId, Timestamp, UserId, limit};
use tls_codec::{Serialize as _, VLByteSlice};

pub const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;
/// The dictionary of components in the group context, and the two proposals that rooms need.
pub const APP_DATA_DICTIONARY: ExtensionType = ExtensionType::new(0x0006);
pub const APP_DATA_UPDATE: ProposalType = ProposalType::new(0x0008);
pub const SELF_REMOVE: ProposalType = ProposalType::new(0x000a);

pub fn suite() -> impl CipherSuiteProvider {
    RustCryptoProvider::default().cipher_suite_provider(SUITE).unwrap()
}

pub struct Dice;

impl Entropy for Dice {
    fn fill(&self, out: &mut [u8]) {
        suite().random_bytes(out).unwrap();
    }
}

pub fn now() -> Timestamp {
    Timestamp::from_ms(MlsTime::now().seconds_since_epoch() * 1000)
}

pub fn room_id() -> RoomId {
    RoomId::parse("mimi://a.example/r/x").unwrap()
}

/// What every message of a room carries as authenticated data (PROTOCOL §7.5).
pub fn bound() -> Vec<u8> {
    room_id().as_str().as_bytes().to_vec()
}

pub fn hub_key() -> NodeKey {
    NodeKey::from_bytes(&[42; 32])
}

pub fn user(name: &str) -> UserId {
    UserId::parse(&format!("mimi://a.example/u/{name}")).unwrap()
}

pub fn device(name: &str) -> DeviceId {
    DeviceId::parse(&format!("mimi://a.example/d/{name}")).unwrap()
}

/// `ana/1` and the like: a device's key and its certificate, whichever implementation uses them.
pub fn identity(name: &str) -> DeviceIdentity {
    let seed = |text: &str| {
        let mut seed = [7; 32];
        seed[..text.len()].copy_from_slice(text.as_bytes());
        seed
    };
    let (person, _) = name.split_once('/').unwrap();
    let key = DeviceKey::from_bytes(&seed(name));
    let issued = Timestamp::from_ms(1);
    let certificate =
        IdentityKey::from_bytes(&seed(person)).certify(&device(name), &key.public(), issued);
    DeviceIdentity::new(key, certificate).unwrap()
}

/// MLS's own bytes: a string with its length before it.
pub fn vector(bytes: &[u8]) -> Vec<u8> {
    VLByteSlice(bytes).tls_serialize_detached().unwrap()
}

/// `AppDataDictionary` with the participant list as its one component (PROTOCOL §7.3).
pub fn dictionary(participants: &Participants) -> Vec<u8> {
    vector(&[&[0x00, 0x22][..], &vector(&participants.encode())].concat())
}

/// A device of ours.
pub struct Ours {
    pub name: &'static str,
    pub group: Group,
}

/// A device that runs mls-rs.
pub struct Theirs<C: MlsConfig> {
    pub name: &'static str,
    pub group: mls_rs::Group<C>,
}

/// A room in one process, with nothing between its devices and the hub.
pub struct Room<C: MlsConfig> {
    pub hub: HubGroup,
    pub ours: Vec<Ours>,
    pub theirs: Vec<Theirs<C>>,
}

/// An mls-rs client for a device, with what PROTOCOL §7.2 and §7.4 ask for.
pub fn client_of(
    signing: SigningIdentity,
    secret: SignatureSecretKey,
) -> Client<impl MlsConfig + use<>> {
    let commits = CommitOptions::new()
        .with_path_required(true)
        .with_ratchet_tree_extension(false)
        .with_allow_external_commit(true);
    let rules = DefaultMlsRules::new()
        .with_commit_options(commits)
        .with_encryption_options(EncryptionOptions::new(false, PaddingMode::Padme));
    Client::builder()
        .extension_type(APP_DATA_DICTIONARY)
        .custom_proposal_types([APP_DATA_UPDATE, SELF_REMOVE])
        .key_package_lifetime(limit::KEYPACKAGE_LIFETIME)
        .mls_rules(rules)
        .identity_provider(BasicIdentityProvider)
        .crypto_provider(RustCryptoProvider::default())
        .signing_identity(signing, secret, SUITE)
        .build()
}

pub fn signing(identity: &[u8], key: &[u8]) -> SigningIdentity {
    let credential = BasicCredential::new(identity.to_vec());
    SigningIdentity::new(credential.into_credential(), key.to_vec().into())
}

/// mls-rs keeps an Ed25519 key as seed and public key.
pub fn secret(identity: &DeviceIdentity) -> SignatureSecretKey {
    [*identity.key().to_bytes(), *identity.key().public().as_bytes()].concat().into()
}

pub fn client(name: &str) -> Client<impl MlsConfig + use<>> {
    let me = identity(name);
    let public = me.certificate().key().as_bytes().as_slice();
    client_of(signing(me.certificate().as_bytes(), public), secret(&me))
}

/// The bare `KeyPackage` of an mls-rs client.
pub fn package<C: MlsConfig>(client: &Client<C>) -> Vec<u8> {
    let made = client.generate_key_package_message(
        ExtensionList::default(),
        ExtensionList::default(),
        Some(MlsTime::now()),
    );
    KeyPackageBytes::from_message(&made.unwrap().to_bytes().unwrap()).unwrap().into_vec()
}

pub fn message(bytes: &[u8]) -> MlsMessage {
    MlsMessage::from_bytes(bytes).unwrap()
}

/// What the hub wants with a commit, and the device's signature under it (PROTOCOL §7.4).
pub fn bundle(
    name: &str,
    commit: &MlsMessage,
    welcome: Option<&MlsMessage>,
    group_info: &MlsMessage,
) -> (Vec<u8>, Vec<u8>) {
    let bytes = |message: &MlsMessage| message.to_bytes().unwrap();
    let bundle = HandshakeBundle::Commit {
        commit: CommitBytes::parse(bytes(commit)).unwrap(),
        welcome: welcome.map(|w| WelcomeBytes::from_message(&bytes(w)).unwrap()),
        group_info: GroupInfoBytes::from_message(&bytes(group_info)).unwrap(),
        tree: RatchetTreeOption::DistributionService,
    }
    .encode();
    let signed = [suite().hash(&bundle).unwrap(), bound()].concat();
    (bundle, identity(name).key().sign("FedBundleTBS", &signed))
}

pub fn bundle_of(name: &str, output: &CommitOutput) -> (Vec<u8>, Vec<u8>) {
    let group_info = output.external_commit_group_info.as_ref().unwrap();
    bundle(name, &output.commit_message, output.welcome_messages.first(), group_info)
}

impl Ours {
    pub fn reads(&mut self, message: &[u8], from: &str) -> String {
        match self.group.receive(message).unwrap() {
            Received::Application(m) => {
                assert_eq!(m.from, device(from), "{} reads", self.name);
                String::from_utf8(m.content).unwrap()
            }
            other => panic!("{} cannot read {from}: {other:?}", self.name),
        }
    }

    pub fn follow(&mut self, commit: &[u8]) {
        match self.group.receive(commit).unwrap() {
            Received::Commit(staged) => {
                delivery::policy::judge(staged.facts()).unwrap();
                self.group.accept(*staged).unwrap();
            }
            Received::OwnCommit { merged: false } => self.group.merge_pending().unwrap(),
            Received::OwnCommit { merged: true } => {}
            other => panic!("{} cannot follow: {other:?}", self.name),
        }
    }
}

impl<C: MlsConfig> Theirs<C> {
    pub fn join(name: &'static str, client: &Client<C>, welcome: &[u8], tree: &[u8]) -> Self {
        let tree = ExportedTree::from_bytes(tree).unwrap();
        let joined = client.join_group(Some(tree), &message(welcome), Some(MlsTime::now()));
        Self { name, group: joined.unwrap().0 }
    }

    pub fn process(&mut self, bytes: &[u8]) -> ReceivedMessage {
        let message = message(bytes);
        let processed = self.group.process_incoming_message_with_time(message, MlsTime::now());
        self.group.write_to_storage().unwrap();
        processed.unwrap()
    }

    pub fn send(&mut self, text: &str) -> Vec<u8> {
        self.group
            .encrypt_application_message(text.as_bytes(), bound())
            .unwrap()
            .to_bytes()
            .unwrap()
    }

    pub fn reads(&mut self, message: &[u8], from: &str) -> String {
        match self.process(message) {
            ReceivedMessage::ApplicationMessage(m) => {
                let sender = self.members()[usize::try_from(m.sender_index).unwrap()].clone();
                assert_eq!(sender, Some(device(from)), "{} reads", self.name);
                assert_eq!(m.authenticated_data, bound());
                String::from_utf8(m.data().to_vec()).unwrap()
            }
            other => panic!("{} cannot read {from}: {other:?}", self.name),
        }
    }

    /// A commit of its own keys, and of proposals that are pending.
    pub fn commit(&mut self) -> CommitOutput {
        self.group.commit_builder().authenticated_data(bound()).build().unwrap()
    }

    pub fn add(&mut self, package: &[u8]) -> CommitOutput {
        let package = KeyPackageBytes::parse(package).unwrap().to_message();
        let builder = self.group.commit_builder().authenticated_data(bound());
        builder.add_member(message(&package)).unwrap().build().unwrap()
    }

    /// Who sits where, by the certificates in the leaves.
    pub fn members(&self) -> Vec<Option<DeviceId>> {
        let mut members = Vec::new();
        for member in self.group.roster().members_iter() {
            let credential = member.signing_identity.credential;
            let certificate = Certificate::verify(&credential.as_basic().unwrap().identifier);
            let leaf = usize::try_from(member.index).unwrap();
            members.resize(leaf, None);
            members.push(Some(certificate.unwrap().device().clone()));
        }
        members
    }

    pub fn dictionary(&self) -> Vec<u8> {
        self.group.context().extensions.get(APP_DATA_DICTIONARY).unwrap().extension_data
    }
}

impl<C: MlsConfig> Room<C> {
    /// Founded by a device of ours.
    pub fn of_ours(name: &'static str) -> Self {
        let founding =
            Founding { room: room_id(), suite: Suite::Classic, hub_key: hub_key().public() };
        let Founded { group, group_info, tree } =
            Group::create(&founding, identity(name), now(), &Dice).unwrap();
        let hub =
            HubGroup::create(&room_id(), &hub_key().public(), &group_info, &tree, &device(name));
        Self { hub: hub.unwrap(), ours: vec![Ours { name, group }], theirs: Vec::new() }
    }

    /// Founded by mls-rs, with the settings of PROTOCOL §7.2.
    pub fn of_theirs(name: &'static str, client: &Client<C>) -> Self {
        let hub_uri = room_id().hub().uri();
        let hub = signing(hub_uri.as_bytes(), hub_key().public().as_bytes());
        let mut context = ExtensionList::new();
        context
            .set_from(RequiredCapabilitiesExt::new(
                vec![APP_DATA_DICTIONARY],
                vec![APP_DATA_UPDATE, SELF_REMOVE],
                Vec::new(),
            ))
            .unwrap();
        context.set_from(ExternalSendersExt::new(vec![hub])).unwrap();
        let (person, _) = name.split_once('/').unwrap();
        let participants = Participants::founded_by(user(person));
        context.set(Extension::new(APP_DATA_DICTIONARY, dictionary(&participants)));
        let id = room_id().group().as_str().as_bytes().to_vec();
        let group = client.create_group_with_id(
            id,
            context,
            ExtensionList::default(),
            Some(MlsTime::now()),
        );
        let group = group.unwrap();
        let group_info = group.group_info_message_allowing_ext_commit(false).unwrap();
        let hub = HubGroup::create(
            &room_id(),
            &hub_key().public(),
            &group_info.to_bytes().unwrap(),
            &group.export_tree().to_bytes().unwrap(),
            &device(name),
        );
        let theirs = vec![Theirs { name, group }];
        Self { hub: hub.unwrap(), ours: Vec::new(), theirs }
    }

    pub fn ours(&mut self, name: &str) -> &mut Ours {
        self.ours.iter_mut().find(|d| d.name == name).unwrap()
    }

    pub fn theirs(&mut self, name: &str) -> &mut Theirs<C> {
        self.theirs.iter_mut().find(|d| d.name == name).unwrap()
    }

    /// The hub takes a commit, by the rules and with the signature; it is stored and loaded.
    pub fn take(&mut self, (update_request, signature): &(Vec<u8>, Vec<u8>)) -> Applied {
        let applied = self.hub.apply(update_request, Some(signature), now()).unwrap();
        delivery::policy::judge(&applied.facts).unwrap();
        self.hub = HubGroup::from_bytes(&applied.group.to_bytes()).unwrap();
        applied
    }

    /// The hub takes a commit, and everybody follows it; who is removed by it sees that and is out.
    pub fn accept(&mut self, bundle: &(Vec<u8>, Vec<u8>)) -> Applied {
        let applied = self.take(bundle);
        self.follow_ours(&applied);
        let stays = |name: &str| applied.facts.members.contains(&device(name));
        let epoch = self.hub.epoch().get();
        for device in self.theirs.iter_mut().filter(|d| d.group.current_epoch() < epoch) {
            match device.process(&applied.commit) {
                ReceivedMessage::Commit(commit) => {
                    let removed = matches!(commit.effect, CommitEffect::Removed { .. });
                    assert_eq!(removed, !stays(device.name), "{}", device.name);
                }
                other => panic!("{} cannot follow: {other:?}", device.name),
            }
        }
        self.theirs.retain(|d| stays(d.name));
        self.agree();
        applied
    }

    pub fn follow_ours(&mut self, applied: &Applied) {
        for device in self.ours.iter_mut().filter(|d| d.group.epoch() < self.hub.epoch()) {
            device.follow(&applied.commit);
        }
        self.ours.retain(|d| d.group.is_member());
    }

    /// A device of ours commits.
    pub fn commit(&mut self, by: &str, change: &Change) -> Applied {
        let bundle = self.ours(by).group.commit(change, now(), &Dice).unwrap();
        self.accept(&(bundle.update_request, bundle.signature))
    }

    /// A device of ours adds an mls-rs client; when it is a new person's, by a commit that changes the participant list.
    pub fn invite(&mut self, by: &str, name: &'static str, client: &Client<C>) {
        let (person, _) = name.split_once('/').unwrap();
        let listed = self.hub.participants().unwrap().role(&user(person)).is_some();
        let added = vec![Participant { user: user(person), role: Role::Member }];
        let participants = ParticipantsUpdate {
            added: if listed { Vec::new() } else { added },
            ..Default::default()
        };
        let change = Change { add: vec![package(client)], participants, ..Default::default() };
        let welcome = self.commit(by, &change).welcome.unwrap();
        assert_eq!(welcome.to[0].1, device(name));
        let joined = Theirs::join(name, client, &welcome.message, &self.hub.tree_bytes());
        self.theirs.push(joined);
        self.agree();
    }

    /// An mls-rs device adds a device of ours.
    pub fn invite_ours(&mut self, by: &str, name: &'static str) {
        let made =
            keypackage::make(Suite::Classic, &identity(name), Use::Once, now(), &Dice).unwrap();
        let output = self.theirs(by).add(&made.public);
        let welcome = self.accept(&bundle_of(by, &output)).welcome.unwrap();
        assert_eq!(welcome.to, [(made.reference, device(name))]);
        let tree = self.hub.tree_bytes();
        let group = Group::join(&room_id(), &welcome.message, &tree, &made.private, identity(name));
        self.ours.push(Ours { name, group: group.unwrap() });
        self.agree();
    }

    /// An mls-rs device enters by an external commit.
    pub fn enter(&mut self, name: &'static str, client: &Client<C>) -> Applied {
        let (device, bundle) = enter(&self.hub, name, client);
        self.theirs.retain(|d| d.name != name);
        self.theirs.push(device);
        self.accept(&bundle)
    }

    /// A device of ours does.
    pub fn enter_ours(&mut self, name: &'static str) -> Applied {
        let (join, request) =
            ExternalJoin::request(&room_id(), Suite::Classic, identity(name), &Dice).unwrap();
        let request = group_info::verify(&request).unwrap();
        let answer = self.hub.seal_group_info(&request, &hub_key()).unwrap();
        let (group, bundle) = join.finish(&answer, &hub_key().public(), &Dice).unwrap();
        self.ours.retain(|d| d.name != name);
        self.ours.push(Ours { name, group });
        self.accept(&(bundle.update_request, bundle.signature))
    }

    /// Everybody sees the same room as the hub, and has the same secrets as everybody else.
    pub fn agree(&self) {
        let members = self.hub.members().unwrap();
        let participants = self.hub.participants().unwrap();
        let mut authenticators = Vec::new();
        for device in &self.ours {
            assert_eq!(device.group.epoch(), self.hub.epoch(), "{}", device.name);
            let seen = device.group.members().unwrap();
            let seen: Vec<_> = seen.iter().map(|m| m.certificate.device().clone()).collect();
            assert_eq!(seen, members, "{}", device.name);
            assert_eq!(device.group.participants().unwrap(), participants, "{}", device.name);
            authenticators.push(device.group.epoch_authenticator());
        }
        for device in &self.theirs {
            assert_eq!(device.group.current_epoch(), self.hub.epoch().get(), "{}", device.name);
            let seen: Vec<_> = device.members().into_iter().flatten().collect();
            assert_eq!(seen, members, "{}", device.name);
            assert_eq!(device.dictionary(), dictionary(&participants), "{}", device.name);
            authenticators.push(device.group.epoch_authenticator().unwrap().as_bytes().to_vec());
        }
        authenticators.dedup();
        assert_eq!(authenticators.len(), 1, "one epoch of one group");
    }

    /// Everybody says something, and everybody else reads it.
    pub fn talk(&mut self) {
        let names: Vec<_> = self.ours.iter().map(|d| d.name).collect();
        for from in names {
            let text = format!("{from} says ä€𝄞");
            let message = self.ours(from).group.encrypt(text.as_bytes(), &Dice).unwrap();
            self.read(&message, from, &text);
        }
        let names: Vec<_> = self.theirs.iter().map(|d| d.name).collect();
        for from in names {
            let text = format!("{from} says something longer than a bucket{}", ".".repeat(300));
            let message = self.theirs(from).send(&text);
            self.read(&message, from, &text);
        }
    }

    pub fn read(&mut self, message: &[u8], from: &str, text: &str) {
        for device in self.ours.iter_mut().filter(|d| d.name != from) {
            assert_eq!(device.reads(message, from), text);
        }
        for device in self.theirs.iter_mut().filter(|d| d.name != from) {
            assert_eq!(device.reads(message, from), text);
        }
    }
}

pub fn renewal() -> Change {
    Change { renew: true, ..Default::default() }
}

pub fn removal(name: &str) -> Change {
    Change { remove: vec![device(name)], ..Default::default() }
}

/// Asks the hub for what a joiner needs, and opens the answer with mls-rs's HPKE alone (PROTOCOL §6.6).
pub fn material(hub: &HubGroup, name: &str) -> GroupInfoRatchetTree {
    let (secret, public) = suite().kem_generate().unwrap();
    let me = identity(name);
    let mut request = GroupInfoRequest {
        suite: u16::from(SUITE),
        signature_key: me.certificate().key().as_bytes().to_vec(),
        credential: Credential::basic(me.certificate().as_bytes()),
        hpke_key: public.to_vec(),
        joining_code: None,
        signature: Vec::new(),
    };
    request.signature = me.key().sign(GroupInfoRequest::LABEL, &request.to_be_signed());
    let request = group_info::verify(&request.encode()).unwrap();
    let response = hub.seal_group_info(&request, &hub_key()).unwrap();

    let GroupInfoAnswer::Success(answer) = GroupInfoResponse::decode(&response).unwrap().answer
    else {
        panic!("the hub says no");
    };
    let signed = GroupInfoResponse::to_be_signed(&room_id(), &answer);
    assert!(hub_key().public().verify(GroupInfoResponse::LABEL, &signed, &answer.signature));
    let label = [b"MLS 1.0 ", GroupInfoRatchetTree::LABEL.as_bytes()].concat();
    let info = [vector(&label), vector(&bound())].concat();
    let sealed = HpkeCiphertext {
        kem_output: answer.sealed.kem_output,
        ciphertext: answer.sealed.ciphertext,
    };
    let opened = suite().hpke_open(&sealed, &secret, &public, &info, None).unwrap();
    GroupInfoRatchetTree::decode(&opened).unwrap()
}

/// An mls-rs device with its own external commit, which takes its earlier leaf along when it has one.
pub fn enter<C: MlsConfig>(
    hub: &HubGroup,
    name: &'static str,
    client: &Client<C>,
) -> (Theirs<C>, (Vec<u8>, Vec<u8>)) {
    let answer = material(hub, name);
    let RatchetTreeOption::Full(tree) = answer.tree else { panic!("the answer has no tree") };
    let tree = ExportedTree::from_bytes(tree.as_slice()).unwrap().into_owned();
    let own = identity(name).certificate().as_bytes().to_vec();
    let mut members = tree.roster().members_iter();
    let earlier =
        members.find(|m| m.signing_identity.credential.as_basic().unwrap().identifier == own);
    let earlier = earlier.map(|m| m.index);
    drop(members);
    let builder = client.external_commit_builder().unwrap();
    let builder = builder.with_authenticated_data(bound()).with_tree_data(tree);
    let builder = match earlier {
        Some(leaf) => builder.with_removal(leaf),
        None => builder,
    };
    let (group, commit) = builder.build(message(&answer.group_info.to_message())).unwrap();
    let group_info = group.group_info_message_allowing_ext_commit(false).unwrap();
    let bundle = bundle(name, &commit, None, &group_info);
    (Theirs { name, group }, bundle)
}
