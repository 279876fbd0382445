//! Which log of a device's stream is served next: the inbox first, then the rooms in turn.
//!
//! Rule: the inbox whenever it has something, because a Welcome in it opens a room; otherwise the next room in order after the one served last.
//! Each log has its own window ([`crate::reader::window`]); together they are bounded by [`OUTSTANDING`], so that a device in two thousand rooms
//! does not make the node hold a window of each.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use protocol::Seq;
use protocol::api::{Gap, LogRef};

use crate::reader::{self, Limits, LogEnds, Reader, Span, Window};

/// Entries sent and not acknowledged, over all logs of a stream; the inbox may go one window beyond it.
pub const OUTSTANDING: u64 = 4_096;

/// The machine of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    logs: BTreeMap<LogRef, Served>,
    /// Logs that may have something to send.
    ready: BTreeSet<LogRef>,
    last: Option<LogRef>,
    outstanding: u64,
}

/// One log of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Served {
    reader: Reader,
    ends: LogEnds,
    sent: Seq,
}

/// What to send next. Report with [`Stream::sent`] how far it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Which log.
    pub log: LogRef,
    /// Entries to load and send, as far as `BATCH_BYTES` reaches but at least one; none if all that was left is gone.
    pub entries: Option<Span>,
    /// Entries before them that are gone.
    pub gap: Option<Gap>,
}

impl Stream {
    /// Serves `log` from its reader's cursor on, or takes in how reader and log stand now. Call it at the start, when the log grew, when the
    /// reader acknowledged, and when it was removed. Another stay of the same device starts over.
    pub fn update(&mut self, log: LogRef, reader: Reader, ends: LogEnds) {
        let known = self.logs.get(&log).filter(|served| served.reader.from == reader.from);
        let known = known.filter(|served| served.ends.incarnation == ends.incarnation);
        let sent = known.map_or(reader.cursor, |served| served.sent.max(reader.cursor));
        self.put(log, Served { reader, ends, sent });
    }

    /// The next hole in `log`, as it was last told.
    #[must_use]
    pub fn hole(&self, log: &LogRef) -> Option<Gap> {
        self.logs.get(log).and_then(|served| served.ends.hole)
    }

    /// Everything up to `sent`, gaps included, is on the wire.
    pub fn sent(&mut self, log: &LogRef, sent: Seq) {
        if let Some(served) = self.logs.get(log).copied() {
            self.put(log.clone(), Served { sent: served.sent.max(sent), ..served });
        }
    }

    /// The device wants `log` again from its cursor on.
    pub fn rewind(&mut self, log: &LogRef) {
        if let Some(served) = self.logs.get(log).copied() {
            self.put(log.clone(), Served { sent: served.reader.cursor, ..served });
        }
    }

    /// Serves `log` no more.
    pub fn remove(&mut self, log: &LogRef) {
        if let Some(served) = self.logs.remove(log) {
            self.outstanding = self.outstanding.saturating_sub(served.held());
        }
        self.ready.remove(log);
    }

    /// What to send next; `None` when there is nothing until something changes.
    #[must_use]
    pub fn next_push(&mut self) -> Option<Push> {
        while let Some(log) = self.turn() {
            let Some(served) = self.logs.get(&log) else {
                self.ready.remove(&log);
                continue;
            };
            let window = reader::window(&served.reader, &served.ends, served.sent, Limits::DEVICE);
            if let Window::Send { entries, gap } = window {
                if log != LogRef::Inbox {
                    self.last = Some(log.clone());
                }
                return Some(Push { log, entries, gap });
            }
            self.ready.remove(&log);
        }
        None
    }

    /// The log to look at next.
    fn turn(&self) -> Option<LogRef> {
        if self.ready.contains(&LogRef::Inbox) {
            return Some(LogRef::Inbox);
        }
        if self.outstanding >= OUTSTANDING {
            return None;
        }
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.ready.range::<LogRef, _>((after, Bound::Unbounded)).next();
        later.or_else(|| self.ready.first()).cloned()
    }

    fn put(&mut self, log: LogRef, served: Served) {
        let before = self.logs.insert(log.clone(), served).map_or(0, |old| old.held());
        self.outstanding = self.outstanding.saturating_sub(before).saturating_add(served.held());
        self.ready.insert(log);
    }
}

