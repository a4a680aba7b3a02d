//! The HTTP surface over PostgreSQL: what event streams do over the embedded store, word for word, and what only a database
//! can do to a node.

#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

#[path = "../http/append.rs"]
mod append;
#[path = "../../../data/tests/postgres/cable.rs"]
#[expect(dead_code, reason = "other tests cut it in other ways")]
mod cable;
#[path = "../http/client.rs"]
#[allow(dead_code, reason = "other tests say more")]
mod client;
#[path = "../http/durable_requests.rs"]
mod durable_requests;
mod identical;
#[path = "../http/keys.rs"]
mod keys;
#[path = "../http/metadata.rs"]
mod metadata;
#[path = "../http/node.rs"]
#[allow(dead_code, reason = "other tests say more")]
mod node;
mod outcomes;
#[path = "../http/queue_consumers.rs"]
mod queue_consumers;
#[path = "../http/queue_schedules.rs"]
mod queue_schedules;
#[path = "../http/queues.rs"]
mod queues;
#[path = "../http/rates.rs"]
mod rates;
#[path = "../http/read.rs"]
mod read;
#[path = "../http/sagas.rs"]
mod sagas;
#[path = "../http/schemas.rs"]
mod schemas;
#[path = "../../../data/tests/postgres/server.rs"]
#[allow(dead_code, reason = "other tests do more with a server")]
mod server;
#[path = "../http/several.rs"]
mod several;
mod several_nodes;
mod several_nodes_queues;
mod several_nodes_sagas;
#[path = "../../../data/tests/postgres/stranger.rs"]
mod stranger;
#[path = "../http/subscribe.rs"]
#[allow(dead_code, reason = "other tests say more")]
mod subscribe;
#[path = "../http/subscriptions.rs"]
mod subscriptions;
mod unsupported;
mod workers;

use std::path::Path;

use quorate_node::config::{Config, Database};

/// These tests run over PostgreSQL: each node's folder has a schema of its own in the database that they share.
fn choose_store(config: &mut Config, folder: &Path) {
    let Some(address) = server::address() else {
        // It was said, and there is nothing that these tests could try.
        std::process::exit(0);
    };
    config.database = Some(database(&address, folder));
    // Long enough that no machine is so slow that a node that lives counts as gone again and again.
    config.sagas.takeover = std::time::Duration::from_secs(2);
}

/// The store of `folder` in the database at `address`.
fn database(address: &str, folder: &Path) -> Database {
    let name: String = folder.to_string_lossy().bytes().map(|byte| format!("{byte:02x}")).collect();
    let schema = format!("h{}", &name[name.len() - 20..]);
    // Machines that test may be slow, and have many nodes.
    let patience = std::time::Duration::from_secs(20);
    let application = format!("{schema}_app");
    Database { schema, application, connections: 4, patience, ..Database::at(address).unwrap() }
}
