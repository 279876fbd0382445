//! Logs: entries with gapless numbers and a chain over them that makes a hub's order checkable.

use sha2::{Digest as _, Sha256};

use crate::{Incarnation, RoomId, Seq, Timestamp};

/// What an entry is. The numbers are on the wire and in the database. PROTOCOL §4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// An MLS PrivateMessage with application content.
    Application,
    /// A PublicMessage with one or more proposals.
    Proposal,
    /// A PublicMessage with a commit.
    Commit,
    /// A Welcome; it follows the commit that made it.
    Welcome,
    /// An item of a device's inbox, [`crate::api::InboxItem`].
    Item,
}

impl EntryKind {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Application => 1,
            Self::Proposal => 2,
            Self::Commit => 3,
            Self::Welcome => 4,
            Self::Item => 5,
        }
    }

    /// The kind with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Application,
            2 => Self::Proposal,
            3 => Self::Commit,
            4 => Self::Welcome,
            5 => Self::Item,
            _ => return None,
        })
    }
}

/// SHA-256 over an entry: `H(kind:u8 ‖ at_ms:u64 ‖ body)`, big-endian. PROTOCOL §4.3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Wraps the bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of an entry.
    #[must_use]
    pub fn of_entry(kind: EntryKind, at: Timestamp, body: &[u8]) -> Self {
        let mut h = Sha256::new();
        h.update([kind.code()]);
        h.update(at.ms().to_be_bytes());
        h.update(body);
        Self(h.finalize().into())
    }

    /// The digest of exact bytes: the key under which a peer's submission is remembered (PROTOCOL §5.2).
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// The running hash over a log. PROTOCOL §4.3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Chain([u8; 32]);

impl Chain {
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

    /// `chain(0) = H("waxwing chain 1" ‖ incarnation ‖ room URI)`.
    #[must_use]
    pub fn start(incarnation: &Incarnation, room: &RoomId) -> Self {
        let mut h = Sha256::new();
        h.update(b"waxwing chain 1");
        h.update(incarnation.as_bytes());
        h.update(room.as_str().as_bytes());
        Self(h.finalize().into())
    }

    /// `chain(n) = H(chain(n-1) ‖ seq:u64 ‖ H(entry))`.
    #[must_use]
    pub fn next(&self, seq: Seq, entry: &Digest) -> Self {
        let mut h = Sha256::new();
        h.update(self.0);
        h.update(seq.get().to_be_bytes());
        h.update(entry.as_bytes());
        Self(h.finalize().into())
    }
}

macro_rules! cbor_bytes {
    ($name:ident) => {
        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }
        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                d.bytes()?
                    .try_into()
                    .map(Self)
                    .map_err(|_| minicbor::decode::Error::message("wrong length"))
            }
        }
    };
}
cbor_bytes!(Digest);
cbor_bytes!(Chain);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_histories_that_differ_anywhere_have_different_chains() {
        let room = RoomId::parse("mimi://a.example/r/x").unwrap();
        let start = Chain::start(&Incarnation::from_bytes([1; 16]), &room);
        let entry =
            |n: u8, at| Digest::of_entry(EntryKind::Application, Timestamp::from_ms(at), &[n]);
        let run =
            |es: &[Digest]| es.iter().zip(1..).fold(start, |c, (e, n)| c.next(Seq::new(n), e));
        let honest = run(&[entry(1, 5), entry(2, 6)]);
        assert_ne!(honest, run(&[entry(2, 6), entry(1, 5)]), "reordered");
        assert_ne!(honest, run(&[entry(1, 5), entry(2, 7)]), "other time");
        assert_ne!(honest, run(&[entry(1, 5)]), "dropped");
        assert_ne!(start, Chain::start(&Incarnation::from_bytes([2; 16]), &room), "other life");
        assert_eq!(honest, run(&[entry(1, 5), entry(2, 6)]));
    }
}
