use proptest::prelude::*;

use super::*;

const fn ms(n: u64) -> Timestamp {
    Timestamp::from_ms(n)
}

const fn epoch(n: u64) -> Epoch {
    Epoch::new(n)
}

const fn digest(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

fn pending() -> Change {
    let mut c = Change::new(ms(0));
    assert_eq!(c.next(ms(0)), Step::Build);
    c.built(epoch(5), digest(1));
    assert_eq!(c.next(ms(9)), Step::WaitForLog, "never merged before the log shows it");
    c
}

#[test]
fn the_own_echo_is_merged_and_nothing_else_is() {
    let mut c = pending();
    assert_eq!(c.seen(epoch(4), &digest(9), ms(0), 0), Arbitration::Apply, "an old one");
    assert_eq!(c.seen(epoch(5), &digest(1), ms(0), 0), Arbitration::Merge);
    assert_eq!((c.state(), c.next(ms(0))), (&State::Done, Step::Ended));
    assert_eq!(c.seen(epoch(6), &digest(2), ms(0), 0), Arbitration::Apply);
}

#[test]
fn a_loser_applies_the_winner_and_builds_again_after_a_random_wait() {
    let mut c = pending();
    assert_eq!(c.seen(epoch(5), &digest(2), ms(100), u32::MAX), Arbitration::Lost);
    assert_eq!(c.next(ms(100)), Step::WaitUntil(ms(600)));
    assert_eq!(c.next(ms(600)), Step::Build);
    c.refused(Code::WrongEpoch.into(), ms(600), 0);
    assert_eq!(c.losses(), 1, "the refusal of a commit that the log had already decided");
}

#[test]
fn a_refused_commit_waits_for_the_log_to_catch_up() {
    let mut c = pending();
    c.refused(Refusal::new(Code::WrongEpoch).at_epoch(epoch(7)), ms(0), 0);
    assert_eq!(c.next(ms(99_999)), Step::WaitForLog);
    assert_eq!(c.seen(epoch(5), &digest(2), ms(0), 0), Arbitration::Apply);
    assert_eq!(c.next(ms(99_999)), Step::WaitForLog, "one more to come");
    assert_eq!(c.seen(epoch(6), &digest(3), ms(10), 0), Arbitration::Apply);
    assert_eq!(c.next(ms(10)), Step::WaitUntil(ms(60)));

    let mut c = pending();
    c.refused(Code::MissingProposal.into(), ms(0), 0);
    assert_eq!(c.next(ms(50)), Step::Build, "in the same epoch, with the proposal");
    let mut c = pending();
    c.refused(Code::NotAllowed.into(), ms(0), 0);
    assert!(matches!(c.state(), State::Failed(r) if r.code == Code::NotAllowed));
    let mut c = pending();
    c.refused(Code::Unavailable.into(), ms(0), 0);
    assert_eq!(c, pending(), "the outbox sends the same bytes again");
}

#[test]
fn a_change_that_always_loses_ends_with_a_reason() {
    let mut c = Change::new(ms(0));
    for n in 0..u64::from(ATTEMPTS) {
        c.built(epoch(n), digest(1));
        assert_eq!(c.seen(epoch(n), &digest(2), ms(0), 0), Arbitration::Lost);
    }
    let State::Failed(refusal) = c.state() else { panic!("{c:?}") };
    assert!(refusal.detail.contains("try it again"));
    assert_eq!(c.next(ms(u64::MAX)), Step::Ended);
}

#[test]
fn the_next_commit_holds_every_pending_proposal_unless_it_is_external() {
    assert!(complete(&[1, 2], &[3, 2, 1], false).is_ok());
    assert_eq!(complete(&[1, 2], &[1], false).unwrap_err().code, Code::MissingProposal);
    assert!(complete(&[1, 2], &[], true).is_ok());
    assert!(complete::<u8>(&[], &[], false).is_ok());
}

#[test]
fn a_leaf_is_proposed_for_removal_once() {
    assert!(may_propose(&[1, 2], &[3, 4]).is_ok());
    assert_eq!(may_propose(&[1, 2], &[3, 2]).unwrap_err().code, Code::WrongEpoch);
    assert_eq!(may_propose(&[1], &[3, 3]).unwrap_err().code, Code::InvalidCommit);
    let many: Vec<_> = (0..PENDING).collect();
    assert_eq!(may_propose(&many, &[PENDING]).unwrap_err().code, Code::QueueFull);
}

#[test]
fn the_lowest_leaf_commits_a_leave_first() {
    let staying = [9, 2, 5];
    let delay = |leaf, jitter| leave_delay(leaf, &staying, jitter);
    assert_eq!(delay(2, 0), Some(Duration::ZERO));
    assert!(delay(2, u32::MAX) < delay(5, 0) && delay(5, u32::MAX) < delay(9, 0));
    assert_eq!(delay(3, 0), None, "one who leaves commits nothing");
}

proptest! {
    /// Devices that all want to commit, with random waits: every epoch goes to one, and each change stands or fails with a reason.
    #[test]
    fn a_race_gives_each_epoch_to_one_and_every_change_ends(
        jitters in prop::collection::vec(any::<u32>(), 64), devices in 2u8..16,
    ) {
        let mut changes: Vec<Change> = (0..devices).map(|_| Change::new(ms(0))).collect();
        let mut at = 0u64;
        let mut dice = jitters.iter().cycle().copied();
        let mut winners = vec![];
        let mut now = ms(0);
        while changes.iter().any(|c| c.next(now) != Step::Ended) {
            // Whoever is due builds for the current epoch; the hub takes the first.
            let mut first = None;
            for (d, c) in (0..).zip(&mut changes) {
                if c.next(now) == Step::Build {
                    c.built(epoch(at), digest(d));
                    first.get_or_insert(d);
                }
            }
            if let Some(winner) = first {
                winners.push(winner);
                for (d, c) in (0..).zip(&mut changes) {
                    let verdict = c.seen(epoch(at), &digest(winner), now, dice.next().unwrap());
                    prop_assert_eq!(verdict == Arbitration::Merge, d == winner);
                }
                at += 1;
            }
            now = now.after(Duration::from_millis(1));
            prop_assert!(now < ms(60_000));
        }
        let done = changes.iter().filter(|c| *c.state() == State::Done).count();
        prop_assert_eq!(done, winners.len());
        winners.sort_unstable();
        winners.dedup();
        prop_assert_eq!(done, winners.len(), "each change stands once");
    }
}
