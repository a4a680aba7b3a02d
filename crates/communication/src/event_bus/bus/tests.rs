//! The bus over a real store.

mod edges;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate_data::{
    schema::upcast::Upcasters,
    store::{Store, TransactError, sqlite},
    subscription::{Backoff, Config, OrderKey, Selection, Start, Subscriptions},
};
use quorate_foundations::name::Name;
use quorate_runtime::Env;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Bus, BusError, Context, Event, Group, Handlers, Heard, PublishError};
use crate::message_queue::Failed;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Priced {
    pounds: u64,
}
impl Event for Priced {
    const TYPE: &'static str = "item.priced";
    fn tags(&self) -> Vec<String> {
        vec![format!("price:{}", self.pounds)]
    }
}

/// The same, as it is said today.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PricedInPence {
    pence: u64,
}
impl Event for PricedInPence {
    const TYPE: &'static str = "item.priced";
    const VERSION: u32 = 2;
}

struct World {
    _folder: tempfile::TempDir,
    env: Env,
    store: Store,
    bus: Bus,
}

type Notes<T> = Arc<Mutex<Vec<T>>>;

impl World {
    async fn new() -> Self {
        let (env, folder) = (Env::real(), tempfile::tempdir().unwrap());
        let store = sqlite::open(&env, sqlite::Config::at(folder.path().join("s.db"))).await.unwrap();
        let bus = Bus::new(&store, &Subscriptions::open(&store).await.unwrap(), "/test");
        Self { _folder: folder, env, store, bus }
    }

    /// A group that is told everything `handlers` are for, and an environment to stop it by.
    async fn serve(&self, called: &str, handlers: Handlers, config: Config) -> (Group, Env) {
        let backoff = Backoff { first: Duration::from_millis(10), max: Duration::from_millis(20) };
        let config = Config { filter: handlers.filter(&self.bus), backoff, ..config };
        let group = self.bus.group(&name(called), config).await.unwrap();
        let env = self.env.scope("group");
        env.tasks().spawn("group", group.clone().serve(handlers, env.clone()));
        (group, env)
    }

