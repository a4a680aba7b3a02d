//! A node as the broker of services: it keeps the promises of transports over HTTP, also where it is killed and answers are lost.
#![expect(clippy::disallowed_methods, reason = "the node is a process, which is ended as a kill would")]

use std::{path::Path, process::Command};

use quorate_node::config::Config;
use quorate_runtime::Env;

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
