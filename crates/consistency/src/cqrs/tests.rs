use std::time::Duration;

use quorate_data::{
    event::{NewEvent, Version},
    materialized_view::{self, Fold, Folded, Freshness, ViewError, Views},
    store::{AppendBatch, ExpectedVersion, Query, QueryItem, Retry, Row, Store, Value, sqlite},
    view_row,
};
use quorate_foundations::time::{Boot, Mono, Wall};
use quorate_runtime::{BoxFuture, Env, EnvParts, clock::Clocks};
use serde::{Deserialize, Serialize};

use super::*;
use crate::{
    event_sourcing::{Aggregate, Aggregates, Decider},
    event_types,
};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    Added { cents: u64 },
    Taken { cents: u64 },
}
event_types! {
    Event {
        Added = "purse.added" version 1,
        Taken = "purse.taken" version 1,
    }
}

#[derive(Serialize)]
enum Command {
    Add(u64),
    Take(u64),
    /// As much as there is room for.
    Fill(u128),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct TooLittle {
    missing: u64,
}

struct Purse;

impl Decider for Purse {
    type Command = Command;
    type Event = Event;
    type State = u64;
    type Rejection = TooLittle;

    fn decide(&self, held: &u64, command: &Command) -> Result<Vec<Event>, TooLittle> {
        match *command {
            Command::Add(0) => Ok(vec![]),
            Command::Add(cents) => Ok(vec![Event::Added { cents }]),
            Command::Take(cents) if cents <= *held => Ok(vec![Event::Taken { cents }]),
            Command::Take(cents) => Err(TooLittle { missing: cents - held }),
            Command::Fill(room) => Ok(vec![Event::Added { cents: u64::try_from(room).unwrap_or(1_000) }]),
        }
    }

    fn evolve(held: u64, event: &Event) -> u64 {
        match event {
            Event::Added { cents } => held + cents,
            Event::Taken { cents } => held - cents,
        }
    }
}

impl Aggregate for Purse {
    const CATEGORY: &'static str = "purse";
}

view_row! {
    /// What is in a purse.
    struct Held in "held" {
        purse: String,
        cents: i64,
    }
}

struct Balances;

impl Fold for Balances {
    const NAME: &'static str = "balances";
    const VERSION: u32 = 1;
    type Row = Held;

    fn query(&self) -> Query {
        Query::of([QueryItem::categories(["purse"])])
    }

    fn key(&self, event: &quorate_data::event::Recorded) -> Option<String> {
        Some(event.stream().to_owned())
    }

    fn fold(&self, held: Option<Held>, event: &quorate_data::event::Recorded) -> Result<Option<Held>, String> {
        let value: serde_json::Value =
            event.data().and_then(|data| serde_json::from_slice(data).ok()).ok_or("no data")?;
        let cents = value["cents"].as_i64().ok_or("no cents")?;
        let before = held.map_or(0, |held| held.cents);
        let cents = if event.kind() == "purse.added" { before + cents } else { before - cents };
        Ok(Some(Held { purse: event.stream().to_owned(), cents }))
    }
}

struct HowMuch(&'static str);

impl Question for HowMuch {
    const VIEW: &'static str = "balances";
    type Answer = i64;

    fn sql(&self) -> &str {
        "SELECT cents FROM {held} WHERE purse = $1"
    }

    fn params(&self) -> Vec<Value> {
        vec![self.0.into()]
    }

    fn answer(&self, rows: &[Row]) -> Option<i64> {
        rows.first().map_or(Some(0), |row| row.at(0).as_i64())
    }
}

async fn open(folder: &tempfile::TempDir) -> (Store, Commands<Purse>) {
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("log.db"))).await.unwrap();
    let purses = Aggregates::of(Purse).open(&store).await.unwrap();
    (store, Commands::open(purses, Config::default()).await.unwrap())
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

#[tokio::test]
async fn a_command_is_carried_out_once_however_often_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (store, purses) = open(&folder).await;
    let first = purses.send(1, Command::Add(50), &key("k-1")).await.unwrap();
    assert_eq!((first.events, first.version, first.repeated), (1, Version::new(1), false));
    let again = purses.send(1, Command::Add(50), &key("k-1")).await.unwrap();
    assert_eq!((again.token, again.version, again.repeated), (first.token, first.version, true));
    store.close().await.unwrap();
    let (store, purses) = open(&folder).await;
    assert!(purses.send(1, Command::Add(50), &key("k-1")).await.unwrap().repeated, "also after a restart");
    assert_eq!(store.head().get(), 1);
}

