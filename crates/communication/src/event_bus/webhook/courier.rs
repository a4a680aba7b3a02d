//! Who carries events to an endpoint: one loop per endpoint and process.
//!
//! It pulls as many events as it has places, makes one attempt with each, and settles it. It decides nothing: what an answer means
//! is the [`machine`](super::machine)'s, which event comes next the subscription's.

mod written;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use quorate_data::{
    store::{Retry, StoreError},
    subscription::{Delivery, Lease, Pull, Subscription, SubscriptionError},
};
use quorate_foundations::time::Mono;
use quorate_runtime::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use written::Standing;

use super::{
    Attempt,
    calls::{Ended, Line},
    machine::{Effect, Endpoint, Input, LONGEST_PAUSE},
    message::Message,
    rows::Head,
    service::Room,
};

/// How long a pull waits at most before it is asked anew.
const WAIT: Duration = Duration::from_secs(30);
/// How often an idle endpoint looks whether somebody replayed something behind its back.
const LOOK: Duration = Duration::from_secs(5);
/// How long the courier rests when the store or the window does not let it go on.
const REST: Duration = Duration::from_secs(1);
/// How long attempts may go on when the process stops; what has not ended then is sent again when its lease has run.
const GRACE: Duration = Duration::from_secs(3);
/// How often settling is tried; then the lease has to run out.
const TRIES: u32 = 5;

/// The loop of one endpoint.
pub(super) struct Courier {
    pub(super) room: Arc<Room>,
    pub(super) subscription: Subscription,
    /// The endpoint as it is; closed when it is not to be served any more.
    pub(super) orders: watch::Receiver<Arc<Head>>,
}

/// One term of a courier: as long as the endpoint stays as it is.
struct Term {
    room: Arc<Room>,
    subscription: Subscription,
    head: Arc<Head>,
    line: Line,
    endpoint: Mutex<Endpoint>,
    stop: CancellationToken,
}

type Pulling<'t> = BoxFuture<'t, Result<Vec<Delivery>, SubscriptionError>>;

/// How the courier goes on after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Go,
    Pause(Duration),
    /// The endpoint was disabled.
    Halt,
}

/// Why a term ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Changed,
    Over,
}

/// Has somebody look after the endpoint when its courier ends, however it does.
struct Ending(Arc<Room>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.touch();
    }
}

impl Courier {
    /// Serves the endpoint until it is told to stop, the endpoint is disabled or deleted, or its subscription is gone.
    pub(super) async fn run(self, stop: CancellationToken) {
        // Ordering: dropped behind the orders, by whose end whoever looks knows that this courier is gone.
        let _looked_after = Ending(self.room.clone());
        let Self { room, subscription, mut orders } = self;
        // What the last term has learnt of the endpoint, which holds on if nothing was forgiven in between.
        let (mut forgiven, mut learnt) = (None, None);
        loop {
            let head = orders.borrow_and_update().clone();
            if forgiven.replace(head.forgiven) != Some(head.forgiven) {
                // Also where another process forgave: what this one's breaker counted was the endpoint of before.
                learnt = None;
                room.calls.reset(&head.name);
            }
            let line = stop.run_until_cancelled(room.calls.line(&head.name, &head.config, true));
            let line = match line.await {
                None => return,
                Some(Ok(line)) => line,
                Some(Err(cause)) => {
                    tracing::error!(webhook = head.name.as_str(), %cause, "the endpoint cannot be called");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        changed = orders.changed() => if changed.is_err() { return },
                        () = room.store.env().sleep(REST) => {}
                    }
                    continue;
                }
            };
            let (endpoint, paused) = learnt.take().unwrap_or_else(|| (head.endpoint(), Mono::ZERO));
            let endpoint = Mutex::new(endpoint);
            let (room, subscription, stop) = (room.clone(), subscription.clone(), stop.clone());
            let term = Term { room, subscription, head, line, endpoint, stop };
            match term.serve(&mut orders, paused).await {
                (End::Over, _) => return,
                (End::Changed, paused) => {
                    let endpoint = term.endpoint.into_inner().unwrap_or_else(PoisonError::into_inner);
                    learnt = Some((endpoint, paused));
                }
            }
        }
    }
}

