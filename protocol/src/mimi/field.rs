//! Fields that several structs share.

use crate::id::IdError;
use crate::limit;
use crate::mls;
use crate::tls::{Malformed, Reader, Write};
use crate::{DeviceId, RoomId, UserId};

type Read<T> = Result<T, Malformed>;

pub(super) fn mls10(r: &mut Reader<'_>) -> Read<()> {
    let start = *r;
    if r.u8()? == super::MLS10 { Ok(()) } else { Err(start.fail("a protocol other than MLS 1.0")) }
}

/// `IdentifierUri`, of the one kind that `parse` takes.
fn uri<T>(
    r: &mut Reader<'_>,
    parse: fn(&str) -> Result<T, IdError>,
    what: &'static str,
) -> Read<T> {
    let start = *r;
    let bytes = r.vector_max(limit::URI_BYTES)?;
    std::str::from_utf8(bytes).ok().and_then(|t| parse(t).ok()).ok_or(start.fail(what))
}

pub(super) fn user(r: &mut Reader<'_>) -> Read<UserId> {
    uri(r, UserId::parse, "not the name of a user")
}

pub(super) fn device(r: &mut Reader<'_>) -> Read<DeviceId> {
    uri(r, DeviceId::parse, "not the name of a device")
}

pub(super) fn room(r: &mut Reader<'_>) -> Read<RoomId> {
    uri(r, RoomId::parse, "not the name of a room")
}

/// `uint16 x<V>`.
pub(super) fn numbers(r: &mut Reader<'_>) -> Read<Vec<u16>> {
    let start = *r;
    let mut list = r.list()?;
    if list.rest().len() > 2 * limit::MLS_NUMBERS {
        return Err(Malformed::over_limit("a list over its limit", start.at()));
    }
    let mut out = Vec::new();
    while !list.is_empty() {
        out.push(list.u16()?);
    }
    Ok(out)
}

pub(super) fn put_numbers(out: &mut Vec<u8>, numbers: &[u16]) {
    out.put_list(numbers, |out, n| out.put_u16(*n));
}

/// `T x<V>` of at most `max` items.
pub(super) fn list<'a, T>(
    r: &mut Reader<'a>,
    max: usize,
    read: impl Fn(&mut Reader<'a>) -> Read<T>,
) -> Read<Vec<T>> {
    let mut items = r.list()?;
    let mut out = Vec::new();
    while !items.is_empty() {
        if out.len() == max {
            return Err(Malformed::over_limit("a list over its limit", items.at()));
        }
        out.push(read(&mut items)?);
    }
    Ok(out)
}

pub(super) fn optional<'a, T>(
    r: &mut Reader<'a>,
    read: impl Fn(&mut Reader<'a>) -> Read<T>,
) -> Read<Option<T>> {
    r.optional()?.then(|| read(r)).transpose()
}

pub(super) fn signature(r: &mut Reader<'_>) -> Read<Vec<u8>> {
    r.vector_max(limit::SIGNATURE_BYTES).map(<[u8]>::to_vec)
}

pub(super) fn key(r: &mut Reader<'_>) -> Read<Vec<u8>> {
    r.vector_max(limit::PUBLIC_KEY_BYTES).map(<[u8]>::to_vec)
}

/// An MLS `Credential` (RFC 9420 §5.3), as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    kind: u16,
    content: Vec<u8>,
}

impl Credential {
    /// A basic credential; here the identity is a device certificate (PROTOCOL §7.1), of at most
    /// [`limit::CREDENTIAL_BYTES`].
    #[must_use]
    pub fn basic(identity: impl Into<Vec<u8>>) -> Self {
        Self { kind: BASIC, content: identity.into() }
    }

    /// The identity, when it is a basic credential.
    #[must_use]
    pub fn identity(&self) -> Option<&[u8]> {
        (self.kind == BASIC).then_some(&self.content)
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Read<Self> {
        let mut walked = *r;
        mls::credential(&mut walked)?;
        let kind = r.u16()?;
        let content = r.vector_max(limit::CREDENTIAL_BYTES)?.to_vec();
        Ok(Self { kind, content })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u16(self.kind);
        out.put_vector(&self.content);
    }
}

/// An MLS `Capabilities` (RFC 9420 §7.2): numbers that a device understands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Protocol versions.
    pub versions: Vec<u16>,
    /// Cipher suites.
    pub suites: Vec<u16>,
    /// Extension types.
    pub extensions: Vec<u16>,
    /// Proposal types.
    pub proposals: Vec<u16>,
    /// Credential types.
    pub credentials: Vec<u16>,
}

impl Capabilities {
    pub(super) fn read(r: &mut Reader<'_>) -> Read<Self> {
        Ok(Self {
            versions: numbers(r)?,
            suites: numbers(r)?,
            extensions: numbers(r)?,
            proposals: numbers(r)?,
            credentials: numbers(r)?,
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put_numbers(out, &self.versions);
        put_numbers(out, &self.suites);
        put_numbers(out, &self.extensions);
        put_numbers(out, &self.proposals);
        put_numbers(out, &self.credentials);
    }
}

const BASIC: u16 = 1;
