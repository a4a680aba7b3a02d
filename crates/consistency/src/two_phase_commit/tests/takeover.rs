//! A coordinator that stands still, or is dead, at each boundary, and whoever takes over.

use super::bank::{Stop, World, begin, name, quick, transfer, until};
use crate::two_phase_commit::{Answer, Ended, Ending, Standstill, Transaction, TxnError};

/// One transaction stops at a gate of the left or the right bank; another coordinator takes over, and ends it.
async fn taken_over(at: Stop, bank: usize, balances: [(i64, i64); 2]) {
    let world = World::new().await;
    let (first, gates) = world.gated(quick()).await;
    gates[bank].close(at);
    let course = begin({
        let first = first.clone();
        async move { first.run(transfer(30).answered(Answer::Decided)).await }
    });
    let gid = gates[bank].reached().await;
    // The other participant has all the time it needs.
    let is_commit = matches!(at, Stop::BeforeCommit | Stop::BehindCommit);
    let other = [Ending::Abort, Ending::Commit][usize::from(is_commit)];
    let settled = if is_commit { balances } else { [(100, if bank == 1 { 70 } else { 100 }), (100, 100)] };
    until("the other participant has answered", async || world.balances("ada").await[1 - bank] == settled[1 - bank])
        .await;

    let second = world.coordinator(quick()).await;
    assert_eq!((second.id(), second.takeover()), (first.id(), first.takeover() + 1));
    until("it has ended everywhere", async || world.balances("ada").await == balances).await;
    let record = second.record(&gid).await.unwrap();
    assert_eq!(record.decision(), other);
    // The first one comes back, and may decide nothing any more.
    gates[bank].open();
    let told = course.await.unwrap().unwrap().ended;
    match is_commit {
        true => assert_eq!(told, Ended::Committed),
        false => assert!(matches!(told, Ended::Aborted { .. }), "{told:?}"),
    }
    until("the first one has nothing left to do", async || first.counts().unfinished == 0).await;
    second.sweep().await;
    assert_eq!(world.balances("ada").await, balances);
    if !is_commit {
        assert!(first.is_fenced());
        assert!(matches!(first.run(transfer(1)).await, Err(TxnError::Fenced)));
    }
    assert_eq!(second.run(transfer(0)).await.unwrap().ended, Ended::Committed);
}

