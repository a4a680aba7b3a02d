//! Answering, by a command.

mod child;
mod said;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use http::HeaderValue;
use quorate_communication::request::Payload;
use quorate_resilience::deadline::Deadline;
use quorate_runtime::{Env, tasks::Tasks};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::{child::Did, said::Said};
use super::route;
use crate::{
    client::{Client, ClientError, Follow, Follower, Told},
    exit::Failure,
    output::{Format, Out, note},
    pages::positive,
};

/// No type allows more.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Answers requests, each by a run of the command.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// The type
    name: String,
    /// How many commands run at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = positive)]
    window: usize,
    /// The media type of the answers
    #[arg(long, value_name = "TYPE", default_value = "application/octet-stream", value_parser = media_type)]
    content_type: String,
    /// End after so many requests
    #[arg(long, value_name = "N", value_parser = positive)]
    limit: Option<usize>,
    /// How long to keep dialling a node that went away
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = crate::span)]
    patience: Duration,
    /// Silence after which a connection counts as broken; longer than the node's `http.heartbeat`
    #[arg(long, value_name = "SPAN", default_value = "45s", value_parser = crate::span)]
    silence: Duration,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// A media type that the node takes.
fn media_type(text: &str) -> Result<String, String> {
    let max = Payload::MAX_CONTENT_TYPE;
    if text.len() > max {
        return Err(format!("it has {} bytes, of at most {max}", text.len()));
    }
    let is_printable = HeaderValue::from_str(text).is_ok_and(|media| media.to_str().is_ok());
    is_printable.then(|| text.to_owned()).ok_or_else(|| "it is not printable ASCII".to_owned())
}

/// A request, as the node hands it out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Asked {
    request: String,
    timeout: Option<String>,
    content_type: Option<String>,
    body: Option<String>,
    body_base64: Option<String>,
}

/// Nobody waits for this any more.
#[derive(Debug, Deserialize)]
struct Stop {
    request: String,
}

/// The commands that run.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<Commands>>);

#[derive(Default)]
struct Commands {
    /// Each with what stops it.
    all: BTreeMap<String, CancellationToken>,
    /// Ends with the connection over which their requests came.
    connection: CancellationToken,
}

impl Running {
    fn commands(&self) -> MutexGuard<'_, Commands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(&self) -> CancellationToken {
        self.commands().connection.clone()
    }

    fn begin(&self, request: &str) -> CancellationToken {
        let mut commands = self.commands();
        let stopped = commands.connection.child_token();
        commands.all.insert(request.to_owned(), stopped.clone());
        stopped
    }

    fn end(&self, request: &str) {
        self.commands().all.remove(request);
    }

    fn stop(&self, request: &str) {
        if let Some(stopped) = self.commands().all.remove(request) {
            stopped.cancel();
        }
    }

    /// Nobody can hear any of them any more.
    fn end_all(&self) {
        std::mem::take(&mut *self.commands()).connection.cancel();
    }
}

