//! The service: purses as aggregates, what is in them as a view, and both over a connection, a line each.

use std::{net::SocketAddr, time::Duration};

use quorate_consistency::{
    cqrs::{CommandError, Commands, Config, Key, Question, Questions},
    event_sourcing::{Aggregate, Aggregates, Decider},
    event_types,
};
use quorate_data::{
    event::{Position, Recorded},
    materialized_view::{self, Fold, Folded, Freshness, Views},
    store::{Query, QueryItem, ReadLog, Row, Store, Token, Value, sqlite},
    view_row,
};
use quorate_runtime::{Env, net::Io};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::{Answer, Entry, Held, Ledger, PORT};

/// How long a question waits for its view.
const WAIT: Duration = Duration::from_secs(1);
/// Longer than clocks jump in a world: what is tested is not when answers are forgotten.
const KEEP: Duration = Duration::from_secs(400 * 24 * 3_600);

/// What a client says.
#[derive(Serialize, Deserialize)]
pub(super) enum Said {
    Send { purse: u64, cents: i64, key: String },
    Ask { purse: u64, token: String },
    Close,
}

/// What it is told. A line that never comes says nothing.
#[derive(Serialize, Deserialize)]
pub(super) enum Told {
    Answer(Answer),
    Held(Held),
    Ledger(Ledger),
    /// It could not be done, or nobody knows.
    Failed,
}

#[derive(Serialize, Deserialize)]
enum Event {
    Changed { cents: i64 },
}
event_types! { Event { Changed = "purse.changed" version 1 } }

/// Puts in, or takes out where it is negative.
#[derive(Serialize)]
struct Change(i64);

#[derive(Debug, Serialize, Deserialize)]
struct TooLittle {
    missing: i64,
}

struct Purse;

impl Decider for Purse {
    type Command = Change;
    type Event = Event;
    type State = i64;
    type Rejection = TooLittle;

    fn decide(&self, held: &i64, Change(cents): &Change) -> Result<Vec<Event>, TooLittle> {
        match *cents {
            0 => Ok(Vec::new()),
            cents if held + cents < 0 => Err(TooLittle { missing: -(held + cents) }),
            cents => Ok(vec![Event::Changed { cents }]),
        }
    }

    fn evolve(held: i64, Event::Changed { cents }: &Event) -> i64 {
        held + cents
    }
}

impl Aggregate for Purse {
    const CATEGORY: &'static str = "purse";
}

view_row! {
    /// What is in a purse.
    pub(super) struct Content in "content" {
        /// Which.
        pub purse: u64,
        /// How much.
        pub cents: i64,
        /// How often it was changed.
        pub times: i64,
    }
}

struct Contents;

impl Fold for Contents {
    const NAME: &'static str = "contents";
    const VERSION: u32 = 1;
    type Row = Content;

    fn query(&self) -> Query {
        Query::of([QueryItem::categories(["purse"])])
    }

    fn key(&self, event: &Recorded) -> Option<u64> {
        purse_of(event)
    }

    fn fold(&self, content: Option<Content>, event: &Recorded) -> Result<Option<Content>, String> {
        let purse = purse_of(event).ok_or("it is of no purse")?;
        let changed = cents_of(event).ok_or("it changes nothing")?;
        let Content { cents, times, .. } = content.unwrap_or(Content { purse, cents: 0, times: 0 });
        Ok(Some(Content { purse, cents: cents + changed, times: times + 1 }))
    }
}

fn purse_of(event: &Recorded) -> Option<u64> {
    event.stream().strip_prefix("purse-")?.parse().ok()
}

fn cents_of(event: &Recorded) -> Option<i64> {
    let data: serde_json::Value = serde_json::from_slice(event.data()?).ok()?;
    data["cents"].as_i64()
}

struct HowMuch(u64);

impl Question for HowMuch {
    const VIEW: &'static str = "contents";
    type Answer = (i64, i64);

    fn sql(&self) -> &str {
        "SELECT cents, times FROM {content} WHERE purse = $1"
    }

    fn params(&self) -> Vec<Value> {
        vec![self.0.cast_signed().into()]
    }

    fn answer(&self, rows: &[Row]) -> Option<(i64, i64)> {
        let Some(row) = rows.first() else { return Some((0, 0)) };
        Some((row.at(0).as_i64()?, row.at(1).as_i64()?))
    }
}

