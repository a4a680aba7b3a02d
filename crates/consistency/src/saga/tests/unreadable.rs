//! Journals that cannot be read, and plans that panic where nobody holds them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_data::event::NewEvent;
use quorate_resilience::retry::{Backoff, Jitter};
use serde_json::{Value, json};

use super::world::{World, local, name, until, write_into};
use crate::saga::{Action, Definition, Failure, Journal, Next, SagaError, Search, State, Status, Step};

/// Waits for ever, and counts how often its plan is asked about anything but a saga whose key is `good`.
fn waiting(asked: &Arc<AtomicUsize>) -> Definition {
    let asked = asked.clone();
    let plan = move |journal: &Journal| {
        asked.fetch_add(usize::from(journal.key.as_deref() != Some("good")), Ordering::SeqCst);
        Next::Wait(None)
    };
    Definition::new(name("order"), 1).step(Step::new("a", local())).plan(plan)
}

fn own(kind: &str, data: &str) -> NewEvent {
    NewEvent::new("strange", "/quorate/saga", kind).json(data.to_owned())
}

#[tokio::test]
async fn a_saga_whose_journal_cannot_be_read_shows_that_and_its_plan_is_not_asked() {
    let started = r#"{"what":"started","version":1,"input":null}"#;
    let wrong = [
        (own("saga.moved", r#"{"what":"moved","to":"a later version of quorate"}"#), "says nothing"),
        (own("saga.ended", "no JSON"), "says nothing"),
        (NewEvent::new("strange", "/quorate/saga", "saga.ended"), "has no data"),
        (own("saga.ended", r#"{"what":"timer-fired","timer":"a"}"#), "says what a `saga.timer-fired` says"),
        (own("saga.started", started), "a second time"),
    ];
    for (event, why) in wrong {
        let world = World::of_this_machine();
        let (store, sagas) = world.sagas(waiting(&Arc::default())).await;
        sagas.start(&name("order"), "1", (), None).await.unwrap();
        sagas.start(&name("order"), "2", (), Some("good")).await.unwrap();
        write_into(&store, "saga-order:1", event).await;
        store.close().await.unwrap();

        let asked = Arc::new(AtomicUsize::new(0));
        let (_store, sagas) = world.sagas(waiting(&asked)).await;
        until(|| sagas.counts().troubled == 1).await;
        // The other one is told something, so that it is known to have been looked at.
        sagas.signal(&name("order"), "2", "s", "look", ()).await.unwrap();
        let found = sagas.list(Search { limit: 9, ..Search::default() }).await.unwrap();
        assert!(found[0].trouble.as_ref().is_some_and(|trouble| trouble.contains(why)), "{why}: {found:?}");
        assert_eq!((found[0].status, &found[1].trouble), (Status::Running, &None));
        // Whoever asks hears it at once, and does not wait.
        let unreadable = |asked: Result<(), SagaError>| match asked {
            Err(SagaError::Unreadable { what, .. }) => assert!(what.contains(why), "{what}"),
            other => panic!("{why}: {other:?}"),
        };
        unreadable(sagas.signal(&name("order"), "1", "s", "look", ()).await.map(drop));
        unreadable(sagas.abort(&name("order"), "1", "ada", "enough").await.map(drop));
        unreadable(sagas.get(&name("order"), "1").await.map(drop));
        unreadable(sagas.start(&name("order"), "1", (), None).await.map(drop));
        assert_eq!(asked.load(Ordering::SeqCst), 0, "{why}: its plan was asked");
    }
}

#[tokio::test]
async fn a_plan_that_panics_between_two_turns_leaves_its_saga_stuck_too() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let world = World::new();
    let panics = Arc::new(AtomicBool::new(false));
    let moody = panics.clone();
    let plan = move |_: &Journal| {
        assert!(!moody.load(Ordering::SeqCst), "not in the mood");
        Next::steps(["a"])
    };
    let backoff = Backoff { base: HOUR, cap: HOUR, jitter: Jitter::None };
    let fails = Action::remote(|_| async { Err::<Value, _>(Failure::transient("not now")) });
    let step = Step::new("a", fails).backoff(backoff);
    let (_store, sagas) = world.sagas(Definition::new(name("order"), 1).step(step).plan(plan)).await;
    sagas.start(&name("order"), "1", json!(1), None).await.unwrap();
    loop {
        let found = sagas.get(&name("order"), "1").await.unwrap();
        if found.journal.step("a").is_some_and(|step| step.forward.state == State::Resting) {
            break;
        }
        tokio::task::yield_now().await;
    }
    panics.store(true, Ordering::SeqCst);
    world.pass(HOUR * 2);
    until(|| sagas.counts().stuck == 1 || sagas.counts().open == 0).await;
    let stuck = sagas.get(&name("order"), "1").await.unwrap();
    assert_eq!(stuck.journal.status(), Status::Stuck, "{:?}", stuck.trouble);
    assert!(stuck.journal.stuck.as_ref().unwrap().contains("not in the mood"));
}
