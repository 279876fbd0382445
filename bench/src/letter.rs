//! Messages prepared before the clock starts, and the people who send them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::link::Account;

/// Which message: the sender's number and the message's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// The sender, counted from 0 over the whole measurement.
    pub sender: u32,
    /// The message of that sender, counted from 0.
    pub number: u32,
}

impl Tag {
    /// As one number.
    #[must_use]
    pub fn pack(self) -> u64 {
        u64::from(self.sender) << 32 | u64::from(self.number)
    }

    /// From one number.
    #[must_use]
    pub fn unpack(packed: u64) -> Self {
        let half = |n: u64| u32::try_from(n & 0xffff_ffff).unwrap_or_default();
        Self { sender: half(packed >> 32), number: half(packed) }
    }
}

/// A message as it goes onto the wire.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Which.
    pub tag: Tag,
    /// The whole frame or stanza.
    pub wire: Bytes,
    /// Bytes of the content that the server stores.
    pub content: usize,
}

/// How sealed messages are recognised without opening them: by the last 16 bytes, which authenticate them.
pub type Seals = HashMap<[u8; 16], Tag>;

/// Somebody with a device.
pub struct Person {
    /// How to sign in.
    pub account: Account,
    /// What to say, in this order.
    pub letters: Vec<Letter>,
    /// What will be heard, where it cannot be read.
    pub seals: Arc<Seals>,
}

/// The end of a sealed message.
#[must_use]
pub fn seal(message: &[u8]) -> Option<[u8; 16]> {
    message.last_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_packing() {
        let tag = Tag { sender: 7, number: u32::MAX };
        assert_eq!(Tag::unpack(tag.pack()), tag);
    }
}
