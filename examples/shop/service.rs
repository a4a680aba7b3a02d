//! What every service of the shop is made of: a store, an outbox, an inbox for each topic that it hears of.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use quorate::{
    Env,
    event::NewEvent,
    inbox::{Failed, Inbox, InboxConfig},
    outbox::{Relay, RelayConfig},
    runtime::BoxFuture,
    store::{AppendError, DynTx, ExpectedVersion, Store, sqlite},
    transports::{Incoming, Topic, Transport, TransportError},
};
use serde::{Deserialize, Serialize};

use super::{Outcome, billing, inventory, orders};

pub(crate) const SERVICES: [&str; 3] = ["orders", "inventory", "billing"];
/// Orders that are placed.
pub(crate) const ORDERS: i64 = 40;
/// How long a message, or an event on its way out, belongs to a process that was killed with it in hand.
const HOLD: Duration = Duration::from_secs(2);
/// How long is waited between looks at how far a service is.
const LOOK: Duration = Duration::from_millis(20);
/// How long a bus may say no at the beginning.
const REFUSALS: Duration = Duration::from_secs(10);

/// An order, as every message tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: i64,
    pub(crate) item: i64,
    pub(crate) pieces: i64,
    pub(crate) account: i64,
    pub(crate) cents: i64,
}

/// What a service tells: an event of `kind` in `stream`, which is what it is kept in order by.
pub(crate) struct Told {
    pub(crate) stream: String,
    pub(crate) kind: &'static str,
}

/// What a service is.
pub(crate) struct Role {
    /// Its name, and that of the topic that it tells others by.
    pub(crate) name: &'static str,
    /// Its tables, and what is in them at the beginning: fine to be run again.
    pub(crate) tables: Vec<String>,
    /// The services that it hears of.
    pub(crate) hears: &'static [&'static str],
    /// Whether it has heard all that there is to hear, or more: the audit says what came twice.
    pub(crate) is_done: for<'s> fn(&'s Store) -> BoxFuture<'s, Outcome<bool>>,
    /// What it does about an event of that type, and what it tells because of it.
    pub(crate) handle: Handle,
}

pub(crate) type Handle = for<'t> fn(&'t mut DynTx, &'t str, &'t Order) -> BoxFuture<'t, Result<Option<Told>, Failed>>;

fn role(name: &str) -> Outcome<Role> {
    Ok(match name {
        "orders" => orders::role(),
        "inventory" => inventory::role(),
        "billing" => billing::role(),
        other => return Err(format!("there is no service {other}").into()),
    })
}

/// Whose messages are for whom: the topic of the first has a group of the second.
pub(crate) fn boxes() -> Outcome<Vec<(&'static str, &'static str)>> {
    let mut boxes = Vec::new();
    for name in SERVICES {
        let role = role(name)?;
        boxes.extend(role.hears.iter().map(|of| (*of, role.name)));
    }
    Ok(boxes)
}

pub(crate) async fn open(file: &Path) -> Outcome<Store> {
    Ok(sqlite::open(&Env::real(), sqlite::Config::at(file)).await?)
}

pub(crate) async fn counted(store: &Store, sql: &str) -> Outcome<i64> {
    Ok(store.query(sql, vec![]).await?.first().and_then(|row| row.at(0).as_i64()).unwrap_or(0))
}

/// Writes down what a service tells, in the transaction of what it did: the outbox takes it from there.
pub(crate) async fn tell(tx: &mut DynTx, name: &str, told: Told, order: &Order) -> Result<(), AppendError> {
    let Told { stream, kind } = told;
    let data = serde_json::to_vec(order).unwrap_or_else(|_| unreachable!("numbers can be written"));
    // Its id follows from what it is about, so that it is the same one however often this is run.
    let event = NewEvent::new(format!("{kind}/{}", order.id), format!("/{name}"), kind).json(data);
    let stream = stream.parse().unwrap_or_else(|_| unreachable!("a word and a number name a stream"));
    tx.append(&stream, ExpectedVersion::Any, vec![event]).await.map(drop)
}

/// A shop: the bus that its services share, and the folder of their stores. Only the bus is shared.
pub(crate) struct Shop {
    bus: Arc<dyn Transport>,
    folder: PathBuf,
    /// What its topics begin with, so that a broker may serve several shops.
    name: String,
}

impl Shop {
    /// The shop in `folder`, whose name it has at the bus.
    pub(crate) fn new(bus: Arc<dyn Transport>, folder: &Path) -> Outcome<Self> {
        let name = folder.file_name().ok_or("a shop's folder has a name")?.to_string_lossy();
        let name = name.chars().filter(char::is_ascii_alphanumeric).collect();
        Ok(Self { bus, folder: folder.to_owned(), name })
    }

    fn topic(&self, service: &str) -> Outcome<Topic> {
        let name = format!("{}-{service}", self.name).parse()?;
        Ok(Topic { partitions: 4, hold: HOLD, ..Topic::new(name) })
    }

