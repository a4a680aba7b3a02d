//! A service of the demo: a node with a store of its own, and beside it what the service does.
//!
//! Others ask it at one address of its own, behind a proxy:
//!
//! | request | from whom | means |
//! |---|---|---|
//! | `POST /events` | webhooks of other services' nodes | hear of what happened: once each, in a transaction |
//! | `POST /orders` | customers, of `orders` alone | take an order: once, however often it is sent |
//! | other `POST`s | steps of the saga | do this, or make up for it: once per `Idempotency-Key`, through the barrier |
//! | `GET /state`, `GET /books` | whoever judges | sums that must never be wrong; everything there is |
//!
//! Whoever started it writes one line of [`Settings`] to its standard input, and reads from its standard output where it is; it ends
//! when its standard input does.

mod inventory;
mod notifications;
mod orders;
mod payments;
mod shipping;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc};

use http::Method;
use quorate_communication::event_bus::webhook::{Secret, TOLERANCE, verify};
use quorate_consistency::saga::{Barrier, Direction, Entered};
use quorate_data::{
    event::{NewEvent, Tags},
    store::{DynTx, ExpectedVersion, Inbox, SqlError, Store, TransactError},
};
use quorate_node::{Server, config::Config};
use quorate_runtime::{BoxFuture, Env};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    plan::Order,
    process::{self, STARTING},
    web::{self, Answer, Asked},
};
use crate::{
    client::{Call, Client, JSON},
    exit::{Exit, Failure},
};

/// What a service is told when it is started.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::demo) struct Settings {
    /// Which service it is.
    pub(in crate::demo) service: String,
    /// Where its store is.
    pub(in crate::demo) folder: PathBuf,
    /// Where the services can be asked.
    pub(in crate::demo) peers: BTreeMap<String, SocketAddr>,
    /// Where the payment provider can be.
    pub(in crate::demo) provider: SocketAddr,
    /// What webhooks are signed with.
    pub(in crate::demo) secret: String,
    /// A bug of the museum: payments forget which calls they took.
    pub(in crate::demo) forgetful: bool,
}

/// Where a service is once it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::demo) struct Place {
    /// Its node.
    pub(in crate::demo) node: String,
    /// The service itself.
    pub(in crate::demo) service: SocketAddr,
}

/// Why a transaction of a service did not happen.
#[derive(Debug)]
enum Wrong {
    /// It was refused, for good.
    Refused(&'static str),
    /// Something failed; nothing was done.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Wrong {
    fn from(cause: E) -> Self {
        Self::Failed(cause.to_string())
    }
}

/// What services differ in.
trait Service: Send + Sync + 'static {
    /// Its tables, and what is in them at first. Run at every start.
    fn tables(&self) -> Vec<String>;

    /// Who hears of what happens here.
    fn told(&self) -> Vec<Told> {
        Vec::new()
    }

    /// Prepares what is asked at `path`, outside of any transaction.
    fn before<'s>(&'s self, _path: &'s str, _order: &'s Order) -> BoxFuture<'s, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    /// Does what belongs to what was asked at `path`, once its transaction is over.
    fn after<'s>(&'s self, _path: &'s str, _order: &'s Order) -> BoxFuture<'s, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    /// Does what a step of the saga asks.
    fn asked<'t>(&'t self, tx: &'t mut DynTx, path: &'t str, order: &'t Order) -> BoxFuture<'t, Result<(), Wrong>>;

    /// Whether calls at `path` are kept from being done twice by the barrier. Where they aren't, doing them twice changes nothing.
    fn is_guarded(&self, _path: &str) -> bool {
        true
    }

    /// Whether the barrier's word is not heeded: a planted bug.
    fn forgets(&self, _path: &str) -> bool {
        false
    }

    /// Hears of an event.
    fn heard<'t>(&'t self, tx: &'t mut DynTx, kind: &'t str, order: &'t Order) -> BoxFuture<'t, Result<(), Wrong>>;

    /// Begins what goes on by itself, once the tables are there.
    fn begin<'s>(&'s self, _env: &'s Env, _store: &'s Store) -> BoxFuture<'s, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }

    /// A statement with one row of numbers.
    fn sums(&self) -> &'static str;

    /// Everything that there is.
    fn books(&self) -> Books;

    /// What is in its books besides.
    fn more(&self) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async { Ok(Value::Null) })
    }

    /// Another store of the service, and its books.
    fn beside(&self) -> Option<(&Store, Books)> {
        None
    }
}

/// What is listed, by its name: columns and the table that they are of.
type Books = &'static [(&'static str, &'static str)];
/// Who hears of which events: the other service, a tag that the events have, and their types.
type Told = (&'static str, Option<&'static str>, &'static [&'static str]);

/// A service at work.
struct Office {
    name: String,
    env: Env,
    store: Store,
    barrier: Barrier,
    inbox: Inbox,
    secret: Secret,
    service: Arc<dyn Service>,
}

