//! A responder of durable requests, and the leases of what it holds.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use quorate_communication::{
    message_queue::{Consumer, Delivery, Lease, Queue, QueueError},
    request::Deadline,
};
use quorate_foundations::time::{Boot, Mono};
use quorate_runtime::Env;

/// A responder of durable requests, whose leases are renewed for as long as it is there, each for the type's time limit at most. Dropping it ends nothing: what it was
/// handed can be answered for as long as the last lease holds, and then is another's.
pub struct DurableResponder {
    env: Env,
    consumer: Consumer,
    window: usize,
    time_limit: Duration,
    /// What it was handed and is not known to have settled: at most three windows of them.
    held: BTreeMap<Lease, Held>,
    /// What it is to be told of: that it is not its own any more.
    over: Vec<Lease>,
}

/// A request that it was handed.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Until when it may work on it, once it was handed over.
    until: Option<Mono>,
    /// For how long a lease lasts.
    ttl: Duration,
    renew_at: Mono,
    /// Its lease cannot have run out before: if it is lost by then, it was settled. Leases run on while a machine sleeps.
    sure_until: Boot,
}

impl Held {
    /// Its lease lasts from this moment on, as both clocks have it.
    fn begin(&mut self, (now, boot): (Mono, Boot)) {
        (self.renew_at, self.sure_until) = (now + self.ttl / 3, boot + self.ttl / 2);
    }
}

impl std::fmt::Debug for DurableResponder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DurableResponder")
            .field("queue", self.consumer.queue())
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl DurableResponder {
    pub(super) fn of(env: &Env, consumer: Consumer, window: usize, time_limit: Duration) -> Self {
        Self { env: env.clone(), consumer, window, time_limit, held: BTreeMap::new(), over: Vec::new() }
    }

    /// How long it may work on a request that it is handed from now on.
    pub fn set_time_limit(&mut self, time_limit: Duration) {
        self.time_limit = time_limit;
    }

    /// Requests to hand over, as soon as there are some and room in the window; none where [`renew`](Self::renew) is due, or [`over`](Self::next_over) has some. It
    /// holds them from then on.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    ///
    /// # Cancel safety
    /// Dropping the future gives back what it would have been handed.
    pub async fn next(&mut self) -> Result<Vec<Delivery>, QueueError> {
        if self.held.len() > 2 * self.window {
            let settled = |lease: &Lease| !self.consumer.holds(lease);
            let settled = self.held.iter().filter(|(lease, _)| settled(lease));
            let settled = settled.map(|(lease, held)| (*lease, held.ttl)).collect();
            self.extend(settled).await;
        }
        if !self.over.is_empty() {
            return Ok(Vec::new());
        }
        let (env, due) = (self.env.clone(), self.due());
        let deliveries = tokio::select! {
            biased;
            () = sleep_until(&env, due) => return Ok(Vec::new()),
            deliveries = self.consumer.next() => deliveries?,
        };
        let (now, boot) = (self.env.mono(), self.env.boot());
        for Delivery { lease, ttl, .. } in &deliveries {
            let mut held = Held { until: None, ttl: *ttl, renew_at: now, sure_until: boot };
            held.begin((now, boot));
            self.held.insert(*lease, held);
        }
        Ok(deliveries)
    }

    /// When something is to be renewed, or is over.
    fn due(&self) -> Option<Mono> {
        self.held.values().map(|held| held.until.map_or(held.renew_at, |until| held.renew_at.min(until))).min()
    }

    /// Does `work`, and renews leases meanwhile, however long it takes.
    ///
    /// # Cancel safety
    /// As that of `work`.
    pub async fn renewing<T>(&mut self, work: impl Future<Output = T>) -> T {
        let (env, mut work) = (self.env.clone(), pin!(work));
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep_until(&env, self.due()) => self.renew().await,
            }
        }
    }

    /// How long there is for a request that is about to be handed over, and the time; `None` if it is not its own any more.
    pub fn begin(&mut self, lease: &Lease) -> Option<(Deadline, Mono)> {
        let now = self.env.mono();
        let Some(held) = self.held.get_mut(lease) else {
            // It never heard of it.
            self.over.retain(|over| over != lease);
            return None;
        };
        let until = now + self.time_limit;
        held.until = Some(until);
        Some((Deadline::at(until), now))
    }

    /// One of those that are not its own any more, without its having settled them: another's, or worked on for too long.
    pub fn next_over(&mut self) -> Option<Lease> {
        self.over.pop()
    }

    /// Renews the leases of what it holds and may hold for longer, and gives back the others.
    pub async fn renew(&mut self) {
        let now = self.env.mono();
        let late = self.held.iter().filter(|(_, held)| held.until.is_some_and(|until| until <= now));
        let late: Vec<Lease> = late.map(|(lease, _)| *lease).collect();
        if !late.is_empty() {
            let reason = format!("the responder took longer than {:?}", self.time_limit);
            for some in late.chunks(Queue::MAX_BATCH) {
                let lost = match self.consumer.queue().nack(some, None, &reason).await {
                    Err(QueueError::LeaseLost { leases }) => leases,
                    // Where that cannot be written, the lease runs out.
                    _ => Vec::new(),
                };
                self.end(some, &lost);
            }
        }
        // What is due soon goes with it.
        let due = self.held.iter().filter(|(_, held)| held.renew_at <= now + held.ttl / 6);
        let due = due.map(|(lease, held)| (*lease, held.ttl)).collect();
        self.extend(due).await;
    }

    async fn extend(&mut self, leases: Vec<(Lease, Duration)>) {
        let mut by_ttl: BTreeMap<Duration, Vec<Lease>> = BTreeMap::new();
        leases.into_iter().for_each(|(lease, ttl)| by_ttl.entry(ttl).or_default().push(lease));
        for (ttl, leases) in by_ttl {
            for some in leases.chunks(Queue::MAX_BATCH) {
                let now = (self.env.mono(), self.env.boot());
                let extended = self.consumer.queue().extend(some, Some(ttl)).await;
                let is_known = match &extended {
                    Ok(()) => true,
                    Err(QueueError::LeaseLost { leases }) => {
                        self.end(leases, leases);
                        true
                    }
                    // Whatever the store suffers from: there are two more renewals before a lease runs out, and its fence holds in any case.
                    Err(_) => false,
                };
                for lease in some {
                    let Some(held) = self.held.get_mut(lease) else { continue };
                    let sure_until = held.sure_until;
                    held.begin(now);
                    if !is_known {
                        held.sure_until = sure_until;
                    }
                }
            }
        }
    }

    /// Those are not its own any more, and these of them were lost. What was lost before its time was over was settled by whoever knew the lease: by itself.
    fn end(&mut self, ended: &[Lease], lost: &[Lease]) {
        let now = self.env.boot();
        for lease in ended {
            let Some(held) = self.held.remove(lease) else { continue };
            if now >= held.sure_until || !lost.contains(lease) {
                self.over.push(*lease);
            }
        }
    }

    /// Gives back what was never handed over.
    pub async fn give_back(&mut self, deliveries: &[Delivery]) {
        let leases: Vec<Lease> = deliveries.iter().map(|one| one.lease).collect();
        for lease in &leases {
            self.held.remove(lease);
        }
        self.over.retain(|over| !leases.contains(over));
        if !leases.is_empty()
            && let Err(cause) = self.consumer.queue().give_back(&leases).await
        {
            tracing::warn!(%cause, "requests that could not be handed out come again when their leases have expired");
        }
    }

    /// Leaves: what it holds is handed to others as the queue says.
    pub async fn leave(self) {
        let leases: Vec<Lease> = self.held.keys().copied().collect();
        for some in leases.chunks(Queue::MAX_BATCH) {
            // What it answered is not its own any more; the others' leases run out where this cannot be written.
            let _settled = self.consumer.queue().nack(some, None, "its responder left").await;
        }
    }
}

