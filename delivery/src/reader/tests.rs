use proptest::prelude::*;

use super::*;

const LIFE: Incarnation = Incarnation::from_bytes([1; 16]);

fn ends(tail: u64, head: u64) -> LogEnds {
    LogEnds { incarnation: LIFE, tail: Seq::new(tail), head: Seq::new(head), hole: None }
}

fn reader(from: u64, cursor: u64, until: Option<u64>) -> Reader {
    Reader { from: Seq::new(from), cursor: Seq::new(cursor), until: until.map(Seq::new) }
}

fn cursor(seq: u64) -> Cursor {
    Cursor { incarnation: LIFE, seq: Seq::new(seq) }
}

/// `(first, last)` of the entries, `(first, last)` of the gap.
type Plain = (Option<(u64, u64)>, Option<(u64, u64)>);

fn plain(w: Window) -> Plain {
    let Window::Send { entries, gap } = w else { panic!("{w:?}") };
    (entries.map(|s| (s.first().get(), s.last().get())), gap.map(|g| (g.first.get(), g.last.get())))
}

fn small(batch: u64, window: u64) -> Limits {
    Limits { batch, window }
}

#[test]
fn the_acknowledgement_table() {
    let log = ends(1, 9);
    let ack = |r: Reader, c| acknowledge(&r, &log, c).map_err(|e| e.code);
    let r = reader(1, 4, None);
    let other = Cursor { incarnation: Incarnation::from_bytes([2; 16]), seq: Seq::new(5) };
    assert_eq!(ack(r, other), Err(Code::WrongIncarnation));
    assert_eq!(ack(r, cursor(10)), Err(Code::Malformed));
    assert_eq!(ack(r, cursor(9)), Ok(Acknowledged::Moved(Seq::new(9))));
    assert_eq!(ack(r, cursor(4)), Ok(Acknowledged::Unchanged));
    assert_eq!(ack(r, cursor(0)), Ok(Acknowledged::Unchanged));
    let removed = reader(1, 4, Some(6));
    assert_eq!(ack(removed, cursor(7)), Ok(Acknowledged::Moved(Seq::new(6))), "of a later stay");
    assert_eq!(ack(removed, cursor(10)), Err(Code::Malformed), "of nothing");
    assert_eq!(ack(reader(1, 6, Some(6)), cursor(9)), Ok(Acknowledged::Unchanged));
    assert_eq!(ack(removed, cursor(6)), Ok(Acknowledged::Moved(Seq::new(6))));
    assert!(reader(1, 6, Some(6)).done() && !removed.done());
}

#[test]
fn a_device_gets_nothing_from_before_it_came_or_after_it_went() {
    let log = ends(1, 20);
    let welcome = Reader::joined(Seq::new(7), Joined::Welcome);
    assert_eq!(plain(window(&welcome, &log, welcome.cursor, Limits::DEVICE)).0, Some((8, 20)));
    let external = Reader::joined(Seq::new(7), Joined::External);
    assert_eq!(plain(window(&external, &log, external.cursor, Limits::DEVICE)).0, Some((7, 20)));
    let gone = external.removed(Seq::new(12)).removed(Seq::new(15));
    assert_eq!(plain(window(&gone, &log, gone.cursor, Limits::DEVICE)).0, Some((7, 12)));
    assert_eq!(window(&gone, &log, Seq::new(12), Limits::DEVICE), Window::CaughtUp);
    let acked = Reader { cursor: Seq::new(12), ..gone };
    assert_eq!(window(&acked, &log, Seq::new(12), Limits::DEVICE), Window::Ended);
    assert_eq!(Reader::joined(Seq::new(20), Joined::Welcome).cursor, Seq::new(20));
    let first = Reader::from(Seq::new(1));
    assert_eq!(window(&first, &ends(1, 0), Seq::new(0), Limits::DEVICE), Window::CaughtUp);
}

#[test]
fn the_window_bounds_what_a_slow_reader_makes_the_node_hold() {
    let log = ends(1, 100);
    let r = reader(1, 10, None);
    assert_eq!(plain(window(&r, &log, Seq::new(10), small(5, 12))).0, Some((11, 15)));
    assert_eq!(plain(window(&r, &log, Seq::new(20), small(5, 12))).0, Some((21, 22)));
    assert_eq!(window(&r, &log, Seq::new(22), small(5, 12)), Window::Full);
    let acked = reader(1, 21, None);
    assert_eq!(plain(window(&acked, &log, Seq::new(22), small(5, 12))).0, Some((23, 27)));
}

