use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_ms(1_000_000);

fn head() -> RoomHead {
    RoomHead {
        incarnation: Incarnation::from_bytes([1; 16]),
        head: Seq::new(41),
        chain: Chain::from_bytes([2; 32]),
        last_at: Timestamp::from_ms(999_000),
        epoch: Epoch::new(7),
    }
}

fn event(epoch: u64, what: What<'_>) -> Event<'_> {
    Event { digest: Digest::from_bytes([5; 32]), epoch: Epoch::new(epoch), what }
}

fn new(head: &RoomHead, event: &Event<'_>, now: Timestamp) -> Admitted {
    match admit(head, None, event, now).unwrap() {
        Admission::New(admitted) => admitted,
        Admission::Again(known) => panic!("again: {known:?}"),
    }
}

#[test]
fn a_message_gets_the_next_place_and_leaves_the_epoch() {
    let a = new(&head(), &event(7, What::Application(b"m")), NOW);
    assert_eq!((a.entry.seq, a.entry.at, a.welcome), (Seq::new(42), NOW, None));
    let digest = Digest::of_entry(EntryKind::Application, NOW, b"m");
    let chain = head().chain.next(Seq::new(42), &digest);
    assert_eq!((a.entry.digest, a.entry.chain), (digest, chain));
    let after = RoomHead { head: Seq::new(42), chain, last_at: NOW, ..head() };
    assert_eq!(a.head_after, after);
    let place = Cursor { incarnation: head().incarnation, seq: Seq::new(42) };
    assert_eq!(a.accepted(), Accepted { place, at: NOW, chain });
}

#[test]
fn a_commit_moves_the_epoch_and_its_welcome_follows_in_the_same_step() {
    let a = new(&head(), &event(7, What::Commit { body: b"c", welcome: Some(b"w") }), NOW);
    let welcome = a.welcome.unwrap();
    assert_eq!((a.entry.kind, welcome.kind), (EntryKind::Commit, EntryKind::Welcome));
    assert_eq!((a.entry.seq.get(), welcome.seq.get()), (42, 43));
    assert_eq!(welcome.at.since(a.entry.at).as_millis(), 1, "the hub's time is strict");
    assert_eq!(welcome.chain, a.entry.chain.next(welcome.seq, &welcome.digest));
    assert_eq!((a.head_after.epoch.get(), a.head_after.head.get()), (8, 43));
    let alone = new(&head(), &event(7, What::Commit { body: b"c", welcome: None }), NOW);
    assert_eq!((alone.head_after.epoch.get(), alone.head_after.head.get()), (8, 42));
}

#[test]
fn the_epoch_table() {
    let commit = What::Commit { body: b"c", welcome: None };
    for (what, epoch, code) in [
        (What::Application(b"m"), 6, Code::StaleEpoch),
        (What::Application(b"m"), 8, Code::WrongEpoch),
        (What::Proposal(b"p"), 6, Code::WrongEpoch),
        (What::Proposal(b"p"), 8, Code::WrongEpoch),
        (commit, 6, Code::WrongEpoch),
        (commit, 8, Code::WrongEpoch),
    ] {
        let refusal = admit(&head(), None, &event(epoch, what), NOW).unwrap_err();
        assert_eq!((refusal.code, refusal.epoch), (code, Some(Epoch::new(7))), "{what:?}");
    }
    assert_eq!(new(&head(), &event(7, What::Proposal(b"p")), NOW).head_after.epoch, Epoch::new(7));
}

#[test]
fn a_lost_reply_is_harmless_even_when_the_epoch_is_over() {
    let commit = event(7, What::Commit { body: b"c", welcome: Some(b"w") });
    let first = new(&head(), &commit, NOW);
    let known = Known::Accepted(first.accepted());
    let prior = Prior { digest: commit.digest, known };
    let again = admit(&first.head_after, Some(&prior), &commit, NOW);
    assert_eq!(again.unwrap(), Admission::Again(known));
    let other = Event { digest: Digest::from_bytes([6; 32]), ..commit };
    let refusal = admit(&first.head_after, Some(&prior), &other, NOW).unwrap_err();
    assert_eq!(refusal.code, Code::Conflict);
}

#[test]
fn what_a_hub_refused_after_it_was_stored_may_come_again_encrypted_anew() {
    let old = Digest::from_bytes([5; 32]);
    let new = Digest::from_bytes([6; 32]);
    let held = Amount::default();
    let stored = Prior { digest: old, known: Known::Stored };
    assert_eq!(uplink(Some(&stored), &old, held, 9).unwrap(), Uplink::Again(Known::Stored));
    let overtaken = uplink(Some(&stored), &new, held, 9).unwrap_err();
    assert_eq!(overtaken.code, Code::Unavailable, "the attempt before waits, and will be refused");
    assert!(overtaken.retry_after_ms.is_some());
    let place = protocol::Cursor { incarnation: head().incarnation, seq: Seq::new(1) };
    let accepted = Accepted { place, at: NOW, chain: head().chain };
    let accepted = Prior { digest: old, known: Known::Accepted(accepted) };
    assert_eq!(uplink(Some(&accepted), &new, held, 9).unwrap_err().code, Code::Conflict);
    let refused = Prior { digest: old, known: Known::Refused };
    assert_eq!(uplink(Some(&refused), &new, held, 9).unwrap(), Uplink::New);
    assert_eq!(uplink(None, &new, quota::UPLINK.most, 9).unwrap_err().code, Code::QueueFull);
    assert_eq!(
        uplink(Some(&stored), &old, quota::UPLINK.most, 9).unwrap(),
        Uplink::Again(Known::Stored),
        "a repetition takes no room"
    );
}

#[test]
fn a_clock_that_went_back_makes_the_hub_wait_and_not_lie() {
    let message = event(7, What::Application(b"m"));
    let back = |ms| RoomHead { last_at: Timestamp::from_ms(1_000_000 + ms), ..head() };
    assert_eq!(new(&back(1_999), &message, NOW).entry.at.ms(), 1_002_000);
    let refusal = admit(&back(2_000), None, &message, NOW).unwrap_err();
    assert_eq!((refusal.code, refusal.retry_after_ms), (Code::Unavailable, Some(1)));
    let refusal = admit(&back(u64::MAX - 1_000_000), None, &message, NOW).unwrap_err();
    assert_eq!(refusal.retry_after_ms, Some(5_000), "its clock may be set right at any moment");
}

#[derive(Clone, Debug)]
enum Op {
    Message(u64),
    Commit(u64, bool),
    Clock(u64),
    Again,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u64..3).prop_map(Op::Message),
        2 => (0u64..3, any::<bool>()).prop_map(|(e, w)| Op::Commit(e, w)),
        2 => (0u64..5_000).prop_map(Op::Clock),
        1 => Just(Op::Again),
    ]
}

