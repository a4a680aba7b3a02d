//! Whoever ends a branch does so alone.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use quorate_runtime::{BoxFuture, Env};
use tokio::sync::watch;

use super::bank::{Gate, Stop, World, begin, name, quick, transfer, until};
use crate::two_phase_commit::{
    Coordinator, CoordinatorId, Ending, Gid, Participant, ParticipantError, Prepared, TxnError, Vote, Work,
};

/// A participant that counts how many tell it something at once.
struct Counted {
    inner: Gate,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Counted {
    async fn count<T>(&self, call: impl Future<Output = T>) -> T {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let came = call.await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        came
    }
}

impl Participant for Counted {
    fn prepare<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        self.inner.prepare(gid, work)
    }

    fn commit<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(self.count(self.inner.commit(gid)))
    }

    fn abort<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(self.count(self.inner.abort(gid)))
    }

    fn in_doubt(&self, coordinator: CoordinatorId) -> BoxFuture<'_, Result<Vec<Prepared>, ParticipantError>> {
        self.inner.in_doubt(coordinator)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweeps_and_people_wait_for_their_turn_with_a_branch() {
    let world = World::new().await;
    let (first, [_, right]) = world.gated(quick()).await;
    right.close(Stop::BehindPrepare);
    let course = begin(async move { first.run(transfer(30)).await });
    let gid = right.reached().await;
    until("the left one has promised", async || world.balances("ada").await[0] == (100, 70)).await;

    let second = Coordinator::open(&world.log, quick()).await.unwrap();
    let inner = Gate::new(world.participant(0).await);
    let left = Arc::new(Counted { inner, now: AtomicUsize::new(0), most: AtomicUsize::new(0) });
    left.inner.close(Stop::BeforeAbort);
    second.register(name("left"), left.clone()).unwrap();
    assert_eq!(left.inner.reached().await, gid);
    // The coordinator's own sweep stands still in the middle of ending it.
    let by_hand = begin({
        let second = second.clone();
        async move { second.resolve(&gid, &name("left"), Ending::Commit, "carol", "the goods are gone").await }
    });
    let swept = begin({
        let (second, left) = (second.clone(), left.clone());
        async move {
            second.sweep().await;
            left.in_doubt(gid.coordinator).await.unwrap().len()
        }
    });
    // Time for whoever does not wait.
    Env::real().sleep(std::time::Duration::from_millis(200)).await;
    left.inner.open();
    assert_eq!(
        swept.await.unwrap(),
        0,
        "what was in doubt when a sweep was asked for has been looked at when it returns"
    );
    // It was over when it was her turn: nobody holds it, and nothing was decided.
    let by_hand = by_hand.await.unwrap();
    assert!(matches!(by_hand, Err(TxnError::Invalid { .. })), "{by_hand:?}");
    assert_eq!(left.most.load(Ordering::SeqCst), 1);
    assert!(second.record(&gid).await.unwrap().heuristics.is_empty());
    assert_eq!(world.balances("ada").await[0], (100, 100));
    right.open();
    drop(course);
}

/// A participant that says what it holds only while somebody lets it.
struct Mute {
    inner: Gate,
    may_speak: watch::Sender<bool>,
    asked: AtomicUsize,
}

impl Participant for Mute {
    fn prepare<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        self.inner.prepare(gid, work)
    }

    fn commit<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        self.inner.commit(gid)
    }

    fn abort<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        self.inner.abort(gid)
    }

    fn in_doubt(&self, coordinator: CoordinatorId) -> BoxFuture<'_, Result<Vec<Prepared>, ParticipantError>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.may_speak.subscribe().wait_for(|may| *may).await.unwrap();
            self.inner.in_doubt(coordinator).await
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_not_asked_yet_is_not_taken_away_and_of_who_was_taken_away_nothing_is_told() {
    let world = World::new().await;
    let coordinator = Coordinator::open(&world.log, quick()).await.unwrap();
    let left = name("left");
    let inner = Gate::new(world.participant(0).await);
    let mute = Arc::new(Mute { inner, may_speak: watch::Sender::new(false), asked: AtomicUsize::new(0) });
    coordinator.register(left.clone(), mute.clone()).unwrap();
    let refused = coordinator.remove(&left);
    assert!(matches!(refused, Err(TxnError::InUse { .. })), "nobody knows what it holds: {refused:?}");
    mute.may_speak.send_replace(true);
    until("it has said what it holds", async || coordinator.swept().contains_key(&left)).await;
    mute.may_speak.send_replace(false);
    let asked = mute.asked.load(Ordering::SeqCst);
    until("it is asked again", async || mute.asked.load(Ordering::SeqCst) > asked).await;
    coordinator.remove(&left).unwrap();
    mute.may_speak.send_replace(true);
    // Time for the answer that comes late.
    Env::real().sleep(std::time::Duration::from_millis(200)).await;
    assert!(coordinator.swept().is_empty());
    coordinator.remove(&left).unwrap();
}
