//! What sagas do while nothing dies.

use std::{sync::Arc, time::Duration};

use quorate_data::store::ReadStream;
use quorate_resilience::retry::{Backoff, Jitter};
use serde_json::{Value, json};

use super::world::{PATIENCE, World, effects, failing, hasty, local, name, note, settled, status};
use crate::saga::{Action, Config, Definition, Failure, Journal, Next, SagaError, Sagas, Search, Status, Step, Todo};

fn three(name: &str) -> Definition {
    let step = |name: &str| Step::new(name, local()).compensated_by(local());
    Definition::new(super::world::name(name), 1).step(step("a")).step(step("b")).step(step("c"))
}

#[tokio::test]
async fn local_steps_and_their_records_share_one_transaction() {
    let world = World::of_this_machine();
    let (store, sagas) = world.sagas(three("order")).await;
    let before = store.statistics().commits;
    let started = sagas.start(&name("order"), "1", json!({"n": 1}), None).await.unwrap();
    assert_eq!(started.journal.status(), Status::Completed);
    assert_eq!(store.statistics().commits - before, 1);
    assert_eq!(effects(&store).await, ["1 a", "1 b", "1 c"]);
    let page = store.read_stream(ReadStream::forward(name("saga-order:1"), 100)).await.unwrap();
    let kinds: Vec<&str> = page.events.iter().map(|event| event.kind()).collect();
    assert_eq!(kinds, ["saga.started", "saga.step-done", "saga.step-done", "saga.step-done", "saga.ended"]);
}

#[tokio::test]
async fn each_local_step_has_a_transaction_of_its_own_where_that_is_wanted() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let sagas = Sagas::open(&store, Config { joined_steps: 1, ..Config::default() }).await.unwrap();
    sagas.define(three("order")).await.unwrap();
    let before = store.statistics().commits;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    assert_eq!(status(&sagas, "order", "1").await, Status::Completed);
    assert!((3..=4).contains(&(store.statistics().commits - before)));
}

#[tokio::test]
async fn a_local_step_that_fails_leaves_nothing_and_what_was_done_is_made_up_for() {
    let world = World::of_this_machine();
    let undone = |name: &str| Step::new(name, local()).compensated_by(local());
    let failed = |step: Step| Definition::new(name("order"), 1).step(undone("a")).step(undone("b")).step(step);
    let panics = Action::local(|_, _| Box::pin(async { panic!("at the worst moment") }));
    let strays = Action::local(|_, _| {
        Box::pin(async {
            tokio::task::yield_now().await;
            Ok(Value::Null)
        })
    });
    let wrong = Action::local(|tx, _| {
        Box::pin(async move {
            tx.execute("INSERT INTO nowhere VALUES (1)", &[]).await?;
            Ok(Value::Null)
        })
    });
    let steps = [
        (failing(Failure::refused("no")), "no"),
        (failing(Failure::transient("not now")), "not now"),
        (panics, "worst moment"),
        (strays, "awaited something other"),
        (wrong, "nowhere"),
    ];
    for (round, (action, why)) in steps.into_iter().enumerate() {
        let world = World::of_this_machine();
        let (store, sagas) = world.sagas(failed(hasty(Step::new("c", action)).attempts(2, 1))).await;
        sagas.start(&name("order"), "1", (), None).await.unwrap();
        let ended = settled(&sagas, "order", "1").await;
        assert_eq!(ended.journal.status(), Status::Compensated, "{round}");
        assert!(ended.journal.abort.as_ref().unwrap().contains(why), "{:?}", ended.journal.abort);
        assert_eq!(effects(&store).await, ["1 a", "1 b", "1 -b", "1 -a"], "{round}");
    }
    drop(world);
}

#[tokio::test]
async fn a_local_step_rests_before_each_of_its_attempts() {
    let world = World::new();
    let backoff = Backoff { base: Duration::from_secs(60), cap: Duration::from_secs(60), jitter: Jitter::None };
    let step = Step::new("a", failing(Failure::transient("not now"))).attempts(3, 1).backoff(backoff);
    let (_store, sagas) = world.sagas(Definition::new(name("order"), 1).step(step)).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    for attempts in [1, 2] {
        let told = sagas.signal(&name("order"), "1", &attempts.to_string(), "look", ()).await.unwrap();
        assert_eq!(told.step("a").unwrap().forward.attempts, attempts);
        world.pass(Duration::from_secs(61));
    }
    assert_eq!(status(&sagas, "order", "1").await, Status::Compensated);
}

