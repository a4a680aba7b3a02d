//! What happens when several want something at once, or the same thing again.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{join, join_all},
};
use serde_json::{Value, json};

use super::world::{Gate, World, behind, effects, failing, hasty, local, name, settled, status, until};
use crate::saga::{
    Action, Config, Definition, Failure, Journal, Next, Operation, Refusal, SagaError, Sagas, Status, Step, Verb,
};

/// Waits for the signal `go`, and ends with what it says.
fn waits_for_go(version: u32) -> Definition {
    let plan = |journal: &Journal| journal.signal("go").map_or(Next::signal("go"), |said| Next::Done(said.clone()));
    Definition::new(name("order"), version).step(Step::new("a", local())).plan(plan)
}

fn is_unfit(answer: &Result<Arc<Journal>, SagaError>) -> bool {
    matches!(answer, Err(SagaError::Refused { cause: Refusal::Unfit { .. }, .. }))
}

#[tokio::test]
async fn so_many_calls_are_under_way_at_once_and_whoever_came_first_goes_first() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let (gate, made, most) = (Gate::closed(), Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicUsize>::default());
    let (at, order, high) = (gate.clone(), made.clone(), most.clone());
    let now = Arc::new(AtomicUsize::new(0));
    let call = Action::remote(move |call| {
        let (at, order, high, now) = (at.clone(), order.clone(), high.clone(), now.clone());
        async move {
            order.lock().unwrap().push(call.id.to_string());
            high.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            at.pass().await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(Value::Null)
        }
    });
    let sagas = Sagas::open(&store, Config { max_calls: 3, ..Config::default() }).await.unwrap();
    sagas.define(Definition::new(name("order"), 1).step(Step::new("call", call))).await.unwrap();
    for id in 0..10 {
        sagas.start(&name("order"), &id.to_string(), (), None).await.unwrap();
    }
    until(|| sagas.counts().waiting == 7).await;
    until(|| made.lock().unwrap().len() == 3).await;
    let counts = sagas.counts();
    assert_eq!((counts.calling, counts.calls), (3, 3), "what waits is not made yet");
    gate.open();
    for id in 0..10 {
        assert_eq!(status(&sagas, "order", &id.to_string()).await, Status::Completed);
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(*made.lock().unwrap(), (0..10).map(|id| id.to_string()).collect::<Vec<_>>());
    until(|| sagas.counts().calling == 0).await;
    assert_eq!(sagas.counts().waiting, 0);
    for max_calls in [0, 65_537] {
        assert!(Config { max_calls, ..Config::default() }.check().is_err());
    }
}

#[tokio::test]
async fn a_recorded_attempt_that_was_never_made_is_made_by_the_next_process() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let blocks = Action::remote(|_| std::future::pending());
    let calls = Arc::new(Mutex::new(Vec::new()));
    let called = calls.clone();
    let call = Action::remote(move |call| {
        called.lock().unwrap().push((call.key(), call.attempt));
        async { Ok(Value::Null) }
    });
    let order = Definition::new(name("order"), 1).step(hasty(Step::new("call", call)));
    let sagas = Sagas::open(&store, Config { max_calls: 1, ..Config::default() }).await.unwrap();
    sagas.define(Definition::new(name("blocks"), 1).step(Step::new("call", blocks))).await.unwrap();
    sagas.define(order.clone()).await.unwrap();
    sagas.start(&name("blocks"), "1", (), None).await.unwrap();
    until(|| sagas.counts().calling == 1).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    until(|| sagas.counts().waiting == 1).await;
    store.close().await.unwrap();
    drop(sagas);
    assert!(calls.lock().unwrap().is_empty());
    // The other one is of a definition that nobody has here.
    let (_store, sagas) = world.sagas(order).await;
    assert_eq!(status(&sagas, "order", "1").await, Status::Completed);
    assert_eq!(*calls.lock().unwrap(), [("order/1/call/forward".to_owned(), 2)]);
}