impl Serve {
    /// Answers requests until the limit is reached, the type is gone, or a signal says so.
    pub(super) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        let watch = |kind| signal(kind).map_err(|cause| Failure::io("signals cannot be watched", &cause));
        let (mut terminate, mut interrupt) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
        let (running, tasks) = (Running::default(), client.env().tasks().child("commands"));
        let served = tokio::select! {
            served = self.serve(client, format, (&running, &tasks)) => served,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        };
        // What runs still is killed and let go: behind the limit nothing does.
        running.end_all();
        tasks.shut_down().await;
        served
    }

    async fn serve(
        &self,
        client: &Client,
        format: Format,
        (running, tasks): (&Running, &Tasks),
    ) -> Result<(), Failure> {
        // What is handed out beyond the limit would be nobody's: an attempt less, or unknown to who waits.
        let window = self.limit.map_or(self.window, |limit| self.window.min(limit));
        let target = route(&self.name, Some("serve")).with("window", window).into();
        let follow = Follow { target, silence: self.silence, patience: self.patience };
        let mut follower = Follower::new(client, follow);
        let how = Arc::new(How {
            client: client.clone(),
            kind: self.name.clone(),
            content_type: self.content_type.clone(),
            command: self.command.clone(),
            format,
        });
        let mut told = 0;
        while self.limit.is_none_or(|limit| told < limit) {
            let lost = &mut |text: &str| {
                note(text);
                running.end_all();
            };
            let one = follower.next(lost).await?;
            match one.event.as_str() {
                "request" => {
                    told += 1;
                    let asked: Asked = read(client, &one)?;
                    let (stopped, connection) = (running.begin(&asked.request), running.connection());
                    let (how, running) = (how.clone(), running.clone());
                    tasks.spawn("command", async move {
                        how.work(&asked, (&stopped, &connection)).await;
                        running.end(&asked.request);
                    });
                }
                "stop" => running.stop(&read::<Stop>(client, &one)?.request),
                _ => {}
            }
        }
        // The follower holds the connection, and with it what is worked on, until all of it is answered.
        tokio::select! {
            biased;
            () = tasks.shut_down() => {}
            heard = hear_out(client, &mut follower, running) => heard?,
        }
        tasks.shut_down().await;
        Ok(())
    }
}

/// Hears who is to stop, until the connection is lost: another one would bring further requests.
async fn hear_out(client: &Client, follower: &mut Follower, running: &Running) -> Result<(), Failure> {
    let connection = running.connection();
    loop {
        let mut lost = |text: &str| {
            note(text);
            running.end_all();
        };
        let one = tokio::select! {
            biased;
            () = connection.cancelled() => return Ok(()),
            one = follower.next(&mut lost) => one?,
        };
        if one.event == "stop" {
            running.stop(&read::<Stop>(client, &one)?.request);
        }
    }
}

fn read<'t, T: Deserialize<'t>>(client: &Client, told: &'t Told) -> Result<T, Failure> {
    serde_json::from_str(&told.data).map_err(|wrong| {
        let what = format!("a request that is none: {wrong}");
        ClientError::Strange { server: client.server().clone(), what }.into()
    })
}

/// How requests are answered.
struct How {
    client: Client,
    kind: String,
    content_type: String,
    command: Vec<String>,
    format: Format,
}

impl How {
    /// Runs the command, and says what came of it.
    async fn work(&self, asked: &Asked, (stopped, connection): (&CancellationToken, &CancellationToken)) {
        let env = self.client.env();
        let deadline = asked.deadline(env);
        let did = tokio::select! {
            biased;
            () = stopped.cancelled() => None,
            did = env.timeout(deadline.remaining(env.mono()).min(LONGEST), child::run(&self.command, asked)) => did,
        };
        let said = Said::of(did.unwrap_or(Did::Vanished), &self.content_type);
        let of = (self.kind.as_str(), asked.request.as_str());
        let (said, receipt) = said.tell(&self.client, of, (deadline, connection)).await;
        // Whoever reads this may have gone; whoever asked has not.
        let _ = self.print(&asked.request, said, &receipt);
    }

    fn print(&self, request: &str, said: &str, receipt: &str) -> Result<(), Failure> {
        let mut out = Out::new();
        match self.format {
            Format::Table => out.line(&[request, said, receipt].join("  "))?,
            Format::Json => {
                out.line(&serde_json::json!({ "request": request, "said": said, "receipt": receipt }).to_string())?;
            }
        }
        out.flush()
    }
}

impl Asked {
    fn deadline(&self, env: &Env) -> Deadline {
        let left = self.timeout.as_deref().and_then(|left| Deadline::from_wire(left, env.mono()).ok());
        left.unwrap_or(Deadline::NEVER)
    }

    /// What is asked.
    fn bytes(&self) -> Vec<u8> {
        let coded = self.body_base64.as_deref().and_then(|text| STANDARD.decode(text).ok());
        coded.unwrap_or_else(|| self.body.clone().unwrap_or_default().into_bytes())
    }
}
