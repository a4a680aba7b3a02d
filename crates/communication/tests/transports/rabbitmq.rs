//! RabbitMQ.

use std::{collections::BTreeSet, time::Duration};

use quorate_communication::{
    inbox::{Inbox, InboxConfig},
    transports::{Outgoing, PublishError, Topic, Transport, connect},
};
use quorate_data::event::NewEvent;
use quorate_runtime::Env;

use super::{
    broker::{self, Broker},
    brokers::{rabbitmq, rabbitmq_address},
    children, killed,
    part::PATIENCE,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_keeps_the_promises_of_transports() {
    let Some(server) = rabbitmq() else { return };
    broker::keeps_the_promises(server, rabbitmq_address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_rabbitmq_an_effect_is_once_per_message_and_in_order_whoever_is_killed() {
    const TEST: &str = "rabbitmq::over_rabbitmq_an_effect_is_once_per_message_and_in_order_whoever_is_killed";
    killed::kills_everybody(TEST, rabbitmq, rabbitmq_address).await;
}

fn topic() -> Topic {
    Topic { partitions: 2, ..Topic::new("orders".parse().unwrap()) }
}

/// A key of that partition.
fn key(partition: u16, n: usize) -> String {
    let mut keys = (0..).map(|n| format!("k{n}")).filter(|key| topic().partition(key) == partition);
    keys.nth(n).unwrap()
}

/// Deletes the queue of partition 0, as somebody at the broker might.
async fn delete_a_queue(client: &dyn Transport) {
    let of_one_partition = Topic { partitions: 1, ..topic() };
    client.remove(&of_one_partition, &"billing".parse().unwrap()).await.unwrap();
}

fn message(key: &str, id: &str) -> Outgoing {
    Outgoing::new(key, NewEvent::new(id, "/test", "thing.happened").json("{}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_one_batch_exactly_what_rabbitmq_returns_is_unroutable() {
    let Some(server) = rabbitmq() else { return };
    let broker = Broker::behind_a_line(server, rabbitmq_address).await;
    let (client, group) = (broker.client(), "billing".parse().unwrap());
    drop(client.join(&topic(), &group).await.unwrap());
    delete_a_queue(&*client).await;
    let mut expected = BTreeSet::new();
    for round in 0..10 {
        let keys: Vec<u16> = (0..60).map(|n| n % 2).collect();
        let ids = (0..keys.len()).map(|n| format!("{round}-{n}"));
        let batch: Vec<(u16, String)> = keys.into_iter().zip(ids).collect();
        let messages = batch.iter().enumerate().map(|(n, (partition, id))| message(&key(*partition, n / 2), id));
        let outcomes = client.publish(&topic(), messages.collect()).await;
        for ((partition, id), outcome) in batch.into_iter().zip(outcomes) {
            match (partition, outcome) {
                (0, Err(PublishError::Unroutable { .. })) => {}
                (1, Ok(_)) => drop(expected.insert(id)),
                (partition, other) => panic!("{id} of partition {partition}: {other:?}"),
            }
        }
    }
    let mut receiver = client.join(&topic(), &group).await.unwrap();
    let mut came = BTreeSet::new();
    while came.len() < expected.len() {
        let delivery = receiver.next().await.unwrap();
        came.insert(delivery.message.event.id.to_string());
        delivery.ack().await.unwrap();
    }
    assert_eq!(came, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_goes_on_when_rabbitmq_has_ended_one_of_its_consumers() {
    let Some(server) = rabbitmq() else { return };
    let broker = Broker::behind_a_line(server, rabbitmq_address).await;
    let client = broker.client();
    let folder = tempfile::tempdir().unwrap();
    let store = children::open(&folder.path().join("billing.db")).await;
    let config = InboxConfig::of(topic(), "billing".parse().unwrap());
    let inbox = Inbox::start(&store, broker.client(), config, |_, _| Box::pin(async { Ok(()) })).await.unwrap();
    let env = Env::real();
    let publish = async |id: &str| {
        let published = async {
            while client.publish(&topic(), vec![message(&key(0, 0), id)]).await.remove(0).is_err() {
                env.sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(env.timeout(PATIENCE, published).await.is_some(), "{id} can be published at last");
    };
    publish("1").await;
    assert!(env.timeout(PATIENCE, inbox.settled(1)).await.is_some(), "the first takes effect");
    delete_a_queue(&*client).await;
    publish("2").await;
    assert!(env.timeout(PATIENCE, inbox.settled(2)).await.is_some(), "{:?}", inbox.describe().await);
    inbox.stop().await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_to_be_given_back_later_keeps_no_process_from_stopping() {
    let Some(server) = rabbitmq() else { return };
    let at = rabbitmq_address(server.port()).parse().unwrap();
    let (env, group) = (Env::real(), "billing".parse().unwrap());
    let client = connect(&env, &at, None).unwrap();
    let mut receiver = client.join(&topic(), &group).await.unwrap();
    assert!(client.publish(&topic(), vec![message("a", "1")]).await.remove(0).is_ok());
    let held = env.timeout(PATIENCE, receiver.next()).await.expect("it comes").unwrap();
    held.nack(10 * PATIENCE, "not now").await.unwrap();
    assert!(env.timeout(PATIENCE, env.tasks().shut_down()).await.is_some(), "it stops");
}
