use proptest::prelude::*;

use super::*;

fn device(n: u8) -> DeviceId {
    DeviceId::parse(&format!("mimi://a.example/d/u{n}/1")).unwrap()
}

fn message(sender: u8, counter: u64, seq: u64) -> Message {
    let mut id = [sender; 32];
    id[0] = u8::try_from(counter).unwrap();
    let id = MessageId::from_bytes(id);
    Message { id, sender: device(sender), counter, seq: Seq::new(seq) }
}

fn insert_all(messages: &[Message]) -> Timeline {
    let mut t = Timeline::default();
    for m in messages {
        let _inserted = t.insert(m);
    }
    t
}

fn listed(t: &Timeline) -> Vec<(Key, MessageId)> {
    t.iter().map(|(k, _, id)| (*k, *id)).collect()
}

/// `(sender, counter)` in the order shown.
fn shown(messages: &[Message]) -> Vec<(u8, u8)> {
    insert_all(messages).iter().map(|(_, _, id)| (id.as_bytes()[1], id.as_bytes()[0])).collect()
}

fn key(anchor: u64, counter: u64, seq: u64) -> Key {
    Key { anchor: Seq::new(anchor), counter, seq: Seq::new(seq) }
}

#[test]
fn a_message_that_was_retried_after_later_ones_is_shown_where_it_was_written() {
    let mut t =
        insert_all(&[message(1, 1, 10), message(2, 1, 11), message(1, 3, 12), message(2, 2, 13)]);
    let inserted = t.insert(&message(1, 2, 14));
    assert_eq!(inserted, Inserted::New { key: key(12, 2, 14), moved: vec![] });
    assert!(key(12, 2, 14).late() && !key(12, 3, 12).late());
    let order: Vec<_> = t.iter().map(|(k, _, _)| k.seq.get()).collect();
    assert_eq!(order, [10, 11, 14, 12, 13]);
}

#[test]
fn a_later_message_seen_second_pulls_the_earlier_one_up() {
    let mut t = insert_all(&[message(1, 1, 20), message(2, 1, 15)]);
    let inserted = t.insert(&message(1, 2, 12));
    let moved = vec![(key(20, 1, 20), key(12, 1, 20))];
    assert_eq!(inserted, Inserted::New { key: key(12, 2, 12), moved });
    assert_eq!(
        shown(&[message(1, 1, 20), message(2, 1, 15), message(1, 2, 12)]),
        [(1, 1), (1, 2), (2, 1)]
    );
}

#[test]
fn a_message_that_came_twice_is_shown_once_at_its_first_place() {
    let mut t = insert_all(&[message(1, 1, 5), message(2, 1, 6)]);
    assert_eq!(t.insert(&message(1, 1, 9)), Inserted::Known(key(5, 1, 5)));
    let earlier = Inserted::Earlier { was: key(6, 1, 6), key: key(4, 1, 4), moved: vec![] };
    assert_eq!(t.insert(&message(2, 1, 4)), earlier);
    assert_eq!(t.iter().count(), 2);
}

#[test]
fn two_messages_under_one_counter_are_both_shown_in_server_order() {
    let other = Message { id: MessageId::from_bytes([99; 32]), ..message(1, 1, 3) };
    let set = [message(1, 1, 7), message(2, 1, 5), other];
    let order: Vec<_> =
        insert_all(&set).iter().map(|(k, _, _)| (k.anchor.get(), k.seq.get())).collect();
    assert_eq!(order, [(3, 3), (3, 7), (5, 5)]);
    assert_eq!(listed(&insert_all(&set)), order_of(&set));
}

fn order_of(messages: &[Message]) -> Vec<(Key, MessageId)> {
    order(messages)
}

/// Messages as a room would hold them: unique seqs; counters in any relation to them, repeated ones and copies included.
fn room() -> impl Strategy<Value = Vec<Message>> {
    prop::collection::vec((0u8..4, 1u64..12, any::<bool>()), 0..40).prop_map(|rows| {
        let made = (1..).zip(rows).map(|(seq, (sender, counter, copy))| {
            let mut m = message(sender, counter, seq);
            if !copy {
                let mut id = *m.id.as_bytes();
                id[31] = u8::try_from(seq).unwrap();
                m.id = MessageId::from_bytes(id);
            }
            m
        });
        made.collect()
    })
}

