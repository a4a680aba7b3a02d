//! A client at work, in whatever world.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::StatusCode;
use quorate_runtime::{Env, random::Rng};
use quorate_sim::{Phase, check::api::Read};
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    client::{Call, Client, Reply, TOKEN},
    notes::{Action, Notes, Seen, digest},
};

/// Events in a page.
const PAGE: usize = 500;

/// For how long somebody waits who has the whole store checked, which is no more than a moment for what most worlds write.
const PATIENT: Duration = Duration::from_secs(60);

/// How fast clients work and how long they wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The least that a client rests between two things it does; the most is twice as much.
    pub rest: Duration,
    /// How long it waits for a reply.
    pub patience: Duration,
    /// How long a lease of a durable subscription lasts. Whole milliseconds.
    pub lease: Duration,
    /// For how long clients go on at least; without it, until they have done what their scenario has for them.
    pub work_for: Option<Duration>,
    /// The most rounds of work that a client does, however much there is.
    pub rounds: usize,
    /// Whether a follower that was told of everything stays until it hears that nothing is new.
    pub stays: bool,
}

/// What all clients of a run share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) notes: Notes,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) busy: Busy,
    pub(crate) pace: Pace,
    /// Whether whoever reads last has the store verified as well.
    pub(crate) verifies: bool,
}

/// The clients that have not done their work yet. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Busy(Arc<Mutex<BTreeSet<String>>>);

/// A client at work.
pub(crate) struct Hand {
    pub(crate) name: String,
    pub(crate) env: Env,
    pub(crate) client: Client,
    pub(crate) notes: Notes,
    pub(crate) rng: Rng,
    pub(crate) pace: Pace,
    pub(crate) busy: Busy,
    to: SocketAddr,
    phase: watch::Receiver<Phase>,
    verifies: bool,
}

impl Pace {
    /// Where time costs nothing.
    pub const SIMULATED: Self = Self {
        rest: Duration::from_millis(100),
        patience: Duration::from_secs(3),
        lease: Duration::from_secs(5),
        work_for: None,
        rounds: usize::MAX,
        stays: true,
    };

    /// Where somebody waits for the end: a run takes seconds.
    pub const REAL: Self = Self {
        rest: Duration::from_millis(40),
        patience: Duration::from_secs(1),
        lease: Duration::from_secs(1),
        work_for: None,
        rounds: usize::MAX,
        stays: false,
    };
}

impl Busy {
    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self, name: &str) {
        self.names().insert(name.to_owned());
    }

    /// `name` has done its work, or nobody waits for it any more.
    pub(crate) fn end(&self, name: &str) {
        self.names().remove(name);
    }

    /// Whether nobody works any more.
    pub(crate) fn is_over(&self) -> bool {
        self.names().is_empty()
    }
}

impl Shared {
    /// The client `name`, who finds the node at `to` and draws from `rng`.
    pub(crate) fn hand(&self, name: &str, env: Env, rng: Rng, to: SocketAddr) -> Hand {
        let Self { notes, phase, busy, pace, verifies } = self.clone();
        let client = Client::new(&env, to, pace.patience);
        Hand { name: name.to_owned(), env, client, notes, rng, pace, busy, to, phase, verifies }
    }
}

