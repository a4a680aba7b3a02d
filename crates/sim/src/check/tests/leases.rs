//! Clocks and leases, right and damaged.

use quorate_foundations::time::Mono;

use crate::check::{
    Verdict,
    hlc::{Stamped, stamps_increase},
    lease::{Step, Tenure, fences_hold, one_holder},
    reference::Dice,
};

/// Three nodes that talk, with stamps as they should be.
fn stamps(seed: u64) -> Vec<Stamped<u64>> {
    let mut dice = Dice::new(seed);
    let mut clocks = [0_u64; 3];
    let mut stamped: Vec<Stamped<u64>> = Vec::new();
    for _ in 0..60 {
        let node = dice.below(3) as usize;
        let heard = dice.percent(30).then(|| dice.pick(&stamped).map(|stamped| stamped.stamp)).flatten();
        clocks[node] = clocks[node].max(heard.unwrap_or(0)) + 1 + dice.below(5);
        stamped.push(Stamped { node: format!("n{node}"), stamp: clocks[node], heard });
    }
    stamped
}

#[test]
fn a_clock_that_repeats_the_past_after_a_restart_is_found() {
    for seed in 0..50 {
        let mut stamped = stamps(seed);
        assert!(stamps_increase(&stamped).holds());
        let last = stamped.last().expect("sixty of them").clone();
        let earlier = stamped.iter().find(|other| other.node == last.node).expect("at least itself").stamp;
        stamped.push(Stamped { stamp: earlier, heard: None, ..last });
        assert!(stamps_increase(&stamped).is_violated(), "seed {seed}");
    }
}

#[test]
fn a_stamp_that_is_not_later_than_what_caused_it_is_found() {
    for seed in 0..50 {
        let mut stamped = stamps(seed);
        let newest = stamped.iter().map(|stamped| stamped.stamp).max();
        stamped[0].heard = newest;
        assert!(stamps_increase(&stamped).is_violated(), "seed {seed}");
    }
}

fn granted(holder: &str, fence: u64) -> Step {
    Step::Granted { resource: "ledger".into(), holder: holder.into(), fence }
}

fn used(holder: &str, fence: u64, accepted: bool) -> Step {
    Step::Used { resource: "ledger".into(), holder: holder.into(), fence, accepted }
}

/// Holders come and go; one wakes up late and is refused.
fn lease_steps(seed: u64) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let mut steps = Vec::new();
    let mut fence = 0;
    for round in 0..12 {
        let late = fence;
        fence += 1 + dice.below(3);
        let holder = format!("h{round}");
        steps.push(granted(&holder, fence));
        steps.extend((0..1 + dice.below(3)).map(|_| used(&holder, fence, true)));
        steps.extend((late > 0).then(|| used("late", late, false)));
    }
    steps
}

fn lease_flips(damage: fn(&mut Vec<Step>)) {
    for seed in 0..50 {
        let mut steps = lease_steps(seed);
        let verdict = fences_hold(&steps);
        assert!(verdict.holds(), "seed {seed}: {verdict}");
        damage(&mut steps);
        let verdict = fences_hold(&steps);
        assert!(verdict.is_violated(), "seed {seed}: {verdict}");
    }
}

#[test]
fn a_fence_that_was_granted_twice_is_found() {
    lease_flips(|steps| steps.push(granted("again", 1)));
}

#[test]
fn a_resource_that_accepts_an_old_fence_is_found() {
    lease_flips(|steps| {
        let first = steps.iter().find_map(|step| match step {
            Step::Granted { holder, fence, .. } => Some((holder.clone(), *fence)),
            Step::Used { .. } => None,
        });
        let (holder, fence) = first.expect("somebody held it");
        steps.push(used(&holder, fence, true));
    });
}

#[test]
fn a_fence_that_was_never_granted_is_found() {
    lease_flips(|steps| steps.push(used("stranger", 9_999, true)));
}

#[test]
fn a_fence_in_the_hands_of_another_is_found() {
    lease_flips(|steps| {
        let newest = steps.iter().rev().find_map(|step| match step {
            Step::Granted { fence, .. } => Some(*fence),
            Step::Used { .. } => None,
        });
        steps.push(used("thief", newest.expect("somebody held it"), true));
    });
}

fn held(tenures: &[(&str, u64, u64, u64)]) -> Verdict {
    let tenure = |(holder, fence, from, until): &(&str, u64, u64, u64)| Tenure {
        resource: "ledger".into(),
        holder: (*holder).to_owned(),
        fence: *fence,
        from: Mono::from_nanos(*from),
        until: Mono::from_nanos(*until),
    };
    one_holder(&tenures.iter().map(tenure).collect::<Vec<_>>())
}

#[test]
fn two_live_holders_are_found_even_around_a_short_third() {
    assert!(held(&[("a", 1, 0, 10), ("b", 2, 10, 20), ("a", 3, 25, 30)]).holds());
    assert!(held(&[("a", 1, 0, 10), ("a", 1, 5, 20), ("b", 2, 20, 30)]).holds(), "renewed under its token");
    assert!(held(&[("a", 1, 0, 10), ("b", 2, 9, 20)]).is_violated());
    assert!(held(&[("b", 2, 50, 60), ("a", 1, 0, 100)]).is_violated(), "in any order");
    assert!(held(&[("a", 1, 0, 100), ("a", 1, 10, 20), ("b", 2, 30, 40)]).is_violated());
    assert!(held(&[("a", 1, 0, 10), ("a", 2, 5, 20)]).is_violated(), "the same host under two tokens is two holders");
}