#[tokio::test]
async fn a_rejection_is_an_answer_and_stays_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (store, purses) = open(&folder).await;
    purses.send(1, Command::Add(50), &key("k-1")).await.unwrap();
    let refused = purses.send(1, Command::Take(80), &key("k-2")).await.unwrap_err();
    let CommandError::Rejected { rejection, token, repeated } = &refused else { panic!("{refused:?}") };
    assert_eq!((rejection, *repeated), (&TooLittle { missing: 30 }, false));
    assert_eq!(*token, store.token(), "what it was decided on");
    assert_eq!((refused.retry(), refused.is_outcome_unknown()), (Retry::Never, false));
    purses.send(1, Command::Add(50), &key("k-3")).await.unwrap();
    let again = purses.send(1, Command::Take(80), &key("k-2")).await;
    assert!(matches!(again, Err(CommandError::Rejected { repeated: true, .. })), "{again:?}");
    assert!(purses.send(1, Command::Take(80), &key("k-4")).await.is_ok(), "another wish is decided anew");
}

#[tokio::test]
async fn a_key_is_good_for_one_command_only() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, purses) = open(&folder).await;
    purses.send(1, Command::Add(50), &key("k-1")).await.unwrap();
    let reused = purses.send(1, Command::Add(51), &key("k-1")).await;
    assert!(matches!(reused, Err(CommandError::KeyReused { .. })), "{reused:?}");
    assert!(!purses.send(2, Command::Add(51), &key("k-1")).await.unwrap().repeated, "each aggregate has its own");
}

/// The machine's clocks, with a wall clock that can be moved.
struct Ahead(std::sync::Arc<dyn Clocks>, std::sync::atomic::AtomicI64);

impl Clocks for Ahead {
    fn wall(&self) -> Wall {
        Wall::from_unix_nanos(self.0.wall().unix_nanos() + self.1.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn mono(&self) -> Mono {
        self.0.mono()
    }

    fn boot(&self) -> Boot {
        self.0.boot()
    }

    fn sleep_until(&self, due: Mono) -> BoxFuture<'static, ()> {
        self.0.sleep_until(due)
    }
}

#[tokio::test]
async fn a_key_is_good_for_one_command_only_also_when_its_answer_is_kept_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let parts = Env::real().into_parts();
    let clocks = std::sync::Arc::new(Ahead(parts.clocks.clone(), 0.into()));
    let env = Env::from_parts(EnvParts { clocks: clocks.clone(), ..parts });
    let store = sqlite::open(&env, sqlite::Config::at(folder.path().join("log.db"))).await.unwrap();
    let purses = Aggregates::of(Purse).open(&store).await.unwrap();
    let purses = Commands::open(purses, Config::default()).await.unwrap();
    let first = purses.send(1, Command::Add(50), &key("k-1")).await.unwrap();
    clocks.1.store(8 * 86_400 * 1_000_000_000, std::sync::atomic::Ordering::SeqCst);
    let reused = purses.send(1, Command::Add(51), &key("k-1")).await;
    assert!(matches!(reused, Err(CommandError::KeyReused { .. })), "{reused:?}");
    let again = purses.send(1, Command::Add(50), &key("k-1")).await.unwrap();
    assert_eq!((again.token, again.repeated, store.head().get()), (first.token, true, 1));
    let large = purses.send(2, Command::Fill(u128::MAX), &key("k-2")).await.unwrap();
    clocks.1.store(16 * 86_400 * 1_000_000_000, std::sync::atomic::Ordering::SeqCst);
    let reused = purses.send(2, Command::Fill(u128::MAX - 1), &key("k-2")).await;
    assert!(matches!(reused, Err(CommandError::KeyReused { .. })), "{reused:?}");
    assert_eq!(purses.send(2, Command::Fill(u128::MAX), &key("k-2")).await.unwrap().token, large.token);
}

async fn erase_ada(store: &Store) {
    let about = NewEvent::new("e-1", "/test", "named").json(b"\"Ada\"".as_slice()).about("ada");
    store.append(AppendBatch::to("person-1".parse().unwrap(), ExpectedVersion::Any, vec![about])).await.unwrap();
    store.erase("ada").await.unwrap();
}

#[tokio::test]
async fn an_erasure_forgets_kept_answers_and_no_command() {
    let folder = tempfile::tempdir().unwrap();
    let (store, purses) = open(&folder).await;
    let added = purses.send(1, Command::Add(5), &key("k-1")).await.unwrap();
    purses.send(1, Command::Take(9), &key("k-2")).await.unwrap_err();
    erase_ada(&store).await;
    let again = purses.send(1, Command::Take(9), &key("k-2")).await;
    assert!(matches!(again, Err(CommandError::Rejected { repeated: false, .. })), "{again:?}");
    let again = purses.send(1, Command::Add(5), &key("k-1")).await.unwrap();
    assert_eq!((again.token, again.repeated), (added.token, true));
    let reused = purses.send(1, Command::Add(6), &key("k-1")).await;
    assert!(matches!(reused, Err(CommandError::KeyReused { .. })), "{reused:?}");
}

