//! The processes: started, killed, suspended and started again, each behind a proxy of its own.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use quorate_runtime::Env;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
};

use super::{
    plan::SERVICES,
    proxy::{Line, Proxy},
    service::{Place, Settings},
};
use crate::{
    client::{Call, Client},
    exit::{Exit, Failure},
};

/// How long a service may take until it says where it is.
pub(super) const STARTING: Duration = Duration::from_secs(60);

/// A service's process.
pub(super) struct Member {
    settings: Settings,
    proxy: Proxy,
    running: Option<Running>,
    paused: bool,
}

struct Running {
    child: Child,
    place: Place,
    /// The child ends when this is dropped.
    _input: ChildStdin,
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
        let failed =
            |what: String| Failure::new(Exit::Failed, format!("the service `{}`: {what}", self.settings.service));
        let own = std::env::current_exe().map_err(|cause| Failure::io("this program's own file", &cause))?;
        let mut command = Command::new(own);
        command.args(["demo", "--service"]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        // Whoever stops the demo with Ctrl-C stops this process; the services end when it has.
        command.process_group(0);
        let mut child = command.spawn().map_err(|cause| failed(format!("cannot be started: {cause}")))?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("has no input or output".to_owned()));
        };
        let settings = serde_json::to_string(&self.settings).map_err(|cause| failed(cause.to_string()))? + "\n";
        input.write_all(settings.as_bytes()).await.map_err(|cause| failed(format!("ended at once: {cause}")))?;
        let mut line = String::new();
        let mut output = BufReader::new(output);
        let told = env.timeout(STARTING, output.read_line(&mut line)).await;
        let told = told.ok_or_else(|| failed(format!("did not say where it is within {STARTING:?}")))?;
        told.map_err(|cause| failed(cause.to_string()))?;
        let place: Place =
            serde_json::from_str(&line).map_err(|_| failed("ended before it said where it is".to_owned()))?;
        self.proxy.lead_to(Some(place.service));
        self.running = Some(Running { child, place, _input: input });
        Ok(())
    }

    /// Kills its process, as `kill -9` does.
    pub(super) async fn kill(&mut self) {
        self.proxy.lead_to(None);
        if let Some(mut running) = self.running.take() {
            // One that has ended by itself is gone as well.
            let _gone = running.child.kill().await;
        }
    }

    /// Has it stand still, or go on; says whether it does.
    pub(super) fn pause(&mut self, paused: bool) -> bool {
        let pid =
            self.running.as_ref().and_then(|running| running.child.id()).and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid
            && kill_process(pid, if paused { Signal::STOP } else { Signal::CONT }).is_ok()
        {
            self.paused = paused;
        }
        self.paused == paused
    }

    /// Whether it ended although nobody killed it.
    pub(super) fn has_died(&mut self) -> bool {
        self.running.as_mut().is_some_and(|running| matches!(running.child.try_wait(), Ok(Some(_))))
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
