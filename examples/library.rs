//! A library: books are lent at a desk, and the catalogue of what is out is a view that is rebuilt while people use it.
//!
//! `cargo run -p quorate-examples --example library`

use std::time::Duration;

use quorate::{
    Env,
    cqrs::{CommandError, Commands, Config, Key, Question, Questions},
    event::Recorded,
    event_sourcing::{Aggregate, Aggregates, Decider},
    event_types,
    materialized_view::{self, Fold, Folded, Freshness, Switch, Views},
    store::{Query, QueryItem, Row, sqlite},
    view_row,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Event {
    Lent { to: String },
    Returned,
}
event_types! {
    Event {
        Lent = "book.lent" version 1,
        Returned = "book.returned" version 1,
    }
}

#[derive(Serialize)]
enum Command {
    Lend { to: &'static str },
    Return,
}

#[derive(Debug, Serialize, Deserialize)]
struct LentAlready {
    to: String,
}

/// The rule of the desk: a book is lent to one reader at a time.
struct Desk;

impl Decider for Desk {
    type Command = Command;
    type Event = Event;
    type State = Option<String>;
    type Rejection = LentAlready;

    fn decide(&self, lent: &Option<String>, command: &Command) -> Result<Vec<Event>, LentAlready> {
        match (command, lent) {
            (Command::Lend { .. }, Some(reader)) => Err(LentAlready { to: reader.clone() }),
            (Command::Lend { to }, None) => Ok(vec![Event::Lent { to: (*to).to_owned() }]),
            (Command::Return, Some(_)) => Ok(vec![Event::Returned]),
            (Command::Return, None) => Ok(Vec::new()),
        }
    }

    fn evolve(_: Option<String>, event: &Event) -> Option<String> {
        match event {
            Event::Lent { to } => Some(to.clone()),
            Event::Returned => None,
        }
    }
}

impl Aggregate for Desk {
    const CATEGORY: &'static str = "book";
}

view_row! {
    /// A book that is out.
    pub(crate) struct Out in "out" {
        /// Which.
        book: String,
        /// Who has it.
        reader: String,
    }
}

/// The catalogue of books that are out.
struct Catalogue;

impl Fold for Catalogue {
    const NAME: &'static str = "books-out";
    const VERSION: u32 = 1;
    type Row = Out;

    fn query(&self) -> Query {
        Query::of([QueryItem::categories(["book"])])
    }

    fn key(&self, event: &Recorded) -> Option<String> {
        Some(event.stream().to_owned())
    }

    fn fold(&self, _: Option<Out>, event: &Recorded) -> Result<Option<Out>, String> {
        #[derive(Deserialize)]
        struct Lent {
            to: String,
        }
        if event.kind() != "book.lent" {
            return Ok(None);
        }
        let lent: Lent = serde_json::from_slice(event.data().unwrap_or_default()).map_err(|wrong| wrong.to_string())?;
        Ok(Some(Out { book: event.stream().to_owned(), reader: lent.to }))
    }
}

/// What a reader has.
struct WhatHas(&'static str);

impl Question for WhatHas {
    const VIEW: &'static str = "books-out";
    type Answer = Vec<String>;

    fn sql(&self) -> &str {
        "SELECT book FROM {out} WHERE reader = $1 ORDER BY book"
    }

    fn params(&self) -> Vec<quorate::store::Value> {
        vec![self.0.into()]
    }

    fn answer(&self, rows: &[Row]) -> Option<Vec<String>> {
        rows.iter().map(|row| row.at(0).as_str().map(str::to_owned)).collect()
    }
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("library.db"))).await?;
    let views = Views::open(&store).await?;
    let catalogue = views.start(Folded::new(Catalogue), materialized_view::Config::default()).await?;
    let desk = Commands::open(Aggregates::of(Desk).open(&store).await?, Config::default()).await?;
    let questions = Questions::of(&views);

    for (n, book) in ["dune", "emma", "ulysses"].into_iter().enumerate() {
        desk.send(book, Command::Lend { to: "ada" }, &Key::new(format!("morning-{n}"))?).await?;
    }
    // The reply was lost on the way: the same wish with the same key is answered, not carried out.
    let again = desk.send("emma", Command::Lend { to: "ada" }, &Key::new("morning-1")?).await?;
    println!("lent before: {}, at version {}", again.repeated, again.version);

    match desk.send("emma", Command::Lend { to: "bob" }, &Key::new("noon")?).await {
        Err(CommandError::Rejected { rejection, .. }) => println!("bob has to wait: {} has it", rejection.to),
        other => panic!("{other:?}"),
    }

    let returned = desk.send("dune", Command::Return, &Key::new("evening")?).await?;
    let fresh = Freshness { at_least: Some(returned.token), wait: Duration::from_secs(10), ..Freshness::default() };
    let has = questions.ask(&WhatHas("ada"), fresh).await?;
    println!("ada has {:?}, as of position {}", has.answer, has.position);
    assert_eq!(has.answer, ["book-emma", "book-ulysses"]);

    // Made anew beside what readers have; whoever asks meanwhile is answered from the old one.
    let build = views.rebuild(catalogue.name(), Switch::WhenCaughtUp).await?;
    while catalogue.describe().await?.live != Some(build) {
        assert_eq!(questions.ask(&WhatHas("ada"), fresh).await?.answer.len(), 2);
    }
    let audit = catalogue.audit(build).await?;
    println!("build {build} took in {} of {} events", audit.handled, audit.expected);
    assert!(audit.is_whole());
    store.close().await?;
    Ok(())
}
