//! A process that dies at each boundary: the store's file as it was at that moment is what the next process finds.

use std::time::Duration;

use quorate_data::store::Store;
use serde_json::{Value, json};

use super::world::{Participant, World, effects, hasty, local, name, settled, status, write_into};
use crate::saga::{Action, Definition, Journal, Leg, Next, Operation, SagaError, Sagas, Search, Status, Step, Verb};

/// A local step, two remote ones side by side, and a pivot that is done or refused; all of them can be made up for.
fn order(participant: &Participant, ends_well: bool) -> Definition {
    let remote = |name: &str| hasty(Step::new(name, participant.action()).compensated_by(participant.action()));
    let pivot = if ends_well { participant.action() } else { participant.refusing() };
    Definition::new(name("order"), 1)
        .step(Step::new("local", local()).compensated_by(local()))
        .parallel([remote("left"), remote("right")])
        .step(hasty(Step::new("pivot", pivot)).pivot())
        .step(hasty(Step::new("after", participant.action())).retriable())
}

/// Runs a saga in a process that dies when it comes to a place, and then in another one. Whether it died.
async fn with_a_death_at(place: usize, ends_well: bool) -> bool {
    let world = World::of_this_machine();
    let others = world.open("participant.db").await;
    let participant = Participant::new(&others, place).await;
    let (store, sagas) = world.sagas(order(&participant, ends_well)).await;
    sagas.start(&name("order"), "1", json!(1), None).await.unwrap();
    let over = async { drop(settled(&sagas, "order", "1").await) };
    let died = participant.dies(over).await;
    store.close().await.unwrap();
    drop(sagas);
    let immortal = Participant::new(&others, 0).await;
    let (store, sagas) = world.sagas(order(&immortal, ends_well)).await;
    let mut ended = settled(&sagas, "order", "1").await;
    if ended.journal.status() == Status::Stuck {
        // An attempt of the pivot was never answered, and the next one was refused: nobody but a person can know.
        assert_eq!(ended.journal.stuck_legs().next(), Some(Leg::forward("pivot")), "place {place}");
        let (by, note) = ("ada".into(), "asked the bank".to_owned());
        let operation = Operation { verb: Verb::MarkRefused, step: None, by, note, output: Value::Null };
        sagas.operate(&name("order"), "1", operation).await.unwrap();
        ended = settled(&sagas, "order", "1").await;
    }
    let expected = if ends_well { Status::Completed } else { Status::Compensated };
    assert_eq!(ended.journal.status(), expected, "place {place}: {:?}", ended.journal);
    assert_effects(&store, &others, ends_well, place).await;
    died
}

