//! Who asks: callers that ask once for each charge, and keep what they heard.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_foundations::time::Mono;
use quorate_resilience::{deadline::Deadline, http::TIMEOUT};
use quorate_runtime::Env;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::charge::{Charge, KIND};
use crate::{
    client::{Call, Client, JSON, Problem, Target},
    exit::{Exit, Failure},
    patterns::live::node::client,
};

/// How long a caller thinks between two requests.
const PAUSE: Duration = Duration::from_millis(20);
/// One request in so many is refused by the rule.
const GREED: u32 = 5;
/// How long callers wait that have no reason to hurry.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// What a caller heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The answer to its charge.
    Answer,
    /// The application says no.
    Fault(String),
    /// Nobody has begun on it, and why.
    NotDone(String),
    /// It may have been done.
    Unknown(String),
    /// What no caller should hear.
    Strange(String),
}

impl Heard {
    fn answer(charge: &Charge, body: &[u8]) -> Self {
        let told: Value = serde_json::from_slice(body).unwrap_or_default();
        match told["id"] == charge.id.as_str() && told["charged"] == charge.cents {
            true => Self::Answer,
            false => Self::Strange(format!("the answer to something else: {told}")),
        }
    }

    fn problem(problem: &Problem) -> Self {
        let member = |name: &str| problem.text(name).unwrap_or_default().to_owned();
        match problem.slug.as_str() {
            "request-fault" => Self::Fault(member("fault")),
            "request-unknown" => Self::Unknown(member("reason")),
            "no-responder" | "request-refused" | "shutting-down" | "deadline-passed" => {
                Self::NotDone(problem.slug.clone())
            }
            _ => Self::Strange(problem.to_string()),
        }
    }
}

/// A request that is over.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) charge: Charge,
    pub(super) began: Mono,
    pub(super) at: Mono,
    pub(super) heard: Heard,
}

/// Everybody who asks.
#[derive(Clone)]
pub(super) struct Callers {
    env: Env,
    node: Client,
    ended: Arc<Mutex<Vec<Ended>>>,
}

impl Callers {
    pub(super) fn of(env: &Env, url: &str) -> Result<Self, Failure> {
        Ok(Self { env: env.clone(), node: client(env, url)?, ended: Arc::default() })
    }

    /// All requests that are over, in the order in which they ended.
    pub(super) fn ended(&self) -> Vec<Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many were answered.
    pub(super) fn answered(&self) -> usize {
        self.ended().iter().filter(|one| one.heard == Heard::Answer).count()
    }

    /// Asks once, and waits until `patience` is over.
    pub(super) async fn ask(&self, charge: Charge, patience: Duration) -> Result<(), Failure> {
        let began = self.env.mono();
        let body = serde_json::to_string(&charge).map_err(|cause| Failure::of(Exit::Failed, &cause))?;
        let mut call = Call::post(Target::path(&["v1", "requests", KIND]), JSON, body);
        if let Some(left) = Deadline::after(began, patience).to_wire(began) {
            call = call.header(TIMEOUT, &left)?;
        }
        // The node says by the deadline what became of it; it is listened to for as long again.
        let mut connection = self.node.clone().with_deadline(patience * 2).connection();
        let heard = match connection.call(&call).await {
            Ok(Ok(reply)) => Heard::answer(&charge, &reply.body),
            Ok(Err(problem)) => Heard::problem(&problem),
            Err(broken) => Heard::Strange(broken.to_string()),
        };
        let ended = Ended { charge, began, at: self.env.mono(), heard };
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
        Ok(())
    }

    /// Asks for one charge after the other until `stop`. Whatever is heard, none of them is asked for again.
    pub(super) async fn go_on(&self, number: u32, stop: &CancellationToken) -> Result<(), Failure> {
        for nth in 0.. {
            if stop.is_cancelled() {
                break;
            }
            let id = format!("{number}-{nth}");
            let charge = match nth % GREED {
                3 => Charge::too_dear(id),
                _ => Charge::new(id, super::charge::Course::Plain),
            };
            self.ask(charge, LONG).await?;
            self.env.sleep(PAUSE).await;
        }
        Ok(())
    }
}
