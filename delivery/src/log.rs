//! What an append to a log gives, and what a replica does with a batch from the hub.
//!
//! Rule of appending: the next seq, the digest of the entry, the chain over both. PROTOCOL §4.3.
//!
//! Rule of following (PROTOCOL §9.7), `h` being the replica's head:
//!
//! | batch | decision |
//! |---|---|
//! | no replica yet | `Append` all; the replica starts at the batch's chain |
//! | other incarnation | `OtherIncarnation` |
//! | starts at `h + 1`, its chain is ours | `Append` all |
//! | starts at or before `h`, ends after it, chains agree at `h` | `Append` what is new |
//! | ends at or before `h`, chains agree | `Duplicate` |
//! | chains do not agree | `ChainMismatch` |
//! | starts after `h + 1`, nobody here was reading in between | `Append` all, from the batch's chain |
//! | starts after `h + 1`, the hub says that the rest is gone | `Append` all, with the gap |
//! | starts after `h + 1` otherwise | `Gap`: send from `h + 1` |

use protocol::api::{Gap, GapReason};
use protocol::log::{Chain, Digest, EntryKind};
use protocol::{Incarnation, Seq, Timestamp};

/// An entry's place in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What it is.
    pub kind: EntryKind,
    /// Its number.
    pub seq: Seq,
    /// Its time.
    pub at: Timestamp,
    /// The digest of kind, time and body.
    pub digest: Digest,
    /// The chain at it.
    pub chain: Chain,
}

/// The end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last entry, 0 if there is none.
    pub seq: Seq,
    /// The chain at it.
    pub chain: Chain,
}

impl Head {
    /// The place of the next entry. [`Head::after`] gives the head that follows.
    #[must_use]
    pub fn append(&self, kind: EntryKind, at: Timestamp, body: &[u8]) -> Placed {
        let digest = Digest::of_entry(kind, at, body);
        let seq = self.seq.next();
        Placed { kind, seq, at, digest, chain: self.chain.next(seq, &digest) }
    }

    /// The head once `placed` is appended.
    #[must_use]
    pub const fn after(placed: &Placed) -> Self {
        Self { seq: placed.seq, chain: placed.chain }
    }
}

/// The end of a replica of a room's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerHead {
    /// The hub's incarnation.
    pub incarnation: Incarnation,
    /// The last entry here.
    pub head: Head,
    /// Whether some device here reads on after `head`. If none does, entries after it are not ours and a batch may start later.
    pub read: bool,
}

/// Consecutive entries from the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The hub's incarnation.
    pub incarnation: Incarnation,
    /// The number of the first entry.
    pub first: Seq,
    /// The chain before the first entry.
    pub prev_chain: Chain,
    /// The digests of the entries, in order.
    pub digests: &'a [Digest],
    /// Whether the hub says that everything before `first` is gone at its end.
    pub rest_gone: bool,
}

/// What a replica does with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Follow {
    /// Append the entries but the first `skip`, in one transaction with the new head.
    Append {
        /// Entries at the start of the batch that are here already.
        skip: usize,
        /// The chain at each appended entry, in order.
        chains: Vec<Chain>,
        /// The head after it.
        head: Head,
        /// Entries that this replica should have had and never will.
        gap: Option<Gap>,
    },
    /// All of it is here already. Answer as for success.
    Duplicate,
    /// Entries before it are missing. Answer [`protocol::Code::SeqGap`] with the number.
    Gap {
        /// The first entry that is missing.
        expected: Seq,
    },
    /// The hub shows another history than before. Answer [`protocol::Code::ChainMismatch`] and tell the operator.
    ChainMismatch {
        /// The last entry on which the two should agree.
        at: Seq,
    },
    /// The hub lives another life. Answer [`protocol::Code::WrongIncarnation`], unless the change is agreed.
    OtherIncarnation {
        /// The incarnation known here.
        known: Incarnation,
    },
}

