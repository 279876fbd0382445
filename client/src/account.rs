//! The person and the device this store belongs to.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::{Clock, DeviceId, Domain, Entropy, Timestamp, UserId};

use crate::clock::{SystemClock, SystemEntropy};

/// How the store's values are sealed at rest.
#[derive(Clone)]
pub enum Seal {
    /// Under a key that argon2id derives from this passphrase.
    Passphrase(String),
    /// Under a random key in the file `seal.key` (mode 0600) next to the store: guards a copy of the database without
    /// that file, not a copy of the whole folder.
    KeyFile,
    /// Not at all: anybody who reads the file reads the messages.
    Unsealed,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "Passphrase(…)",
            Self::KeyFile => "KeyFile",
            Self::Unsealed => "Unsealed",
        })
    }
}

/// Time and chance, from outside.
#[derive(Clone)]
pub struct World {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable bytes.
    pub entropy: Arc<dyn Entropy>,
}

impl World {
    /// The system's own.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy) }
    }
}

/// Where a client lives.
#[derive(Clone)]
pub struct Place {
    /// Its folder; made with mode 0700 when missing.
    pub dir: PathBuf,
    /// How its values are sealed.
    pub seal: Seal,
    /// Its clock and entropy.
    pub world: World,
}

impl Place {
    /// A folder with the system's clock and entropy.
    #[must_use]
    pub fn new(dir: &Path, seal: Seal) -> Self {
        Self { dir: dir.to_owned(), seal, world: World::system() }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({}, {:?})", self.dir.display(), self.seal)
    }
}

/// What [`crate::Client::register`] needs.
pub struct Registration<'a> {
    /// The `waxwing-invite:…` line.
    pub line: &'a str,
    /// The wanted name, without domain.
    pub name: &'a str,
    /// 8 to 1,024 bytes.
    pub password: &'a str,
    /// What the person calls the device; at most 64 bytes.
    pub device_name: &'a str,
}

impl fmt::Debug for Registration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration({}, {})", self.name, self.device_name)
    }
}

/// What [`crate::Client::link`] needs.
pub struct Linking<'a> {
    /// The `waxwing-device:…` line.
    pub line: &'a str,
    /// The person's password.
    pub password: &'a str,
    /// What the person calls the device; at most 64 bytes.
    pub device_name: &'a str,
}

impl fmt::Debug for Linking<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linking({})", self.device_name)
    }
}

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhoAmI {
    /// The person.
    pub user: UserId,
    /// This device.
    pub device: DeviceId,
    /// What the person calls it.
    pub device_name: String,
    /// The person's node.
    pub node: Domain,
    /// Host or address the node is dialled at.
    pub host: String,
    /// Port the node is dialled at.
    pub port: u16,
    /// The node's key, pinned from the line.
    pub node_key: [u8; 32],
    /// The person's Ed25519 identity key, as contacts pin it.
    pub identity_key: [u8; 32],
}

/// One device of the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name on the wire.
    pub device: DeviceId,
    /// What the person calls it.
    pub name: String,
    /// When it signed in first.
    pub created: Timestamp,
    /// When it was connected last, to the minute.
    pub seen: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// Whether it is the one that asks.
    pub this: bool,
}
