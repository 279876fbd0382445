//! KeyPackages: how others add a device while it is offline. PROTOCOL §6.4.

use std::fmt;

use protocol::{Entropy, Refusal, Timestamp};

use crate::{Certificate, DeviceIdentity, Error, Rows, Suite};

/// A KeyPackage's `KeyPackageRef` (RFC 9420 §5.2): a hash, 32 bytes in every suite of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPackageRef([u8; 32]);

impl KeyPackageRef {
    /// Wraps the bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Takes a slice of 32 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyPackageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Whether a KeyPackage may be handed out more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Handed out once.
    Once,
    /// Handed out again and again, but only when no other is left.
    LastResort,
}

/// A fresh KeyPackage of our own device.
#[derive(Clone, Debug)]
pub struct Made {
    /// The MLS `KeyPackage`, for the node.
    pub public: Vec<u8>,
    /// Its name.
    pub reference: KeyPackageRef,
    /// The private keys: kept until the package's `not_after`, and given to [`crate::Group::join`].
    pub private: Rows,
    /// The end of its life.
    pub not_after: Timestamp,
}

/// Makes a KeyPackage, valid from `limit::KEYPACKAGE_BACKDATE` before `now` until `limit::KEYPACKAGE_LIFETIME` after.
///
/// # Errors
/// Ours only.
pub fn make(
    suite: Suite,
    identity: &DeviceIdentity,
    what: Use,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<Made, Error> {
    let _ = (suite, identity, what, now, entropy);
    todo!()
}

/// A KeyPackage of somebody, checked.
#[derive(Clone, Debug)]
pub struct KeyPackageInfo {
    /// Its name.
    pub reference: KeyPackageRef,
    /// Its suite.
    pub suite: Suite,
    /// Whose it is; the certificate is for the very key that signed the package.
    pub certificate: Certificate,
    /// The start of its life.
    pub not_before: Timestamp,
    /// The end of its life.
    pub not_after: Timestamp,
    /// Whether it may be handed out more than once.
    pub what: Use,
}

impl KeyPackageInfo {
    /// Whether it lives long enough, from `now` on, to be accepted or handed out (`limit::KEYPACKAGE_REMAINING`).
    #[must_use]
    pub fn lives_long_enough(&self, now: Timestamp) -> bool {
        self.not_after >= now.after(protocol::limit::KEYPACKAGE_REMAINING)
    }
}

/// Checks a KeyPackage for upload: form, signature, certificate, capabilities, lifetime from `now` on.
///
/// # Errors
/// `BadKeyPackage` or `BadCertificate`.
pub fn inspect(bytes: &[u8], now: Timestamp) -> Result<KeyPackageInfo, Refusal> {
    let _ = (bytes, now);
    todo!()
}
