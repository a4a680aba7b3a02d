//! A consumer that the node calls: a process with a store of its own, which knows by the delivery's id what it has done.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{Method, StatusCode};
use quorate_communication::event_bus::webhook::{Secret, TOLERANCE, verify};
use quorate_data::store::{Store, sqlite};
use quorate_runtime::Env;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use super::books::{self, Books, Stand, failed};
use crate::{
    demo::web::{self, Answer, Asked},
    exit::Failure,
};

/// A consumer.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::patterns::live) struct Receiver {
    /// The file with its store.
    pub(super) store: PathBuf,
    /// What deliveries are signed with.
    pub(super) secret: String,
}

/// What goes wrong at a consumer, as `POST /faults` says.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Faults {
    /// Every event is answered 503, and nothing is done.
    pub(super) fails: bool,
    /// The next event has its effect, and is not answered until that is no longer said.
    pub(super) holds: bool,
}

impl Receiver {
    /// Opens it; says where.
    pub(in crate::patterns::live) async fn open(&self, env: &Env) -> Result<SocketAddr, Failure> {
        let secret = self.secret.parse().map_err(|wrong| failed(&wrong))?;
        let store = sqlite::open(env, sqlite::Config::at(&self.store)).await.map_err(|cause| failed(&cause))?;
        books::begin(&store).await?;
        let (faults, _) = watch::channel(Faults::default());
        let desk = Arc::new(Desk { env: env.clone(), secret, store, faults, seen: Mutex::default() });
        let handler: web::Handler = Arc::new(move |asked| {
            let desk = desk.clone();
            Box::pin(async move { desk.answer(&asked).await.unwrap_or_else(Answer::unknown) })
        });
        web::serve(env, handler).await
    }
}

/// What is not in its store.
#[derive(Debug, Default)]
struct Seen {
    refused: Vec<u64>,
    unsigned: usize,
    held: Option<String>,
}

/// Where a consumer is told.
struct Desk {
    env: Env,
    secret: Secret,
    store: Store,
    faults: watch::Sender<Faults>,
    seen: Mutex<Seen>,
}

impl Desk {
    async fn answer(&self, asked: &Asked) -> Result<Answer, Failure> {
        Ok(match (&asked.method, &*asked.path) {
            (&Method::GET, "/books") => {
                let arrivals = books::arrivals(&self.store).await?;
                let seen = self.seen();
                Answer::done(json!(Books { arrivals, refused: seen.refused.clone(), unsigned: seen.unsigned }))
            }
            (&Method::GET, "/stand") => {
                let done = books::count(&self.store).await?;
                Answer::done(json!(Stand { done, held: self.seen().held.clone() }))
            }
            (&Method::POST, "/faults") => match serde_json::from_slice(&asked.body) {
                Ok(faults) => {
                    self.faults.send_replace(faults);
                    Answer::done(json!({}))
                }
                Err(_) => Answer::refused("these are no faults"),
            },
            (&Method::POST, "/hooks") => self.take(asked).await?,
            _ => Answer::not_found(),
        })
    }

    /// A delivery: its effect comes once, in the transaction that also says that it came.
    async fn take(&self, asked: &Asked) -> Result<Answer, Failure> {
        let secrets = std::slice::from_ref(&self.secret);
        let Ok(delivery) = verify(secrets, &asked.headers, &asked.body, self.env.wall(), TOLERANCE) else {
            self.seen().unsigned += 1;
            return Ok(Answer::of(StatusCode::UNAUTHORIZED, json!({ "title": "the signature does not hold" })));
        };
        let Some(named) = books::named(&asked.json()) else { return Ok(Answer::refused("this is no event")) };
        let faults = *self.faults.borrow();
        if faults.fails {
            self.seen().refused.push(self.env.boot().as_nanos());
            return Ok(Answer::unknown("not now"));
        }
        let (env, delivery, event) = (self.env.clone(), delivery.to_owned(), named.1.clone());
        let taken = self.store.transact(move |tx| {
            let (env, delivery, named) = (env.clone(), delivery.clone(), named.clone());
            Box::pin(async move { books::note(tx, &delivery, (&named.0, &named.1), env.boot()).await })
        });
        if !taken.await.map_err(|cause| failed(&cause))? && faults.holds && self.holds(event) {
            let mut now = self.faults.subscribe();
            // Whoever let it go has told so, or is gone.
            let _told = now.wait_for(|now| !now.holds).await;
        }
        Ok(Answer::done(json!({})))
    }

    /// Whether this is the event that is held: the first one.
    fn holds(&self, event: String) -> bool {
        let held = &mut self.seen().held;
        let is_first = held.is_none();
        if is_first {
            *held = Some(event);
        }
        is_first
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
