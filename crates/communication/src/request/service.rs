//! The handle, and the loop that tells the rules the time.

pub(super) mod remote;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quorate_foundations::{name::Name, time::Mono};
use quorate_resilience::deadline::Deadline;
use quorate_runtime::Env;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    Contract, Counts, DeclareError, Exchange, Fault, Limits, Payload, RequestError, Standing,
    machine::{Call, Effect, Machine, Outcome, Receipt, RequestId, ResponderId, Seat, Unknown, Verdict},
};

/// The requests of a process. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Requests {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

struct Inner {
    env: Env,
    limits: Limits,
    state: Mutex<State>,
    /// The next deadline is another one.
    changed: Notify,
    /// Something happened while this stops.
    stopping: Notify,
}

struct State {
    machine: Machine,
    /// What each type is, and which queue keeps it.
    contracts: BTreeMap<Name, (Contract, Option<Name>)>,
    callers: BTreeMap<RequestId, oneshot::Sender<Outcome>>,
    responders: BTreeMap<ResponderId, mpsc::Sender<Order>>,
    /// Who of them is elsewhere, by what is said of them there.
    seats: BTreeMap<u128, (ResponderId, Name)>,
}

/// What a responder is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Work on this.
    Do(Call),
    /// Nobody waits for this any more; [let go](Serving::let_go) of it, or answer in vain.
    Stop(RequestId),
}

impl Requests {
    /// The most requests a responder works on at once.
    pub const MAX_WINDOW: usize = 1_000;

    /// A place for requests that live in this process.
    ///
    /// It ends with the environment's tasks: told to stop, it refuses what waits and what comes, and sees off what was handed out, each to its deadline at the latest.
    ///
    /// # Panics
    /// Outside of a runtime, where no task can be spawned.
    pub fn new(env: &Env, limits: Limits) -> Self {
        let state = State {
            machine: Machine::new(limits),
            contracts: BTreeMap::new(),
            callers: BTreeMap::new(),
            responders: BTreeMap::new(),
            seats: BTreeMap::new(),
        };
        let inner = Arc::new(Inner {
            env: env.clone(),
            limits,
            state: Mutex::new(state),
            changed: Notify::new(),
            stopping: Notify::new(),
        });
        env.tasks().spawn("requests", keep_time(inner.clone()));
        Self { inner }
    }

    /// What became of requests so far, and how many there are.
    pub fn counts(&self) -> Counts {
        self.inner.state().machine.counts()
    }

    /// What there is of `kind` at this moment.
    pub fn standing(&self, kind: &Name) -> Standing {
        self.inner.state().machine.standing(kind)
    }

    /// How much there may be.
    pub fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// Refuses what waits and what comes, and returns once nobody waits for what was handed out: each was answered, or its deadline passed.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait.
    pub async fn see_off(&self) {
        self.inner.act(|state, now, effects| state.machine.close(now, effects));
        loop {
            let mut turn = pin!(self.inner.stopping.notified());
            // Before looking, so that nothing that happens behind the look is missed.
            turn.as_mut().enable();
            if self.inner.state().machine.is_seen_off() {
                return;
            }
            turn.await;
        }
    }

    pub(super) fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Has callers and responders of `kind` agree on `contract`. The same again changes nothing.
    /// A type that a queue keeps has it for itself: another type's messages would be repeats of its own, and go to its handlers.
    pub(super) fn agree(&self, kind: &Name, contract: &Contract, queue: Option<&Name>) -> Result<(), DeclareError> {
        contract.check()?;
        let (max, mut state) = (self.inner.limits.types, self.inner.state());
        let agreed = (contract.clone(), queue.cloned());
        let is_taken =
            queue.is_some() && state.contracts.iter().any(|(other, (_, of))| other != kind && of.as_ref() == queue);
        match state.contracts.get(kind) {
            Some(known) if *known == agreed => Ok(()),
            Some(_) => Err(DeclareError::Disagrees { kind: kind.clone() }),
            None if is_taken => Err(DeclareError::Disagrees { kind: kind.clone() }),
            None if state.contracts.len() >= max => Err(DeclareError::TooMany { max }),
            None => {
                state.contracts.insert(kind.clone(), agreed);
                Ok(())
            }
        }
    }

