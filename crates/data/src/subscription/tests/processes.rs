//! Several processes on one store: here, several [`Subscriptions`](super::super::Subscriptions) that know nothing of each
//! other and share no memory.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use futures_util::future::join_all;
use quorate_runtime::random::{Random, Rng};

use super::{
    super::{Config, Delivery, Lease, Pull, Selection, Subscription, SubscriptionError},
    world::{NOTHING, World, append, name, places, position, seconds},
};
use crate::store::Store;

async fn other_process(world: &World, store: &Store) -> Subscription {
    world.subscriptions(store).await.get(&name("workers")).await.unwrap()
}

#[tokio::test]
async fn a_lease_given_out_by_one_process_is_good_at_the_other() {
    let world = World::new();
    let (store, one) = world.with(Config::default()).await;
    let other = other_process(&world, &store).await;
    append(&store, "a", "happened").await;
    append(&store, "a", "happened").await;
    assert_eq!(other.describe().await.unwrap().counts.in_flight, 0);
    let taken = one.takes(1).await;
    assert_eq!(places(&other.takes(1).await), NOTHING, "the other sees that it is taken");
    other.ack(&[taken[0].lease]).await.unwrap();
    assert_eq!(places(&one.takes(1).await), [2], "and the one sees that it is done");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_process_that_was_away_is_fenced() {
    let world = World::new();
    let (store, one) = world.with(Config::default()).await;
    let other = other_process(&world, &store).await;
    append(&store, "a", "happened").await;
    let stale = one.takes(1).await[0].lease;
    assert_eq!(places(&other.takes(1).await), NOTHING);
    world.pass(seconds(30));
    let current = other.takes(1).await[0].lease;
    assert!(current.fence() > stale.fence());
    for refused in [one.ack(&[stale]).await, one.extend(&[stale], None).await, one.nack(&[stale], None, "").await] {
        assert!(matches!(refused, Err(SubscriptionError::LeaseLost { .. })), "{refused:?}");
    }
    one.ack(&[current]).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_expiry_is_timed_from_when_the_observer_first_saw_the_lease() {
    let world = World::new();
    let (store, one) = world.with(Config::default()).await;
    append(&store, "a", "happened").await;
    one.takes(1).await;
    world.pass(seconds(20));
    let late = other_process(&world, &store).await;
    assert_eq!(places(&late.takes(1).await), NOTHING);
    world.pass(seconds(29));
    assert_eq!(places(&late.takes(1).await), NOTHING);
    world.pass(seconds(1));
    assert_eq!(places(&late.takes(1).await), [1]);
    store.close().await.unwrap();
}

/// Positions by stream, in the order in which they were handed out.
type Seen = Mutex<BTreeMap<String, Vec<u64>>>;

fn total(seen: &Seen) -> usize {
    seen.lock().unwrap().values().map(Vec::len).sum()
}

async fn consume(workers: &Subscription, seen: &Seen, all: usize) {
    while total(seen) < all {
        let taken = match workers.pull(Pull::of(7).waiting(Duration::from_millis(20))).await {
            Ok(taken) => taken,
            Err(SubscriptionError::WindowFull { .. }) => continue,
            Err(other) => panic!("{other:?}"),
        };
        for Delivery { event, attempt, .. } in &taken {
            assert_eq!(*attempt, 1, "nothing expired");
            let mut seen = seen.lock().unwrap();
            seen.entry(event.stream().to_owned()).or_default().push(event.position().get());
        }
        let leases: Vec<Lease> = taken.iter().map(|delivery| delivery.lease).collect();
        workers.ack(&leases).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn competing_consumers_of_three_processes_share_the_work_and_keep_the_order_of_each_key() {
    let world = World::of_this_machine();
    let (store, first) = world.with(Config { window: 50, ..Config::default() }).await;
    let processes = [first, other_process(&world, &store).await, other_process(&world, &store).await];
    let (seen, all) = (Seen::default(), 300);
    let consumers = join_all((0..6).map(|worker| consume(&processes[worker % 3], &seen, all)));
    let producer = async {
        for n in 0..all {
            append(&store, &format!("s-{}", n * n % 11), "happened").await;
        }
    };
    tokio::join!(consumers, producer);
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.values().map(Vec::len).sum::<usize>(), all, "each event once");
    assert!(seen.values().all(|order| order.is_sorted()), "{seen:?}");
    let described = processes[1].describe().await.unwrap();
    assert_eq!((described.lag_events, described.checkpoint), (0, position(all as u64)));
    store.close().await.unwrap();
}

/// What three workers hold, two of them in one process, while anything happens to them.
struct Trial {
    world: World,
    store: Store,
    processes: Vec<Subscription>,
    rng: Rng,
    held: Vec<Delivery>,
    given_up: Vec<Lease>,
    settled: BTreeMap<u64, String>,
    streams: Vec<String>,
    highest_fence: u64,
}

impl Trial {
    async fn begin(seed: u8) -> Self {
        let world = World::new();
        let config = Config { window: 5, max_parked: 6, max_attempts: 2, ..Config::default() };
        let (store, one) = world.with(config).await;
        let processes = vec![one, other_process(&world, &store).await];
        let mut rng = Random::from_seed([seed; 32]).stream("trial");
        let mut streams = Vec::new();
        for _ in 0..15 {
            let stream = format!("s-{}", rng.below(3));
            append(&store, &stream, "happened").await;
            streams.push(stream);
        }
        let (held, given_up, settled) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { world, store, processes, rng, held, given_up, settled, streams, highest_fence: 0 }
    }

    fn any_process(&mut self) -> Subscription {
        let n = usize::try_from(self.rng.below(self.processes.len() as u64)).unwrap();
        self.processes[n].clone()
    }

    fn any_held(&mut self) -> Option<Delivery> {
        let count = self.held.len() as u64;
        (count > 0).then(|| self.held.swap_remove(usize::try_from(self.rng.below(count)).unwrap()))
    }

    async fn act(&mut self) {
        match self.rng.below(12) {
            0..4 => self.take().await,
            4..6 => self.end(|process, lease| Box::pin(async move { process.ack(&[lease]).await }), true).await,
            6 => {
                let rest = Some(seconds(self.rng.below(2) * 5));
                self.end(
                    move |process, lease| Box::pin(async move { process.nack(&[lease], rest, "no").await }),
                    false,
                )
                .await;
            }
            7 => self.settle_in_a_transaction().await,
            8 => self.world.pass(seconds(self.rng.below(40))),
            9 => self.restart().await,
            10 => drop(self.any_process().replay(Selection::All).await.unwrap()),
            _ => self.claim_what_was_given_up().await,
        }
    }

    async fn take(&mut self) {
        let max = 1 + usize::try_from(self.rng.below(3)).unwrap();
        let taken = match self.any_process().pull(Pull::of(max)).await {
            Ok(taken) => taken,
            Err(SubscriptionError::WindowFull { .. } | SubscriptionError::ParkedFull { .. }) => return,
            Err(other) => panic!("{other:?}"),
        };
        for delivery in taken {
            let place = delivery.event.position().get();
            assert!(!self.settled.contains_key(&place), "{place} is handed out although it is settled");
            for earlier in 1..place {
                let same_key = self.streams[earlier as usize - 1] == delivery.event.stream();
                assert!(!same_key || self.settled.contains_key(&earlier), "{place} is handed out before {earlier}");
            }
            assert!(delivery.lease.fence() > self.highest_fence, "fences rise");
            self.highest_fence = delivery.lease.fence();
            let older = |held: &Delivery| held.event.position() == delivery.event.position();
            self.given_up.extend(self.held.extract_if(.., |held| older(held)).map(|held| held.lease));
            self.held.push(delivery);
        }
    }

    /// Ends a lease in some way. It may be lost only if its event was parked when it expired.
    async fn end<F>(&mut self, how: F, settles: bool)
    where
        F: Fn(Subscription, Lease) -> quorate_runtime::BoxFuture<'static, Result<(), SubscriptionError>>,
    {
        let Some(delivery) = self.any_held() else { return };
        match how(self.any_process(), delivery.lease).await {
            Ok(()) if settles => self.note(&delivery),
            Ok(()) => {}
            Err(SubscriptionError::LeaseLost { .. }) => assert_eq!(delivery.attempt % 2, 0, "it had attempts left"),
            Err(other) => panic!("{other:?}"),
        }
        self.given_up.push(delivery.lease);
    }

    fn note(&mut self, delivery: &Delivery) {
        self.settled.insert(delivery.event.position().get(), delivery.event.stream().to_owned());
    }

    async fn settle_in_a_transaction(&mut self) {
        let Some(delivery) = self.any_held() else { return };
        let (process, lease) = (self.any_process(), delivery.lease);
        let unit = self.store.transact(move |tx| {
            let process = process.clone();
            Box::pin(async move { process.ack_in(tx, &lease).await })
        });
        if unit.await.is_ok() {
            self.note(&delivery);
        }
        self.given_up.push(delivery.lease);
    }

    async fn restart(&mut self) {
        let fresh = other_process(&self.world, &self.store).await;
        let n = usize::try_from(self.rng.below(2)).unwrap();
        self.processes[n] = fresh;
    }

    async fn claim_what_was_given_up(&mut self) {
        let process = self.any_process();
        for lease in self.given_up.clone() {
            let refused = process.ack(&[lease]).await;
            assert!(matches!(refused, Err(SubscriptionError::LeaseLost { .. })), "{lease:?}: {refused:?}");
        }
    }

    /// Everybody does their work from here on.
    async fn wind_up(&mut self) {
        for _ in 0..200 {
            self.world.pass(seconds(40));
            self.any_process().replay(Selection::All).await.unwrap();
            self.take().await;
            while !self.held.is_empty() {
                self.end(|process, lease| Box::pin(async move { process.ack(&[lease]).await }), true).await;
            }
            if self.settled.len() == self.streams.len() {
                break;
            }
        }
        assert_eq!(self.settled.len(), self.streams.len(), "an event is never settled");
        let described = self.any_process().describe().await.unwrap();
        assert_eq!((described.checkpoint, described.lag_events), (position(15), 0));
    }
}

#[tokio::test]
async fn whatever_happens_to_two_processes_every_event_is_settled_in_the_order_of_its_key() {
    for seed in 0..20 {
        let mut trial = Trial::begin(seed).await;
        for _ in 0..60 {
            trial.act().await;
        }
        trial.wind_up().await;
        trial.store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_deleted_subscription_is_gone_for_everybody() {
    let world = World::new();
    let (store, one) = world.with(Config::default()).await;
    let other = other_process(&world, &store).await;
    append(&store, "a", "happened").await;
    let lease = other.takes(1).await[0].lease;
    world.subscriptions(&store).await.delete(one.name()).await.unwrap();
    assert!(matches!(other.ack(&[lease]).await, Err(SubscriptionError::NotFound { .. })));
    let wait = Pull::of(1).waiting(Duration::from_secs(1));
    assert!(matches!(one.pull(wait).await, Err(SubscriptionError::NotFound { .. })));
    store.close().await.unwrap();
}