#[tokio::test]
async fn an_erasure_is_answered_while_commands_come_in() {
    let folder = tempfile::tempdir().unwrap();
    let (store, purses) = open(&folder).await;
    let busy = async {
        for n in 0.. {
            purses.send(1, Command::Take(9), &key(&format!("k-{n}"))).await.unwrap_err();
        }
    };
    let erased = async {
        for _ in 0..3 {
            purses.send(2, Command::Add(5), &key("warm")).await.unwrap();
        }
        erase_ada(&store).await;
    };
    let both = async {
        tokio::select! {
            () = busy => unreachable!("it goes on"),
            () = erased => {}
        }
    };
    store.env().timeout(Duration::from_secs(60), both).await.expect("it is answered");
}

#[tokio::test]
async fn an_erasure_that_came_without_a_desk_is_made_up_for_when_one_opens() {
    let folder = tempfile::tempdir().unwrap();
    let (store, purses) = open(&folder).await;
    purses.send(1, Command::Add(5), &key("k-0")).await.unwrap();
    purses.send(1, Command::Take(9), &key("k-1")).await.unwrap_err();
    store.close().await.unwrap();
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("log.db"))).await.unwrap();
    erase_ada(&store).await;
    store.close().await.unwrap();
    let (store, purses) = open(&folder).await;
    let again = purses.send(1, Command::Take(9), &key("k-1")).await;
    assert!(matches!(again, Err(CommandError::Rejected { repeated: false, .. })), "{again:?}");
    store.close().await.unwrap();
    let (_store, purses) = open(&folder).await;
    let again = purses.send(1, Command::Take(9), &key("k-1")).await;
    assert!(matches!(again, Err(CommandError::Rejected { repeated: true, .. })), "kept since then: {again:?}");
}

#[tokio::test]
async fn a_command_without_events_has_a_token_that_waits_for_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let (store, purses) = open(&folder).await;
    let first = purses.send(1, Command::Add(50), &key("k-1")).await.unwrap();
    purses.send(2, Command::Add(50), &key("k-1")).await.unwrap();
    let nothing = purses.send(1, Command::Add(0), &key("k-2")).await.unwrap();
    assert_eq!((nothing.events, nothing.token), (0, first.token));
    assert!(store.token().append() > nothing.token.append());
}

#[tokio::test]
async fn commands_at_once_take_effect_one_after_another() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, purses) = open(&folder).await;
    purses.send(1, Command::Add(10), &key("k")).await.unwrap();
    let takes: Vec<_> = (0..20).map(|n| (purses.clone(), key(&format!("k-{n}")))).collect();
    let takes = takes.iter().map(|(purses, key)| purses.send(1, Command::Take(1), key));
    let outcomes = futures_util::future::join_all(takes).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 10);
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(CommandError::Rejected { .. }))),
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn a_question_sees_the_callers_own_command_or_says_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (store, purses) = open(&folder).await;
    let views = Views::open(&store).await.unwrap();
    views.start(Folded::new(Balances), materialized_view::Config::default()).await.unwrap();
    let questions = Questions::of(&views);
    for n in 1..=20 {
        let receipt = purses.send(1, Command::Add(1), &key(&format!("k-{n}"))).await.unwrap();
        let fresh = Freshness { at_least: Some(receipt.token), wait: Duration::from_secs(20), ..Freshness::default() };
        assert_eq!(questions.ask(&HowMuch("purse-1"), fresh).await.unwrap().answer, n);
    }
    views.shut_down().await;
    let receipt = purses.send(1, Command::Add(1), &key("late")).await.unwrap();
    let fresh = Freshness { at_least: Some(receipt.token), wait: Duration::from_millis(1), ..Freshness::default() };
    let behind = questions.ask(&HowMuch("purse-1"), fresh).await.unwrap_err();
    assert!(matches!(behind, AskError::View(ViewError::Behind { applied, .. }) if applied.get() == 20), "{behind:?}");
    assert_ne!(behind.retry(), Retry::Never);
}

#[test]
fn a_key_is_printable_and_short() {
    for wrong in ["", "a\nb", "ä", &"k".repeat(256)] {
        assert_eq!(Key::new(wrong), Err(KeyError));
    }
}
