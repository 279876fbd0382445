//! `keyMaterial`: KeyPackages for every device of one user, for one room (draft-ietf-mimi-protocol-06 section 5.2).

use super::bytes::KeyPackageBytes;
use super::field::{self, Capabilities, Credential};
use super::{MLS10, body};
use crate::tls::{Malformed, Reader, Write};
use crate::{DeviceId, RoomId, UserId, limit};

/// Asks for KeyPackages. Signed by the asking device; the hub relays it as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMaterialRequest {
    /// Who asks.
    pub requesting_user: UserId,
    /// Whose devices.
    pub target_user: UserId,
    /// The room they are wanted for.
    pub room: RoomId,
    /// Cipher suite numbers that will do; not empty.
    pub suites: Vec<u16>,
    /// What the room requires of its members.
    pub required: RequiredCapabilities,
    /// The asking device's MLS signature key.
    pub signature_key: Vec<u8>,
    /// The asking device's credential, under the same key.
    pub credential: Credential,
    /// `SignWithLabel` over [`Self::to_be_signed`] under [`Self::LABEL`]. Empty until signed.
    pub signature: Vec<u8>,
}

body!(KeyMaterialRequest, limit::REQUEST_BYTES);

impl KeyMaterialRequest {
    /// Label of the signature, without the prefix `MLS 1.0 ` that `SignWithLabel` adds.
    pub const LABEL: &str = "KeyMaterialRequestTBS";

    /// What is signed: all but the signature.
    #[must_use]
    pub fn to_be_signed(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(MLS10);
        out.put_vector(self.requesting_user.as_str().as_bytes());
        out.put_vector(self.target_user.as_str().as_bytes());
        out.put_vector(self.room.as_str().as_bytes());
        field::put_numbers(&mut out, &self.suites);
        self.required.write(&mut out);
        out.put_vector(&self.signature_key);
        self.credential.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_raw(&self.to_be_signed());
        out.put_vector(&self.signature);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        field::mls10(r)?;
        let requesting_user = field::user(r)?;
        let target_user = field::user(r)?;
        let room = field::room(r)?;
        let start = *r;
        let suites = field::numbers(r)?;
        if suites.is_empty() {
            return Err(start.fail("no cipher suite will do"));
        }
        Ok(Self {
            requesting_user,
            target_user,
            room,
            suites,
            required: RequiredCapabilities::read(r)?,
            signature_key: field::key(r)?,
            credential: Credential::read(r)?,
            signature: field::signature(r)?,
        })
    }
}

/// An MLS `RequiredCapabilities` (RFC 9420 §11.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequiredCapabilities {
    /// Extension types.
    pub extensions: Vec<u16>,
    /// Proposal types.
    pub proposals: Vec<u16>,
    /// Credential types.
    pub credentials: Vec<u16>,
}

impl RequiredCapabilities {
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let extensions = field::numbers(r)?;
        let proposals = field::numbers(r)?;
        Ok(Self { extensions, proposals, credentials: field::numbers(r)? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        field::put_numbers(out, &self.extensions);
        field::put_numbers(out, &self.proposals);
        field::put_numbers(out, &self.credentials);
    }
}

/// How a request for a user's KeyPackages went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMaterialUserCode {
    /// A KeyPackage for every device.
    Success,
    /// For some devices.
    PartialSuccess,
    /// No common protocol.
    IncompatibleProtocol,
    /// No device has a KeyPackage that fits.
    NoCompatibleMaterial,
    /// No such user.
    UserUnknown,
    /// The user did not agree, or the node does not say why not.
    NoConsent,
    /// The user did not agree to this room.
    NoConsentForThisRoom,
    /// The user is gone.
    UserDeleted,
}

const USER_CODES: [KeyMaterialUserCode; 8] = [
    KeyMaterialUserCode::Success,
    KeyMaterialUserCode::PartialSuccess,
    KeyMaterialUserCode::IncompatibleProtocol,
    KeyMaterialUserCode::NoCompatibleMaterial,
    KeyMaterialUserCode::UserUnknown,
    KeyMaterialUserCode::NoConsent,
    KeyMaterialUserCode::NoConsentForThisRoom,
    KeyMaterialUserCode::UserDeleted,
];

impl KeyMaterialUserCode {
    /// Whether the answer may list devices.
    #[must_use]
    pub const fn lists_clients(self) -> bool {
        match self {
            Self::Success | Self::PartialSuccess | Self::NoCompatibleMaterial => true,
            Self::IncompatibleProtocol
            | Self::UserUnknown
            | Self::NoConsent
            | Self::NoConsentForThisRoom
            | Self::UserDeleted => false,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::PartialSuccess => 1,
            Self::IncompatibleProtocol => 2,
            Self::NoCompatibleMaterial => 3,
            Self::UserUnknown => 4,
            Self::NoConsent => 5,
            Self::NoConsentForThisRoom => 6,
            Self::UserDeleted => 7,
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = *r;
        let code = usize::from(r.u8()?);
        USER_CODES.get(code).copied().ok_or(start.fail("an unknown status of a user"))
    }
}

/// KeyPackages of one user's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMaterialResponse {
    /// How it went.
    pub status: KeyMaterialUserCode,
    /// Whose devices.
    pub user: UserId,
    /// One per device, at most [`limit::DEVICES_PER_USER`]. Empty unless [`KeyMaterialUserCode::lists_clients`].
    pub clients: Vec<ClientKeyMaterial>,
}

body!(KeyMaterialResponse, limit::REQUEST_BYTES);

impl KeyMaterialResponse {
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(MLS10);
        out.put_u8(self.status.code());
        out.put_vector(self.user.as_str().as_bytes());
        out.put_list(&self.clients, |out, client| client.write(out));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        field::mls10(r)?;
        let status = KeyMaterialUserCode::read(r)?;
        let user = field::user(r)?;
        let start = *r;
        let clients = field::list(r, limit::DEVICES_PER_USER, ClientKeyMaterial::read)?;
        if !clients.is_empty() && !status.lists_clients() {
            return Err(start.fail("devices listed under a status that lists none"));
        }
        if clients.iter().any(|c| c.client.user() != user) {
            return Err(start.fail("a device of another user"));
        }
        Ok(Self { status, user, clients })
    }
}

/// One device's part of a [`KeyMaterialResponse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKeyMaterial {
    /// The device.
    pub client: DeviceId,
    /// What there is for it.
    pub outcome: ClientOutcome,
}

/// What there is for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOutcome {
    /// A KeyPackage, handed out this once.
    Success(KeyPackageBytes),
    /// None left.
    Exhausted,
    /// None that fits; perhaps what the device can do.
    NothingCompatible(Option<Capabilities>),
}

impl ClientKeyMaterial {
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(match self.outcome {
            ClientOutcome::Success(_) => 0,
            ClientOutcome::Exhausted => 1,
            ClientOutcome::NothingCompatible(_) => 2,
        });
        out.put_vector(self.client.as_str().as_bytes());
        match &self.outcome {
            ClientOutcome::Success(package) => package.write(out),
            ClientOutcome::Exhausted => {}
            ClientOutcome::NothingCompatible(can) => {
                out.put_optional(can.as_ref(), |out, can| can.write(out));
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = *r;
        let code = r.u8()?;
        let client = field::device(r)?;
        let outcome = match code {
            0 => ClientOutcome::Success(KeyPackageBytes::read(r)?),
            1 => ClientOutcome::Exhausted,
            2 => ClientOutcome::NothingCompatible(field::optional(r, Capabilities::read)?),
            _ => return Err(start.fail("an unknown status of a device")),
        };
        Ok(Self { client, outcome })
    }
}
