//! The rules at their edges.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use proptest::prelude::*;
use quorate_foundations::time::Boot;

use super::{Claim, Dispatcher, Entry, Passed, Phase, Returned, Seq};
use crate::message_queue::{Config, Rate};

const TTL: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> Boot {
    Boot::ZERO + Duration::from_secs(seconds)
}

fn entry() -> Entry {
    Entry {
        group: None,
        priority: 4,
        deliveries: 0,
        attempts: 0,
        phase: Phase::Waiting { lapsed: false },
        expires: None,
        bytes: 100,
        sent_ns: 0,
    }
}

fn of_group(group: &str) -> Entry {
    Entry { group: Some(group.into()), ..entry() }
}

fn queue(config: Config, entries: impl IntoIterator<Item = Entry>) -> Dispatcher {
    let mut queue = Dispatcher::new(config);
    (1..).zip(entries).for_each(|(seq, entry)| queue.insert(seq, entry));
    queue
}

fn take(queue: &mut Dispatcher, now: u64, max: usize) -> Vec<Claim> {
    queue.take(at(now), max, usize::MAX, TTL).into_iter().map(|hand| hand.claim).collect()
}

fn seqs(claims: &[Claim]) -> Vec<Seq> {
    claims.iter().map(|claim| claim.seq).collect()
}

#[test]
fn the_oldest_comes_first_and_a_higher_priority_before_it() {
    let mut queue = queue(Config::default(), [entry(), entry(), Entry { priority: 9, ..entry() }]);
    assert_eq!(seqs(&take(&mut queue, 0, 9)), [3, 1, 2]);
}

#[test]
fn of_one_group_only_the_first_is_out_and_other_groups_go_on() {
    let mut queue = queue(Config::default(), [of_group("a"), of_group("a"), of_group("b"), entry()]);
    let first = take(&mut queue, 0, 9);
    assert_eq!(seqs(&first), [1, 3, 4]);
    assert!(queue.ack(first[0]));
    assert_eq!(seqs(&take(&mut queue, 0, 9)), [2]);
}

#[test]
fn a_failed_head_blocks_its_group_and_no_other() {
    let mut queue = queue(Config::default(), [of_group("a"), of_group("a"), of_group("b"), of_group("b")]);
    let out = take(&mut queue, 0, 9);
    queue.nack(at(0), out[0], Some(TTL)).unwrap();
    queue.park(out[1]).unwrap();
    assert!(take(&mut queue, 1, 9).is_empty(), "both heads stand in the way");
    queue.tick(at(31));
    assert_eq!(seqs(&take(&mut queue, 31, 9)), [1]);
    assert!(queue.replay(3));
    let again = take(&mut queue, 31, 9);
    assert_eq!(seqs(&again), [3], "a dead letter comes back in its old place");
    assert!(queue.ack(again[0]));
    assert_eq!(seqs(&take(&mut queue, 31, 9)), [4]);
}

#[test]
fn a_discarded_dead_letter_lets_its_group_go_on() {
    let mut queue = queue(Config::default(), [of_group("a"), of_group("a")]);
    let out = take(&mut queue, 0, 9);
    queue.park(out[0]).unwrap();
    assert!(queue.discard(1) && !queue.discard(1));
    assert_eq!(seqs(&take(&mut queue, 0, 9)), [2]);
}

#[test]
fn an_expired_lease_stands_until_someone_else_has_the_message() {
    let mut queue = queue(Config::default(), [entry(), entry()]);
    let out = take(&mut queue, 0, 2);
    assert!(queue.tick(at(30)).is_empty());
    assert!(queue.ack(out[0]), "late, but nobody else has it");
    let again = take(&mut queue, 31, 2);
    assert_eq!((again[0].seq, again[0].delivery), (2, 2));
    assert!(!queue.ack(out[1]), "fenced");
    assert!(queue.extend(at(31), again[0], TTL) && queue.ack(again[0]));
    assert!(queue.is_empty());
}

#[test]
fn an_extended_lease_is_not_handed_out_again_before_its_new_end() {
    let mut queue = queue(Config::default(), [entry()]);
    let out = take(&mut queue, 0, 1);
    assert!(queue.extend(at(20), out[0], TTL));
    queue.tick(at(49));
    assert!(take(&mut queue, 49, 1).is_empty());
    queue.tick(at(50));
    assert_eq!(take(&mut queue, 50, 1).len(), 1);
}

