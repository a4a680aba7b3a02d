//! The rules of hedging at their edges, and for any sequence of endings.

use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

fn config(extra: u32) -> Config {
    Config { after: After::Fixed(Duration::from_millis(10)), extra: NonZeroU32::new(extra).unwrap() }
}

fn copies(extra: u32, repeatable: Repeatable) -> Copies {
    let config = config(extra);
    Copies::new(config, config.delay(|_| None), repeatable, Deadline::at(at(100)), at(0))
}

fn step(copies: &mut Copies, now: u64, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    copies.step(at(now), input, &mut effects);
    effects
}

fn tick(copies: &mut Copies, now: u64) -> Vec<Effect> {
    let mut effects = Vec::new();
    copies.tick(at(now), &mut effects);
    effects
}

#[test]
fn a_late_answer_is_asked_for_again_and_the_first_good_one_cancels_the_others() {
    let mut copies = copies(2, Repeatable::Idempotent);
    assert_eq!(tick(&mut copies, 9), []);
    assert_eq!(tick(&mut copies, 10), [Effect::Ask]);
    assert_eq!(step(&mut copies, 10, Input::Budget(true)), [Effect::Send(1)]);
    assert_eq!(copies.wake_at(), Some(at(20)));
    assert_eq!(tick(&mut copies, 20), [Effect::Ask]);
    assert_eq!(step(&mut copies, 20, Input::Budget(true)), [Effect::Send(2)]);
    assert_eq!(copies.wake_at(), None, "no more than two copies");
    let effects = step(&mut copies, 25, Input::Ended { copy: 1, good: true });
    assert_eq!(effects[0], Effect::Deliver(1));
    assert!(effects[1..].contains(&Effect::Cancel(0)) && effects[1..].contains(&Effect::Cancel(2)));
    assert_eq!(step(&mut copies, 26, Input::Ended { copy: 0, good: true }), [], "whoever comes second isn't heard");
}

#[test]
fn what_is_not_repeatable_is_never_copied() {
    let mut copies = copies(2, Repeatable::No);
    assert_eq!(copies.wake_at(), None);
    assert_eq!(tick(&mut copies, 50), []);
    assert_eq!(step(&mut copies, 50, Input::Budget(true)), []);
}

#[test]
fn a_spent_budget_leaves_those_under_way_alone() {
    let mut copies = copies(2, Repeatable::Keyed);
    tick(&mut copies, 10);
    assert_eq!(step(&mut copies, 10, Input::Budget(false)), []);
    assert_eq!(copies.wake_at(), None);
    assert_eq!(step(&mut copies, 30, Input::Ended { copy: 0, good: true }), [Effect::Deliver(0)]);
}

#[test]
fn a_failure_is_not_hedged_and_the_last_one_to_fail_is_delivered() {
    let mut alone = copies(1, Repeatable::Idempotent);
    assert_eq!(
        step(&mut alone, 5, Input::Ended { copy: 0, good: false }),
        [Effect::Deliver(0)],
        "retries are others' work"
    );
    assert_eq!(alone.wake_at(), None);
    let mut two = copies(1, Repeatable::Idempotent);
    tick(&mut two, 10);
    step(&mut two, 10, Input::Budget(true));
    assert_eq!(step(&mut two, 15, Input::Ended { copy: 0, good: false }), []);
    assert_eq!(step(&mut two, 20, Input::Ended { copy: 1, good: false }), [Effect::Deliver(1)]);
}

#[test]
fn no_copy_is_sent_that_could_only_end_after_the_deadline() {
    let config = config(1);
    let mut late = Copies::new(config, config.delay(|_| None), Repeatable::Idempotent, Deadline::at(at(20)), at(0));
    assert_eq!(tick(&mut late, 10), [], "ten milliseconds are left, and ten are needed");
    assert_eq!(late.wake_at(), None);
}

#[test]
fn while_calls_are_not_known_none_is_late() {
    let part = Config { after: After::Percentile { part: 0.95, at_least: Duration::from_millis(5) }, ..config(1) };
    assert_eq!(part.check(), Ok(()));
    assert_eq!(part.delay(|_| None), None);
    assert_eq!(part.delay(|_| Some(Duration::from_millis(2))), Some(Duration::from_millis(5)));
    assert_eq!(part.delay(|q| Some(Duration::from_secs_f64(q))), Some(Duration::from_millis(950)));
    let unknown = Copies::new(part, None, Repeatable::Idempotent, Deadline::NEVER, at(0));
    assert_eq!(unknown.wake_at(), None);
}

#[test]
fn a_configuration_that_would_double_the_load_names_the_field() {
    let part = |part| Config { after: After::Percentile { part, at_least: Duration::from_millis(1) }, ..config(1) };
    assert_eq!(part(0.1).check(), Err(ConfigError::Part(0.1)));
    assert!(part(f64::NAN).check().is_err());
    assert_eq!(Config { after: After::Fixed(Duration::ZERO), ..config(1) }.check(), Err(ConfigError::Zero("after")));
    assert_eq!(config(11).check(), Err(ConfigError::Extra(11)));
}

proptest! {
    #[test]
    fn any_sequence_delivers_once_and_leaves_nothing_running(
        extra in 1_u32..5,
        repeatable in prop_oneof![Just(Repeatable::No), Just(Repeatable::Idempotent)],
        steps in proptest::collection::vec(
            (prop_oneof![
                (0_u32..6, any::<bool>()).prop_map(|(copy, good)| Some(Input::Ended { copy, good })),
                any::<bool>().prop_map(|allowed| Some(Input::Budget(allowed))),
                Just(None),
            ], 0_u64..15),
            1..60,
        ),
    ) {
        let mut copies = copies(extra, repeatable);
        let (mut running, mut delivered, mut asked, mut now) = (vec![0], None, 0, 0);
        for (input, gap) in steps {
            now += gap;
            let effects = match input {
                // The budget answers only where it was asked.
                Some(Input::Budget(allowed)) => {
                    if asked == 0 { continue }
                    asked -= 1;
                    step(&mut copies, now, Input::Budget(allowed))
                }
                Some(Input::Ended { copy, good }) => {
                    let known = running.contains(&copy);
                    running.retain(|running| *running != copy);
                    let effects = step(&mut copies, now, Input::Ended { copy, good });
                    prop_assert!(known || effects.is_empty(), "what isn't running can't end");
                    effects
                }
                None => tick(&mut copies, now),
            };
            for effect in effects {
                prop_assert!(delivered.is_none() || matches!(effect, Effect::Cancel(_)), "{:?} after delivery", effect);
                match effect {
                    Effect::Ask => asked += 1,
                    Effect::Send(copy) => {
                        prop_assert!(repeatable != Repeatable::No && now < 100);
                        prop_assert!(!running.contains(&copy));
                        running.push(copy);
                    }
                    Effect::Deliver(copy) => {
                        prop_assert!(!running.contains(&copy));
                        delivered = Some(copy);
                    }
                    Effect::Cancel(copy) => {
                        prop_assert!(running.contains(&copy));
                        running.retain(|running| *running != copy);
                    }
                }
            }
            prop_assert!(copies.sent() <= 1 + extra);
            prop_assert_eq!(running.is_empty(), delivered.is_some());
        }
    }
}