impl Served {
    /// Entries sent and not acknowledged.
    fn held(&self) -> u64 {
        self.sent.get().saturating_sub(self.reader.cursor.get())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{Incarnation, RoomId, limit};

    use super::*;

    fn room(n: u16) -> LogRef {
        LogRef::Room(RoomId::parse(&format!("mimi://a.example/r/{n:04}")).unwrap())
    }

    fn ends(head: u64) -> LogEnds {
        let incarnation = Incarnation::from_bytes([1; 16]);
        LogEnds { incarnation, tail: Seq::new(1), head: Seq::new(head), hole: None }
    }

    fn reader(cursor: u64) -> Reader {
        Reader { cursor: Seq::new(cursor), ..Reader::from(Seq::new(1)) }
    }

    fn push(s: &mut Stream) -> Option<(LogRef, u64)> {
        let push = s.next_push()?;
        let last = push.entries.map(|e| e.last()).or(push.gap.map(|g| g.last)).unwrap();
        s.sent(&push.log, last);
        Some((push.log, last.get()))
    }

    #[test]
    fn the_inbox_goes_first_and_the_rooms_take_turns() {
        let mut s = Stream::default();
        for log in [room(1), LogRef::Inbox, room(2)] {
            s.update(log, reader(0), ends(100));
        }
        let got: Vec<_> = std::iter::from_fn(|| push(&mut s)).collect();
        let expected = [
            (LogRef::Inbox, 64),
            (LogRef::Inbox, 100),
            (room(1), 64),
            (room(2), 64),
            (room(1), 100),
            (room(2), 100),
        ];
        assert_eq!(got, expected);
        s.rewind(&room(2));
        assert_eq!(push(&mut s), Some((room(2), 64)), "again from the cursor");
        s.remove(&room(2));
        assert_eq!(push(&mut s), None);
        s.update(room(1), reader(100), ends(101));
        assert_eq!(push(&mut s), Some((room(1), 101)));
        let restored = LogEnds { incarnation: Incarnation::from_bytes([2; 16]), ..ends(101) };
        s.update(room(1), reader(50), restored);
        assert_eq!(push(&mut s), Some((room(1), 101)), "another life starts over");
        s.update(room(1), Reader::from(Seq::new(90)), restored);
        assert_eq!(push(&mut s), Some((room(1), 101)), "and so does another stay");
    }

    #[test]
    fn a_device_in_two_thousand_rooms_is_bounded_and_its_inbox_is_not_held_up() {
        let mut s = Stream::default();
        for n in 0..2_000 {
            s.update(room(n), reader(0), ends(1_000));
        }
        let mut sent = 0;
        while push(&mut s).is_some() {
            sent += limit::BATCH_ENTRIES as u64;
        }
        assert_eq!(sent, OUTSTANDING);
        s.update(LogRef::Inbox, reader(0), ends(1));
        assert_eq!(push(&mut s), Some((LogRef::Inbox, 1)));
        s.update(room(0), reader(64), ends(1_000));
        assert_eq!(push(&mut s), Some((room(64), 64)), "the next in turn");
    }

    proptest! {
        /// However logs grow and are acknowledged, everything is sent in order, and nobody starves.
        #[test]
        fn every_log_is_served_to_its_head(
            ops in prop::collection::vec((0u16..6, 0u64..200, any::<bool>()), 1..80),
        ) {
            let mut s = Stream::default();
            let mut heads = [0u64; 6];
            let mut cursors = [0u64; 6];
            let mut sent = [0u64; 6];
            let log = |n: u16| if n == 0 { LogRef::Inbox } else { room(n) };
            let index = |l: &LogRef| (0..6).find(|n| log(*n) == *l).map(usize::from).unwrap();
            for (n, grow, acked) in ops {
                let i = usize::from(n);
                heads[i] += grow;
                if acked { cursors[i] = sent[i]; }
                s.update(log(n), reader(cursors[i]), ends(heads[i]));
                if let Some(p) = s.next_push() {
                    let i = index(&p.log);
                    let span = p.entries.unwrap();
                    prop_assert_eq!(span.first().get(), sent[i] + 1);
                    prop_assert!(span.last().get() - cursors[i] <= limit::WINDOW_ENTRIES);
                    sent[i] = span.last().get();
                    s.sent(&p.log, span.last());
                }
            }
            for _ in 0..10_000 {
                if let Some((l, last)) = push(&mut s) {
                    sent[index(&l)] = last;
                } else if let Some(n) = (0..6).find(|n| cursors[usize::from(*n)] < heads[usize::from(*n)]) {
                    let i = usize::from(n);
                    cursors[i] = sent[i];
                    s.update(log(n), reader(cursors[i]), ends(heads[i]));
                } else {
                    break;
                }
            }
            prop_assert_eq!(sent, heads);
        }
    }
}
