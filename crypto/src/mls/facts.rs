//! What a commit does, read from the commit itself: the same reading at the hub and at every member.
//!
//! The library has verified signatures and MLS's own rules by then. This adds ours: certificates on every leaf, and only the
//! proposals that PROTOCOL §7.2 knows. Whether the people may do what they do is `delivery::policy`'s question.

use std::collections::{BTreeMap, BTreeSet};

use openmls::group::{GroupContext, QueuedProposal, StagedCommit};
use openmls::prelude::{
    AppDataUpdateOperation, AppDataUpdateProposal, BasicCredential, Credential, KeyPackage,
    LeafNode, Member, Proposal, ProposalOrRefType, Sender,
};
use protocol::room::{CommitFacts, PARTICIPANT_LIST, Participants, ParticipantsUpdate};
use protocol::{Code, DeviceId, Refusal, UserId, limit};

use super::settings;
use crate::{Certificate, PublicKey};

/// Who sits on which leaf.
pub(crate) type Roster = BTreeMap<u32, Certificate>;

fn invalid(why: &str) -> Refusal {
    Refusal::because(Code::InvalidCommit, why)
}

/// The certificate in a credential, read and not verified: for leaves that were verified when they came in.
pub(crate) fn certificate(credential: &Credential) -> Result<Certificate, Refusal> {
    Certificate::read(identity(credential)?.identity())
}

fn identity(credential: &Credential) -> Result<BasicCredential, Refusal> {
    BasicCredential::try_from(credential.clone())
        .map_err(|_| Refusal::because(Code::BadCertificate, "the leaf has no device certificate"))
}

/// Verifies that a leaf carries a device certificate and that it is for the leaf's own key.
pub(crate) fn verify(credential: &Credential, key: &[u8]) -> Result<Certificate, Refusal> {
    let certificate = Certificate::verify(identity(credential)?.identity())?;
    if certificate.key().as_bytes() == key {
        Ok(certificate)
    } else {
        Err(Refusal::because(Code::BadCertificate, "the device certificate is for another key"))
    }
}

pub(crate) fn verify_leaf(leaf: &LeafNode) -> Result<Certificate, Refusal> {
    verify(leaf.credential(), leaf.signature_key().as_slice())
}

/// Everybody in a tree, read and not verified.
pub(crate) fn roster(members: impl Iterator<Item = Member>) -> Result<Roster, Refusal> {
    members.map(|m| Ok((m.index.u32(), certificate(&m.credential)?))).collect()
}

/// Everybody in a tree, every certificate verified, no device twice.
pub(crate) fn verified_roster(members: impl Iterator<Item = Member>) -> Result<Roster, Refusal> {
    let verified = |m: Member| Ok((m.index.u32(), verify(&m.credential, &m.signature_key)?));
    let roster: Roster = members.map(verified).collect::<Result<_, Refusal>>()?;
    no_device_twice(roster.values().map(Certificate::device))?;
    Ok(roster)
}

fn no_device_twice<'a>(devices: impl Iterator<Item = &'a DeviceId>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for device in devices {
        if !seen.insert(device) {
            return Err(invalid("a device is in the room twice"));
        }
    }
    Ok(())
}

/// Who comes in must have the identity of their person's other devices. Otherwise a node could make a device for one of its users that
/// every client distrusts, and so hold the room for everybody. Somebody with a new identity is removed first, with every device.
fn one_identity_each<'a>(
    stay: impl Iterator<Item = &'a Certificate>,
    come: impl Iterator<Item = &'a Certificate>,
) -> Result<(), Refusal> {
    let mut known: BTreeMap<UserId, PublicKey> = BTreeMap::new();
    for certificate in stay {
        known.entry(certificate.user()).or_insert(*certificate.identity());
    }
    for certificate in come {
        let identity = known.entry(certificate.user()).or_insert(*certificate.identity());
        if identity != certificate.identity() {
            return Err(Refusal::because(
                Code::BadCertificate,
                "a device is confirmed by another identity than its person's devices in the room",
            ));
        }
    }
    Ok(())
}

/// The participant list after the updates in a commit.
pub(crate) fn participants_after<'a>(
    before: &Participants,
    updates: impl Iterator<Item = &'a AppDataUpdateProposal>,
) -> Result<Participants, Refusal> {
    let mut after = before.clone();
    for (n, update) in updates.enumerate() {
        if n == limit::LIST_UPDATES_PER_COMMIT {
            return Err(Refusal::because(Code::TooLarge, "it changes the list too many times"));
        }
        if update.component_id() != PARTICIPANT_LIST {
            return Err(invalid("it changes a component other than the participant list"));
        }
        let AppDataUpdateOperation::Update(data) = update.operation() else {
            return Err(invalid("it removes the participant list"));
        };
        let change = ParticipantsUpdate::decode(data.as_slice());
        after = change.and_then(|c| after.apply(&c)).map_err(|e| invalid(&e.to_string()))?;
    }
    Ok(after)
}