async fn assert_effects(store: &Store, others: &Store, ends_well: bool, place: usize) {
    let (here, mut there) = (effects(store).await, effects(others).await);
    if ends_well {
        assert_eq!(here, ["1 local"], "place {place}");
        there[..2].sort();
        assert_eq!(there, ["1 left", "1 right", "1 pivot", "1 after"], "place {place}");
    } else {
        assert_eq!(here, ["1 local", "1 -local"], "place {place}");
        assert_eq!(there.len(), 4, "place {place}: {there:?}");
        for (done, undone) in [("1 left", "1 -left"), ("1 right", "1 -right")] {
            let at = |what: &str| there.iter().position(|one| one == what).unwrap();
            assert!(at(done) < at(undone), "place {place}: {there:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_process_dies_a_saga_ends_and_each_step_takes_effect_once() {
    for ends_well in [true, false] {
        let mut place = 1;
        while with_a_death_at(place, ends_well).await {
            place += 1;
        }
        // Each call has a place before its effect and one behind it.
        assert!(place > 8, "only {place} places were tried");
    }
}

#[tokio::test]
async fn steps_that_are_recorded_are_never_called_again() {
    let world = World::of_this_machine();
    let others = world.open("participant.db").await;
    // The fifth place is the pivot's, before its effect.
    let participant = Participant::new(&others, 5).await;
    let (store, sagas) = world.sagas(order(&participant, true)).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    assert!(participant.dies(std::future::pending()).await);
    store.close().await.unwrap();
    let immortal = Participant::new(&others, 0).await;
    let (_store, sagas) = world.sagas(order(&immortal, true)).await;
    let ended = settled(&sagas, "order", "1").await.journal;
    let attempts = |name: &str| ended.step(name).unwrap().forward.attempts;
    assert_eq!((attempts("left"), attempts("right"), attempts("pivot")), (1, 1, 2));
}

fn patient(span: Duration) -> Definition {
    let plan = move |journal: &Journal| match journal.has_fired("patience") {
        true => Next::Done(json!("waited")),
        false => Next::wait_at_most("patience", span),
    };
    Definition::new(name("patient"), 1).step(Step::new("a", local())).plan(plan)
}

const HOUR: Duration = Duration::from_secs(3_600);

/// Whether the saga is there and waits: it is told something that it does not wait for, and answers once it has looked at everything.
async fn still_waits(sagas: &Sagas, id: &str) -> bool {
    sagas.signal(&name("patient"), "1", id, "nothing", ()).await.unwrap().status() == Status::Running
}

async fn turn_over() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
        std::future::ready(()).await;
    }
}

#[tokio::test]
async fn timers_run_over_restarts_and_jumps_of_the_wall_clock_and_never_longer_than_they_were_set_to() {
    // The wall clock stays, is set a day forward or back while the process runs, or while it is down.
    for (while_up, while_down, left) in [(0, 0, 30), (86_400, 0, 0), (-86_400, 0, 60), (0, -86_400, 60)] {
        let world = World::new();
        let (store, sagas) = world.sagas(patient(HOUR)).await;
        sagas.start(&name("patient"), "1", (), None).await.unwrap();
        world.pass(HOUR / 2);
        world.set_wall(while_up);
        assert!(still_waits(&sagas, "up").await, "a running timer goes by the boot clock");
        store.close().await.unwrap();
        world.set_wall(while_down);
        let (_store, sagas) = world.sagas(patient(HOUR)).await;
        if left > 0 {
            assert!(still_waits(&sagas, "again").await, "{while_up} {while_down}");
            world.pass(Duration::from_secs(left * 60 - 1));
            assert!(still_waits(&sagas, "nearly").await, "{while_up} {while_down}");
            world.pass(Duration::from_secs(2));
        }
        let ended = settle_by_ticks(&world, &sagas, "patient").await;
        assert_eq!(ended.output, json!("waited"));
    }
}

/// Waits until the saga is over, on a clock that moves by itself but slowly.
async fn settle_by_ticks(world: &World, sagas: &Sagas, of: &str) -> std::sync::Arc<Journal> {
    for _ in 0..1_000 {
        let found = sagas.get(&name(of), "1").await.unwrap().journal;
        if found.status().is_ended() {
            return found;
        }
        world.pass(Duration::from_millis(1));
        turn_over().await;
    }
    panic!("it never ended");
}

#[tokio::test]
async fn a_deadline_turns_a_saga_back_also_when_it_passes_while_nobody_runs_it() {
    let world = World::new();
    let waits = || {
        let plan = |journal: &Journal| if journal.is_done("a") { Next::Wait(None) } else { Next::steps(["a"]) };
        let step = Step::new("a", local()).compensated_by(local());
        Definition::new(name("slow"), 1).step(step).plan(plan).deadline(HOUR)
    };
    let (store, sagas) = world.sagas(waits()).await;
    sagas.start(&name("slow"), "1", (), None).await.unwrap();
    store.close().await.unwrap();
    world.pass(HOUR);
    let (store, sagas) = world.sagas(waits()).await;
    let ended = settle_by_ticks(&world, &sagas, "slow").await;
    assert_eq!((ended.status(), ended.abort.as_deref()), (Status::Compensated, Some("its deadline has passed")));
    assert_eq!(effects(&store).await, ["1 a", "1 -a"]);
}

#[tokio::test]
async fn a_version_that_nobody_knows_stalls_visibly_and_goes_on_once_it_is_registered() {
    let world = World::of_this_machine();
    let waits = |version: u32| {
        let plan = move |journal: &Journal| match journal.signal("go") {
            Some(_) => Next::Done(json!(version)),
            None => Next::Wait(None),
        };
        Definition::new(name("long"), version).step(Step::new("a", local())).plan(plan)
    };
    let (store, sagas) = world.sagas(waits(1)).await;
    sagas.start(&name("long"), "1", (), None).await.unwrap();
    assert!(matches!(sagas.define(waits(1)).await, Err(SagaError::AlreadyDefined { version: 1, .. })));
    store.close().await.unwrap();
    let (_store, sagas) = world.sagas(waits(2)).await;
    let found = sagas.list(Search { limit: 9, ..Search::default() }).await.unwrap();
    assert_eq!((found[0].status, found[0].stalled, found[0].version), (Status::Running, true, 1));
    let told = sagas.signal(&name("long"), "1", "s-1", "go", ()).await;
    assert!(matches!(told, Err(SagaError::Stalled { version: 1, .. })));
    sagas.define(waits(1)).await.unwrap();
    sagas.signal(&name("long"), "1", "s-1", "go", ()).await.unwrap();
    let ended = settled(&sagas, "long", "1").await;
    assert_eq!(ended.journal.output, json!(1), "by the version that it began with");
    sagas.start(&name("long"), "2", (), None).await.unwrap();
    sagas.signal(&name("long"), "2", "s-1", "go", ()).await.unwrap();
    assert_eq!(settled(&sagas, "long", "2").await.journal.output, json!(2), "new ones begin with the newest");
}

#[tokio::test]
async fn whoever_comes_back_late_writes_nothing() {
    let world = World::of_this_machine();
    let (answer, gate) = tokio::sync::watch::channel(false);
    let slow = Action::remote(move |_| {
        let mut gate = gate.clone();
        async move {
            drop(gate.wait_for(|open| *open).await);
            Ok(Value::Null)
        }
    });
    let (store, sagas) = world.sagas(Definition::new(name("order"), 1).step(Step::new("a", slow))).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    // Another process took it over, as a higher owner.
    let taken = store.transact(|tx| {
        Box::pin(async move { tx.room_execute("UPDATE quorate_saga SET owner = owner + 1", &[]).await })
    });
    assert_eq!(taken.await.unwrap(), 1);
    answer.send_replace(true);
    while sagas.counts().open > 0 {
        tokio::task::yield_now().await;
    }
    let found = sagas.get(&name("order"), "1").await.unwrap();
    assert_eq!(found.journal.status(), Status::Running, "the answer was not written");
    assert!(!found.journal.is_done("a"));
}

#[tokio::test]
async fn an_answer_that_comes_behind_what_others_appended_is_not_left_lying() {
    let world = World::new();
    let (answer, gate) = tokio::sync::watch::channel(false);
    let slow = Action::remote(move |_| {
        let mut gate = gate.clone();
        async move {
            drop(gate.wait_for(|open| *open).await);
            Ok(Value::Null)
        }
    });
    let (store, sagas) = world.sagas(Definition::new(name("order"), 1).step(Step::new("a", slow))).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let stranger = quorate_data::event::NewEvent::new("1", "/stranger", "saga.ended").json(&b"{}"[..]);
    write_into(&store, "saga-order:1", stranger).await;
    answer.send_replace(true);
    // No clock moves: whoever waited for time would wait for ever.
    while sagas.counts().open > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&sagas, "order", "1").await, Status::Completed);
}

