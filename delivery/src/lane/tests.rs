use proptest::prelude::*;

use super::*;

const fn ms(n: u64) -> Timestamp {
    Timestamp::from_ms(n)
}

const fn seq(n: u64) -> Seq {
    Seq::new(n)
}

fn lane(kind: Kind, head: u64) -> Lane {
    Lane::new(kind, Row::new(seq(1)), seq(head), ms(0))
}

fn send(lane: &mut Lane, now: u64) -> (u64, usize) {
    let Step::Send { after, count } = lane.next(ms(now)) else {
        panic!("{:?}", lane.next(ms(now)))
    };
    let last = (after.get() + count as u64).min(lane.head.get());
    let _row = lane.attempt_started(seq(last), ms(now), u32::MAX);
    (last, count)
}

fn no(code: Code) -> Outcome {
    Outcome::Refused(code.into())
}

#[test]
fn entries_go_in_batches_one_request_at_a_time() {
    let mut l = lane(Kind::Notify, 100);
    assert_eq!(send(&mut l, 0), (64, 64));
    assert_eq!(l.next(ms(9)), Step::Idle, "one in flight");
    l.grown(seq(120));
    assert_eq!(l.on_result(Outcome::Accepted(seq(64)), ms(9), 0), Effect::Advanced);
    assert_eq!(send(&mut l, 9), (120, 64));
    assert_eq!(l.on_result(Outcome::Accepted(seq(120)), ms(9), 0), Effect::Advanced);
    assert_eq!((l.next(ms(9)), l.row().attempts), (Step::Idle, 0));
}

#[test]
fn the_attempt_is_written_before_dialling_and_survives_a_crash() {
    let mut l = lane(Kind::Notify, 5);
    let row = l.attempt_started(seq(5), ms(100), u32::MAX).clone();
    assert_eq!((row.attempts, row.next_at), (1, ms(1_100)));
    let l = Lane::new(Kind::Notify, row.clone(), seq(5), ms(200));
    assert_eq!(l.next(ms(200)), Step::WaitUntil(ms(1_100)));
    assert_eq!(l.next(ms(1_100)), Step::Send { after: seq(0), count: 64 }, "drained at start");
    let far = Row { next_at: ms(u64::MAX), ..row };
    let l = Lane::new(Kind::Notify, far, seq(5), ms(0));
    assert_eq!(l.next(ms(0)), Step::WaitUntil(ms(300_000)), "a clock that ran ahead");
}

#[test]
fn a_clock_that_is_set_back_costs_a_running_lane_one_attempt_and_no_wait() {
    let mut l = lane(Kind::Notify, 5);
    send(&mut l, 900_000_000);
    assert_eq!(l.on_result(Outcome::Unknown, ms(900_000_000), u32::MAX), Effect::Again);
    assert!(matches!(l.next(ms(900_000_000)), Step::WaitUntil(_)));
    send(&mut l, 7);
    assert_eq!(l.on_result(Outcome::Unknown, ms(7), u32::MAX), Effect::Again);
    assert!(matches!(l.next(ms(7)), Step::WaitUntil(at) if at <= ms(300_007)));
}

#[test]
fn a_lost_reply_sends_the_same_bytes_again() {
    let mut l = lane(Kind::Notify, 10);
    send(&mut l, 0);
    l.grown(seq(200));
    assert_eq!(l.on_result(Outcome::Unknown, ms(50), u32::MAX), Effect::Again);
    assert_eq!(l.next(ms(50)), Step::WaitUntil(ms(1_050)));
    assert_eq!(l.next(ms(1_050)), Step::Send { after: seq(0), count: 64 });
}

#[test]
fn contact_makes_a_waiting_lane_due_but_not_before_what_the_peer_asked_for() {
    let mut l = lane(Kind::Notify, 10);
    send(&mut l, 0);
    let _again = l.on_result(Outcome::Unknown, ms(0), u32::MAX);
    l.contact(ms(3));
    assert!(matches!(l.next(ms(3)), Step::Send { .. }));

    send(&mut l, 3);
    let busy = Outcome::Refused(Refusal::new(Code::RateLimited).retry_after_ms(60_000));
    let _again = l.on_result(busy, ms(10), 0);
    l.contact(ms(20));
    assert_eq!(l.next(ms(20)), Step::WaitUntil(ms(60_010)));

    let mut l = lane(Kind::Notify, 10);
    send(&mut l, 0);
    l.contact(ms(5));
    let _again = l.on_result(Outcome::Unknown, ms(30_000), u32::MAX);
    assert!(
        matches!(l.next(ms(30_000)), Step::Send { .. }),
        "contact during a doomed attempt counts"
    );
    send(&mut l, 30_000);
    l.contact(ms(30_001));
    let _again = l.on_result(Outcome::Unknown, ms(30_002), u32::MAX);
    assert_eq!(
        l.next(ms(30_002)),
        Step::WaitUntil(ms(31_000)),
        "but not a thousand times a second"
    );
}