const BEFORE: [(i64, i64); 2] = [(100, 100), (100, 100)];
const AFTER: [(i64, i64); 2] = [(70, 70), (130, 130)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_decided_is_aborted_by_whoever_takes_over_and_a_late_decision_is_refused() {
    for bank in [0, 1] {
        taken_over(Stop::BeforePrepare, bank, BEFORE).await;
        taken_over(Stop::BehindPrepare, bank, BEFORE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_is_committed_by_whoever_takes_over() {
    for bank in [0, 1] {
        taken_over(Stop::BeforeCommit, bank, AFTER).await;
        taken_over(Stop::BehindCommit, bank, AFTER).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_outlasts_its_store_and_ends_when_both_are_back() {
    let world = World::new().await;
    let (first, [left, _]) = world.gated(quick()).await;
    left.close(Stop::BeforeCommit);
    let claiming = Transaction::new()
        .with(name("left"), super::bank::takes("ada", 30).claiming("ada").work().unwrap())
        .with(name("right"), super::bank::gives("ada", 30).work().unwrap())
        .answered(Answer::Decided);
    let gid = first.run(claiming).await.unwrap().gid;
    until("the right one has it", async || world.balances("ada").await[1] == (130, 130)).await;
    drop(first);
    let world = world.reopened().await;
    let coordinator = crate::two_phase_commit::Coordinator::open(&world.log, quick()).await.unwrap();
    // Nobody has been told yet that the left one is there: it holds what it promised, claim included.
    let participant = world.participant(0).await;
    let held = crate::two_phase_commit::Participant::in_doubt(&participant, coordinator.id()).await.unwrap();
    assert_eq!((held.len(), held[0].gid, &*held[0].held), (1, gid, &["ada".to_owned()][..]));
    assert_eq!(world.balances("ada").await[0], (100, 70));
    coordinator.register(name("left"), std::sync::Arc::new(participant)).unwrap();
    until("it is done", async || world.balances("ada").await == AFTER).await;
    assert_eq!(coordinator.counts().resolved, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_of_another_coordinator_are_left_alone() {
    let world = World::new().await;
    let (first, [left, _]) = world.gated(quick()).await;
    left.close(Stop::BeforeCommit);
    let gid = first.run(transfer(30).answered(Answer::Decided)).await.unwrap().gid;
    left.reached().await;
    let other = crate::two_phase_commit::Config { name: name("other"), ..quick() };
    let stranger = world.coordinator(other).await;
    assert_ne!(stranger.id(), first.id());
    stranger.sweep().await;
    assert_eq!(world.balances("ada").await[0], (100, 70));
    assert!(matches!(
        stranger.resolve(&gid, &name("left"), Ending::Abort, "me", "why not").await,
        Err(TxnError::Invalid { .. })
    ));
    let doubts = first.in_doubt().await;
    assert_eq!(doubts[0].1.as_ref().unwrap()[0].standstill, Standstill::Ending(Ending::Commit));
    left.open();
    until("it is done", async || world.balances("ada").await == AFTER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_what_was_decided_is_done_and_what_may_have_been_is_left_to_people() {
    let world = World::new().await;
    let (first, [left, right]) = world.gated(quick()).await;
    left.close(Stop::BeforeCommit);
    first.run(transfer(30).answered(Answer::Decided)).await.unwrap();
    left.reached().await;
    right.close(Stop::BehindPrepare);
    let course = begin(async move { first.run(transfer(10)).await });
    let undecided = right.reached().await;
    until("the left one has promised both", async || world.balances("ada").await[0] == (100, 60)).await;

    let env = quorate_runtime::Env::real();
    let (copy, restored) = (world.folder.path().join("copy.db"), world.folder.path().join("restored.db"));
    world.log.backup(copy.clone(), std::sync::Arc::new(|_, _| {})).await.unwrap();
    quorate_data::store::sqlite::restore(&env, copy, restored.clone(), std::sync::Arc::new(|_, _| {})).await.unwrap();
    let log = quorate_data::store::sqlite::open(&env, quorate_data::store::sqlite::Config::at(restored)).await.unwrap();
    let coordinator = crate::two_phase_commit::Coordinator::open(&log, quick()).await.unwrap();
    assert_ne!(coordinator.id(), undecided.coordinator);
    for (n, bank) in super::bank::NAMES.iter().enumerate() {
        coordinator.register(name(bank), std::sync::Arc::new(world.participant(n).await)).unwrap();
    }
    until("what was decided is done", async || world.balances("ada").await == [(70, 60), (130, 130)]).await;
    // A decision may be missing in the copy: nobody ends it but somebody who knows.
    coordinator.sweep().await;
    let doubts = coordinator.in_doubt().await;
    for (bank, held) in &doubts {
        let held = held.as_ref().unwrap();
        assert_eq!((held.len(), held[0].prepared.gid), (1, undecided), "{bank}");
        assert_eq!(held[0].standstill, Standstill::OlderTimeline);
        coordinator.resolve(&undecided, bank, Ending::Abort, "carol", "it is in no ledger").await.unwrap();
    }
    assert_eq!(world.balances("ada").await, AFTER);
    drop(course);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_was_replaced_raises_no_alarm_for_what_its_successor_ends() {
    let world = World::new().await;
    let first = world.coordinator(quick()).await;
    let left = std::sync::Arc::new(world.participant(0).await);
    until("it has asked both", async || first.swept().len() == 2).await;
    assert_eq!(first.oldest_doubt(), None);
    world.banks[0].close().await.unwrap();
    until("it says that one is away", async || first.oldest_doubt().is_some()).await;
    let second = crate::two_phase_commit::Coordinator::open(&world.log, quick()).await.unwrap();
    until("it has noticed by itself", async || first.is_fenced()).await;
    assert_eq!(first.oldest_doubt(), None);
    assert!(matches!(first.run(transfer(1)).await, Err(TxnError::Fenced)));
    second.register(name("left"), left).unwrap();
    until("its successor says it", async || second.oldest_doubt().is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_cannot_tell_who_it_was_does_not_begin_anew() {
    let world = World::new().await;
    drop(world.coordinator(quick()).await);
    let stream = name("txncoordinator-main");
    let forget = quorate_data::store::Retire::Truncate { before: quorate_data::event::Version::new(2) };
    world.log.retire(stream, forget).await.unwrap();
    let refused = crate::two_phase_commit::Coordinator::open(&world.log, quick()).await.err();
    let Some(TxnError::Store(quorate_data::store::StoreError::Corrupt { place, what })) = refused else {
        panic!("{refused:?}")
    };
    assert!(place.contains("txncoordinator-main") && what.contains("another name"), "{place}: {what}");
}