#[tokio::test]
async fn remote_steps_are_recorded_before_they_are_called_and_repeated_under_one_key() {
    let world = World::of_this_machine();
    let keys = Arc::new(std::sync::Mutex::new(Vec::new()));
    let store = world.store().await;
    let (seen, log) = (keys.clone(), store.clone());
    let flaky = Action::remote(move |call| {
        let (seen, log) = (seen.clone(), log.clone());
        async move {
            seen.lock().unwrap().push(call.key());
            let page = log.read_stream(ReadStream::backward(name("saga-order:1"), 1)).await.unwrap();
            assert_eq!(page.events[0].kind(), "saga.step-begun");
            if call.attempt < 3 { Err(Failure::unknown("lost")) } else { Ok(json!(call.attempt)) }
        }
    });
    let sagas = Sagas::open(&store, Config::default()).await.unwrap();
    sagas.define(Definition::new(name("order"), 1).step(hasty(Step::new("a", flaky)))).await.unwrap();
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let ended = settled(&sagas, "order", "1").await;
    assert_eq!(ended.journal.output("a"), Some(&json!(3)));
    assert_eq!(*keys.lock().unwrap(), ["order/1/a/forward"; 3]);
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_or_panics_is_unknown_and_its_step_is_made_up_for() {
    let world = World::of_this_machine();
    let hangs = Action::remote(|_| std::future::pending());
    let panics = Action::remote(|_| async { panic!("in the middle") });
    for (id, action) in [("hangs", hangs), ("panics", panics)] {
        let step = Step::new("a", action).compensated_by(local()).attempts(1, 1).time(Duration::from_millis(20));
        let world = World::of_this_machine();
        let (store, sagas) = world.sagas(Definition::new(name("order"), 1).step(step.quiet(Duration::ZERO))).await;
        sagas.start(&name("order"), id, (), None).await.unwrap();
        assert_eq!(status(&sagas, "order", id).await, Status::Compensated);
        assert_eq!(effects(&store).await, [format!("{id} -a")]);
    }
    drop(world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saga_started_many_times_at_once_is_one_saga() {
    let world = World::of_this_machine();
    let (store, sagas) = world.sagas(three("order")).await;
    let starts = (0..50).map(|_| {
        let sagas = sagas.clone();
        async move { sagas.start(&name("order"), "1", "same", Some("customer-1")).await.unwrap().repeated }
    });
    let repeated = futures_util::future::join_all(starts).await;
    assert_eq!(repeated.iter().filter(|repeated| !**repeated).count(), 1);
    assert_eq!(effects(&store).await, ["1 a", "1 b", "1 c"]);
    let other = sagas.start(&name("order"), "1", "other", Some("customer-1")).await;
    assert!(matches!(other, Err(SagaError::IdReused { .. })));
    let unknown = sagas.start(&name("nope"), "1", (), None).await;
    assert!(matches!(unknown, Err(SagaError::Undefined { .. })));
    assert!(matches!(sagas.start(&name("order"), "a/b", (), None).await, Err(SagaError::Invalid { .. })));
}

#[tokio::test]
async fn branches_run_side_by_side_and_plans_see_what_was_answered() {
    let world = World::of_this_machine();
    let (both, arrived) = (Arc::new(tokio::sync::Barrier::new(2)), Arc::new(tokio::sync::Barrier::new(2)));
    let meets = |barrier: Arc<tokio::sync::Barrier>| {
        Action::remote(move |call| {
            let barrier = barrier.clone();
            async move {
                barrier.wait().await;
                Ok(json!({"is": call.given, "of": call.input::<String>()?}))
            }
        })
    };
    let plan = |journal: &Journal| {
        let names = ["x", "y"];
        if names.iter().all(|name| journal.is_done(name)) {
            return Next::Done(json!(names.map(|name| journal.output(name).cloned())));
        }
        Next::Do(names.iter().map(|name| Todo::step("meets").named(*name).given(json!(name))).collect())
    };
    drop(arrived);
    let definition = Definition::new(name("meeting"), 1).step(Step::new("meets", meets(both))).plan(plan);
    let (_store, sagas) = world.sagas(definition).await;
    sagas.start(&name("meeting"), "1", "us", None).await.unwrap();
    let ended = settled(&sagas, "meeting", "1").await;
    assert_eq!(ended.journal.output, json!([{"is": "x", "of": "us"}, {"is": "y", "of": "us"}]));
}

#[tokio::test]
async fn sagas_are_found_by_name_key_and_how_they_stand() {
    let world = World::of_this_machine();
    let (_store, sagas) = world.sagas(three("order")).await;
    let refused = Step::new("x", failing(Failure::refused("no")));
    sagas.define(Definition::new(name("other"), 1).step(refused)).await.unwrap();
    for (id, key) in [("1", "ada"), ("2", "bob"), ("3", "ada")] {
        sagas.start(&name("order"), id, (), Some(key)).await.unwrap();
    }
    sagas.start(&name("other"), "1", (), Some("ada")).await.unwrap();
    let ids = |search: Search| {
        let sagas = sagas.clone();
        async move {
            let found = sagas.list(Search { limit: 2, ..search }).await.unwrap();
            found.iter().map(|found| format!("{} {}", found.name.as_str(), found.id)).collect::<Vec<_>>()
        }
    };
    assert_eq!(ids(Search::default()).await, ["order 1", "order 2"]);
    let after = Some(("order".into(), "2".into()));
    assert_eq!(ids(Search { after, ..Search::default() }).await, ["order 3", "other 1"]);
    let by_key = Search { name: Some(name("order")), key: Some("ada".into()), ..Search::default() };
    assert_eq!(ids(by_key).await, ["order 1", "order 3"]);
    let undone = Search { status: Some(Status::Compensated), ..Search::default() };
    assert_eq!(ids(undone).await, ["other 1"]);
    assert!(sagas.list(Search::default()).await.is_err(), "a limit is needed");
    let counts = sagas.counts();
    assert_eq!((counts.started, counts.completed, counts.compensated, counts.open), (4, 3, 1, 0));
}

#[tokio::test]
async fn a_saga_that_goes_on_for_ever_is_stopped_by_its_limit_of_events() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let sagas = Sagas::open(&store, Config { max_events: 40, ..Config::default() }).await.unwrap();
    let on_and_on = |journal: &Journal| Next::Do(vec![Todo::step("a").named(format!("a{}", journal.steps.len()))]);
    let step = Action::local(|tx, call| {
        Box::pin(async move {
            note(tx, call.step.to_string()).await?;
            Ok(Value::Null)
        })
    });
    sagas.define(Definition::new(name("loop"), 1).step(Step::new("a", step)).plan(on_and_on)).await.unwrap();
    sagas.start(&name("loop"), "1", (), None).await.unwrap();
    let stuck = sagas.settled(&name("loop"), "1", PATIENCE).await.unwrap();
    assert_eq!(stuck.journal.status(), Status::Stuck);
    assert!(stuck.journal.stuck.as_ref().unwrap().contains("40"));
    sagas.abort(&name("loop"), "1", "ada", "enough").await.unwrap();
    assert_eq!(status(&sagas, "loop", "1").await, Status::Compensated);
}

#[tokio::test]
async fn a_plan_that_panics_leaves_its_saga_stuck_and_nothing_else() {
    let world = World::of_this_machine();
    let plan = |journal: &Journal| if journal.is_done("a") { panic!("no plan for that") } else { Next::steps(["a"]) };
    let (_store, sagas) = world.sagas(Definition::new(name("order"), 1).step(Step::new("a", local())).plan(plan)).await;
    sagas.start(&name("order"), "1", (), None).await.unwrap();
    let stuck = settled(&sagas, "order", "1").await;
    assert_eq!(stuck.journal.status(), Status::Stuck);
    assert!(stuck.journal.stuck.as_ref().unwrap().contains("no plan for that"));
}
