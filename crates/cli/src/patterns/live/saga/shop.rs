//! A service that the saga calls: a process with a store of its own, which counts what it did and what it was asked for once more.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Method;
use quorate_consistency::saga::{Barrier, Direction, Entered, SagaError};
use quorate_data::store::{DynTx, SqlError, Store, sqlite};
use quorate_runtime::Env;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use super::{
    books::{self, Came},
    order::Order,
};
use crate::{
    demo::web::{self, Answer, Asked},
    exit::{Exit, Failure},
};

/// How long it takes to do something.
const WORK: Duration = Duration::from_millis(25);
/// The pieces in stock at first.
pub(super) const STOCK: i64 = 1_000;
/// The most that the bank has for anybody, in cents.
const LIMIT: i64 = 100_000;
/// Where no parcel goes.
pub(super) const NOWHERE: &str = "the moon";

/// What a service trades in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Trade {
    Mails,
    Stock,
    Bank,
    Parcels,
}

/// A service.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::patterns::live) struct Shop {
    pub(super) trade: Trade,
    /// The file with its store.
    pub(super) store: PathBuf,
}

/// What goes wrong at a service, as `POST /faults` says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Faults {
    /// Every call is answered 500; every other one is done nevertheless.
    pub(super) fails: bool,
    /// The first call for this order is done, and not answered until that is no longer said.
    pub(super) holds: Option<String>,
}

impl Trade {
    pub(super) const ALL: [Self; 4] = [Self::Mails, Self::Stock, Self::Bank, Self::Parcels];

    /// The host in the saga's document.
    pub(super) fn host(self) -> &'static str {
        match self {
            Self::Mails => "mails",
            Self::Stock => "stock",
            Self::Bank => "bank",
            Self::Parcels => "parcels",
        }
    }

    /// What its balance is at first.
    pub(super) fn begins_with(self) -> i64 {
        if self == Self::Stock { STOCK } else { 0 }
    }

    /// What a call adds to its balance, or why it is refused for good.
    pub(super) fn change(self, path: &str, order: &Order) -> Result<i64, &'static str> {
        match (self, path) {
            (Self::Mails, "/received" | "/cancelled") | (Self::Stock, "/releases") => Ok(1),
            (Self::Stock, "/reservations") => Ok(-1),
            (Self::Bank, "/charges") if order.cents > LIMIT => Err("there is not so much on the account"),
            (Self::Bank, "/charges") => Ok(order.cents),
            (Self::Bank, "/refunds") => Ok(-order.cents),
            (Self::Parcels, "/parcels") if order.to == NOWHERE => Err("no parcel goes there"),
            (Self::Parcels, "/parcels") => Ok(1),
            _ => Err("this is not what it is there for"),
        }
    }
}

impl Shop {
    /// Opens it; says where.
    pub(in crate::patterns::live) async fn open(&self, env: &Env) -> Result<SocketAddr, Failure> {
        let store = sqlite::open(env, sqlite::Config::at(&self.store)).await.map_err(failed)?;
        books::begin(&store, self.trade.begins_with()).await?;
        let barrier = Barrier::open(&store).await.map_err(failed)?;
        let (faults, _) = watch::channel(Faults::default());
        let counter = Arc::new(Counter {
            env: env.clone(),
            trade: self.trade,
            store,
            barrier,
            faults,
            failed: AtomicU64::new(0),
        });
        let handler: web::Handler = Arc::new(move |asked| {
            let counter = counter.clone();
            Box::pin(async move { counter.answer(&asked).await })
        });
        web::serve(env, handler).await
    }
}

pub(super) fn failed(cause: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, cause.to_string())
}

/// Where a service is asked.
struct Counter {
    env: Env,
    trade: Trade,
    store: Store,
    barrier: Barrier,
    faults: watch::Sender<Faults>,
    /// Calls that were answered 500.
    failed: AtomicU64,
}

