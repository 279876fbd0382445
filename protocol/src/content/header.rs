//! This project's own header in the content: what makes order and loss checkable end to end. PROTOCOL §7.5.

use crate::log::Chain;
use crate::{Cursor, Timestamp};

/// Private extension -1: `[counter, prev, local_ms, seen]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sending device's own number of this message in this room: from 1, without gaps, never used twice.
    pub counter: u64,
    /// SHA-256 of the content bytes of that device's message before; absent in its first.
    pub prev: Option<[u8; 32]>,
    /// When it was written, by the device's calibrated clock. For display only.
    pub local: Timestamp,
    /// The last entry of the room's log that the device saw, and the chain up to it.
    pub seen: Option<Seen>,
}

/// A place in a room's log and the hash over everything up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which entry, in which life of the hub's database.
    pub cursor: Cursor,
    /// The chain after that entry.
    pub chain: Chain,
}