impl Hand {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap_or(0)
    }

    /// Whether there is a next round of work, after `done` rounds of the `rounds` that a scenario has.
    pub(crate) fn goes_on(&self, done: usize, rounds: usize) -> bool {
        let goes_on = done < self.pace.rounds
            && match self.pace.work_for {
                Some(span) => u128::from(self.notes.now()) < span.as_nanos(),
                None => done < rounds,
            };
        if goes_on {
            self.notes.round(done);
        }
        goes_on
    }

    /// Waits a little, not always as long.
    pub(crate) async fn rest(&mut self) {
        let span = self.pace.rest + self.pace.rest / 100 * u32::try_from(self.rng.below(100)).unwrap_or(0);
        self.env.sleep(span).await;
    }

    /// Whether nothing goes wrong any more.
    pub(crate) fn is_healed(&self) -> bool {
        *self.phase.borrow() == Phase::Healed
    }

    /// Waits until nothing goes wrong any more.
    pub(crate) async fn healed(&mut self) {
        // Whoever sends the phase outlives everybody in the world.
        let _ = self.phase.wait_for(|phase| *phase == Phase::Healed).await;
    }

    /// A client of its own on another connection.
    pub(crate) fn another(&self) -> Client {
        Client::new(&self.env, self.to, self.pace.patience)
    }

    /// Makes a call; `None` where nothing certain was answered.
    pub(crate) async fn ask(&mut self, call: &Call) -> Option<Reply> {
        self.client.call(call).await.ok().filter(|reply| !reply.status.is_server_error())
    }

    /// Reads a stream to its end, writes down what was there, and returns its version. `None` where it could not be read.
    pub(crate) async fn read_stream(&mut self, stream: &str) -> Option<u64> {
        let read = self.with_a_token(Read::stream(stream, 0, u64::MAX));
        let page = |last: Option<&Seen>| {
            let from = last.map_or(0, |event| event.version) + 1;
            format!("/v1/streams/{stream}/events?from={from}&limit={PAGE}")
        };
        self.read(read, page).await.map(|last| last.map_or(0, |event| event.version))
    }

    /// Reads the log to its end, writes down what was there, and returns the last position. `None` where it could not be
    /// read.
    pub(crate) async fn read_log(&mut self) -> Option<u64> {
        let read = self.with_a_token(Read::log(0, u64::MAX));
        let page = |last: Option<&Seen>| {
            let after = last.map_or(0, |event| event.position);
            format!("/v1/events?after={after}&limit={PAGE}")
        };
        self.read(read, page).await.map(|last| last.map_or(0, |event| event.position))
    }

    /// Half of the reads must see what the newest token stands for, whoever was given it.
    fn with_a_token(&mut self, read: Read) -> Read {
        match self.notes.token().filter(|_| self.rng.below(2) == 0) {
            Some(token) => read.with_token(token),
            None => read,
        }
    }

    /// Reads page by page, writes down what was there, and returns the last event.
    async fn read(&mut self, read: Read, path: impl Fn(Option<&Seen>) -> String) -> Option<Option<Seen>> {
        let (invoked, mut events, mut token) = (self.notes.now(), Vec::<Seen>::new(), None);
        loop {
            let call = Call::get(path(events.last()));
            let call = match &read.token {
                Some(token) => call.header(TOKEN, token),
                None => call,
            };
            let reply = self.ask(&call).await?;
            if reply.status == StatusCode::NOT_FOUND && read.stream.is_some() {
                break;
            }
            if !reply.status.is_success() {
                let problem = format!("{} {}", reply.status, reply.value()["type"].as_str().unwrap_or_default());
                self.notes.add(&self.name, invoked, Action::ReadRefused { read, problem });
                return None;
            }
            let page = seen(&reply.value());
            let last = page.len() < PAGE;
            events.extend(page);
            token = reply.token;
            if last {
                break;
            }
        }
        self.notes.keep_token(token.as_deref());
        let last = events.last().cloned();
        self.notes.add(&self.name, invoked, Action::Read { read, events, token });
        Some(last)
    }

    /// Reads the log once nothing goes wrong and nobody works any more: what there finally is. Then has all of it checked, where what
    /// was broken is whole again.
    pub(crate) async fn read_last(mut self) {
        self.healed().await;
        while !self.busy.is_over() {
            self.env.sleep(self.pace.rest).await;
        }
        while self.read_log().await.is_none() {
            self.rest().await;
        }
        if self.verifies {
            self.verify().await;
        }
    }

    /// Has the node check every byte of its store, also what nobody has read, and writes down what it found. It is asked until it has
    /// looked: nothing keeps it from that any more.
    async fn verify(&mut self) {
        let mut client = Client::new(&self.env, self.to, PATIENT);
        let call = Call::post("/v1/store/verify").header("content-type", "application/json");
        let invoked = self.notes.now();
        loop {
            let reply = client.call(&call).await.ok().filter(|reply| reply.status.is_success());
            if let Some(what) = reply.and_then(|reply| verified(&reply.body)) {
                return self.notes.add(&self.name, invoked, what);
            }
            self.rest().await;
        }
    }
}

/// What the last of the lines says that a node answers with while it checks its store; `None` where it could not look.
fn verified(lines: &[u8]) -> Option<Action> {
    let last = lines.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty())?;
    let found: Value = serde_json::from_slice(last).ok()?;
    let is_sound = found["sound"].as_bool()?;
    Some(Action::Verified((!is_sound).then(|| found["findings"].to_string())))
}

/// The events of a page.
pub(crate) fn seen(page: &Value) -> Vec<Seen> {
    page["events"].as_array().map(|events| events.iter().map(event).collect()).unwrap_or_default()
}

/// An event as it is served.
pub(crate) fn event(event: &Value) -> Seen {
    let number = |key: &str| event[key].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    Seen {
        position: number("logposition"),
        stream: text("stream").to_owned(),
        version: number("streamversion"),
        id: text("id").to_owned(),
        kind: text("type").to_owned(),
        tags: text("tags").split_whitespace().map(str::to_owned).collect(),
        content: event["stub"].is_null().then(|| digest(&event["data"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_was_verified_once_its_node_says_what_it_found() {
        let told = |lines: &str| match verified(lines.as_bytes()) {
            Some(Action::Verified(wrong)) => Some(wrong),
            other => other.map(|_| Some("something else".to_owned())),
        };
        let on_its_way = "{\"done\":1,\"of\":2}\n";
        let (sound, wrong) = (r#"{"sound":true,"findings":[]}"#, r#"{"sound":false,"findings":["a hole"]}"#);
        assert_eq!(told(&format!("{on_its_way}{sound}\n")), Some(None));
        assert_eq!(told(&format!("{on_its_way}{wrong}\n")), Some(Some(r#"["a hole"]"#.to_owned())));
        let refused = r#"{"status":409,"type":"/errors/backup-running"}"#;
        for nothing in ["", on_its_way, refused] {
            assert_eq!(told(nothing), None, "{nothing}");
        }
    }
}