/// Runs a service until its standard input ends.
pub(super) async fn run(env: &Env) -> Result<(), Failure> {
    let (settings, parent) = process::begin::<Settings>("quorate demo").await?;
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let webhook_targets = vec!["127.0.0.0/8".parse().map_err(failed)?];
    let config = Config { listen, webhook_targets, ..Config::in_folder(&settings.folder) };
    let server = Server::bind(config, env.clone()).await.map_err(failed)?;
    let store = server.store().clone();
    let node = format!("http://{}", server.local_addr());
    let client = Client::new(env, node.parse().map_err(failed)?, STARTING);
    env.tasks().spawn("demo-node", async move {
        if let Err(cause) = server.run().await {
            crate::output::complain(&crate::exit::chain(&cause));
        }
    });
    let service = open(env, &settings, &store, &client).await?;
    let office = Arc::new(Office {
        name: settings.service.clone(),
        env: env.clone(),
        barrier: Barrier::open(&store).await.map_err(failed)?,
        inbox: Inbox::open(&store, settings.service.parse().map_err(failed)?).await.map_err(failed)?,
        secret: settings.secret.parse().map_err(failed)?,
        service: service.clone(),
        store,
    });
    office.declare_webhooks(&client, &settings).await?;
    let address = web::serve(
        env,
        Arc::new(move |asked| {
            let office = office.clone();
            Box::pin(async move { office.answer(asked).await })
        }),
    );
    let place = Place { node, service: address.await? };
    parent.tell(&json!(place))?;
    parent.gone().await;
    env.tasks().stop().cancel();
    env.tasks().shut_down().await;
    Ok(())
}

/// The service of that name, with its tables.
async fn open(env: &Env, settings: &Settings, store: &Store, client: &Client) -> Result<Arc<dyn Service>, Failure> {
    let service: Arc<dyn Service> = match &*settings.service {
        "orders" => orders::open(settings, client).await?,
        "inventory" => Arc::new(inventory::Inventory),
        "payments" => payments::open(env, settings).await?,
        "shipping" => Arc::new(shipping::Shipping),
        "notifications" => notifications::open(store).await?,
        other => return Err(Failure::new(Exit::Usage, format!("the demo has no service `{other}`"))),
    };
    let tables = service.tables();
    let made = store.transact(move |tx| {
        let tables = tables.clone();
        Box::pin(async move {
            for statement in &tables {
                tx.execute(statement, &[]).await?;
            }
            Ok::<_, SqlError>(())
        })
    });
    made.await.map_err(failed)?;
    service.begin(env, store).await?;
    Ok(service)
}

fn failed(cause: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, cause.to_string())
}

impl Office {
    async fn declare_webhooks(&self, client: &Client, settings: &Settings) -> Result<(), Failure> {
        for (n, (to, tag, types)) in self.service.told().into_iter().enumerate() {
            let address = settings.peers.get(to).ok_or_else(|| failed(format!("nobody said where `{to}` is")))?;
            let mut item = json!({ "types": types });
            if let Some(tag) = tag {
                item["tags"] = json!([tag]);
            }
            let webhook = json!({
                "url": format!("http://{address}/events"),
                "secret": settings.secret,
                "filter": { "items": [item] },
                "start": "beginning",
                "timeout": "1s",
                "places": 16,
                "max-attempts": 1_000,
                "backoff": { "first": "100ms", "max": "1s" },
            });
            let path = format!("/v1/webhooks/{to}-{n}");
            client.call(&Call::post(path, JSON, webhook.to_string()).put()).await?;
        }
        Ok(())
    }

    async fn answer(&self, asked: Asked) -> Answer {
        match (&asked.method, &*asked.path) {
            (&Method::GET, "/state") => self.state().await,
            (&Method::GET, "/books") => self.books().await,
            (&Method::POST, "/events") => self.hear(&asked).await,
            (&Method::POST, _) => self.take_step(asked).await,
            _ => Answer::not_found(),
        }
    }

    /// An event that another service's node tells of.
    async fn hear(&self, asked: &Asked) -> Answer {
        let id =
            match verify(std::slice::from_ref(&self.secret), &asked.headers, &asked.body, self.env.wall(), TOLERANCE) {
                Ok(id) => id.to_owned(),
                Err(cause) => return Answer::refused(&cause.to_string()),
            };
        let event = asked.json();
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        let Ok(order) = serde_json::from_value::<Order>(event["data"].clone()) else {
            return Answer::refused("its data is no order");
        };
        if let Err(why) = self.service.before(&kind, &order).await {
            return Answer::unknown(why);
        }
        let (service, inbox) = (self.service.clone(), self.inbox.clone());
        let heard = self.store.transact(move |tx| {
            let (service, inbox, id, kind, order) =
                (service.clone(), inbox.clone(), id.clone(), kind.clone(), order.clone());
            Box::pin(async move {
                if tx.once(&inbox, &id).await?.is_repeat() {
                    return Ok(());
                }
                service.heard(tx, &kind, &order).await
            })
        });
        answered(heard.await)
    }

