//! What a store says of transactions to whoever only looks.

use std::sync::Arc;

use super::bank::{Stop, World, name, quick, takes, transfer};
use crate::two_phase_commit::{
    Answer, Embedded, Gid, Ledger, Participant, Promised, Record, SqlResource, TxnError, Vote,
};

fn gid(number: u64) -> Gid {
    format!("quorate:0197f2a0-0000-7000-8000-000000000001:1-{number}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_are_listed_in_the_order_of_transactions_page_by_page_with_what_they_claim() {
    let world = World::new().await;
    let ledger = Ledger::of(&world.banks[0]);
    assert_eq!(ledger.promises(None, 10).await.unwrap(), vec![], "nobody ever took part");
    assert_eq!(ledger.promised().await.unwrap(), Promised::default());
    let participant = world.participant(0).await;
    let called = name("other");
    let other = Embedded::open(&world.banks[0], &called, Arc::new(SqlResource)).await.unwrap();
    let claiming = |n: u64| takes("ada", 0).claiming(format!("{n}")).work().unwrap();
    // More than are read at a time, of two participants each.
    for n in 1..=70 {
        assert_eq!(participant.prepare(&gid(n), &claiming(n)).await, Ok(Vote::Yes));
        assert_eq!(other.prepare(&gid(n), &claiming(n)).await, Ok(Vote::Yes));
    }
    participant.commit(&gid(3)).await.unwrap();
    let all = ledger.promises(None, 1_000).await.unwrap();
    assert_eq!(all.len(), 139);
    assert_eq!(
        (ledger.promised().await.unwrap().count, all.iter().map(|one| one.since).min()),
        (139, ledger.promised().await.unwrap().oldest)
    );
    let shown = |after: Option<u64>, most: usize| {
        let ledger = ledger.clone();
        async move {
            let found = ledger.promises(after.map(gid), most).await.unwrap();
            found.iter().map(|one| (one.gid.txn.number, one.participant.to_string())).collect::<Vec<_>>()
        }
    };
    let of = |n: u64, participant: &str| (n, participant.to_owned());
    assert_eq!(shown(Some(1), 2).await, [of(2, "bank"), of(2, "other"), of(3, "other")]);
    assert_eq!(shown(Some(69), 2).await, [of(70, "bank"), of(70, "other")]);
    assert_eq!(shown(Some(70), 2).await, []);
    let second = ledger.promises_of(&gid(2)).await.unwrap();
    assert_eq!((second.len(), &*second[0].claims[0]), (2, "2"));
    assert_eq!(ledger.promises_of(&gid(71)).await.unwrap(), vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_says_is_read_without_a_coordinator() {
    let world = World::new().await;
    let (coordinator, [left, _]) = world.gated(quick()).await;
    left.close(Stop::BeforeCommit);
    let decided = coordinator.run(transfer(30).answered(Answer::Decided)).await.unwrap().gid;
    left.reached().await;
    let ledger = Ledger::of(&world.log);
    assert!(ledger.record(&decided).await.unwrap().is_decided);
    assert_eq!(ledger.record(&gid(1)).await.unwrap(), Record::default());
    let held = Ledger::of(&world.banks[0]).promises_of(&decided).await.unwrap();
    assert_eq!((held.len(), held[0].participant.as_str()), (1, "bank"), "by the name that it has in its store");
    for own in [decided.stream().as_str(), "txncoordinator-main"] {
        assert!(Ledger::is_own_stream(own), "{own}");
    }
    for other in ["txn-17", "txncoordinators-1", "orders-txncoordinator-1"] {
        assert!(!Ledger::is_own_stream(other), "{other}");
    }
    assert!(Ledger::is_own_type("quorate.txn.decided") && !Ledger::is_own_type("quorate.txnal"));
    left.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn participants_are_written_down_together_or_not_at_all() {
    let world = World::new().await;
    let ledger = Ledger::of(&world.log);
    let all: Vec<_> = (1..Ledger::MAX_PARTICIPANTS).map(|n| name(&format!("http://stock-{n}"))).collect();
    ledger.add_participants(&all).await.unwrap();
    let more = [name("http://one"), all[0].clone(), name("http://other")];
    let refused = ledger.add_participants(&more).await;
    assert!(matches!(refused, Err(TxnError::TooManyParticipants { .. })), "{refused:?}");
    assert_eq!(ledger.participants().await.unwrap(), all);
    ledger.add_participants(&more[..2]).await.unwrap();
    assert_eq!(ledger.participants().await.unwrap().len(), Ledger::MAX_PARTICIPANTS);
}