    /// Waits until all that was appended is settled or parked.
    async fn settled(&self, group: &Group) {
        let waiting = async {
            loop {
                let standing = group.subscription().describe().await.unwrap();
                if standing.checkpoint == standing.head {
                    return;
                }
                self.env.sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(self.env.timeout(PATIENCE, waiting).await.is_some(), "{:?}", group.subscription().describe().await);
    }

    async fn publish<E: Event>(&self, stream: &str, event: E) {
        self.bus.publish(&name(stream), &[event], &Context::default()).await.unwrap();
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Handlers that note what they hear of `E`.
fn noting<E: Event + Clone>(notes: &Notes<(String, E)>) -> Handlers {
    let notes = notes.clone();
    Handlers::default().on(move |heard: Heard<E>| {
        notes.lock().unwrap().push((heard.recorded().stream().to_owned(), heard.event().clone()));
        async { Ok(()) }
    })
}

fn pence() -> Upcasters {
    let up = |data: serde_json::Value| Ok(json!({ "pence": data["pounds"].as_u64().ok_or("no amount")? * 100 }));
    let down = |data: serde_json::Value| Ok(json!({ "pounds": data["pence"].as_u64().ok_or("no amount")? / 100 }));
    Upcasters::builder()
        .latest("item.priced", 2)
        .step("item.priced", 1, 2, up)
        .down("item.priced", 2, 1, down)
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_publishes_is_heard_once_it_commits_and_not_otherwise() {
    let world = World::new().await;
    let notes = Notes::default();
    let (group, _env) = world.serve("g", noting::<Priced>(&notes), Config::default()).await;
    for commits in [false, true] {
        let bus = world.bus.clone();
        let done = world.store.transact(move |tx| {
            let bus = bus.clone();
            Box::pin(async move {
                let event = Priced { pounds: commits.into() };
                bus.publish_in(tx, &name("a"), &[event], &Context::default()).await.map_err(Some)?;
                if commits { Ok(()) } else { Err(None::<PublishError>) }
            })
        });
        assert_eq!(matches!(done.await, Err(TransactError::Aborted(None))), !commits);
    }
    world.publish("b", Priced { pounds: 2 }).await;
    world.settled(&group).await;
    let mut heard = notes.lock().unwrap().clone();
    heard.sort_by_key(|(stream, _)| stream.clone());
    assert_eq!(heard, [("a".to_owned(), Priced { pounds: 1 }), ("b".to_owned(), Priced { pounds: 2 })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_consumer_reads_the_version_it_names_and_both_versions_are_told_to_both() {
    let mut world = World::new().await;
    world.bus = world.bus.clone().with_upcasters(pence());
    let (old, new) = (Notes::default(), Notes::default());
    let (reads_old, _a) = world.serve("old", noting::<Priced>(&old), Config::default()).await;
    let (reads_new, _b) = world.serve("new", noting::<PricedInPence>(&new), Config::default()).await;
    world.publish("a", Priced { pounds: 3 }).await;
    world.publish("a", PricedInPence { pence: 450 }).await;
    world.settled(&reads_old).await;
    world.settled(&reads_new).await;
    let told = |pounds| ("a".to_owned(), Priced { pounds });
    assert_eq!(*old.lock().unwrap(), [told(3), told(4)]);
    let told = |pence| ("a".to_owned(), PricedInPence { pence });
    assert_eq!(*new.lock().unwrap(), [told(300), told(450)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_to_whose_version_no_way_leads_is_parked_and_says_so() {
    let world = World::new().await;
    let notes = Notes::default();
    let (group, _env) = world.serve("g", noting::<PricedInPence>(&notes), Config::default()).await;
    world.publish("a", Priced { pounds: 3 }).await;
    world.publish("b", PricedInPence { pence: 7 }).await;
    world.settled(&group).await;
    let parked = group.subscription().parked(Default::default(), 10).await.unwrap();
    assert_eq!(parked.len(), 1);
    assert!(parked[0].failures[0].reason.contains("no upcaster leads there"), "{parked:?}");
    assert_eq!(notes.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_brings_along_reaches_handlers_and_what_they_publish() {
    let world = World::new().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut headers = http::HeaderMap::new();
    headers.insert("traceparent", trace.parse().unwrap());
    headers.insert("tracestate", "vendor=1".parse().unwrap());
    let contexts = Notes::<(Context, String)>::default();
    let (noted, bus) = (contexts.clone(), world.bus.clone());
    let handlers = Handlers::default().on(move |heard: Heard<Priced>| {
        let (noted, bus) = (noted.clone(), bus.clone());
        async move {
            noted.lock().unwrap().push((heard.context(), heard.recorded().id().to_owned()));
            if heard.event().pounds > 0 {
                let next = Priced { pounds: heard.event().pounds - 1 };
                bus.publish(&name("b"), &[next], &heard.consequence()).await?;
            }
            Ok(())
        }
    });
    let (group, _env) = world.serve("g", handlers, Config::default()).await;
    let context = Context::of_request(&headers).by("ada").in_tenant("acme");
    world.bus.publish(&name("a"), &[Priced { pounds: 2 }], &context).await.unwrap();
    let waiting = async {
        while contexts.lock().unwrap().len() < 3 {
            world.env.sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(world.env.timeout(PATIENCE, waiting).await.is_some());
    world.settled(&group).await;
    let heard = contexts.lock().unwrap().clone();
    let told = |n: usize| (heard[n].0.correlation.as_deref(), heard[n].0.causation.as_deref());
    assert_eq!(told(0), (None, None));
    assert_eq!(told(1), (Some(&*heard[0].1), Some(&*heard[0].1)));
    assert_eq!(told(2), (Some(&*heard[0].1), Some(&*heard[1].1)), "the story keeps its beginning");
    for (context, _) in &heard {
        assert_eq!((context.user.as_deref(), context.tenant.as_deref()), (Some("ada"), Some("acme")));
        let context = context.trace.as_ref().unwrap();
        assert_eq!((context.parent.to_string().as_str(), context.state.to_string().as_str()), (trace, "vendor=1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_or_panics_holds_up_its_key_alone_and_is_parked_after_its_last_attempt() {
    let world = World::new().await;
    let notes = Notes::<(String, u64, u32)>::default();
    let (noted, mended) = (notes.clone(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let is_mended = mended.clone();
    let handlers = Handlers::default().on(move |heard: Heard<Priced>| {
        let (noted, mended) = (noted.clone(), is_mended.load(std::sync::atomic::Ordering::SeqCst));
        async move {
            let (stream, pounds) = (heard.recorded().stream().to_owned(), heard.event().pounds);
            noted.lock().unwrap().push((stream.clone(), pounds, heard.attempt()));
            match (stream.as_str(), pounds) {
                _ if mended => Ok(()),
                ("fails", 1) => Err(Failed::again("not now")),
                ("panics", 1) => panic!("it was not foreseen"),
                ("late", 1) if heard.attempt() < 3 => Err(Failed::again("not yet")),
                _ => Ok(()),
            }
        }
    });
    let (group, _env) = world.serve("g", handlers, Config { max_attempts: 3, ..Config::default() }).await;
    for pounds in [1, 2] {
        for stream in ["fails", "panics", "late", "well"] {
            world.publish(stream, Priced { pounds }).await;
        }
    }
    world.settled(&group).await;
    let of = |stream: &str| {
        let heard = notes.lock().unwrap().clone();
        heard
            .into_iter()
            .filter(|(of, ..)| of == stream)
            .map(|(_, pounds, attempt)| (pounds, attempt))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("well"), [(1, 1), (2, 1)]);
    assert_eq!(of("late"), [(1, 1), (1, 2), (1, 3), (2, 1)]);
    for stream in ["fails", "panics"] {
        assert_eq!(of(stream), [(1, 1), (1, 2), (1, 3)], "what follows waits behind it");
    }
    assert_eq!(group.subscription().describe().await.unwrap().counts.parked, 4);
    assert_eq!(group.counts().failed, 8);
    mended.store(true, std::sync::atomic::Ordering::SeqCst);
    notes.lock().unwrap().clear();
    group.subscription().replay(Selection::All).await.unwrap();
    let waiting = async {
        while notes.lock().unwrap().len() < 4 {
            world.env.sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(world.env.timeout(PATIENCE, waiting).await.is_some());
    assert_eq!(of("fails").iter().map(|(pounds, _)| *pounds).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_and_its_acknowledgement_commit_together_and_a_restart_does_nothing_twice() {
    let world = World::new().await;
    let make = world.store.transact(|tx| {
        Box::pin(async move { tx.execute("CREATE TABLE done (place INTEGER PRIMARY KEY)", &[]).await.map(drop) })
    });
    make.await.unwrap();
    let handlers = |store: Store| {
        Handlers::default().on(move |heard: Heard<Priced>| {
            let store = store.clone();
            async move {
                let work = store.transact(move |tx| {
                    let heard = heard.clone();
                    Box::pin(async move {
                        let place = i64::try_from(heard.recorded().position().get()).unwrap_or(i64::MAX);
                        tx.execute("INSERT INTO done (place) VALUES ($1)", &[place.into()])
                            .await
                            .map_err(|cause| cause.to_string())?;
                        heard.ack_in(tx).await.map_err(|cause| cause.to_string())
                    })
                });
                work.await.map_err(|failed| Failed::again(format!("{failed:?}")))
            }
        })
    };
    let (group, first) = world.serve("g", handlers(world.store.clone()), Config::default()).await;
    for pounds in 0..5 {
        world.publish("a", Priced { pounds }).await;
    }
    world.settled(&group).await;
    first.tasks().shut_down().await;
    let (again, _second) = world.serve("g", handlers(world.store.clone()), Config::default()).await;
    world.publish("a", Priced { pounds: 5 }).await;
    world.settled(&again).await;
    let rows = world.store.query("SELECT count(*) FROM done", vec![]).await.unwrap();
    assert_eq!((rows[0].at(0).as_i64(), again.counts().handled, again.counts().failed), (Some(6), 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_begins_at_a_moment_and_is_found_again_wherever_it_began() {
    let world = World::new().await;
    let mut moments = Vec::new();
    for pounds in 0..6 {
        moments.push(world.env.wall());
        world.env.sleep(Duration::from_millis(2)).await;
        world.publish("a", Priced { pounds }).await;
        world.env.sleep(Duration::from_millis(2)).await;
    }
    for (n, moment) in (0..).zip(&moments) {
        assert_eq!(world.bus.position_at(*moment).await.unwrap().get(), n);
    }
    assert_eq!(world.bus.position_at(world.env.wall()).await.unwrap().get(), 6);
    let notes = Notes::default();
    let since = Start::After(world.bus.position_at(moments[4]).await.unwrap());
    let (group, _env) =
        world.serve("again", noting::<Priced>(&notes), Config { start: since, ..Config::default() }).await;
    world.settled(&group).await;
    assert_eq!(notes.lock().unwrap().iter().map(|(_, event)| event.pounds).collect::<Vec<_>>(), [4, 5]);

    let config = group.subscription().config().clone();
    let found = world.bus.group(&name("again"), Config { start: Start::Beginning, ..config.clone() }).await.unwrap();
    assert_eq!(found.subscription().config().start, since);
    let other = world.bus.group(&name("again"), Config { key: OrderKey::Unordered, ..config }).await;
    assert!(matches!(other.err(), Some(BusError::Subscription(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_hear_everything_each_and_members_of_one_share_it() {
    let world = World::new().await;
    let (one, other) = (Notes::default(), Notes::default());
    let (shared, _a) = world.serve("shared", noting::<Priced>(&one), Config::default()).await;
    let (_shared, _b) = world.serve("shared", noting::<Priced>(&one), Config::default()).await;
    let (alone, _c) = world.serve("alone", noting::<Priced>(&other), Config::default()).await;
    for pounds in 0..20 {
        world.publish(&format!("s{}", pounds % 4), Priced { pounds }).await;
    }
    world.settled(&shared).await;
    world.settled(&alone).await;
    for notes in [one, other] {
        let heard = notes.lock().unwrap().clone();
        assert_eq!(heard.len(), 20);
        for stream in 0..4 {
            let of = heard.iter().filter(|(of, _)| *of == format!("s{stream}")).map(|(_, event)| event.pounds);
            assert!(of.collect::<Vec<_>>().is_sorted(), "{heard:?}");
        }
    }
}

/// What half of an event that was split says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    pounds: u64,
}
impl Event for Seen {
    const TYPE: &'static str = "item.seen";
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_event_that_is_split_no_part_is_lost_when_a_later_one_fails() {
    let mut world = World::new().await;
    let parts = |data: serde_json::Value| {
        let part = |event_type: &str, version| quorate_data::schema::upcast::Versioned {
            event_type: event_type.parse().unwrap(),
            version: quorate_data::schema::SchemaVersion::new(version).unwrap(),
            data: data.clone(),
        };
        Ok(vec![part("item.seen", 1), part("item.priced", 2)])
    };
    let split = Upcasters::builder().latest("item.seen", 1).latest("item.priced", 2);
    let split = split.split(("item.priced", 1), &[("item.seen", 1), ("item.priced", 2)], parts).build().unwrap();
    world.bus = world.bus.clone().with_upcasters(split);
    let notes = Notes::<(&str, u32)>::default();
    let (seen, priced, store) = (notes.clone(), notes.clone(), world.store.clone());

    #[derive(Serialize, Deserialize)]
    struct PricedLater {
        pounds: u64,
    }
    impl Event for PricedLater {
        const TYPE: &'static str = "item.priced";
        const VERSION: u32 = 2;
    }
    let handlers = Handlers::default()
        .on(move |heard: Heard<Seen>| {
            let (seen, store) = (seen.clone(), store.clone());
            async move {
                seen.lock().unwrap().push(("seen", heard.attempt()));
                // It is not the last part, and says so: nothing of this transaction remains.
                let early = store.transact(move |tx| {
                    let heard = heard.clone();
                    Box::pin(async move { heard.ack_in(tx).await })
                });
                assert!(matches!(early.await, Err(TransactError::Aborted(_))));
                Ok(())
            }
        })
        .on(move |heard: Heard<PricedLater>| {
            priced.lock().unwrap().push(("priced", heard.attempt()));
            async move { if heard.attempt() == 1 { Err(Failed::again("not yet")) } else { Ok(()) } }
        });
    let (group, _env) = world.serve("g", handlers, Config::default()).await;
    world.publish("a", Priced { pounds: 3 }).await;
    world.settled(&group).await;
    assert_eq!(*notes.lock().unwrap(), [("seen", 1), ("priced", 1), ("seen", 2), ("priced", 2)]);
}