    /// What a step of the saga asks, or what makes up for it.
    async fn take_step(&self, asked: Asked) -> Answer {
        let Ok(order) = serde_json::from_slice::<Order>(&asked.body) else {
            return Answer::refused("this is no order");
        };
        let key = asked.header("idempotency-key").and_then(|key| key.trim_matches('"').rsplit_once('/'));
        let guard = match key {
            Some((operation, "forward")) => Some((operation.to_owned(), Direction::Forward)),
            Some((operation, "compensation")) => Some((operation.to_owned(), Direction::Compensation)),
            _ => None,
        };
        let is_guarded = self.service.is_guarded(&asked.path);
        if is_guarded && guard.is_none() {
            return Answer::refused("a step brings its key as `Idempotency-Key`");
        }
        let (guard, forgets) = (guard.filter(|_| is_guarded), self.service.forgets(&asked.path));
        if let Err(why) = self.service.before(&asked.path, &order).await {
            return Answer::unknown(why);
        }
        let (service, barrier, path, of_order) =
            (self.service.clone(), self.barrier.clone(), asked.path.clone(), order.clone());
        let done = self.store.transact(move |tx| {
            let (service, barrier, guard, path, order) =
                (service.clone(), barrier.clone(), guard.clone(), path.clone(), of_order.clone());
            Box::pin(async move {
                if let Some((operation, direction)) = &guard {
                    match barrier.enter(tx, operation, *direction).await? {
                        Entered::Go => {}
                        Entered::Repeated(_) if forgets => {}
                        Entered::Repeated(_) | Entered::Nothing => return Ok(()),
                        Entered::TooLate => return Err(Wrong::Refused("it was made up for before it came")),
                    }
                }
                service.asked(tx, &path, &order).await
            })
        });
        let done = done.await;
        if done.is_ok()
            && let Err(why) = self.service.after(&asked.path, &order).await
        {
            return Answer::unknown(why);
        }
        answered(done)
    }

    async fn state(&self) -> Answer {
        match self.store.query(self.service.sums(), vec![]).await {
            Ok(rows) => Answer::done(rows.first().map_or(Value::Null, object)),
            Err(cause) => Answer::unknown(format!("{}: {cause}", self.name)),
        }
    }

    async fn books(&self) -> Answer {
        let own = (&self.store, self.service.books());
        let mut books = serde_json::Map::new();
        for (store, statements) in std::iter::once(own).chain(self.service.beside()) {
            for (name, what) in statements {
                match rows(store, what).await {
                    Ok(rows) => books.insert((*name).to_owned(), rows.into()),
                    Err(cause) => return Answer::unknown(format!("{}: {cause}", self.name)),
                };
            }
        }
        match self.service.more().await {
            Ok(more) => books.insert("more".to_owned(), more),
            Err(why) => return Answer::unknown(why),
        };
        Answer::done(books.into())
    }
}

/// All rows of a table, page by page: a query brings 128 KiB at most.
async fn rows(store: &Store, what: &str) -> Result<Vec<Value>, SqlError> {
    const PAGE: usize = 250;
    let (mut all, mut last) = (Vec::new(), 0);
    loop {
        let sql = format!("SELECT rowid, {what} WHERE rowid > $1 ORDER BY rowid LIMIT {PAGE}");
        let page = store.query(&sql, vec![last.into()]).await?;
        all.extend(page.iter().map(object));
        match page.last().and_then(|row| row.at(0).as_i64()) {
            Some(end) if page.len() == PAGE => last = end,
            _ => return Ok(all),
        }
    }
}

/// A row as an object.
fn object(row: &quorate_data::store::Row) -> Value {
    let cell = |n: usize| {
        let value = row.at(n);
        value.as_i64().map(Value::from).or_else(|| value.as_str().map(Value::from)).unwrap_or_default()
    };
    row.columns
        .iter()
        .enumerate()
        .map(|(n, name)| (name.to_string(), cell(n)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn answered(ended: Result<(), TransactError<Wrong>>) -> Answer {
    match ended {
        Ok(()) => Answer::done(json!({})),
        Err(TransactError::Aborted(Wrong::Refused(why))) => Answer::refused(why),
        Err(TransactError::Aborted(Wrong::Failed(why))) => Answer::unknown(why),
        Err(other) => Answer::unknown(other),
    }
}

/// Tells what happened to an order, in the transaction of its happening: in the order's stream, once.
async fn tell(tx: &mut DynTx, service: &str, kind: &str, order: &Order) -> Result<(), Wrong> {
    let tags = Tags::new([format!("style:{}", order.style.word())])?;
    let id = format!("{}/{kind}", order.id);
    let event = NewEvent::new(id, format!("/{service}"), kind).json(serde_json::to_vec(order)?).tagged(tags);
    let stream = format!("order-{}", order.id).parse().map_err(|_| Wrong::Refused("this is no name of an order"))?;
    tx.append(&stream, ExpectedVersion::Any, vec![event]).await?;
    Ok(())
}
