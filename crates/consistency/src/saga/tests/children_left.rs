//! Steps that are sagas of their own, where something of those is missing: their events, their numbers, or whoever decides.

use std::time::Duration;

use quorate_data::{
    event::{NewEvent, Version},
    store::{Retire, Store, StoreError},
};
use serde_json::{Value, json};

use super::{
    children::{child_of, defined, operate, order, payment, pays, undone, until_status, words},
    world::{World, failing, hasty, local, name, settled, write_into},
};
use crate::saga::{Action, Definition, Direction, Failure, Journal, Leg, Next, SagaError, Status, Step, Verb};

/// Runs a statement over what is written of sagas.
async fn write(store: &Store, sql: &'static str) {
    store.transact(move |tx| Box::pin(async move { tx.room_execute(sql, &[]).await })).await.unwrap();
}

/// An order that pays, and whose last step is refused once it is told to go.
fn refused_at_last() -> Definition {
    let plan = |journal: &Journal| match journal.signal("go") {
        _ if !journal.is_done("pay") => Next::steps(["pay"]),
        Some(_) => Next::steps(["ship"]),
        None => Next::signal("go"),
    };
    order().step(Step::new("ship", failing(Failure::refused("no parcel")))).plan(plan)
}

#[tokio::test]
async fn what_cannot_be_undone_since_its_events_were_forgotten_somebody_decides_about() {
    let all = Retire::Tombstone { expected: Default::default() };
    for what in [all, Retire::Truncate { before: Version::new(3) }] {
        let world = World::of_this_machine();
        let (store, sagas) = defined(&world, [payment(), refused_at_last()]).await;
        sagas.start(&name("order"), "1", (), None).await.unwrap();
        let id = child_of(&sagas, "pay").await;
        until_status(&sagas, "payment", &id, Status::Completed).await;
        store.retire(name(&format!("saga-payment:{id}")), what).await.unwrap();
        sagas.signal(&name("order"), "1", "s", "go", ()).await.unwrap();
        let stuck = settled(&sagas, "order", "1").await;
        assert_eq!(stuck.journal.stuck_legs().next(), Some(Leg::compensation("pay")), "{:?}", stuck.journal);
        assert!(stuck.journal.why_stuck().unwrap().contains("forgotten"), "{:?}", stuck.journal.why_stuck());
        assert_eq!(stuck.children[0].status, Status::Completed, "it is left alone");
        operate(&sagas, "order", "1", Verb::MarkCompensated).await.unwrap();
        assert_eq!(settled(&sagas, "order", "1").await.journal.status(), Status::Compensated);
    }
}

