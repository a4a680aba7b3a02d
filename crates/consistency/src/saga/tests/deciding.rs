//! Sagas that are stuck, and what operators decide.

use quorate_data::store::ReadStream;
use serde_json::{Value, json};

use super::world::{World, effects, failing, hasty, local, name, settled, status};
use crate::saga::{Action, Definition, Failure, Operation, Refusal, SagaError, Sagas, Search, Status, Step, Verb};

pub(super) fn operation(verb: Verb, step: Option<&str>) -> Operation {
    Operation { verb, step: step.map(Into::into), by: "ada".into(), note: "ticket 17".into(), output: Value::Null }
}

/// `a` is done; `b` is done and cannot be made up for; `c` is refused.
fn stuck_on_the_way_back() -> Definition {
    let b = Step::new("b", local()).compensated_by(failing(Failure::transient("out of order"))).attempts(1, 2);
    Definition::new(name("order"), 1)
        .step(Step::new("a", local()).compensated_by(local()))
        .step(hasty(b))
        .step(Step::new("c", failing(Failure::refused("sold out"))))
}

async fn decide(sagas: &Sagas, operation: Operation) -> Result<(), SagaError> {
    sagas.operate(&name("order"), "1", operation).await.map(drop)
}

#[tokio::test]
async fn a_compensation_that_fails_for_good_is_stuck_until_somebody_decides_and_that_is_written_down() {
    for verb in [Verb::Skip, Verb::MarkCompensated] {
        let world = World::of_this_machine();
        let (store, sagas) = world.sagas(stuck_on_the_way_back()).await;
        sagas.start(&name("order"), "1", (), None).await.unwrap();
        let stuck = settled(&sagas, "order", "1").await;
        assert_eq!(stuck.journal.status(), Status::Stuck);
        let found = sagas.list(Search { status: Some(Status::Stuck), limit: 9, ..Search::default() }).await.unwrap();
        assert_eq!(found.len(), 1, "it shows");
        let wrong = decide(&sagas, operation(verb, Some("a"))).await;
        assert!(matches!(wrong, Err(SagaError::Refused { cause: Refusal::Unfit { .. }, .. })));
        decide(&sagas, operation(verb, Some("b"))).await.unwrap();
        assert_eq!(status(&sagas, "order", "1").await, Status::Compensated);
        assert_eq!(effects(&store).await, ["1 a", "1 b", "1 -a"], "the steps before are made up for");
        let page = store.read_stream(ReadStream::forward(name("saga-order:1"), 100)).await.unwrap();
        let audit = page.events.iter().find(|event| event.kind() == "saga.operated").unwrap();
        let audit: Value = serde_json::from_slice(audit.data().unwrap()).unwrap();
        assert_eq!((&audit["by"], &audit["note"], &audit["verb"]), (&json!("ada"), &json!("ticket 17"), &json!(verb)));
        let late = decide(&sagas, operation(verb, Some("b"))).await;
        assert!(matches!(late, Err(SagaError::Refused { cause: Refusal::Ended, .. })));
    }
}

#[tokio::test]
async fn a_stuck_saga_is_still_stuck_after_a_restart_and_can_be_decided_about() {
    let world = World::of_this_machine();
    let (store, sagas) = world.sagas(stuck_on_the_way_back()).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    assert_eq!(status(&sagas, "order", "1").await, Status::Stuck);
    store.close().await.unwrap();
    let (_store, sagas) = world.sagas(stuck_on_the_way_back()).await;
    decide(&sagas, operation(Verb::Retry, Some("b"))).await.unwrap();
    assert_eq!(status(&sagas, "order", "1").await, Status::Stuck, "tried again, with as many attempts");
    let tried = sagas.get(&name("order"), "1").await.unwrap();
    assert_eq!(tried.journal.step("b").unwrap().compensation.attempts, 4);
    decide(&sagas, operation(Verb::Force, None)).await.unwrap();
    assert_eq!(status(&sagas, "order", "1").await, Status::Forced);
}