/// A device that a commit adds, and the KeyPackage it is added by.
pub(crate) struct Added {
    pub(crate) certificate: Certificate,
    pub(crate) package: KeyPackage,
}

/// A commit, read.
pub(crate) struct Reading {
    pub(crate) facts: CommitFacts,
    /// The committer's leaf after the commit.
    pub(crate) leaf: u32,
    /// The committer's key after the commit.
    pub(crate) key: PublicKey,
    pub(crate) added: Vec<Added>,
    /// Leaves that go.
    pub(crate) gone: BTreeSet<u32>,
    /// Certificates that come in with new or renewed leaves.
    pub(crate) certificates: Vec<Certificate>,
}

/// Where a commit is read from.
pub(crate) struct Source<'a> {
    pub(crate) staged: &'a StagedCommit,
    pub(crate) sender: &'a Sender,
    /// The leaf an external committer gets.
    pub(crate) external_leaf: u32,
    pub(crate) roster: &'a Roster,
    pub(crate) context: &'a GroupContext,
}

#[derive(Default)]
struct Changes {
    added: Vec<Added>,
    removed: Vec<DeviceId>,
    left: Vec<DeviceId>,
    expelled: Vec<DeviceId>,
    gone: BTreeSet<u32>,
}

pub(crate) fn read(source: &Source<'_>) -> Result<Reading, Refusal> {
    let (committer, leaf, fresh) = committer(source)?;
    let external = matches!(source.sender, Sender::NewMemberCommit);
    let mut changes = Changes::default();
    for proposal in source.staged.queued_proposals() {
        changes.note(proposal, source, committer.device())?;
    }
    if changes.added.len() > limit::ADDS_PER_COMMIT {
        return Err(Refusal::because(Code::TooLarge, "the commit adds too many devices"));
    }

    let stay = source.roster.iter().filter(|(leaf, _)| !changes.gone.contains(leaf));
    let joined = external.then(|| committer.device().clone());
    let added: Vec<DeviceId> =
        changes.added.iter().map(|a| a.certificate.device().clone()).chain(joined).collect();
    let members: Vec<DeviceId> =
        stay.map(|(_, c)| c.device().clone()).chain(added.iter().cloned()).collect();
    no_device_twice(members.iter())?;
    let stay = source.roster.iter().filter(|(leaf, _)| !changes.gone.contains(leaf));
    let come = changes.added.iter().map(|a| &a.certificate).chain(external.then_some(&committer));
    one_identity_each(stay.map(|(_, c)| c), come)?;
    if members.len() > limit::DEVICES_PER_ROOM {
        return Err(Refusal::because(Code::TooLarge, "the room would have too many devices"));
    }

    let key = *committer.key();
    let certificates = changes.added.iter().map(|a| a.certificate.clone());
    let certificates = certificates.chain(fresh.then(|| committer.clone())).collect();
    let facts = CommitFacts {
        committer: committer.device().clone(),
        external,
        added,
        removed: changes.removed,
        left: changes.left,
        expelled: changes.expelled,
        before: settings::participants(source.context)?,
        after: settings::participants(source.staged.group_context())?,
        members,
    };
    Ok(Reading { facts, leaf, key, added: changes.added, gone: changes.gone, certificates })
}

/// Who commits, on which leaf, and whether with a new leaf.
fn committer(source: &Source<'_>) -> Result<(Certificate, u32, bool), Refusal> {
    let path = source.staged.update_path_leaf_node();
    match source.sender {
        Sender::Member(index) => {
            let old = source.roster.get(&index.u32()).ok_or(invalid("nobody sits on that leaf"))?;
            let Some(path) = path else { return Ok((old.clone(), index.u32(), false)) };
            let new = verify_leaf(path)?;
            // Another identity is another person: that takes a removal and an addition.
            if new.device() != old.device() || new.identity() != old.identity() {
                return Err(Refusal::because(
                    Code::BadCertificate,
                    "a device cannot take over another one's leaf",
                ));
            }
            Ok((new, index.u32(), true))
        }
        Sender::NewMemberCommit => {
            let path = path.ok_or(invalid("a join without a new leaf"))?;
            Ok((verify_leaf(path)?, source.external_leaf, true))
        }
        Sender::External(_) | Sender::NewMemberProposal => {
            Err(invalid("only a member or a joiner can commit"))
        }
    }
}

