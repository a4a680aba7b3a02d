//! NATS JetStream.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use quorate_communication::transports::{Outgoing, Topic, connect};
use quorate_data::event::NewEvent;
use quorate_runtime::Env;

use super::{
    broker,
    brokers::{nats, nats_address, nats_with},
    killed,
    part::PATIENCE,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_jetstream_keeps_the_promises_of_transports() {
    let Some(server) = nats() else { return };
    broker::keeps_the_promises(server, nats_address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_nats_an_effect_is_once_per_message_and_in_order_whoever_is_killed() {
    const TEST: &str = "nats::over_nats_an_effect_is_once_per_message_and_in_order_whoever_is_killed";
    killed::kills_everybody(TEST, nats, nats_address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_told_who_connects_by_user_and_password_or_by_a_token() {
    let topic = Topic::new("orders".parse().unwrap());
    let lets_in = async |port: u16, user: &str| {
        let address = format!("nats://{user}127.0.0.1:{port}").parse().unwrap();
        connect(&Env::real(), &address, None).unwrap().declare(&topic).await.is_ok()
    };
    let Some(server) = nats_with(&["--user", "shop", "--pass", "s@cret"]) else { return };
    assert!(lets_in(server.port(), "shop:s%40cret@").await);
    assert!(!lets_in(server.port(), "shop:other@").await && !lets_in(server.port(), "").await);
    let Some(server) = nats_with(&["--auth", "t/ken"]) else { return };
    assert!(lets_in(server.port(), "t%2Fken@").await && !lets_in(server.port(), "").await);
}

/// Removes every file of that name, however deep. Returns how many there were.
fn remove(folder: &Path, name: &str) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| match path.is_dir() {
        true => remove(&path, name),
        false if path.ends_with(name) => std::fs::remove_file(&path).map(|()| 1).unwrap(),
        false => 0,
    };
    entries.map(of).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_server_that_lost_what_a_group_had_read_skips_nothing() {
    let Some(server) = nats() else { return };
    let (topic, group) = (Topic { partitions: 2, ..Topic::new("orders".parse().unwrap()) }, "billing".parse().unwrap());
    let client = || connect(&Env::real(), &nats_address(server.port()).parse().unwrap(), None).unwrap();
    drop(client().join(&topic, &group).await.unwrap());
    let messages = (0..6).map(|n| Outgoing::new(format!("k{n}"), NewEvent::new(format!("{n}"), "/test", "x")));
    assert!(client().publish(&topic, messages.collect()).await.iter().all(Result::is_ok));
    tokio::task::block_in_place(|| {
        server.kill();
        // As a kill in the middle of writing it may leave it.
        assert_eq!(remove(server.folder(), "o.dat"), 2);
        server.start();
    });
    let mut receiver = client().join(&topic, &group).await.unwrap();
    let mut ids = BTreeSet::new();
    while ids.len() < 6 {
        let next = Env::real().timeout(PATIENCE, receiver.next()).await;
        let delivery = next.unwrap_or_else(|| panic!("only {ids:?} came")).unwrap();
        ids.insert(delivery.message.event.id.to_string());
        delivery.ack().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_holds_messages_for_as_long_as_the_topic_says_by_now() {
    let Some(server) = nats() else { return };
    let (topic, group) = (Topic { partitions: 1, ..Topic::new("orders".parse().unwrap()) }, "billing".parse().unwrap());
    let client = || connect(&Env::real(), &nats_address(server.port()).parse().unwrap(), None).unwrap();
    let joined = async |hold: u64| {
        let topic = Topic { hold: Duration::from_secs(hold), ..topic.clone() };
        client().join(&topic, &group).await.unwrap()
    };
    drop(joined(600).await);
    let message = |id: &str| Outgoing::new("a", NewEvent::new(id, "/test", "x"));
    assert!(client().publish(&topic, vec![message("1"), message("2")]).await.iter().all(Result::is_ok));
    let next = async |hold: u64| {
        let mut receiver = joined(hold).await;
        let next = Env::real().timeout(PATIENCE, receiver.next()).await;
        next.expect("it comes").unwrap()
    };
    // Nobody settles it: it comes again when the hold ends, and not after ten minutes.
    drop(next(2).await);
    let again = next(2).await;
    assert_eq!((&*again.message.event.id, again.message.redelivered), ("1", true));
    again.ack().await.unwrap();
    assert_eq!(&*next(2).await.message.event.id, "2");
}