proptest! {
    /// Whatever comes in whatever order and whatever the clock does: numbers without gaps, times that rise and stay near the clock, one commit per
    /// epoch, a chain over all, and no second place for a repetition.
    #[test]
    fn a_log_is_gapless_timely_and_gives_each_epoch_to_one_commit(
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut head = head();
        let mut now = NOW;
        let mut placed = vec![];
        let mut commits = vec![];
        let mut last: Option<(Event<'_>, Known)> = None;
        for op in ops {
            let (behind, what) = match op {
                Op::Clock(ms) => { now = Timestamp::from_ms(998_000 + ms); continue }
                Op::Again => {
                    let Some((event, known)) = last else { continue };
                    let prior = Prior { digest: event.digest, known };
                    prop_assert_eq!(admit(&head, Some(&prior), &event, now), Ok(Admission::Again(known)));
                    continue
                }
                Op::Message(behind) => (behind, What::Application(b"m")),
                Op::Commit(behind, w) =>
                    (behind, What::Commit { body: b"c", welcome: w.then_some(b"w") }),
            };
            let epoch = (head.epoch.get() + 1).saturating_sub(behind);
            match admit(&head, None, &event(epoch, what), now) {
                Ok(Admission::New(a)) => {
                    prop_assert_eq!(epoch, head.epoch.get());
                    if a.entry.kind == EntryKind::Commit { commits.push(epoch); }
                    placed.push(a.entry);
                    placed.extend(a.welcome);
                    head = a.head_after;
                    prop_assert!(head.last_at.since(now) <= limit::HUB_TIME_AHEAD);
                    last = Some((event(epoch, what), Known::Accepted(a.accepted())));
                }
                Ok(Admission::Again(_)) => prop_assert!(false, "nothing came before"),
                Err(r) => prop_assert!(epoch != head.epoch.get() || r.code == Code::Unavailable),
            }
        }
        let mut chain = super::tests::head().chain;
        for (n, p) in (42..).zip(&placed) {
            prop_assert_eq!(p.seq.get(), n);
            chain = chain.next(p.seq, &p.digest);
            prop_assert_eq!(p.chain, chain);
        }
        prop_assert!(placed.windows(2).all(|w| w[0].at < w[1].at));
        prop_assert!(commits.windows(2).all(|w| w[0] < w[1]));
    }
}