    /// Makes everybody's boxes, and waits for the bus meanwhile: a group gets what is published once it is there.
    async fn make_boxes(&self) -> Outcome<()> {
        for (of, service) in boxes()? {
            let (topic, group) = (self.topic(of)?, service.parse()?);
            let (env, mut said) = (Env::real(), None);
            let until = env.mono() + REFUSALS;
            while let Err(failed) = self.bus.join(&topic, &group).await {
                // A broker that comes up may say no for a while.
                let is_away = matches!(failed, TransportError::Unavailable { .. });
                if matches!(failed, TransportError::Invalid { .. }) || (!is_away && env.mono() > until) {
                    return Err(failed.into());
                }
                let now = failed.to_string();
                if said.as_ref() != Some(&now) {
                    eprintln!("the box of {group} at {}: {now}", topic.name);
                    said = Some(now);
                }
                env.sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Leaves the bus as it was.
    pub(crate) async fn remove_boxes(&self) -> Outcome<()> {
        for (of, service) in boxes()? {
            self.bus.remove(&self.topic(of)?, &service.parse()?).await?;
        }
        Ok(())
    }

    /// Runs a service until it has heard and told all that there is to be. `looks` is told how many messages took effect so far.
    pub(crate) async fn serve(&self, name: &str, looks: impl Fn(i64)) -> Outcome<()> {
        let role = role(name)?;
        let store = open(&self.folder.join(name).with_extension("db")).await?;
        let mut tables = role.tables.clone();
        // What took effect, in this order: for whoever audits.
        tables.push(
            "CREATE TABLE IF NOT EXISTS handled (place INTEGER PRIMARY KEY, topic TEXT, key TEXT, id TEXT)".into(),
        );
        let made = store.transact(move |tx| {
            let tables = tables.clone();
            Box::pin(async move {
                for sql in &tables {
                    tx.execute(sql, &[]).await?;
                }
                Ok::<_, quorate::store::SqlError>(())
            })
        });
        made.await?;
        let (relay, inboxes) = (self.outbox(&store, &role).await?, self.inboxes(&store, &role).await?);
        let place = async {
            if name == "orders" {
                self.make_boxes().await?;
                orders::place(&store).await?;
            }
            Ok(())
        };
        tokio::try_join!(place, until_done(&store, &role, (&relay, inboxes.as_slice()), looks))?;
        for inbox in inboxes {
            inbox.stop().await;
        }
        relay.stop().await;
        store.close().await?;
        Ok(())
    }

    /// Publishes what the service writes into its log.
    async fn outbox(&self, store: &Store, role: &Role) -> Outcome<Relay> {
        let mut config = RelayConfig::to(self.topic(role.name)?);
        config.subscription.lease_ttl = HOLD;
        config.longest_rest = Duration::from_secs(1);
        Ok(Relay::start(store, &"outbox".parse()?, self.bus.clone(), config).await?)
    }

    /// Has what others told take effect, once.
    async fn inboxes(&self, store: &Store, role: &Role) -> Outcome<Vec<Inbox>> {
        let mut inboxes = Vec::new();
        for of in role.hears {
            let config = InboxConfig::of(self.topic(of)?, role.name.parse()?);
            let (name, handle) = (role.name, role.handle);
            let inbox = Inbox::start(store, self.bus.clone(), config, move |tx, message| {
                Box::pin(async move { take(tx, &message, (name, of), handle).await })
            });
            inboxes.push(inbox.await?);
        }
        Ok(inboxes)
    }
}

/// Waits until a service has heard all that there is to hear, and all that it told is published. What an inbox parked would be waited for in
/// vain.
async fn until_done(
    store: &Store,
    role: &Role,
    (relay, inboxes): (&Relay, &[Inbox]),
    looks: impl Fn(i64),
) -> Outcome<()> {
    let mut heard = -1;
    loop {
        for inbox in inboxes {
            if let Some(parked) = inbox.parked(0, 1).await?.pop() {
                let (identity, why) = (&parked.message.identity, &parked.failures);
                return Err(format!("{} parked {identity}: {why:?}", role.name).into());
            }
        }
        let now = counted(store, "SELECT count(*) FROM handled").await?;
        if now != heard {
            looks(now);
            heard = now;
        }
        if (role.is_done)(store).await? && relay.describe().await?.subscription.lag_events == 0 {
            return Ok(());
        }
        Env::real().sleep(LOOK).await;
    }
}

/// One message, in the transaction that records it.
async fn take(tx: &mut DynTx, message: &Incoming, (name, of): (&str, &str), handle: Handle) -> Result<(), Failed> {
    let event = &message.event;
    let sql = "INSERT INTO handled (topic, key, id) VALUES ($1, $2, $3)";
    tx.execute(sql, &[of.into(), (&*message.key).into(), (&*event.id).into()]).await?;
    let data = event.data.as_deref().unwrap_or_default();
    let order: Order = serde_json::from_slice(data).map_err(|wrong| Failed::park(wrong.to_string()))?;
    if let Some(told) = handle(tx, &event.kind, &order).await? {
        tell(tx, name, told, &order).await?;
    }
    Ok(())
}
