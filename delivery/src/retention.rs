//! Which entries of a log may go: those that everybody acknowledged, and those that are older than the retention.
//!
//! Rule: everything up to `max(least live cursor, last expired entry)`, at most [`BATCH`] at a time and never past the head. A reader
//! whose cursor is before the new tail is told of a gap by [`crate::reader::window`]; nothing goes without a trace.

use protocol::{Seq, Timestamp, limit};

use crate::reader::{LogEnds, Span};

/// Entries removed in one transaction: short enough not to hold up the writer.
pub const BATCH: u64 = 1_000;

/// Entries accepted before this are older than the retention.
#[must_use]
pub fn expired_before(now: Timestamp) -> Timestamp {
    now.before(limit::RETENTION)
}

/// Which entries to remove next.
///
/// `least_cursor` is the least cursor of the live readers (those not [`crate::reader::Reader::done`]), `None` if there is none; `expired` is the last
/// entry accepted before [`expired_before`], 0 if there is none.
#[must_use]
pub fn removable(log: &LogEnds, least_cursor: Option<Seq>, expired: Seq) -> Option<Span> {
    let needed = least_cursor.unwrap_or(log.head);
    let last = needed.max(expired).min(log.head);
    let batch = Seq::new(log.tail.get().saturating_add(BATCH - 1));
    Span::new(log.tail, last.min(batch))
}
