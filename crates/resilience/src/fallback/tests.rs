//! What is replaced, and what is remembered.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_foundations::time::Mono;

use super::*;
use crate::outcome::{Refuser, Scope};

fn at(seconds: u64) -> Mono {
    Mono::ZERO + Duration::from_secs(seconds)
}

#[test]
fn successes_mistakes_and_those_who_left_are_never_replaced() {
    let never = [Outcome::Upstream(Class::Success), Outcome::Upstream(Class::Refusal), Outcome::Cancelled];
    assert!(never.into_iter().all(|outcome| !When::default().replaces(outcome)));
    let failures = [
        Outcome::Upstream(Class::Fault),
        Outcome::Upstream(Class::Stale),
        Outcome::Upstream(Class::Throttled),
        Outcome::Timeout(Scope::Total),
        Outcome::Timeout(Scope::Attempt),
        Outcome::Rejected(Refuser::Breaker),
    ];
    assert!(failures.into_iter().all(|outcome| When::default().replaces(outcome)));
    let only_open = When { fault: false, throttled: false, timeout: false, rejected: true };
    assert_eq!(failures.into_iter().filter(|outcome| only_open.replaces(*outcome)).count(), 1);
}

#[test]
fn what_is_served_instead_still_counts_as_the_failure_it_stands_for() {
    let failed = Outcome::Timeout(Scope::Total);
    let served = first(failed, [None, Some(("best sellers", Source::Static))]).unwrap();
    assert!(served.is_degraded());
    assert_eq!(served.outcome(), failed);
    assert_eq!(Served::fresh(7).outcome(), Outcome::Upstream(Class::Success));
    assert_eq!(first::<u8>(failed, [None, None]), None);
}

#[test]
fn a_dependency_does_not_stand_in_for_itself() {
    let (payments, backup): (Name, Name) = ("payments".parse().unwrap(), "payments-backup".parse().unwrap());
    assert!(Alternate::new(&payments, &payments).unwrap_err().to_string().contains("`payments`"));
    assert_eq!(Alternate::new(&backup, &payments).unwrap().who(), &backup);
}

#[test]
fn an_answer_that_is_too_old_is_neither_served_nor_kept() {
    let mut stale = Stale::new(Keep { oldest: Duration::from_secs(60), ..Keep::default() });
    stale.remember(at(0), "key", 1, 10);
    assert_eq!(stale.stale(at(60), &"key"), Some((1, Source::Stale { age: Duration::from_secs(60) })));
    assert_eq!(stale.stale(at(61), &"key"), None);
    assert!(stale.is_empty());
}

#[test]
fn an_answer_that_does_not_fit_replaces_the_one_it_makes_out_of_date() {
    let mut stale = Stale::new(Keep { most_weight: 100, ..Keep::default() });
    stale.remember(at(0), "key", 1, 10);
    stale.remember(at(1), "key", 2, 101);
    assert_eq!(stale.recall(at(1), &"key"), None);
    assert_eq!(stale.weight(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Remember(u8, usize),
    Recall(u8),
    Forget(u8),
}

proptest! {
    #[test]
    fn any_sequence_stays_within_bounds_and_serves_only_what_was_last_remembered(
        steps in proptest::collection::vec(
            (
                prop_oneof![
                    3 => (0_u8..12, 0_usize..60).prop_map(|(key, weight)| Step::Remember(key, weight)),
                    3 => (0_u8..12).prop_map(Step::Recall),
                    1 => (0_u8..12).prop_map(Step::Forget),
                ],
                0_u64..20,
            ),
            1..200,
        ),
    ) {
        let keep = Keep { most_keys: 5.try_into().unwrap(), most_weight: 100, oldest: Duration::from_secs(60) };
        let (mut stale, mut now) = (Stale::new(keep), 0);
        // What was remembered last, with its time; and the order of use.
        let mut last: BTreeMap<u8, (usize, u64, usize)> = BTreeMap::new();
        let mut order: Vec<u8> = Vec::new();
        for (number, (step, gap)) in steps.into_iter().enumerate() {
            now += gap;
            match step {
                Step::Remember(key, weight) => {
                    stale.remember(at(now), key, number, weight);
                    last.insert(key, (number, now, weight));
                    order.retain(|other| *other != key);
                    order.push(key);
                    // The model: drop what was used longest ago until it fits.
                    let mut kept = order.clone();
                    while kept.len() > 5 || kept.iter().map(|key| last[key].2).sum::<usize>() > 100 {
                        last.remove(&kept.remove(0));
                    }
                    order = kept;
                }
                Step::Recall(key) => {
                    let expected = last.get(&key).copied().filter(|(_, since, _)| now - since <= 60);
                    let found = stale.recall(at(now), &key).map(|(value, age)| (*value, age));
                    prop_assert_eq!(found, expected.map(|(value, since, _)| (value, Duration::from_secs(now - since))));
                    order.retain(|other| *other != key);
                    match expected {
                        Some(_) => order.push(key),
                        None => drop(last.remove(&key)),
                    }
                }
                Step::Forget(key) => {
                    stale.forget(&key);
                    last.remove(&key);
                    order.retain(|other| *other != key);
                }
            }
            prop_assert_eq!(stale.len(), last.len());
            prop_assert_eq!(stale.weight(), last.values().map(|(_, _, weight)| weight).sum::<usize>());
            prop_assert!(stale.len() <= 5 && stale.weight() <= 100);
        }
    }
}
