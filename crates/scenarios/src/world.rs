//! What all scenarios of the log share: a node, clients that come to an end, and a last reader.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_runtime::{Env, random::Rng};
use quorate_sim::{Phase, Sim};
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    Report,
    client::{Call, Client, Reply},
    judge, node,
    notes::{Action, Note, Notes, Seen},
};

/// How long a client waits for a reply.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it rests after something did not work.
const REST: Duration = Duration::from_millis(100);
/// Events in a page.
const PAGE: usize = 500;

/// A world with one node, and what its clients write down.
pub(crate) struct LogWorld {
    sim: Sim,
    to: SocketAddr,
    notes: Notes,
    /// Clients that have not done their work yet.
    busy: Arc<AtomicUsize>,
}

/// A client at work.
pub(crate) struct Hand {
    pub(crate) name: String,
    pub(crate) env: Env,
    pub(crate) client: Client,
    pub(crate) notes: Notes,
    pub(crate) rng: Rng,
    to: SocketAddr,
    phase: watch::Receiver<Phase>,
}

impl LogWorld {
    pub(crate) fn new(mut sim: Sim) -> Self {
        let (_, to) = node::add(&mut sim, "node");
        let notes = Notes::new(sim.true_time());
        Self { sim, to, notes, busy: Arc::default() }
    }

    /// Adds a client that does `work`; the log is read for the last time once all have.
    pub(crate) fn hand<F, R>(&mut self, name: &str, work: F)
    where
        F: Fn(Hand) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.busy.fetch_add(1, Ordering::Relaxed);
        let (busy, notes, to, name_of) = (self.busy.clone(), self.notes.clone(), self.to, name.to_owned());
        let phase = self.sim.phase();
        let work = Arc::new(work);
        self.sim.client(name, move |env| {
            let (busy, work) = (busy.clone(), work.clone());
            let hand = Hand {
                name: name_of.clone(),
                client: Client::new(&env, to, PATIENCE),
                notes: notes.clone(),
                rng: env.random("hand"),
                env,
                to,
                phase: phase.clone(),
            };
            async move {
                work(hand).await;
                busy.fetch_sub(1, Ordering::Relaxed);
                Ok(())
            }
        });
    }

    /// Adds a follower that is told of the log until it has heard of everything there is when all hands are done.
    pub(crate) fn follower<F, R>(&mut self, name: &str, work: F)
    where
        F: Fn(Hand, Arc<AtomicUsize>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (busy, notes, to, name_of) = (self.busy.clone(), self.notes.clone(), self.to, name.to_owned());
        let phase = self.sim.phase();
        let work = Arc::new(work);
        self.sim.client(name, move |env| {
            let hand = Hand {
                name: name_of.clone(),
                client: Client::new(&env, to, PATIENCE),
                notes: notes.clone(),
                rng: env.random("hand"),
                env,
                to,
                phase: phase.clone(),
            };
            let (work, busy) = (work.clone(), busy.clone());
            async move { work(hand, busy).await }
        });
    }

    /// Runs the world and judges what was written down.
    pub(crate) fn run(mut self, more: fn(&[Note]) -> Vec<quorate_sim::Violation>) -> Report {
        let (mut phase, busy, notes, to) = (self.sim.phase(), self.busy.clone(), self.notes.clone(), self.to);
        phase.mark_unchanged();
        self.sim.client("last reader", move |env| {
            let (mut phase, busy, notes) = (phase.clone(), busy.clone(), notes.clone());
            async move {
                // Whoever sends the phase outlives everybody in the world.
                let _ = phase.wait_for(|phase| *phase == Phase::Healed).await;
                while busy.load(Ordering::Relaxed) > 0 {
                    env.sleep(REST).await;
                }
                let client = Client::new(&env, to, PATIENCE);
                let rng = env.random("hand");
                let mut hand = Hand { name: "last reader".to_owned(), env, client, notes, rng, to, phase };
                while !hand.read_log().await {
                    hand.rest().await;
                }
                Ok(())
            }
        });
        let mut outcome = self.sim.run();
        let notes = self.notes.take();
        if outcome.passed() {
            outcome.find(judge::all(&notes));
            outcome.find(more(&notes));
        }
        Report { outcome, notes }
    }
}

impl Hand {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap_or(0)
    }

    /// Waits a little, not always as long.
    pub(crate) async fn rest(&mut self) {
        let span = REST + Duration::from_millis(self.rng.below(100));
        self.env.sleep(span).await;
    }

    /// Whether nothing goes wrong any more.
    pub(crate) fn is_healed(&self) -> bool {
        *self.phase.borrow() == Phase::Healed
    }

    /// A client of its own on another connection.
    pub(crate) fn another(&self) -> Client {
        Client::new(&self.env, self.to, PATIENCE)
    }

    /// Makes a call; `None` where nothing certain was answered.
    pub(crate) async fn ask(&mut self, call: &Call) -> Option<Reply> {
        self.client.call(call).await.ok().filter(|reply| !reply.status.is_server_error())
    }

    /// Reads a stream to its end and writes down what was there. `false` where it could not be read.
    pub(crate) async fn read_stream(&mut self, stream: &str) -> Option<u64> {
        let (invoked, mut ids) = (self.notes.now(), Vec::new());
        loop {
            let from = ids.len() + 1;
            let reply = self.ask(&Call::get(format!("/v1/streams/{stream}/events?from={from}&limit={PAGE}"))).await?;
            if reply.status == http::StatusCode::NOT_FOUND {
                break;
            }
            let events = seen(&reply.value());
            let last = events.len() < PAGE;
            ids.extend(events.into_iter().map(|event| event.id));
            if last {
                break;
            }
        }
        let version = ids.len() as u64;
        self.notes.add(&self.name, invoked, Action::ReadStream { stream: stream.to_owned(), ids });
        Some(version)
    }

    /// Reads the log to its end and writes down what was there. `false` where it could not be read.
    pub(crate) async fn read_log(&mut self) -> bool {
        let (invoked, mut events) = (self.notes.now(), Vec::new());
        loop {
            let after = events.last().map_or(0, |event: &Seen| event.position);
            let Some(reply) = self.ask(&Call::get(format!("/v1/events?after={after}&limit={PAGE}"))).await else {
                return false;
            };
            let page = seen(&reply.value());
            let last = page.len() < PAGE;
            events.extend(page);
            if last {
                break;
            }
        }
        self.notes.add(&self.name, invoked, Action::ReadLog { events });
        true
    }
}

/// The events of a page.
pub(crate) fn seen(page: &Value) -> Vec<Seen> {
    page["events"].as_array().map(|events| events.iter().map(event).collect()).unwrap_or_default()
}

/// An event as it is served.
pub(crate) fn event(event: &Value) -> Seen {
    let number = |key: &str| event[key].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    Seen { position: number("logposition"), stream: text("stream"), version: number("streamversion"), id: text("id") }
}
