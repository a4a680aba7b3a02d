use quorate_foundations::time::Mono;

use super::*;
use crate::check::{
    history::{ClientId, History, Outcome},
    reference::Dice,
    register::{self, Call, Register, Reply},
};

type Registers = History<Call, Reply>;

/// A register that is right, with clients whose operations overlap and of whom some never hear the answer.
fn registers(seed: u64, operations: usize) -> Registers {
    let mut dice = Dice::new(seed);
    let mut history = History::new();
    let mut held = [None; 2];
    let mut in_flight: Vec<Option<(OpId, Option<Reply>)>> = vec![None; 4];
    let mut now = 0;
    while history.operations().len() < operations {
        now += 1;
        let client = dice.below(4) as usize;
        let register = dice.below(2) as usize;
        let key = ["x", "y"][register];
        in_flight[client] = match in_flight[client].take() {
            None => {
                let call = match dice.below(4) {
                    0 | 1 => Call::read(key),
                    2 => Call::write(key, dice.below(5)),
                    _ => Call::compare_and_set(key, Some(dice.below(5)), dice.below(5)),
                };
                Some((history.invoke(ClientId(client as u32), call, Mono::from_nanos(now)), None))
            }
            Some((id, None)) if dice.percent(3) => {
                history.unknown(id, "timeout", Mono::from_nanos(now));
                None
            }
            Some((id, None)) => {
                let call = &history.get(id).expect("it was invoked").op;
                let held = &mut held[usize::from(call.key == "y")];
                Some((id, Some(carry_out(held, call.op))))
            }
            Some((id, Some(reply))) => {
                if dice.percent(3) {
                    history.unknown(id, "lost", Mono::from_nanos(now));
                } else {
                    history.ok(id, reply, Mono::from_nanos(now));
                }
                None
            }
        };
    }
    history
}

fn carry_out(held: &mut Option<u64>, op: register::Op) -> Reply {
    match op {
        register::Op::Read => Reply::Value(*held),
        register::Op::Write(value) => {
            *held = Some(value);
            Reply::Written
        }
        register::Op::CompareAndSet { expected, new } if expected == *held => {
            *held = Some(new);
            Reply::Written
        }
        register::Op::CompareAndSet { .. } => Reply::Mismatch,
    }
}

/// Tries every order: what the search must agree with.
fn by_brute_force(operations: &[Observed<register::Op, Reply>]) -> bool {
    fn go(operations: &[Observed<register::Op, Reply>], done: &mut Vec<bool>, held: Option<u64>) -> bool {
        let open = |index: &usize, done: &[bool]| !done[*index] && operations[*index].answer.is_some();
        let left: Vec<usize> = (0..operations.len()).filter(|index| open(index, done)).collect();
        if left.is_empty() {
            return true;
        }
        let first_return =
            left.iter().filter_map(|index| operations[*index].answer.map(|(_, at)| at)).min().unwrap_or(u64::MAX);
        for index in 0..operations.len() {
            let Observed { op, invoked, answer, .. } = &operations[index];
            if done[index] || *invoked > first_return {
                continue;
            }
            let mut after = held;
            let truth = carry_out(&mut after, *op);
            if answer.is_some_and(|(reply, _)| reply != truth) {
                continue;
            }
            done[index] = true;
            let explained = go(operations, done, after);
            done[index] = false;
            if explained {
                return true;
            }
        }
        false
    }
    go(operations, &mut vec![false; operations.len()], None)
}

/// A few operations with arbitrary intervals and answers, about half of which can be explained.
fn arbitrary(seed: u64) -> Vec<Observed<register::Op, Reply>> {
    let mut dice = Dice::new(seed);
    let count = 3 + dice.below(4);
    let mut operations: Vec<_> = (0..count)
        .map(|id| {
            let invoked = 100 * dice.below(12) + 2 * id;
            let (value, new) = (dice.below(2), dice.below(2));
            let (op, reply) = match dice.below(5) {
                0 | 1 => (register::Op::Read, Reply::Value((value == 1).then_some(new))),
                2 => (register::Op::Write(value), Reply::Written),
                3 => (register::Op::CompareAndSet { expected: Some(value), new }, Reply::Written),
                _ => (register::Op::CompareAndSet { expected: Some(value), new }, Reply::Mismatch),
            };
            let returned = invoked + 100 * dice.below(8) + 1;
            let answer = (!dice.percent(25)).then_some((reply, returned));
            Observed { id: OpId(id), op, invoked, answer }
        })
        .collect();
    operations.sort_by_key(|operation| operation.invoked);
    operations
}

#[test]
fn the_search_agrees_with_trying_every_order() {
    let (mut explained, mut impossible) = (0, 0);
    for seed in 0..4_000 {
        let operations = arbitrary(seed);
        let expected = by_brute_force(&operations);
        *(if expected { &mut explained } else { &mut impossible }) += 1;
        match check(&Register, &operations, Budget::default()).verdict {
            Linearizability::Linearizable { witness } => {
                assert!(expected, "seed {seed}: {witness:?} explains {operations:#?}");
                assert!(is_explanation(&operations, &witness), "seed {seed}: {witness:?} explains nothing");
            }
            Linearizability::Violated(counter_example) => {
                assert!(!expected, "seed {seed}: {counter_example:?} in {operations:#?}");
                assert!(is_minimal(&operations, &counter_example), "seed {seed}: {counter_example:?}");
            }
            Linearizability::Unknown { exhausted } => panic!("seed {seed}: {exhausted}"),
        }
    }
    assert!(explained > 500 && impossible > 500, "{explained} explained, {impossible} impossible");
}

