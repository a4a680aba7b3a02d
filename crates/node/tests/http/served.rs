//! A node as the broker of services: it keeps the promises of transports over HTTP, also where it is killed and answers are lost.
#![expect(clippy::disallowed_methods, reason = "the node is a process, which is ended as a kill would")]

use std::{collections::BTreeSet, path::Path, process::Command};

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
    assert_eq!(bus.send(request("PUT", "/v1/queues/orders.billing").json("{}")).await.status, 200);
    let (name, transport, topic) = ("orders-out".to_owned(), address(bus.address.port()), "orders".to_owned());
    let relay = RelaySettings { name, transport, topic, ..RelaySettings::default() };
    let shop = node_with(|config| config.relays = vec![relay.try_into().unwrap()]).await;
    for order in ["order-17", "order-18"] {
        shop.fill(order, 1, 2).await;
    }
    let expected = ["order-17-1", "order-17-2", "order-18-1", "order-18-2"].map(str::to_owned);
    let mut came = BTreeSet::new();
    let taking = async {
        while came.len() < expected.len() {
            let reply =
                bus.send(post("/v1/queues/orders.billing/receive").json(r#"{"max":10,"wait":"1s"}"#)).await.json();
            for delivery in reply["deliveries"].as_array().unwrap() {
                // As a relay of the node itself would have it there.
                came.insert(delivery["event"]["quorateownid"].as_str().unwrap().to_owned());
                let leases = json!({ "leases": [delivery["lease"]] });
                let acked = bus.send(post("/v1/queues/orders.billing/ack").json(leases.to_string())).await;
                assert_eq!(acked.status, 200, "{}", acked.text());
            }
        }
    };
    assert!(Env::real().timeout(PATIENCE, taking).await.is_some(), "only {came:?} came");
    assert_eq!(came, BTreeSet::from(expected));
    assert_eq!(shop.get("/v1/relays/orders-out").await.json()["transport"], address(bus.address.port()));
}