#[test]
fn a_poison_entry_is_isolated_by_halves_and_parks_only_its_lane() {
    let poison = 37;
    let mut l = lane(Kind::Notify, 100);
    let mut requests = 0;
    let parked = loop {
        requests += 1;
        let (last, _) = send(&mut l, 0);
        let cursor = l.row().cursor.get();
        let outcome = if cursor < poison && poison <= last {
            no(Code::Malformed)
        } else {
            Outcome::Accepted(seq(last))
        };
        if l.on_result(outcome, ms(0), u32::MAX) == Effect::Parked {
            break l.row().parked.clone().unwrap();
        }
        assert!(requests < 20);
    };
    assert_eq!((parked.seq, parked.refusal.code), (seq(poison), Code::Malformed));
    assert_eq!((l.row().cursor, l.next(ms(u64::MAX))), (seq(poison - 1), Step::Idle));
    l.contact(ms(9));
    assert_eq!(l.next(ms(9)), Step::Idle, "contact does not wake it");
    let restarted = Lane::new(Kind::Notify, l.row().clone(), seq(100), ms(9));
    assert_eq!(restarted.next(ms(9)), Step::Idle, "nor does a restart");
    l.resume(ms(9));
    assert_eq!(send(&mut l, 9), (poison, 1), "it alone");
    let _advanced = l.on_result(Outcome::Accepted(seq(poison)), ms(9), 0);
    assert_eq!(send(&mut l, 9), (poison + 1, 1), "what was refused together with it");
    let _advanced = l.on_result(Outcome::Accepted(seq(poison + 1)), ms(9), 0);
    assert_eq!(send(&mut l, 9), (100, 64), "full batches behind the suspects");
}

#[test]
fn a_follower_that_misses_entries_gets_them_from_there() {
    let mut l = lane(Kind::Notify, 10);
    send(&mut l, 0);
    let _advanced = l.on_result(Outcome::Accepted(seq(10)), ms(0), 0);
    l.grown(seq(11));
    send(&mut l, 0);
    assert_eq!(l.on_result(Outcome::Expected(seq(4)), ms(0), u32::MAX), Effect::Advanced);
    assert_eq!(l.next(ms(0)), Step::Send { after: seq(3), count: 64 });
    send(&mut l, 0);
    assert_eq!(l.on_result(Outcome::Expected(seq(2)), ms(0), u32::MAX), Effect::Advanced);
    assert_eq!(l.next(ms(0)), Step::WaitUntil(ms(2_000)), "twice in a row is odd");
    for nonsense in [0, 13] {
        let mut l = lane(Kind::Notify, 11);
        send(&mut l, 0);
        assert_eq!(l.on_result(Outcome::Expected(seq(nonsense)), ms(0), 0), Effect::Parked);
    }
    let row = Row::new(seq(5));
    let mut l = Lane::new(Kind::Notify, row, seq(11), ms(0));
    send(&mut l, 0);
    assert_eq!(l.on_result(Outcome::Expected(seq(4)), ms(0), 0), Effect::Parked, "not its to have");
}

#[test]
fn an_uplink_hands_final_answers_to_the_device_and_goes_on() {
    for code in [Code::StaleEpoch, Code::NotAllowed, Code::InvalidCommit, Code::MissingProposal] {
        let mut l = lane(Kind::Uplink, 3);
        assert_eq!(send(&mut l, 0), (1, 1));
        let Effect::Settled(settled) = l.on_result(no(code), ms(0), 0) else { panic!("{code}") };
        assert_eq!((settled.seq, settled.refusal.code), (seq(1), code));
        assert_eq!(l.next(ms(0)), Step::Send { after: seq(1), count: 1 });
    }
}