impl Counter {
    async fn answer(&self, asked: &Asked) -> Answer {
        match (&asked.method, &*asked.path) {
            (&Method::GET, "/books") => match books::read(&self.store).await {
                Ok(books) => Answer::done(json!(books)),
                Err(cause) => Answer::unknown(cause),
            },
            (&Method::POST, "/faults") => match serde_json::from_slice(&asked.body) {
                Ok(faults) => {
                    self.faults.send_replace(faults);
                    Answer::done(json!({}))
                }
                Err(_) => Answer::refused("these are no faults"),
            },
            (&Method::POST, _) => self.take(asked).await,
            _ => Answer::not_found(),
        }
    }

    /// A step's call: done once for its key, in the transaction that also says that it came.
    async fn take(&self, asked: &Asked) -> Answer {
        let Ok(order) = serde_json::from_slice::<Order>(&asked.body) else {
            return Answer::refused("this is no order");
        };
        let Some((operation, direction)) = key(asked) else {
            return Answer::refused("a step brings its key as `Idempotency-Key`");
        };
        let faults = self.faults.borrow().clone();
        self.env.sleep(WORK).await;
        let fails = faults.fails.then(|| self.failed.fetch_add(1, Ordering::Relaxed));
        if fails.is_some_and(|nth| nth.is_multiple_of(2)) {
            return self.without_effect(&asked.path, &order, Came::Lost, Answer::failed("it was not even begun")).await;
        }
        let change = match self.trade.change(&asked.path, &order) {
            Ok(change) => change,
            Err(why) => return self.without_effect(&asked.path, &order, Came::Refused, Answer::refused(why)).await,
        };
        let (barrier, env, path, id) = (self.barrier.clone(), self.env.clone(), asked.path.clone(), order.id.clone());
        let came = self.store.transact(move |tx| {
            let (barrier, env, path, id) = (barrier.clone(), env.clone(), path.clone(), id.clone());
            let operation = operation.clone();
            Box::pin(async move {
                let came = match barrier.enter(tx, &operation, direction).await? {
                    Entered::Go if fails.is_some() => Came::Unsaid,
                    Entered::Go => Came::Did,
                    Entered::Repeated(_) => Came::Known,
                    Entered::Nothing => Came::Nothing,
                    Entered::TooLate => Came::Late,
                };
                if came.is_effect() {
                    books::change(tx, change).await?;
                }
                note(tx, &env, &path, &id, came).await?;
                Ok::<_, SagaError>(came)
            })
        });
        match came.await {
            Err(cause) => Answer::unknown(cause),
            Ok(Came::Late) => Answer::refused("it was made up for before it came"),
            Ok(_) if fails.is_some() => Answer::failed("it was done, and says something else"),
            Ok(came) => {
                if came == Came::Did && faults.holds.as_ref() == Some(&order.id) {
                    let mut now = self.faults.subscribe();
                    // Whoever let it go has told so, or is gone.
                    let _told = now.wait_for(|now| now.holds.as_ref() != Some(&order.id)).await;
                }
                Answer::done(json!({}))
            }
        }
    }

    /// Notes a call that has no effect, and answers it.
    async fn without_effect(&self, path: &str, order: &Order, came: Came, answer: Answer) -> Answer {
        let (env, path, id) = (self.env.clone(), path.to_owned(), order.id.clone());
        let noted = self.store.transact(move |tx| {
            let (env, path, id) = (env.clone(), path.clone(), id.clone());
            Box::pin(async move { note(tx, &env, &path, &id, came).await })
        });
        match noted.await {
            Ok(()) => answer,
            Err(cause) => Answer::unknown(cause),
        }
    }
}

async fn note(tx: &mut DynTx, env: &Env, path: &str, order: &str, came: Came) -> Result<(), SqlError> {
    // All processes of a machine read the same clock since it was started.
    books::note(tx, order, path, came, env.boot()).await
}

/// What a call is for, and which way.
fn key(asked: &Asked) -> Option<(String, Direction)> {
    let (operation, direction) = asked.header("idempotency-key")?.trim_matches('"').rsplit_once('/')?;
    let direction = [Direction::Forward, Direction::Compensation].into_iter().find(|one| one.word() == direction)?;
    Some((operation.to_owned(), direction))
}
