//! Workers of queues, and responders of durable requests, whose work and acknowledgement are one transaction of the database.

use std::time::Duration;

use quorate_communication::{
    message_queue::{Config, Failed, Job, NewMessage, Queue, Queues, WorkerConfig},
    request::{Fault, Limits, Requests, Status},
};
use quorate_data::{
    event::NewEvent,
    store::{DynTx, ExpectedVersion},
};
use quorate_runtime::Env;
use serde_json::Value;

use crate::node::{Node, node};

async fn queue(node: &Node) -> Queue {
    let queues = Queues::open(&node.store).await.unwrap();
    queues.declare(&"mails".parse().unwrap(), Config::default()).await.unwrap()
}

/// The work: an event.
async fn work(tx: &mut DynTx, id: &str) -> Result<(), Failed> {
    let done = vec![NewEvent::new(id, "/test", "mail.sent")];
    tx.append(&"done".parse().unwrap(), ExpectedVersion::Any, done).await?;
    Ok(())
}

async fn done(node: &Node) -> Vec<Value> {
    let events = node.get("/v1/streams/done/events").await.events();
    events.iter().map(|event| event["id"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_work_and_its_acknowledgement_are_one_transaction() {
    let node = node().await;
    let (queue, store) = (queue(&node).await, node.store.clone());
    queue.send(vec![NewMessage::of(NewEvent::new("1", "/test", "mail.due").json("7"))]).await.unwrap();
    let workers = queue.work(WorkerConfig::default(), move |job: Job<u64>| {
        let store = store.clone();
        async move {
            let settling = store.transact(move |tx| {
                let job = job.clone();
                Box::pin(async move {
                    work(tx, &job.message().event.id).await?;
                    Ok::<_, Failed>(job.ack_in(tx).await?)
                })
            });
            settling.await.map_err(|failed| Failed::again(failed.to_string()))
        }
    });
    let workers = workers.unwrap();
    while workers.counts().done == 0 {
        assert_eq!((workers.counts().failed, workers.counts().lost), (0, 0));
        node.pause(Duration::from_millis(20)).await;
    }
    assert_eq!(done(&node).await, ["1"]);
    assert_eq!(queue.describe().await.unwrap().counts.messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_requests_answer_and_the_work_for_it_are_one_transaction() {
    let node = node().await;
    let requests = Requests::new(&Env::real(), Limits::default());
    let limit = Duration::from_secs(60);
    let mails = requests.declare_durable::<u64, u64>(&"mail".parse().unwrap(), limit, &queue(&node).await).unwrap();
    let workers = mails.respond_in(WorkerConfig::default(), |tx, handed| {
        Box::pin(async move {
            work(tx, handed.id()).await?;
            Ok(if *handed.body() == 7 { Ok(8) } else { Err(Fault::new("odd", "it is another one")) })
        })
    });
    let workers = workers.unwrap();
    let (right, wrong) = ("1".parse().unwrap(), "2".parse().unwrap());
    let asked = mails.ask(&right, &7).await.unwrap();
    assert_eq!(asked.wait(limit).await.unwrap(), Status::Done(8));
    let fault = Fault::new("odd", "it is another one");
    let failed = Status::Failed { fault, dead_letter: None };
    assert_eq!(mails.ask(&wrong, &9).await.unwrap().wait(limit).await.unwrap(), failed);
    assert_eq!(mails.ask(&right, &7).await.unwrap().status().await.unwrap(), Status::Done(8), "it is the same one");
    assert_eq!(done(&node).await, ["1", "2"]);
    while workers.counts().done < 2 {
        assert_eq!((workers.counts().failed, workers.counts().lost), (0, 0));
        node.pause(Duration::from_millis(20)).await;
    }
}
