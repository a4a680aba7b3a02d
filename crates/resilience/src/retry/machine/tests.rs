//! The rules of retrying at their edges, and for any sequence of failures.

use proptest::prelude::*;

use super::*;
use crate::{
    outcome::Refuser,
    retry::{BudgetConfig, Jitter},
};

const FAULT: Ended =
    Ended { outcome: Outcome::Upstream(Class::Fault), verdict: Some(Verdict::FAULT), answer_begun: false };

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn plenty() -> Budget {
    Budget::new(BudgetConfig { percent: 100, floor_per_second: 1_000, ..BudgetConfig::default() })
}

fn config(attempts: u32) -> Config {
    let backoff = Backoff { base: millis(100), cap: millis(1_000), jitter: Jitter::None };
    Config { attempts: NonZeroU32::new(attempts).unwrap(), backoff, ..Config::default() }
}

fn call(repeatable: Repeatable) -> Attempts {
    Attempts::new(config(3), repeatable, true, Deadline::NEVER)
}

fn decide(attempts: &mut Attempts, ended: Ended) -> Decision {
    attempts.ended(Mono::ZERO, ended, Duration::ZERO, &mut plenty(), &mut Dice::seeded(1))
}

fn again(after: u64) -> Decision {
    Decision::Again { after: millis(after), fresh_connection: false }
}

#[test]
fn a_read_is_sent_as_often_as_allowed_and_waits_double() {
    let mut read = call(Repeatable::Idempotent);
    assert_eq!(decide(&mut read, FAULT), again(100));
    assert_eq!(decide(&mut read, FAULT), again(200));
    assert_eq!(decide(&mut read, FAULT), Decision::Stop(Stop::Attempts));
}

#[test]
fn a_write_without_a_key_is_never_sent_twice_and_one_with_a_key_is() {
    assert_eq!(decide(&mut call(Repeatable::No), FAULT), Decision::Stop(Stop::NotRepeatable));
    assert_eq!(decide(&mut call(Repeatable::Keyed), FAULT), again(100));
    let late = Ended { outcome: Outcome::Timeout(Scope::Attempt), verdict: None, answer_begun: false };
    assert_eq!(decide(&mut call(Repeatable::No), late), Decision::Stop(Stop::NotRepeatable));
}

#[test]
fn a_write_that_the_upstream_certainly_did_not_see_is_sent_again() {
    let unprocessed = Ended { verdict: Some(Verdict { unprocessed: true, ..Verdict::FAULT }), ..FAULT };
    assert_eq!(decide(&mut call(Repeatable::No), unprocessed), again(100));
}

#[test]
fn nothing_is_sent_again_once_the_answer_has_begun() {
    let half = Ended { answer_begun: true, ..FAULT };
    assert_eq!(decide(&mut call(Repeatable::Idempotent), half), Decision::Stop(Stop::AnswerBegun));
}

#[test]
fn what_is_not_the_upstreams_fault_is_not_sent_again() {
    let lasting = Ended { verdict: Some(Verdict { transient: false, ..Verdict::FAULT }), ..FAULT };
    assert_eq!(decide(&mut call(Repeatable::Idempotent), lasting), Decision::Stop(Stop::Final));
    for outcome in [Outcome::Cancelled, Outcome::Rejected(Refuser::Breaker), Outcome::Upstream(Class::Refusal)] {
        let ended = Ended { outcome, verdict: None, answer_begun: false };
        assert_eq!(decide(&mut call(Repeatable::Idempotent), ended), Decision::Stop(Stop::Final), "{outcome:?}");
    }
}

#[test]
fn an_attempt_that_cannot_end_before_the_deadline_is_not_begun() {
    // Total 1 s, an attempt takes 400 ms, the wait is 500 ms; the first attempt took 400 ms.
    let backoff = Backoff { base: millis(500), cap: millis(500), jitter: Jitter::None };
    let deadline = Deadline::after(Mono::ZERO, millis(1_000));
    let mut read = Attempts::new(Config { backoff, ..config(9) }, Repeatable::Idempotent, true, deadline);
    let (mut budget, now) = (plenty(), Mono::ZERO + millis(400));
    let left = budget.left(now);
    let decision = read.ended(now, FAULT, millis(400), &mut budget, &mut Dice::seeded(1));
    assert_eq!(decision, Decision::Stop(Stop::Deadline));
    assert_eq!(budget.left(now), left, "what isn't sent costs nothing");
}

