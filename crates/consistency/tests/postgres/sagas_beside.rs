//! Sagas beside what else goes on: appends over the same connections, and processes that are configured otherwise.

use std::{
    collections::BTreeMap,
    future::ready,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use quorate_communication::message_queue::{Config as QueueConfig, Queues};
use quorate_consistency::saga::{
    Action, Child, Config, Definition, Failure, Journal, Next, Operation, Output, Sagas, Status, Step, Verb,
    declared::{Caller, Document, Hands, Request},
};
use quorate_data::{
    event::NewEvent,
    store::{AppendBatch, ExpectedVersion, Store},
};
use quorate_foundations::{document::Format, name::Name};
use quorate_runtime::BoxFuture;
use serde_json::Value;

use super::{run, stores};

const PATIENCE: Duration = Duration::from_secs(120);

struct Nobody;

impl Caller for Nobody {
    fn call(&self, _: Request) -> BoxFuture<'static, Result<Output, Failure>> {
        Box::pin(ready(Err(Failure::refused("nobody is there"))))
    }
}

const TELL: &str = r#"
saga: tell
version: 1
steps:
  - step: tell
    kind: pivot
    attempts: 100000
    max-backoff: 1s
    queue: { name: mails, type: mail.due }
"#;

#[test]
fn sagas_that_send_to_a_queue_that_nobody_declared_yet_are_in_nobodys_way() {
    const SAGAS: usize = 64;
    run(async {
        let Some(stores) = stores(2).await else { return };
        let (store, other) = (&stores[0], &stores[1]);
        let (caller, queues) = (Arc::new(Nobody), Some(Queues::open(store).await.unwrap()));
        let document = Document::read(TELL, Format::Yaml).unwrap();
        let sagas = Sagas::open(store, Config { takeover: PATIENCE, ..Config::default() }).await.unwrap();
        sagas.define(document.definition(&Hands { caller, queues })).await.unwrap();
        let ids: Vec<String> = (0..SAGAS).map(|n| n.to_string()).collect();
        let work = async {
            for started in join_all(ids.iter().map(|id| sagas.start(document.name(), id, (), None))).await {
                started.unwrap();
            }
            for n in 0..20 {
                let event = NewEvent::new(n.to_string(), "/test", "thing.happened");
                let batch = AppendBatch::to("s".parse().unwrap(), ExpectedVersion::Any, vec![event]);
                store.append(batch).await.unwrap();
            }
            let mails = "mails".parse().unwrap();
            Queues::open(other).await.unwrap().declare(&mails, QueueConfig::default()).await.unwrap();
            for id in &ids {
                let ended = sagas.settled(document.name(), id, PATIENCE).await.unwrap().journal;
                assert_eq!(ended.status(), Status::Completed, "{ended:?}");
            }
        };
        store.env().timeout(PATIENCE, work).await.expect("nobody waits for a connection that another one waits with");
    });
}

#[test]
fn processes_that_differ_in_how_soon_they_take_over_leave_each_others_sagas_alone() {
    const EACH: usize = 4;
    run(async {
        let Some(stores) = stores(2).await else { return };
        let asked = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
        let (name, mut all) = (Name::new("order").unwrap(), Vec::new());
        // The second one takes the first for gone between two signs, if it judges by itself alone.
        for (store, takeover) in stores.iter().zip([Duration::from_secs(20), Duration::from_millis(500)]) {
            let (asked, env) = (asked.clone(), store.env().clone());
            let step = Action::remote(move |call| {
                let (asked, env) = (asked.clone(), env.clone());
                async move {
                    *asked.lock().unwrap().entry(call.id.to_string()).or_default() += 1;
                    env.sleep(Duration::from_secs(3)).await;
                    Ok(Value::Null)
                }
            });
            let sagas = Sagas::open(store, Config { takeover, ..Config::default() }).await.unwrap();
            sagas.define(Definition::new(name.clone(), 1).step(Step::new("only", step))).await.unwrap();
            all.push(sagas);
        }
        let ids: Vec<String> = (0..2 * EACH).map(|n| n.to_string()).collect();
        for (n, id) in ids.iter().enumerate() {
            all[n % 2].start(&name, id, (), None).await.unwrap();
        }
        for id in &ids {
            let ended = all[0].settled(&name, id, PATIENCE).await.unwrap().journal;
            assert_eq!(ended.status(), Status::Completed, "{ended:?}");
        }
        let once = ids.into_iter().map(|id| (id, 1)).collect();
        assert_eq!(*asked.lock().unwrap(), once, "nobody died, and nothing was asked for twice");
    });
}

