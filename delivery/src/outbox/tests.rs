use proptest::prelude::*;
use protocol::log::Chain;
use protocol::{Cursor, Incarnation, Seq};

use super::*;

const fn ms(n: u64) -> Timestamp {
    Timestamp::from_ms(n)
}

fn id(n: u8) -> SubmitId {
    SubmitId::from_bytes([n; 16])
}

fn room(n: u8) -> RoomId {
    RoomId::parse(&format!("mimi://a.example/r/{n}")).unwrap()
}

fn accepted(n: u64) -> Accepted {
    let place = Cursor { incarnation: Incarnation::from_bytes([1; 16]), seq: Seq::new(n) };
    Accepted { place, at: ms(n), chain: Chain::from_bytes([0; 32]) }
}

fn no(code: Code) -> SubmitReply {
    SubmitReply::Refused(code.into())
}

/// Online, with items 1, 2, … queued in the given rooms.
fn outbox(rooms: &[u8]) -> Outbox {
    let mut o = Outbox::new([]);
    for (n, r) in (1..).zip(rooms) {
        assert!(o.push(id(n), room(*r), n.into()).is_some());
    }
    assert!(o.online(true).is_empty());
    o
}

/// Encrypts and sends what is due at 0.
fn send(o: &mut Outbox, n: u8, now: u64) {
    if o.next(ms(now)) == Step::Encrypt(id(n)) {
        assert!(o.encrypted(&id(n)).unwrap().encrypted);
    }
    assert_eq!(o.next(ms(now)), Step::Submit(id(n)));
    assert_eq!(o.sending(&id(n)).unwrap().state, State::Sending);
}

fn state(o: &Outbox, n: u8) -> State {
    o.get(&id(n)).unwrap().state.clone()
}

#[test]
fn a_message_goes_through_every_state() {
    let mut o = outbox(&[1]);
    send(&mut o, 1, 0);
    assert_eq!(o.next(ms(0)), Step::Idle);
    assert_eq!(o.replied(&id(1), SubmitReply::Stored, ms(5), 0).unwrap().state, State::Stored);
    assert_eq!(o.next(ms(u64::MAX)), Step::Idle, "stored waits and is not sent again");
    assert!(o.delivered(&id(1)).is_none(), "not before it has a place");
    assert_eq!(o.shown(&id(1), accepted(7)).unwrap().state, State::Accepted(accepted(7)));
    assert_eq!(o.delivered(&id(1)).unwrap().state, State::Delivered(accepted(7)));
    assert_eq!(o.read(&id(1)).unwrap().state, State::Read(accepted(7)));
    for again in
        [o.clone().delivered(&id(1)), o.clone().read(&id(1)), o.clone().shown(&id(1), accepted(9))]
    {
        assert!(again.is_none(), "never back");
    }
    assert!(o.remove(&id(1)).is_some());
}

#[test]
fn order_in_a_room_is_kept_and_rooms_do_not_wait_for_each_other() {
    let mut o = outbox(&[1, 1, 2]);
    send(&mut o, 1, 0);
    send(&mut o, 3, 0);
    assert_eq!(o.next(ms(0)), Step::Idle, "the second waits for the first");
    let _row = o.lost(&id(1), ms(0), u32::MAX);
    assert_eq!(o.next(ms(0)), Step::WaitUntil(ms(1_000)), "also while the first backs off");
    send(&mut o, 1, 1_000);
    let _row = o.replied(&id(1), SubmitReply::Stored, ms(1_000), 0);
    send(&mut o, 2, 1_000);
}

#[test]
fn a_lost_reply_sends_the_same_bytes_again_without_giving_up() {
    let mut o = outbox(&[1]);
    let mut now = 0;
    for _ in 0..50 {
        send(&mut o, 1, now);
        let item = o.lost(&id(1), ms(now), u32::MAX).unwrap();
        assert!(item.encrypted, "the same bytes");
        assert!(item.next_at.ms() - now <= 300_000);
        now = item.next_at.ms();
    }
    send(&mut o, 1, now);
    assert!(o.replied(&id(1), SubmitReply::Accepted(accepted(1)), ms(now), 0).is_some());
}