#[test]
fn retry_after_is_a_floor_and_a_longer_rest_than_the_cap_ends_the_call() {
    let asked = |seconds| Ended {
        outcome: Outcome::Upstream(Class::Throttled),
        verdict: Some(Verdict { retry_after: Some(Duration::from_secs(seconds)), ..Verdict::of(Class::Throttled) }),
        answer_begun: false,
    };
    assert_eq!(decide(&mut call(Repeatable::Idempotent), asked(2)), again(2_100));
    assert_eq!(decide(&mut call(Repeatable::Idempotent), asked(11)), Decision::Stop(Stop::RetryAfter));
}

#[test]
fn only_the_hop_that_owns_retrying_retries_but_a_stale_connection_is_replaced_by_anybody_once() {
    let mut hop = Attempts::new(config(9), Repeatable::Idempotent, false, Deadline::NEVER);
    assert_eq!(decide(&mut hop, FAULT), Decision::Stop(Stop::OwnedElsewhere));
    let stale = Ended {
        outcome: Outcome::Upstream(Class::Stale),
        verdict: Some(Verdict::of(Class::Stale)),
        answer_begun: false,
    };
    let at_once = Decision::Again { after: Duration::ZERO, fresh_connection: true };
    assert_eq!(decide(&mut hop, stale), at_once);
    assert_eq!(decide(&mut hop, stale), Decision::Stop(Stop::Final));
    assert_eq!(decide(&mut call(Repeatable::No), stale), Decision::Stop(Stop::NotRepeatable), "it may have been done");
}

#[test]
fn a_thousand_calls_that_fail_together_keep_to_the_budget_however_long_they_wait() {
    let config = BudgetConfig { percent: 20, floor_per_second: 1, ..BudgetConfig::default() };
    let (mut budget, mut dice) = (Budget::new(config), Dice::seeded(3));
    (0..1_000).for_each(|_| budget.call(Mono::ZERO));
    let decided = (0..1_000).filter(|_| {
        let mut attempts = call(Repeatable::Idempotent);
        let decision = attempts.ended(Mono::ZERO, FAULT, Duration::ZERO, &mut budget, &mut dice);
        matches!(decision, Decision::Again { .. })
    });
    assert_eq!(decided.count(), 210, "a fifth of the calls, and ten for ten seconds");
}

#[test]
fn a_budget_forgets_what_is_older_than_its_interval() {
    let mut budget = Budget::new(BudgetConfig { percent: 0, floor_per_second: 1, interval: Duration::from_secs(10) });
    assert_eq!((0..20).filter(|_| budget.charge(Mono::ZERO)).count(), 10);
    assert!(!budget.charge(Mono::ZERO + millis(9_999)));
    assert!(budget.charge(Mono::ZERO + millis(10_000)));
}

#[test]
fn three_hops_under_one_owner_send_the_upstream_no_more_than_its_attempts() {
    // Each hop calls the next one; the last one is down. Only the first hop owns retrying.
    fn ask(hop: u32, owner: bool, sent: &mut u32) -> Outcome {
        if hop == 0 {
            *sent += 1;
            return Outcome::Upstream(Class::Fault);
        }
        let mut attempts = Attempts::new(config(3), Repeatable::Idempotent, owner, Deadline::NEVER);
        loop {
            let ended = Ended { outcome: ask(hop - 1, false, sent), ..FAULT };
            if let Decision::Stop(_) = decide(&mut attempts, ended) {
                return ended.outcome;
            }
        }
    }
    let mut sent = 0;
    ask(3, true, &mut sent);
    assert_eq!(sent, 3, "not twenty-seven");
}

