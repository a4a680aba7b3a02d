//! Transactions that nobody disturbs, and those that are answered with a no.

use std::time::Duration;

use futures_util::future::join_all;
use quorate_data::{
    event::NewEvent,
    store::{ExpectedVersion, ReadStream},
};

use super::bank::{Stop, World, gives, name, quick, takes, transfer, until};
use crate::two_phase_commit::{Answer, Config, Ended, Request, RequestId, SqlWork, Transaction, TxnError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_is_in_both_stores_or_in_neither() {
    let world = World::new().await;
    let coordinator = world.coordinator(quick()).await;
    let receipt = coordinator.run(transfer(30)).await.unwrap();
    assert_eq!((receipt.ended, receipt.unconfirmed), (Ended::Committed, vec![]));
    assert_eq!(world.balances("ada").await, [(70, 70), (130, 130)]);
    let record = coordinator.record(&receipt.gid).await.unwrap();
    assert!(record.is_decided && record.participants == [name("left"), name("right")]);

    let receipt = coordinator.run(transfer(71)).await.unwrap();
    let Ended::Aborted { by, why } = receipt.ended else { panic!("{:?}", receipt.ended) };
    assert_eq!(by, Some(name("left")));
    assert!(why.contains("changed 0 rows"), "{why}");
    until("the other one has given back what it promised", async || {
        world.balances("ada").await == [(70, 70), (130, 130)]
            && coordinator.in_doubt().await.iter().all(|(_, doubts)| doubts.as_ref().unwrap().is_empty())
    })
    .await;
    // Presumed abort: nothing was written.
    assert!(!coordinator.record(&receipt.gid).await.unwrap().is_decided);
    let stream = ReadStream::forward(receipt.gid.stream(), 1);
    assert!(world.log.read_stream(stream).await.unwrap().events.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_side_by_side_keep_the_sum_and_commit_together() {
    let world = World::new().await;
    for bank in &world.banks {
        let sql = "UPDATE account SET total = 1000, free = 1000";
        bank.transact(move |tx| Box::pin(tx.execute(sql, &[]))).await.unwrap();
    }
    let coordinator = world.coordinator(quick()).await;
    let before = world.log.statistics().commits;
    let mut committed = 0;
    for _ in 0..4 {
        let all = (0..64).map(|n| {
            let answer = if n % 2 == 0 { Answer::Applied } else { Answer::Decided };
            coordinator.run(transfer(1 + n % 3).answered(answer))
        });
        for receipt in join_all(all).await {
            committed += i64::from(receipt.unwrap().ended == Ended::Committed);
        }
    }
    let commits = world.log.statistics().commits - before;
    until("everybody has confirmed", async || coordinator.counts().unfinished == 0).await;
    let [left, right] = world.balances("ada").await;
    assert_eq!((left.0 + right.0, left.0, right.0), (2_000, left.1, right.1));
    assert_eq!(committed, 256, "there was enough for all");
    assert!(commits < 200, "256 decisions took {commits} syncs of the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_travel_with_the_decision_and_an_expectation_that_fails_aborts() {
    let world = World::new().await;
    let coordinator = world.coordinator(quick()).await;
    let moved = |id: &str| vec![NewEvent::new(id, "/bank", "money.moved")];
    let with = |id: &str| transfer(10).append(name("transfers-ada"), ExpectedVersion::NoStream, moved(id));
    let receipt = coordinator.run(with("m-1")).await.unwrap();
    assert_eq!(receipt.ended, Ended::Committed);
    let place = world.log.reach(receipt.token.unwrap(), Duration::from_secs(10)).await.unwrap();
    let page = world.log.read_stream(ReadStream::forward(name("transfers-ada"), 10)).await.unwrap();
    assert_eq!((page.events.len(), Some(page.events[0].position())), (1, place));

    let receipt = coordinator.run(with("m-2")).await.unwrap();
    assert!(matches!(receipt.ended, Ended::Aborted { by: None, .. }), "{:?}", receipt.ended);
    until("both have given back what they promised", async || coordinator.counts().unfinished == 0).await;
    assert_eq!(world.balances("ada").await, [(90, 90), (110, 110)]);
    // The coordinator's own streams are nobody else's.
    let forged = transfer(1).append(receipt.gid.stream(), ExpectedVersion::Any, moved("m-3"));
    assert!(matches!(coordinator.run(forged).await, Err(TxnError::Invalid { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_go_on_whatever_is_in_doubt_and_claims_keep_others_out_until_it_ends() {
    let world = World::new().await;
    let (coordinator, [left, _]) = world.gated(quick()).await;
    let claiming = |amount| {
        Transaction::new()
            .with(name("left"), takes("ada", amount).claiming("ada").work().unwrap())
            .with(name("right"), gives("ada", amount).work().unwrap())
    };
    left.close(Stop::BeforeCommit);
    let receipt = coordinator.run(claiming(10).answered(Answer::Decided)).await.unwrap();
    assert_eq!((receipt.ended, left.reached().await), (Ended::Committed, receipt.gid));
    assert!(receipt.unconfirmed.contains(&name("left")));
    // What is set aside is set aside; the rest is free to be used, and so are the logs.
    assert_eq!(world.balances("ada").await[0], (100, 90));
    for store in [&world.log, &world.banks[0]] {
        let event = NewEvent::new("e-1", "/test", "something.happened");
        store
            .append(quorate_data::store::AppendBatch::to(name("other-1"), ExpectedVersion::NoStream, vec![event]))
            .await
            .unwrap();
    }
    let refused = coordinator.run(claiming(1)).await.unwrap().ended;
    let Ended::Aborted { why, .. } = &refused else { panic!("{refused:?}") };
    assert!(why.contains("`ada` is held by transaction") && why.contains(&receipt.gid.to_string()), "{why}");
    let doubts = coordinator.in_doubt().await;
    let held = &doubts[0].1.as_ref().unwrap()[0];
    assert_eq!((held.prepared.gid, &*held.prepared.held), (receipt.gid, &["ada".to_owned()][..]));
    left.open();
    until("it has ended", async || coordinator.counts().unfinished == 0).await;
    assert_eq!(coordinator.run(claiming(1)).await.unwrap().ended, Ended::Committed);
    assert_eq!(world.balances("ada").await, [(89, 89), (111, 111)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_vote_in_time_has_it_aborted_and_never_behind_the_decision() {
    let world = World::new().await;
    let config = Config { prepare_timeout: Duration::from_millis(100), applied_within: Duration::ZERO, ..quick() };
    let (coordinator, [left, right]) = world.gated(config).await;
    right.close(Stop::BehindPrepare);
    let receipt = coordinator.run(transfer(10)).await.unwrap();
    assert!(matches!(receipt.ended, Ended::Aborted { by: Some(ref by), .. } if *by == name("right")), "{receipt:?}");
    right.open();
    until("nobody holds anything", async || world.balances("ada").await == [(100, 100), (100, 100)]).await;
    // Once it is decided, no time that passes undoes it.
    left.close(Stop::BeforeCommit);
    let receipt = coordinator.run(transfer(10)).await.unwrap();
    assert_eq!((receipt.ended, receipt.unconfirmed.contains(&name("left"))), (Ended::Committed, true));
    quorate_runtime::Env::real().sleep(Duration::from_millis(250)).await;
    left.open();
    until("it is done", async || world.balances("ada").await == [(90, 90), (110, 110)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_participant_alone_is_done_in_one_phase_and_nothing_is_recorded() {
    let world = World::new().await;
    let coordinator = world.coordinator(quick()).await;
    let alone = |amount| Transaction::new().with(name("left"), takes("ada", amount).work().unwrap());
    let before = world.log.head();
    let receipt = coordinator.run(alone(10)).await.unwrap();
    assert_eq!((receipt.ended, receipt.token, world.log.head()), (Ended::Committed, None, before));
    let refused = coordinator.run(alone(91)).await.unwrap().ended;
    assert!(matches!(refused, Ended::Aborted { by: Some(_), .. }), "{refused:?}");
    assert_eq!(world.balances("ada").await[0], (90, 90));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_begun_says_why() {
    let world = World::new().await;
    let config = Config { max_unfinished: 1, ..quick() };
    let (coordinator, [left, _]) = world.gated(config).await;
    let work = || takes("ada", 1).work().unwrap();
    let ask = |transaction| coordinator.run(transaction);
    assert!(matches!(ask(Transaction::new()).await, Err(TxnError::Invalid { .. })));
    let twice = Transaction::new().with(name("left"), work()).with(name("left"), work());
    assert!(matches!(ask(twice).await, Err(TxnError::Invalid { .. })));
    let stranger = Transaction::new().with(name("nobody"), work());
    assert!(matches!(ask(stranger).await, Err(TxnError::UnknownParticipant { .. })));
    left.close(Stop::BeforePrepare);
    let first = tokio::join!(ask(transfer(1)), async {
        left.reached().await;
        let refused = ask(transfer(1)).await;
        left.open();
        assert!(matches!(refused, Err(TxnError::Overloaded { unfinished: 1 })), "{refused:?}");
    });
    assert_eq!(first.0.unwrap().ended, Ended::Committed);
    let long = Config { name: name(&"n".repeat(65)), ..quick() };
    assert!(matches!(
        crate::two_phase_commit::Coordinator::open(&world.log, long).await,
        Err(TxnError::Invalid { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_confirms_nothing_keeps_no_other_from_its_transactions_and_what_was_begun_is_told_all_the_same() {
    let world = World::new().await;
    let config = Config { max_unfinished_of_one: 1, ..quick() };
    let (coordinator, [left, _]) = world.gated(config).await;
    left.close(Stop::BeforeCommit);
    let begin = |id: &str| {
        let request = Request::new(RequestId::new(id).unwrap(), [7; 32], transfer(1).answered(Answer::Decided));
        let coordinator = coordinator.clone();
        async move { coordinator.begin(request).await }
    };
    let first = begin("1").await.unwrap();
    left.reached().await;
    // There is no room for it now, and it was begun before.
    let again = begin("1").await.unwrap();
    assert_eq!((again.gid, again.ended), (first.gid, Ended::Committed));
    let refused = begin("2").await;
    assert!(matches!(refused, Err(TxnError::ParticipantOverloaded { unfinished: 1, .. })), "{refused:?}");
    let other = || Transaction::new().with(name("right"), takes("bob", 1).work().unwrap());
    until("the other one has room", async || coordinator.run(other()).await.is_ok()).await;
    left.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_held_nothing_has_nothing_open() {
    let world = World::new().await;
    let config = Config { max_unfinished_of_one: 1, ..quick() };
    let (coordinator, [left, _]) = world.gated(config).await;
    left.close(Stop::BeforeCommit);
    // The right bank has only to look.
    let looks = SqlWork::default().work().unwrap();
    let first = Transaction::new().with(name("left"), takes("ada", 1).work().unwrap()).with(name("right"), looks);
    let first = coordinator.run(first.answered(Answer::Decided)).await.unwrap();
    assert_eq!((first.ended, first.unconfirmed), (Ended::Committed, vec![name("left")]));
    let other = Transaction::new().with(name("right"), takes("bob", 1).work().unwrap());
    assert_eq!(coordinator.run(other).await.unwrap().ended, Ended::Committed);
    left.open();
}