#[test]
fn an_epoch_that_is_over_means_encrypt_again_under_the_same_id() {
    let mut o = outbox(&[1]);
    for n in 0..20 {
        let now = n * 10_000_000;
        assert_eq!(o.next(ms(now)), Step::Encrypt(id(1)), "round {n}");
        send(&mut o, 1, now);
        let item = o.replied(&id(1), no(Code::StaleEpoch), ms(now), u32::MAX).unwrap();
        assert_eq!((&item.state, item.encrypted), (&State::Queued, false));
        let wait = item.next_at.ms() - now;
        assert!(if n == 0 { wait == 0 } else { (50..=301_000).contains(&wait) }, "{wait}");
    }
    send(&mut o, 1, 1_000_000_000);
    let _row = o.replied(&id(1), SubmitReply::Stored, ms(0), 0);
    let late = o.outcome(&id(1), Code::StaleEpoch.into(), ms(0), 0).unwrap();
    assert_eq!((&late.state, late.encrypted), (&State::Queued, false));
}

#[test]
fn being_told_to_wait_is_honoured_even_when_the_net_comes_back() {
    let mut o = outbox(&[1, 2]);
    send(&mut o, 1, 0);
    let busy = Refusal::new(Code::RateLimited).retry_after_ms(60_000);
    let _row = o.replied(&id(1), SubmitReply::Refused(busy), ms(0), u32::MAX);
    send(&mut o, 2, 0);
    let _row = o.lost(&id(2), ms(0), u32::MAX);
    assert!(o.online(false).is_empty());
    assert_eq!(o.next(ms(u64::MAX)), Step::Idle, "offline");
    assert!(o.online(true).is_empty());
    assert_eq!(o.next(ms(1)), Step::Submit(id(2)), "due at once");
    send(&mut o, 2, 1);
    assert_eq!(o.next(ms(1)), Step::WaitUntil(ms(60_000)));
}

#[test]
fn a_failed_one_says_why_and_does_not_hold_up_the_others() {
    let mut o = outbox(&[1, 1]);
    send(&mut o, 1, 0);
    let item = o.replied(&id(1), no(Code::NotAllowed), ms(0), 0).unwrap();
    assert_eq!(item.state, State::Failed { refusal: Code::NotAllowed.into(), retryable: true });
    send(&mut o, 2, 0);
    let _row = o.replied(&id(2), no(Code::TooLarge), ms(0), 0);
    assert_eq!(state(&o, 2), State::Failed { refusal: Code::TooLarge.into(), retryable: false });
    assert_eq!(o.next(ms(0)), Step::Idle);
    assert_eq!(o.retry(&id(1), ms(9)).unwrap().state, State::Queued);
    assert_eq!(o.next(ms(9)), Step::Encrypt(id(1)), "anew");
    assert!(o.retry(&id(1), ms(9)).is_none());
    assert!(o.shown(&id(2), accepted(3)).is_some(), "what the log shows is true");
}

#[test]
fn going_offline_and_restarting_leave_an_unknown_outcome_and_nothing_worse() {
    let mut o = outbox(&[1, 2]);
    send(&mut o, 1, 0);
    let rows = o.online(false);
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0].state, rows[0].encrypted), (&State::Queued, true));
    let _none = o.online(true);
    send(&mut o, 1, 0);
    let saved: Vec<Item> = [1, 2].iter().map(|n| o.get(&id(*n)).unwrap().clone()).collect();
    let mut restarted = Outbox::new(saved);
    assert_eq!(restarted.next(ms(0)), Step::Idle, "offline at first");
    let _none = restarted.online(true);
    assert_eq!(restarted.next(ms(0)), Step::Submit(id(1)));
}

#[test]
fn a_hubs_refusal_that_overtakes_our_nodes_answer_is_not_lost() {
    for end in ["stored", "lost", "offline"] {
        let mut o = outbox(&[1]);
        send(&mut o, 1, 0);
        assert!(o.outcome(&id(1), Code::StaleEpoch.into(), ms(0), 0).is_none());
        let _row = match end {
            "stored" => o.replied(&id(1), SubmitReply::Stored, ms(0), 0).cloned(),
            "lost" => o.lost(&id(1), ms(0), 0).cloned(),
            _ => o.online(false).pop(),
        };
        let item = o.get(&id(1)).unwrap();
        assert_eq!((&item.state, item.encrypted), (&State::Queued, false), "{end}");
    }
    let mut o = outbox(&[1]);
    send(&mut o, 1, 0);
    let _row = o.lost(&id(1), ms(0), 0);
    let _row = o.outcome(&id(1), Code::NotAllowed.into(), ms(0), 0);
    assert!(matches!(state(&o, 1), State::Failed { .. }), "stored, answer lost, refused");
}

