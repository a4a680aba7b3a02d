//! Orders over four services, by sagas of a node that is killed, with a bank that fails for a while: everything ends, done or undone, once.

mod books;
mod judge;
mod order;
mod shop;
mod told;

use std::{collections::BTreeMap, net::SocketAddr, ops::Range, path::Path, time::Duration};

use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use serde_json::json;

pub(super) use self::shop::Shop;
use self::{
    books::{Books, Came},
    judge::Judge,
    order::{Fate, HALF, ORDERS, Order, STRUCK, UNDONE, id, those},
    shop::{Faults, Trade},
};
use super::{
    child::Role,
    moment::Moment,
    node::{self, Node, PATIENCE, client},
    show::{Shown, Span, millis},
};
use crate::{
    client::{Call, JSON},
    demo::{folder::Folder, process::Process},
    exit::Failure,
};

const SAGA: &str = include_str!("order.yaml");

/// How long a customer waits before the next order, and before one that was not taken is sent again.
const PACE: Duration = Duration::from_millis(50);
const AGAIN: Duration = Duration::from_millis(50);
/// How many calls the failing bank does although it says otherwise, before it is well again.
const UNSAID: usize = 3;

/// What was seen of the run, beside the books.
struct Seen {
    begun: Moment,
    /// Whether the node was killed while a reservation was done and not answered.
    held: bool,
    /// Sagas under way when it was.
    under_way: usize,
    killed: Moment,
    back: Moment,
    bank_fails: Mono,
    bank_is_well: Mono,
}

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let folder = Folder::passing(env)?;
    let shops = Shops::start(env, &folder.path).await?;
    let mut node = Node::start(env, &folder.path).await?;
    let saga = Trade::ALL.into_iter().fold(SAGA.to_owned(), |text, trade| {
        text.replace(&format!("http://{}/", trade.host()), &format!("http://{}/", shops.address(trade)))
    });
    node.call(&Call::post("/v1/saga-definitions/order", "application/yaml", saga).put()).await?;
    shops.faults(Trade::Stock, Faults { holds: Some(id(STRUCK)), ..Faults::default() }).await?;

    let (begun, url) = (Moment::now(env), node.url());
    let strike = async {
        // Its reservation is made, and the saga has not heard of it.
        let done = async || {
            let books = shops.books(Trade::Stock).await.unwrap_or_default();
            books.calls.iter().any(|call| call.order == id(STRUCK) && call.came == Came::Did)
        };
        let held = node::until(env, done).await;
        let under_way = told::statuses(&node).await?.values().filter(|status| *status == "running").count();
        let killed = Moment::now(env);
        node.kill_and_start().await?;
        shops.faults(Trade::Stock, Faults::default()).await?;
        Ok::<_, Failure>((held, under_way, killed, Moment::now(env)))
    };
    let (ordered, struck) = tokio::join!(order(env, &url, 0..HALF), strike);
    let (sent_again, (held, under_way, killed, back)) = (ordered?, struck?);
    let bank_fails = env.mono();
    let ail = async {
        shops.faults(Trade::Bank, Faults { fails: true, ..Faults::default() }).await?;
        let enough = async || shops.books(Trade::Bank).await.unwrap_or_default().count(Came::Unsaid) >= UNSAID;
        node::until(env, enough).await;
        shops.faults(Trade::Bank, Faults::default()).await?;
        Ok::<_, Failure>(env.mono())
    };
    let (ordered, well) = tokio::join!(order(env, &url, HALF..ORDERS), ail);
    let sent_again = sent_again + ordered?;
    let seen = Seen { begun, held, under_way, killed, back, bank_fails, bank_is_well: well? };
    node::until(env, async || {
        let statuses = told::statuses(&node).await.unwrap_or_default();
        statuses.len() == ORDERS as usize
            && statuses.values().all(|status| status == "completed" || status == "compensated")
    })
    .await;

    let mut shown = chart(&seen);
    let judge = Judge { statuses: told::statuses(&node).await?, books: shops.all_books().await?, seen: &seen };
    judge.count(&mut shown);
    shown.figure("starts that had to be sent again while the node was down", sent_again);
    shown.figure("sagas under way when the node was killed", seen.under_way);
    shown.figure("from the kill until the node was back", millis(killed.until(&back)));
    judge.figures(&mut shown);
    judge.claims(&mut shown);
    for (nth, what) in
        [(STRUCK, "one of its calls was under way when the node was killed"), (UNDONE, "no parcel can be sent")]
    {
        shown.timelines.push(told::timeline(&node, nth, what, &seen).await?);
    }
    Ok(shown)
}

