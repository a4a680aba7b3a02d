//! Claims about the rules of one transaction.

use super::*;
use crate::two_phase_commit::crashes::{Ballot, End, Faults, Told, explore};

fn no() -> Vote {
    Vote::No { why: "full".to_owned() }
}

/// A transaction of two branches, without what it did when it began.
fn begun() -> Transaction {
    let mut transaction = Transaction::new(2, false, true);
    assert_eq!(step(&mut transaction, Input::Begin), [Effect::Prepare(0), Effect::Prepare(1)]);
    transaction
}

fn step(transaction: &mut Transaction, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    transaction.step(input, &mut effects);
    effects
}

/// One with all votes in, whose decision is on its way.
fn deciding() -> Transaction {
    let mut transaction = begun();
    assert_eq!(step(&mut transaction, Input::Voted(1, Some(Vote::Yes))), []);
    assert_eq!(step(&mut transaction, Input::Voted(0, Some(Vote::Yes))), [Effect::Decide]);
    transaction
}

#[test]
fn nobody_is_told_to_commit_before_the_decision_is_in_the_log() {
    let mut transaction = deciding();
    // Not even where it may be there.
    assert_eq!(step(&mut transaction, Input::Unclear), [Effect::Answer(Outcome::Unknown), Effect::Decide]);
    assert_eq!(step(&mut transaction, Input::Unclear), [Effect::Decide]);
    assert_eq!(step(&mut transaction, Input::Logged), [Effect::Commit(0), Effect::Commit(1)]);
    assert_eq!(transaction.unconfirmed().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(step(&mut transaction, Input::Done(1)), []);
    assert_eq!(step(&mut transaction, Input::Done(0)), []);
    assert_eq!(transaction.phase(), Phase::Ended);
}

#[test]
fn no_vote_that_is_late_and_no_time_that_is_up_undoes_a_decision() {
    for late in [Some(no()), None] {
        let mut transaction = deciding();
        assert_eq!(step(&mut transaction, Input::Voted(0, late.clone())), []);
        let told = step(&mut transaction, Input::Logged);
        assert_eq!(told, [Effect::Commit(0), Effect::Commit(1), Effect::Answer(Outcome::Committed)]);
        assert_eq!(step(&mut transaction, Input::Voted(0, late)), []);
        assert_eq!(step(&mut transaction, Input::GivenUp(0)), []);
        assert_eq!(transaction.phase(), Phase::Committing);
    }
}

#[test]
fn a_no_aborts_at_once_and_whoever_votes_later_is_told() {
    let mut transaction = begun();
    let answered = step(&mut transaction, Input::Voted(1, Some(no())));
    assert_eq!(answered, [Effect::Answer(Outcome::Aborted { by: Some(1), why: "full".to_owned() })]);
    assert_eq!(step(&mut transaction, Input::Voted(0, Some(Vote::Yes))), [Effect::Abort(0)]);
    assert_eq!(step(&mut transaction, Input::Done(0)), []);
    assert_eq!(transaction.phase(), Phase::Ended);
}

#[test]
fn whoever_did_not_vote_in_time_is_told_to_abort_as_it_may_have_promised() {
    let mut transaction = begun();
    step(&mut transaction, Input::Voted(0, Some(Vote::Yes)));
    let effects = step(&mut transaction, Input::Voted(1, None));
    assert!(matches!(
        effects[..],
        [Effect::Answer(Outcome::Aborted { by: Some(1), .. }), Effect::Abort(0), Effect::Abort(1)]
    ));
}

#[test]
fn whoever_answers_twice_is_heard_once() {
    let mut transaction = begun();
    assert_eq!(step(&mut transaction, Input::Voted(0, Some(Vote::Yes))), []);
    for again in [Some(Vote::Yes), Some(no()), None] {
        assert_eq!(step(&mut transaction, Input::Voted(0, again)), [], "it has voted");
    }
    assert_eq!(step(&mut transaction, Input::Voted(1, Some(Vote::Yes))), [Effect::Decide]);
    assert_eq!(step(&mut transaction, Input::Logged).len(), 3);
    assert_eq!(step(&mut transaction, Input::Logged), []);
    for _ in 0..2 {
        assert_eq!(step(&mut transaction, Input::Done(0)), []);
        assert_eq!((transaction.phase(), transaction.unconfirmed().collect::<Vec<_>>()), (Phase::Committing, vec![1]));
    }

    let mut alone = Transaction::new(1, false, true);
    assert_eq!(step(&mut alone, Input::Begin), [Effect::OnePhase(0)]);
    assert_eq!(step(&mut alone, Input::Ended(0, None)), [Effect::Answer(Outcome::Unknown)]);
    assert_eq!(step(&mut alone, Input::Ended(0, Some(Vote::Yes))), []);
}

#[test]
fn a_refused_decision_aborts_everywhere() {
    let mut transaction = deciding();
    let effects = step(&mut transaction, Input::Refused("replaced".to_owned()));
    let why = "replaced".to_owned();
    assert_eq!(effects, [Effect::Answer(Outcome::Aborted { by: None, why }), Effect::Abort(0), Effect::Abort(1)]);
    step(&mut transaction, Input::Done(0));
    step(&mut transaction, Input::GivenUp(1));
    assert_eq!(transaction.phase(), Phase::Ended);
}

#[test]
fn who_read_only_is_not_told_and_where_all_did_nothing_is_written() {
    let mut transaction = begun();
    step(&mut transaction, Input::Voted(0, Some(Vote::ReadOnly)));
    assert_eq!(step(&mut transaction, Input::Voted(1, Some(Vote::Yes))), [Effect::Decide]);
    assert_eq!(step(&mut transaction, Input::Logged), [Effect::Commit(1), Effect::Answer(Outcome::Committed)]);

    let mut transaction = begun();
    step(&mut transaction, Input::Voted(0, Some(Vote::ReadOnly)));
    let answered = step(&mut transaction, Input::Voted(1, Some(Vote::ReadOnly)));
    assert_eq!((answered, transaction.phase()), (vec![Effect::Answer(Outcome::Committed)], Phase::Ended));

    // Unless there is something for the log.
    let mut transaction = Transaction::new(1, true, true);
    assert_eq!(step(&mut transaction, Input::Begin), [Effect::Prepare(0)]);
    assert_eq!(step(&mut transaction, Input::Voted(0, Some(Vote::ReadOnly))), [Effect::Decide]);
}

#[test]
fn one_alone_does_it_in_one_phase_and_its_lost_answer_is_unknown() {
    for (vote, outcome) in [
        (Some(Vote::Yes), Outcome::Committed),
        (Some(no()), Outcome::Aborted { by: Some(0), why: "full".to_owned() }),
        (None, Outcome::Unknown),
    ] {
        let mut transaction = Transaction::new(1, false, true);
        assert_eq!(step(&mut transaction, Input::Begin), [Effect::OnePhase(0)]);
        assert_eq!(step(&mut transaction, Input::Ended(0, vote)), [Effect::Answer(outcome)]);
        assert_eq!(transaction.phase(), Phase::Ended);
    }
}

#[test]
fn every_course_with_every_pair_of_faults_ends_the_same_everywhere() {
    const KINDS: [Faults; 5] = [
        Faults { crashes: 1, replacements: 0, losses: 0, duplicates: 0, late: 0 },
        Faults { crashes: 0, replacements: 1, losses: 0, duplicates: 0, late: 0 },
        Faults { crashes: 0, replacements: 0, losses: 1, duplicates: 0, late: 0 },
        Faults { crashes: 0, replacements: 0, losses: 0, duplicates: 1, late: 0 },
        Faults { crashes: 0, replacements: 0, losses: 0, duplicates: 0, late: 1 },
    ];
    let mut states = 0;
    for ballots in [[Ballot::Yes, Ballot::Yes], [Ballot::Yes, Ballot::No], [Ballot::Yes, Ballot::ReadOnly]] {
        for (n, one) in KINDS.iter().enumerate() {
            for other in &KINDS[n..] {
                let faults = Faults {
                    crashes: (one.crashes + other.crashes).min(1),
                    replacements: (one.replacements + other.replacements).min(1),
                    losses: one.losses + other.losses,
                    duplicates: one.duplicates + other.duplicates,
                    late: one.late + other.late,
                };
                let table =
                    explore(&ballots, faults).unwrap_or_else(|broken| panic!("{ballots:?} {faults:?}: {broken}"));
                assert!(!table.is_cut, "{ballots:?} {faults:?}: not every course was looked at");
                states += table.states;
            }
        }
    }
    eprintln!("{states} states");
    assert!(states > 5_000, "too little was looked at to prove anything: {states}");
}

#[test]
fn the_table_of_crashes_says_what_becomes_of_each() {
    let table = explore(&[Ballot::Yes, Ballot::Yes], Faults { crashes: 1, ..Faults::default() }).unwrap();
    let ends = |point: &str| table.rows[&format!("the coordinator dies {point}")].iter().copied().collect::<Vec<_>>();
    assert_eq!(ends("between the promises"), [(End::Aborted, Told::Nothing)]);
    // What is on its way to the log may still arrive, unless another has taken over.
    assert_eq!(
        ends("before the decision is durable"),
        [(End::Committed, Told::Nothing), (End::Aborted, Told::Nothing)]
    );
    assert_eq!(ends("behind the durable decision, before it knows"), [(End::Committed, Told::Nothing)]);
    assert_eq!(ends("between the commits"), [(End::Committed, Told::Committed)]);
    assert_eq!(
        table.rows["nothing goes wrong"].iter().copied().collect::<Vec<_>>(),
        [(End::Committed, Told::Committed)]
    );
}
