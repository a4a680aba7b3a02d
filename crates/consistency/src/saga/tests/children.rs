//! Steps that are sagas of their own, while nothing dies.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::world::{Gate, PATIENCE, World, behind, effects, failing, hasty, local, name, settled, until};
use crate::saga::{
    Action, Awaited, Awaiting, Child, Config, Definition, Direction, Failure, Journal, Leg, Next, Operation, Progress,
    SagaError, Sagas, Search, State, Status, Step, Verb,
};

pub(super) fn undone(step: &str) -> Step {
    Step::new(step, local()).compensated_by(local())
}

/// Two steps that can be undone.
pub(super) fn payment() -> Definition {
    Definition::new(name("payment"), 1).step(undone("hold")).step(undone("take"))
}

pub(super) fn pays() -> Step {
    Step::new("pay", Action::child(Child::of(name("payment"))))
}

pub(super) fn order() -> Definition {
    Definition::new(name("order"), 1).step(undone("reserve")).step(pays())
}

pub(super) async fn defined(
    world: &World,
    all: impl IntoIterator<Item = Definition>,
) -> (quorate_data::store::Store, Sagas) {
    let store = world.store().await;
    let sagas = Sagas::open(&store, Config::default()).await.unwrap();
    for definition in all {
        sagas.define(definition).await.unwrap();
    }
    (store, sagas)
}

/// The id of the saga that a step of an order started.
pub(super) async fn child_of(sagas: &Sagas, step: &str) -> Arc<str> {
    let journal = sagas.get(&name("order"), "1").await.unwrap().journal;
    journal.step(step).unwrap().forward.child.clone().unwrap().id.clone()
}

/// What has an effect, without whose it was.
pub(super) async fn words(store: &quorate_data::store::Store) -> Vec<String> {
    effects(store).await.iter().map(|effect| effect.split(' ').next_back().unwrap().to_owned()).collect()
}

pub(super) async fn operate(sagas: &Sagas, saga: &str, id: &str, verb: Verb) -> Result<(), SagaError> {
    let operation = Operation { verb, step: None, by: "ada".into(), note: "so be it".to_owned(), output: Value::Null };
    sagas.operate(&name(saga), id, operation).await.map(drop)
}