impl Changes {
    fn note(
        &mut self,
        proposal: &QueuedProposal,
        source: &Source<'_>,
        committer: &DeviceId,
    ) -> Result<(), Refusal> {
        let own = proposal.proposal_or_ref_type() == ProposalOrRefType::Proposal;
        match proposal.proposal() {
            Proposal::Add(add) if own => {
                let certificate = verify_leaf(add.key_package().leaf_node())?;
                self.added.push(Added { certificate, package: add.key_package().clone() });
                Ok(())
            }
            Proposal::Remove(remove) => {
                let leaf = remove.removed().u32();
                let device = self.take(source, leaf)?;
                match word(source.roster, proposal.sender(), &device) {
                    Word::Hub => self.expelled.push(device),
                    Word::Owner if !own => self.left.push(device),
                    // A joiner may take its own earlier leaf along, and no other.
                    Word::Joiner if device != *committer => {
                        return Err(invalid("a join can only replace the joiner's own leaf"));
                    }
                    Word::Other if !own => {
                        return Err(invalid(
                            "it carries out somebody's proposal to remove another",
                        ));
                    }
                    Word::Owner | Word::Joiner | Word::Other => {
                        self.removed.push(device);
                    }
                }
                Ok(())
            }
            Proposal::SelfRemove => {
                let Sender::Member(leaf) = proposal.sender() else {
                    return Err(invalid("only a member can leave"));
                };
                let device = self.take(source, leaf.u32())?;
                self.left.push(device);
                Ok(())
            }
            Proposal::AppDataUpdate(_) | Proposal::ExternalInit(_) if own => Ok(()),
            _ => Err(invalid("it carries a proposal that rooms do not have")),
        }
    }

    /// Takes the device off its leaf.
    fn take(&mut self, source: &Source<'_>, leaf: u32) -> Result<DeviceId, Refusal> {
        let device = source.roster.get(&leaf).ok_or(invalid("it removes an empty leaf"))?.device();
        if self.gone.insert(leaf) {
            Ok(device.clone())
        } else {
            Err(invalid("it removes a device twice"))
        }
    }
}

/// On whose word a device goes.
enum Word {
    /// The hub's.
    Hub,
    /// Its own user's.
    Owner,
    /// A joiner's, in its external commit.
    Joiner,
    /// Somebody else's.
    Other,
}

fn word(roster: &Roster, sender: &Sender, device: &DeviceId) -> Word {
    match sender {
        Sender::External(_) => Word::Hub,
        Sender::NewMemberCommit => Word::Joiner,
        Sender::Member(by) => match roster.get(&by.u32()) {
            Some(by) if by.user() == device.user() => Word::Owner,
            _ => Word::Other,
        },
        Sender::NewMemberProposal => Word::Other,
    }
}

/// Who is to go by a standalone proposal, and on whose word.
pub(crate) struct Departure {
    pub(crate) leaf: u32,
    /// Whether it is the leaf's own SelfRemove, which an external commit can carry too.
    pub(crate) own: bool,
    pub(crate) device: DeviceId,
    /// The proposing device; none when it is the hub.
    pub(crate) by: Option<DeviceId>,
}

/// Reads a standalone proposal; refuses whatever is not a departure.
pub(crate) fn departure(roster: &Roster, proposal: &QueuedProposal) -> Result<Departure, Refusal> {
    let refuse = || Refusal::because(Code::NotAllowed, "only a departure can be proposed");
    let by = match proposal.sender() {
        Sender::Member(by) => Some(roster.get(&by.u32()).ok_or_else(refuse)?.device().clone()),
        Sender::External(_) => None,
        Sender::NewMemberCommit | Sender::NewMemberProposal => return Err(refuse()),
    };
    let leaf = match (proposal.proposal(), proposal.sender()) {
        (Proposal::SelfRemove, Sender::Member(by)) => by.u32(),
        (Proposal::Remove(remove), _) => remove.removed().u32(),
        _ => return Err(refuse()),
    };
    let device = roster.get(&leaf).ok_or_else(refuse)?.device().clone();
    match word(roster, proposal.sender(), &device) {
        Word::Hub | Word::Owner => Ok(Departure {
            leaf,
            own: matches!(proposal.proposal(), Proposal::SelfRemove),
            device,
            by,
        }),
        Word::Joiner | Word::Other => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_changes_the_list_over_and_over_is_refused() {
        let list = Participants::founded_by(UserId::parse("mimi://a.example/u/ana").unwrap());
        let nothing = ParticipantsUpdate::default().encode();
        let one = AppDataUpdateProposal::update(PARTICIPANT_LIST, nothing);
        let after = |n| participants_after(&list, std::iter::repeat_n(&one, n));
        assert_eq!(after(16).unwrap(), list);
        assert_eq!(after(17).unwrap_err().code, Code::TooLarge);
    }
}
