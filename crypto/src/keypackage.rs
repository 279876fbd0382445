//! KeyPackages: how others add a device while it is offline. PROTOCOL §6.4.

use std::fmt;

use openmls::prelude::{ExtensionType, KeyPackage, KeyPackageIn, ProposalType, ProtocolVersion};
use protocol::{Code, Entropy, Refusal, Timestamp, limit};

use crate::mls::{self, Provider, Storage, facts, settings, wire};
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
    let storage = Storage::default();
    let provider = Provider::new(&storage, entropy);
    let lifetime = settings::lifetime(now);
    let builder = KeyPackage::builder()
        .leaf_node_capabilities(settings::capabilities())
        .key_package_lifetime(lifetime);
    let builder = match what {
        Use::Once => builder,
        Use::LastResort => builder.mark_as_last_resort(),
    };
    let bundle = builder
        .build(suite.mls(), &provider, identity.key(), identity.credential())
        .map_err(|e| Error::Mls(e.to_string()))?;
    let package = bundle.key_package();
    Ok(Made {
        public: wire::encode(package),
        reference: reference(package)?,
        not_after: seconds(lifetime.not_after()),
        private: storage.into_rows(),
    })
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
        self.not_after >= now.after(limit::KEYPACKAGE_REMAINING)
    }
}

/// Checks a KeyPackage for upload: form, signature, certificate, capabilities, lifetime from `now` on.
///
/// # Errors
/// `BadKeyPackage` or `BadCertificate`.
pub fn inspect(bytes: &[u8], now: Timestamp) -> Result<KeyPackageInfo, Refusal> {
    let (package, info) = parse(bytes)?;
    let lifetime = package.life_time();
    if !lifetime.has_acceptable_range() || info.not_before > now {
        return Err(bad("its lifetime is not one of ours"));
    }
    if !info.lives_long_enough(now) {
        return Err(bad("it expires too soon"));
    }
    Ok(info)
}

/// Reads a KeyPackage and checks form, signature, certificate and capabilities; its lifetime by the system's clock.
pub(crate) fn parse(bytes: &[u8]) -> Result<(KeyPackage, KeyPackageInfo), Refusal> {
    if bytes.len() > limit::KEYPACKAGE_BYTES {
        return Err(Refusal::because(Code::TooLarge, "a key package is too large"));
    }
    let package = wire::decode::<KeyPackageIn>("the key package", bytes)?
        .validate(mls::crypto(), ProtocolVersion::Mls10)
        .map_err(|e| bad(&e.to_string()))?;
    let info = info(&package)?;
    Ok((package, info))
}

/// What a KeyPackage whose signatures the library has verified says.
pub(crate) fn info(package: &KeyPackage) -> Result<KeyPackageInfo, Refusal> {
    let suite = Suite::from_code(package.ciphersuite().into())
        .ok_or(bad("its cipher suite is not one of ours"))?;
    let can = package.leaf_node().capabilities();
    if !can.extensions().contains(&ExtensionType::AppDataDictionary)
        || !can.proposals().contains(&ProposalType::AppDataUpdate)
        || !can.proposals().contains(&ProposalType::SelfRemove)
    {
        return Err(bad("the device lacks a capability that rooms need"));
    }
    let lifetime = package.life_time();
    Ok(KeyPackageInfo {
        reference: reference(package).map_err(|_| bad("it cannot be hashed"))?,
        suite,
        certificate: facts::verify_leaf(package.leaf_node())?,
        not_before: seconds(lifetime.not_before()),
        not_after: seconds(lifetime.not_after()),
        what: if package.last_resort() { Use::LastResort } else { Use::Once },
    })
}

fn reference(package: &KeyPackage) -> Result<KeyPackageRef, Error> {
    let reference = package.hash_ref(mls::crypto()).map_err(|e| Error::Mls(e.to_string()))?;
    KeyPackageRef::from_slice(reference.as_slice())
        .ok_or(Error::Damaged("a hash of another length"))
}

fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_ms(seconds.saturating_mul(1000))
}

fn bad(why: &str) -> Refusal {
    Refusal::because(Code::BadKeyPackage, format!("key package: {why}"))
}