/// The saga that the first step of saga `1` started, once it is there: its step may rest before it is begun.
async fn child_of(sagas: &Sagas, name: &Name, store: &Store) -> Arc<str> {
    let begun = async {
        loop {
            if let Some(child) = sagas.get(name, "1").await.unwrap().children.pop() {
                return child.id;
            }
            store.env().sleep(Duration::from_millis(20)).await;
        }
    };
    store.env().timeout(PATIENCE, begun).await.expect("it has begun")
}

#[test]
fn a_saga_hears_how_one_ended_that_its_step_started_and_another_process_took_over() {
    run(async {
        let Some(stores) = stores(2).await else { return };
        let [order, payment] = ["order", "payment"].map(|name| name.parse::<Name>().unwrap());
        let local = || Action::local(|_, call| Box::pin(ready(Ok(Value::from(&*call.step)))));
        let mut both = Vec::new();
        for store in &stores {
            let plan = |journal: &Journal| match journal.signal("go") {
                None => Next::signal("go"),
                Some(_) if journal.is_done("hold") => Next::Done("paid".into()),
                Some(_) => Next::steps(["hold"]),
            };
            let pays = Definition::new(payment.clone(), 1).step(Step::new("hold", local()).compensated_by(local()));
            let refused = Action::local(|_, _| Box::pin(ready(Err(Failure::refused("no parcel")))));
            let orders = Definition::new(order.clone(), 1)
                .step(Step::new("pay", Action::child(Child::of(payment.clone()))))
                .step(Step::new("ship", refused));
            let takeover = Duration::from_secs(2);
            let sagas = Sagas::open(store, Config { takeover, ..Config::default() }).await.unwrap();
            sagas.define(pays.plan(plan)).await.unwrap();
            sagas.define(orders).await.unwrap();
            both.push(sagas);
        }
        let [one, two] = &both[..] else { panic!("there are two") };
        one.start(&order, "1", (), None).await.unwrap();
        let child = child_of(one, &order, &stores[0]).await;
        // Whoever is told takes it over, ends it, and has nobody above to tell.
        two.signal(&payment, &child, "s", "go", ()).await.unwrap();
        let ended = one.settled(&order, "1", PATIENCE).await.unwrap();
        assert_eq!((ended.journal.status(), ended.children[0].status), (Status::Compensated, Status::Compensated));
        assert_eq!(ended.journal.output("pay"), Some(&"paid".into()));
    });
}

