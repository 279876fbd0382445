//! The MLS cipher suites a room can have. Ed25519 signatures only (PROTOCOL §7.2).

use openmls::prelude::Ciphersuite;

/// A cipher suite, chosen when a room is created and never changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// `MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519`: every MLS implementation has it.
    #[default]
    Classic,
    /// `MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519`: hybrid, safe against a recording read by a later quantum computer.
    /// The number is provisional, an agreement between our own nodes.
    Hybrid,
}

impl Suite {
    /// Every suite, the preferred one for new rooms first.
    pub const ALL: [Self; 2] = [Self::Classic, Self::Hybrid];

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Classic => 0x0001,
            Self::Hybrid => 0x004F,
        }
    }

    /// The suite with this number, when it is one of ours.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.code() == code)
    }

    pub(crate) const fn mls(self) -> Ciphersuite {
        match self {
            Self::Classic => Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
            Self::Hybrid => Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519,
        }
    }
}