    /// Sends a request of `kind` under `contract`, and waits for what becomes of it: the answer, or nothing where there is none to wait for. For whoever has no
    /// Rust types for it; what is declared for others is not looked at.
    ///
    /// # Errors
    /// As [`RequestType::request`](super::RequestType::request), and [`BestEffort::tell`](super::BestEffort::tell). [`Exchange::AfterCommit`] and
    /// [`Exchange::Durable`] are no exchanges of this process: [`RequestError::Invalid`].
    ///
    /// # Cancel safety
    /// Dropping the future cancels, as there.
    pub async fn call(
        &self,
        kind: &Name,
        contract: &Contract,
        body: Payload,
        deadline: Deadline,
    ) -> Result<Option<Payload>, RequestError> {
        let (own, max) = (|| kind.clone(), self.inner.limits.body_bytes);
        let (bytes, media) = (body.bytes.len(), body.content_type.as_ref().map_or(0, |media| media.len()));
        let wrong = match contract.exchange {
            _ if bytes > max => Some(format!("it has {bytes} bytes, of at most {max}")),
            _ if media > Payload::MAX_CONTENT_TYPE => Some(format!("its media type has {media} bytes")),
            Exchange::AfterCommit | Exchange::Durable => Some("it is a message of a queue".to_owned()),
            _ => None,
        };
        if let Some(what) = wrong {
            return Err(RequestError::Invalid { kind: own(), what });
        }
        let deadline = Deadline::after(self.inner.env.mono(), contract.time_limit).earliest(deadline);
        let is_awaited = matches!(contract.exchange, Exchange::Answer { .. });
        let (reply, answer) = oneshot::channel();
        let id = self.inner.act(|state, now, effects| {
            let id = state.machine.send(now, kind, (body, deadline), is_awaited, effects);
            state.callers.insert(id, reply);
            id
        });
        let _gone = Gone { inner: &self.inner, id };
        // Nobody drops a sender without telling the outcome.
        match answer.await.unwrap_or(Outcome::Unknown(Unknown::Failed)) {
            Outcome::Said(Verdict::Answer(answer)) => Ok(Some(answer)),
            Outcome::HandedOver => Ok(None),
            Outcome::Said(Verdict::Fault(fault)) => Err(RequestError::Fault { kind: own(), fault }),
            Outcome::NoResponder => Err(RequestError::NoResponder { kind: own() }),
            Outcome::Refused(why) => Err(RequestError::Refused { kind: own(), why }),
            Outcome::Unknown(why) => {
                let idempotent = contract.exchange == Exchange::Answer { idempotent: true };
                Err(RequestError::Unknown { kind: own(), why, idempotent })
            }
        }
    }

    /// Serves `kind`, with at most `window` requests at once: 1 to [`MAX_WINDOW`](Self::MAX_WINDOW).
    pub(super) fn serve(&self, kind: &Name, seat: Seat, window: usize) -> Result<Serving, DeclareError> {
        let max = Self::MAX_WINDOW;
        let places = NonZeroUsize::new(window).filter(|places| places.get() <= max);
        let places = places
            .ok_or_else(|| DeclareError::Invalid { what: format!("`window` is 1 to {max}, {window} was asked for") })?;
        // Invariant: it never is full. Of a place there are at most three orders that were not heard: to stop what was answered meanwhile, and to do and to
        // stop what came next, which nobody can answer before hearing of it.
        let (orders, told) = mpsc::channel(3 * window);
        let id = self.inner.act(|state, now, effects| {
            let id = state.machine.join(now, kind, (seat, places), effects)?;
            state.responders.insert(id, orders);
            Ok::<_, DeclareError>(id)
        })?;
        Ok(Serving { requests: self.clone(), id, told })
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the rules change something, and does what they say before anybody else changes anything.
    fn act<T>(&self, change: impl FnOnce(&mut State, Mono, &mut Vec<Effect>) -> T) -> T {
        let mut effects = Vec::new();
        let mut state = self.state();
        let due = state.machine.wake_at();
        let changed = change(&mut state, self.env.mono(), &mut effects);
        for effect in effects {
            state.apply(effect);
        }
        if state.machine.wake_at() != due {
            self.changed.notify_one();
        }
        if state.machine.is_closing() {
            self.stopping.notify_waiters();
        }
        changed
    }
}

impl State {
    fn apply(&mut self, effect: Effect) {
        let (to, order) = match effect {
            Effect::Hand(to, call) => (to, Order::Do(call)),
            Effect::Stop(to, id) => (to, Order::Stop(id)),
            Effect::Settle(id, outcome) => {
                // Whoever asked may be leaving at this moment.
                drop(self.callers.remove(&id).map(|caller| caller.send(outcome)));
                return;
            }
        };
        let full = self
            .responders
            .get(&to)
            .is_some_and(|orders| matches!(orders.try_send(order), Err(mpsc::error::TrySendError::Full(_))));
        assert!(!full, "invariant: a responder's orders fit, three for each place of its window");
    }
}

/// Tells the rules when time has passed. Told to stop, it goes on until nothing is left that has a deadline.
async fn keep_time(inner: Arc<Inner>) {
    let stop = inner.env.tasks().stop().clone();
    let mut is_closing = false;
    loop {
        let due = inner.state().machine.wake_at();
        if is_closing && due.is_none() {
            return;
        }
        let passed = async {
            match due {
                Some(at) => inner.env.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled(), if !is_closing => is_closing = true,
            () = inner.changed.notified() => {}
            () = passed => {}
        }
        inner.act(|state, now, effects| {
            if is_closing {
                state.machine.close(now, effects);
            }
            state.machine.tick(now, effects);
        });
    }
}

/// A caller that waits. Dropped before there is an outcome, it cancels.
struct Gone<'a> {
    inner: &'a Inner,
    id: RequestId,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let id = self.id;
        self.inner.act(|state, now, effects| {
            if state.callers.remove(&id).is_some() {
                state.machine.cancel(now, id, effects);
            }
        });
    }
}