/// One life of the service.
#[derive(Clone)]
struct Desk {
    store: Store,
    purses: Commands<Purse>,
    questions: Questions,
}

pub(super) async fn serve(env: Env) -> Result<(), String> {
    let told = |cause: &dyn std::error::Error| cause.to_string();
    let store = sqlite::open(&env, sqlite::Config::at("purses.db")).await.map_err(|cause| told(&cause))?;
    let purses = Aggregates::of(Purse).open(&store).await.map_err(|cause| told(&cause))?;
    let config = Config { keep_answers: KEEP, ..Config::default() };
    let purses = Commands::open(purses, config).await.map_err(|cause| told(&cause))?;
    let views = Views::open(&store).await.map_err(|cause| told(&cause))?;
    views.start(Folded::new(Contents), materialized_view::Config::default()).await.map_err(|cause| told(&cause))?;
    let desk = Desk { store: store.clone(), purses, questions: Questions::of(&views) };
    let at = SocketAddr::from(([0, 0, 0, 0], PORT));
    let listener = env.net().listen(at).await.map_err(|cause| told(&cause))?;
    loop {
        let accepted = tokio::select! {
            biased;
            () = env.tasks().stop().cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        if let Ok((io, _)) = accepted {
            env.tasks().spawn("answer", desk.clone().answer(io));
        }
    }
    // A store whose disk failed cannot be closed in order; the next life looks at what is there.
    store.close().await.ok();
    Ok(())
}

impl Desk {
    /// Answers each line with one.
    async fn answer(self, io: Box<dyn Io>) {
        let (mut io, mut line) = (BufReader::new(io), String::new());
        while io.read_line(&mut line).await.is_ok_and(|read| read > 0) {
            let Ok(said) = serde_json::from_str(&line) else { return };
            let told = self.told(said).await.unwrap_or(Told::Failed);
            let Ok(mut told) = serde_json::to_vec(&told) else { return };
            told.push(b'\n');
            if io.write_all(&told).await.is_err() {
                return;
            }
            line.clear();
        }
    }

    async fn told(&self, said: Said) -> Option<Told> {
        match said {
            Said::Send { purse, cents, key } => self.send(purse, cents, &key).await.map(Told::Answer),
            Said::Ask { purse, token } => self.ask(purse, token.parse().ok()?).await.map(Told::Held),
            Said::Close => self.close().await.map(Told::Ledger),
        }
    }

    async fn send(&self, purse: u64, cents: i64, key: &str) -> Option<Answer> {
        let answer = |missing, events, token: Token, repeated| {
            Some(Answer { missing, events, append: token.append(), token: token.to_string(), repeated })
        };
        match self.purses.send(purse, Change(cents), &Key::new(key).ok()?).await {
            Ok(done) => answer(None, done.events, done.token, done.repeated),
            Err(CommandError::Rejected { rejection: TooLittle { missing }, token, repeated }) => {
                answer(Some(missing), 0, token, repeated)
            }
            Err(failed) => {
                tracing::debug!(%failed, "a command was not answered");
                None
            }
        }
    }

    async fn ask(&self, purse: u64, token: Token) -> Option<Held> {
        let fresh = Freshness { at_least: Some(token), wait: WAIT, ..Freshness::default() };
        let answered = self.questions.ask(&HowMuch(purse), fresh).await.ok()?;
        let (cents, times) = answered.answer;
        Some(Held { cents, times, position: answered.position.get() })
    }

    /// The log to its end, and the view once it has seen all of it.
    async fn close(&self) -> Option<Ledger> {
        let (mut after, mut entries) = (Position::ZERO, Vec::new());
        loop {
            let read = ReadLog { query: Query::EVERYTHING, after, limit: 1_000 };
            let page = self.store.read_log(read).await.ok()?;
            for event in &page.events {
                let (key, _) = event.id().rsplit_once('.')?;
                let (position, key) = (event.position().get(), key.to_owned());
                entries.push(Entry { position, purse: purse_of(event)?, cents: cents_of(event)?, key });
            }
            after = page.scanned;
            if after >= page.head {
                break;
            }
        }
        let mut rows = Vec::new();
        let purses: std::collections::BTreeSet<u64> = entries.iter().map(|entry| entry.purse).collect();
        for purse in purses {
            let held = self.ask(purse, self.store.token()).await?;
            rows.push((purse, held.cents, held.times));
        }
        Some(Ledger { entries, rows })
    }
}