#[test]
fn every_code_has_somebody_to_blame_and_none_loses_an_entry() {
    for code in Code::ALL {
        for kind in [Kind::Notify, Kind::Uplink] {
            let mut l = lane(kind, 1);
            send(&mut l, 0);
            let effect = l.on_result(no(*code), ms(0), u32::MAX);
            match effect {
                Effect::Settled(_) => assert_eq!(kind, Kind::Uplink, "{code}"),
                Effect::Parked => {
                    assert_eq!((l.row().cursor, l.row().parked.is_some()), (seq(0), true));
                }
                Effect::Again | Effect::Alarm(_) => {
                    assert_eq!(
                        (l.row().cursor, l.next(ms(0))),
                        (seq(0), Step::WaitUntil(ms(1_000)))
                    );
                }
                Effect::Advanced => panic!("{code}"),
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Grow(u64),
    Wait(u64),
    Contact,
    Go(Net),
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Net {
    Works,
    LosesRequest,
    LosesReply,
    Busy(u32),
    Refuses,
    Lies(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let net = prop_oneof![
        3 => Just(Net::Works),
        2 => Just(Net::LosesRequest),
        2 => Just(Net::LosesReply),
        1 => (0u32..10_000).prop_map(Net::Busy),
        1 => Just(Net::Refuses),
        1 => (0u64..300).prop_map(Net::Lies),
    ];
    prop_oneof![
        2 => (1u64..100).prop_map(Op::Grow),
        2 => (0u64..400_000).prop_map(Op::Wait),
        1 => Just(Op::Contact),
        5 => net.prop_map(Op::Go),
        1 => Just(Op::Restart),
    ]
}

/// A follower that appends what comes next and asks for what it misses.
struct Follower(u64);

impl Follower {
    fn take(&mut self, after: u64, last: u64) -> Outcome {
        if after > self.0 {
            return Outcome::Expected(seq(self.0 + 1));
        }
        self.0 = self.0.max(last);
        Outcome::Accepted(seq(self.0))
    }
}

proptest! {
    /// Through lost requests, lost replies, refusals, lies and restarts: the follower never has a hole, waits are bounded, and once the net works it has everything.
    #[test]
    fn a_lane_delivers_everything_in_order_whatever_the_net_does(
        ops in prop::collection::vec(op(), 1..150), jitter: u32,
    ) {
        let mut now = ms(1_000_000);
        let mut head = 3;
        let mut lane = Lane::new(Kind::Notify, Row::new(seq(1)), seq(head), now);
        let mut follower = Follower(0);
        let mut attempt = |lane: &mut Lane, now, net| -> Result<(), TestCaseError> {
            let Step::Send { after, count } = lane.next(now) else { return Ok(()) };
            prop_assert!((1..=limit::BATCH_ENTRIES).contains(&count));
            let last = (after.get() + count as u64).min(lane.head.get());
            let row = lane.attempt_started(seq(last), now, jitter).clone();
            prop_assert!(row.next_at <= now.after(Backoff::STANDARD.cap));
            let outcome = match net {
                Net::Works => follower.take(after.get(), last),
                Net::LosesRequest => Outcome::Unknown,
                Net::LosesReply => { let _lost = follower.take(after.get(), last); Outcome::Unknown }
                Net::Busy(ms) => Outcome::Refused(Refusal::new(Code::RateLimited).retry_after_ms(ms)),
                Net::Refuses => no(Code::Invalid),
                Net::Lies(n) => Outcome::Expected(seq(n)),
            };
            let _effect = lane.on_result(outcome, now, jitter);
            prop_assert!(lane.row().cursor.get() <= lane.head.get());
            Ok(())
        };
        for op in ops {
            match op {
                Op::Grow(n) => { head += n; lane.grown(seq(head)); }
                Op::Wait(by) => now = now.after(Duration::from_millis(by)),
                Op::Contact => lane.contact(now),
                Op::Go(net) => attempt(&mut lane, now, net)?,
                Op::Restart => lane = Lane::new(Kind::Notify, lane.row().clone(), seq(head), now),
            }
        }
        if lane.row().parked.is_some() { lane.resume(now); }
        let mut rounds = 0;
        loop {
            match lane.next(now) {
                Step::Send { .. } => attempt(&mut lane, now, Net::Works)?,
                Step::WaitUntil(at) => {
                    prop_assert!(at.since(now) <= Duration::from_mins(10));
                    now = at;
                }
                Step::Idle => break,
            }
            rounds += 1;
            prop_assert!(rounds < 10_000);
        }
        // A liar may have claimed to have what it has not; an honest follower asks for the rest at the next entry.
        lane.grown(seq(head + 1));
        for _ in 0..10_000 {
            match lane.next(now) {
                Step::Send { .. } => attempt(&mut lane, now, Net::Works)?,
                Step::WaitUntil(at) => now = at,
                Step::Idle => break,
            }
        }
        prop_assert_eq!(lane.row().parked.clone(), None);
        prop_assert_eq!(follower.0, head + 1);
    }
}