#[tokio::test]
async fn a_saga_that_cannot_be_written_any_more_shows_that() {
    let world = World::of_this_machine();
    let (answer, gate) = tokio::sync::watch::channel(false);
    let slow = Action::remote(move |_| {
        let mut gate = gate.clone();
        async move {
            drop(gate.wait_for(|open| *open).await);
            Ok(Value::Null)
        }
    });
    let (store, sagas) = world.sagas(Definition::new(name("order"), 1).step(Step::new("a", slow))).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let tombstone = quorate_data::store::Retire::Tombstone { expected: Default::default() };
    store.retire(name("saga-order:1"), tombstone).await.unwrap();
    answer.send_replace(true);
    while sagas.counts().troubled == 0 {
        tokio::task::yield_now().await;
    }
    let found = sagas.list(Search { limit: 9, ..Search::default() }).await.unwrap();
    assert!(found[0].trouble.is_some(), "{found:?}");
}

#[tokio::test]
async fn what_others_append_to_a_sagas_stream_is_passed_over() {
    let world = World::of_this_machine();
    let plan = |journal: &Journal| journal.signal("go").map_or(Next::Wait(None), |_| Next::Done(Value::Null));
    let (store, sagas) = world.sagas(Definition::new(name("order"), 1).step(Step::new("a", local())).plan(plan)).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let stranger = quorate_data::event::NewEvent::new("1", "/stranger", "saga.ended").json(&b"{}"[..]);
    write_into(&store, "saga-order:1", stranger).await;
    let told = sagas.signal(&name("order"), "1", "s", "go", ()).await;
    if let Err(SagaError::Overtaken { .. }) = told {
        sagas.signal(&name("order"), "1", "s", "go", ()).await.unwrap();
    }
    assert_eq!(status(&sagas, "order", "1").await, Status::Completed);
}
