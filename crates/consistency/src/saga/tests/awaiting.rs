//! What is said of a saga that waits.

use std::time::Duration;

use quorate_resilience::retry::{Backoff, Jitter};
use serde_json::Value;

use super::world::{World, failing, local, name, until};
use crate::saga::{Action, Awaited, Awaiting, Definition, Failure, Journal, Leg, Next, Sagas, State, Status, Step};

const HOUR: Duration = Duration::from_secs(3_600);

async fn awaited(sagas: &Sagas) -> Vec<Awaited> {
    sagas.get(&name("order"), "1").await.unwrap().waiting
}

fn for_ever() -> Action {
    Action::remote(|_| std::future::pending())
}

#[tokio::test]
async fn a_saga_says_which_signal_or_timer_it_waits_for_and_until_when() {
    let plan = |journal: &Journal| match (journal.signal("approval"), journal.has_fired("pause")) {
        (None, _) => Next::signal_at_most("approval", "patience", HOUR),
        (Some(_), false) => Next::wait_at_most("pause", HOUR / 2),
        (Some(_), true) => Next::steps(["a"]),
    };
    let order = || Definition::new(name("order"), 1).step(Step::new("a", for_ever())).plan(plan).deadline(HOUR * 5);
    let world = World::new();
    let (store, sagas) = world.sagas(order()).await;
    let began = sagas.start(&name("order"), "1", (), None).await.unwrap().journal.started_at;
    let deadline = Awaited { what: Awaiting::Deadline, until: Some(began + HOUR * 5) };
    let signal = Awaited { what: Awaiting::Signal("approval".into()), until: Some(began + HOUR) };
    assert_eq!(awaited(&sagas).await, [signal.clone(), deadline.clone()]);
    world.pass(HOUR / 4);
    store.close().await.unwrap();
    drop(sagas);
    let (_store, sagas) = world.sagas(order()).await;
    assert_eq!(awaited(&sagas).await, [signal, deadline.clone()], "the next process says the same");
    sagas.signal(&name("order"), "1", "s", "approval", ()).await.unwrap();
    let timer = Awaited { what: Awaiting::Timer("pause".into()), until: Some(began + HOUR / 4 + HOUR / 2) };
    assert_eq!(awaited(&sagas).await, [timer, deadline.clone()], "that of the signal is not waited for any more");
    world.pass(HOUR);
    until(|| sagas.counts().calling == 1).await;
    let answer = Awaited { what: Awaiting::Answer(Leg::forward("a")), until: None };
    assert_eq!(awaited(&sagas).await, [answer, deadline]);
}

#[tokio::test]
async fn a_saga_says_that_it_rests_is_quiet_or_waits_for_somebodys_decision() {
    let backoff = Backoff { base: HOUR, cap: HOUR, jitter: Jitter::None };
    let step = Step::new("a", Action::remote(|_| async { Err::<Value, _>(Failure::unknown("no answer")) }));
    let step = step.compensated_by(failing(Failure::refused("never"))).attempts(2, 1).backoff(backoff).quiet(HOUR * 2);
    let world = World::new();
    let (_store, sagas) = world.sagas(Definition::new(name("order"), 1).step(step)).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let state = |sagas: &Sagas| {
        let sagas = sagas.clone();
        async move {
            let journal = sagas.get(&name("order"), "1").await.unwrap().journal;
            (journal.step("a").unwrap().forward.state, journal.status(), journal.updated_at)
        }
    };
    let when = async |wanted: fn(State, Status) -> bool| loop {
        let (is, stands, at) = state(&sagas).await;
        if wanted(is, stands) {
            return at;
        }
        tokio::task::yield_now().await;
    };
    let at = when(|is, _| is == State::Resting).await;
    let rest = Awaited { what: Awaiting::Rest(Leg::forward("a")), until: Some(at + HOUR) };
    assert_eq!(awaited(&sagas).await, [rest]);
    world.pass(HOUR);
    let at = when(|_, stands| stands == Status::Compensating).await;
    assert_eq!(awaited(&sagas).await, [Awaited { what: Awaiting::Quiet("a".into()), until: Some(at + HOUR * 2) }]);
    world.pass(HOUR * 2);
    when(|_, stands| stands == Status::Stuck).await;
    let decision = Awaiting::Decision(Some(Leg::compensation("a")));
    assert_eq!(awaited(&sagas).await, [Awaited { what: decision, until: None }]);
    sagas.operate(&name("order"), "1", super::deciding::operation(crate::saga::Verb::Force, None)).await.unwrap();
    assert_eq!(awaited(&sagas).await, []);
}

#[tokio::test]
async fn a_stalled_saga_says_what_is_known_without_its_definition() {
    let world = World::of_this_machine();
    let definition = Definition::new(name("order"), 1).step(Step::new("a", for_ever()));
    let (store, sagas) = world.sagas(definition).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    store.close().await.unwrap();
    drop(sagas);
    let (_store, sagas) = world.sagas(Definition::new(name("order"), 2).step(Step::new("a", local()))).await;
    assert!(sagas.get(&name("order"), "1").await.unwrap().stalled);
    assert_eq!(awaited(&sagas).await, [Awaited { what: Awaiting::Answer(Leg::forward("a")), until: None }]);
}
