//! What is asked for under one key: the same on every attempt, whatever happened in between and whoever asks.

use std::sync::{Arc, Mutex};

use quorate_foundations::document::Format;
use quorate_runtime::BoxFuture;
use serde_json::{Value, json};

use super::world::{Gate, World, hasty, name, settled, until};
use crate::saga::{
    Action, Definition, Direction, Failure, Journal, Output, Sagas, Status, Step,
    declared::{Caller, Document, Hands, Request},
};

/// Two steps side by side: `slow`, whose first attempt is answered when the gate opens, whose second one is never answered, and whose
/// third one works; and `quick`.
fn beside(gate: &Gate, seen: &Arc<Mutex<Vec<Arc<Journal>>>>) -> Definition {
    let (gate, seen) = (gate.clone(), seen.clone());
    let slow = Action::remote(move |call| {
        let (gate, seen) = (gate.clone(), seen.clone());
        async move {
            seen.lock().unwrap().push(call.journal.clone());
            match call.attempt {
                1 => {
                    gate.pass().await;
                    Err(Failure::unknown("no answer"))
                }
                2 => std::future::pending().await,
                _ => Ok(Value::Null),
            }
        }
    });
    let quick = Action::remote(|_| async { Ok(json!({ "third": 0.1 + 0.2, "large": 1.234_567_890_123_456_7e300 })) });
    Definition::new(name("order"), 1)
        .step(hasty(Step::new("first", quick.clone())))
        .parallel([hasty(Step::new("slow", slow)), hasty(Step::new("quick", quick))])
}

async fn until_done(sagas: &Sagas, step: &str) {
    while !sagas.get(&name("order"), "1").await.unwrap().journal.is_done(step) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn every_attempt_of_a_step_sees_what_the_first_one_saw() {
    let world = World::of_this_machine();
    let (gate, seen) = (Gate::closed(), Arc::default());
    let (store, sagas) = world.sagas(beside(&gate, &seen)).await;
    sagas.start(&name("order"), "1", json!({ "price": 2.675 }), Some("ada")).await.unwrap();
    until_done(&sagas, "quick").await;
    let told = sagas.signal(&name("order"), "1", "s", "hurry", 1).await.unwrap();
    gate.open();
    until(|| seen.lock().unwrap().len() == 2).await;
    let here = sagas.get(&name("order"), "1").await.unwrap();
    store.close().await.unwrap();
    drop(sagas);

    let (_store, sagas) = world.sagas(beside(&gate, &seen)).await;
    let ended = settled(&sagas, "order", "1").await.journal;
    assert_eq!((ended.status(), ended.step("slow").unwrap().forward.attempts), (Status::Completed, 3));
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|journal| **journal == *seen[0]), "{seen:#?}");
    assert!(seen[0].is_done("first") && seen[0].step("quick").is_none() && seen[0].signals.is_empty());
    // So they do although there is more to be seen, and the next process knows the same as the first one.
    assert!(told.is_done("quick") && told.signals.len() == 1);
    assert_eq!((here.journal.started_at, &here.journal.signals), (ended.started_at, &ended.signals));
}

#[tokio::test]
async fn what_is_read_from_a_journal_is_what_was_known_by_who_wrote_it() {
    let world = World::of_this_machine();
    let (gate, seen) = (Gate::closed(), Arc::default());
    let (store, sagas) = world.sagas(beside(&gate, &seen)).await;
    sagas.start(&name("order"), "1", json!(0.1 + 0.7), None).await.unwrap();
    until_done(&sagas, "quick").await;
    let known = sagas.get(&name("order"), "1").await.unwrap().journal;
    let key = crate::saga::rows::SagaKey { name: name("order"), id: "1".into() };
    let read = crate::saga::rows::read(&store, &key).await.unwrap().journal;
    assert_eq!(known, read);
}

/// Notes what it is asked for; the first attempt at `charge` waits for the gate and is lost.
struct Bank {
    gate: Gate,
    asked: Mutex<Vec<Request>>,
}

impl Caller for Bank {
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Output, Failure>> {
        let (gate, is_first) = (self.gate.clone(), request.attempt == 1 && request.url.ends_with("/charges"));
        self.asked.lock().unwrap().push(request);
        Box::pin(async move {
            if !is_first {
                return Ok(json!({ "id": 7 }).into());
            }
            gate.pass().await;
            Err(Failure::unknown("no answer"))
        })
    }
}

#[tokio::test]
async fn a_documents_request_is_the_same_to_the_byte_on_every_attempt() {
    let text = r#"
saga: order
version: 1
steps:
  - together:
      - step: charge
        backoff: 1ms
        max-backoff: 1ms
        http: { url: "http://bank/{.id}/charges", body: "{input, steps, signals, refused}", headers: { x-steps: "{.steps | length}" } }
      - step: gift
        http: { url: "http://gifts/" }
"#;
    let world = World::of_this_machine();
    let bank = Arc::new(Bank { gate: Gate::closed(), asked: Mutex::default() });
    let document = Document::read(text, Format::Yaml).unwrap();
    let (_store, sagas) = world.sagas(document.definition(&Hands { caller: bank.clone(), queues: None })).await;
    sagas.start(&name("order"), "1", json!({ "cents": 5 }), None).await.unwrap();
    until_done(&sagas, "gift").await;
    sagas.signal(&name("order"), "1", "s", "hurry", true).await.unwrap();
    bank.gate.open();
    assert_eq!(settled(&sagas, "order", "1").await.journal.status(), Status::Completed);
    let asked = bank.asked.lock().unwrap();
    let charges: Vec<&Request> = asked.iter().filter(|one| one.key == "order/1/charge/forward").collect();
    let [first, again] = charges[..] else { panic!("{charges:?}") };
    assert_eq!(first.body, Some(json!({ "input": { "cents": 5 }, "steps": {}, "signals": {}, "refused": [] })));
    assert_eq!(Request { attempt: 1, ..again.clone() }, *first);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_kept_and_the_step_is_done() {
    let large = Action::remote(|_| async { Ok(json!("x".repeat(300 << 10))) });
    let in_store = Action::local(|_, _| Box::pin(async { Ok(json!("x".repeat(300 << 10))) }));
    for action in [large, in_store] {
        let world = World::of_this_machine();
        let takes = Action::remote(|call| async move {
            match call.direction {
                Direction::Forward => call.output::<String>("large").map(Value::from),
                Direction::Compensation => Ok(Value::Null),
            }
        });
        let definition =
            Definition::new(name("order"), 1).step(Step::new("large", action)).step(Step::new("takes", takes));
        let (store, sagas) = world.sagas(definition).await;
        sagas.start(&name("order"), "1", (), None).await.unwrap();
        let ended = settled(&sagas, "order", "1").await.journal;
        let large = ended.step("large").unwrap().forward.clone();
        assert_eq!((large.attempts <= 1, large.unkept, large.output), (true, true, Value::Null));
        let why = ended.abort.as_deref().unwrap();
        assert!(why.contains("step `takes`") && why.contains("more than is kept"), "{why}");
        store.close().await.unwrap();
    }
}
