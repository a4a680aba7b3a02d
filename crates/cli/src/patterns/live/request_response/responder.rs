//! A responder: is handed requests by the node, makes charges, and answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quorate_runtime::Env;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    charge::{Charge, Course, KIND, TOO_DEAR},
    till::{HandedIn, Note, STOPPED},
};
use crate::{
    client::{Call, Client, Follow, Follower, JSON, Target},
    exit::{Exit, Failure},
    patterns::live::node::{PATIENCE, client},
};

/// How many requests a responder works on at once.
pub(super) const WINDOW: usize = 4;
/// How long it takes to make a charge.
const WORK: Duration = Duration::from_millis(20);

/// A responder.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::patterns::live) struct Responder {
    /// Which one it is.
    pub(super) number: usize,
    /// Where requests are.
    pub(super) node: String,
    /// Where charges are made.
    pub(super) till: String,
}

impl Responder {
    /// Answers until its node is gone for too long. What keeps it from answering is said.
    pub(in crate::patterns::live) async fn work(self, env: &Env) {
        if let Err(failed) = self.serve(env).await {
            crate::output::complain(&failed.to_string());
        }
    }

    async fn serve(self, env: &Env) -> Result<(), Failure> {
        let (node, till) = (client(env, &self.node)?, client(env, &self.till)?);
        let target = Target::path(&["v1", "request-types", KIND, "serve"]).with("window", WINDOW).into();
        let mut follower = Follower::new(&node, Follow { target, silence: PATIENCE, patience: PATIENCE });
        let desk = Arc::new(Desk { number: self.number, env: env.clone(), node, till, stops: Mutex::default() });
        loop {
            let told = follower.next(&mut |_| {}).await?;
            let what: Value = serde_json::from_str(&told.data).unwrap_or_default();
            let request = what["request"].as_str().unwrap_or_default().to_owned();
            match told.event.as_str() {
                "request" => {
                    let charge = what["body"].as_str().and_then(|body| serde_json::from_str(body).ok());
                    let charge = charge.ok_or_else(|| Failure::new(Exit::Failed, "a request that is no charge"))?;
                    let (desk, stop) = (desk.clone(), desk.begin(&request));
                    env.tasks().spawn("patterns-request", async move { desk.work(&request, charge, &stop).await });
                }
                "stop" => desk.stop(&request),
                _ => {}
            }
        }
    }
}

/// Where a responder works.
struct Desk {
    number: usize,
    env: Env,
    node: Client,
    till: Client,
    /// What tells those to stop that are worked on.
    stops: Mutex<BTreeMap<String, CancellationToken>>,
}

impl Desk {
    fn begin(&self, request: &str) -> CancellationToken {
        self.stops().entry(request.to_owned()).or_default().clone()
    }

    fn stop(&self, request: &str) {
        if let Some(stop) = self.stops().get(request) {
            stop.cancel();
        }
    }

    async fn work(&self, request: &str, charge: Charge, stop: &CancellationToken) {
        // What it could not do is for its caller to hear of, by the deadline at the latest.
        if let Err(failed) = self.answer(request, charge, stop).await {
            crate::output::complain(&failed.to_string());
        }
        self.stops().remove(request);
    }

    async fn answer(&self, request: &str, charge: Charge, stop: &CancellationToken) -> Result<(), Failure> {
        self.env.sleep(WORK).await;
        let id = charge.id.clone();
        let (how, said) = if charge.is_too_dear() {
            ("fault", json!({ "code": TOO_DEAR, "detail": "there is not so much on the account" }))
        } else {
            let (is_slow, said) = (charge.course == Course::Slow, json!({ "id": id, "charged": charge.cents }));
            self.hand_in("/charges", &HandedIn { responder: self.number, charge }).await?;
            if is_slow {
                stop.cancelled().await;
                self.note(&id, STOPPED).await?;
            }
            ("answer", said)
        };
        let target = Target::path(&["v1", "request-types", KIND, "requests", request, how]);
        let told = self.node.answer(&Call::post(target, JSON, said.to_string())).await?;
        self.note(&id, told["receipt"].as_str().unwrap_or("without a receipt")).await
    }

    async fn note(&self, id: &str, what: &str) -> Result<(), Failure> {
        self.hand_in("/notes", &Note { id: id.to_owned(), what: what.to_owned() }).await
    }

    async fn hand_in(&self, path: &str, what: &(impl Serialize + Sync)) -> Result<(), Failure> {
        let body = serde_json::to_string(what).map_err(|cause| Failure::of(Exit::Failed, &cause))?;
        self.till.answer(&Call::post(path, JSON, body)).await.map(drop)
    }

    fn stops(&self) -> MutexGuard<'_, BTreeMap<String, CancellationToken>> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
