//! Events that a producer publishes without knowing who listens, with consumers that fail, are killed, or do not exist yet: each hears all.

mod books;
mod judge;
mod latecomer;
mod receiver;

use std::{ops::Range, time::Duration};

use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(super) use self::receiver::Receiver;
use self::{
    books::{Books, Stand, streams},
    judge::{Consumer, Judge},
    latecomer::Latecomer,
    receiver::Faults,
};
use super::{
    appended::{Appended, Pace},
    child::Role,
    moment::Moment,
    node::{self, Node, position},
    show::{Shown, millis},
};
use crate::{
    client::{Call, EVENT, JSON, Target},
    demo::folder::Folder,
    exit::{Exit, Failure},
};

/// The type of the events.
const KIND: &str = "order.placed";
/// Streams, in each of which order is kept.
const CUSTOMERS: u64 = 6;
/// How long the producer rests between two events, and how long nothing goes wrong.
const PAUSE: Duration = Duration::from_millis(25);
const QUIET: Duration = Duration::from_millis(300);
/// How many events a consumer takes before the next thing goes wrong.
const SOME: usize = 12;
const BILLING: &str = "billing";
const WAREHOUSE: &str = "warehouse";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What was done, and when.
struct Seen {
    begun: Moment,
    /// Events in the log when the first consumer was declared, and when the last came.
    unheard: [u64; 2],
    fails: Mono,
    well: Mono,
    /// Whether the breaker of the consumer that failed was seen open.
    broke: bool,
    /// What another consumer did meanwhile.
    meanwhile: usize,
    /// The event that a consumer was killed over.
    held: Option<String>,
    consumer_killed: Mono,
    consumer_back: Mono,
    node_killed: Mono,
    node_back: Mono,
}

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let folder = Folder::passing(env)?;
    let mut node = Node::start(env, &folder.path).await?;
    let receiver = |name: &str| {
        let store = folder.path.join(format!("{name}.db"));
        Node::start_as(env, Role::Receiver(Receiver { store, secret: SECRET.to_owned() }))
    };
    let (billing, mut warehouse, audit) = (receiver(BILLING).await?, receiver(WAREHOUSE).await?, Latecomer::default());

    let (begun, url, stop, over) = (Moment::now(env), node.url(), CancellationToken::new(), CancellationToken::new());
    let told = async {
        let told = tell(env, &mut node, (&billing, &mut warehouse), (&audit, &over), begun).await;
        stop.cancel();
        told
    };
    let pace = Pace { first: 0, at_once: 1, pause: PAUSE };
    let (told, published) = tokio::join!(told, Appended::go_on(env, &url, (pace, publish), &stop));
    let (seen, published) = (told?, published?);
    let log = streams(&node.events().await?);
    let all = log.values().map(Vec::len).sum::<usize>();
    node::until(env, async || {
        audit.books().done() >= all
            && done(&billing).await >= Some(all)
            && done(&warehouse).await >= Some(all)
            && is_at_rest(&node).await == Some(true)
    })
    .await;
    let at_rest = is_at_rest(&node).await == Some(true);
    over.cancel();

    let consumers = [(BILLING, read(&billing).await?), (WAREHOUSE, read(&warehouse).await?), ("audit", audit.books())];
    let consumers = consumers.map(|(name, books)| Consumer { name, books });
    let judge = Judge { seen: &seen, published: &published, log, consumers, at_rest };
    let mut shown = chart(&seen);
    judge.count(&mut shown);
    judge.figures(&mut shown);
    judge.claims(&mut shown);
    Ok(shown)
}

/// Has one thing after the other go wrong while events are published.
async fn tell(
    env: &Env,
    node: &mut Node,
    (billing, warehouse): (&Node, &mut Node),
    (audit, over): (&Latecomer, &CancellationToken),
    begun: Moment,
) -> Result<Seen, Failure> {
    // Nobody listens.
    env.sleep(QUIET).await;
    let before = head(node).await?;
    declare(node, BILLING, billing).await?;
    declare(node, WAREHOUSE, warehouse).await?;
    node::until(env, async || done(billing).await >= Some(SOME) && done(warehouse).await >= Some(SOME)).await;

    let (fails, others) = (env.mono(), done(warehouse).await.unwrap_or_default());
    ail(billing, Faults { fails: true, ..Faults::default() }).await?;
    let is_open = async || {
        let told = node.call(&webhook(BILLING)).await;
        told.is_ok_and(|told| told["breaker"] == "open")
    };
    let broke = node::until(env, is_open).await;
    node::until(env, async || done(warehouse).await >= Some(others + SOME)).await;
    let meanwhile = done(warehouse).await.unwrap_or_default().saturating_sub(others);
    ail(billing, Faults::default()).await?;
    let well = env.mono();

    // It has done what the event says, and the node has not heard so.
    ail(warehouse, Faults { holds: true, ..Faults::default() }).await?;
    let mut held = None;
    node::until(env, async || {
        held = stand(warehouse).await.ok().and_then(|stand| stand.held);
        held.is_some()
    })
    .await;
    let consumer_killed = env.mono();
    warehouse.kill().await;
    env.sleep(QUIET).await;
    warehouse.come_back().await?;
    let consumer_back = env.mono();

    let unheard = [before, head(node).await?];
    audit.begin(env, &node.url(), over).await?;
    node::until(env, async || audit.books().done() >= SOME).await;
    let node_killed = env.mono();
    node.kill_and_start().await?;
    let node_back = env.mono();
    env.sleep(QUIET).await;
    Ok(Seen {
        begun,
        unheard,
        fails,
        well,
        broke,
        meanwhile,
        held,
        consumer_killed,
        consumer_back,
        node_killed,
        node_back,
    })
}

