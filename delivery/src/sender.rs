//! What a message's own header proves about its sender and its hub. PROTOCOL §7.5.
//!
//! Rule: among the known messages of one device in one room, each is compared with its neighbours by counter, so that what is found depends on the set and not on
//! the order of arrival. Findings are values to show; nothing is hidden or dropped because of one.

use protocol::log::{Chain, Digest};

/// What a message says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its sender's own number for it, from 1.
    pub counter: u64,
    /// SHA-256 of its content.
    pub content: Digest,
    /// SHA-256 of the content that its sender wrote before, as it claims.
    pub prev: Option<Digest>,
}

/// The known messages of the same sender next to a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// The one with the highest lower counter.
    pub before: Option<Header>,
    /// Another one with the same counter and another content.
    pub same: Option<Header>,
}

/// What is wrong, at a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Messages of its sender between the one before and this one are missing.
    Missing {
        /// The first missing counter.
        first: u64,
        /// The last missing counter.
        last: u64,
    },
    /// Its sender has used this counter for another message, or counts from 0.
    Repeated,
    /// It does not follow on the one before: its sender, or somebody in its name, wrote two histories.
    Broken,
    /// Its sender was shown another history of the room than this device: the hub forks.
    Forked,
}

/// Compares a message with its neighbours, and what its sender saw of the room with our own. A message that comes late changes what is found at the next
/// one of its sender, which is then checked again. Of the first message that is known of a sender nothing is missing: a device
/// that joined later does not know the ones before.
#[must_use]
pub fn check(message: &Header, neighbours: &Neighbours, seen: Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(before) = &neighbours.before {
        let (first, last) = (before.counter.saturating_add(1), message.counter.saturating_sub(1));
        if first <= last {
            found.push(Finding::Missing { first, last });
        }
    }
    if neighbours.same.is_some_and(|same| same.content != message.content) || message.counter == 0 {
        found.push(Finding::Repeated);
    }
    if broken(message, neighbours.before.as_ref()) {
        found.push(Finding::Broken);
    }
    if seen == Seen::Other {
        found.push(Finding::Forked);
    }
    found
}

/// The first message has none before it, every other one has the one with the counter before, if that is known.
fn broken(message: &Header, before: Option<&Header>) -> bool {
    if message.counter == 1 || message.prev.is_none() {
        return (message.counter == 1) != message.prev.is_none();
    }
    let direct = before.filter(|b| b.counter.saturating_add(1) == message.counter);
    direct.is_some_and(|b| message.prev != Some(b.content))
}

/// How the history that a sender saw compares with ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The same, up to there.
    Same,
    /// We do not have that entry (any more), or the sender said nothing.
    Unknown,
    /// Another one.
    Other,
}

impl Seen {
    /// Compares the chain that a sender saw at some place with the one that we saw at the same seq of the same incarnation.
    #[must_use]
    pub fn compare(theirs: &Chain, ours: Option<&Chain>) -> Self {
        match ours {
            None => Self::Unknown,
            Some(ours) if ours == theirs => Self::Same,
            Some(_) => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Message `n` of an honest sender.
    fn honest(n: u64) -> Header {
        let content = |n: u64| Digest::of_bytes(&n.to_be_bytes());
        Header { counter: n, content: content(n), prev: (n > 1).then(|| content(n - 1)) }
    }

    fn after(n: u64) -> Neighbours {
        Neighbours { before: Some(honest(n)), ..Neighbours::default() }
    }

    fn found(message: &Header, neighbours: &Neighbours) -> Vec<Finding> {
        check(message, neighbours, Seen::Same)
    }

    #[test]
    fn every_finding_has_its_cause_and_an_honest_sender_has_none() {
        let none = Neighbours::default();
        let forged = Digest::from_bytes([9; 32]);
        let cases = [
            ("first", honest(1), none, vec![]),
            ("first we know", honest(7), none, vec![]),
            ("next", honest(8), after(7), vec![]),
            ("gap", honest(9), after(6), vec![Finding::Missing { first: 7, last: 8 }]),
            (
                "other history",
                Header { prev: Some(forged), ..honest(8) },
                after(7),
                vec![Finding::Broken],
            ),
            (
                "first with a past",
                Header { prev: Some(forged), ..honest(1) },
                none,
                vec![Finding::Broken],
            ),
            ("later without one", Header { prev: None, ..honest(8) }, none, vec![Finding::Broken]),
            (
                "number used twice",
                Header { content: forged, ..honest(8) },
                Neighbours { same: Some(honest(8)), ..after(7) },
                vec![Finding::Repeated],
            ),
            (
                "no number",
                Header { prev: None, ..honest(0) },
                none,
                vec![Finding::Repeated, Finding::Broken],
            ),
        ];
        for (name, message, neighbours, expected) in cases {
            assert_eq!(found(&message, &neighbours), expected, "{name}");
        }
        assert_eq!(check(&honest(8), &after(7), Seen::Other), [Finding::Forked]);
        assert_eq!(check(&honest(8), &after(7), Seen::Unknown), []);
    }

    #[test]
    fn a_late_message_takes_back_the_gap_it_fills() {
        assert_eq!(found(&honest(3), &after(1)), [Finding::Missing { first: 2, last: 2 }]);
        assert_eq!(found(&honest(3), &after(2)), []);
        let wrong = Header { content: Digest::from_bytes([9; 32]), ..honest(2) };
        let near = Neighbours { before: Some(wrong), same: None };
        assert_eq!(found(&honest(3), &near), [Finding::Broken]);
    }

    #[test]
    fn a_hub_that_shows_two_histories_is_found_out() {
        let (ours, theirs) = (Chain::from_bytes([1; 32]), Chain::from_bytes([2; 32]));
        assert_eq!(Seen::compare(&theirs, Some(&ours)), Seen::Other);
        assert_eq!(Seen::compare(&ours, Some(&ours)), Seen::Same);
        assert_eq!(Seen::compare(&theirs, None), Seen::Unknown);
    }

    proptest! {
        /// Messages of one honest sender, some of them lost, in any order: what is found at the end is exactly what is missing.
        #[test]
        fn what_is_found_depends_on_the_set_and_not_on_arrival(
            arrival in prop::sample::subsequence((1u64..20).collect::<Vec<_>>(), 1..19).prop_shuffle(),
        ) {
            let mut known: BTreeMap<u64, Vec<Finding>> = BTreeMap::new();
            for n in &arrival {
                let before = |n: &u64, known: &BTreeMap<u64, Vec<Finding>>| Neighbours {
                    before: known.range(..n).next_back().map(|(n, _)| honest(*n)),
                    same: None,
                };
                known.insert(*n, found(&honest(*n), &before(n, &known)));
                if let Some(next) = known.range(n + 1..).next().map(|(n, _)| *n) {
                    known.insert(next, found(&honest(next), &before(&next, &known)));
                }
            }
            let mut missing: Vec<u64> = vec![];
            for finding in known.values().flatten() {
                let Finding::Missing { first, last } = finding else {
                    return Err(TestCaseError::fail(format!("{finding:?}")));
                };
                missing.extend(*first..=*last);
            }
            let (low, high) = (arrival.iter().min().unwrap(), arrival.iter().max().unwrap());
            let truth: Vec<u64> = (*low..=*high).filter(|n| !arrival.contains(n)).collect();
            prop_assert_eq!(missing, truth);
        }
    }
}