/// What the replica with this `head` does with `batch`. `stored` is the chain kept here at the batch's last entry, if the batch ends before our head
/// and that entry is still here.
pub fn follow(head: Option<&FollowerHead>, batch: &Batch<'_>, stored: Option<Chain>) -> Follow {
    let Some(known) = head else {
        return append(batch, 0, None);
    };
    if known.incarnation != batch.incarnation {
        return Follow::OtherIncarnation { known: known.incarnation };
    }
    let ours = known.head;
    let expected = ours.seq.next();
    if batch.first > expected {
        // It is older than the hub keeps: its retention, or, of what we had acknowledged before we were restored, a shorter time.
        let gone = Gap { first: expected, last: batch.first.prev(), reason: GapReason::Expired };
        return match (known.read, batch.rest_gone) {
            (false, _) => append(batch, 0, None),
            (true, true) => append(batch, 0, Some(gone)),
            (true, false) => Follow::Gap { expected },
        };
    }
    let before = batch.first.prev();
    let at = |seq: Seq| batch.chains().find(|h| h.seq == seq).map(|h| h.chain);
    match at(ours.seq) {
        Some(theirs) if theirs != ours.chain => Follow::ChainMismatch { at: ours.seq },
        Some(_) => {
            let skip = usize::try_from(ours.seq.get() - before.get()).unwrap_or(usize::MAX);
            if skip >= batch.digests.len() { Follow::Duplicate } else { append(batch, skip, None) }
        }
        // It ends before our head.
        None => {
            let last =
                batch.chains().last().unwrap_or(Head { seq: before, chain: batch.prev_chain });
            if stored.is_some_and(|chain| chain != last.chain) {
                Follow::ChainMismatch { at: last.seq }
            } else {
                Follow::Duplicate
            }
        }
    }
}

impl Batch<'_> {
    /// The chain before the first entry and at each entry.
    fn chains(&self) -> impl Iterator<Item = Head> {
        let start = Head { seq: self.first.prev(), chain: self.prev_chain };
        let rest = self.digests.iter().scan(start, |head, digest| {
            let seq = head.seq.next();
            *head = Head { seq, chain: head.chain.next(seq, digest) };
            Some(*head)
        });
        std::iter::once(start).chain(rest)
    }
}

