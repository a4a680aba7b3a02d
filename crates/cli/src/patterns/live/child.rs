//! The processes of a pattern: a node, or whoever works with one.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use quorate_data::store::Store;
use quorate_node::{
    Server,
    config::{Config, Network},
};
use quorate_runtime::Env;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    cqrs,
    event_driven_architecture::Receiver,
    message_queue::Worker,
    request_response::Responder,
    saga::Shop,
    two_phase_commit::{Bank, Teller},
};
use crate::{
    demo::process,
    exit::{Exit, Failure},
};

/// What a process is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    /// A node with its store in this folder.
    Node(PathBuf),
    /// The same, with a desk for commands on purses beside it.
    Desk(PathBuf),
    /// A worker at a queue.
    Worker(Worker),
    /// One that answers requests.
    Responder(Responder),
    /// A service that the node tells of events.
    Receiver(Receiver),
    /// A service that a saga calls.
    Shop(Shop),
    /// A bank that takes part in transactions.
    Bank(Bank),
    /// Who coordinates them, in a node.
    Teller(Teller),
}

/// Is one of a pattern's processes, until whoever started it is gone, or it is told to stop.
pub(crate) async fn run(env: &Env) -> Result<(), Failure> {
    let (role, parent) = process::begin::<Role>("quorate patterns").await?;
    // Before it says where it is: whoever reads that may send the signal at once.
    let watched = signal(SignalKind::terminate());
    let mut terminate = watched.map_err(|cause| Failure::io("signals cannot be watched", &cause))?;
    match role {
        Role::Node(folder) => {
            let (node, _) = serve(env, &folder).await?;
            parent.tell(&json!([node]))?;
        }
        Role::Desk(folder) => {
            let (node, store) = serve(env, &folder).await?;
            parent.tell(&json!([node, cqrs::serve(env, &store).await?]))?;
        }
        Role::Worker(worker) => {
            let own = env.clone();
            parent.tell(&json!(null))?;
            env.tasks().spawn("patterns-worker", async move { worker.work(&own).await });
        }
        Role::Responder(responder) => {
            let own = env.clone();
            parent.tell(&json!(null))?;
            env.tasks().spawn("patterns-responder", async move { responder.work(&own).await });
        }
        Role::Receiver(receiver) => parent.tell(&json!([receiver.open(env).await?]))?,
        Role::Shop(shop) => parent.tell(&json!(shop.open(env).await?))?,
        Role::Bank(bank) => parent.tell(&json!(bank.open(env).await?))?,
        Role::Teller(teller) => parent.tell(&json!(teller.open(env).await?))?,
    }
    tokio::select! {
        () = parent.gone() => {}
        _ = terminate.recv() => {}
    }
    env.tasks().stop().cancel();
    env.tasks().shut_down().await;
    Ok(())
}

/// Runs a node with its store in `folder`; says where it is.
async fn serve(env: &Env, folder: &Path) -> Result<(SocketAddr, Store), Failure> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    // Whoever it calls is of this machine.
    let webhook_targets = vec!["127.0.0.1".parse::<Network>().map_err(|wrong| Failure::of(Exit::Failed, &wrong))?];
    let config = Config { listen, webhook_targets, ..Config::in_folder(folder) };
    let bound = Server::bind(config, env.clone()).await;
    let server = bound.map_err(|cause| Failure::of(Exit::Failed, &cause))?;
    let (address, store) = (server.local_addr(), server.store().clone());
    env.tasks().spawn("patterns-node", async move {
        if let Err(cause) = server.run().await {
            crate::output::complain(&crate::exit::chain(&cause));
        }
    });
    Ok((address, store))
}
