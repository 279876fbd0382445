//! Readers of a log: what an acknowledgement does, what to send next, where a reader begins and ends. PROTOCOL §4.4 to §4.6.
//!
//! A reader stands for one stay: somebody who was removed and comes back is a new reader, so that what the first stay is still owed
//! is not lost. Its row goes when it is [`Reader::done`].
//!
//! | cursor named by the reader | decision |
//! |---|---|
//! | of another incarnation | refused, `WrongIncarnation` |
//! | after the head | refused, `Malformed` |
//! | after the reader's end | as the end: what came after is another stay's |
//! | after its cursor | the cursor moves |
//! | at or before its cursor | unchanged |

use protocol::api::{Gap, GapReason};
use protocol::{Code, Cursor, Incarnation, Refusal, Seq};

/// A reader's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The first entry it gets.
    pub from: Seq,
    /// The last one it acknowledged; `from - 1` at first.
    pub cursor: Seq,
    /// The last entry it gets, once it was removed.
    pub until: Option<Seq>,
}

/// The ends of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnds {
    /// Whose life the numbers belong to.
    pub incarnation: Incarnation,
    /// The first entry still here; `head + 1` when none is.
    pub tail: Seq,
    /// The last entry, 0 if there never was one.
    pub head: Seq,
    /// The first range inside the log, after the reader's position, that never came here.
    pub hole: Option<Gap>,
}

/// Consecutive numbers, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    first: Seq,
    last: Seq,
}

impl Span {
    /// From `first` to `last`; `None` when that is empty.
    #[must_use]
    pub fn new(first: Seq, last: Seq) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The first.
    #[must_use]
    pub const fn first(&self) -> Seq {
        self.first
    }

    /// The last.
    #[must_use]
    pub const fn last(&self) -> Seq {
        self.last
    }

    /// How many; at least one.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.last.get() - self.first.get() + 1
    }
}

/// How a device came into a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// Somebody added it: it reads what comes after that commit.
    Welcome,
    /// By its own external commit: it reads from that commit on, because the echo tells it that it is in.
    External,
}

impl Reader {
    /// A reader of everything from `from` on.
    #[must_use]
    pub const fn from(from: Seq) -> Self {
        Self { from, cursor: from.prev(), until: None }
    }

    /// The reader that `commit` made.
    #[must_use]
    pub const fn joined(commit: Seq, how: Joined) -> Self {
        Self::from(match how {
            Joined::Welcome => commit.next(),
            Joined::External => commit,
        })
    }

    /// The reader once `commit` removed it: that commit is the last entry it gets. A second removal changes nothing.
    #[must_use]
    pub fn removed(self, commit: Seq) -> Self {
        Self { until: Some(self.until.map_or(commit, |u| u.min(commit))), ..self }
    }

    /// Whether it has acknowledged all it will ever get.
    #[must_use]
    pub fn done(&self) -> bool {
        self.until.is_some_and(|until| self.cursor >= until)
    }

    /// The last entry of `log` that is for it.
    #[must_use]
    pub fn last(&self, log: &LogEnds) -> Seq {
        self.until.map_or(log.head, |until| until.min(log.head))
    }
}

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Acknowledged {
    /// Write this cursor.
    Moved(Seq),
    /// Nothing: it was acknowledged before.
    Unchanged,
}

/// Decides about an acknowledgement.
///
/// # Errors
/// `WrongIncarnation` or `Malformed`, as the module says.
pub fn acknowledge(
    reader: &Reader,
    log: &LogEnds,
    cursor: Cursor,
) -> Result<Acknowledged, Refusal> {
    if cursor.incarnation != log.incarnation {
        return Err(Code::WrongIncarnation.into());
    }
    if cursor.seq > log.head {
        let detail = "The acknowledgement is ahead of what there is to acknowledge.";
        return Err(Refusal::because(Code::Malformed, detail));
    }
    // A device that left and came back by itself acknowledges the later stay while the earlier one is still open here.
    let seq = cursor.seq.min(reader.last(log));
    if seq <= reader.cursor {
        return Ok(Acknowledged::Unchanged);
    }
    Ok(Acknowledged::Moved(seq))
}

/// How much may be sent at once and before an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries in one batch.
    pub batch: u64,
    /// Entries sent and not acknowledged.
    pub window: u64,
}

impl Limits {
    /// To a device: `BATCH_ENTRIES` at once, `WINDOW_ENTRIES` before an acknowledgement.
    pub const DEVICE: Self = Self {
        batch: protocol::limit::BATCH_ENTRIES as u64,
        window: protocol::limit::WINDOW_ENTRIES,
    };
}

/// What to send a reader next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Window {
    /// These entries, as far as `BATCH_BYTES` reaches but at least one, and before them word of the gap.
    Send {
        /// Entries to load; none if all that was left is gone.
        entries: Option<Span>,
        /// Entries before them that are gone.
        gap: Option<Gap>,
    },
    /// Nothing before it acknowledges something.
    Full,
    /// Nothing until the log grows.
    CaughtUp,
    /// Nothing any more: it was removed from the room and got everything up to there.
    Ended,
}

/// What to send next to a reader that was sent everything up to `sent` (its cursor, on a new connection).
pub fn window(reader: &Reader, log: &LogEnds, sent: Seq, limits: Limits) -> Window {
    if reader.done() {
        return Window::Ended;
    }
    let last = reader.last(log);
    let start = reader.cursor.max(reader.from.prev());
    let next = sent.max(start).next();
    if next > last {
        return Window::CaughtUp;
    }
    let gap = missing(log, next, last);
    let first = gap.map_or(next, |g| g.last.next());
    let held = next.prev().get() - start.get();
    let room = limits.window.saturating_sub(held);
    let end = last
        .min(plus(first.prev(), limits.batch.min(room)))
        .min(log.hole.filter(|h| h.last >= first).map_or(last, |h| h.first.prev()));
    match (Span::new(first, end), gap) {
        (None, None) => Window::Full,
        (entries, gap) => Window::Send { entries, gap },
    }
}

/// What is gone from `next` on: before the tail because it expired, or in a hole because it never came.
fn missing(log: &LogEnds, next: Seq, last: Seq) -> Option<Gap> {
    if log.tail > next {
        let last = log.tail.prev().min(last);
        return Some(Gap { first: next, last, reason: GapReason::Expired });
    }
    let hole = log.hole.filter(|h| h.first <= next && next <= h.last)?;
    Some(Gap { first: next, last: hole.last.min(last), reason: hole.reason })
}

const fn plus(seq: Seq, n: u64) -> Seq {
    Seq::new(seq.get().saturating_add(n))
}

#[cfg(test)]
mod tests;
