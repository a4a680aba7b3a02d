//! What people do by hand: recorded before it is done, and never hidden.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_data::{
    event::Version,
    store::{Limits, Retire, StoreError, sqlite},
};
use quorate_runtime::{BoxFuture, Env};

use super::bank::{Stop, World, begin, name, quick, transfer, until};
use crate::two_phase_commit::{
    Answer, Config, Coordinator, CoordinatorId, Embedded, Ended, Ending, Gid, Heuristic, Order, Participant,
    ParticipantError, Prepared, Standstill, TxnError, TxnId, Vote, Work, log,
};

/// How a participant answers when it is told how something ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// It cannot be reached.
    Away,
    /// It says once that it had ended otherwise, and still holds it.
    Confused,
}

struct Moody {
    inner: Embedded,
    mood: Mutex<Mood>,
    /// How often it was told how something ends.
    told: AtomicUsize,
}

impl Moody {
    fn feel(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn answer(&self) -> Result<(), ParticipantError> {
        self.told.fetch_add(1, Ordering::SeqCst);
        let mut mood = self.mood.lock().unwrap();
        match *mood {
            Mood::Well => Ok(()),
            Mood::Away => Err(ParticipantError::Unanswered { what: "nobody is there".to_owned() }),
            Mood::Confused => {
                *mood = Mood::Well;
                Err(ParticipantError::Contradicted { what: "a proxy said 409".to_owned() })
            }
        }
    }
}

impl Participant for Moody {
    fn prepare<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        self.inner.prepare(gid, work)
    }

    fn commit<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(async move {
            self.answer()?;
            self.inner.commit(gid).await
        })
    }

    fn abort<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(async move {
            self.answer()?;
            self.inner.abort(gid).await
        })
    }

    fn in_doubt(&self, coordinator: CoordinatorId) -> BoxFuture<'_, Result<Vec<Prepared>, ParticipantError>> {
        self.inner.in_doubt(coordinator)
    }
}