fn chart(seen: &Seen) -> Shown {
    let scene = format!(
        "{ORDERS} orders: a mail that cannot be taken back, a piece from the stock, money from the bank, a parcel. Sagas of a node \
         bring them about over four services, each a process with a store of its own. The node is killed when a piece is taken and it has not \
         heard so; later the bank answers 500 for a while, and does every other thing nevertheless. {} orders cost more than there is on the \
         account, and for {} there is no way to send a parcel.",
        those(Fate::TooDear).count(),
        those(Fate::NoAddress).count(),
    );
    let mark = Some("the node was killed and is not back yet, or the bank fails");
    let mut shown = Shown { scene, mark, ..Shown::default() };
    shown.unwell(seen.begun.mono, seen.killed.mono, seen.back.mono);
    shown.unwell(seen.begun.mono, seen.bank_fails, seen.bank_is_well);
    shown
}

/// Orders, one after the other; each is sent until it was taken. Says how many had to be sent again.
async fn order(env: &Env, node: &str, orders: Range<u32>) -> Result<u32, Failure> {
    let (node, mut again) = (client(env, node)?, 0);
    for nth in orders {
        let start = json!({ "id": id(nth), "input": Order::of(nth) });
        let call = Call::post("/v1/sagas/order", JSON, start.to_string());
        let (by, mut is_again) = (env.mono() + PATIENCE, 0);
        // Whether it was taken or not: under its id it is taken once.
        while let Err(cause) = node.answer(&call).await {
            if env.mono() >= by {
                return Err(cause);
            }
            is_again = 1;
            env.sleep(AGAIN).await;
        }
        again += is_again;
        env.sleep(PACE).await;
    }
    Ok(again)
}

/// The services, while they run.
struct Shops {
    env: Env,
    places: BTreeMap<&'static str, (Process, SocketAddr)>,
}

impl Shops {
    async fn start(env: &Env, folder: &Path) -> Result<Self, Failure> {
        let mut places = BTreeMap::new();
        for trade in Trade::ALL {
            let store = folder.join(format!("{}.db", trade.host()));
            places.insert(trade.host(), node::start(env, trade.host(), &Role::Shop(Shop { trade, store })).await?);
        }
        Ok(Self { env: env.clone(), places })
    }

    fn address(&self, trade: Trade) -> SocketAddr {
        self.places[trade.host()].1
    }

    async fn call(&self, trade: Trade, call: &Call) -> Result<serde_json::Value, Failure> {
        client(&self.env, &format!("http://{}", self.address(trade)))?.answer(call).await
    }

    async fn faults(&self, trade: Trade, faults: Faults) -> Result<(), Failure> {
        self.call(trade, &Call::post("/faults", JSON, json!(faults).to_string())).await.map(drop)
    }

    async fn books(&self, trade: Trade) -> Result<Books, Failure> {
        serde_json::from_value(self.call(trade, &Call::get("/books")).await?).map_err(shop::failed)
    }

    async fn all_books(&self) -> Result<BTreeMap<&'static str, Books>, Failure> {
        let mut all = BTreeMap::new();
        for trade in Trade::ALL {
            all.insert(trade.host(), self.books(trade).await?);
        }
        Ok(all)
    }
}