#[test]
fn a_saga_of_a_step_whose_owner_lives_and_does_not_run_it_is_found_by_it() {
    run(async {
        let Some(stores) = stores(2).await else { return };
        let [order, payment] = ["order", "payment"].map(|name| name.parse::<Name>().unwrap());
        let mut both = Vec::new();
        for store in &stores {
            let plan = |journal: &Journal| match journal.has_fired("soon") {
                true => Next::Done("paid".into()),
                false => Next::Wait(Some(("soon".into(), Duration::from_secs(3)))),
            };
            let never = Action::local(|_, _| Box::pin(ready(Ok(Value::Null))));
            let pays = Definition::new(payment.clone(), 1).step(Step::new("never", never)).plan(plan);
            let orders =
                Definition::new(order.clone(), 1).step(Step::new("pay", Action::child(Child::of(payment.clone()))));
            let sagas =
                Sagas::open(store, Config { takeover: Duration::from_secs(2), ..Config::default() }).await.unwrap();
            sagas.define(pays).await.unwrap();
            sagas.define(orders).await.unwrap();
            both.push(sagas);
        }
        let [one, two] = &both[..] else { panic!("there are two") };
        one.start(&order, "1", (), None).await.unwrap();
        let child = child_of(one, &order, &stores[0]).await;
        // The first process owns it from its birth on. Whoever is told takes both over, and the first one lets go of them.
        two.signal(&payment, &child, "s", "nothing", ()).await.unwrap();
        two.signal(&order, "1", "s", "nothing", ()).await.unwrap();
        stores[0].env().sleep(Duration::from_secs(1)).await;
        // As where a turn that began it was written late, and nobody heard: the first one owns it, and nobody runs it.
        let disowned = stores[1].transact(|tx| {
            Box::pin(async move {
                let sql =
                    "UPDATE quorate_saga SET owner = (SELECT min(owner) FROM quorate_saga_sign) WHERE name = 'payment'";
                tx.room_execute(sql, &[]).await
            })
        });
        assert_eq!(disowned.await.unwrap(), 1);
        let ended = two.settled(&order, "1", PATIENCE).await.unwrap();
        assert_eq!((ended.journal.status(), ended.journal.output("pay")), (Status::Completed, Some(&"paid".into())));
    });
}

#[test]
fn a_saga_past_its_pivot_that_another_process_runs_is_not_taken_from_it_by_whoever_would_have_it_turn_back() {
    run(async {
        let Some(stores) = stores(2).await else { return };
        let [order, payment] = ["order", "payment"].map(|name| name.parse::<Name>().unwrap());
        let (asked, mut both) = (Arc::new(Mutex::new(0)), Vec::new());
        for store in &stores {
            let (asked, env) = (asked.clone(), store.env().clone());
            let tell = Action::remote(move |_| {
                let (asked, env) = (asked.clone(), env.clone());
                async move {
                    let nth = {
                        let mut asked = asked.lock().unwrap();
                        *asked += 1;
                        *asked
                    };
                    if nth == 1 {
                        return Err(Failure::refused("not today"));
                    }
                    // For longer than it takes to be told again.
                    env.sleep(Duration::from_secs(4)).await;
                    Ok(Value::Null)
                }
            });
            let take = Action::local(|_, _| Box::pin(ready(Ok(Value::Null))));
            let pays = Definition::new(payment.clone(), 1)
                .step(Step::new("take", take).pivot())
                .step(Step::new("tell", tell).retriable());
            let orders =
                Definition::new(order.clone(), 1).step(Step::new("pay", Action::child(Child::of(payment.clone()))));
            let takeover = Duration::from_secs(20);
            let sagas = Sagas::open(store, Config { takeover, ..Config::default() }).await.unwrap();
            sagas.define(pays).await.unwrap();
            sagas.define(orders).await.unwrap();
            both.push(sagas);
        }
        let [one, two] = &both[..] else { panic!("there are two") };
        one.start(&order, "1", (), None).await.unwrap();
        let child = child_of(one, &order, &stores[0]).await;
        let stuck = async {
            while one.get(&payment, &child).await.unwrap().journal.status() != Status::Stuck {
                stores[0].env().sleep(Duration::from_millis(20)).await;
            }
        };
        stores[0].env().timeout(PATIENCE, stuck).await.expect("it is stuck");
        one.abort(&order, "1", "ada", "never mind").await.unwrap();
        let retry = Operation {
            verb: Verb::Retry,
            step: Some("tell".into()),
            by: "ada".into(),
            note: "they are open again".to_owned(),
            output: Value::Null,
        };
        two.operate(&payment, &child, retry).await.unwrap();
        let ended = two.settled(&payment, &child, PATIENCE).await.unwrap().journal;
        assert_eq!((ended.status(), *asked.lock().unwrap()), (Status::Completed, 2), "its call was cut off");
        one.settled(&order, "1", PATIENCE).await.unwrap();
    });
}