#[tokio::test]
async fn of_a_saga_that_ended_without_a_word_nobody_says_that_it_is_past_its_pivot() {
    let world = World::of_this_machine();
    let (store, sagas) = defined(&world, [payment(), refused_at_last()]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let id = child_of(&sagas, "pay").await;
    until_status(&sagas, "payment", &id, Status::Completed).await;
    // As a node leaves it that does not know of the column.
    write(&store, "UPDATE quorate_saga SET undoable = NULL").await;
    sagas.signal(&name("order"), "1", "s", "go", ()).await.unwrap();
    let stuck = settled(&sagas, "order", "1").await.journal;
    assert!(stuck.why_stuck().unwrap().contains("did not say"), "{:?}", stuck.why_stuck());
}

#[tokio::test]
async fn a_family_of_sagas_has_a_limit_and_the_step_that_goes_beyond_is_refused() {
    let world = World::of_this_machine();
    let plan = |journal: &Journal| match journal.signal("go") {
        None => Next::signal("go"),
        Some(_) if journal.is_refused("pay") => Next::Done(json!("alone")),
        Some(_) => Next::steps(["pay"]),
    };
    let orders = Definition::new(name("order"), 1).step(pays().may_be_refused()).plan(plan);
    let (store, sagas) = defined(&world, [payment(), orders]).await;
    for id in ["1", "2"] {
        sagas.start(&name("order"), id, (), None).await.unwrap();
    }
    // As many as there may be, with one between them and the one that no step started.
    let sql = "WITH RECURSIVE some (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM some WHERE n < 9999)
        INSERT INTO quorate_saga (name, id, version, status, owner, at, started_at, updated_at, parent_name, parent_id, parent_step)
        SELECT 'payment', 'x' || n, 1, 11, 1, 1, 0, 0,
            CASE n WHEN 1 THEN 'order' ELSE 'payment' END, CASE n WHEN 1 THEN '1' ELSE 'x1' END, 'pay' FROM some";
    write(&store, sql).await;
    for (id, output) in [("1", Some(&json!("alone"))), ("2", None)] {
        sagas.signal(&name("order"), id, "s", "go", ()).await.unwrap();
        if let Some(output) = output {
            let ended = settled(&sagas, "order", id).await.journal;
            assert_eq!((ended.status(), &ended.output), (Status::Completed, output));
            let why = ended.step("pay").unwrap().forward.failure.clone();
            assert!(matches!(&why, Some(Failure::Refused(why)) if why.contains("more than 10000")), "{why:?}");
        }
    }
    while sagas.get(&name("order"), "2").await.unwrap().children.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_saga_that_cannot_read_how_one_below_ended_shows_that_until_it_can() {
    let world = World::of_this_machine();
    let waits = || {
        let plan = |journal: &Journal| match journal.signal("go") {
            Some(_) => Next::Done(json!("paid")),
            None => Next::signal("go"),
        };
        payment().plan(plan)
    };
    let (store, sagas) = defined(&world, [waits(), order()]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let id = child_of(&sagas, "pay").await;
    store.close().await.unwrap();
    drop(sagas);
    let (store, sagas) = defined(&world, [waits()]).await;
    sagas.signal(&name("payment"), &id, "s", "go", ()).await.unwrap();
    settled(&sagas, "payment", &id).await;
    let strange = NewEvent::new("strange", "/quorate/saga", "saga.moved").json(&b"{}"[..]);
    write_into(&store, &format!("saga-payment:{id}"), strange).await;
    sagas.define(order()).await.unwrap();
    while sagas.counts().troubled == 0 {
        tokio::task::yield_now().await;
    }
    // What else it does does not hide that.
    for n in 0..3 {
        sagas.signal(&name("order"), "1", &format!("t{n}"), "nothing", ()).await.unwrap();
        let found = sagas.get(&name("order"), "1").await.unwrap();
        assert!(found.trouble.as_ref().is_some_and(|trouble| trouble.contains("says nothing")), "{:?}", found.trouble);
    }
}

#[tokio::test]
async fn a_step_whose_saga_was_forced_is_not_tried_again_under_other_keys() {
    let world = World::of_this_machine();
    let plan = |_: &Journal| Next::Stuck("nobody knows".to_owned());
    let order = Definition::new(name("order"), 1).step(Step::new("sell", local()).pivot()).step(pays().retriable());
    let (_store, sagas) = defined(&world, [payment().plan(plan), order]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let id = child_of(&sagas, "pay").await;
    until_status(&sagas, "payment", &id, Status::Stuck).await;
    operate(&sagas, "payment", &id, Verb::Force).await.unwrap();
    until_status(&sagas, "order", "1", Status::Stuck).await;
    let refused = operate(&sagas, "order", "1", Verb::Retry).await;
    assert!(
        matches!(&refused, Err(SagaError::Refused { cause, .. }) if cause.to_string().contains("by force")),
        "{refused:?}"
    );
    operate(&sagas, "order", "1", Verb::Skip).await.unwrap();
    let ended = settled(&sagas, "order", "1").await;
    assert_eq!((ended.journal.status(), ended.children.len()), (Status::Completed, 1));
}

#[tokio::test]
async fn nobody_waits_for_what_one_that_was_forced_left_below() {
    let world = World::of_this_machine();
    let waits = payment().plan(|_: &Journal| Next::signal("go"));
    let order = Definition::new(name("order"), 1)
        .step(Step::new("sell", local()).pivot())
        .parallel([pays().retriable(), Step::new("send", failing(Failure::refused("no parcel"))).retriable()]);
    let (store, sagas) = defined(&world, [waits, order]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    until_status(&sagas, "order", "1", Status::Stuck).await;
    let unheard = || async {
        let rows = store.room_query("SELECT count(*) FROM quorate_saga WHERE unheard = 1", vec![]).await.unwrap();
        rows[0].at(0).as_i64()
    };
    assert_eq!(unheard().await, Some(1));
    operate(&sagas, "order", "1", Verb::Force).await.unwrap();
    assert_eq!(unheard().await, Some(0));
    let id = child_of(&sagas, "pay").await;
    assert_eq!(sagas.get(&name("payment"), &id).await.unwrap().journal.status(), Status::Running);
}

#[tokio::test]
async fn a_saga_that_could_not_turn_back_is_told_again_and_does_once_its_pivot_is_known_not_to_be_done() {
    let world = World::new();
    let unknown = Action::remote(|_| async { Err::<Value, _>(Failure::unknown("no answer")) });
    let take = hasty(Step::new("take", unknown)).pivot().may_be_refused().attempts(1, 1);
    let plan = |journal: &Journal| match () {
        () if !journal.is_done("hold") => Next::steps(["hold"]),
        () if journal.is_refused("take") => Next::signal("go"),
        () => Next::steps(["take"]),
    };
    let payment = Definition::new(name("payment"), 1).step(undone("hold")).step(take).plan(plan);
    let (store, sagas) = defined(&world, [payment, order()]).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let id = child_of(&sagas, "pay").await;
    until_status(&sagas, "payment", &id, Status::Stuck).await;
    sagas.abort(&name("order"), "1", "ada", "never mind").await.unwrap();
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let child = sagas.get(&name("payment"), &id).await.unwrap().journal;
    assert_eq!((child.status(), &child.abort), (Status::Stuck, &None), "it may be past its pivot");
    operate(&sagas, "payment", &id, Verb::MarkRefused).await.unwrap();
    let mut passes = 0;
    while sagas.get(&name("payment"), &id).await.unwrap().journal.abort.is_none() {
        passes += 1;
        assert!(passes < 10_000, "it was not told again");
        world.pass(Duration::from_secs(1));
        // What is on its way gets through the store before the clock moves on: a transaction has a second by this clock, and what is cut off
        // rests until somebody moves it.
        for _ in 0..3 {
            store.transact(|_| Box::pin(async { Ok::<_, StoreError>(()) })).await.unwrap();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
    }
    assert_eq!(settled(&sagas, "order", "1").await.journal.status(), Status::Compensated);
    assert_eq!(words(&store).await, ["reserve", "hold", "-hold", "-reserve"]);
    let journal = sagas.get(&name("order"), "1").await.unwrap().journal;
    assert_eq!(journal.step("pay").unwrap().way(Direction::Forward).attempts, 1);
}
