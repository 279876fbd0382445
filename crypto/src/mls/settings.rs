//! The settings of a room's group, the same for everybody. PROTOCOL §7.2 lists them with the reason for each.

use openmls::component::ComponentData;
use openmls::group::{
    AppDataDictionaryUpdater, AppDataUpdates, GroupContext, GroupId as MlsGroupId,
    MlsGroupCreateConfig, MlsGroupJoinConfig, PURE_PLAINTEXT_WIRE_FORMAT_POLICY,
};
use openmls::prelude::{
    AppDataDictionary, AppDataDictionaryExtension, BasicCredential, Capabilities, Credential,
    Extension, ExtensionType, Extensions, ExternalSender, Lifetime, ProposalType,
    RequiredCapabilitiesExtension, SenderRatchetConfiguration,
};
use protocol::mimi::RequiredCapabilities;
use protocol::room::{PARTICIPANT_LIST, Participants};
use protocol::{Code, Refusal, RoomId, Timestamp, limit};
use tls_codec::{Deserialize as _, VLBytes};

use super::wire;
use crate::{PublicKey, Suite};

/// Epochs whose messages still open after a commit. The library's default is none, which loses every message that was on
/// its way when somebody committed.
pub(crate) const PAST_EPOCHS: usize = 5;
/// How far behind the newest one a message of the same sender may come.
const OUT_OF_ORDER: u32 = 64;
/// How many messages of one sender may be lost before the next. Each costs a hash, so it is bounded.
const FORWARD: u32 = 10_000;

/// What a leaf can do.
pub(crate) fn capabilities() -> Capabilities {
    let suites = Suite::ALL.map(Suite::mls);
    Capabilities::new(
        None,
        Some(&suites),
        // A last-resort KeyPackage is marked by an extension of its own, which its leaf must name.
        Some(&[ExtensionType::AppDataDictionary, ExtensionType::LastResort]),
        Some(&[ProposalType::AppDataUpdate, ProposalType::SelfRemove]),
        None,
    )
}

/// What every leaf must be able to do.
fn required() -> RequiredCapabilitiesExtension {
    RequiredCapabilitiesExtension::new(
        &[ExtensionType::AppDataDictionary],
        &[ProposalType::AppDataUpdate, ProposalType::SelfRemove],
        &[],
    )
}

/// The same, as numbers.
pub(crate) fn required_numbers() -> RequiredCapabilities {
    let required = required();
    RequiredCapabilities {
        extensions: required.extension_types().iter().map(|e| u16::from(*e)).collect(),
        proposals: required.proposal_types().iter().map(|p| u16::from(*p)).collect(),
        credentials: Vec::new(),
    }
}

fn ratchets() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(OUT_OF_ORDER, FORWARD)
}

/// The lifetime of a KeyPackage or of a founder's leaf made `now`.
pub(crate) fn lifetime(now: Timestamp) -> Lifetime {
    let seconds = |t: Timestamp| t.ms() / 1000;
    Lifetime::init(
        seconds(now.before(limit::KEYPACKAGE_BACKDATE)),
        seconds(now.after(limit::KEYPACKAGE_LIFETIME)),
    )
}

pub(crate) fn create(
    suite: Suite,
    context: Extensions<GroupContext>,
    now: Timestamp,
) -> MlsGroupCreateConfig {
    MlsGroupCreateConfig::builder()
        .ciphersuite(suite.mls())
        .capabilities(capabilities())
        .lifetime(lifetime(now))
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .padding_size(limit::PADDING_BYTES)
        .max_past_epochs(PAST_EPOCHS)
        .sender_ratchet_configuration(ratchets())
        .use_ratchet_tree_extension(false)
        .with_group_context_extensions(context)
        .build()
}

pub(crate) fn join() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .padding_size(limit::PADDING_BYTES)
        .max_past_epochs(PAST_EPOCHS)
        .sender_ratchet_configuration(ratchets())
        .use_ratchet_tree_extension(false)
        .build()
}

/// The group id of a room's group.
pub(crate) fn group_id(room: &RoomId) -> MlsGroupId {
    MlsGroupId::from_slice(room.group().as_str().as_bytes())
}

fn hub_credential(room: &RoomId) -> Credential {
    BasicCredential::new(room.hub().uri().into_bytes()).into()
}

/// The group context's extensions of a new room.
pub(crate) fn context(
    room: &RoomId,
    hub_key: &PublicKey,
    participants: &Participants,
) -> Result<Extensions<GroupContext>, crate::Error> {
    let mut dictionary = AppDataDictionary::new();
    dictionary.insert(PARTICIPANT_LIST, participants.encode());
    let hub = ExternalSender::new(hub_key.as_bytes().as_slice().into(), hub_credential(room));
    Extensions::from_vec(vec![
        Extension::RequiredCapabilities(required()),
        Extension::ExternalSenders(vec![hub]),
        Extension::AppDataDictionary(AppDataDictionaryExtension::new(dictionary)),
    ])
    .map_err(|e| crate::Error::Mls(e.to_string()))
}

/// Checks that a group has the settings of a room of ours, and gives the hub's key.
pub(crate) fn check(room: &RoomId, context: &GroupContext) -> Result<PublicKey, Refusal> {
    let bad = |why| Refusal::because(Code::InvalidCommit, format!("the room's settings: {why}"));
    if *context.group_id() != group_id(room) {
        return Err(bad("the group is another room's"));
    }
    if Suite::from_code(context.ciphersuite().into()).is_none() {
        return Err(bad("the cipher suite is not one of ours"));
    }
    let extensions = context.extensions();
    if extensions.required_capabilities() != Some(&required()) {
        return Err(bad("the required capabilities differ"));
    }
    if extensions.iter().count() != 3 {
        return Err(bad("there are other extensions than the three"));
    }
    let dictionary = extensions.app_data_dictionary().ok_or(bad("there is no dictionary"))?;
    let mut components = dictionary.dictionary().entries().map(ComponentData::id);
    if components.next() != Some(PARTICIPANT_LIST) || components.next().is_some() {
        return Err(bad("the dictionary must hold the participant list alone"));
    }
    match extensions.external_senders().map(Vec::as_slice) {
        Some([hub]) => {
            sender_key(hub, &hub_credential(room)).ok_or(bad("the hub's key or name is wrong"))
        }
        _ => Err(bad("the hub must be the only external sender")),
    }
}

/// The key of an external sender with this credential. The library shows neither, so its bytes are read.
fn sender_key(sender: &ExternalSender, credential: &Credential) -> Option<PublicKey> {
    let bytes = wire::encode(sender);
    let mut rest = bytes.as_slice();
    let key = VLBytes::tls_deserialize(&mut rest).ok()?;
    (rest == wire::encode(credential)).then(|| PublicKey::from_slice(key.as_slice()))?
}

/// The participant list in a group context.
pub(crate) fn participants(context: &GroupContext) -> Result<Participants, Refusal> {
    let bad = || Refusal::because(Code::InvalidCommit, "the room has no valid participant list");
    let dictionary = context.extensions().app_data_dictionary().ok_or_else(bad)?;
    let bytes = dictionary.dictionary().get(&PARTICIPANT_LIST).ok_or_else(bad)?;
    Participants::decode(bytes).map_err(|_| bad())
}

/// The dictionary's change that makes `after` the participant list.
pub(crate) fn dictionary_change(
    mut updater: AppDataDictionaryUpdater<'_>,
    after: &Participants,
) -> Option<AppDataUpdates> {
    updater.set(ComponentData::from_parts(PARTICIPANT_LIST, after.encode().into()));
    updater.changes()
}