#[test]
fn what_a_restored_node_may_have_forgotten_is_sent_again() {
    let mut o = outbox(&[1]);
    send(&mut o, 1, 0);
    let _row = o.replied(&id(1), SubmitReply::Stored, ms(0), 0);
    let rows = o.node_restored();
    assert_eq!((rows.len(), rows[0].encrypted), (1, true));
    assert_eq!(o.next(ms(0)), Step::Submit(id(1)));
    assert!(o.remove(&id(1)).is_none(), "the hub may have it: it cannot be taken back");
}

#[test]
fn a_clock_that_is_set_back_does_not_hold_up_what_waits() {
    let mut o = outbox(&[1]);
    send(&mut o, 1, 900_000_000);
    assert!(o.lost(&id(1), ms(900_000_000), u32::MAX).is_some());
    assert!(matches!(o.next(ms(900_000_000)), Step::WaitUntil(_)));
    assert_eq!(o.next(ms(0)), Step::Submit(id(1)), "no wait is ever that long");
}

#[test]
fn what_a_restored_hub_may_have_forgotten_is_sent_again_to_its_room_alone() {
    let mut o = outbox(&[1, 2]);
    for n in [1, 2] {
        send(&mut o, n, 0);
        let _row = o.replied(&id(n), SubmitReply::Stored, ms(0), 0);
    }
    let room = o.get(&id(1)).unwrap().room.clone();
    let rows = o.hub_restored(&room);
    assert_eq!(rows.iter().map(|r| (r.id, r.encrypted)).collect::<Vec<_>>(), [(id(1), true)]);
    assert_eq!(state(&o, 2), State::Stored);
}

#[test]
fn only_what_never_left_or_has_ended_can_be_taken_back() {
    let mut o = outbox(&[1, 1]);
    assert!(o.remove(&id(2)).is_some());
    assert_eq!(o.next(ms(0)), Step::Encrypt(id(1)));
    assert!(o.postpone(&id(1), ms(50)).is_some());
    assert_eq!(o.next(ms(0)), Step::WaitUntil(ms(50)));
    send(&mut o, 1, 50);
    assert!(o.remove(&id(1)).is_none() && o.fail(&id(1), Code::Internal.into()).is_none());
    let _row = o.lost(&id(1), ms(50), 0);
    assert!(o.remove(&id(1)).is_none(), "it may be on its way");
    assert!(o.fail(&id(1), Code::NotFound.into()).is_some());
    assert!(o.remove(&id(1)).is_some());
    assert!(o.push(id(1), room(1), 1).is_some() && o.push(id(1), room(1), 1).is_none());
}

#[test]
fn a_bounded_number_is_on_its_way() {
    let rooms: Vec<u8> = (1..40).collect();
    let mut o = outbox(&rooms);
    for n in 1..=u8::try_from(IN_FLIGHT).unwrap() {
        send(&mut o, n, 0);
    }
    assert_eq!(o.next(ms(0)), Step::Idle);
}

#[derive(Clone, Copy, Debug)]
enum Net {
    Works,
    LosesRequest,
    LosesReply,
    Busy,
}

#[derive(Clone, Debug)]
enum Op {
    Push(u8),
    Step(Net),
    Commit,
    Hub(usize),
    Wait(u64),
    Flap,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let net = prop::sample::select(vec![
        Net::Works,
        Net::Works,
        Net::LosesRequest,
        Net::LosesReply,
        Net::Busy,
    ]);
    prop_oneof![
        2 => (0u8..3).prop_map(Op::Push),
        6 => net.prop_map(Op::Step),
        1 => Just(Op::Commit),
        2 => (0usize..8).prop_map(Op::Hub),
        1 => (0u64..400_000).prop_map(Op::Wait),
        1 => Just(Op::Flap),
        1 => Just(Op::Restart),
    ]
}

/// A device's outbox, its node, and a hub behind the node: rooms 0 are local, the others foreign.
#[derive(Default)]
struct World {
    outbox: Outbox,
    now: Timestamp,
    pushed: u8,
    epoch: u64,
    /// The epoch each ciphertext was made for.
    made: BTreeMap<SubmitId, u64>,
    /// Submissions that the node keeps for the hub, with the epoch they were made for.
    uplink: Vec<(SubmitId, u64)>,
    /// The node's memory: the epoch (standing for the bytes) and whether accepted.
    prior: BTreeMap<SubmitId, (u64, bool)>,
    /// The hub's order.
    log: Vec<SubmitId>,
    /// Submissions that were encrypted again.
    overtaken: BTreeSet<SubmitId>,
}

impl World {
    fn admit(&mut self, submission: SubmitId, epoch: u64) -> SubmitReply {
        if epoch != self.epoch {
            return no(Code::StaleEpoch);
        }
        self.log.push(submission);
        self.prior.insert(submission, (epoch, true));
        SubmitReply::Accepted(accepted(self.log.len() as u64))
    }