#[test]
fn what_is_gone_is_told_and_never_skipped_silently() {
    let r = reader(1, 3, None);
    let w = |log| plain(window(&r, &log, Seq::new(3), small(5, 12)));
    assert_eq!(w(ends(8, 20)), (Some((8, 12)), Some((4, 7))));
    assert_eq!(w(ends(21, 20)), (None, Some((4, 20))), "all of it");
    let hole = Some(Gap { first: Seq::new(6), last: Seq::new(9), reason: GapReason::Lost });
    assert_eq!(w(LogEnds { hole, ..ends(1, 20) }), (Some((4, 5)), None), "up to the hole");
    let lost = window(&r, &LogEnds { hole, ..ends(1, 20) }, Seq::new(5), small(5, 12));
    assert_eq!(plain(lost), (Some((10, 14)), Some((6, 9))));
    let Window::Send { gap: Some(gap), .. } = lost else { panic!("{lost:?}") };
    assert_eq!(gap.reason, GapReason::Lost);
    let removed = reader(1, 3, Some(6));
    let gone = plain(window(&removed, &ends(8, 20), Seq::new(3), small(5, 12)));
    assert_eq!(gone, (None, Some((4, 6))), "only what was its to have");
    let log = LogEnds { hole, ..ends(1, 20) };
    let removed = reader(1, 5, Some(7));
    let lost = plain(window(&removed, &log, Seq::new(5), small(5, 12)));
    assert_eq!(lost, (None, Some((6, 7))), "of a hole too");
    let before = reader(8, 7, None);
    let log = ends(8, 20);
    assert_eq!(plain(window(&before, &log, before.cursor, small(5, 12))), (Some((8, 12)), None));
}

#[derive(Clone, Debug)]
enum Op {
    Grow(u64),
    Send,
    Ack(u64),
    Expire(u64),
    Reconnect,
    Remove,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (1u64..8).prop_map(Op::Grow),
        4 => Just(Op::Send),
        2 => (0u64..12).prop_map(Op::Ack),
        1 => (0u64..6).prop_map(Op::Expire),
        1 => Just(Op::Reconnect),
        1 => Just(Op::Remove),
    ]
}

/// A node and its log, one device, and what the device has got.
struct World {
    log: LogEnds,
    reader: Reader,
    sent: Seq,
    got: Vec<u64>,
    gone: Vec<u64>,
    /// Sent on this connection and not acknowledged.
    flying: Vec<u64>,
}

impl World {
    fn send(&mut self, limits: Limits) -> Result<bool, TestCaseError> {
        let Window::Send { entries, gap } = window(&self.reader, &self.log, self.sent, limits)
        else {
            return Ok(false);
        };
        let mut next = self.sent.max(self.reader.cursor).next();
        if let Some(gap) = gap {
            prop_assert_eq!(gap.first, next);
            self.gone.extend(gap.first.get()..=gap.last.get());
            next = gap.last.next();
        }
        if let Some(span) = entries {
            prop_assert_eq!(span.first(), next);
            prop_assert!(span.first() >= self.log.tail && span.last() <= self.log.head);
            prop_assert!(span.count() <= limits.batch);
            self.got.extend(span.first().get()..=span.last().get());
            next = span.last().next();
            let cursor = self.reader.cursor.get();
            self.flying.retain(|seq| *seq > cursor);
            self.flying.extend(span.first().get()..=span.last().get());
            prop_assert!(self.flying.len() as u64 <= limits.window);
        }
        self.sent = next.prev();
        Ok(true)
    }
}

proptest! {
    /// Whatever happens to log, connection and acknowledgements: at the end the device has every entry that was its to have, or was told that
    /// it is gone; nothing from before it came or after it went; and never more than the window unacknowledged.
    #[test]
    fn every_entry_arrives_or_is_reported_gone(ops in prop::collection::vec(op(), 1..120), from in 1u64..6) {
        let limits = small(4, 9);
        let reader = Reader::from(Seq::new(from));
        let mut w = World { log: ends(1, 5), reader, sent: reader.cursor, got: vec![], gone: vec![], flying: vec![] };
        for op in ops {
            match op {
                Op::Grow(n) => w.log.head = plus(w.log.head, n),
                Op::Send => { w.send(limits)?; }
                Op::Ack(n) => {
                    let seq = plus(w.reader.cursor, n).min(w.sent).max(w.reader.cursor);
                    let to = acknowledge(&w.reader, &w.log, cursor(seq.get())).unwrap();
                    if let Acknowledged::Moved(to) = to { w.reader.cursor = to; }
                }
                Op::Expire(n) => w.log.tail = plus(w.log.tail, n).min(w.log.head.next()),
                Op::Reconnect => { w.sent = w.reader.cursor; w.flying.clear(); }
                Op::Remove => w.reader = w.reader.removed(w.log.head.max(w.reader.from)),
            }
        }
        let end = w.reader.last(&w.log);
        let mut rounds = 0;
        while w.send(limits)? || w.reader.cursor < end && end >= w.reader.from {
            w.reader.cursor = w.sent.max(w.reader.cursor);
            rounds += 1;
            prop_assert!(rounds < 1_000);
        }
        let mut all: Vec<u64> = w.got.iter().chain(&w.gone).copied().collect();
        all.sort_unstable();
        all.dedup();
        prop_assert_eq!(all, (from..=end.get()).collect::<Vec<_>>());
    }
}
