//! A responder in this process: each request that it is handed runs its handler in a task of its own.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use quorate_resilience::deadline::Deadline;
use quorate_runtime::{BoxFuture, tasks::Tasks};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Fault, Payload,
    machine::{Call, RequestId, Verdict},
    service::{Order, Serving, Voice},
};

/// What a handler is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked<Q> {
    /// What is asked.
    pub body: Q,
    /// When nobody waits any more; the handler is dropped then. Hand it to every request of the handler's own, so that a chain spends one budget.
    pub deadline: Deadline,
}

/// Somebody who serves a type. Dropping this leaves at once: handlers that run are dropped where they wait, and their callers are told that the outcome is unknown.
///
/// When the environment's tasks are told to stop, it leaves once the handlers that run are done, each at its deadline at the latest.
#[derive(Debug)]
#[must_use = "dropping it leaves"]
pub struct Responder {
    voice: Voice,
    /// Cancelled behind what `drop` does, so that the rules know first.
    _leaving: DropGuard,
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.voice.leave();
    }
}

/// Does a request's work.
type Work = Arc<dyn Fn(Call) -> BoxFuture<'static, Verdict> + Send + Sync>;

/// A handler of values as one of bytes.
fn work_of<Q, A, F, R>(handler: F) -> Work
where
    Q: DeserializeOwned,
    A: Serialize + 'static,
    F: Fn(Asked<Q>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<A, Fault>> + Send + 'static,
{
    Arc::new(move |call| {
        let asked = match serde_json::from_slice(&call.body.bytes) {
            Ok(body) => handler(Asked { body, deadline: call.deadline }),
            Err(wrong) => {
                let fault = Fault::new("unreadable", format!("the request cannot be read: {wrong}"));
                return Box::pin(std::future::ready(Verdict::Fault(fault)));
            }
        };
        Box::pin(async move {
            match asked.await.map(|answer| serde_json::to_vec(&answer)) {
                Ok(Ok(answer)) => Verdict::Answer(Payload::json(answer)),
                Ok(Err(wrong)) => Verdict::Fault(Fault::new(
                    "unwritable",
                    format!("the request was done, and its answer cannot be written: {wrong}"),
                )),
                Err(fault) => Verdict::Fault(fault),
            }
        })
    })
}

/// Has `handler` do what `serving` is handed.
pub(super) fn start<Q, A, F, R>(serving: Serving, tasks: &Tasks, handler: F) -> Responder
where
    Q: DeserializeOwned,
    A: Serialize + 'static,
    F: Fn(Asked<Q>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<A, Fault>> + Send + 'static,
{
    let (leaving, tasks, voice) = (CancellationToken::new(), tasks.child("responder"), serving.voice());
    tasks.spawn("responder", run(serving, work_of(handler), tasks.clone(), leaving.clone()));
    Responder { voice, _leaving: leaving.drop_guard() }
}

/// Starts and stops handlers as it is told, until the responder leaves.
async fn run(mut serving: Serving, work: Work, tasks: Tasks, leaving: CancellationToken) {
    // Dropping a guard drops the handler.
    let mut running: BTreeMap<RequestId, DropGuard> = BTreeMap::new();
    // Bounded by the window: what has ended is heard of before another one is begun.
    let (ended, mut endings) = mpsc::unbounded_channel();
    let mut is_closing = false;
    while !(is_closing && running.is_empty() && serving.is_idle()) {
        let order = tokio::select! {
            biased;
            () = leaving.cancelled() => return,
            Some(id) = endings.recv() => {
                running.remove(&id);
                continue;
            }
            () = tasks.stop().cancelled(), if !is_closing => {
                // Nothing is handed out behind this; what was handed out before lies among the orders, and is done.
                serving.close();
                is_closing = true;
                continue;
            }
            order = serving.next() => order,
        };
        match order {
            Some(Order::Do(call)) => {
                let (id, stopped) = (call.id, CancellationToken::new());
                running.insert(id, stopped.clone().drop_guard());
                tasks.spawn("request", handle(call, work.clone(), (serving.voice(), stopped, ended.clone())));
            }
            Some(Order::Stop(id)) => drop(running.remove(&id)),
            None => return,
        }
    }
}

/// Runs a handler to its end, or until it is stopped, and says what came of it.
async fn handle(
    call: Call,
    work: Work,
    (voice, stopped, ended): (Voice, CancellationToken, mpsc::UnboundedSender<RequestId>),
) {
    // Before the handler, so that it is dropped behind it, also where dropping the handler panics.
    let place = Place { voice, id: call.id, ended };
    if !place.voice.begin(place.id) {
        return;
    }
    // Calling the handler may panic as well as waiting for it.
    let working = AssertUnwindSafe(async move { work(call).await }).catch_unwind();
    let said = tokio::select! {
        biased;
        () = stopped.cancelled() => None,
        said = working => said.ok(),
    };
    // `working` is dropped by now, so that the place is free only when nothing of the handler is left.
    if let Some(verdict) = said {
        let _told = place.voice.answer(place.id, verdict);
    }
}

/// A place of the window that is taken. Dropped, it is free: whoever has not answered lets go.
struct Place {
    voice: Voice,
    id: RequestId,
    ended: mpsc::UnboundedSender<RequestId>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _was_held = self.voice.let_go(self.id);
        // Nobody listens any more when the responder has left.
        let _ = self.ended.send(self.id);
    }
}
