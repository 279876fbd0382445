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

use protocol::api::Gap;
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
    let _ = (head, batch, stored);
    todo!()
}
