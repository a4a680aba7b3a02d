//! A node as a process of its own, which can be killed and started again where its store is.

use std::{net::SocketAddr, path::Path, time::Duration};

use quorate_runtime::Env;
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::child::Role;
use crate::{
    client::{Call, Client, TOKEN},
    demo::{
        process::{Process, STARTING},
        proxy::{Line, Proxy},
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

/// A node, and what else its process serves. Its addresses stay when it comes back.
pub(super) struct Node {
    env: Env,
    role: Role,
    proxies: Vec<Proxy>,
    process: Process,
}

impl Node {
    /// Starts one whose store is in `folder`.
    pub(super) async fn start(env: &Env, folder: &Path) -> Result<Self, Failure> {
        Self::start_as(env, Role::Node(folder.to_owned())).await
    }

    /// Starts a process that says where its node is, and where it can be asked for something else.
    pub(super) async fn start_as(env: &Env, role: Role) -> Result<Self, Failure> {
        let (process, places) = start::<Vec<SocketAddr>>(env, "the node", &role).await?;
        let mut proxies = Vec::new();
        for place in places {
            let proxy = Proxy::start(env).await?;
            proxy.lead_to(Some(place));
            proxies.push(proxy);
        }
        Ok(Self { env: env.clone(), role, proxies, process })
    }

    /// Where it is asked.
    pub(super) fn url(&self) -> String {
        self.url_of(0)
    }

    /// Where the `nth` of what its process serves is asked; the first is the node.
    pub(super) fn url_of(&self, nth: usize) -> String {
        format!("http://{}", self.proxies[nth].address())
    }

    /// Makes the line to that so.
    pub(super) fn line_of(&self, nth: usize, line: Line) {
        self.proxies[nth].set(line);
    }

    /// Kills it, as `kill -9` does.
    pub(super) async fn kill(&mut self) {
        for proxy in &self.proxies {
            proxy.lead_to(None);
        }
        self.process.kill().await;
    }

    /// Tells it to stop, as SIGTERM does.
    pub(super) fn tell_to_stop(&self) {
        if let Some(id) = self.process.id() {
            // One that has ended by itself has stopped as well.
            let _sent = kill_process(id, Signal::TERM);
        }
    }

    /// Whether its process is gone.
    pub(super) fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    /// Starts it again, once it was killed.
    pub(super) async fn come_back(&mut self) -> Result<(), Failure> {
        let (process, places) = start::<Vec<SocketAddr>>(&self.env, "the node", &self.role).await?;
        self.process = process;
        for (proxy, place) in self.proxies.iter().zip(places) {
            proxy.lead_to(Some(place));
        }
        Ok(())
    }

    /// Kills it, and starts it again.
    pub(super) async fn kill_and_start(&mut self) -> Result<(), Failure> {
        self.kill().await;
        self.come_back().await
    }

    /// Makes a call to it.
    pub(super) async fn call(&self, call: &Call) -> Result<Value, Failure> {
        client(&self.env, &self.url())?.answer(call).await
    }

    /// A number among its metrics; nothing where it does not say.
    pub(super) async fn metric(&self, name: &str) -> Option<u64> {
        let told = client(&self.env, &self.url()).ok()?.call(&Call::get("/metrics")).await.ok()?;
        let text = String::from_utf8_lossy(&told.body);
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// The whole log, event by event.
    pub(super) async fn events(&self) -> Result<Vec<Value>, Failure> {
        let (mut events, mut after) = (Vec::new(), 0);
        loop {
            let page = self.call(&Call::get(format!("/v1/events?after={after}&limit=2000"))).await?;
            events.extend(page["events"].as_array().cloned().unwrap_or_default());
            match position(&page["scanned"]) {
                Some(scanned) if scanned > after && Some(scanned) < position(&page["head"]) => after = scanned,
                _ => return Ok(events),
            }
        }
    }
}

/// A position as JSON has it.
pub(super) fn position(told: &Value) -> Option<u64> {
    told.as_str()?.parse().ok()
}

/// A read that shows at least the write with this token, or waits for a few seconds, and is otherwise told that it cannot.
pub(super) fn fresh(read: Call, token: &str) -> Result<Call, Failure> {
    read.header(TOKEN, token)?.header(http::HeaderName::from_static("prefer"), "wait=5")
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