#[tokio::test]
async fn a_call_that_waits_for_its_place_is_not_made_once_its_runner_is_gone() {
    let world = World::new();
    let store = world.store().await;
    let (gate, calls) = (Gate::closed(), Arc::new(AtomicUsize::new(0)));
    let counted = calls.clone();
    let call = Action::remote(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(Value::Null) }
    });
    let sagas = Sagas::open(&store, Config { max_calls: 1, ..Config::default() }).await.unwrap();
    sagas.define(Definition::new(name("blocks"), 1).step(Step::new("call", behind(&gate)))).await.unwrap();
    let step = hasty(Step::new("call", call)).attempts(1, 1).compensated_by(local());
    sagas.define(Definition::new(name("order"), 1).step(step)).await.unwrap();
    sagas.start(&name("blocks"), "1", (), None).await.unwrap();
    until(|| sagas.counts().calling == 1).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    until(|| sagas.counts().waiting == 1).await;
    world.tear();
    assert!(sagas.signal(&name("order"), "1", "s", "look", ()).now_or_never().is_none());
    until(|| sagas.counts().troubled == 1 && sagas.counts().open == 1).await;
    // The next runner gives the attempt up, and makes up for it.
    assert!(sagas.start(&name("order"), "1", (), None).await.unwrap().repeated);
    assert_eq!(status(&sagas, "order", "1").await, Status::Compensated);
    assert_eq!(effects(&store).await, ["1 -call"]);
    gate.open();
    assert_eq!(status(&sagas, "blocks", "1").await, Status::Completed);
    until(|| sagas.counts().waiting == 0 && sagas.counts().calling == 0).await;
    assert_eq!((calls.load(Ordering::SeqCst), sagas.counts().calls), (0, 1), "made behind its compensation");
}

#[tokio::test]
async fn a_repeated_start_runs_a_saga_again_whose_runner_panicked() {
    let world = World::new();
    let gate = Gate::closed();
    let step = hasty(Step::new("call", behind(&gate)));
    let (_store, sagas) = world.sagas(Definition::new(name("order"), 1).step(step)).await;
    let start = || {
        let sagas = sagas.clone();
        async move { sagas.start(&name("order"), "1", 7, None).await.unwrap().repeated }
    };
    assert!(!start().await);
    until(|| sagas.counts().calling == 1).await;
    world.tear();
    gate.open();
    until(|| sagas.counts().troubled == 1 && sagas.counts().open == 0).await;
    assert!(start().await);
    assert_eq!(sagas.counts().open, 1, "nobody runs it");
    assert_eq!(status(&sagas, "order", "1").await, Status::Completed);
    until(|| sagas.counts().open == 0).await;
    // One that has ended stays so, and is not counted again.
    assert!(start().await);
    until(|| sagas.counts().open == 0).await;
    assert_eq!((sagas.counts().completed, sagas.counts().troubled), (1, 0));
}