async fn sleep_until(env: &Env, due: Option<Mono>) {
    match due {
        Some(due) => env.sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use quorate_communication::{
        event_bus::webhook::Calls,
        message_queue::Config,
        request::{Contract, Exchange, Payload, machine::Verdict},
    };
    use quorate_data::store::sqlite;

    use super::*;
    use crate::verbs::{MessageQueues, RequestCare};

    #[tokio::test]
    async fn a_responder_forgets_what_it_answered_and_renews_each_lease_in_its_own_time() {
        let (env, folder) = (Env::real(), tempfile::tempdir().unwrap());
        let store = sqlite::open(&env, sqlite::Config::at(folder.path().join("log.db"))).await.unwrap();
        let queues = MessageQueues::open(&store).await.unwrap();
        let care = RequestCare::open(&env, &store, &queues, Calls::new(&env)).await.unwrap();
        let (kind, hour) = ("report".parse().unwrap(), Duration::from_secs(3_600));
        let of = care.declare(&kind, Contract { exchange: Exchange::Durable, time_limit: hour }).await.unwrap();
        let lasts = async |lease_ttl| {
            let opened = queues.opened().await.unwrap();
            opened.declare(&kind, Config { lease_ttl, ..Config::default() }).await.unwrap();
        };
        let ask =
            async |id: u32| care.ask_durably(&of, (&id.to_string().parse().unwrap(), Payload::json("1")), None).await;
        lasts(hour).await;
        let mut responder = care.serve_durably(&of, 2).await.unwrap();
        ask(0).await.unwrap();
        let slow = responder.next().await.unwrap()[0].lease;
        for id in 1..20 {
            ask(id).await.unwrap();
            let handed = responder.next().await.unwrap();
            care.answer_durably(&kind, handed[0].lease, Verdict::Answer(Payload::json("2"))).await.unwrap();
            assert!(responder.held.len() <= 3 * 2, "{responder:?}");
        }
        assert!(responder.held.contains_key(&slow));
        lasts(Duration::from_secs(60)).await;
        ask(20).await.unwrap();
        let short = responder.next().await.unwrap()[0].lease;
        assert!(responder.due().unwrap() <= env.mono() + Duration::from_secs(20), "{responder:?}");
        // A machine that stands still for a minute would have it lost.
        care.answer_durably(&kind, short, Verdict::Answer(Payload::json("2"))).await.unwrap();
        responder.held.get_mut(&short).unwrap().renew_at = env.mono();
        responder.renew().await;
        assert_eq!((responder.held.contains_key(&short), responder.next_over()), (false, None), "it knows that itself");
        responder.held.get_mut(&slow).unwrap().until = Some(env.mono());
        responder.renew().await;
        assert_eq!((responder.held.contains_key(&slow), responder.next_over()), (false, Some(slow)));
        store.close().await.unwrap();
    }
}
