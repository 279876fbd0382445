//! The newest entries of logs that just grew, in memory: those who are woken need not ask the database for what was written a moment ago.
//!
//! Only a copy of what was committed, in the order of the commits, and bounded. Who does not find here what they look for asks the database.
//! With PostgreSQL it stays empty: there other processes append too.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use delivery::reader::Span;
use protocol::log::Chain;
use protocol::{Incarnation, Seq, Timestamp};

use super::logs::{Entry, LogId};

/// Bytes of all entries together.
const BYTES_MAX: usize = 16 << 20;
/// The largest entry that is kept.
const ENTRY_BYTES_MAX: usize = 64 << 10;
/// What an entry takes beside its body.
const ENTRY_OVERHEAD: usize = 256;

/// What a transaction did to a log.
#[derive(Debug)]
pub(super) enum Change {
    /// It grew by these, right after its head.
    Grew(LogId, Incarnation, Vec<Arc<Entry>>),
    /// Its head moved in another way.
    Moved(LogId),
}

impl Change {
    /// The log grew by these entries; larger ones are left to the database.
    pub(super) fn grew(log: LogId, incarnation: Incarnation, entries: &[Entry]) -> Self {
        if entries.iter().any(|e| size(e) > ENTRY_BYTES_MAX) {
            return Self::Moved(log);
        }
        Self::Grew(log, incarnation, entries.iter().cloned().map(Arc::new).collect())
    }
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its last entry.
    pub seq: Seq,
    /// The chain there.
    pub chain: Chain,
    /// The time of it.
    pub at: Timestamp,
}

/// Entries, and the one before them if it is here.
pub type Read = (Option<Arc<Entry>>, Vec<Arc<Entry>>);

/// Consecutive entries, the last ones of their log.
#[derive(Debug)]
struct Run {
    incarnation: Incarnation,
    entries: VecDeque<Arc<Entry>>,
}

#[derive(Debug, Default)]
struct Kept {
    runs: BTreeMap<LogId, Run>,
    /// Which entry goes next. What is not the first of its run any more went before.
    order: VecDeque<(LogId, Seq)>,
    bytes: usize,
}

/// The newest entries of all logs.
#[derive(Debug, Default)]
pub struct Fresh(Mutex<Kept>);

impl Fresh {
    /// Takes in what a transaction did, after its commit and before anybody is woken.
    pub(super) fn take(&self, changes: Vec<Change>) {
        let mut kept = self.locked();
        for change in changes {
            match change {
                Change::Grew(log, incarnation, entries) => kept.grew(log, incarnation, entries),
                Change::Moved(log) => kept.forget(log),
            }
        }
        kept.shrink();
    }

    /// Where `log` ends, if it is known here and everything after `after` is.
    #[must_use]
    pub fn newest(&self, log: LogId, incarnation: Incarnation, after: Seq) -> Option<Newest> {
        let kept = self.locked();
        let run = kept.runs.get(&log).filter(|r| r.incarnation == incarnation)?;
        let (first, last) = (run.entries.front()?, run.entries.back()?);
        // Whoever looked at the database may have seen a commit that is not told here yet.
        let all = first.seq <= after.next() && after <= last.seq;
        all.then_some(Newest { seq: last.seq, chain: last.chain, at: last.at })
    }

    /// The entries of `span`, if all are here, until their bodies make more than `bytes`; a first one that is larger comes alone.
    #[must_use]
    pub fn read(
        &self,
        log: LogId,
        incarnation: Incarnation,
        span: Span,
        bytes: usize,
    ) -> Option<Read> {
        let kept = self.locked();
        let run = kept.runs.get(&log).filter(|r| r.incarnation == incarnation)?;
        let (first, last) = (run.entries.front()?.seq, run.entries.back()?.seq);
        if span.first() < first || span.last() > last {
            return None;
        }
        let skip = usize::try_from(span.first().get() - first.get()).ok()?;
        let before = skip.checked_sub(1).and_then(|i| run.entries.get(i)).cloned();
        let mut total = 0_usize;
        let fits = |entry: &&Arc<Entry>| {
            total = total.saturating_add(entry.body.as_ref().map_or(0, Vec::len));
            entry.seq <= span.last() && (total <= bytes || entry.seq == span.first())
        };
        let entries = run.entries.iter().skip(skip).take_while(fits).cloned().collect();
        Some((before, entries))
    }

    fn locked(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn grew(&mut self, log: LogId, incarnation: Incarnation, entries: Vec<Arc<Entry>>) {
        let Some(first) = entries.first().map(|e| e.seq) else { return };
        let goes_on = self.runs.get(&log).is_some_and(|run| {
            run.incarnation == incarnation
                && run.entries.back().is_some_and(|e| e.seq.next() == first)
        });
        if !goes_on {
            self.forget(log);
        }
        let run =
            self.runs.entry(log).or_insert_with(|| Run { incarnation, entries: VecDeque::new() });
        for entry in entries {
            self.bytes += size(&entry);
            self.order.push_back((log, entry.seq));
            run.entries.push_back(entry);
        }
    }

    fn forget(&mut self, log: LogId) {
        if let Some(run) = self.runs.remove(&log) {
            self.bytes -= run.entries.iter().map(|e| size(e)).sum::<usize>();
        }
    }

    /// Lets the oldest go until the rest fits.
    fn shrink(&mut self) {
        while self.bytes > BYTES_MAX || self.order.len() > BYTES_MAX / ENTRY_OVERHEAD {
            let Some((log, seq)) = self.order.pop_front() else { return };
            let Some(run) = self.runs.get_mut(&log) else { continue };
            if run.entries.front().is_some_and(|e| e.seq == seq)
                && let Some(entry) = run.entries.pop_front()
            {
                self.bytes -= size(&entry);
            }
            if run.entries.is_empty() {
                self.runs.remove(&log);
            }
        }
    }
}

fn size(entry: &Entry) -> usize {
    let optional = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    ENTRY_OVERHEAD + optional(&entry.body) + optional(&entry.note)
}

#[cfg(test)]
mod tests {
    use protocol::log::{Digest, EntryKind};