/// A responder that is there. Dropping it leaves: what it works on is *unknown* to callers, and what comes goes to others.
pub(super) struct Serving {
    requests: Requests,
    id: ResponderId,
    told: mpsc::Receiver<Order>,
}

impl Serving {
    /// What it is told next.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Order> {
        self.told.recv().await
    }

    /// How what it works on is said to be done.
    pub(super) fn voice(&self) -> Voice {
        Voice { requests: self.requests.clone(), id: self.id }
    }

    /// Has nothing more handed out to anybody: the process stops.
    pub(super) fn close(&self) {
        self.requests.inner.act(|state, now, effects| state.machine.close(now, effects));
    }

    /// Whether it heard all that it was told.
    pub(super) fn is_idle(&self) -> bool {
        self.told.is_empty()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.voice().leave();
    }
}

/// Who a responder is when it says something.
#[derive(Clone, Debug)]
pub(super) struct Voice {
    requests: Requests,
    id: ResponderId,
}

impl Voice {
    /// Says what came of a request. An answer that is too long is a fault.
    pub(super) fn answer(&self, id: RequestId, verdict: Verdict) -> Receipt {
        let max = self.requests.inner.limits.body_bytes;
        let verdict = match verdict {
            Verdict::Answer(body) if body.bytes.len() > max => {
                let bytes = body.bytes.len();
                let detail = format!("the answer has {bytes} bytes, of at most {max}; the request was done");
                Verdict::Fault(Fault::new("answer-too-long", detail))
            }
            // What was made by hand, or read, has no limits of its own.
            Verdict::Fault(Fault { code, detail }) => Verdict::Fault(Fault::new(code, detail)),
            fitting => fitting,
        };
        self.requests.inner.act(|state, now, effects| state.machine.answer(now, self.id, id, verdict, effects))
    }

    /// Leaves: nothing is handed to it any more, and what it holds is unknown. A second time changes nothing.
    pub(super) fn leave(&self) {
        self.requests.inner.act(|state, now, effects| {
            state.responders.remove(&self.id);
            state.seats.retain(|_, (id, _)| *id != self.id);
            state.machine.leave(now, self.id, effects);
        });
    }

    /// Begins on a request: from now on it may have been done. `false` if nobody waits for it any more.
    pub(super) fn begin(&self, id: RequestId) -> bool {
        self.requests.inner.act(|state, now, effects| state.machine.begin(now, self.id, id, effects))
    }

    /// Whether it has begun on a request, and is not done with it.
    fn has_begun(&self, id: RequestId) -> bool {
        self.requests.inner.state().machine.has_begun(self.id, id)
    }

    /// Says that a request is worked on no more.
    pub(super) fn let_go(&self, id: RequestId) -> bool {
        self.requests.inner.act(|state, now, effects| state.machine.let_go(now, self.id, id, effects))
    }
}