#[test]
fn a_message_is_a_dead_letter_after_its_last_attempt_whether_it_failed_or_nobody_answered() {
    let config = Config { max_attempts: 2, ..Config::default() };
    let mut queue = queue(config, [entry(), entry()]);
    let out = take(&mut queue, 0, 2);
    assert_eq!(queue.nack(at(0), out[0], Some(Duration::ZERO)), Some(Returned::Rests(Duration::ZERO)));
    queue.tick(at(30));
    let again = take(&mut queue, 30, 2);
    assert_eq!(queue.nack(at(30), again[0], None), Some(Returned::Parked));
    assert_eq!(queue.tick(at(60)), [Passed::Parked(again[1], 2)]);
    assert_eq!(queue.parked(0).collect::<Vec<_>>(), [1, 2]);
    assert!(!queue.ack(again[1]), "a dead letter is nobody's");
}

#[test]
fn a_message_that_never_arrived_costs_no_attempt() {
    let config = Config { max_attempts: 1, ..Config::default() };
    let mut queue = queue(config, [entry()]);
    for round in 1..5 {
        let out = take(&mut queue, 0, 1);
        assert_eq!(out[0].delivery, round);
        assert!(queue.hand_back(out[0]) && !queue.hand_back(out[0]));
    }
    assert_eq!(queue.take(at(0), 1, 0, TTL)[0].attempt, 1);
}

#[test]
fn what_rests_comes_in_time_and_what_is_outdated_never() {
    let rests = Entry { phase: Phase::Resting { until: at(10) }, ..entry() };
    let mut queue = queue(Config::default(), [rests.clone(), Entry { expires: Some(at(5)), ..rests }, entry()]);
    assert_eq!(queue.wake_at(at(0)), Some(at(5)));
    assert_eq!(queue.tick(at(5)), [Passed::Outdated(2)]);
    assert_eq!(seqs(&take(&mut queue, 5, 9)), [3]);
    queue.tick(at(10));
    assert_eq!(seqs(&take(&mut queue, 10, 9)), [1]);
}

#[test]
fn a_held_message_is_not_outdated_under_its_holders_hands() {
    let mut queue = queue(Config::default(), [Entry { expires: Some(at(5)), ..entry() }]);
    let out = take(&mut queue, 0, 1);
    assert!(queue.tick(at(6)).is_empty());
    assert!(queue.ack(out[0]));
}

#[test]
fn no_more_are_out_than_the_limit_and_no_faster_than_the_rate() {
    let limited = Config { max_in_flight: NonZeroU32::new(2), ..Config::default() };
    let mut crowd = queue(limited, (0..5).map(|_| entry()));
    let out = take(&mut crowd, 0, 9);
    assert_eq!(out.len(), 2);
    assert!(crowd.ack(out[0]));
    assert_eq!(take(&mut crowd, 0, 9).len(), 1);

    let rate = Rate { count: NonZeroU32::new(2).unwrap(), per: Duration::from_secs(10) };
    let mut steady = queue(Config { rate: Some(rate), ..Config::default() }, (0..9).map(|_| entry()));
    assert_eq!(take(&mut steady, 100, 9).len(), 2, "a span's worth at once");
    assert_eq!(steady.wake_at(at(100)), Some(at(105)));
    assert!(take(&mut steady, 104, 9).is_empty());
    assert_eq!(take(&mut steady, 105, 9).len(), 1);
    assert_eq!(take(&mut steady, 200, 9).len(), 2, "what was not used is not saved up");
}

#[test]
fn every_lease_that_ends_is_told_once_and_none_that_was_taken_back() {
    let config = Config { max_attempts: 2, ..Config::default() };
    let mut queue = queue(config, (0..6).map(|_| entry()));
    let out = take(&mut queue, 0, 9);
    assert!(out.iter().all(|claim| queue.is_out(*claim)) && queue.take_ended().is_empty());
    queue.ack(out[0]);
    queue.nack(at(0), out[1], None);
    queue.park(out[2]);
    queue.hand_back(out[3]);
    queue.settled_elsewhere(out[4]);
    assert_eq!(queue.take_ended(), out[..5]);
    assert!(queue.extend(at(10), out[5], TTL) && queue.take_ended().is_empty(), "it is longer, and the same");
    queue.tick(at(40));
    assert_eq!((queue.take_ended(), queue.is_out(out[5])), (vec![out[5]], false));
    let again = take(&mut queue, 40, 1);
    queue.settled_elsewhere(again[0]);
    queue.begin();
    let others = take(&mut queue, 500, 9);
    queue.ack(others[0]);
    queue.take_back();
    assert_eq!(queue.take_ended(), again, "what had ended before has");
}

