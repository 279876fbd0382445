//! Which entries of a log may go: those that everybody acknowledged, and those that are older than the retention.
//!
//! Rule: everything up to `max(least live cursor, expired entry)`, at most [`BATCH`] at a time and never past the head. A reader
//! whose cursor is before the new tail is told of a gap by [`crate::reader::window`]; nothing goes without a trace.

use protocol::Seq;

use crate::reader::{LogEnds, Span};

/// Entries removed in one transaction: short enough not to hold up the writer.
pub const BATCH: u64 = 1_000;

/// Which entries to remove next.
///
/// `least_cursor` is the least cursor of the live readers (those not [`crate::reader::Reader::done`]), `None` if there is none; `expired` is an entry
/// that is older than the log is to be kept, as are all before it, 0 if there is none; what it leaves over, the next call finds.
#[must_use]
pub fn removable(log: &LogEnds, least_cursor: Option<Seq>, expired: Seq) -> Option<Span> {
    let needed = least_cursor.unwrap_or(log.head);
    let last = needed.max(expired).min(log.head);
    let batch = Seq::new(log.tail.get().saturating_add(BATCH - 1));
    Span::new(log.tail, last.min(batch))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::Incarnation;

    use super::*;

    fn ends(tail: u64, head: u64) -> LogEnds {
        LogEnds {
            incarnation: Incarnation::from_bytes([1; 16]),
            tail: Seq::new(tail),
            head: Seq::new(head),
            hole: None,
        }
    }

    #[test]
    fn what_all_have_or_what_is_too_old_goes() {
        let cut = |tail, head, least: Option<u64>, expired| {
            removable(&ends(tail, head), least.map(Seq::new), Seq::new(expired))
                .map(|s| (s.first().get(), s.last().get()))
        };
        assert_eq!(cut(1, 9, Some(4), 0), Some((1, 4)));
        assert_eq!(cut(1, 9, Some(4), 6), Some((1, 6)), "expired");
        assert_eq!(cut(5, 9, Some(4), 0), None, "gone already");
        assert_eq!(cut(1, 9, None, 0), Some((1, 9)), "nobody reads");
        assert_eq!(cut(1, 9, Some(99), 0), Some((1, 9)), "never past the head");
        assert_eq!(cut(1, 5_000, Some(4_999), 0), Some((1, 1_000)), "in batches");
        assert_eq!(cut(1, 0, None, 0), None, "empty");
    }

    proptest! {
        #[test]
        fn an_entry_that_somebody_needs_and_that_is_young_stays(
            tail in 1u64..100, len in 0u64..5_000, least: Option<u16>, expired in 0u64..5_000,
        ) {
            let log = ends(tail, tail + len - 1);
            let least = least.map(|n| Seq::new(n.into()));
            if let Some(span) = removable(&log, least, Seq::new(expired)) {
                prop_assert_eq!(span.first(), log.tail);
                prop_assert!(span.last() <= log.head && span.count() <= BATCH);
                prop_assert!(least.is_none_or(|l| span.last() <= l) || span.last().get() <= expired);
            }
        }
    }
}
