//! Customers, who order transfers one after the other, and go on until they know how each ended.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::try_join_all;
use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use serde_json::json;

use super::transfer::{OWNERS, Transfer, is_too_much};
use crate::{
    client::{Call, Client, JSON, Target},
    exit::{Exit, Failure},
    patterns::live::node::PATIENCE,
};

/// How long a customer rests before an order that was not carried out, or nobody answered, is given again.
const AGAIN: Duration = Duration::from_millis(100);

/// What they saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Transfers that were carried out.
    pub(super) done: Vec<Mono>,
    /// Those that nobody has the money for.
    pub(super) refused: Vec<Mono>,
    /// Orders that were refused because somebody else's promise was in the way.
    pub(super) locked: Vec<Mono>,
    /// Orders that nobody answered.
    pub(super) unanswered: Vec<Mono>,
    /// Those of them that had been decided.
    pub(super) found_decided: u32,
}

/// All of them.
pub(super) struct Customers {
    pub(super) env: Env,
    /// Where transfers are ordered, and where the coordinator's log is read.
    pub(super) teller: Client,
    pub(super) node: Client,
    seen: Mutex<Seen>,
}

impl Customers {
    pub(super) fn new(env: &Env, teller: Client, node: Client) -> Self {
        Self { env: env.clone(), teller, node, seen: Mutex::default() }
    }

    pub(super) fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Each orders these of its transfers; all of them at the same time.
    pub(super) async fn order(&self, these: Range<u32>) -> Result<(), Failure> {
        let each = (0..OWNERS.len()).map(|owner| {
            let these = these.clone();
            async move {
                for nth in these {
                    self.transfer(&Transfer::of(owner, nth), is_too_much(nth)).await?;
                }
                Ok::<_, Failure>(())
            }
        });
        try_join_all(each).await.map(drop)
    }

    /// Orders until it is known how it ended. Under its id it is decided once.
    async fn transfer(&self, transfer: &Transfer, is_too_much: bool) -> Result<(), Failure> {
        let by = self.env.mono() + PATIENCE;
        let call = Call::post("/transfers", JSON, json!(transfer).to_string());
        while self.env.mono() < by {
            let answer = self.teller.answer(&call).await;
            let now = self.env.mono();
            match answer {
                Ok(answer) if answer["ended"] == "committed" => {
                    self.lock().done.push(now);
                    return Ok(());
                }
                Ok(_) if is_too_much => {
                    self.lock().refused.push(now);
                    return Ok(());
                }
                Ok(_) => self.lock().locked.push(now),
                Err(_) => self.lock().unanswered.push(now),
            }
            self.env.sleep(AGAIN).await;
            if self.is_decided(transfer).await {
                let mut seen = self.lock();
                seen.done.push(self.env.mono());
                seen.found_decided += 1;
                return Ok(());
            }
        }
        Err(Failure::new(Exit::Failed, format!("nobody knows how transfer {} ended", transfer.id)))
    }

    /// Whether the coordinator's log has its decision. Where that cannot be read it is ordered again.
    async fn is_decided(&self, transfer: &Transfer) -> bool {
        let target = Target::path(&["v1", "streams", &transfer.stream(), "events"]);
        let told = self.node.answer(&Call::get(target)).await;
        told.is_ok_and(|told| told["events"].as_array().is_some_and(|events| !events.is_empty()))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
