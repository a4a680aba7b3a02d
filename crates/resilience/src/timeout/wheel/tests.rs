//! The wheel beside a sorted list.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Wake,
};

use proptest::prelude::*;

use super::*;

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicU32);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn advance(wheel: &mut Wheel, now: u64) {
    let mut woken = Vec::new();
    wheel.advance(now, &mut woken);
    woken.into_iter().for_each(Waker::wake);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    Remove(usize),
    Advance(u64),
    Ask(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let far = prop_oneof![1_u64..70, 1_u64..5_000, 1_u64..300_000, 1_u64..1 << 38, Just(1 << 36), Just(1 << 40)];
    prop_oneof![
        4 => far.clone().prop_map(Step::Insert),
        3 => any::<usize>().prop_map(Step::Remove),
        3 => far.prop_map(Step::Advance),
        1 => any::<usize>().prop_map(Step::Ask),
    ]
}

proptest! {
    #[test]
    fn every_deadline_fires_at_its_tick_unless_it_was_removed(steps in proptest::collection::vec(step(), 1..200)) {
        let (mut wheel, mut now) = (Wheel::new(), 0_u64);
        let mut known: BTreeMap<usize, (Key, u64, Arc<Bell>)> = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(after) => {
                    let bell = Arc::new(Bell::default());
                    known.insert(number, (wheel.insert(now + after, bell.clone().into()), now + after, bell));
                }
                Step::Remove(which) if !known.is_empty() => {
                    let at = *known.keys().nth(which % known.len()).unwrap();
                    let (key, _, _) = known.remove(&at).unwrap();
                    wheel.remove(key);
                }
                Step::Ask(which) if !known.is_empty() => {
                    let (key, due, bell) = known.values().nth(which % known.len()).unwrap();
                    prop_assert_eq!(wheel.has_fired(*key, &bell.clone().into()), *due <= now);
                }
                Step::Advance(span) => {
                    now += span;
                    advance(&mut wheel, now);
                }
                Step::Remove(_) | Step::Ask(_) => {}
            }
            for (_, due, bell) in known.values() {
                prop_assert_eq!(bell.0.load(Ordering::Relaxed), u32::from(*due <= now), "due {} at {}", due, now);
            }
            let earliest = known.values().map(|(_, due, _)| *due).filter(|due| *due > now).min();
            prop_assert_eq!(wheel.armed(), known.values().filter(|(_, due, _)| *due > now).count());
            prop_assert_eq!(wheel.next().is_some(), earliest.is_some());
            prop_assert!(wheel.next() <= earliest, "nothing is overslept: {:?} {:?}", wheel.next(), earliest);
            prop_assert!(wheel.next().is_none_or(|next| next > now));
        }
    }
}

#[test]
fn a_deadline_is_found_in_few_steps_however_far_it_is() {
    let (mut wheel, bell, mut steps) = (Wheel::new(), Arc::new(Bell::default()), 0);
    wheel.insert(123_456_789, bell.clone().into());
    while let Some(next) = wheel.next() {
        advance(&mut wheel, next);
        steps += 1;
    }
    assert_eq!((wheel.elapsed, bell.0.load(Ordering::Relaxed)), (123_456_789, 1));
    assert!(steps <= LEVELS, "{steps}");
}

#[test]
fn places_are_used_again() {
    let mut wheel = Wheel::new();
    for due in 1..10_000 {
        let key = wheel.insert(due, Waker::noop().clone());
        wheel.remove(key);
    }
    assert_eq!(wheel.entries.len(), 1);
}

#[test]
fn a_deadline_that_has_passed_fires_at_the_next_tick() {
    let (mut wheel, bell) = (Wheel::new(), Arc::new(Bell::default()));
    advance(&mut wheel, 1_000);
    let key = wheel.insert(3, bell.clone().into());
    assert_eq!(wheel.next(), Some(1_001));
    advance(&mut wheel, 1_001);
    assert!(wheel.has_fired(key, &bell.into()));
}
