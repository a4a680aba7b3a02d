//! The processes: started, killed, suspended and started again, each behind a proxy of its own.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use quorate_runtime::Env;
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::{
    plan::SERVICES,
    process::Process,
    proxy::{Line, Proxy},
    service::{Place, Settings},
};
use crate::{
    client::{Call, Client},
    exit::Failure,
};

/// A service's process.
pub(super) struct Member {
    settings: Settings,
    proxy: Proxy,
    running: Option<Running>,
    paused: bool,
}

struct Running {
    process: Process,
    place: Place,
}

impl Member {
    /// What it is called.
    pub(super) fn name(&self) -> &str {
        &self.settings.service
    }

    /// Where others ask it.
    pub(super) fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// Where it is, if it runs.
    pub(super) fn place(&self) -> Option<&Place> {
        self.running.as_ref().map(|running| &running.place)
    }

    /// How it is, in a word.
    pub(super) fn condition(&self) -> &'static str {
        match (&self.running, self.paused, self.proxy.line()) {
            (None, ..) => "killed",
            (_, true, _) => "paused",
            (_, _, Line::Slow) => "slow",
            (_, _, Line::Cut) => "cut off",
            (_, _, Line::Mute) => "not heard",
            (_, _, Line::Open) => "up",
        }
    }

    /// Makes the way to it so.
    pub(super) fn line(&self, line: Line) {
        self.proxy.set(line);
    }

    /// How many pieces on the way to it or from it were delayed or lost so far.
    pub(super) fn spoilt(&self) -> u64 {
        self.proxy.spoilt()
    }

    /// Starts its process, and waits until it says where it is.
    pub(super) async fn start(&mut self, env: &Env) -> Result<(), Failure> {
        let what = format!("the service `{}`", self.settings.service);
        let (process, place) = Process::start::<Place>(env, &what, &["demo", "--service"], &self.settings).await?;
        self.proxy.lead_to(Some(place.service));
        self.running = Some(Running { process, place });
        Ok(())
    }

    /// Kills its process, as `kill -9` does.
    pub(super) async fn kill(&mut self) {
        self.proxy.lead_to(None);
        if let Some(mut running) = self.running.take() {
            running.process.kill().await;
        }
    }

    /// Has it stand still, or go on; says whether it does.
    pub(super) fn pause(&mut self, paused: bool) -> bool {
        let pid = self.running.as_ref().and_then(|running| running.process.id());
        if let Some(pid) = pid
            && kill_process(pid, if paused { Signal::STOP } else { Signal::CONT }).is_ok()
        {
            self.paused = paused;
        }
        self.paused == paused
    }

    /// Whether it ended although nobody killed it.
    pub(super) fn has_died(&mut self) -> bool {
        self.running.as_mut().is_some_and(|running| running.process.has_ended())
    }

    /// Asks the service itself, past its proxy.
    ///
    /// # Errors
    /// Where it does not answer in time, or with a no: why.
    pub(super) async fn ask(place: &Place, env: &Env, path: &str, patience: Duration) -> Result<Value, String> {
        let server = format!("http://{}", place.service).parse()?;
        let client = Client::new(env, server, patience);
        let reply = client.call(&Call::get(path)).await.map_err(|cause| cause.to_string())?;
        serde_json::from_slice(&reply.body).map_err(|cause| cause.to_string())
    }
}

/// All services.
pub(super) struct Desk {
    pub(super) members: Vec<Member>,
}

impl Desk {
    /// The services, each with its store below `folder` and its proxy; none is started.
    pub(super) async fn new(
        env: &Env,
        folder: &Path,
        provider: SocketAddr,
        secret: &str,
        forgetful: bool,
    ) -> Result<Self, Failure> {
        let mut proxies = Vec::new();
        for _ in SERVICES {
            proxies.push(Proxy::start(env).await?);
        }
        let peers: BTreeMap<String, SocketAddr> =
            SERVICES.iter().zip(&proxies).map(|(name, proxy)| ((*name).to_owned(), proxy.address())).collect();
        let mut members = Vec::new();
        for (name, proxy) in SERVICES.iter().zip(proxies) {
            let (service, folder): (_, PathBuf) = ((*name).to_owned(), folder.join(name));
            let (peers, secret) = (peers.clone(), secret.to_owned());
            let settings = Settings { service, folder, peers, provider, secret, forgetful };
            members.push(Member { settings, proxy, running: None, paused: false });
        }
        Ok(Self { members })
    }

    /// Starts every service.
    pub(super) async fn start(&mut self, env: &Env) -> Result<(), Failure> {
        let starting = self.members.iter_mut().map(|member| member.start(env));
        futures_util::future::join_all(starting).await.into_iter().collect()
    }

    /// Ends every process.
    pub(super) async fn end(&mut self) {
        for member in &mut self.members {
            member.pause(false);
            member.kill().await;
        }
    }
}
