//! Deciders over PostgreSQL: several nodes decide about the same things at once.

#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

#[path = "../../../data/tests/sqlite/child.rs"]
mod child;
mod sagas;
mod sagas_beside;
#[path = "../../../data/tests/postgres/server.rs"]
#[allow(dead_code, reason = "other tests end the server")]
mod server;
mod two_phase_commit;

use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use quorate_consistency::{
    cqrs::{self, CommandError, Commands, Key},
    event_sourcing::{
        Aggregate, Aggregates, Config, Decider, Decisions, DynamicBoundary, HandleError, Metadata, Snapshotted,
    },
    event_types,
};
use quorate_data::{
    event::Position,
    schema::upcast::Upcasters,
    store::{Query, QueryItem, ReadLog, Store, postgres},
};
use quorate_foundations::name::{Name, NameError};
use quorate_runtime::Env;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    Added { purse: u8, cents: u64 },
    Taken { purse: u8, cents: u64 },
}

event_types! {
    Event {
        Added { purse } = "purse.added" version 1 tags ["purse:{purse}"],
        Taken { purse } = "purse.taken" version 1 tags ["purse:{purse}"],
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
enum Command {
    Add { purse: u8, cents: u64 },
    Take { purse: u8, cents: u64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct TooLittle {
    missing: u64,
}

#[derive(Clone, Copy)]
struct Purse;

impl Decider for Purse {
    type Command = Command;
    type Event = Event;
    type State = u64;
    type Rejection = TooLittle;

    fn decide(&self, held: &u64, command: &Command) -> Result<Vec<Event>, TooLittle> {
        match *command {
            Command::Add { purse, cents } => Ok(vec![Event::Added { purse, cents }]),
            Command::Take { purse, cents } if cents <= *held => Ok(vec![Event::Taken { purse, cents }]),
            Command::Take { cents, .. } => Err(TooLittle { missing: cents - held }),
        }
    }

    fn evolve(held: u64, event: &Event) -> u64 {
        match event {
            Event::Added { cents, .. } => held + cents,
            Event::Taken { cents, .. } => held.checked_sub(*cents).expect("nobody took more than there was"),
        }
    }
}

impl Aggregate for Purse {
    const CATEGORY: &'static str = "purse";
}

impl Snapshotted for Purse {
    const FOLD_VERSION: u32 = 1;

    fn probe() -> Vec<Event> {
        Vec::new()
    }
}

impl DynamicBoundary for Purse {
    fn boundary(&self, command: &Command) -> Query {
        let (Command::Add { purse, .. } | Command::Take { purse, .. }) = command;
        Query::of([QueryItem::tags([format!("purse:{purse}")])])
    }

    fn stream(&self, event: &Event) -> Result<Name, NameError> {
        let (Event::Added { purse, .. } | Event::Taken { purse, .. }) = event;
        Name::new(format!("tagged-{purse}"))
    }
}

/// `nodes` stores over one new schema; none where there is no server, which was said.
async fn stores(nodes: usize) -> Option<Vec<Store>> {
    let place = place()?;
    let mut stores = Vec::new();
    for _ in 0..nodes {
        stores.push(open(&place).await);
    }
    Some(stores)
}

/// Where a new schema is: the server's address and its name, as another process is told.
fn place() -> Option<String> {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let (process, made) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    Some(format!("{} c_{process}_{made}", server::address()?))
}

async fn open(place: &str) -> Store {
    let (address, schema) = place.rsplit_once(' ').unwrap();
    let config = postgres::Config::at(address).unwrap();
    let (schema, application) = (schema.to_owned(), format!("{schema}_app"));
    let config = postgres::Config { schema, application, connections: 6, ..config };
    postgres::open(&Env::real(), config).await.unwrap()
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test);
}

fn patient() -> Config {
    Config { attempts: NonZeroU32::new(1_000).unwrap(), ..Config::default() }
}

#[test]
fn nodes_that_decide_about_one_aggregate_decide_one_after_the_other() {
    run(async {
        let Some(stores) = stores(2).await else { return };
        let mut nodes = Vec::new();
        for (n, store) in stores.iter().enumerate() {
            let purses = Aggregates::of(Purse).config(patient());
            // One of them keeps snapshots and no states.
            let snapshots = Config { cached_states: 0, ..patient() };
            nodes.push(match n {
                0 => purses.open(store).await.unwrap(),
                _ => purses.config(snapshots).snapshots_every(NonZeroU64::new(5).unwrap()).open(store).await.unwrap(),
            });
        }
        let work = (0..40_u64).map(|n| {
            let purses = &nodes[usize::try_from(n % 2).unwrap()];
            let command = match n % 4 {
                0 | 1 => Command::Add { purse: 1, cents: 10 },
                _ => Command::Take { purse: 1, cents: 15 },
            };
            async move { purses.handle(1, command, Metadata::default()).await }
        });
        // They were not decided in the order in which they were asked for.
        let (mut added, mut taken) = (0, 0);
        for answer in join_all(work).await {
            match answer {
                Ok(outcome) => match outcome.events[..] {
                    [Event::Added { cents, .. }] => added += cents,
                    [Event::Taken { cents, .. }] => taken += cents,
                    ref other => panic!("{other:?}"),
                },
                Err(HandleError::Rejected(TooLittle { .. })) => {}
                Err(failed) => panic!("{failed}"),
            }
        }
        for node in &nodes {
            node.flush().await;
            assert_eq!(*node.load(1).await.unwrap().state, added - taken);
        }
    });
}

#[test]
fn a_token_of_a_command_stands_for_its_events_on_every_node() {
    run(async {
        let Some(stores) = stores(2).await else { return };
        let purses = Aggregates::of(Purse).open(&stores[0]).await.unwrap();
        for n in 1..=10 {
            let done = purses.handle(1, Command::Add { purse: 1, cents: 1 }, Metadata::default()).await.unwrap();
            let place = stores[1].reach(done.token, std::time::Duration::from_secs(20)).await.unwrap();
            assert_eq!(place, Some(Position::new(n)));
            // A state that was only read stands for everything that is in it.
            let loaded = purses.load(1).await.unwrap();
            assert_eq!(stores[1].place(loaded.token).await.unwrap(), Some(Position::new(n)));
        }
    });
}

#[test]
fn a_command_with_a_key_is_carried_out_once_whichever_node_it_comes_to() {
    run(async {
        let Some(stores) = stores(2).await else { return };
        let mut nodes = Vec::new();
        for store in &stores {
            let purses = Aggregates::of(Purse).config(patient()).open(store).await.unwrap();
            nodes.push(Commands::open(purses, cqrs::Config::default()).await.unwrap());
        }
        for n in 0..5 {
            let key = Key::new(format!("k-{n}")).unwrap();
            let sent = nodes.iter().map(|node| node.send(1, Command::Add { purse: 1, cents: 1 }, &key));
            let receipts: Vec<_> = join_all(sent).await.into_iter().map(Result::unwrap).collect();
            assert_eq!((receipts[0].version, receipts[0].token), (receipts[1].version, receipts[1].token));
            assert_eq!(receipts.iter().filter(|receipt| receipt.repeated).count(), 1);
            assert!(stores[1].place(receipts[0].token).await.unwrap().is_some());
        }
        let key = Key::new("no").unwrap();
        for (n, node) in nodes.iter().enumerate() {
            let no = node.send(1, Command::Take { purse: 1, cents: 9 }, &key).await.unwrap_err();
            let CommandError::Rejected { rejection, repeated, .. } = no else { panic!("{no:?}") };
            assert_eq!((rejection, repeated), (TooLittle { missing: 4 }, n > 0));
        }
    });
}

#[test]
fn what_a_transaction_decides_sees_what_it_appended_before() {
    run(async {
        let Some(stores) = stores(1).await else { return };
        let purses = Aggregates::of(Purse).open(&stores[0]).await.unwrap();
        let inside = purses.clone();
        let (is_refused, token) = stores[0]
            .transact_with_token(move |tx| {
                let purses = inside.clone();
                Box::pin(async move {
                    for command in [Command::Add { purse: 1, cents: 5 }, Command::Take { purse: 1, cents: 5 }] {
                        let done = purses.handle_in(tx, 1, command, Metadata::default()).await;
                        done.map_err(|failed| failed.to_string())?;
                    }
                    let refused =
                        purses.handle_in(tx, 1, Command::Take { purse: 1, cents: 1 }, Metadata::default()).await;
                    assert!(matches!(refused, Err(HandleError::Rejected(TooLittle { missing: 1 }))), "{refused:?}");
                    Ok::<_, String>(refused.is_err())
                })
            })
            .await
            .unwrap();
        assert!(is_refused);
        assert_eq!(stores[0].place(token).await.unwrap(), Some(Position::new(2)));
        assert_eq!((*purses.load(1).await.unwrap().state, purses.load(1).await.unwrap().version.get()), (0, 2));
    });
}

#[test]
fn decisions_over_tags_do_not_overlook_each_other_across_nodes() {
    run(async {
        let Some(stores) = stores(2).await else { return };
        let nodes: Vec<Decisions<Purse>> = stores
            .iter()
            .map(|store| Decisions::open(store, Purse, patient(), Upcasters::default()).unwrap())
            .collect();
        nodes[0].handle(Command::Add { purse: 1, cents: 30 }, Metadata::default()).await.unwrap();
        let takers = (0..20).map(|n| nodes[n % 2].handle(Command::Take { purse: 1, cents: 10 }, Metadata::default()));
        let taken = join_all(takers).await;
        assert_eq!(taken.iter().filter(|answer| answer.is_ok()).count(), 3);
        for refused in taken.iter().filter_map(|answer| answer.as_ref().err()) {
            assert!(matches!(refused, HandleError::Rejected(TooLittle { missing: 10 })), "{refused}");
        }
        let read = ReadLog { query: Query::EVERYTHING, after: Position::ZERO, limit: 100 };
        assert_eq!(stores[1].read_log(read).await.unwrap().events.len(), 4);
    });
}
