//! The walk itself: one function per structure of RFC 9420, named like it, each ending where the structure ends.
//!
//! Lists are loops, and the structures nest to a fixed depth, so hostile input cannot deepen the stack.

use super::{
    ContentType, Frame, GroupInfoFrame, KeyPackageFrame, Message, Sender, TreeFrame, WelcomeFrame,
    WireFormat,
};
use crate::Epoch;
use crate::tls::{Malformed, Reader};

type Read<T> = Result<T, Malformed>;

// RFC 9420 §6
pub(super) fn message<'a>(r: &mut Reader<'a>) -> Read<Message<'a>> {
    let start = *r;
    if r.u16()? != MLS10 {
        return Err(start.fail("not MLS 1.0"));
    }
    match r.u16()? {
        1 => public_message(r, start.at()).map(Message::Frame),
        2 => private_message(r, start.at()).map(Message::Frame),
        3 => welcome(r).map(Message::Welcome),
        4 => group_info(r).map(Message::GroupInfo),
        5 => key_package(r).map(Message::KeyPackage),
        _ => Err(start.fail("an unknown wire format")),
    }
}

// RFC 9420 §6, §6.2
fn public_message<'a>(r: &mut Reader<'a>, start: usize) -> Read<Frame<'a>> {
    let group_id = r.vector()?;
    let epoch = Epoch::new(r.u64()?);
    let sender = sender(r)?;
    let authenticated_data = r.vector()?;
    let kind = *r;
    let content_type = content_type(r)?;
    match content_type {
        // RFC 9420 §6.2: application data is never sent in the clear.
        ContentType::Application => return Err(kind.fail("application data in a PublicMessage")),
        ContentType::Proposal => proposal(r)?,
        ContentType::Commit => commit(r)?,
    }
    let _signature = r.vector()?;
    if content_type == ContentType::Commit {
        let _confirmation_tag = r.vector()?;
    }
    if matches!(sender, Sender::Member(_)) {
        let _membership_tag = r.vector()?;
    }
    let wire_format = WireFormat::Public;
    let bytes = r.since(start);
    let sender = Some(sender);
    Ok(Frame { wire_format, group_id, epoch, content_type, authenticated_data, sender, bytes })
}

// RFC 9420 §6.3
fn private_message<'a>(r: &mut Reader<'a>, start: usize) -> Read<Frame<'a>> {
    let group_id = r.vector()?;
    let epoch = Epoch::new(r.u64()?);
    let content_type = content_type(r)?;
    let authenticated_data = r.vector()?;
    let _encrypted_sender_data = r.vector()?;
    let _ciphertext = r.vector()?;
    let wire_format = WireFormat::Private;
    let bytes = r.since(start);
    let sender = None;
    Ok(Frame { wire_format, group_id, epoch, content_type, authenticated_data, sender, bytes })
}

fn content_type(r: &mut Reader<'_>) -> Read<ContentType> {
    let start = *r;
    match r.u8()? {
        1 => Ok(ContentType::Application),
        2 => Ok(ContentType::Proposal),
        3 => Ok(ContentType::Commit),
        _ => Err(start.fail("an unknown content type")),
    }
}

fn sender(r: &mut Reader<'_>) -> Read<Sender> {
    let start = *r;
    match r.u8()? {
        1 => r.u32().map(Sender::Member),
        2 => r.u32().map(Sender::External),
        3 => Ok(Sender::NewMemberProposal),
        4 => Ok(Sender::NewMemberCommit),
        _ => Err(start.fail("an unknown kind of sender")),
    }
}

// RFC 9420 §12.1; 8 to 10 are in draft-ietf-mls-extensions.
fn proposal(r: &mut Reader<'_>) -> Read<()> {
    let start = *r;
    match r.u16()? {
        1 => key_package(r).map(drop),
        2 => leaf_node(r),
        3 => r.u32().map(drop),
        4 => pre_shared_key_id(r),
        5 => {
            let _group_id = r.vector()?;
            let _version = r.u16()?;
            let _suite = r.u16()?;
            extensions(r)
        }
        6 => r.vector().map(drop),
        7 => extensions(r),
        0x0008 => app_data_update(r),
        0x0009 => {
            let _component = r.u16()?;
            r.vector().map(drop)
        }
        0x000a => Ok(()),
        _ => Err(start.fail("an unknown proposal")),
    }
}

fn app_data_update(r: &mut Reader<'_>) -> Read<()> {
    let _component = r.u16()?;
    let operation = *r;
    match r.u8()? {
        1 => r.vector().map(drop),
        2 => Ok(()),
        _ => Err(operation.fail("an AppDataUpdate that neither updates nor removes")),
    }
}

// RFC 9420 §8.4; type 3 is in draft-ietf-mls-extensions.
fn pre_shared_key_id(r: &mut Reader<'_>) -> Read<()> {
    let start = *r;
    match r.u8()? {
        1 => {}
        2 => {
            let _usage = r.u8()?;
            let _group_id = r.vector()?;
            let _epoch = r.u64()?;
            return r.vector().map(drop);
        }
        3 => {
            let _component = r.u16()?;
        }
        _ => return Err(start.fail("an unknown kind of pre-shared key")),
    }
    let _id = r.vector()?;
    r.vector().map(drop)
}