#[test]
fn what_was_taken_back_had_never_been() {
    let mut queue = queue(Config::default(), [of_group("a"), of_group("a"), entry()]);
    let before = format!("{:?}", (&queue.entries, &queue.ready, &queue.groups, &queue.timers, queue.leased));
    queue.begin();
    let out = take(&mut queue, 0, 9);
    queue.ack(out[0]);
    queue.nack(at(0), out[1], None);
    queue.insert(9, of_group("b"));
    let second = take(&mut queue, 0, 9);
    queue.park(second[0]).unwrap();
    queue.take_back();
    let after = format!("{:?}", (&queue.entries, &queue.ready, &queue.groups, &queue.timers, queue.leased));
    assert_eq!(after, before);
}

#[test]
fn a_message_that_arrives_late_in_front_of_its_group_comes_first() {
    let mut queue = Dispatcher::new(Config::default());
    queue.insert(5, of_group("a"));
    queue.insert(3, of_group("a"));
    assert_eq!(seqs(&take(&mut queue, 0, 9)), [3]);
}

#[test]
fn a_message_that_arrives_late_waits_while_another_of_its_group_is_out() {
    let mut queue = Dispatcher::new(Config::default());
    queue.insert(5, of_group("a"));
    let out = take(&mut queue, 0, 9);
    queue.insert(3, of_group("a"));
    assert!(take(&mut queue, 0, 9).is_empty());
    queue.tick(at(31));
    assert_eq!(seqs(&take(&mut queue, 31, 9)), [3], "whose holder is late holds nobody back");
    assert!(!queue.extend(at(31), out[0], TTL), "and is not to begin anew beside it");
    assert!(queue.ack(out[0]), "but may have been done in time");
}

#[test]
fn what_another_process_used_up_of_the_rate_counts_and_what_was_taken_back_does_not() {
    let rate = Some(Rate { count: 2.try_into().unwrap(), per: Duration::from_secs(10) });
    let mut queue = queue(Config { rate, ..Config::default() }, [entry(), entry(), entry()]);
    queue.spent_elsewhere(at(100), Duration::from_secs(5));
    queue.begin();
    assert_eq!(take(&mut queue, 100, 9).len(), 1, "one of two was handed out elsewhere");
    assert_eq!(queue.spent_ahead(at(100)), Duration::from_secs(10));
    queue.take_back();
    assert_eq!(queue.spent_ahead(at(100)), Duration::from_secs(5));
    assert_eq!(take(&mut queue, 100, 9).len(), 1);
    assert!(take(&mut queue, 100, 9).is_empty());
    queue.spent_elsewhere(at(100), Duration::from_secs(1_000));
    assert_eq!(queue.spent_ahead(at(100)), Duration::from_secs(10), "never more than a span");
}

#[test]
fn time_acts_on_as_many_messages_as_somebody_can_write_down() {
    let config = Config { max_attempts: 1, ..Config::default() };
    let mut queue = queue(config, (0..5).map(|_| entry()));
    take(&mut queue, 0, 9);
    assert_eq!([2, 2, 2].map(|most| queue.tick_some(at(31), most).len()), [2, 2, 1]);
    assert_eq!(queue.counts().parked, 5);
}

