use super::*;
use crate::check::{
    api::{Append, Call, Reply},
    history::Outcome,
    linearizability::{Budget, Linearizability, check},
    reference::{Dice, Size, World, world},
    stream::streams,
};

/// The same stream without anything that spares the search work: it keeps every event in its state and knows no facts.
struct Plain(Stream);

impl Model for Plain {
    type State = State;
    type Op = Op;
    type Ret = Ret;
    type Facts = Facts;

    fn initial(&self) -> State {
        self.0.initial()
    }

    fn step(&self, facts: &Facts, state: &State, op: &Op, ret: Option<&Ret>) -> Option<State> {
        if let (Op::Read { after, limit }, Some(Ret::Events(events))) = (op, ret) {
            let there = state.untold.iter().skip(*after as usize).take(*limit as usize);
            return there.eq(events).then(|| state.clone());
        }
        self.0.step(facts, state, op, ret)
    }

    fn describe(&self, op: &Op, ret: Option<&Ret>) -> String {
        self.0.describe(op, ret)
    }
}

/// Changes one answer to something that may or may not be explicable.
fn damage(world: &mut World, dice: &mut Dice) {
    let index = dice.below(world.history.operations().len() as u64) as usize;
    let operation = &mut world.history.operations_mut()[index];
    let is_append = matches!(operation.op, Call::Append(_));
    let Outcome::Ok { value, at } = &mut operation.outcome else { return };
    match value {
        Reply::Events { events, .. } => _ = events.pop(),
        Reply::Appended { versions, .. } if dice.percent(50) => versions[0] = 1 + dice.below(9),
        _ if is_append && dice.percent(30) => {
            let at = *at;
            operation.outcome = Outcome::Unknown { reason: "damaged".into(), at };
        }
        _ if is_append && dice.percent(50) => *value = Reply::WrongVersion { actual: None },
        _ if is_append => *value = Reply::IdConflict,
        _ => {}
    }
}

#[test]
fn what_spares_the_search_work_leaves_its_verdict_as_it_is() {
    let (mut explained, mut impossible) = (0, 0);
    for seed in 0..1_500 {
        let mut dice = Dice::new(seed);
        let size = Size { operations: 14, streams: 1, clients: 4, unknown_percent: 40, page: 100 };
        let mut world = world(seed, size);
        if dice.percent(50) {
            world.history.operations_mut().truncate(14);
        }
        (0..dice.below(3)).for_each(|_| damage(&mut world, &mut dice));
        for object in streams(&world.history) {
            let quick = check(&object.model, &object.operations, Budget::default()).verdict;
            let plain = check(&Plain(object.model), &object.operations, Budget::default()).verdict;
            let quick = matches!(quick, Linearizability::Linearizable { .. });
            match plain {
                Linearizability::Unknown { .. } => continue,
                Linearizability::Linearizable { .. } => explained += 1,
                Linearizability::Violated(_) => impossible += 1,
            }
            let plain = matches!(plain, Linearizability::Linearizable { .. });
            assert_eq!(quick, plain, "seed {seed}, {}: {:#?}", object.name, object.operations);
        }
    }
    assert!(explained > 500 && impossible > 200, "{explained} explained, {impossible} impossible");
}

/// Appends one after the other, all to one stream, and whether their answers can be explained.
fn one_after_the_other(appends: &[(Append, Reply)]) -> bool {
    let mut history = crate::check::api::History::new();
    let at = quorate_foundations::time::Mono::from_nanos;
    for (append, reply) in appends {
        let id = history.invoke(crate::check::history::ClientId(0), Call::Append(append.clone()), at(0));
        history.ok(id, reply.clone(), at(0));
    }
    crate::check::stream::expected_versions(&history).holds()
}

fn sending(expected: Expected, ids: &[&str]) -> Append {
    let events = ids.iter().map(|id| crate::check::api::SentEvent::new(*id, 0)).collect();
    Append::to("s", expected, events)
}

#[test]
fn a_repeat_gets_its_first_answer_though_the_stream_has_moved_on() {
    let first = (sending(Expected::NoStream, &["a"]), Reply::appended(1));
    let second = (sending(Expected::Any, &["b"]), Reply::appended(2));
    assert!(one_after_the_other(&[first.clone(), second.clone(), first.clone()]));
    let refused = (first.0.clone(), Reply::WrongVersion { actual: Some(2) });
    assert!(!one_after_the_other(&[first.clone(), second.clone(), refused]), "known ids are looked at first");
    let again = (first.0.clone(), Reply::appended(3));
    assert!(!one_after_the_other(&[first, second, again]));
}

#[test]
fn a_batch_known_from_several_appends_is_answered_with_the_newest() {
    let parts = ["a", "x", "b"].map(|id| sending(Expected::Any, &[id])).into_iter().zip((1..).map(Reply::appended));
    let mut appends: Vec<_> = parts.collect();
    appends.push((sending(Expected::Any, &["b", "a"]), Reply::appended(3)));
    assert!(one_after_the_other(&appends));
    appends.push((sending(Expected::Any, &["a", "x"]), Reply::appended(3)));
    assert!(!one_after_the_other(&appends));
}

#[test]
fn a_batch_half_known_or_an_id_with_other_content_is_a_conflict() {
    let first = (sending(Expected::Any, &["a"]), Reply::appended(1));
    let half = sending(Expected::Any, &["a", "b"]);
    assert!(one_after_the_other(&[first.clone(), (half.clone(), Reply::IdConflict)]));
    assert!(!one_after_the_other(&[first.clone(), (half, Reply::appended(2))]));
    let mut changed = first.0.clone();
    changed.parts[0].events[0].content = 1;
    assert!(one_after_the_other(&[first.clone(), (changed.clone(), Reply::IdConflict)]));
    assert!(!one_after_the_other(&[first.clone(), (changed, Reply::appended(1))]));
    assert!(!one_after_the_other(&[first.clone(), (first.0, Reply::IdConflict)]));
}

#[test]
fn a_refusal_kept_under_a_key_may_be_out_of_date() {
    let key = |append: Append| append.with_key("k");
    let early = (key(sending(Expected::Exact(1), &["b"])), Reply::WrongVersion { actual: Some(0) });
    let first = (sending(Expected::Any, &["a"]), Reply::appended(1));
    assert!(one_after_the_other(&[early.clone(), first.clone(), early.clone()]));
    assert!(!one_after_the_other(&[first, early]), "the first time it has to be true");
}