// RFC 9420 §12.4
fn commit(r: &mut Reader<'_>) -> Read<()> {
    let mut proposals = r.list()?;
    while !proposals.is_empty() {
        let start = proposals;
        match proposals.u8()? {
            1 => proposal(&mut proposals)?,
            2 => {
                let _reference = proposals.vector()?;
            }
            _ => return Err(start.fail("neither a proposal nor a reference to one")),
        }
    }
    if r.optional()? {
        update_path(r)?;
    }
    Ok(())
}

// RFC 9420 §7.6
fn update_path(r: &mut Reader<'_>) -> Read<()> {
    leaf_node(r)?;
    let mut nodes = r.list()?;
    while !nodes.is_empty() {
        let _encryption_key = nodes.vector()?;
        let mut secrets = nodes.list()?;
        while !secrets.is_empty() {
            hpke_ciphertext(&mut secrets)?;
        }
    }
    Ok(())
}

// RFC 9420 §7.6
fn hpke_ciphertext(r: &mut Reader<'_>) -> Read<()> {
    let _kem_output = r.vector()?;
    r.vector().map(drop)
}

// RFC 9420 §10
pub(super) fn key_package<'a>(r: &mut Reader<'a>) -> Read<KeyPackageFrame<'a>> {
    let start = *r;
    if r.u16()? != MLS10 {
        return Err(start.fail("not MLS 1.0"));
    }
    let suite = r.u16()?;
    let _init_key = r.vector()?;
    leaf_node(r)?;
    extensions(r)?;
    let _signature = r.vector()?;
    Ok(KeyPackageFrame { suite, bytes: r.since(start.at()) })
}

// RFC 9420 §7.2
fn leaf_node(r: &mut Reader<'_>) -> Read<()> {
    let _encryption_key = r.vector()?;
    let _signature_key = r.vector()?;
    credential(r)?;
    capabilities(r)?;
    let source = *r;
    match r.u8()? {
        1 => {
            let _not_before = r.u64()?;
            let _not_after = r.u64()?;
        }
        2 => {}
        3 => {
            let _parent_hash = r.vector()?;
        }
        _ => return Err(source.fail("a leaf of an unknown source")),
    }
    extensions(r)?;
    r.vector().map(drop)
}

/// RFC 9420 §5.3. Every kind there is consists of one vector: an identity, or a chain of certificates.
pub(crate) fn credential(r: &mut Reader<'_>) -> Read<()> {
    let _kind = r.u16()?;
    r.vector().map(drop)
}

// RFC 9420 §7.2: versions, suites, extensions, proposals, credentials.
fn capabilities(r: &mut Reader<'_>) -> Read<()> {
    for _ in 0..5 {
        let mut numbers = r.list()?;
        while !numbers.is_empty() {
            let _number = numbers.u16()?;
        }
    }
    Ok(())
}

// RFC 9420 §7.2
fn extensions(r: &mut Reader<'_>) -> Read<()> {
    let mut list = r.list()?;
    while !list.is_empty() {
        let _kind = list.u16()?;
        let _data = list.vector()?;
    }
    Ok(())
}

// RFC 9420 §12.4.3.1
pub(super) fn welcome<'a>(r: &mut Reader<'a>) -> Read<WelcomeFrame<'a>> {
    let start = r.at();
    let suite = r.u16()?;
    let mut list = r.list()?;
    let secrets = list.rest();
    while !list.is_empty() {
        group_secrets(&mut list)?;
    }
    let _encrypted_group_info = r.vector()?;
    Ok(WelcomeFrame { suite, bytes: r.since(start), secrets })
}

/// One `EncryptedGroupSecrets`; gives its KeyPackageRef.
pub(super) fn group_secrets<'a>(r: &mut Reader<'a>) -> Read<&'a [u8]> {
    let new_member = r.vector()?;
    hpke_ciphertext(r)?;
    Ok(new_member)
}

// RFC 9420 §12.4.3, §8.1
pub(super) fn group_info<'a>(r: &mut Reader<'a>) -> Read<GroupInfoFrame<'a>> {
    let start = *r;
    if r.u16()? != MLS10 {
        return Err(start.fail("not MLS 1.0"));
    }
    let suite = r.u16()?;
    let group_id = r.vector()?;
    let epoch = Epoch::new(r.u64()?);
    let _tree_hash = r.vector()?;
    let _confirmed_transcript_hash = r.vector()?;
    extensions(r)?;
    extensions(r)?;
    let _confirmation_tag = r.vector()?;
    let signer = r.u32()?;
    let _signature = r.vector()?;
    Ok(GroupInfoFrame { suite, group_id, epoch, signer, bytes: r.since(start.at()) })
}

// RFC 9420 §12.4.3.3, §7.1
pub(super) fn tree<'a>(r: &mut Reader<'a>) -> Read<TreeFrame<'a>> {
    let start = r.at();
    let mut nodes = r.list()?;
    let mut leaves = 0;
    while !nodes.is_empty() {
        if !nodes.optional()? {
            continue;
        }
        let kind = nodes;
        match nodes.u8()? {
            1 => {
                leaf_node(&mut nodes)?;
                leaves += 1;
            }
            2 => parent_node(&mut nodes)?,
            _ => return Err(kind.fail("a node that is neither a leaf nor a parent")),
        }
    }
    Ok(TreeFrame { leaves, bytes: r.since(start) })
}

fn parent_node(r: &mut Reader<'_>) -> Read<()> {
    let _encryption_key = r.vector()?;
    let _parent_hash = r.vector()?;
    let mut unmerged = r.list()?;
    while !unmerged.is_empty() {
        let _leaf = unmerged.u32()?;
    }
    Ok(())
}

const MLS10: u16 = 1;
