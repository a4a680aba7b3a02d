use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorate_data::{
    event::NewEvent,
    store::{AppendBatch, ExpectedVersion, Query, QueryItem, Store, sqlite},
    subscription::{self, Backoff, Pull, Selection, Subscriptions},
};
use quorate_foundations::name::Name;
use quorate_runtime::Env;

use super::{
    Relay, RelayConfig, Route, Standing,
    held::{Held, Item},
};
use crate::{
    inbox::{Inbox, InboxConfig},
    message_queue::Queues,
    transports::{Embedded, Faults, Faulty, Outgoing, Receiver, Topic, Transport},
};

struct World {
    _folder: tempfile::TempDir,
    store: Store,
    bus: Embedded,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = sqlite::Config::at(folder.path().join("shop.db"));
        let store = sqlite::open(&Env::real(), config).await.unwrap();
        let bus = Embedded::new(&store, Queues::open(&store).await.unwrap());
        Self { _folder: folder, store, bus }
    }

    async fn append(&self, stream: &str, event: NewEvent) {
        let stream = stream.parse().unwrap();
        self.store.append(AppendBatch::to(stream, ExpectedVersion::Any, vec![event])).await.unwrap();
    }

    async fn relay(&self, config: RelayConfig) -> Relay {
        Relay::start(&self.store, &name("out"), Arc::new(self.bus.clone()), config).await.unwrap()
    }

    async fn join(&self, topic: &Topic) -> Box<dyn Receiver> {
        self.bus.join(topic, &"billing".parse().unwrap()).await.unwrap()
    }

    async fn until<F: AsyncFn() -> bool>(&self, what: &str, holds: F) {
        let reached = async {
            while !holds().await {
                self.store.env().sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(self.store.env().timeout(Duration::from_secs(30), reached).await.is_some(), "not reached: {what}");
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn topic() -> Topic {
    Topic::new("orders".parse().unwrap())
}

fn event(id: &str) -> NewEvent {
    NewEvent::new(id, "/shop", "order.placed").json("{}")
}

/// A relay of what is appended to orders. The embedded bus shares its store, and what it does is none of the relay's.
fn config(topic: Topic) -> RelayConfig {
    let mut config = RelayConfig::to(topic);
    config.subscription.lease_ttl = RelayConfig::MIN_TTL;
    config.subscription.backoff = Backoff { first: Duration::from_millis(5), max: Duration::from_millis(20) };
    config.longest_rest = Duration::from_millis(100);
    config
}

/// The ids of the next messages, each acknowledged.
async fn take(receiver: &mut dyn Receiver, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let next = Env::real().timeout(Duration::from_secs(30), receiver.next()).await;
        let delivery = next.unwrap_or_else(|| panic!("no more than {ids:?} came")).unwrap();
        ids.push(delivery.message.event.id.to_string());
        delivery.ack().await.unwrap();
    }
    ids
}

#[tokio::test]
async fn what_is_committed_is_published_in_order_and_what_is_rolled_back_is_not() {
    let world = World::new().await;
    let mut receiver = world.join(&topic()).await;
    let relay = world.relay(config(topic())).await;
    world.append("order-17", event("1")).await;
    let rolled_back = world.store.transact(|tx| {
        Box::pin(async move {
            tx.append(&name("order-17"), ExpectedVersion::Any, vec![event("never")]).await.unwrap();
            Err::<(), _>(())
        })
    });
    assert!(rolled_back.await.is_err());
    world.append("order-17", event("2")).await;
    assert_eq!(take(&mut *receiver, 2).await, ["1", "2"]);
    world.until("all is settled", async || relay.describe().await.unwrap().subscription.lag_events == 0).await;
    assert_eq!((relay.counts().published, relay.describe().await.unwrap().standing), (2, Standing::Working));
    relay.stop().await;
    assert_eq!(relay.describe().await.unwrap().standing, Standing::Stopped);
}

#[tokio::test]
async fn the_envelope_says_what_debeziums_router_would() {
    let world = World::new().await;
    let mut receiver = world.join(&topic()).await;
    let relay = world.relay(config(topic())).await;
    world.append("order-17-a", event("1")).await;
    let delivery = receiver.next().await.unwrap();
    let extension = |name: &str| format!("{:?}", delivery.message.event.extensions.get(name));
    assert!(extension("aggregatetype").contains("\"order\""), "{}", extension("aggregatetype"));
    assert!(extension("aggregateid").contains("\"17-a\""), "{}", extension("aggregateid"));
    assert_eq!((&*delivery.message.key, &*delivery.message.identity), ("order-17-a", "/shop 1 order 17-a"));
    relay.stop().await;
}

#[tokio::test]
async fn what_an_inbox_took_in_goes_on_as_the_message_that_it_was() {
    let world = World::new().await;
    let (first, second) = (topic(), Topic::new("again".parse().unwrap()));
    let mut receivers = [world.join(&first).await, world.join(&second).await];
    let of = InboxConfig::of(first.clone(), "stock".parse().unwrap());
    let inbox = Inbox::start(&world.store, Arc::new(world.bus.clone()), of, |tx, message| {
        Box::pin(async move {
            // As a stream by key alone keeps it, which does not tell aggregates apart.
            tx.append(&name("in-1"), ExpectedVersion::Any, vec![message.told_apart()]).await?;
            Ok(())
        })
    });
    let inbox = inbox.await.unwrap();
    let mut relays = Vec::new();
    for (relay, topic, category) in [("out", first, "order"), ("on", second, "in")] {
        let mut config = config(topic);
        let categories = vec![category.to_owned()];
        config.subscription.filter = Query::of([QueryItem { categories, ..QueryItem::default() }]);
        let started = Relay::start(&world.store, &name(relay), Arc::new(world.bus.clone()), config).await.unwrap();
        relays.push(started);
    }
    world.append("order-17", event("1")).await;
    for receiver in &mut receivers {
        let next = world.store.env().timeout(Duration::from_secs(30), receiver.next()).await;
        let delivery = next.expect("it comes").unwrap();
        let message = &delivery.message;
        assert_eq!((&*message.identity, &*message.event.id), ("/shop 1 order 17", "1"));
        delivery.ack().await.unwrap();
    }
    // Somebody else's, which names no aggregate and has an id with a blank in it: it gets no aggregate on its way.
    let odd = Outgoing::new("17", NewEvent::new("a b", "/shop", "order.placed"));
    assert!(world.bus.publish(&topic(), vec![odd]).await.iter().all(Result::is_ok));
    let mut identities = Vec::new();
    for receiver in &mut receivers {
        let next = world.store.env().timeout(Duration::from_secs(30), receiver.next()).await;
        let delivery = next.expect("it comes").unwrap();
        let message = &delivery.message;
        assert_eq!((&*message.event.id, message.event.extensions.contains_key("aggregateid")), ("a b", false));
        identities.push(message.identity.clone());
        delivery.ack().await.unwrap();
    }
    assert_eq!(identities[0], identities[1], "to whoever knows messages it is the same");
    for relay in relays {
        assert_eq!(relay.counts().refused, 0);
        relay.stop().await;
    }
    inbox.stop().await;
}

#[tokio::test]
async fn a_relay_that_is_paused_ends_when_its_subscription_is_deleted_and_is_paused_when_it_is_started_again() {
    let world = World::new().await;
    let relay = world.relay(config(topic())).await;
    relay.pause("the broker is being moved").await.unwrap();
    Subscriptions::open(&world.store).await.unwrap().delete(&name("out")).await.unwrap();
    world.until("it ends", async || relay.has_ended()).await;
    let restarted = world.relay(config(topic())).await;
    assert_eq!(restarted.describe().await.unwrap().standing, Standing::Paused);
    for relay in [relay, restarted] {
        relay.stop().await;
    }
}

#[tokio::test]
async fn two_streams_may_have_events_of_one_source_and_id() {
    let world = World::new().await;
    let mut receiver = world.join(&topic()).await;
    let relay = world.relay(config(topic())).await;
    for stream in ["order-1", "order-2"] {
        world.append(stream, event("1")).await;
    }
    world.append("order-3", event("1").json("[]")).await;
    assert_eq!(take(&mut *receiver, 3).await, ["1", "1", "1"]);
    world.until("all is settled", async || relay.describe().await.unwrap().subscription.lag_events == 0).await;
    assert_eq!((relay.counts().published, relay.counts().repeated, relay.counts().refused), (3, 0, 0));
    relay.stop().await;
}

#[tokio::test]
async fn lost_confirms_and_absent_brokers_lose_nothing_reorder_no_key_and_cost_no_attempt() {
    let world = World::new().await;
    let mut receiver = world.join(&topic()).await;
    let faults = Faults { away: 200, lost_confirms: 300, ..Faults::default() };
    let faulty = Arc::new(Faulty::new(world.store.env(), world.bus.clone(), faults));
    let mut config = config(topic());
    config.subscription.max_attempts = 1;
    let relay = Relay::start(&world.store, &name("out"), faulty, config).await.unwrap();
    for n in 0..30 {
        for key in 0..3 {
            world.append(&format!("order-{key}"), event(&format!("{key}-{n:02}"))).await;
        }
    }
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for id in take(&mut *receiver, 90).await {
        by_key.entry(id[..1].to_owned()).or_default().push(id);
    }
    for (key, ids) in by_key {
        assert_eq!(ids, (0..30).map(|n| format!("{key}-{n:02}")).collect::<Vec<_>>());
    }
    world.until("all is settled", async || relay.describe().await.unwrap().subscription.lag_events == 0).await;
    let counts = relay.counts();
    assert!(counts.unknown > 0 && counts.given_back > 0 && counts.repeated > 0, "{counts:?}");
    assert_eq!(relay.describe().await.unwrap().subscription.counts.parked, 0);
    relay.stop().await;
}

#[tokio::test]
async fn an_event_about_a_data_subject_is_parked_with_what_is_behind_it_and_other_keys_go_on() {
    let world = World::new().await;
    let mut receiver = world.join(&topic()).await;
    let relay = world.relay(config(topic())).await;
    world.append("order-1", event("personal").about("customer-4")).await;
    world.append("order-1", event("behind")).await;
    world.append("order-2", event("beside")).await;
    assert_eq!(take(&mut *receiver, 1).await, ["beside"]);
    world.until("two are parked", async || relay.describe().await.unwrap().subscription.counts.parked == 2).await;
    let parked = relay.subscription().parked(quorate_data::event::Position::ZERO, 10).await.unwrap();
    assert!(parked[0].failures[0].reason.contains("data subject"), "{parked:?}");
    assert_eq!(relay.counts().refused, 0);
    relay.stop().await;
}

#[tokio::test]
async fn an_event_that_nobody_would_get_is_parked_after_its_last_attempt_and_can_be_replayed() {
    let world = World::new().await;
    let mut config = config(topic());
    config.route = Route::ByCategory(topic());
    config.subscription.max_attempts = 2;
    let relay = world.relay(config).await;
    world.append("order-1", event("1")).await;
    world.until("it is parked", async || relay.describe().await.unwrap().subscription.counts.parked == 1).await;
    let said = relay.describe().await.unwrap().last_error.unwrap().1;
    assert!(said.contains("`order`") && said.contains("no group"), "{said}");
    let mut receiver = world.join(&Topic::new("order".parse().unwrap())).await;
    assert_eq!(relay.replay(Selection::All).await.unwrap(), 1);
    assert_eq!(take(&mut *receiver, 1).await, ["1"]);
    relay.stop().await;
}

#[tokio::test]
async fn a_full_topic_holds_the_relay_and_costs_no_attempt() {
    let world = World::new().await;
    let full = Topic { max_messages: 2, ..topic() };
    let mut receiver = world.join(&full).await;
    let mut config = config(full);
    config.subscription.max_attempts = 1;
    let relay = world.relay(config).await;
    for n in 0..6 {
        world.append("order-1", event(&n.to_string())).await;
    }
    world.until("it rests", async || relay.describe().await.unwrap().standing == Standing::Resting).await;
    assert!(relay.describe().await.unwrap().last_error.unwrap().1.contains("full"));
    assert_eq!(take(&mut *receiver, 6).await, ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(relay.describe().await.unwrap().subscription.counts.parked, 0);
    relay.stop().await;
}

#[tokio::test]
async fn what_is_full_holds_its_own_events_and_no_others() {
    let world = World::new().await;
    let like = Topic { max_messages: 2, ..topic() };
    let (full, free) = (Topic { name: "full".parse().unwrap(), ..like.clone() }, Topic::new("free".parse().unwrap()));
    let mut of_full = world.join(&full).await;
    let mut of_free = world.join(&free).await;
    let mut config = config(topic());
    config.route = Route::ByCategory(like);
    config.batch = 5;
    config.subscription.max_attempts = 1;
    for n in 0..12 {
        world.append(&format!("full-{n:02}"), event(&format!("f{n:02}"))).await;
    }
    for n in 0..12 {
        world.append("free-1", event(&format!("{n:02}"))).await;
    }
    let relay = world.relay(config).await;
    assert_eq!(take(&mut *of_free, 12).await, (0..12).map(|n| format!("{n:02}")).collect::<Vec<_>>());
    // Longer than a lease: what is held stays held.
    world.store.env().sleep(2 * RelayConfig::MIN_TTL).await;
    assert!(relay.counts().held > 0);
    let mut came = take(&mut *of_full, 12).await;
    came.sort();
    assert_eq!(came, (0..12).map(|n| format!("f{n:02}")).collect::<Vec<_>>());
    assert_eq!(relay.describe().await.unwrap().subscription.counts.parked, 0);
    relay.stop().await;
}

#[tokio::test]
async fn two_relays_of_one_name_share_the_events_and_skip_none() {
    let world = World::new().await;
    let mut receiver = world.join(&topic()).await;
    let relays = [world.relay(config(topic())).await, world.relay(config(topic())).await];
    for n in 0..40 {
        world.append(&format!("order-{}", n % 4), event(&format!("{:02}", n))).await;
    }
    let mut by_key: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for id in take(&mut *receiver, 40).await {
        let n: usize = id.parse().unwrap();
        by_key.entry(n % 4).or_default().push(n);
    }
    for (key, order) in by_key {
        assert_eq!(order, (0..10).map(|n| 4 * n + key).collect::<Vec<_>>(), "of each key in order");
    }
    for relay in relays {
        relay.stop().await;
    }
}

#[tokio::test]
async fn what_is_held_is_handed_to_nobody_during_a_rest_and_what_is_lost_is_dropped() {
    let world = World::new().await;
    let (env, ttl) = (world.store.env(), Duration::from_secs(3));
    let config = subscription::Config { lease_ttl: ttl, ..subscription::Config::default() };
    let subscription = Subscriptions::open(&world.store).await.unwrap().create(&name("out"), config).await.unwrap();
    world.append("order-1", event("1")).await;
    world.append("order-2", event("2")).await;
    let leases: Vec<_> = subscription.pull(Pull::of(10)).await.unwrap().iter().map(|delivery| delivery.lease).collect();
    let mut held = Held::default();
    for lease in &leases {
        let item = Item::new(&world.store, *lease, (topic(), Outgoing::new("a", event("1"))));
        held.hold(item, env.boot(), Duration::from_secs(60), 10).map_err(drop).unwrap();
    }
    held.rest(&subscription, env, ttl, ttl + ttl / 2).await;
    assert_eq!(subscription.pull(Pull::of(10)).await.unwrap().len(), 0, "nobody else is handed what is held");
    subscription.ack(&leases[..1]).await.unwrap();
    held.rest(&subscription, env, ttl, ttl / 2).await;
    assert_eq!(held.leases(), leases[1..]);
}

#[tokio::test]
async fn a_relay_that_is_paused_publishes_nothing_until_it_is_resumed_also_after_a_restart_and_elsewhere() {
    let world = World::new().await;
    let mut receiver = world.join(&topic()).await;
    let (relay, elsewhere) = (world.relay(config(topic())).await, world.relay(config(topic())).await);
    world.append("order-1", event("1")).await;
    assert_eq!(take(&mut *receiver, 1).await, ["1"]);
    relay.pause("the broker is being moved").await.unwrap();
    world.until("others see it", async || elsewhere.describe().await.unwrap().standing == Standing::Paused).await;
    world.append("order-1", event("2")).await;
    relay.stop().await;
    let restarted = world.relay(config(topic())).await;
    let paused = restarted.describe().await.unwrap().paused.unwrap();
    assert_eq!(&*paused.reason, "the broker is being moved");
    restarted.pause("it takes longer").await.unwrap();
    assert_eq!(restarted.describe().await.unwrap().paused.unwrap().since, paused.since);
    let early = world.store.env().timeout(Duration::from_millis(500), receiver.next()).await;
    assert!(early.is_none(), "nothing is published: {early:?}");
    assert_eq!(restarted.describe().await.unwrap().subscription.lag_events, 1);
    restarted.resume().await.unwrap();
    assert_eq!(take(&mut *receiver, 1).await, ["2"]);
    world.until("it works", async || restarted.describe().await.unwrap().standing == Standing::Working).await;
    for relay in [restarted, elsewhere] {
        relay.stop().await;
    }
}