/// A coordinator whose right bank has moods.
async fn moody(world: &World, mood: Mood) -> (Coordinator, Arc<Moody>) {
    // Long enough between two tries for a person to be in time.
    let config = Config { pause: Duration::from_millis(50), ..quick() };
    let coordinator = Coordinator::open(&world.log, config).await.unwrap();
    let (inner, mood) = (world.participant(1).await, Mutex::new(mood));
    let right = Arc::new(Moody { inner, mood, told: AtomicUsize::new(0) });
    coordinator.register(name("left"), Arc::new(world.participant(0).await)).unwrap();
    coordinator.register(name("right"), right.clone()).unwrap();
    (coordinator, right)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_participant_says_by_mistake_is_recorded_and_changes_no_decision() {
    let world = World::new().await;
    let (coordinator, _) = moody(&world, Mood::Confused).await;
    let receipt = coordinator.run(transfer(30)).await.unwrap();
    assert_eq!((receipt.ended, receipt.contradicted), (Ended::Committed, vec![name("right")]));
    // It still holds it, and is told the decision.
    until("both have it", async || world.balances("ada").await == [(70, 70), (130, 130)]).await;
    let heuristics = coordinator.record(&receipt.gid).await.unwrap().heuristics;
    assert!(heuristics.len() == 1 && heuristics[0].is_found, "{heuristics:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ordered_while_a_participant_is_away_is_what_it_is_told() {
    let world = World::new().await;
    let (coordinator, right) = moody(&world, Mood::Away).await;
    let gid = coordinator.run(transfer(30).answered(Answer::Decided)).await.unwrap().gid;
    let right_bank = name("right");
    let ordered = coordinator.resolve(&gid, &right_bank, Ending::Abort, "carol", "it burned down").await;
    assert!(matches!(ordered, Err(TxnError::Participant { .. })), "{ordered:?}");
    // It is told again and again, however long it is away, and not only as often as of an abort that was decided.
    until("it was told often", async || right.told.load(Ordering::SeqCst) >= 6).await;
    right.feel(Mood::Well);
    until("it has ended", async || coordinator.counts().unfinished == 0).await;
    assert_eq!(world.balances("ada").await, [(70, 70), (100, 100)]);
    let record = coordinator.record(&gid).await.unwrap();
    assert_eq!((record.ending(&right_bank), record.ending(&name("left"))), (Ending::Abort, Ending::Commit));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_knows_of_is_not_resolved_and_not_recorded() {
    let world = World::new().await;
    let coordinator = world.coordinator(quick()).await;
    coordinator.register(name("third"), Arc::new(world.participant(0).await)).unwrap();
    let decided = coordinator.run(transfer(30)).await.unwrap().gid;
    let aborted = coordinator.run(transfer(1_000)).await.unwrap().gid;
    until("both have ended", async || coordinator.counts().unfinished == 0).await;
    let of = |takeover, number| Gid { txn: TxnId { takeover, number }, ..decided };
    for (gid, participant) in [
        // It was not there.
        (decided, "third"),
        // It has no record, and nobody holds it.
        (aborted, "left"),
        // They are still to come.
        (of(1, 1_700), "left"),
        (of(2, 1), "left"),
    ] {
        for ending in [Ending::Commit, Ending::Abort] {
            let refused = coordinator.resolve(&gid, &name(participant), ending, "carol", "a slip").await;
            assert!(matches!(refused, Err(TxnError::Invalid { .. })), "{gid} at {participant}: {refused:?}");
            let order = Order::new(&name(participant), ending, "carol", "a slip").unwrap();
            let refused = order.record(&world.log, &gid).await;
            assert!(matches!(refused, Err(TxnError::Invalid { .. })), "{gid} at {participant}: {refused:?}");
        }
        assert!(coordinator.record(&gid).await.unwrap().heuristics.is_empty(), "{gid}");
    }
    // Whoever was replaced says that, and nothing of what its successor does.
    let second = world.coordinator(quick()).await;
    let newer = second.run(transfer(1)).await.unwrap().gid;
    let replaced = coordinator.resolve(&newer, &name("left"), Ending::Abort, "carol", "why not").await;
    assert!(matches!(replaced, Err(TxnError::Fenced)), "{replaced:?}");
    assert!(matches!(
        second.resolve(&decided, &name("nobody"), Ending::Abort, "carol", "why not").await,
        Err(TxnError::UnknownParticipant { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ordered_in_the_log_alone_is_what_its_participant_is_told() {
    let world = World::new().await;
    let (coordinator, right) = moody(&world, Mood::Away).await;
    let gid = coordinator.run(transfer(30).answered(Answer::Decided)).await.unwrap().gid;
    // By somebody who has the log, and no way to the participant.
    let order = Order::new(&name("right"), Ending::Abort, "carol", "it burned down").unwrap();
    for _ in 0..2 {
        assert!(order.clone().record(&world.log, &gid).await.unwrap(), "it differs from what was decided");
    }
    right.feel(Mood::Well);
    until("it has ended", async || coordinator.counts().unfinished == 0).await;
    let record = coordinator.record(&gid).await.unwrap();
    assert_eq!(record.heuristics.iter().filter(|done| !done.is_found).count(), 1);
    match world.balances("ada").await {
        // It may have been told just before.
        [(70, 70), (130, 130)] => assert_eq!(right.told.load(Ordering::SeqCst), 1),
        balances => assert_eq!(balances, [(70, 70), (100, 100)]),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_log_does_not_say_what_was_ordered_nobody_is_told_anything() {
    let world = World::new().await;
    let (coordinator, right) = moody(&world, Mood::Away).await;
    let gid = coordinator.run(transfer(30).answered(Answer::Decided)).await.unwrap().gid;
    let ordered = coordinator.resolve(&gid, &name("right"), Ending::Abort, "carol", "it burned down").await;
    assert!(matches!(ordered, Err(TxnError::Participant { .. })), "{ordered:?}");
    let forget = Retire::Truncate { before: Version::new(3) };
    world.log.retire(gid.stream(), forget).await.unwrap();
    // Behind whoever had read it before.
    let unread = coordinator.resolve(&gid, &name("right"), Ending::Abort, "carol", "it burned down").await;
    assert!(matches!(unread, Err(TxnError::Store(StoreError::Corrupt { .. }))), "{unread:?}");
    right.feel(Mood::Well);
    let told = right.told.load(Ordering::SeqCst);
    let standstill = async |coordinator: &Coordinator| {
        let doubts = coordinator.in_doubt().await;
        let (_, doubts) = doubts.iter().find(|(bank, _)| *bank == name("right")).unwrap();
        doubts.as_ref().unwrap().first().map(|doubt| doubt.standstill)
    };
    assert_eq!(standstill(&coordinator).await, Some(Standstill::Unreadable));
    // Time for whoever guesses: several times the pause.
    Env::real().sleep(Duration::from_millis(1_000)).await;
    assert_eq!(right.told.load(Ordering::SeqCst), told);
    assert_eq!(world.balances("ada").await, [(70, 70), (100, 100)]);
    // Whoever takes over neither decides nor presumes, and says why.
    let second = Coordinator::open(&world.log, quick()).await.unwrap();
    second.register(name("right"), Arc::new(world.participant(1).await)).unwrap();
    let said = || second.swept().get(&name("right")).and_then(|swept| swept.unreadable.clone());
    until("it says that the log cannot be read", async || said().is_some()).await;
    assert!(said().unwrap().contains("forgotten"), "{:?}", said());
    assert_eq!(standstill(&second).await, Some(Standstill::Unreadable));
    assert!(second.oldest_doubt().is_some());
    assert_eq!(world.balances("ada").await, [(70, 70), (100, 100)]);
}

#[tokio::test]
async fn whoever_orders_one_thing_and_the_other_for_ever_is_refused_and_the_record_stays_readable() {
    let folder = tempfile::tempdir().unwrap();
    // Less than the orders take, as a node's pages are.
    let limits = Limits { page_bytes: 16 << 10, ..Limits::default() };
    let config = sqlite::Config { limits, ..sqlite::Config::at(folder.path().join("log.db")) };
    let log = sqlite::open(&Env::real(), config).await.unwrap();
    let gid: Gid = "quorate:0197f2a0-0000-7000-8000-000000000001:1-1".parse().unwrap();
    let why = "y".repeat(Order::MAX_REASON_BYTES);
    let add = async |bank: &str, ending| {
        let order = Order::new(&name(bank), ending, "carol", &why).unwrap();
        log::add_heuristic(&log, &gid, order.into()).await
    };
    for n in 0..Order::MAX_PER_PARTICIPANT {
        add("left", if n % 2 == 0 { Ending::Commit } else { Ending::Abort }).await.unwrap();
    }
    let refused = add("left", Ending::Commit).await;
    assert!(matches!(refused, Err(TxnError::TooManyOrders { most: 64, .. })), "{refused:?}");
    // What the last one said is no other order, and each participant has its own.
    add("left", Ending::Abort).await.unwrap();
    add("right", Ending::Commit).await.unwrap();
    let record = log::record(&log, &gid).await.unwrap();
    assert_eq!((record.heuristics.len(), record.ending(&name("left"))), (65, Ending::Abort));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_ordered_before_a_decision_keeps_it_from_being_made() {
    let world = World::new().await;
    let (coordinator, [_, right]) = world.gated(quick()).await;
    right.close(Stop::BehindPrepare);
    let course = begin({
        let coordinator = coordinator.clone();
        async move { coordinator.run(transfer(30)).await }
    });
    let gid = right.reached().await;
    until("the left one has promised", async || world.balances("ada").await[0] == (100, 70)).await;
    // From another process, that knows nothing of what is under way here.
    let (participant, ending) = (name("left"), Ending::Commit);
    let (by, why) = ("carol".to_owned(), "the goods are gone".to_owned());
    let order = Heuristic { participant, ending, by, why, is_found: false, contradicts: false };
    log::add_heuristic(&world.log, &gid, order).await.unwrap();
    right.open();
    let Ended::Aborted { by: None, why } = course.await.unwrap().unwrap().ended else { panic!("it was decided") };
    assert!(why.contains("by hand"), "{why}");
    until("it has ended", async || coordinator.counts().unfinished == 0).await;
    // Each ends as was ordered for it, or else as if nothing had been; and the record says that this was not the same.
    assert_eq!(world.balances("ada").await, [(70, 70), (100, 100)]);
    let record = coordinator.record(&gid).await.unwrap();
    assert!(!record.is_decided && record.heuristics.len() == 1 && record.heuristics[0].contradicts, "{record:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_resolved_by_hand_is_recorded_and_says_that_it_contradicts() {
    let world = World::new().await;
    let (first, [left, _]) = world.gated(quick()).await;
    left.close(Stop::BeforeCommit);
    let gid = first.run(transfer(30).answered(Answer::Decided)).await.unwrap().gid;
    left.reached().await;
    let (left_bank, by, why) = (name("left"), "carol", "the branch office burned down");
    let resolved = world.coordinator(quick()).await;
    drop(first);
    until("the successor has committed it", async || world.balances("ada").await == [(70, 70), (130, 130)]).await;
    // Too late for another end: it says so, and the record keeps that somebody tried.
    let late = resolved.resolve(&gid, &left_bank, Ending::Abort, by, why).await;
    assert!(
        matches!(late, Err(TxnError::Participant { cause: ParticipantError::Contradicted { .. }, .. })),
        "{late:?}"
    );
    let record = resolved.record(&gid).await.unwrap();
    assert_eq!((record.heuristics.len(), &*record.heuristics[0].by, record.heuristics[0].contradicts), (1, by, true));
    for (by, why) in [("", why), (by, " ")] {
        let refused = resolved.resolve(&gid, &left_bank, Ending::Abort, by, why).await;
        assert!(matches!(refused, Err(TxnError::Invalid { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_is_not_resolved_and_what_was_resolved_is_not_decided_otherwise() {
    let world = World::new().await;
    let (first, [_, right]) = world.gated(quick()).await;
    right.close(Stop::BehindPrepare);
    let course = begin({
        let first = first.clone();
        async move { first.run(transfer(30)).await }
    });
    let gid = right.reached().await;
    until("the left one has promised", async || world.balances("ada").await[0] == (100, 70)).await;
    let early = first.resolve(&gid, &name("left"), Ending::Commit, "carol", "in a hurry").await;
    assert!(matches!(early, Err(TxnError::UnderWay { .. })), "{early:?}");
    // A successor without that participant resolves it by hand, and only then sweeps.
    let second = crate::two_phase_commit::Coordinator::open(&world.log, quick()).await.unwrap();
    let left = std::sync::Arc::new(world.participant(0).await);
    second.register(name("right"), std::sync::Arc::new(world.participant(1).await)).unwrap();
    second.register(name("left"), left.clone()).unwrap();
    let by_hand = second.resolve(&gid, &name("left"), Ending::Commit, "carol", "the goods are gone").await;
    // Either she or the sweep was first: both are told, and neither is hidden. What the sweep had ended before she came needs nobody.
    let (is_recorded, balance) = match by_hand {
        Ok(resolution) => {
            assert!(resolution.contradicts);
            (true, (70, 70))
        }
        Err(TxnError::Participant { cause: ParticipantError::Contradicted { .. }, .. }) => (true, (100, 100)),
        Err(TxnError::Invalid { what }) if what.contains("holds nothing") => (false, (100, 100)),
        other => panic!("{other:?}"),
    };
    assert_eq!(world.balances("ada").await[0], balance);
    let record = second.record(&gid).await.unwrap();
    let by_carol = record.heuristics.iter().any(|done| done.by == "carol" && done.contradicts);
    assert_eq!((record.is_decided, by_carol), (false, is_recorded));
    right.open();
    let told = course.await.unwrap().unwrap().ended;
    assert!(matches!(told, Ended::Aborted { .. }), "{told:?}");
    until("nobody holds anything", async || left.in_doubt(second.id()).await.unwrap().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_participant_that_had_ended_it_otherwise_is_told_of_and_recorded() {
    let world = World::new().await;
    let (coordinator, [left, _]) = world.gated(quick()).await;
    left.close(Stop::BeforeCommit);
    let run = begin({
        let coordinator = coordinator.clone();
        async move { coordinator.run(transfer(30)).await }
    });
    let gid = left.reached().await;
    // Somebody aborts it behind the coordinator's back.
    world.participant(0).await.abort(&gid).await.unwrap();
    left.open();
    let receipt = run.await.unwrap().unwrap();
    assert_eq!((receipt.ended, receipt.contradicted), (Ended::Committed, vec![name("left")]));
    let heuristics = coordinator.record(&gid).await.unwrap().heuristics;
    assert_eq!((heuristics.len(), &*heuristics[0].by), (1, "left"));
    assert!(heuristics[0].is_found && heuristics[0].contradicts);
    assert_eq!((coordinator.counts().contradicted, coordinator.counts().unfinished), (1, 0));
}
