//! A node as a process of its own, which can be killed and started again where its store is.

use std::{net::SocketAddr, path::Path, time::Duration};

use quorate_runtime::Env;
use serde_json::Value;

use super::child::Role;
use crate::{
    client::{Call, Client},
    demo::{
        process::{Process, STARTING},
        proxy::Proxy,
    },
    exit::{Exit, Failure},
};

/// How long something that has to happen is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// Starts a process of a pattern, which says where it is.
pub(super) async fn start<P: serde::de::DeserializeOwned>(
    env: &Env,
    name: &str,
    role: &Role,
) -> Result<(Process, P), Failure> {
    Process::start(env, name, &["patterns", "--child"], role).await
}

/// A node. Its address stays when it comes back.
pub(super) struct Node {
    env: Env,
    role: Role,
    proxy: Proxy,
    process: Process,
}

impl Node {
    /// Starts one whose store is in `folder`.
    pub(super) async fn start(env: &Env, folder: &Path) -> Result<Self, Failure> {
        let (role, proxy) = (Role::Node(folder.to_owned()), Proxy::start(env).await?);
        let (process, place) = start::<SocketAddr>(env, "the node", &role).await?;
        proxy.lead_to(Some(place));
        Ok(Self { env: env.clone(), role, proxy, process })
    }

    /// Where it is asked.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.proxy.address())
    }

    /// Kills it, as `kill -9` does, and starts it again.
    pub(super) async fn kill_and_start(&mut self) -> Result<(), Failure> {
        self.proxy.lead_to(None);
        self.process.kill().await;
        let (process, place) = start::<SocketAddr>(&self.env, "the node", &self.role).await?;
        self.process = process;
        self.proxy.lead_to(Some(place));
        Ok(())
    }

    /// Makes a call to it.
    pub(super) async fn call(&self, call: &Call) -> Result<Value, Failure> {
        client(&self.env, &self.url())?.answer(call).await
    }
}

/// A client of whoever answers at `url`.
pub(super) fn client(env: &Env, url: &str) -> Result<Client, Failure> {
    let server = url.parse().map_err(|wrong| Failure::new(Exit::Usage, format!("{url}: {wrong}")))?;
    Ok(Client::new(env, server, STARTING))
}

/// Waits until `holds`, and says whether it did within [`PATIENCE`].
pub(super) async fn until(env: &Env, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let by = env.mono() + PATIENCE;
    loop {
        if holds().await {
            return true;
        }
        if env.mono() >= by {
            return false;
        }
        env.sleep(LOOK).await;
    }
}
