//! NATS JetStream.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use quorate_communication::transports::{
    Transport,
    conformance::{self, Place},
    connect,
};
use quorate_runtime::{BoxFuture, Env};

use super::{
    killed,
    proxy::Proxy,
    server::{Kind, Server, free_port, program, skipped},
};

struct NatsServer {
    program: PathBuf,
    port: u16,
}

impl Kind for NatsServer {
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--addr", "127.0.0.1", "--jetstream", "--port"]).arg(self.port.to_string());
        command.arg("--store_dir").arg(folder.join("store"));
        command
    }

    fn port(&self) -> u16 {
        self.port
    }
}

/// A running server, or nothing where there is none to be had.
pub(crate) fn server() -> Option<Server> {
    let Some(program) = program(&["/usr/sbin/nats-server", "/usr/bin/nats-server", "/usr/local/bin/nats-server"])
    else {
        skipped("nats-server");
        return None;
    };
    Some(Server::new(|_| Box::new(NatsServer { program, port: free_port() })))
}

struct Nats {
    env: Env,
    server: Server,
    proxy: Proxy,
}

impl Place for Nats {
    fn env(&self) -> &Env {
        &self.env
    }

    fn transport(&self) -> BoxFuture<'_, Arc<dyn Transport>> {
        let address = format!("nats://127.0.0.1:{}", self.proxy.port).parse().unwrap();
        Box::pin(async move { connect(&self.env, &address, None).unwrap() })
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { tokio::task::block_in_place(|| self.server.kill()) })
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { tokio::task::block_in_place(|| self.server.start()) })
    }

    fn lose_answers(&self) -> bool {
        self.proxy.lose_answers();
        true
    }

    fn mend(&self) {
        self.proxy.mend();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_jetstream_keeps_the_promises_of_transports() {
    let Some(server) = server() else { return };
    let proxy = Proxy::to(server.port()).await;
    conformance::all(&Nats { env: Env::real(), server, proxy }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_nats_an_effect_is_once_per_message_and_in_order_whoever_is_killed() {
    const TEST: &str = "nats::over_nats_an_effect_is_once_per_message_and_in_order_whoever_is_killed";
    if killed::is_child() {
        return killed::child().await;
    }
    let Some(server) = server() else { return };
    let address = format!("nats://127.0.0.1:{}", server.port());
    tokio::task::block_in_place(|| killed::parent(TEST, &address, &server));
}