#[tokio::test]
async fn a_definition_whose_caller_went_away_can_be_defined_again_and_its_sagas_go_on() {
    // Its first poll asks the store, which nearly always answers another time; where it is quicker, it is tried with another one.
    for _ in 0..20 {
        let world = World::of_this_machine();
        let (store, sagas) = world.sagas(waits_for_go(1)).await;
        sagas.start(&name("order"), "1", (), None).await.unwrap();
        store.close().await.unwrap();
        drop(sagas);
        let store = world.store().await;
        let sagas = Sagas::open(&store, Config::default()).await.unwrap();
        if sagas.define(waits_for_go(1)).now_or_never().is_some() {
            continue;
        }
        assert_eq!(sagas.definitions(), [], "what was not defined to the end cannot be started");
        assert!(sagas.get(&name("order"), "1").await.unwrap().stalled);
        sagas.define(waits_for_go(1)).await.unwrap();
        sagas.signal(&name("order"), "1", "s", "go", 7).await.unwrap();
        assert_eq!(settled(&sagas, "order", "1").await.journal.output, json!(7));
        return;
    }
    panic!("nobody ever goes away before the store has answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_decide_under_one_signal_one_is_heard_and_the_other_learns_of_it() {
    for round in 0..20 {
        let world = World::of_this_machine();
        let (store, sagas) = world.sagas(waits_for_go(1)).await;
        sagas.start(&name("order"), "1", (), None).await.unwrap();
        let (order, tell) = (name("order"), |data: u32| {
            let sagas = sagas.clone();
            async move { sagas.signal(&name("order"), "1", "decision", "go", data).await }
        });
        let (yes, no) = join(tell(1), tell(2)).await;
        // Whether the saga has ended by then or not, whoever came second is told that his word does not count.
        let (heard, other) = match (&yes, &no) {
            (Ok(_), Err(other)) => (1, other),
            (Err(other), Ok(_)) => (2, other),
            both => panic!("round {round}: {both:?}"),
        };
        assert!(matches!(other, SagaError::Refused { cause: Refusal::Unfit { .. }, .. }), "{other:?}");
        let ended = settled(&sagas, "order", "1").await.journal;
        assert_eq!((ended.signals.len(), &ended.output), (1, &json!(heard)));
        // Whoever says the same again is answered as before; whoever says something else is not.
        sagas.signal(&order, "1", "decision", "go", heard).await.unwrap();
        let late = sagas.signal(&order, "1", "decision", "go", 3 - heard).await;
        assert!(is_unfit(&late), "{late:?}");
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_decide_about_a_stuck_step_one_is_refused() {
    for _ in 0..20 {
        let world = World::of_this_machine();
        let stuck = hasty(Step::new("after", failing(Failure::refused("no")))).retriable();
        let definition = Definition::new(name("order"), 1).step(Step::new("pivot", local()).pivot()).step(stuck);
        let (store, sagas) = world.sagas(definition).await;
        sagas.start(&name("order"), "1", (), None).await.unwrap();
        assert_eq!(status(&sagas, "order", "1").await, Status::Stuck);
        let decide = |by: &str| {
            let (step, by, note) = (Some("after".into()), by.into(), String::new());
            let operation = Operation { verb: Verb::Skip, step, by, note, output: Value::Null };
            let sagas = sagas.clone();
            async move { sagas.operate(&name("order"), "1", operation).await }
        };
        let (ada, bob) = join(decide("ada"), decide("bob")).await;
        assert_eq!([&ada, &bob].iter().filter(|decided| decided.is_ok()).count(), 1, "{ada:?} {bob:?}");
        assert_eq!(status(&sagas, "order", "1").await, Status::Completed);
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_says_something_else_is_refused_whether_its_saga_begins_runs_or_has_ended() {
    let world = World::of_this_machine();
    let (store, sagas) = world.sagas(waits_for_go(1)).await;
    let start = |id: &'static str, input: u32, key: &'static str| {
        let sagas = sagas.clone();
        async move { sagas.start(&name("order"), id, input, Some(key)).await }
    };
    for id in ["a", "b", "c", "d"] {
        let both = join_all([start(id, 1, "k"), start(id, 2, "k")]).await;
        let (won, lost): (Vec<_>, Vec<_>) = both.into_iter().partition(Result::is_ok);
        assert!(matches!(lost[..], [Err(SagaError::IdReused { .. })]), "{lost:?}");
        assert!(matches!(&won[..], [Ok(started)] if !started.repeated));
    }
    start("1", 1, "k").await.unwrap();
    let known = start("1", 1, "another key").await.unwrap();
    assert_eq!((known.repeated, known.journal.key.as_deref()), (true, Some("k")), "under the key that it has");
    assert!(matches!(start("1", 2, "k").await, Err(SagaError::IdReused { .. })));
    sagas.signal(&name("order"), "1", "s", "go", ()).await.unwrap();
    assert_eq!(status(&sagas, "order", "1").await, Status::Completed);
    assert!(matches!(start("1", 2, "k").await, Err(SagaError::IdReused { .. })), "for ever");
    store.close().await.unwrap();
    drop(sagas);
    let (store, sagas) = world.sagas(waits_for_go(1)).await;
    let again = |input: u32| {
        let sagas = sagas.clone();
        async move { sagas.start(&name("order"), "1", input, None).await }
    };
    assert!(matches!(again(2).await, Err(SagaError::IdReused { .. })), "for the next process too");
    assert!(again(1).await.unwrap().repeated);
    assert!(effects(&store).await.is_empty());
}

#[tokio::test]
async fn what_is_waited_for_over_a_restart_is_a_signal_or_a_timer_and_is_waited_for_again() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let waits = || {
        let plan = |journal: &Journal| match (journal.signal("go"), journal.has_fired("patience")) {
            _ if !journal.is_done("a") => Next::steps(["a"]),
            (Some(said), _) => Next::Done(said.clone()),
            (None, true) => Next::Abort("nobody said go".to_owned()),
            (None, false) => Next::signal_at_most("go", "patience", HOUR),
        };
        let step = Step::new("a", local()).compensated_by(local());
        Definition::new(name("order"), 1).step(step).plan(plan)
    };
    let world = World::new();
    let (store, sagas) = world.sagas(waits()).await;
    for id in ["told", "alone"] {
        sagas.start(&name("order"), id, (), None).await.unwrap();
    }
    store.close().await.unwrap();
    drop(sagas);
    world.pass(HOUR / 2);
    let (store, sagas) = world.sagas(waits()).await;
    sagas.signal(&name("order"), "told", "s", "go", 7).await.unwrap();
    assert_eq!(sagas.get(&name("order"), "told").await.unwrap().journal.output, json!(7));
    let waiting = sagas.signal(&name("order"), "alone", "s", "something else", ()).await.unwrap();
    assert_eq!(waiting.status(), Status::Running, "half of its time is left");
    world.pass(HOUR);
    until(|| sagas.counts().open == 0).await;
    let alone = sagas.get(&name("order"), "alone").await.unwrap().journal;
    assert_eq!((alone.status(), alone.abort.as_deref()), (Status::Compensated, Some("nobody said go")));
    assert_eq!(effects(&store).await, ["told a", "alone a", "alone -a"]);
}
