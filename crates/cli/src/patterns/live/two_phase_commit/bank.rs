//! A bank: a process with a store of its own, which promises, keeps and takes back what a coordinator asks of it over HTTP.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Method;
use quorate_consistency::two_phase_commit::{
    Embedded, Gid, Participant as _, ParticipantError, Prepared, SqlResource, Vote, Work,
};
use quorate_data::store::{SqlError, Store, sqlite};
use quorate_foundations::time::Boot;
use quorate_runtime::Env;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::{
    failed,
    transfer::{BEGINS_WITH, OWNERS},
};
use crate::{
    demo::web::{self, Answer, Asked},
    exit::Failure,
};

/// A bank.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::patterns::live) struct Bank {
    /// The file with its store.
    pub(super) store: PathBuf,
}

/// What goes wrong at a bank, as `POST /faults` says.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Faults {
    /// What it promises it does not say, until that is over.
    pub(super) mute: bool,
    /// It ends nothing: whoever tells it how something ends hears 503.
    pub(super) stubborn: bool,
}

/// How a promise ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum How {
    Committed,
    Aborted,
}

/// For how long something was promised, by the machine's boot clock in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Promise {
    pub(super) from: u64,
    pub(super) ended: Option<(u64, How)>,
}

/// Money of one owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) owner: String,
    pub(super) total: i64,
    /// What of it nobody was promised.
    pub(super) free: i64,
}

/// Everything a bank knows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Books {
    pub(super) accounts: Vec<Account>,
    pub(super) promises: BTreeMap<String, Promise>,
}

impl Promise {
    pub(super) fn from(&self) -> Boot {
        Boot::from_nanos(self.from)
    }

    pub(super) fn how(&self) -> Option<How> {
        self.ended.map(|(_, how)| how)
    }

    pub(super) fn until(&self) -> Option<Boot> {
        self.ended.map(|(until, _)| Boot::from_nanos(until))
    }

    /// For how long it was held, once it is not any more.
    pub(super) fn held(&self) -> Option<Duration> {
        Some(self.until()?.saturating_since(self.from()))
    }
}

impl Books {
    /// What is promised and not ended.
    pub(super) fn open(&self) -> impl Iterator<Item = &String> {
        self.promises.iter().filter(|(_, promise)| promise.ended.is_none()).map(|(gid, _)| gid)
    }

    pub(super) fn how(&self, gid: &str) -> Option<How> {
        self.promises.get(gid)?.how()
    }

    pub(super) fn total(&self) -> i64 {
        self.accounts.iter().map(|account| account.total).sum()
    }
}

impl Bank {
    /// Opens it; says where.
    pub(in crate::patterns::live) async fn open(&self, env: &Env) -> Result<SocketAddr, Failure> {
        let store = sqlite::open(env, sqlite::Config::at(&self.store)).await.map_err(failed)?;
        let made = store.transact(|tx| {
            Box::pin(async move {
                let table =
                    "CREATE TABLE account (owner TEXT PRIMARY KEY, total BIGINT NOT NULL, free BIGINT NOT NULL)";
                tx.execute(table, &[]).await?;
                for owner in OWNERS {
                    tx.execute("INSERT INTO account VALUES ($1, $2, $2)", &[owner.into(), BEGINS_WITH.into()]).await?;
                }
                Ok::<_, SqlError>(())
            })
        });
        made.await.map_err(failed)?;
        let name = "bank".parse().map_err(failed)?;
        let participant = Embedded::open(&store, &name, Arc::new(SqlResource)).await.map_err(failed)?;
        let (faults, _) = watch::channel(Faults::default());
        let counter = Arc::new(Counter { env: env.clone(), store, participant, faults, promises: Mutex::default() });
        let tasks = env.tasks().clone();
        let handler: web::Handler = Arc::new(move |asked| {
            let (counter, (tell, told)) = (counter.clone(), oneshot::channel());
            // What was begun is done to its end, also where whoever asked is gone.
            tasks.spawn("patterns-bank", async move { _ = tell.send(counter.answer(&asked).await) });
            Box::pin(async move { told.await.unwrap_or_else(|_| Answer::unknown("it stops")) })
        });
        web::serve(env, handler).await
    }
}

/// Where a bank is asked.
struct Counter {
    env: Env,
    store: Store,
    participant: Embedded,
    faults: watch::Sender<Faults>,
    promises: Mutex<BTreeMap<String, Promise>>,
}

