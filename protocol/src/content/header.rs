//! This project's own header in the content: what makes order and loss checkable end to end. PROTOCOL §7.5.

use minicbor::encode::{Encoder, Write};

use super::cbor::{Decoder, Written};
use crate::log::Chain;
use crate::tls::Malformed;
use crate::{Cursor, Incarnation, Seq, Timestamp};

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

impl Header {
    pub(super) fn write<W: Write>(&self, e: &mut Encoder<W>) -> Written<W> {
        e.array(4)?.u64(self.counter)?;
        match &self.prev {
            Some(hash) => e.bytes(hash)?,
            None => e.null()?,
        };
        e.u64(self.local.ms())?;
        match &self.seen {
            Some(Seen { cursor, chain }) => {
                e.array(3)?.bytes(cursor.incarnation.as_bytes())?;
                e.u64(cursor.seq.get())?.bytes(chain.as_bytes())?.ok()
            }
            None => e.null()?.ok(),
        }
    }

    pub(super) fn read(d: &mut Decoder<'_>) -> Result<Self, Malformed> {
        d.array_exact(4)?;
        let start = *d;
        let counter = d.uint()?;
        if counter == 0 {
            return Err(start.fail("a counter of 0"));
        }
        let prev = d.nullable(Decoder::array_of)?;
        let local = Timestamp::from_ms(d.uint()?);
        let seen = d.nullable(|d| {
            d.array_exact(3)?;
            let incarnation = Incarnation::from_bytes(d.array_of()?);
            let seq = Seq::new(d.uint()?);
            let chain = Chain::from_bytes(d.array_of()?);
            Ok(Seen { cursor: Cursor { incarnation, seq }, chain })
        })?;
        Ok(Self { counter, prev, local, seen })
    }
}
