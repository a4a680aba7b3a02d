//! NATS and RabbitMQ as programs of this machine.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::server::{Kind, Server, free_port, program, skipped, watch};

struct NatsServer {
    program: PathBuf,
    port: u16,
    /// Further arguments.
    arguments: &'static [&'static str],
}

impl Kind for NatsServer {
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--addr", "127.0.0.1", "--jetstream", "--port"]).arg(self.port.to_string());
        command.arg("--store_dir").arg(folder.join("store")).args(self.arguments);
        command
    }

    fn port(&self) -> u16 {
        self.port
    }
}

/// A running server of NATS, or nothing where there is none to be had.
pub(crate) fn nats() -> Option<Server> {
    nats_with(&[])
}

/// The same with further arguments.
pub(crate) fn nats_with(arguments: &'static [&'static str]) -> Option<Server> {
    let Some(program) = program(&["/usr/sbin/nats-server", "/usr/bin/nats-server", "/usr/local/bin/nats-server"])
    else {
        skipped("nats-server");
        return None;
    };
    Some(Server::new(|_| Box::new(NatsServer { program, port: free_port(), arguments })))
}

pub(crate) fn nats_address(port: u16) -> String {
    format!("nats://127.0.0.1:{port}")
}

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

/// A running broker of RabbitMQ, or nothing where there is none to be had.
pub(crate) fn rabbitmq() -> Option<Server> {
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

pub(crate) fn rabbitmq_address(port: u16) -> String {
    format!("amqp://guest:guest@127.0.0.1:{port}/%2f")
}