#[tokio::test]
async fn signals_are_kept_once_and_refused_once_it_is_over() {
    let world = World::of_this_machine();
    let plan = |journal: &crate::saga::Journal| match journal.signals.len() {
        0 | 1 => crate::saga::Next::Wait(None),
        _ => crate::saga::Next::Done(Value::Null),
    };
    let definition = Definition::new(name("order"), 1).step(Step::new("a", local())).plan(plan);
    let (_store, sagas) = world.sagas(definition).await;
    let order = name("order");
    assert!(matches!(sagas.signal(&order, "1", "s", "go", ()).await, Err(SagaError::NotFound { .. })));
    sagas.start(&order, "1", (), None).await.unwrap();
    for id in ["s-1", "s-1", "s-1"] {
        assert_eq!(sagas.signal(&order, "1", id, "go", 1).await.unwrap().signals.len(), 1);
    }
    sagas.signal(&order, "1", "s-2", "go", 2).await.unwrap();
    assert_eq!(status(&sagas, "order", "1").await, Status::Completed);
    assert_eq!(sagas.signal(&order, "1", "s-2", "go", 2).await.unwrap().signals.len(), 2, "told before");
    let late = sagas.signal(&order, "1", "s-3", "go", 3).await;
    assert!(matches!(late, Err(SagaError::Refused { cause: Refusal::Ended, .. })));
}

#[tokio::test]
async fn only_a_stuck_compensation_is_marked_as_compensated_and_only_a_stuck_pivot_as_refused() {
    let refused = |decided: Result<(), SagaError>, why: &str| match decided {
        Err(SagaError::Refused { cause: Refusal::Unfit { what }, .. }) => assert!(what.contains(why), "{what}"),
        other => panic!("{why}: {other:?}"),
    };
    let mark = |step| operation(Verb::MarkCompensated, step);
    // It runs, and waits for an answer.
    let world = World::of_this_machine();
    let waits = Step::new("a", Action::remote(|_| std::future::pending())).compensated_by(local());
    let (_store, sagas) = world.sagas(Definition::new(name("order"), 1).step(waits)).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    for step in [None, Some("a"), Some("nowhere")] {
        refused(decide(&sagas, mark(step)).await, "no such compensation is stuck");
    }
    // What stands behind the pivot is stuck on its way forward: there is nothing to be compensated.
    let world = World::of_this_machine();
    let after = hasty(Step::new("after", failing(Failure::refused("no")))).retriable();
    let order = Definition::new(name("order"), 1).step(Step::new("pivot", local()).pivot()).step(after);
    let (_store, sagas) = world.sagas(order).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    assert_eq!(status(&sagas, "order", "1").await, Status::Stuck);
    for step in [None, Some("pivot"), Some("after")] {
        refused(decide(&sagas, mark(step)).await, "no such compensation is stuck");
    }
    refused(decide(&sagas, operation(Verb::MarkRefused, Some("after"))).await, "no way back from this step");
    refused(decide(&sagas, operation(Verb::MarkRefused, Some("pivot"))).await, "no such step is stuck");
    // A step that was made up for already, or not begun to be.
    let world = World::of_this_machine();
    let (store, sagas) = world.sagas(stuck_on_the_way_back()).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    assert_eq!(status(&sagas, "order", "1").await, Status::Stuck);
    for step in ["a", "c"] {
        refused(decide(&sagas, mark(Some(step))).await, "no such compensation is stuck");
    }
    refused(decide(&sagas, operation(Verb::MarkRefused, Some("b"))).await, "no such step is stuck");
    let page = store.read_stream(ReadStream::forward(name("saga-order:1"), 100)).await.unwrap();
    assert!(page.events.iter().all(|event| event.kind() != "saga.operated"), "what is refused is not written down");
}
