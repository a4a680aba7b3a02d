//! Deaths between what is durable and what is told of it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate_data::{
    event::NewEvent,
    store::{ExpectedVersion, ReadStream, sqlite},
};
use quorate_runtime::{BoxFuture, Env};

use super::bank::{Stop, World, begin, gives, name, quick, transfer, until};
use crate::two_phase_commit::{
    Answer, Config, Coordinator, CoordinatorId, Embedded, Ended, Gid, Participant, ParticipantError, Prepared,
    SqlResource, Vote, Work,
};

/// A participant that stays the same one while its store is closed and opened again.
struct Mortal(Mutex<Embedded>);

impl Mortal {
    fn now(&self) -> Embedded {
        self.0.lock().unwrap().clone()
    }
}

impl Participant for Mortal {
    fn prepare<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        Box::pin(async move {
            let inner = self.now();
            inner.prepare(gid, work).await?;
            // The promise is durable; its vote goes down with the participant.
            std::future::pending().await
        })
    }

    fn commit<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(async move { self.now().commit(gid).await })
    }

    fn abort<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(async move { self.now().abort(gid).await })
    }

    fn in_doubt(&self, coordinator: CoordinatorId) -> BoxFuture<'_, Result<Vec<Prepared>, ParticipantError>> {
        Box::pin(async move { self.now().in_doubt(coordinator).await })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_participant_that_dies_between_its_promise_and_its_vote_is_aborted_when_it_is_back() {
    let world = World::new().await;
    let config = Config { prepare_timeout: Duration::from_secs(3), ..quick() };
    let coordinator = Coordinator::open(&world.log, config).await.unwrap();
    let left = Arc::new(Mortal(Mutex::new(world.participant(0).await)));
    coordinator.register(name("left"), left.clone()).unwrap();
    coordinator.register(name("right"), Arc::new(world.participant(1).await)).unwrap();
    let course = begin({
        let coordinator = coordinator.clone();
        async move { coordinator.run(transfer(30)).await }
    });
    until("it has promised", async || world.balances("ada").await[0] == (100, 70)).await;
    world.banks[0].close().await.unwrap();
    let receipt = course.await.unwrap().unwrap();
    assert!(matches!(receipt.ended, Ended::Aborted { by: Some(ref by), .. } if *by == name("left")), "{receipt:?}");
    until("it was given up on", async || coordinator.counts().unfinished == 0).await;
    // It is back, with what it promised.
    let path = world.folder.path().join("left.db");
    let back = sqlite::open(&Env::real(), sqlite::Config::at(path)).await.unwrap();
    let participant = Embedded::open(&back, &name("bank"), Arc::new(SqlResource)).await.unwrap();
    *left.0.lock().unwrap() = participant.clone();
    until("it was told", async || participant.in_doubt(coordinator.id()).await.unwrap().is_empty()).await;
    let free = back.query("SELECT free FROM account WHERE owner = 'ada'", vec![]).await.unwrap();
    assert_eq!(free[0].at(0).as_i64(), Some(100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_dies_between_its_decision_and_the_first_commit_has_decided_events_included() {
    let world = World::new().await;
    let (first, gates) = world.gated(quick()).await;
    gates.iter().for_each(|gate| gate.close(Stop::BeforeCommit));
    let moved = vec![NewEvent::new("m-1", "/bank", "money.moved")];
    let deciding = transfer(30).append(name("transfers-ada"), ExpectedVersion::NoStream, moved.clone());
    let gid = first.run(deciding.answered(Answer::Decided)).await.unwrap().gid;
    for gate in &gates {
        assert_eq!(gate.reached().await, gid);
    }
    drop(first);
    let world = world.reopened().await;
    assert_eq!(world.balances("ada").await, [(100, 70), (100, 100)], "nobody was told");
    let second = world.coordinator(quick()).await;
    until("it is done", async || world.balances("ada").await == [(70, 70), (130, 130)]).await;
    assert!(second.record(&gid).await.unwrap().is_decided);
    let told = world.log.read_stream(ReadStream::forward(name("transfers-ada"), 10)).await.unwrap().events;
    assert_eq!(told.iter().map(|event| event.id().to_owned()).collect::<Vec<_>>(), ["m-1"]);
    // The same events again are a decision that was made: they are not decided a second time.
    let again = transfer(30).append(name("transfers-ada"), ExpectedVersion::NoStream, moved);
    let again = second.run(again).await.unwrap().ended;
    assert!(matches!(again, Ended::Aborted { by: None, .. }), "{again:?}");
    until("nobody holds anything", async || world.balances("ada").await == [(70, 70), (130, 130)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepare_that_comes_behind_its_abort_is_refused_by_a_record_or_by_none() {
    let world = World::new().await;
    let config = Config { prepare_timeout: Duration::from_millis(100), ..quick() };
    let (coordinator, [_, right]) = world.gated(config).await;
    right.close(Stop::BeforePrepare);
    let receipt = coordinator.run(transfer(30)).await.unwrap();
    assert!(matches!(receipt.ended, Ended::Aborted { .. }), "{receipt:?}");
    until("both were told", async || coordinator.counts().unfinished == 0).await;
    // Presumed abort: the log has nothing of it.
    assert_eq!(coordinator.record(&receipt.gid).await.unwrap(), super::super::Record::default());
    let participant = world.participant(1).await;
    let work = gives("ada", 30).work().unwrap();
    let late = participant.prepare(&receipt.gid, &work).await;
    assert!(matches!(late, Ok(Vote::No { .. })), "{late:?}");
    // Where the abort did not arrive either, what is promised late is found, and ended.
    let unheard = Gid { txn: super::super::TxnId { takeover: 1, number: receipt.gid.txn.number + 1 }, ..receipt.gid };
    assert_eq!(participant.prepare(&unheard, &work).await, Ok(Vote::Yes));
    assert_eq!(participant.in_doubt(coordinator.id()).await.unwrap().len(), 1);
    coordinator.sweep().await;
    assert_eq!(participant.in_doubt(coordinator.id()).await.unwrap().len(), 1, "it may still be to come");
    let second = world.coordinator(quick()).await;
    until("its successor has ended it", async || participant.in_doubt(second.id()).await.unwrap().is_empty()).await;
    assert_eq!(world.balances("ada").await, [(100, 100), (100, 100)]);
}