impl Counter {
    async fn answer(&self, asked: &Asked) -> Answer {
        let body = asked.json();
        match (&asked.method, &*asked.path) {
            (&Method::GET, "/books") => self.books().await,
            (&Method::GET, "/in-doubt") => self.in_doubt(asked.query.as_deref().unwrap_or_default()).await,
            (&Method::POST, "/faults") => match serde_json::from_value(body) {
                Ok(faults) => {
                    self.faults.send_replace(faults);
                    Answer::done(json!({}))
                }
                Err(_) => Answer::refused("these are no faults"),
            },
            (&Method::POST, path) => {
                let Some(gid) = body["gid"].as_str().and_then(|gid| gid.parse::<Gid>().ok()) else {
                    return Answer::refused("it names no transaction");
                };
                match path {
                    "/prepare" => self.prepare(&gid, &body["work"]).await,
                    "/commit" => self.end(&gid, How::Committed).await,
                    "/abort" => self.end(&gid, How::Aborted).await,
                    _ => Answer::not_found(),
                }
            }
            _ => Answer::not_found(),
        }
    }

    async fn prepare(&self, gid: &Gid, work: &Value) -> Answer {
        let Ok(work) = Work::json(work) else { return Answer::refused("this is no work") };
        let from = self.env.boot().as_nanos();
        let vote = match self.participant.prepare(gid, &work).await {
            Ok(Vote::Yes) => json!({ "vote": "yes" }),
            Ok(Vote::ReadOnly) => json!({ "vote": "read-only" }),
            Ok(Vote::No { why }) => json!({ "vote": "no", "why": why }),
            Err(cause) => return Answer::unknown(cause),
        };
        if vote["vote"] == "yes" {
            self.promises().entry(gid.to_string()).or_insert(Promise { from, ended: None });
            let mut faults = self.faults.subscribe();
            // The sender lives as long as this.
            let _spoken = faults.wait_for(|faults| !faults.mute).await;
        }
        Answer::done(vote)
    }

    async fn end(&self, gid: &Gid, how: How) -> Answer {
        if self.faults.borrow().stubborn {
            return Answer::unknown("not now");
        }
        let ended = match how {
            How::Committed => self.participant.commit(gid).await,
            How::Aborted => self.participant.abort(gid).await,
        };
        match ended {
            Ok(()) => {
                let now = self.env.boot().as_nanos();
                if let Some(promise) = self.promises().get_mut(&gid.to_string()) {
                    promise.ended.get_or_insert((now, how));
                }
                Answer::done(json!({}))
            }
            Err(ParticipantError::Contradicted { what }) => Answer::conflict(&what),
            Err(cause) => Answer::unknown(cause),
        }
    }

    async fn in_doubt(&self, query: &str) -> Answer {
        let one = |name: &str| query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
        let Some(coordinator) = one("coordinator").and_then(|(_, id)| id.parse().ok()) else {
            return Answer::refused("it names no coordinator");
        };
        let limit = one("limit").and_then(|(_, limit)| limit.parse().ok()).unwrap_or(usize::MAX);
        let after = one("after").and_then(|(_, gid)| gid.parse::<Gid>().ok());
        match self.participant.in_doubt(coordinator).await {
            Ok(mut all) => {
                all.sort_by_key(|prepared| prepared.gid);
                let page = all.iter().filter(|one| after.is_none_or(|after| one.gid > after)).take(limit);
                let told = |Prepared { gid, age, held }: &Prepared| {
                    let age = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
                    json!({ "gid": gid.to_string(), "age-ms": age, "held": held })
                };
                Answer::done(json!({ "prepared": page.map(told).collect::<Vec<_>>() }))
            }
            Err(cause) => Answer::unknown(cause),
        }
    }

    async fn books(&self) -> Answer {
        let promises = self.promises().clone();
        let rows = self.store.query("SELECT owner, total, free FROM account ORDER BY owner", vec![]).await;
        let account = |row: &quorate_data::store::Row| {
            let (owner, number) = (row.at(0).as_str()?, |n| row.at(n).as_i64());
            Some(Account { owner: owner.to_owned(), total: number(1)?, free: number(2)? })
        };
        match rows {
            Ok(rows) => Answer::done(json!(Books { accounts: rows.iter().filter_map(account).collect(), promises })),
            Err(cause) => Answer::unknown(cause),
        }
    }

    fn promises(&self) -> MutexGuard<'_, BTreeMap<String, Promise>> {
        self.promises.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
