//! Steps that are sagas of their own, whose process dies at each boundary.

use std::time::Duration;

use serde_json::json;

use super::world::{Participant, World, effects, hasty, local, name, settled, until};
use crate::saga::{Action, Child, Config, Definition, Journal, Next, Sagas, Search, Status, Step};

fn payment(participant: &Participant) -> Definition {
    let step = |name: &str| hasty(Step::new(name, participant.action()).compensated_by(participant.action()));
    Definition::new(name("payment"), 1).step(step("hold")).step(step("take"))
}

/// A local step, a saga of two calls, and a call that is done or refused, behind which the saga is undone.
fn order(participant: &Participant, ends_well: bool) -> Definition {
    let last = if ends_well { participant.action() } else { participant.refusing() };
    Definition::new(name("order"), 1)
        .step(Step::new("reserve", local()).compensated_by(local()))
        .step(Step::new("pay", Action::child(Child::of(name("payment")))))
        .step(hasty(Step::new("ship", last).compensated_by(participant.action())))
}

async fn opened(world: &World, participant: &Participant, ends_well: bool) -> (quorate_data::store::Store, Sagas) {
    let store = world.store().await;
    let sagas = Sagas::open(&store, Config::default()).await.unwrap();
    // The saga above is known last: its child may have ended by then.
    sagas.define(payment(participant)).await.unwrap();
    sagas.define(order(participant, ends_well)).await.unwrap();
    (store, sagas)
}

/// Runs an order in a process that dies when it comes to a place, and then in another one. Whether it died.
async fn with_a_death_at(place: usize, ends_well: bool) -> bool {
    let world = World::of_this_machine();
    let others = world.open("participant.db").await;
    let participant = Participant::new(&others, place).await;
    let (store, sagas) = opened(&world, &participant, ends_well).await;
    sagas.start(&name("order"), "1", json!(1), None).await.unwrap();
    let over = async { drop(settled(&sagas, "order", "1").await) };
    let died = participant.dies(over).await;
    store.close().await.unwrap();
    drop(sagas);
    let immortal = Participant::new(&others, 0).await;
    let (store, sagas) = opened(&world, &immortal, ends_well).await;
    let ended = settled(&sagas, "order", "1").await;
    let expected = if ends_well { Status::Completed } else { Status::Compensated };
    assert_eq!(ended.journal.status(), expected, "place {place}: {:?}", ended.journal);
    assert_eq!((ended.children.len(), ended.children[0].status), (1, expected), "place {place}");
    let done = |all: Vec<String>| -> Vec<String> {
        all.iter().map(|one| one.split(' ').next_back().unwrap().to_owned()).collect()
    };
    let (here, there) = (done(effects(&store).await), done(effects(&others).await));
    if ends_well {
        assert_eq!((here, there), (vec!["reserve".into()], vec!["hold".into(), "take".into(), "ship".into()]));
    } else {
        assert_eq!(here, ["reserve", "-reserve"], "place {place}");
        assert_eq!(there, ["hold", "take", "-take", "-hold"], "place {place}");
    }
    died
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_process_dies_a_step_is_one_saga_and_that_is_done_or_undone_once() {
    for ends_well in [true, false] {
        let mut place = 1;
        while with_a_death_at(place, ends_well).await {
            place += 1;
        }
        assert!(place > 6, "only {place} places were tried");
    }
}

#[tokio::test]
async fn a_saga_has_one_run_again_whose_runner_panicked() {
    let world = World::new();
    let plan = |journal: &Journal| journal.signal("go").map_or(Next::signal("go"), |_| Next::Done(json!("paid")));
    let waits = Definition::new(name("payment"), 1).step(Step::new("hold", local())).plan(plan);
    let (_store, sagas) = world.sagas(waits).await;
    let pay = Step::new("pay", Action::child(Child::of(name("payment"))));
    sagas.define(Definition::new(name("order"), 1).step(pay)).await.unwrap();
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let id = sagas.get(&name("order"), "1").await.unwrap().children[0].id.clone();
    // It has begun once it was told something.
    sagas.signal(&name("payment"), &id, "s", "nothing", ()).await.unwrap();
    let payment = name("payment");
    world.tear();
    tokio::select! {
        _ = sagas.signal(&payment, &id, "t", "nothing", ()) => panic!("nobody lives to hear it"),
        () = until(|| sagas.counts().open == 1) => {}
    }
    // However long it takes: the one above looks now and then.
    world.pass(Duration::from_secs(600));
    until(|| sagas.counts().open == 2).await;
    sagas.signal(&payment, &id, "u", "go", ()).await.unwrap();
    assert_eq!(settled(&sagas, "order", "1").await.journal.status(), Status::Completed);
}

#[tokio::test]
async fn a_saga_learns_what_became_of_one_that_ended_while_nobody_ran_it() {
    let world = World::of_this_machine();
    let waits = || {
        let plan = |journal: &Journal| match journal.signal("go") {
            Some(_) if journal.is_done("hold") => Next::Done(json!("paid")),
            Some(_) => Next::steps(["hold"]),
            None => Next::signal("go"),
        };
        Definition::new(name("payment"), 1).step(Step::new("hold", local()).compensated_by(local())).plan(plan)
    };
    let order = || Definition::new(name("order"), 1).step(Step::new("pay", Action::child(Child::of(name("payment")))));
    let (store, sagas) = world.sagas(waits()).await;
    sagas.define(order()).await.unwrap();
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let id = sagas.get(&name("order"), "1").await.unwrap().children[0].id.clone();
    store.close().await.unwrap();
    drop(sagas);

    let (store, sagas) = world.sagas(waits()).await;
    sagas.signal(&name("payment"), &id, "s", "go", ()).await.unwrap();
    assert_eq!(settled(&sagas, "payment", &id).await.journal.status(), Status::Completed);
    let found = sagas.list(Search { name: Some(name("order")), limit: 9, ..Search::default() }).await.unwrap();
    assert!(found[0].stalled && found[0].status == Status::Running, "{found:?}");
    sagas.define(order()).await.unwrap();
    let ended = settled(&sagas, "order", "1").await.journal;
    assert_eq!((ended.status(), ended.output("pay")), (Status::Completed, Some(&json!("paid"))));
    assert_eq!(ended.step("pay").unwrap().forward.attempts, 1, "it was not started again");
    let rows = store.room_query("SELECT count(*) FROM quorate_saga WHERE unheard = 1", vec![]).await.unwrap();
    assert_eq!(rows[0].at(0).as_i64(), Some(0), "what was heard is not told again");
}