/// All that the producer does: it appends, to its own streams, and names nobody.
fn publish(nths: Range<u64>) -> Call {
    let nth = nths.start;
    let event = json!({
        "specversion": "1.0",
        "id": format!("order-{nth}"),
        "source": "/patterns/event-driven-architecture",
        "type": KIND,
        "data": { "cents": 100 + nth * 37 % 9_000 },
    });
    let stream = format!("customer-{}", nth % CUSTOMERS);
    Call::post(Target::path(&["v1", "streams", &stream, "events"]), EVENT, event.to_string())
}

/// Has the node call a consumer, from the first event on.
async fn declare(node: &Node, name: &str, consumer: &Node) -> Result<(), Failure> {
    let filter = json!({ "items": [{ "types": [KIND] }] });
    let config = json!({
        "url": format!("{}/hooks", consumer.url()), "secret": SECRET, "filter": filter, "start": "beginning",
        "timeout": "500ms", "backoff": { "first": "50ms", "max": "200ms" },
    });
    node.call(&Call::post(Target::path(&["v1", "webhooks", name]), JSON, config.to_string()).put()).await.map(drop)
}

fn webhook(name: &str) -> Call {
    Call::get(Target::path(&["v1", "webhooks", name]))
}

/// Whether nobody lacks an event any more, and none was set aside; nothing where the node does not say.
async fn is_at_rest(node: &Node) -> Option<bool> {
    let mut all = vec![node.call(&Call::get(Target::path(&["v1", "subscriptions", latecomer::NAME]))).await.ok()?];
    for name in [BILLING, WAREHOUSE] {
        all.push(node.call(&webhook(name)).await.ok()?["subscription"].clone());
    }
    let is_at_rest =
        |one: &Value| one["checkpoint"].is_string() && one["checkpoint"] == one["head"] && one["parked"] == 0;
    Some(all.iter().all(is_at_rest))
}

/// Where the log ends.
async fn head(node: &Node) -> Result<u64, Failure> {
    let told = node.call(&Call::get(Target::path(&["v1", "events"]).with("limit", 1))).await?;
    Ok(position(&told["head"]).unwrap_or_default())
}

async fn ail(consumer: &Node, faults: Faults) -> Result<(), Failure> {
    consumer.call(&Call::post(Target::path(&["faults"]), JSON, json!(faults).to_string())).await.map(drop)
}

async fn stand(consumer: &Node) -> Result<Stand, Failure> {
    told(consumer.call(&Call::get(Target::path(&["stand"]))).await?)
}

/// How many events had their effect there; nothing where it does not say.
async fn done(consumer: &Node) -> Option<usize> {
    stand(consumer).await.ok().map(|stand| stand.done)
}

async fn read(consumer: &Node) -> Result<Books, Failure> {
    told(consumer.call(&Call::get(Target::path(&["books"]))).await?)
}

fn told<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|cause| Failure::of(Exit::Failed, &cause))
}

fn chart(seen: &Seen) -> Shown {
    let scene = format!(
        "A producer publishes orders of {CUSTOMERS} customers by appending them, and knows nobody. Two consumers are declared later, services \
         with a store of their own that the node calls: billing fails for a while, the warehouse is killed when it has done what an event says and not \
         answered. A third one, audit, comes last, begins with the first event, and takes events itself; while it does, the node is killed."
    );
    let mark = Some("billing fails, or the warehouse or the node was killed and is not back yet");
    let mut shown = Shown { scene, mark, ..Shown::default() };
    let begun = seen.begun.mono;
    shown.unwell(begun, seen.fails, seen.well);
    shown.unwell(begun, seen.consumer_killed, seen.consumer_back);
    shown.unwell(begun, seen.node_killed, seen.node_back);
    shown
}
