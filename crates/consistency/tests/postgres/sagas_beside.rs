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
    Action, Config, Definition, Failure, Output, Sagas, Status, Step,
    declared::{Caller, Document, Hands, Request},
};
use quorate_data::{
    event::NewEvent,
    store::{AppendBatch, ExpectedVersion},
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