proptest! {
    #[test]
    fn waits_stay_within_base_and_cap_whatever_the_jitter(
        seed in any::<u64>(), failed in 1_u32..200, base in 1_u64..10_000, more in 0_u64..100_000, kind in 0_usize..4,
        previous in 0_u64..1_000_000,
    ) {
        let jitter = [Jitter::None, Jitter::Equal, Jitter::Full, Jitter::Decorrelated][kind];
        let backoff = Backoff { base: millis(base), cap: millis(base + more), jitter };
        let wait = backoff.wait(failed, millis(previous).min(backoff.cap), &mut Dice::seeded(seed));
        prop_assert!(wait <= backoff.cap);
        let least = match jitter {
            Jitter::None | Jitter::Decorrelated => backoff.base,
            Jitter::Equal => backoff.base / 2,
            Jitter::Full => Duration::ZERO,
        };
        prop_assert!(wait >= least);
    }

    /// Over any span of an interval no more retries are charged than its calls allow, with the edges' own calls.
    #[test]
    fn no_order_of_calls_and_charges_overspends_an_interval(
        acts in proptest::collection::vec((0_u64..400, any::<bool>()), 1..300),
    ) {
        let config = BudgetConfig { percent: 20, interval: Duration::from_secs(1), floor_per_second: 3 };
        let mut budget = Budget::new(config);
        let mut now = 0;
        let (mut calls, mut charges) = (Vec::new(), Vec::new());
        for (after, is_call) in acts {
            now += after;
            if is_call {
                budget.call(Mono::ZERO + millis(now));
                calls.push(now);
            } else if budget.charge(Mono::ZERO + millis(now)) {
                charges.push(now);
            }
            // Of the last part-rounded interval, 900 ms are certain to be in it.
            let recent = charges.iter().filter(|at| **at + 900 > now).count() as u64;
            let within = calls.iter().filter(|at| **at + 2_000 > now).count() as u64;
            prop_assert!(recent <= budget.allowance(within));
        }
    }

    /// Whatever becomes of the attempts, in any order, nothing is sent again that must not be.
    #[test]
    fn no_sequence_of_ends_sends_again_what_must_not_be(
        ends in proptest::collection::vec(any_end(), 1..12),
        most in 1_u32..6,
        repeatable in 0_usize..3,
        owner in any::<bool>(),
        left in 0_u64..5_000,
        needs in 0_u64..500,
        charges in 0_u32..6,
        seed in any::<u64>(),
    ) {
        let repeatable = [Repeatable::Idempotent, Repeatable::Keyed, Repeatable::No][repeatable];
        let longest = millis(1_000);
        let config = Config { longest_retry_after: longest, ..config(most) };
        let deadline = Deadline::at(Mono::ZERO + millis(left));
        let interval = Duration::from_secs(1);
        let mut budget = Budget::new(BudgetConfig { percent: 0, floor_per_second: charges, interval: interval * 1_000 });
        let allowed = budget.left(Mono::ZERO);
        let mut attempts = Attempts::new(config, repeatable, owner, deadline);
        let (mut now, mut again, mut stale, mut dice) = (Mono::ZERO, 0, 0, Dice::seeded(seed));
        for ended in ends {
            let decision = attempts.ended(now, ended, millis(needs), &mut budget, &mut dice);
            let Decision::Again { after, fresh_connection } = decision else {
                prop_assert_eq!(attempts.number(), again + 1, "what stops is counted nowhere");
                break;
            };
            again += 1;
            prop_assert_eq!(attempts.number(), again + 1);
            prop_assert!(again < most, "{} attempts of {}", again + 1, most);
            prop_assert!(deadline.allows(now, after + millis(needs)), "it would not end in time");
            prop_assert!(!ended.answer_begun);
            let verdict = ended.verdict.unwrap_or(Verdict::FAULT);
            prop_assert!(verdict.transient && (repeatable != Repeatable::No || verdict.unprocessed));
            match ended.outcome {
                Outcome::Upstream(Class::Stale) => {
                    stale += 1;
                    prop_assert!(fresh_connection && after.is_zero() && stale == 1);
                }
                Outcome::Upstream(Class::Fault | Class::Throttled) | Outcome::Timeout(Scope::Attempt) => {
                    prop_assert!(owner && !fresh_connection);
                    prop_assert!(verdict.retry_after.is_none_or(|asked| asked <= longest && after >= asked));
                }
                other => prop_assert!(false, "{:?} was sent again", other),
            }
            now = now + after;
        }
        prop_assert_eq!(budget.left(Mono::ZERO), allowed - u64::from(again), "each is charged once");
    }
}

/// How an attempt may end.
fn any_end() -> impl Strategy<Value = Ended> {
    let outcomes = prop_oneof![
        6 => Just(Outcome::Upstream(Class::Fault)),
        2 => Just(Outcome::Upstream(Class::Throttled)),
        2 => Just(Outcome::Upstream(Class::Stale)),
        2 => Just(Outcome::Timeout(Scope::Attempt)),
        1 => Just(Outcome::Timeout(Scope::Total)),
        1 => Just(Outcome::Upstream(Class::Success)),
        1 => Just(Outcome::Upstream(Class::Refusal)),
        1 => Just(Outcome::Rejected(Refuser::Breaker)),
        1 => Just(Outcome::Cancelled),
    ];
    let retry_after = proptest::option::weighted(0.3, (0_u64..2_000).prop_map(millis));
    (outcomes, any::<bool>(), proptest::bool::weighted(0.9), retry_after, proptest::bool::weighted(0.1)).prop_map(
        |(outcome, unprocessed, transient, retry_after, answer_begun)| {
            let verdict = match outcome {
                Outcome::Upstream(class) => Some(Verdict { class, unprocessed, transient, retry_after }),
                _ => None,
            };
            Ended { outcome, verdict, answer_begun }
        },
    )
}