/// An order of arrival of the same messages, some of them more than once.
fn shuffled() -> impl Strategy<Value = (Vec<Message>, Vec<Message>)> {
    let with_doubles = room().prop_flat_map(|r| {
        let doubles = prop::sample::subsequence(r.clone(), 0..=r.len());
        (Just(r), doubles)
    });
    with_doubles.prop_flat_map(|(r, doubles)| {
        let all: Vec<_> = r.iter().cloned().chain(doubles).collect();
        (Just(r), Just(all).prop_shuffle())
    })
}

/// What a sender that retries does: own counters in order, seqs mostly too.
fn honest() -> impl Strategy<Value = Vec<Message>> {
    prop::collection::vec(0u8..4, 0..40).prop_map(|senders| {
        let mut counters = [0; 4];
        let made = (1..).zip(senders).map(|(seq, sender)| {
            let counter = &mut counters[usize::from(sender)];
            *counter += 1;
            message(sender, *counter, seq)
        });
        made.collect()
    })
}

proptest! {
    #[test]
    fn the_order_does_not_depend_on_arrival_and_increments_agree_with_starting_over(
        (set, arrival) in shuffled(),
    ) {
        let t = insert_all(&arrival);
        prop_assert_eq!(listed(&t), order(&set));
        prop_assert_eq!(listed(&t), listed(&insert_all(&set)));
        prop_assert_eq!(order(&arrival), order(&set));
    }

    #[test]
    fn every_sender_keeps_its_own_order((_, arrival) in shuffled()) {
        let t = insert_all(&arrival);
        for n in 0..4 {
            let own: Vec<u64> = t.iter().filter(|(_, d, _)| **d == device(n)).map(|(k, _, _)| k.counter).collect();
            prop_assert!(own.is_sorted(), "{:?}", own);
        }
    }

    #[test]
    fn where_senders_and_server_agree_the_order_is_the_servers(set in honest()) {
        let order = order(&set);
        prop_assert!(order.iter().map(|(k, _)| k.seq).is_sorted());
        prop_assert!(order.iter().all(|(k, _)| !k.late()));
    }

    #[test]
    fn different_senders_are_ordered_by_the_server(set in room()) {
        // Of two messages, each the last of its sender, the one with the lower seq comes first.
        let order = order(&set);
        let last = |n: u8| set.iter().filter(|m| m.sender == device(n)).max_by_key(|m| m.counter);
        let place = |m: &Message| order.iter().position(|(_, id)| *id == m.id).unwrap();
        for (a, b) in [(0, 1), (1, 2), (2, 3)] {
            if let (Some(a), Some(b)) = (last(a), last(b)) {
                let alone = |x: &Message| set.iter().filter(|m| m.sender == x.sender && m.counter == x.counter).count() == 1;
                if alone(a) && alone(b) {
                    prop_assert_eq!(place(a) < place(b), a.seq < b.seq);
                }
            }
        }
    }

    #[test]
    fn the_two_sql_statements_give_the_same(set in shuffled().prop_map(|(_, arrival)| arrival)) {
        // A table of rows (sender, counter, anchor, seq, id), kept with `place` and one update, as its doc says.
        let mut rows: Vec<(DeviceId, u64, Seq, Seq, MessageId)> = vec![];
        for m in &set {
            let same = |r: &(DeviceId, u64, Seq, Seq, MessageId)| r.0 == m.sender && r.1 == m.counter && r.4 == m.id;
            if rows.iter().any(|r| same(r) && r.3 <= m.seq) { continue; }
            rows.retain(|r| !same(r));
            let least = rows.iter().filter(|r| r.0 == m.sender && r.1 >= m.counter).map(|r| r.2).min();
            let key = place(m.counter, m.seq, least);
            for r in &mut rows {
                if r.0 == m.sender && r.1 <= m.counter && r.2 > key.anchor { r.2 = key.anchor; }
            }
            rows.push((m.sender.clone(), m.counter, key.anchor, m.seq, m.id));
        }
        rows.sort_by_key(|r| (r.2, r.1, r.3));
        let ids: Vec<_> = rows.iter().map(|r| r.4).collect();
        prop_assert_eq!(ids, order(&set).into_iter().map(|(_, id)| id).collect::<Vec<_>>());
    }
}
