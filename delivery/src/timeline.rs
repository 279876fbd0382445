//! The order in which messages are shown. PROTOCOL §7.6.
//!
//! Rule: for a message with counter `c` of device `d`, `anchor = min(seq of every known message of d with counter ≥ c)`; sort by `(anchor, counter, seq)`.
//!
//! Total: seqs are unique in a room, and an anchor is the seq of some message of the same device, so equal anchors mean the same device; the same device
//! and counter (which only a broken sender makes) differ in seq. Anchors of one device never fall as its counter rises, so its messages keep its
//! order. The result depends on the set of messages alone.
//!
//! A message that came twice (same device, counter and id) is one message at the lower of its seqs.
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
    senders: BTreeMap<DeviceId, BySender>,
}

/// One sender's messages: by counter and seq, their anchor and id.
type BySender = BTreeMap<(u64, Seq), (Seq, MessageId)>;

/// What an insertion did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Inserted {
    /// It is new, at this place; the others went from the first to the second of their keys.
    New {
        /// Its place.
        key: Key,
        /// Earlier ones of the same sender that move up with it, the highest counter first.
        moved: Vec<(Key, Key)>,
    },
    /// It was known at a later seq and moves up, from the first place to the second; the others as with [`Inserted::New`].
    Earlier {
        /// Its place before.
        was: Key,
        /// Its place.
        key: Key,
        /// See [`Inserted::New`].
        moved: Vec<(Key, Key)>,
    },
    /// It is known, at this or an earlier seq.
    Known(Key),
}

impl Timeline {
    /// Takes in a message.
    pub fn insert(&mut self, message: &Message) -> Inserted {
        let Message { id, sender, counter, seq } = message;
        let (counter, seq) = (*counter, *seq);
        let all = self.senders.entry(sender.clone()).or_default();
        let same = (counter, Seq::new(0))..=(counter, Seq::new(u64::MAX));
        let known = all.range(same).find(|(_, (_, known))| known == id);
        let known =
            known.map(|((_, seq), (anchor, _))| Key { anchor: *anchor, counter, seq: *seq });
        if let Some(key) = known.filter(|key| key.seq <= seq) {
            return Inserted::Known(key);
        }
        if let Some(old) = known {
            all.remove(&(counter, old.seq));
            self.shown.remove(&old);
        }
        // Anchors never fall as the counter rises, so the next one's is the least of all that follow.
        let least = all.range((counter, Seq::new(0))..).next().map(|(_, (anchor, _))| *anchor);
        let key = place(counter, seq, least);
        let mut moved = Vec::new();
        for ((c, s), (anchor, id)) in all.range_mut(..=(counter, Seq::new(u64::MAX))).rev() {
            if *anchor <= key.anchor {
                break;
            }
            let from = Key { anchor: *anchor, counter: *c, seq: *s };
            let to = Key { anchor: key.anchor, ..from };
            *anchor = key.anchor;
            self.shown.remove(&from);
            self.shown.insert(to, (sender.clone(), *id));
            moved.push((from, to));
        }
        all.insert((counter, seq), (key.anchor, *id));
        self.shown.insert(key, (sender.clone(), *id));
        match known {
            Some(was) => Inserted::Earlier { was, key, moved },
            None => Inserted::New { key, moved },
        }
    }

    /// The messages in order.
    #[must_use]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Key, &DeviceId, &MessageId)> {
        self.shown.iter().map(|(key, (sender, id))| (key, sender, id))
    }
}

/// The order of a set of messages, from scratch: what [`Timeline`] must agree with.
#[must_use]
pub fn order(messages: &[Message]) -> Vec<(Key, MessageId)> {
    let mut once: BTreeMap<(&DeviceId, u64, MessageId), Seq> = BTreeMap::new();
    let mut anchors: BTreeMap<(&DeviceId, u64), Seq> = BTreeMap::new();
    for m in messages {
        let seq = once.entry((&m.sender, m.counter, m.id)).or_insert(m.seq);
        *seq = m.seq.min(*seq);
        let anchor = anchors.entry((&m.sender, m.counter)).or_insert(m.seq);
        *anchor = m.seq.min(*anchor);
    }
    // From the highest counter down, the least seq so far is the anchor.
    let mut above = None;
    for ((sender, _), anchor) in anchors.iter_mut().rev() {
        let least = above.filter(|(d, _)| d == sender).map_or(*anchor, |(_, a)| (*anchor).min(a));
        *anchor = least;
        above = Some((*sender, least));
    }
    let key = |((sender, counter, id), seq): ((&DeviceId, u64, MessageId), Seq)| {
        let anchor = anchors.get(&(sender, counter)).copied().unwrap_or(seq);
        (Key { anchor, counter, seq }, id)
    };
    let mut all: Vec<_> = once.into_iter().map(key).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests;