    use super::*;

    const LIFE: Incarnation = Incarnation::from_bytes([1; 16]);

    fn log(n: i64) -> LogId {
        LogId::new(n)
    }

    fn entry(seq: u64, bytes: usize) -> Entry {
        let hash = [u8::try_from(seq % 251).unwrap(); 32];
        Entry {
            seq: Seq::new(seq),
            at: Timestamp::from_ms(seq),
            kind: EntryKind::Application,
            body: Some(vec![0; bytes]),
            digest: Digest::from_bytes(hash),
            chain: Chain::from_bytes(hash),
            note: None,
        }
    }

    fn grow(fresh: &Fresh, n: i64, seqs: std::ops::RangeInclusive<u64>, bytes: usize) {
        let entries: Vec<_> = seqs.map(|seq| entry(seq, bytes)).collect();
        fresh.take(vec![Change::grew(log(n), LIFE, &entries)]);
    }

    fn newest(fresh: &Fresh, n: i64, after: u64) -> Option<u64> {
        fresh.newest(log(n), LIFE, Seq::new(after)).map(|newest| newest.seq.get())
    }

    fn read(fresh: &Fresh, n: i64, first: u64, last: u64) -> Option<(Option<u64>, Vec<u64>)> {
        let span = Span::new(Seq::new(first), Seq::new(last)).unwrap();
        let (before, entries) = fresh.read(log(n), LIFE, span, 100)?;
        Some((before.map(|e| e.seq.get()), entries.iter().map(|e| e.seq.get()).collect()))
    }

    #[test]
    fn it_knows_a_log_from_where_it_began_to_grow() {
        let fresh = Fresh::default();
        grow(&fresh, 1, 5..=6, 10);
        grow(&fresh, 1, 7..=7, 10);
        assert_eq!(
            (newest(&fresh, 1, 3), newest(&fresh, 1, 4), newest(&fresh, 1, 7)),
            (None, Some(7), Some(7))
        );
        assert_eq!(newest(&fresh, 1, 8), None, "who knows more is not taken back");
        assert_eq!(newest(&fresh, 2, 4), None);
        assert_eq!(read(&fresh, 1, 4, 6), None);
        assert_eq!(read(&fresh, 1, 5, 8), None);
        assert_eq!(read(&fresh, 1, 5, 6), Some((None, vec![5, 6])));
        assert_eq!(read(&fresh, 1, 6, 7), Some((Some(5), vec![6, 7])));
        let other = Incarnation::from_bytes([2; 16]);
        assert_eq!(fresh.newest(log(1), other, Seq::new(7)), None, "of another life");
    }

    #[test]
    fn a_head_that_moved_otherwise_is_not_known() {
        let fresh = Fresh::default();
        grow(&fresh, 1, 5..=6, 10);
        fresh.take(vec![Change::Moved(log(1))]);
        assert_eq!(newest(&fresh, 1, 6), None);
        grow(&fresh, 1, 9..=9, 10);
        assert_eq!((newest(&fresh, 1, 8), newest(&fresh, 1, 6)), (Some(9), None));
        grow(&fresh, 1, 12..=12, 10);
        assert_eq!((newest(&fresh, 1, 11), read(&fresh, 1, 9, 9)), (Some(12), None));
        grow(&fresh, 1, 13..=13, ENTRY_BYTES_MAX);
        assert_eq!(newest(&fresh, 1, 12), None, "too large to keep");
    }

    #[test]
    fn what_is_read_at_once_is_bounded_and_never_nothing() {
        let fresh = Fresh::default();
        grow(&fresh, 1, 1..=5, 40);
        assert_eq!(read(&fresh, 1, 1, 5), Some((None, vec![1, 2])));
        grow(&fresh, 2, 1..=2, 400);
        assert_eq!(read(&fresh, 2, 1, 2), Some((None, vec![1])));
    }

    #[test]
    fn the_oldest_go_first() {
        let fresh = Fresh::default();
        let each = 1 << 10;
        grow(&fresh, 1, 1..=10, each);
        let many = (BYTES_MAX / (each + ENTRY_OVERHEAD)) as u64;
        grow(&fresh, 2, 1..=many - 5, each);
        assert_eq!((newest(&fresh, 1, 4), newest(&fresh, 1, 5)), (None, Some(10)));
        assert_eq!(newest(&fresh, 2, 0), Some(many - 5));
        grow(&fresh, 2, many - 4..=many, each);
        assert_eq!((newest(&fresh, 1, 10), newest(&fresh, 2, 0)), (None, Some(many)));
        let kept = fresh.locked();
        assert!(kept.bytes <= BYTES_MAX);
        assert_eq!(kept.bytes, kept.runs[&log(2)].entries.iter().map(|e| size(e)).sum::<usize>());
    }
}
