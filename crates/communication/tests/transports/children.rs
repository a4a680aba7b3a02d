//! What the children do that are killed: one publishes, one consumes, each with a store of its own.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use quorate_communication::{
    inbox::{Failed, Inbox, InboxConfig},
    outbox::{Relay, RelayConfig},
    transports::{Topic, Transport, connect},
};
use quorate_data::{
    event::NewEvent,
    store::{AppendBatch, ExpectedVersion, Store, sqlite},
    subscription::Backoff,
};
use quorate_runtime::{Env, EnvParts, probe::Probe};

use super::part::{say, variable};

const KEYS: u64 = 3;
/// Events that may wait for the relay before no more are appended.
const MAX_LAG: u64 = 200;

/// Ends the process at a boundary, the third time that it gets there.
struct Boundary {
    at: String,
    passes: AtomicU32,
}

impl Probe for Boundary {
    fn buggify(&self, _: &'static str) -> bool {
        false
    }

    fn reached(&self, state: &'static str) {
        if state == self.at && self.passes.fetch_add(1, Ordering::SeqCst) == 2 {
            std::process::abort();
        }
    }
}

/// This machine, as far as the child's boundary.
pub(crate) fn env() -> Env {
    let at = std::env::var(variable::DIE_AT).unwrap_or_default();
    let probe = Arc::new(Boundary { at, passes: AtomicU32::default() });
    Env::from_parts(EnvParts { probe, ..Env::real().into_parts() })
}

pub(crate) async fn open(path: &Path) -> Store {
    sqlite::open(&env(), sqlite::Config::at(path)).await.unwrap()
}

fn topic() -> Topic {
    Topic { partitions: 2, hold: Duration::from_secs(1), ..Topic::new("orders".parse().unwrap()) }
}

pub(crate) fn is_child() -> bool {
    std::env::var_os(variable::STORE).is_some()
}

/// Does its part until it is killed.
pub(crate) async fn child() {
    let (store, broker) = (std::env::var(variable::STORE).unwrap(), std::env::var(variable::BROKER).unwrap());
    let store = open(Path::new(&store)).await;
    let transport = connect(&env(), &broker.parse().unwrap(), None).unwrap();
    match &*std::env::var(variable::PART).unwrap() {
        "publisher" => publish(store, transport).await,
        "last publisher" => publish_what_is_left(store, transport).await,
        _ => consume(store, transport).await,
    }
}

async fn relay(store: &Store, transport: Arc<dyn Transport>) -> Relay {
    let mut config = RelayConfig::to(topic());
    config.subscription.lease_ttl = RelayConfig::MIN_TTL;
    config.longest_rest = Duration::from_millis(300);
    Relay::start(store, &"orders".parse().unwrap(), transport, config).await.unwrap()
}

/// Appends for ever, and says what was committed; a relay publishes it meanwhile.
async fn publish(store: Store, transport: Arc<dyn Transport>) {
    let (relay, round) = (relay(&store, transport).await, std::env::var(variable::ROUND).unwrap());
    for n in 0.. {
        for key in 0..KEYS {
            let id = format!("{key}-{round}-{n}");
            let event = NewEvent::new(id.as_str(), "/test", "order.placed").json("{}");
            let stream = format!("order-{key}").parse().unwrap();
            store.append(AppendBatch::to(stream, ExpectedVersion::Any, vec![event])).await.unwrap();
            say(&format!("committed {id}"));
        }
        Env::real().sleep(Duration::from_millis(20)).await;
        while relay.describe().await.unwrap().subscription.lag_events > MAX_LAG {
            Env::real().sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Publishes what was appended, and says how many events that are.
async fn publish_what_is_left(store: Store, transport: Arc<dyn Transport>) {
    let relay = relay(&store, transport).await;
    loop {
        let description = relay.describe().await.unwrap();
        if description.subscription.lag_events == 0 {
            break;
        }
        let (lag, wrong) = (description.subscription.lag_events, description.last_error);
        say(&format!("lags by {lag}, {:?}, {wrong:?}", description.standing));
        Env::real().sleep(Duration::from_millis(100)).await;
    }
    say(&format!("published {}", store.head().get()));
    std::future::pending().await
}

/// Handles for ever: a row for each message, in the order in which they take effect. Some fail the first time.
async fn consume(store: Store, transport: Arc<dyn Transport>) {
    let backoff = Backoff { first: Duration::from_millis(10), max: Duration::from_millis(50) };
    let config = InboxConfig { max_attempts: 1_000, backoff, ..InboxConfig::of(topic(), "billing".parse().unwrap()) };
    let inbox = Inbox::start(&store, transport, config, |tx, message| {
        Box::pin(async move {
            if message.attempt == 1 && sum(&message.identity).is_multiple_of(8) {
                return Err(Failed::again("not now"));
            }
            let sql = "INSERT INTO done (id) VALUES ($1)";
            tx.execute(sql, &[(&*message.event.id).into()]).await?;
            Ok(())
        })
    });
    let inbox = inbox.await.unwrap();
    // From now on there is a group, and what is published is for it.
    let mut said = String::new();
    loop {
        let counts = inbox.counts();
        let rows = store.query("SELECT count(*) FROM done", vec![]).await.unwrap()[0].at(0).as_i64().unwrap();
        let words = format!("counts {} {} {rows}", counts.done, counts.repeated);
        if words != said {
            say(&words);
            said = words;
        }
        Env::real().sleep(Duration::from_millis(50)).await;
    }
}

fn sum(text: &str) -> u32 {
    text.bytes().fold(5_381, |sum, byte| sum.wrapping_mul(33) ^ u32::from(byte))
}