impl Term {
    /// Serves the endpoint until it changes, leaving it alone until `paused`; until when it is to be left alone then.
    async fn serve(&self, orders: &mut watch::Receiver<Arc<Head>>, paused: Mono) -> (End, Mono) {
        let (env, stop) = (self.room.store.env(), &self.stop);
        let mut under_way = FuturesUnordered::<BoxFuture<'_, Next>>::new();
        let mut pull: Option<Pulling<'_>> = None;
        let (mut paused, mut halted, mut end) = (paused.max(self.asked(&self.head)), false, None);
        let (mut deadline, mut stalled) = (None, false);
        loop {
            let free = self.head.config.places - under_way.len().min(self.head.config.places);
            let is_paused = env.mono() < paused;
            if let Some(end) = end.filter(|_| under_way.is_empty()) {
                // A disabled one has no next term, also if it became another one meanwhile: whoever looks sees which it is.
                return (if halted { End::Over } else { end }, paused);
            }
            if pull.is_none() && free > 0 && !is_paused && !halted && end.is_none() && !stop.is_cancelled() {
                pull = Some(Box::pin(self.next(if self.is_probing() { 1 } else { free })));
            }
            tokio::select! {
                biased;
                // Also where it is ending already: what is under way then has no more time than it would otherwise.
                () = stop.cancelled(), if deadline.is_none() => {
                    (end, deadline) = (Some(End::Over), Some(env.mono() + GRACE));
                    under_way.extend(self.let_go(&mut pull));
                }
                changed = orders.changed(), if end.is_none() => {
                    let known = orders.borrow_and_update().clone();
                    match changed {
                        // The same endpoint, which has asked another process for time.
                        Ok(()) if known.revision == self.head.revision => paused = paused.max(self.asked(&known)),
                        Ok(()) => end = Some(End::Changed),
                        Err(_) => end = Some(End::Over),
                    }
                    under_way.extend(self.let_go(&mut pull));
                }
                Some(next) = under_way.next(), if !under_way.is_empty() => match next {
                    Next::Go => {}
                    // A pull that still waits would hand out meanwhile.
                    Next::Pause(span) => {
                        paused = paused.max(env.mono() + span);
                        under_way.extend(self.let_go(&mut pull));
                    }
                    Next::Halt => {
                        halted = true;
                        under_way.extend(self.let_go(&mut pull));
                    }
                },
                pulled = wait_for(&mut pull), if pull.is_some() => {
                    pull = None;
                    match pulled {
                        Ok(deliveries) => {
                            stalled = false;
                            let sent = deliveries.into_iter().map(|one| Box::pin(self.deliver(one)) as BoxFuture<'_, Next>);
                            under_way.extend(sent);
                        }
                        Err(SubscriptionError::NotFound { .. } | SubscriptionError::Store(StoreError::Closed)) => {
                            (end, halted) = (Some(End::Over), true);
                        }
                        Err(cause) => {
                            // Once for each time that it stalls, which may be for a day.
                            if !std::mem::replace(&mut stalled, true) {
                                tracing::warn!(webhook = self.head.name.as_str(), %cause, "nothing can be sent for the moment");
                            }
                            paused = paused.max(env.mono() + REST);
                        }
                    }
                }
                () = env.sleep_until(paused), if is_paused => {}
                () = env.sleep_until(deadline.unwrap_or_default()), if deadline.is_some() => return (End::Over, paused),
            }
        }
    }

    /// Until when the endpoint asked to be left alone, by `head`, whoever heard it: the wall clock tells people and other processes, and
    /// is believed for no more than a pause may last.
    fn asked(&self, head: &Head) -> Mono {
        let env = self.room.store.env();
        let left = head.paused.map(|until| until.saturating_since(env.wall()).min(LONGEST_PAUSE));
        left.map_or(Mono::ZERO, |left| env.mono() + left)
    }

    /// Waits for `pull` no longer. What it was handed just now goes back as if it had not been: nobody has called.
    fn let_go(&self, pull: &mut Option<Pulling<'_>>) -> Option<BoxFuture<'_, Next>> {
        let handed = pull.take()?.now_or_never()?.ok()?;
        Some(Box::pin(async move {
            for delivery in handed {
                self.settle(delivery.lease, Settle::GiveBack).await;
            }
            Next::Go
        }))
    }

    /// Whether the breaker lets only some calls try: then one event is as good as many.
    fn is_probing(&self) -> bool {
        use quorate_resilience::circuit_breaker::State;
        self.room.calls.breaker(&self.head.name).is_some_and(|breaker| breaker.state != State::Closed)
    }

    /// The next events, at least one. While there is nothing to send and nothing resting, nobody looks at the store.
    async fn next(&self, max: usize) -> Result<Vec<Delivery>, SubscriptionError> {
        let store = &self.room.store;
        let (mut head, mut replayed) = (store.watch_head(), self.room.replayed.subscribe());
        loop {
            // Ordering: marked as seen before the question, so that what moves during it ends the wait below.
            head.mark_unchanged();
            replayed.mark_unchanged();
            let pull = Pull::of(max).by(self.room.owner.clone());
            let mut deliveries = self.subscription.pull(pull.clone()).await?;
            if deliveries.is_empty() {
                let standing = self.subscription.describe().await?;
                let counts = standing.counts;
                if counts.in_flight + counts.resting + counts.waiting > 0 || standing.scanned < standing.head {
                    deliveries = self.subscription.pull(pull.waiting(WAIT)).await?;
                } else {
                    tokio::select! {
                        moved = head.changed() => moved.map_err(|_| StoreError::Closed)?,
                        _ = replayed.changed() => {}
                        () = store.env().sleep(LOOK) => {}
                    }
                }
            }
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
        }
    }

    /// Makes one attempt with `delivery`, settles it, and keeps it until then, however long that takes.
    async fn deliver(&self, delivery: Delivery) -> Next {
        let (lease, ttl) = (delivery.lease, delivery.ttl);
        if self.stop.is_cancelled() {
            self.settle(lease, Settle::GiveBack).await;
            return Next::Go;
        }
        tokio::select! {
            biased;
            next = self.attempt(delivery) => next,
            never = self.hold(lease, ttl) => match never {},
        }
    }

    /// Has the lease begin anew as long as it is ours. If it is not any more, settling says so.
    async fn hold(&self, lease: Lease, ttl: Duration) -> Infallible {
        loop {
            self.room.store.env().sleep(ttl / 3).await;
            if let Err(SubscriptionError::LeaseLost { .. }) = self.subscription.extend(&[lease], None).await {
                return std::future::pending().await;
            }
        }
    }

    async fn attempt(&self, delivery: Delivery) -> Next {
        let env = self.room.store.env();
        let message = Message::of(&delivery.event, self.head.config.content);
        let (began, since) = (env.wall(), env.mono());
        let headers = message.signed(began, self.head.secrets.at(began));
        let ended = self.line.post(headers, message.body).await;
        let attempt = Attempt {
            number: delivery.lease.fence(),
            position: delivery.event.position(),
            message: message.id,
            kind: delivery.event.kind().to_owned(),
            attempt: delivery.attempt,
            began,
            took: env.mono().saturating_since(since),
            status: ended.status,
            outcome: ended.outcome.clone(),
        };
        env.reached("webhook: answered and not settled");
        let effects = self.judge(ended.input);
        self.room.count(&self.head.name, ended.input);
        self.carry_out(&effects, &attempt, (&ended, delivery.lease)).await
    }

    fn judge(&self, input: Input) -> Vec<Effect> {
        let (env, mut effects) = (self.room.store.env(), Vec::new());
        let (now, rules) = ((env.boot(), env.wall()), self.head.config.rules());
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).step(now, input, &rules, &mut effects);
        effects
    }

    async fn carry_out(&self, effects: &[Effect], attempt: &Attempt, (ended, lease): (&Ended, Lease)) -> Next {
        let is_sent = !matches!(ended.input, Input::Refused { .. });
        let mut next = Next::Go;
        if effects.contains(&Effect::Ack) {
            // Both at once, so that they share a commit: each is true without the other.
            let (written, ()) = tokio::join!(self.write(effects, attempt), self.settle(lease, Settle::Ack));
            self.complain(written);
            return next;
        }
        if is_sent {
            match self.write(effects, attempt).await {
                Ok(Standing::Disabled) => {
                    let why = attempt.outcome.as_str();
                    tracing::warn!(webhook = self.head.name.as_str(), why, "the endpoint is disabled");
                    self.room.touch();
                    next = Next::Halt;
                }
                written => self.complain(written),
            }
        }
        for effect in effects {
            match *effect {
                Effect::Nack(rest) => self.settle(lease, Settle::Nack(rest, ended.reason())).await,
                Effect::GiveBack => self.settle(lease, Settle::GiveBack).await,
                Effect::Pause(span) if next == Next::Go => next = Next::Pause(span),
                Effect::Ack | Effect::Failing { .. } | Effect::Recovered | Effect::Disable(_) | Effect::Pause(_) => {}
            }
        }
        next
    }

    /// Settles an event. What cannot be settled comes again when its lease has run.
    async fn settle(&self, lease: Lease, how: Settle) {
        for tried in 1..=TRIES {
            let settled = match &how {
                Settle::Ack => self.subscription.ack(&[lease]).await,
                Settle::Nack(rest, reason) => self.subscription.nack(&[lease], *rest, reason).await,
                Settle::GiveBack => self.subscription.give_back(&[lease]).await,
            };
            let Err(cause) = settled else { return };
            if tried == TRIES || cause.retry() == Retry::Never {
                let position = lease.position().get();
                tracing::warn!(webhook = self.head.name.as_str(), position, %cause, "a delivery could not be settled");
                return;
            }
            self.room.store.env().sleep(Duration::from_millis(100) * tried).await;
        }
    }
}

/// How an event is settled.
enum Settle {
    Ack,
    Nack(Option<Duration>, String),
    GiveBack,
}

async fn wait_for<T>(pull: &mut Option<BoxFuture<'_, T>>) -> T {
    match pull {
        Some(pull) => pull.await,
        None => std::future::pending().await,
    }
}