fn append(batch: &Batch<'_>, skip: usize, gap: Option<Gap>) -> Follow {
    let heads: Vec<Head> = batch.chains().skip(skip).collect();
    let start = Head { seq: batch.first.prev(), chain: batch.prev_chain };
    let head = heads.last().copied().unwrap_or(start);
    let chains = heads.into_iter().skip(1).map(|h| h.chain).collect();
    Follow::Append { skip, chains, head, gap }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIFE: Incarnation = Incarnation::from_bytes([1; 16]);
    const START: Head = Head { seq: Seq::new(0), chain: Chain::from_bytes([0; 32]) };

    fn digest(n: u8) -> Digest {
        Digest::from_bytes([n; 32])
    }

    /// The honest heads of a log whose entry n has the digest n: one per seq, 0 included.
    fn heads(n: u8) -> Vec<Head> {
        let next = |h: &Head, n: u8| {
            let seq = h.seq.next();
            Head { seq, chain: h.chain.next(seq, &digest(n)) }
        };
        (1..=n).fold(vec![START], |mut hs, n| {
            hs.push(next(hs.last().unwrap(), n));
            hs
        })
    }

    struct Sent(Incarnation, u8, Chain, Vec<Digest>);

    impl Sent {
        fn batch(&self) -> Batch<'_> {
            let first = Seq::new(self.1.into());
            let Self(incarnation, _, prev_chain, digests) = self;
            let incarnation = *incarnation;
            Batch { incarnation, first, prev_chain: *prev_chain, digests, rest_gone: false }
        }
    }

    fn honest(first: u8, last: u8) -> Sent {
        let prev = heads(20)[usize::from(first) - 1].chain;
        Sent(LIFE, first, prev, (first..=last).map(digest).collect())
    }

    fn at(seq: u8) -> FollowerHead {
        FollowerHead { incarnation: LIFE, head: heads(20)[usize::from(seq)], read: true }
    }

    fn run(from: u8, to: u8) -> Vec<Chain> {
        heads(20)[usize::from(from)..=usize::from(to)].iter().map(|h| h.chain).collect()
    }

    #[test]
    fn appending_gives_the_next_place_and_moves_the_head() {
        let placed = START.append(EntryKind::Application, Timestamp::from_ms(7), b"x");
        assert_eq!(placed.seq, Seq::new(1));
        let digest = Digest::of_entry(EntryKind::Application, Timestamp::from_ms(7), b"x");
        assert_eq!(placed.chain, START.chain.next(Seq::new(1), &digest));
        assert_eq!(Head::after(&placed), Head { seq: Seq::new(1), chain: placed.chain });
    }

    #[test]
    fn every_row_of_the_table() {
        let append = |skip, from, to, gap| Follow::Append {
            skip,
            chains: run(from, to),
            head: heads(20)[usize::from(to)],
            gap,
        };
        let cases = [
            ("new", None, honest(4, 6), append(0, 4, 6, None)),
            ("next", Some(at(3)), honest(4, 6), append(0, 4, 6, None)),
            ("overlap", Some(at(4)), honest(3, 6), append(2, 5, 6, None)),
            ("same", Some(at(6)), honest(4, 6), Follow::Duplicate),
            ("old", Some(at(9)), honest(4, 6), Follow::Duplicate),
            ("gap", Some(at(2)), honest(4, 6), Follow::Gap { expected: Seq::new(3) }),
            (
                "away",
                Some(FollowerHead { read: false, ..at(2) }),
                honest(4, 6),
                append(0, 4, 6, None),
            ),
            (
                "other life",
                Some(FollowerHead { incarnation: Incarnation::from_bytes([2; 16]), ..at(3) }),
                honest(4, 6),
                Follow::OtherIncarnation { known: Incarnation::from_bytes([2; 16]) },
            ),
            (
                "other history before",
                Some(at(3)),
                Sent(LIFE, 4, Chain::from_bytes([9; 32]), vec![digest(4)]),
                Follow::ChainMismatch { at: Seq::new(3) },
            ),
            (
                "other history in the overlap",
                Some(at(5)),
                Sent(LIFE, 4, heads(9)[3].chain, vec![digest(4), digest(99), digest(6)]),
                Follow::ChainMismatch { at: Seq::new(5) },
            ),
        ];
        for (name, head, sent, expected) in cases {
            assert_eq!(follow(head.as_ref(), &sent.batch(), None), expected, "{name}");
        }
    }

    #[test]
    fn what_expired_at_the_hub_is_a_gap_and_what_it_rewrote_is_found() {
        let sent = honest(6, 7);
        let batch = Batch { rest_gone: true, ..sent.batch() };
        let Follow::Append { gap: Some(gap), head, .. } = follow(Some(&at(3)), &batch, None) else {
            panic!("no gap");
        };
        let expired = Gap { first: Seq::new(4), last: Seq::new(5), reason: GapReason::Expired };
        assert_eq!(gap, expired);
        assert_eq!(head.seq, Seq::new(7));

        let old = Sent(LIFE, 2, heads(9)[1].chain, vec![digest(2), digest(77)]);
        let stored = heads(9)[3].chain;
        assert_eq!(
            follow(Some(&at(9)), &old.batch(), Some(stored)),
            Follow::ChainMismatch { at: Seq::new(3) }
        );
        let same = honest(2, 3);
        assert_eq!(follow(Some(&at(9)), &same.batch(), Some(stored)), Follow::Duplicate);
    }

    proptest! {
        /// However batches are cut, repeated and reordered, the replica holds a prefix of the hub's log, and all of it once everything came in order.
        #[test]
        fn a_replica_is_always_a_prefix_and_gets_there(
            cuts in prop::collection::vec((1u8..=20, 1u8..=6), 0..60),
        ) {
            let mut replica = FollowerHead { incarnation: LIFE, head: START, read: true };
            let storm = cuts.into_iter().map(|(first, n)| honest(first, (first + n - 1).min(20)));
            let last = (1..=20).map(|n| honest(n, n));
            for sent in storm.chain(last) {
                match follow(Some(&replica), &sent.batch(), None) {
                    Follow::Append { skip, chains, head, gap } => {
                        prop_assert_eq!(gap, None);
                        let begin = u64::from(sent.1) + skip as u64;
                        prop_assert_eq!(begin, replica.head.seq.get() + 1);
                        prop_assert_eq!(begin + chains.len() as u64 - 1, head.seq.get());
                        replica.head = head;
                    }
                    Follow::Gap { expected } => {
                        prop_assert_eq!(expected, replica.head.seq.next());
                        prop_assert!(u64::from(sent.1) > expected.get());
                    }
                    Follow::Duplicate => {}
                    other => prop_assert!(false, "{:?}", other),
                }
                let seq = usize::try_from(replica.head.seq.get()).unwrap();
                prop_assert_eq!(replica.head, heads(20)[seq]);
            }
            prop_assert_eq!(replica.head.seq.get(), 20);
        }

        /// A hub that changes, drops or swaps an entry that the replica has not seen yet is found out at the next honest entry.
        #[test]
        fn a_hub_that_changes_its_mind_is_found_out(first in 1u8..10, forged in 100u8..200, more in 1u8..5) {
            let start = heads(20)[usize::from(first) - 1];
            let replica = FollowerHead { incarnation: LIFE, head: start, read: true };
            let lie = Sent(LIFE, first, start.chain, vec![digest(forged)]);
            let Follow::Append { head, .. } = follow(Some(&replica), &lie.batch(), None) else {
                return Err(TestCaseError::fail("not appended"));
            };
            let truth = honest(first + 1, first + more);
            prop_assert_eq!(
                follow(Some(&FollowerHead { head, ..replica }), &truth.batch(), None),
                Follow::ChainMismatch { at: head.seq }
            );
        }
    }
}
