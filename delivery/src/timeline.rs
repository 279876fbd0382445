//! The order in which messages are shown. PROTOCOL §7.6.
//!
//! Rule: for a message with counter `c` of device `d`, `anchor = min(seq of every known message of d with counter ≥ c)`; sort by `(anchor, counter, seq)`.
//!
//! Total: seqs are unique in a room, and an anchor is the seq of some message of the same device, so equal anchors mean the same device; the same device
//! and counter (which only a broken sender makes) differ in seq. Anchors of one device never fall as its counter rises, so its messages keep its
//! order. The result depends on the set of messages alone.
//!
//! A message submitted twice (same device, same id) is one message at the lower of its seqs.
//!
//! A client that keeps its timeline in a table needs only [`place`] and two statements: see there.

use std::collections::BTreeMap;

use protocol::{DeviceId, MessageId, Seq};

/// A message, as far as its place depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its content's id.
    pub id: MessageId,
    /// Whose it is.
    pub sender: DeviceId,
    /// The sender's own number for it.
    pub counter: u64,
    /// Its place in the room's log.
    pub seq: Seq,
}

/// Where a message is shown: compare these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The least seq of its sender's messages from this one on.
    pub anchor: Seq,
    /// The sender's own number for it.
    pub counter: u64,
    /// Its place in the room's log.
    pub seq: Seq,
}

impl Key {
    /// Whether it came to the hub after something its sender wrote later; shown with a mark.
    #[must_use]
    pub fn late(&self) -> bool {
        self.seq > self.anchor
    }
}

/// The key of a message, given the least anchor among the known messages of its sender with the same or a higher counter:
/// `SELECT MIN(anchor) … WHERE sender = d AND counter >= c`. Afterwards, those of its sender that are now anchored too late follow:
/// `UPDATE … SET anchor = key.anchor WHERE sender = d AND counter <= c AND anchor > key.anchor`.
#[must_use]
pub fn place(counter: u64, seq: Seq, least: Option<Seq>) -> Key {
    Key { anchor: least.map_or(seq, |l| l.min(seq)), counter, seq }
}

/// A room's messages in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    shown: BTreeMap<Key, (DeviceId, MessageId)>,
    senders: BTreeMap<DeviceId, BTreeMap<(u64, Seq), (Seq, MessageId)>>,
}

/// What an insertion did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Inserted {
    /// It is new, at this place; the others went from the first to the second of their keys.
    New {
        /// Its place.
        key: Key,
        /// Earlier ones of the same sender that move forward with it, oldest counter last.
        moved: Vec<(Key, Key)>,
    },
    /// It is known, at this or an earlier seq.
    Known(Key),
}

impl Timeline {
    /// Takes in a message.
    pub fn insert(&mut self, message: &Message) -> Inserted {
        let _ = message;
        todo!()
    }

    /// The messages in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Key, &MessageId)> {
        self.shown.iter().map(|(key, (_, id))| (key, id))
    }
}

/// The order of a set of messages, from scratch: what [`Timeline`] must agree with.
#[must_use]
pub fn order(messages: &[Message]) -> Vec<(Key, MessageId)> {
    let _ = messages;
    todo!()
}
