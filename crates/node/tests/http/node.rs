//! A node to talk to.

use std::net::SocketAddr;

use quorate_data::store::Store;
use quorate_node::{Server, config::Config};
use quorate_runtime::Env;

use crate::client::{Client, Reply, Request, get, post};

/// A listening node with a folder of its own.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) breakers: quorate_node::verbs::Breakers,
    pub(crate) policies: quorate_node::verbs::Policies,
    pub(crate) transactions: quorate_node::verbs::Transactions,
    pub(crate) requests: quorate_communication::request::Requests,
    env: Env,
    running: tokio::sync::oneshot::Receiver<()>,
}

pub(crate) async fn node() -> Node {
    node_with(|_| {}).await
}

/// A node whose configuration `change` has changed.
pub(crate) async fn node_with(change: impl FnOnce(&mut Config)) -> Node {
    start(tempfile::tempdir().unwrap(), change).await
}

/// A node on what is there in `folder` already.
pub(crate) async fn node_in(folder: tempfile::TempDir) -> Node {
    start(folder, |_| {}).await
}

pub(crate) async fn start(folder: tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Node {
    start_in_world(Env::real(), folder, change).await
}

/// A node that lives in `env`.
pub(crate) async fn start_in_world(env: Env, folder: tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Node {
    let mut config = Config::in_folder(folder.path().join("data"));
    crate::choose_store(&mut config, folder.path());
    change(&mut config);
    let server = Server::bind(config, env.scope("node")).await.unwrap();
    let (address, store, breakers) = (server.local_addr(), server.store().clone(), server.breakers().clone());
    let (policies, transactions) = (server.policies().clone(), server.transactions().clone());
    let requests = server.requests().clone();
    let (ended, running) = tokio::sync::oneshot::channel();
    // Beside the branch that is stopped: `run` is what the binary awaits while it stops that branch.
    let server_env = env.scope("binary");
    let stopping = server.run();
    server_env.tasks().spawn("run", async move {
        stopping.await.unwrap();
        let _ = ended.send(());
    });
    Node { address, folder, store, breakers, policies, transactions, requests, env, running }
}

impl Node {
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Sends one request on a connection of its own.
    pub(crate) async fn send(&self, request: Request) -> Reply {
        self.client().await.send(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(get(path)).await
    }

    /// Appends events `first` to `last` to `stream` in one batch.
    pub(crate) async fn fill(&self, stream: &str, first: u64, last: u64) {
        let events: Vec<String> = (first..=last).map(|n| event(&format!("{stream}-{n}"), "")).collect();
        let reply =
            self.send(post(format!("/v1/streams/{stream}/events")).batch(format!("[{}]", events.join(",")))).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }

    /// Waits a moment between looks at what the node does by itself.
    pub(crate) async fn pause(&self, span: std::time::Duration) {
        self.env.sleep(span).await;
    }

    /// Tells the node to stop.
    pub(crate) fn stop(&self) {
        self.env.tasks().stop().cancel();
    }

    /// Waits until the node has stopped, and returns its folder.
    pub(crate) async fn stopped(self) -> tempfile::TempDir {
        let Self { env, running, folder, .. } = self;
        env.timeout(crate::client::PATIENCE, running).await.expect("the node stops").unwrap();
        folder
    }

    /// Stops the node, and returns its folder.
    pub(crate) async fn end(self) -> tempfile::TempDir {
        self.stop();
        self.stopped().await
    }

    /// Stops the node and starts it again.
    pub(crate) async fn restart(self) -> Self {
        start(self.end().await, |_| {}).await
    }

    /// What a metric says.
    pub(crate) async fn metric(&self, name: &str) -> i64 {
        let text = self.get("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }
}

/// One event as JSON; `members` are further ones, each with a comma before it.
pub(crate) fn event(id: &str, members: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"/test","type":"test.happened"{members}}}"#)
}