#[derive(Clone, Debug)]
enum Step {
    Send(u8, u8),
    /// A number is drawn for a message that is committed later.
    Draw,
    Late(u8),
    Take(usize),
    Ack(usize),
    Nack(usize),
    Park(usize),
    Extend(usize),
    Back(usize),
    Replay(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_u8..4, 0_u8..10).prop_map(|(group, priority)| Step::Send(group, priority)),
        1 => Just(Step::Draw),
        1 => (0_u8..4).prop_map(Step::Late),
        4 => (1_usize..4).prop_map(Step::Take),
        3 => (0_usize..8).prop_map(Step::Ack),
        2 => (0_usize..8).prop_map(Step::Nack),
        1 => (0_usize..8).prop_map(Step::Park),
        1 => (0_usize..8).prop_map(Step::Extend),
        1 => (0_usize..8).prop_map(Step::Back),
        1 => (0_usize..8).prop_map(Step::Replay),
        2 => (1_u64..40).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn whatever_happens_groups_stay_in_order_and_each_message_has_one_holder(steps in steps()) {
        let config = Config { max_attempts: 3, ..Config::default() };
        let mut queue = Dispatcher::new(config);
        let (mut now, mut next) = (0, 1);
        let mut claims: Vec<Claim> = Vec::new();
        let (mut drawn, mut late): (Vec<Seq>, Vec<Seq>) = (Vec::new(), Vec::new());
        // Per group, the messages that were acknowledged, in that order.
        let mut done: std::collections::BTreeMap<Arc<str>, Vec<Seq>> = std::collections::BTreeMap::new();
        for step in steps {
            match step {
                Step::Send(group, priority) => {
                    let group = (group > 0).then(|| Arc::from(format!("g{group}")));
                    queue.insert(next, Entry { group, priority, ..entry() });
                    next += 1;
                }
                Step::Draw => {
                    drawn.push(next);
                    next += 1;
                }
                Step::Late(group) => if let Some(seq) = drawn.pop() {
                    let group = (group > 0).then(|| Arc::from(format!("g{group}")));
                    late.push(seq);
                    queue.insert(seq, Entry { group, ..entry() });
                },
                Step::Take(max) => {
                    for claim in take(&mut queue, now, max) {
                        prop_assert!(claims.iter().all(|held| *held != claim), "a fence is given once");
                        prop_assert!(!claims.iter().any(|held| held.seq == claim.seq && queue.holds(*held)));
                        claims.push(claim);
                    }
                }
                Step::Ack(n) => if let Some(claim) = claims.get(n).copied() {
                    let group = queue.get(claim.seq).and_then(|entry| entry.group.clone());
                    if queue.ack(claim) && let Some(group) = group {
                        done.entry(group).or_default().push(claim.seq);
                    }
                },
                Step::Nack(n) => if let Some(claim) = claims.get(n) { queue.nack(at(now), *claim, None); },
                Step::Park(n) => if let Some(claim) = claims.get(n) { queue.park(*claim); },
                Step::Extend(n) => if let Some(claim) = claims.get(n) { queue.extend(at(now), *claim, TTL); },
                Step::Back(n) => if let Some(claim) = claims.get(n) { queue.hand_back(*claim); },
                Step::Replay(n) => {
                    let parked = queue.parked(0).nth(n);
                    if let Some(seq) = parked { prop_assert!(queue.replay(seq)); }
                }
                Step::Pass(seconds) => { now += seconds; queue.tick(at(now)); }
            }
            let counts = queue.counts();
            prop_assert_eq!(counts.in_flight, queue.entries.values().filter(|e| matches!(e.phase, Phase::Leased { .. })).count());
            for members in queue.groups.values() {
                let out = members.all.iter().filter(|seq| matches!(queue.entries[seq].phase, Phase::Leased { .. })).count();
                prop_assert!(out <= 1);
            }
            for (_, seq) in &queue.ready {
                let entry = &queue.entries[seq];
                let waits = matches!(entry.phase, Phase::Waiting { .. });
                prop_assert!(waits);
                if let Some(group) = &entry.group { prop_assert_eq!(queue.groups[group].all.first(), Some(seq)); }
            }
        }
        for order in done.values_mut() {
            order.retain(|seq| !late.contains(seq));
            prop_assert!(order.is_sorted(), "{:?}", order);
        }
        // Whatever is left comes in the end: nothing is stuck.
        let mut rounds = 0;
        while !queue.is_empty() {
            rounds += 1;
            prop_assert!(rounds < 2_000, "{:?}", queue);
            now += 400;
            queue.tick(at(now));
            let parked: Vec<Seq> = queue.parked(0).collect();
            parked.into_iter().for_each(|seq| assert!(queue.replay(seq)));
            for claim in take(&mut queue, now, 10) { prop_assert!(queue.ack(claim)); }
        }
    }
}