pub(super) async fn until_status(sagas: &Sagas, saga: &str, id: &str, wanted: Status) {
    while sagas.get(&name(saga), id).await.unwrap().journal.status() != wanted {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_step_that_is_a_saga_ends_with_it_and_has_its_output() {
    let world = World::of_this_machine();
    let plan = |journal: &Journal| match journal.is_done("hold") {
        true => Next::Done(json!({ "paid": journal.input })),
        false => Next::steps(["hold"]),
    };
    let pay = Child::of(name("payment")).input(|call| Ok(json!(call.input::<u64>()? + 1)));
    let order = Definition::new(name("order"), 1).step(undone("reserve")).step(Step::new("pay", Action::child(pay)));
    let (store, sagas) = defined(&world, [payment().plan(plan), order]).await;
    sagas.start(&name("order"), "1", 17, Some("ada")).await.unwrap();
    let ended = settled(&sagas, "order", "1").await;
    assert_eq!(ended.journal.status(), Status::Completed, "{:?}", ended.journal);
    assert_eq!(ended.journal.output("pay"), Some(&json!({ "paid": 18 })));
    assert_eq!(words(&store).await, ["reserve", "hold"]);

    let id = child_of(&sagas, "pay").await;
    assert!(id.starts_with("1.pay."), "people know it again: {id}");
    let child = sagas.get(&name("payment"), &id).await.unwrap().journal;
    let parent = child.parent.as_deref().unwrap();
    assert_eq!((&*parent.id, &*parent.step, parent.depth, child.key.as_deref()), ("1", "pay", 1, Some("ada")));
    let [shown] = &ended.children[..] else { panic!("{:?}", ended.children) };
    assert_eq!((&shown.id, shown.status), (&id, Status::Completed));
    let of = |id: &str| Search { parent: Some((name("order"), id.into())), limit: 9, ..Search::default() };
    let found = sagas.list(of("1")).await.unwrap();
    assert_eq!((found.len(), found[0].parent.as_ref().map(|above| &*above.step)), (1, Some("pay")));
    assert!(sagas.list(of("2")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_saga_that_is_compensated_has_its_step_refused() {
    let world = World::of_this_machine();
    let payment = Definition::new(name("payment"), 1)
        .step(undone("hold"))
        .step(hasty(Step::new("take", failing(Failure::refused("no money")))));
    let (store, sagas) = defined(&world, [payment, order()]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let ended = settled(&sagas, "order", "1").await.journal;
    assert_eq!((ended.status(), ended.is_refused("pay")), (Status::Compensated, true));
    assert!(ended.abort.as_ref().unwrap().contains("no money"), "{:?}", ended.abort);
    assert_eq!(words(&store).await, ["reserve", "hold", "-hold", "-reserve"]);
}

#[tokio::test]
async fn what_a_saga_of_a_step_did_is_undone_backwards_with_the_step() {
    let world = World::of_this_machine();
    let order = order().step(Step::new("ship", failing(Failure::refused("no parcel"))));
    let (store, sagas) = defined(&world, [payment(), order]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let ended = settled(&sagas, "order", "1").await;
    assert_eq!(ended.journal.status(), Status::Compensated, "{:?}", ended.journal);
    assert_eq!(words(&store).await, ["reserve", "hold", "take", "-take", "-hold", "-reserve"]);
    assert_eq!(ended.children[0].status, Status::Compensated);
    let id = child_of(&sagas, "pay").await;
    let child = sagas.get(&name("payment"), &id).await.unwrap().journal;
    assert!(child.abort.as_ref().unwrap().contains("saga `order` `1`"), "{:?}", child.abort);
}

#[tokio::test]
async fn a_step_with_a_compensation_of_its_own_leaves_its_saga_as_it_is() {
    let world = World::of_this_machine();
    let order = Definition::new(name("order"), 1)
        .step(pays().compensated_by(local()))
        .step(Step::new("ship", failing(Failure::refused("no parcel"))));
    let (store, sagas) = defined(&world, [payment(), order]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let ended = settled(&sagas, "order", "1").await;
    assert_eq!((ended.journal.status(), ended.children[0].status), (Status::Compensated, Status::Completed));
    assert_eq!(words(&store).await, ["hold", "take", "-pay"]);
}

#[tokio::test]
async fn what_makes_up_for_a_step_may_be_a_saga() {
    let world = World::of_this_machine();
    let refund = Definition::new(name("refund"), 1).step(undone("tell")).step(undone("give"));
    let order = Definition::new(name("order"), 1)
        .step(Step::new("pay", local()).compensated_by(Action::child(Child::of(name("refund")))))
        .step(Step::new("ship", failing(Failure::refused("no parcel"))));
    let (store, sagas) = defined(&world, [refund, order]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let ended = settled(&sagas, "order", "1").await;
    assert_eq!((ended.journal.status(), ended.children[0].status), (Status::Compensated, Status::Completed));
    assert_eq!(words(&store).await, ["pay", "tell", "give"]);
}

#[tokio::test]
async fn a_saga_past_its_pivot_is_not_undone_and_somebody_decides() {
    let world = World::of_this_machine();
    let payment = Definition::new(name("payment"), 1).step(undone("hold")).step(Step::new("take", local()).pivot());
    let order = order().step(Step::new("ship", failing(Failure::refused("no parcel"))));
    let (store, sagas) = defined(&world, [payment, order]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let stuck = settled(&sagas, "order", "1").await;
    assert_eq!(stuck.journal.stuck_legs().next(), Some(Leg::compensation("pay")));
    assert!(stuck.journal.why_stuck().unwrap().contains("past its pivot"), "{:?}", stuck.journal.why_stuck());
    assert_eq!(stuck.children[0].status, Status::Completed, "it is left alone");
    operate(&sagas, "order", "1", Verb::MarkCompensated).await.unwrap();
    assert_eq!(settled(&sagas, "order", "1").await.journal.status(), Status::Compensated);
    assert_eq!(words(&store).await, ["reserve", "hold", "take", "-reserve"]);
}

#[tokio::test]
async fn an_abort_reaches_the_saga_of_a_step_and_nothing_is_undone_while_its_call_runs() {
    let world = World::of_this_machine();
    let gate = Gate::closed();
    let slow = hasty(Step::new("take", behind(&gate)).compensated_by(local()));
    let payment = Definition::new(name("payment"), 1).step(undone("hold")).step(slow).step(undone("never"));
    let (store, sagas) = defined(&world, [payment, order()]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let id = child_of(&sagas, "pay").await;
    until(|| sagas.counts().calls == 1).await;
    sagas.abort(&name("order"), "1", "ada", "never mind").await.unwrap();
    until_status(&sagas, "payment", &id, Status::Compensating).await;
    until_status(&sagas, "order", "1", Status::Compensating).await;
    let waits = sagas.get(&name("order"), "1").await.unwrap().waiting;
    assert!(matches!(&waits[..], [Awaited { what: Awaiting::Child(..), .. }]), "{waits:?}");
    assert_eq!(words(&store).await, ["reserve", "hold"], "its call may still have its effect");
    gate.open();
    assert_eq!(settled(&sagas, "order", "1").await.journal.status(), Status::Compensated);
    assert_eq!(words(&store).await, ["reserve", "hold", "-take", "-hold", "-reserve"]);
}

#[tokio::test]
async fn a_saga_goes_on_beside_a_pivot_that_is_on_its_way_and_ahead_with_it() {
    let world = World::of_this_machine();
    let (sale, payment_taken) = (Gate::closed(), Gate::closed());
    let payment = Definition::new(name("payment"), 1).step(Step::new("take", behind(&payment_taken)));
    let both = |journal: &Journal| match journal.is_done("sell") && journal.is_done("pay") {
        true => Next::Done(Value::Null),
        false => Next::steps(["sell", "pay"]),
    };
    let order =
        Definition::new(name("order"), 1).step(Step::new("sell", behind(&sale)).pivot()).step(pays()).plan(both);
    let (_store, sagas) = defined(&world, [payment, order]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    until(|| sagas.counts().calls == 2).await;
    let id = child_of(&sagas, "pay").await;
    assert!(sagas.abort(&name("order"), "1", "ada", "never mind").await.unwrap().abort.is_some());
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sagas.get(&name("payment"), &id).await.unwrap().journal.abort, None, "the sale may be done");
    sale.open();
    while !sagas.get(&name("order"), "1").await.unwrap().journal.is_done("sell") {
        tokio::task::yield_now().await;
    }
    payment_taken.open();
    assert_eq!(settled(&sagas, "order", "1").await.journal.status(), Status::Completed);
}

#[tokio::test]
async fn a_saga_waits_visibly_for_a_stuck_one_and_its_deadline_reaches_that() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let world = World::new();
    let plan = |journal: &Journal| match journal.is_done("hold") {
        true => Next::Stuck("nobody knows".to_owned()),
        false => Next::steps(["hold"]),
    };
    let (store, sagas) = defined(&world, [payment().plan(plan), order().deadline(HOUR)]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let id = child_of(&sagas, "pay").await;
    until_status(&sagas, "payment", &id, Status::Stuck).await;
    let waits = sagas.get(&name("order"), "1").await.unwrap();
    assert_eq!((waits.journal.status(), waits.children[0].status), (Status::Running, Status::Stuck));
    let is_for =
        |one: &Awaited| matches!(&one.what, Awaiting::Child(leg, child) if &*leg.step == "pay" && child.id == id);
    assert!(waits.waiting.iter().any(is_for), "{:?}", waits.waiting);
    world.pass(HOUR);
    until_status(&sagas, "order", "1", Status::Compensated).await;
    assert_eq!(words(&store).await, ["reserve", "hold", "-hold", "-reserve"]);
}

#[tokio::test]
async fn what_a_saga_came_to_that_was_forced_nobody_knows_and_it_is_not_started_again() {
    let world = World::of_this_machine();
    let plan = |_: &Journal| Next::Stuck("nobody knows".to_owned());
    let (store, sagas) = defined(&world, [payment().plan(plan), order()]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let id = child_of(&sagas, "pay").await;
    until_status(&sagas, "payment", &id, Status::Stuck).await;
    operate(&sagas, "payment", &id, Verb::Force).await.unwrap();
    let stuck = settled(&sagas, "order", "1").await;
    assert_eq!(stuck.journal.stuck_legs().next(), Some(Leg::compensation("pay")), "{:?}", stuck.journal);
    assert_eq!((stuck.journal.step("pay").unwrap().forward.attempts, stuck.children.len()), (1, 1));
    operate(&sagas, "order", "1", Verb::MarkCompensated).await.unwrap();
    assert_eq!(settled(&sagas, "order", "1").await.journal.status(), Status::Compensated);
    assert_eq!(words(&store).await, ["reserve", "-reserve"]);
}

#[tokio::test]
async fn a_stuck_step_that_is_tried_again_is_another_saga() {
    let world = World::of_this_machine();
    let payment = Definition::new(name("payment"), 1).step(Step::new("hold", failing(Failure::refused("no money"))));
    let order = Definition::new(name("order"), 1)
        .step(Step::new("sell", local()).pivot())
        .step(hasty_child(Step::new("pay", Action::child(Child::of(name("payment")).version(1))).retriable()));
    let (store, sagas) = defined(&world, [payment, order]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let stuck = settled(&sagas, "order", "1").await;
    assert_eq!(stuck.journal.stuck_legs().next(), Some(Leg::forward("pay")));
    operate(&sagas, "order", "1", Verb::Retry).await.unwrap();
    while sagas.get(&name("order"), "1").await.unwrap().children.len() < 2 {
        tokio::task::yield_now().await;
    }
    let stuck = settled(&sagas, "order", "1").await;
    assert!(stuck.children.iter().all(|child| child.status == Status::Compensated), "{:?}", stuck.children);
    assert_eq!(words(&store).await, ["sell"]);
}

#[tokio::test]
async fn a_saga_that_starts_itself_without_end_is_refused_at_some_depth_and_all_of_it_is_undone() {
    let world = World::of_this_machine();
    let again = Step::new("again", Action::child(Child::of(name("order"))));
    let (store, sagas) = defined(&world, [Definition::new(name("order"), 1).step(undone("a")).step(again)]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let ended = settled(&sagas, "order", "1").await.journal;
    assert_eq!(ended.status(), Status::Compensated);
    assert!(ended.abort.as_ref().unwrap().contains("may have 8"), "{:?}", ended.abort);
    let done = words(&store).await;
    let deep = 1 + Child::MAX_DEPTH as usize;
    let count = |word: &str| done.iter().filter(|one| *one == word).count();
    assert_eq!((count("a"), count("-a")), (deep, deep));
}

#[tokio::test]
async fn a_saga_of_that_id_which_the_step_did_not_start_has_it_refused() {
    let world = World::of_this_machine();
    let (store, sagas) = defined(&world, [payment(), order()]).await;
    // What an order of another store would start is known beforehand.
    let elsewhere = World::of_this_machine();
    let (_other, others) = defined(&elsewhere, [payment(), order()]).await;
    others.start(&name("order"), "1", (), None).await.unwrap();
    let id = child_of(&others, "pay").await;
    sagas.start(&name("payment"), &id, "a stranger's", None).await.unwrap();
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let ended = settled(&sagas, "order", "1").await.journal;
    assert_eq!((ended.status(), ended.is_refused("pay")), (Status::Compensated, true));
    assert!(ended.abort.as_ref().unwrap().contains("did not start it"), "{:?}", ended.abort);
    assert_eq!(words(&store).await, ["hold", "take", "reserve", "-reserve"], "the stranger's is left alone");
}

/// The step that pays, once it was tried so often.
async fn until_attempt(sagas: &Sagas, attempt: u32) -> Progress {
    loop {
        let journal = sagas.get(&name("order"), "1").await.unwrap().journal;
        let pay = &journal.step("pay").unwrap().forward;
        if pay.attempts == attempt {
            return pay.clone();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_saga_that_nobody_knows_yet_is_waited_for_and_the_newest_is_not_replaced_by_an_older_one() {
    let world = World::new();
    let (store, sagas) = defined(&world, [Definition::new(name("order"), 1).step(pays())]).await;
    sagas.withhold(&name("payment"), 1);
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    // However often it is tried: that is no failure of the order.
    const LONGEST: Duration = Duration::from_secs(80);
    for attempt in 1..20 {
        let pay = until_attempt(&sagas, attempt).await;
        assert_eq!(pay.state, State::Resting, "{pay:?}");
        assert!(matches!(&pay.failure, Some(Failure::Held(why)) if why.contains("can be started here")), "{pay:?}");
        world.pass(LONGEST);
    }
    until_attempt(&sagas, 20).await;
    sagas.define(payment()).await.unwrap();
    sagas.define(Definition::new(name("payment"), 2).step(undone("second"))).await.unwrap();
    world.pass(LONGEST);
    assert_eq!(settled(&sagas, "order", "1").await.journal.status(), Status::Completed);
    assert_eq!(words(&store).await, ["second"]);
}

/// Tried again and again, without a quiet time.
fn hasty_child(step: Step) -> Step {
    let backoff = quorate_resilience::retry::Backoff {
        base: Duration::from_millis(1),
        cap: Duration::from_millis(5),
        ..Default::default()
    };
    step.backoff(backoff).attempts(1_000_000, 1_000_000)
}

#[tokio::test]
async fn what_a_saga_of_a_step_needs_to_be_undone_is_kept_while_the_one_above_is_open() {
    let world = World::of_this_machine();
    let plan = |journal: &Journal| match journal.signal("go") {
        _ if !journal.is_done("pay") => Next::steps(["pay"]),
        Some(_) => Next::Done(Value::Null),
        None => Next::signal("go"),
    };
    let (_store, sagas) = defined(&world, [payment(), Definition::new(name("order"), 1).step(pays()).plan(plan)]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let id = child_of(&sagas, "pay").await;
    assert_eq!(settled(&sagas, "payment", &id).await.journal.status(), Status::Completed);
    let stream = name(&format!("saga-payment:{id}"));
    assert_eq!(sagas.owner(&stream).await.unwrap(), Some(Status::Running), "the order's");
    sagas.signal(&name("order"), "1", "s", "go", ()).await.unwrap();
    let ended = sagas.settled(&name("order"), "1", PATIENCE).await.unwrap();
    assert_eq!(ended.journal.status(), Status::Completed);
    assert_eq!(sagas.owner(&stream).await.unwrap(), Some(Status::Completed));
}

#[test]
fn what_cannot_be_said_of_a_step_that_is_a_saga_is_refused() {
    let wrong = |step: Step| Definition::new(name("order"), 1).step(step).check().unwrap_err().to_string();
    assert!(wrong(pays().time(Duration::from_secs(1))).contains("neither time nor quiet time"));
    assert!(wrong(Step::new("a", local()).compensated_by(Action::Undo)).contains("starts none"));
    assert!(wrong(Step::new("a", Action::Undo)).contains("starts none"));
    Definition::new(name("order"), 1).step(pays().pivot()).check().unwrap();
}

#[test]
fn every_course_of_a_saga_that_starts_others_ends_as_it_should() {
    use crate::saga::courses::{Fault, Participants, courses};
    let remote = || Action::remote(|_| async { Ok(Value::Null) });
    let plain = |step: &str| Step::new(step, remote()).compensated_by(remote());
    let child = |step: &str| Step::new(step, Action::child(Child::of(name("payment"))));
    let ends = [
        Definition::new(name("order"), 1).step(plain("a")).step(child("pay")).step(plain("b")),
        Definition::new(name("order"), 1).parallel([plain("a"), child("pay"), child("pack")]).step(plain("b")),
        Definition::new(name("order"), 1)
            .step(child("pay"))
            .step(child("sell").pivot())
            .step(child("send").retriable()),
        Definition::new(name("order"), 1).step(plain("a")).step(child("pay")).deadline(Duration::from_secs(60)),
    ];
    for definition in ends {
        definition.check().unwrap();
        let all = courses(&definition, &Participants::default());
        let wrong: Vec<_> = all.iter().filter(|course| !course.wrong.is_empty()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        let of = |fault| {
            all.iter().any(|course| matches!(&course.fault, Some((leg, known)) if *known == fault && &*leg.step == "pay" && leg.direction == Direction::Forward))
        };
        assert!(Fault::ALL.into_iter().all(of));
    }
}
