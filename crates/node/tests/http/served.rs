//! A node as the broker of services: it keeps the promises of transports over HTTP, also where it is killed and answers are lost.
#![expect(clippy::disallowed_methods, reason = "the node is a process, which is ended as a kill would")]

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use quorate_communication::transports::{Outgoing, Topic, connect};
use quorate_data::event::NewEvent;
use quorate_node::config::{Config, RelaySettings};
use quorate_runtime::Env;
use serde_json::json;

use crate::{
    client::{PATIENCE, post, request},
    node::{node, node_with},
};

#[path = "../../../communication/tests/transports/broker.rs"]
mod broker;
#[path = "../../../communication/tests/transports/proxy.rs"]
mod proxy;
#[expect(dead_code, reason = "other brokers are programs that may not be installed")]
#[path = "../../../communication/tests/transports/server.rs"]
mod server;

const TEST: &str = "served::a_node_keeps_the_promises_of_transports_over_http";
/// The variables in which the node finds what it is told.
const PORT: &str = "QUORATE_TEST_PORT";
const FOLDER: &str = "QUORATE_TEST_FOLDER";

/// A node that this program is, in the same test, as a process of its own.
struct NodeProcess {
    port: u16,
}

impl server::Kind for NodeProcess {
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([TEST, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(PORT, self.port.to_string()).env(FOLDER, folder.join("data"));
        command
    }

    fn port(&self) -> u16 {
        self.port
    }
}

fn address(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_keeps_the_promises_of_transports_over_http() {
    if let (Ok(port), Ok(folder)) = (std::env::var(PORT), std::env::var(FOLDER)) {
        let mut config = Config::in_folder(folder);
        config.listen = ([127, 0, 0, 1], port.parse().unwrap()).into();
        return quorate_node::serve(config, Env::real()).await.unwrap();
    }
    let server =
        tokio::task::block_in_place(|| server::Server::new(|_| Box::new(NodeProcess { port: server::free_port() })));
    broker::keeps_the_promises(server, address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_one_node_publishes_to_the_queues_of_another() {
    let bus = node().await;
    let queues = ["orders.billing", "orders.stock"].map(|name| format!("/v1/queues/{name}"));
    for queue in &queues {
        assert_eq!(bus.send(request("PUT", queue.as_str()).json("{}")).await.status, 200);
    }
    let (name, transport, topic) = ("orders-out".to_owned(), address(bus.address.port()), "orders".to_owned());
    let relay = RelaySettings { name, transport, topic, ..RelaySettings::default() };
    let shop = node_with(|config| config.relays = vec![relay.try_into().unwrap()]).await;
    for order in ["order-17", "order-18"] {
        shop.fill(order, 1, 2).await;
    }
    let of = |order: &str| (order.to_owned(), [1, 2].map(|n| format!("{order}-{n}")).to_vec());
    let expected = BTreeMap::from(["order-17", "order-18"].map(of));
    for queue in &queues {
        let mut came: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let taking = async {
            while came.values().map(Vec::len).sum::<usize>() < 4 {
                let receive = post(format!("{queue}/receive")).json(r#"{"max":10,"wait":"1s"}"#);
                for delivery in bus.send(receive).await.json()["deliveries"].as_array().unwrap() {
                    // As a relay of the node itself would have it there.
                    let id = delivery["event"]["quorateownid"].as_str().unwrap().to_owned();
                    came.entry(delivery["group"].as_str().unwrap().to_owned()).or_default().push(id);
                    let leases = json!({ "leases": [delivery["lease"]] });
                    let acked = bus.send(post(format!("{queue}/ack")).json(leases.to_string())).await;
                    assert_eq!(acked.status, 200, "{}", acked.text());
                }
            }
        };
        assert!(Env::real().timeout(PATIENCE, taking).await.is_some(), "only {came:?} came to {queue}");
        assert_eq!(came, expected, "{queue}");
    }
    assert_eq!(shop.get("/v1/relays/orders-out").await.json()["transport"], address(bus.address.port()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_while_a_receiver_did_not_look_is_not_handed_to_it_beyond_its_hold() {
    let (bus, env) = (node().await, Env::real());
    let transport = connect(&env, &address(bus.address.port()).parse().unwrap(), None).unwrap();
    let (topic, billing) = (Topic::new("orders".parse().unwrap()), "billing".parse().unwrap());
    let topic = Topic { hold: Duration::from_secs(1), ..topic };
    let mut late = transport.join(&topic, &billing).await.unwrap();
    let publish = async |id: &str| {
        let message = Outgoing::new(id, NewEvent::new(id, "/shop", "order.placed"));
        transport.publish(&topic, vec![message]).await.remove(0).unwrap();
    };
    // It asks, and then has other things to do.
    assert!(env.timeout(Duration::from_millis(200), late.next()).await.is_none(), "there is nothing yet");
    publish("a").await;
    let looking = async {
        while bus.get("/v1/queues/orders.billing").await.json()["in-flight"] != 1 {
            env.sleep(Duration::from_millis(10)).await;
        }
        let mut prompt = transport.join(&topic, &billing).await.unwrap();
        // Again where the acknowledgement was late.
        while prompt.next().await.unwrap().ack().await.is_err() {}
    };
    assert!(env.timeout(PATIENCE, looking).await.is_some(), "it came to nobody else");
    publish("b").await;
    let came = env.timeout(PATIENCE, late.next()).await.unwrap().unwrap();
    assert_eq!(&*came.message.event.id, "b", "`a` is somebody else's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_held_for_as_long_as_its_receiver_says_whatever_others_of_the_group_say() {
    let (bus, env) = (node().await, Env::real());
    let transport = connect(&env, &address(bus.address.port()).parse().unwrap(), None).unwrap();
    let billing = "billing".parse().unwrap();
    let of = |hold| Topic { hold: Duration::from_secs(hold), ..Topic::new("orders".parse().unwrap()) };
    let mut patient = transport.join(&of(60), &billing).await.unwrap();
    let message = Outgoing::new("a", NewEvent::new("a", "/shop", "order.placed"));
    transport.publish(&of(60), vec![message]).await.remove(0).unwrap();
    let held = env.timeout(PATIENCE, patient.next()).await.unwrap().unwrap();
    let _other = transport.join(&of(1), &billing).await.unwrap();
    held.extend().await.unwrap();
    env.sleep(Duration::from_millis(1_500)).await;
    held.ack().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_a_page_whose_size_nobody_asked_for() {
    let node = node_with(|config| (config.http.default_page, config.http.max_page) = (20_000, 20_000)).await;
    for list in ["queues", "sagas", "processes", "subscriptions", "transactions", "views", "erasures"] {
        let list = format!("/v1/{list}");
        assert_eq!(node.get(&list).await.status, 200, "{list}");
        assert_eq!(node.get(&format!("{list}?limit=1001")).await.code(), "limit-exceeded", "{list}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_joins_a_group_at_a_node_leaves_its_queue_as_others_have_declared_it() {
    let (bus, path) = (node().await, "/v1/queues/orders.billing");
    let transport = connect(&Env::real(), &address(bus.address.port()).parse().unwrap(), None).unwrap();
    let (orders, billing) = (Topic::new("orders".parse().unwrap()), "billing".parse().unwrap());
    let first = Topic { max_messages: 500, hold: Duration::from_secs(7), ..orders.clone() };
    drop(transport.join(&first, &billing).await.unwrap());
    let config = bus.get(path).await.json()["config"].clone();
    assert_eq!(
        (&config["max-messages"], &config["lease-ttl"]),
        (&json!(500), &json!("7s")),
        "a new one is as its topic says"
    );
    let operated = json!({ "paused": true, "max-messages": 600, "max-attempts": 3 }).to_string();
    assert_eq!(bus.send(request("PUT", path).json(operated)).await.status, 200);
    let declared = bus.get(path).await.json()["config"].clone();
    drop(transport.join(&orders, &billing).await.unwrap());
    assert_eq!(bus.get(path).await.json()["config"], declared);
    assert_eq!(declared["paused"], true);
}
