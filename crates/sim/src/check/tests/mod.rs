//! Checkers are checked: they accept what is right, and each kind of damage to it is found by the one that is there for it.

mod followers;
mod leases;
mod mutations;

use super::{
    Report,
    api::History,
    linearizability::{self, Budget, Linearizability},
    reference::{Size, world},
    stream, token,
};

#[test]
fn a_world_that_is_right_is_accepted_by_every_checker() {
    let mut examined = vec![0; 12];
    for seed in 0..150 {
        let world = world(seed, Size::SMALL);
        let report = Report::of_log(&world.history, &world.log);
        for (verdict, examined) in report.verdicts().iter().zip(&mut examined) {
            let super::Finding::Holds { examined: these } = verdict.finding else { panic!("seed {seed}: {verdict}") };
            *examined += these;
        }
    }
    assert!(examined.iter().all(|examined| *examined > 100), "a checker looked at too little: {examined:?}");
}

#[test]
fn a_history_read_back_from_a_report_gets_the_same_verdicts() {
    let world = world(11, Size::SMALL);
    let text = world.history.to_ndjson().expect("plain data");
    let history = History::from_ndjson(&text).expect("it was just written");
    assert_eq!(history, world.history);
    assert_eq!(Report::of_log(&history, &world.log), Report::of_log(&world.history, &world.log));
}

/// The search must not depend on luck: a step or two for each operation, counted instead of timed.
#[test]
fn ten_thousand_operations_cost_a_few_steps_each() {
    let world = world(1, Size::LARGE);
    assert!(world.history.operations().len() >= 10_000);
    assert!(world.history.tally().unknown > 300, "{:?}", world.history.tally());
    let mut steps = 0;
    let mut operations = 0;
    for object in stream::streams(&world.history) {
        let judged = linearizability::check(&object.model, &object.operations, Budget::default());
        assert!(matches!(judged.verdict, Linearizability::Linearizable { .. }), "{}", object.name);
        steps += judged.steps;
        operations += object.operations.len() as u64;
    }
    assert!(steps < 10 * operations, "{steps} steps for {operations} operations");
    let report = Report::of_log(&world.history, &world.log);
    assert!(report.holds(), "{report}");
}

#[test]
fn a_read_full_to_its_limit_owes_nothing_beyond_its_page() {
    for seed in 0..20 {
        let size = Size { page: 7, ..Size::SMALL };
        let world = world(seed, size);
        let verdict = token::honoured(&world.history, &world.log);
        assert!(verdict.holds(), "seed {seed}: {verdict}");
    }
}