/// Whether carrying the operations out in the order of the witness gives every answer, in real time's order.
fn is_explanation(operations: &[Observed<register::Op, Reply>], witness: &[OpId]) -> bool {
    let of = |id: &OpId| operations.iter().find(|operation| operation.id == *id).expect("it is one of them");
    let order: Vec<_> = witness.iter().map(of).collect();
    let mut held = None;
    let answers_hold = order.iter().all(|operation| {
        let truth = carry_out(&mut held, operation.op);
        operation.answer.is_none_or(|(reply, _)| reply == truth)
    });
    let in_time = order.iter().enumerate().all(|(place, later)| {
        order[place..].iter().all(|operation| operation.answer.is_none_or(|(_, returned)| returned > later.invoked))
    });
    let complete = operations.iter().all(|operation| operation.answer.is_none() || witness.contains(&operation.id));
    answers_hold && in_time && complete
}

/// Whether what is blamed is impossible with the others unknown, and possible if any one of it is unknown as well.
fn is_minimal(operations: &[Observed<register::Op, Reply>], counter_example: &CounterExample) -> bool {
    let with_answers_of = |blamed: &[OpId]| {
        let mut weaker = operations.to_vec();
        weaker.truncate(counter_example.prefix);
        for operation in &mut weaker {
            operation.answer.take_if(|_| !blamed.contains(&operation.id));
        }
        by_brute_force(&weaker)
    };
    let blamed = &counter_example.operations;
    let one_less = |index| {
        let mut fewer = blamed.clone();
        fewer.remove(index);
        with_answers_of(&fewer)
    };
    !with_answers_of(blamed) && (0..blamed.len()).all(one_less)
}

#[test]
fn a_register_that_is_right_is_linearizable() {
    for seed in 0..200 {
        let verdict = register::linearizable(&registers(seed, 120));
        assert!(verdict.holds(), "seed {seed}: {verdict}");
    }
}

#[test]
fn a_read_of_a_value_that_was_never_there_is_found() {
    for seed in 0..100 {
        let mut history = registers(seed, 120);
        let mut dice = Dice::new(seed);
        let reads: Vec<OpId> = history
            .operations()
            .iter()
            .filter(|operation| matches!(operation.outcome.answer(), Some((Reply::Value(_), _))))
            .map(|operation| operation.id)
            .collect();
        let changed = *dice.pick(&reads).expect("there are reads");
        let operation = &mut history.operations_mut()[changed.0 as usize];
        let at = operation.outcome.ended().expect("it was answered");
        operation.outcome = Outcome::Ok { value: Reply::Value(Some(99)), at };
        let verdict = register::linearizable(&history);
        assert_eq!(verdict.violations()[0].operations, [changed], "seed {seed}: {verdict}");
    }
}

#[test]
fn a_lost_update_is_told_by_the_two_that_updated() {
    let mut history = Registers::new();
    let at = Mono::from_nanos;
    let zero = history.invoke(ClientId(0), Call::write("x", 0), at(0));
    history.ok(zero, Reply::Written, at(1));
    let one = history.invoke(ClientId(1), Call::compare_and_set("x", Some(0), 1), at(2));
    let two = history.invoke(ClientId(2), Call::compare_and_set("x", Some(0), 2), at(3));
    history.ok(one, Reply::Written, at(4));
    history.ok(two, Reply::Written, at(5));
    let verdict = register::linearizable(&history);
    let [violation] = verdict.violations() else { panic!("{verdict}") };
    assert_eq!(violation.operations, [one, two]);
    assert_eq!(
        violation.sentence,
        "x: no order of the operations explains what these were told: op 1 (set 0 to 1: written); op 2 (set 0 to 2: \
         written)"
    );
}

#[test]
fn failed_operations_explain_nothing() {
    let mut history = Registers::new();
    let at = Mono::from_nanos;
    let write = history.invoke(ClientId(0), Call::write("x", 1), at(0));
    let read = history.invoke(ClientId(1), Call::read("x"), at(1));
    history.ok(read, Reply::Value(Some(1)), at(2));
    let mut unknown = history.clone();
    history.failed(write, "refused", at(3));
    unknown.unknown(write, "timeout", at(3));
    assert!(register::linearizable(&history).is_violated());
    assert!(register::linearizable(&unknown).holds());
}

#[test]
fn an_unknown_write_may_take_effect_long_after_its_client_gave_up_but_not_before_it_began() {
    let at = Mono::from_nanos;
    let mut history = Registers::new();
    let write = history.invoke(ClientId(0), Call::write("x", 1), at(0));
    history.unknown(write, "timeout", at(1));
    for (time, value) in [(2, None), (4, None), (6, Some(1))] {
        let read = history.invoke(ClientId(1), Call::read("x"), at(time));
        history.ok(read, Reply::Value(value), at(time + 1));
    }
    assert!(register::linearizable(&history).holds());

    let mut history = Registers::new();
    let read = history.invoke(ClientId(1), Call::read("x"), at(0));
    history.ok(read, Reply::Value(Some(1)), at(1));
    let write = history.invoke(ClientId(0), Call::write("x", 1), at(2));
    history.unknown(write, "timeout", at(3));
    assert!(register::linearizable(&history).is_violated());
}

#[test]
fn a_search_without_means_says_so_instead_of_guessing() {
    let history = registers(7, 200);
    for budget in [Budget { steps: 5, ..Budget::default() }, Budget { bytes: 200, ..Budget::default() }] {
        let verdict = register::linearizable_within(&history, budget);
        assert!(matches!(verdict.finding, crate::check::Finding::Undecided { .. }), "{verdict}");
    }
}
