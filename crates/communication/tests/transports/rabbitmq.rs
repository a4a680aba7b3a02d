//! RabbitMQ.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
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
    server::{Kind, Server, free_port, program, skipped, watch},
};

struct Rabbit {
    program: PathBuf,
    port: u16,
    distribution: u16,
    names: u16,
    /// The name server of this node alone.
    epmd: Child,
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        let _gone = self.epmd.kill();
        let _reaped = self.epmd.wait();
    }
}

impl Kind for Rabbit {
    fn command(&self, folder: &Path) -> Command {
        let configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nlog.console = true\nlog.console.level = error\nlog.file = false\n",
            self.port
        );
        std::fs::write(folder.join("rabbitmq.conf"), configuration).unwrap();
        std::fs::write(folder.join("enabled_plugins"), "[].\n").unwrap();
        std::fs::write(folder.join("empty"), "").unwrap();
        let mut command = Command::new(&self.program);
        command
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", format!("quorate{}@localhost", self.port))
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("ERL_EPMD_PORT", self.names.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("empty"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none")
            .current_dir(folder);
        command
    }

    fn port(&self) -> u16 {
        self.port
    }
}

/// A running broker, or nothing where there is none to be had.
pub(crate) fn server() -> Option<Server> {
    // The script itself: the one on the path insists on a user of its own.
    let rabbit = program(&["/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/local/sbin/rabbitmq-server"]);
    let (Some(rabbit), Some(epmd)) = (rabbit, program(&["/usr/bin/epmd", "/usr/local/bin/epmd"])) else {
        skipped("rabbitmq-server");
        return None;
    };
    let names = free_port();
    let mut command = Command::new(epmd);
    command.args(["-port", &names.to_string(), "-address", "127.0.0.1"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let epmd = command.spawn().unwrap();
    watch(epmd.id());
    Some(Server::new(|_| {
        Box::new(Rabbit { program: rabbit, port: free_port(), distribution: free_port(), names, epmd })
    }))
}

fn address(port: u16) -> String {
    format!("amqp://guest:guest@127.0.0.1:{port}/%2f")
}

struct RabbitMq {
    env: Env,
    server: Server,
    proxy: Proxy,
}

impl Place for RabbitMq {
    fn env(&self) -> &Env {
        &self.env
    }

    fn transport(&self) -> BoxFuture<'_, Arc<dyn Transport>> {
        let address = address(self.proxy.port).parse().unwrap();
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
async fn rabbitmq_keeps_the_promises_of_transports() {
    let Some(server) = server() else { return };
    let proxy = Proxy::to(server.port()).await;
    conformance::all(&RabbitMq { env: Env::real(), server, proxy }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_rabbitmq_an_effect_is_once_per_message_and_in_order_whoever_is_killed() {
    const TEST: &str = "rabbitmq::over_rabbitmq_an_effect_is_once_per_message_and_in_order_whoever_is_killed";
    if killed::is_child() {
        return killed::child().await;
    }
    let Some(server) = server() else { return };
    let address = address(server.port());
    tokio::task::block_in_place(|| killed::parent(TEST, &address, &server));
}