    fn node(&mut self, submission: SubmitId) -> SubmitReply {
        let epoch = self.made[&submission];
        let foreign = self.outbox.get(&submission).unwrap().room != room(0);
        match self.prior.get(&submission) {
            Some((e, _)) if *e != epoch => no(Code::Conflict),
            Some((_, true)) => SubmitReply::Accepted(accepted(1)),
            Some((_, false)) => SubmitReply::Stored,
            None if foreign => {
                self.uplink.push((submission, epoch));
                self.prior.insert(submission, (epoch, false));
                SubmitReply::Stored
            }
            None => self.admit(submission, epoch),
        }
    }

    /// The hub takes the next of the uplink; its answer reaches the device.
    fn hub(&mut self, n: usize) {
        if self.uplink.is_empty() {
            return;
        }
        let (submission, epoch) = self.uplink.remove(n % self.uplink.len().min(1));
        match self.admit(submission, epoch) {
            SubmitReply::Accepted(a) => {
                let _row = self.outbox.shown(&submission, a);
            }
            SubmitReply::Refused(refusal) => {
                self.prior.remove(&submission);
                self.overtaken.insert(submission);
                let _row = self.outbox.outcome(&submission, refusal, self.now, 7);
            }
            SubmitReply::Stored => {}
        }
    }

    fn step(&mut self, net: Net) -> bool {
        match self.outbox.next(self.now) {
            Step::Encrypt(submission) => {
                self.made.insert(submission, self.epoch);
                assert!(self.outbox.encrypted(&submission).is_some());
            }
            Step::Submit(submission) => {
                assert!(self.outbox.sending(&submission).is_some());
                let reply = match net {
                    Net::Works | Net::LosesReply => Some(self.node(submission)),
                    Net::LosesRequest => None,
                    Net::Busy => Some(no(Code::Unavailable)),
                };
                if matches!(&reply, Some(SubmitReply::Refused(r)) if r.code == Code::StaleEpoch) {
                    self.overtaken.insert(submission);
                }
                let _row = match reply {
                    Some(reply) if !matches!(net, Net::LosesReply) => {
                        self.outbox.replied(&submission, reply, self.now, 7)
                    }
                    _ => self.outbox.lost(&submission, self.now, 7),
                };
            }
            Step::WaitUntil(at) => self.now = at,
            Step::Idle => return false,
        }
        true
    }

    fn items(&self) -> Vec<Item> {
        (1..=self.pushed).filter_map(|n| self.outbox.get(&id(n)).cloned()).collect()
    }
}

proptest! {
    /// Through lost requests and replies, busy nodes, epochs that move on, flapping connections and restarts: every message gets exactly one place, none fails,
    /// and in each room those that no epoch overtook have the order in which they were written.
    #[test]
    fn every_message_arrives_once_and_in_order(ops in prop::collection::vec(op(), 1..150)) {
        let mut w = World::default();
        let _none = w.outbox.online(true);
        for op in ops {
            match op {
                Op::Push(r) => {
                    w.pushed += 1;
                    prop_assert!(w.outbox.push(id(w.pushed), room(r), w.pushed.into()).is_some());
                }
                Op::Step(net) => { let _went_on = w.step(net); }
                Op::Commit => w.epoch += 1,
                Op::Hub(n) => w.hub(n),
                Op::Wait(by) => w.now = w.now.after(Duration::from_millis(by)),
                Op::Flap => {
                    let _rows = w.outbox.online(false);
                    let _rows = w.outbox.online(true);
                }
                Op::Restart => {
                    w.outbox = Outbox::new(w.items());
                    let _none = w.outbox.online(true);
                }
            }
        }
        let mut rounds = 0;
        while w.step(Net::Works) || !w.uplink.is_empty() {
            w.hub(0);
            rounds += 1;
            prop_assert!(rounds < 5_000);
        }
        for item in w.items() {
            prop_assert!(matches!(item.state, State::Accepted(_)), "{:?}", item);
        }
        let mut once = w.log.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), w.log.len(), "twice");
        prop_assert_eq!(w.log.len(), usize::from(w.pushed), "lost");
        for r in 0..3 {
            let order = w.log.iter().filter(|s| !w.overtaken.contains(s)).map(|s| w.outbox.get(s).unwrap());
            prop_assert!(order.filter(|i| i.room == room(r)).map(|i| i.order).is_sorted());
        }
    }
}
