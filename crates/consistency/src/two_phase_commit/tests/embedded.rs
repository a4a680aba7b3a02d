//! The participant in an embedded store: whatever comes, however often, in whichever order.

use futures_util::future::join;
use proptest::prelude::*;
use quorate_data::store::StoreError;

use super::bank::{World, takes};
use crate::two_phase_commit::{
    Embedded, Gid, Participant, ParticipantError, SqlWork, Statement, Vote,
    branch::{Asked, Known, Step},
};

fn gid(number: u64) -> Gid {
    format!("quorate:0197f2a0-0000-7000-8000-000000000001:1-{number}").parse().unwrap()
}

/// What came of one message, in a word.
async fn ask(participant: &Embedded, gid: &Gid, asked: Asked) -> &'static str {
    let work = takes("ada", 1).claiming("ada").work().unwrap();
    match asked {
        Asked::Prepare => match participant.prepare(gid, &work).await.unwrap() {
            Vote::Yes => "yes",
            Vote::No { .. } => "no",
            Vote::ReadOnly => "read-only",
        },
        Asked::Commit | Asked::Abort => {
            let ended = match asked {
                Asked::Commit => participant.commit(gid).await,
                _ => participant.abort(gid).await,
            };
            match ended {
                Ok(()) => "done",
                Err(ParticipantError::Contradicted { .. }) => "contradicted",
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// What the rules say.
fn expected(known: &mut Known, asked: Asked) -> &'static str {
    match known.step(asked) {
        Step::Prepare => {
            *known = Known::Prepared;
            "yes"
        }
        Step::Repeat => "yes",
        Step::Late => "no",
        Step::Commit => {
            *known = Known::Committed;
            "done"
        }
        Step::Abort | Step::Remember => {
            *known = Known::Aborted;
            "done"
        }
        Step::Nothing => "done",
        Step::Contradict => "contradicted",
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Prepares, commits and aborts of one transaction in any order, repeated, over restarts: the effect is there once, or not.
    #[test]
    fn any_order_of_messages_has_the_effect_once_or_not_at_all(
        course in prop::collection::vec(prop_oneof![
            4 => prop_oneof![Just(Asked::Prepare), Just(Asked::Commit), Just(Asked::Abort)].prop_map(Some),
            1 => Just(None),
        ], 1..12)
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            let mut participant = world.participant(0).await;
            let mut known = Known::Nothing;
            for asked in course {
                let Some(asked) = asked else {
                    drop(participant);
                    world = world.reopened().await;
                    participant = world.participant(0).await;
                    continue;
                };
                prop_assert_eq!(ask(&participant, &gid(1), asked).await, expected(&mut known, asked));
                let balance = match known {
                    Known::Prepared => (100, 99),
                    Known::Committed => (99, 99),
                    _ => (100, 100),
                };
                prop_assert_eq!(world.balances("ada").await[0], balance);
            }
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_group_that_fails_each_has_the_answer_it_deserves_and_claims_stay_right() {
    let world = World::new().await;
    let tables = "CREATE TABLE parent (id BIGINT PRIMARY KEY);
        CREATE TABLE child (id BIGINT REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)";
    for table in tables.split(';') {
        world.banks[0].transact(move |tx| Box::pin(tx.execute(table, &[]))).await.unwrap();
    }
    let participant = world.participant(0).await;
    for n in 0..20_i64 {
        let orphan = SqlWork::default()
            .claiming("orphan")
            .prepare(Statement::of("INSERT INTO child VALUES ($1)").with(n))
            .abort(Statement::of("DELETE FROM child"))
            .work()
            .unwrap();
        let money = takes("ada", 1).claiming("ada").work().unwrap();
        let (good, bad) = (gid(2 * n.unsigned_abs() + 1), gid(2 * n.unsigned_abs() + 2));
        let (kept, refused) = join(participant.prepare(&good, &money), participant.prepare(&bad, &orphan)).await;
        assert_eq!(kept, Ok(Vote::Yes));
        assert!(matches!(refused, Err(ParticipantError::Failed { .. })), "{refused:?}");
        let held = participant.in_doubt(good.coordinator).await.unwrap();
        assert_eq!(held.iter().map(|prepared| prepared.gid).collect::<Vec<_>>(), [good]);
        assert!(matches!(participant.prepare(&gid(1_000), &money).await, Ok(Vote::No { .. })), "its claim is held");
        participant.abort(&good).await.unwrap();
    }
    assert_eq!(world.balances("ada").await[0], (100, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_its_coordinator_says_has_ended_is_forgotten_and_a_late_prepare_is_refused() {
    let mut world = World::new().await;
    let participant = world.participant(0).await;
    for number in 1..=6 {
        assert_eq!(ask(&participant, &gid(number), Asked::Prepare).await, "yes");
        let end = if number % 2 == 0 { Asked::Commit } else { Asked::Abort };
        assert_eq!(ask(&participant, &gid(number), end).await, "done");
    }
    participant.forget(&gid(5)).await.unwrap();
    participant.forget(&gid(2)).await.unwrap();
    for (number, asked, answer) in [
        (4, Asked::Prepare, "no"),
        (4, Asked::Commit, "done"),
        (4, Asked::Abort, "done"),
        (5, Asked::Commit, "contradicted"),
        (6, Asked::Abort, "contradicted"),
        (7, Asked::Prepare, "yes"),
    ] {
        assert_eq!(ask(&participant, &gid(number), asked).await, answer, "{number} {asked:?}");
    }
    drop(participant);
    world = world.reopened().await;
    let participant = world.participant(0).await;
    assert_eq!(ask(&participant, &gid(4), Asked::Prepare).await, "no");
    assert_eq!(ask(&participant, &gid(7), Asked::Commit).await, "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_fails_stays_in_doubt_and_is_done_once_it_can_be() {
    let world = World::new().await;
    let participant = world.participant(0).await;
    let run =
        async |sql: &'static str| world.banks[0].transact(move |tx| Box::pin(tx.execute(sql, &[]))).await.unwrap();
    let ends = |commit: &str, abort: &str| {
        let (commit, abort) = (Statement::of(commit), Statement::of(abort));
        SqlWork::default().claiming("note").commit(commit).abort(abort).work().unwrap()
    };
    // What could never be done is not promised.
    let (good, none) = ("INSERT INTO note VALUES (1)", "SELECT 1");
    for work in [ends(good, none), ends(none, "UPDATE nothing SET x = 1"), ends("COMMIT", none)] {
        let vote = participant.prepare(&gid(1), &work).await;
        assert!(matches!(&vote, Ok(Vote::No { why }) if why.contains("cannot be done")), "{vote:?}");
    }
    run("CREATE TABLE note (id BIGINT)").await;
    assert_eq!(participant.prepare(&gid(2), &ends(good, none)).await, Ok(Vote::Yes));
    run("DROP TABLE note").await;
    let failed = participant.commit(&gid(2)).await;
    assert!(matches!(&failed, Err(ParticipantError::Failed { what }) if what.contains("note")), "{failed:?}");
    assert_eq!(participant.in_doubt(gid(2).coordinator).await.unwrap().len(), 1);
    run("CREATE TABLE note (id BIGINT)").await;
    assert_eq!(participant.commit(&gid(2)).await, Ok(()));
    assert_eq!(participant.in_doubt(gid(2).coordinator).await, Ok(vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_already_is_answered_as_it_stands_and_not_tried_again() {
    let world = World::new().await;
    let run =
        async |sql: &'static str| world.banks[0].transact(move |tx| Box::pin(tx.execute(sql, &[]))).await.unwrap();
    run("CREATE TABLE note (id BIGINT)").await;
    let work = SqlWork::default().claiming("note").commit(Statement::of("INSERT INTO note VALUES (1)")).work().unwrap();
    let participant = world.participant(0).await;
    assert_eq!(participant.one_phase(&gid(1), &work).await, Ok(Vote::Yes));
    assert_eq!(participant.prepare(&gid(2), &work).await, Ok(Vote::Yes));
    drop(participant);
    let world = world.reopened().await;
    // What it was asked for cannot be done any more.
    world.banks[0].transact(|tx| Box::pin(tx.execute("DROP TABLE note", &[]))).await.unwrap();
    let participant = world.participant(0).await;
    assert_eq!(participant.one_phase(&gid(1), &work).await, Ok(Vote::Yes), "it was done");
    assert_eq!(participant.prepare(&gid(2), &work).await, Ok(Vote::Yes), "it is promised");
    let new = participant.prepare(&gid(3), &work).await;
    assert!(matches!(&new, Ok(Vote::No { why }) if why.contains("cannot be done")), "{new:?}");
    // Another one's claim is in nobody's way who has promised already, and work that is none is other work.
    let other = crate::two_phase_commit::Work::of(&br#"{"prepare": 1}"#[..]).unwrap();
    let twice = participant.prepare(&gid(2), &other).await;
    assert!(matches!(&twice, Ok(Vote::No { why }) if why.contains("twice")), "{twice:?}");
    assert_eq!(participant.in_doubt(gid(2).coordinator).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_is_too_long_to_be_remembered_is_tried_each_time() {
    let world = World::new().await;
    let run =
        async |sql: &'static str| world.banks[0].transact(move |tx| Box::pin(tx.execute(sql, &[]))).await.unwrap();
    run("CREATE TABLE note (id TEXT)").await;
    let participant = world.participant(0).await;
    let ends = |length: usize| {
        let sql = format!("INSERT INTO note VALUES ('{}')", "x".repeat(length));
        SqlWork::default().commit(Statement::of(sql)).work().unwrap()
    };
    for (number, length) in [(1, 10), (2, 5_000)] {
        assert_eq!(participant.prepare(&gid(number), &ends(length)).await, Ok(Vote::Yes));
    }
    run("DROP TABLE note").await;
    let (short, long) =
        (participant.prepare(&gid(3), &ends(10)).await, participant.prepare(&gid(4), &ends(5_000)).await);
    assert_eq!(short, Ok(Vote::Yes), "it was tried");
    assert!(matches!(&long, Ok(Vote::No { why }) if why.contains("cannot be done")), "{long:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_promises_outlast_a_restart() {
    let world = World::new().await;
    let participant = world.participant(0).await;
    let sql = format!("UPDATE account SET total = total + 1 WHERE owner = 'ada' AND '' <> '{}'", "x".repeat(250 << 10));
    let work = SqlWork::default().commit(Statement::of(sql)).work().unwrap();
    for number in 1..=80 {
        assert_eq!(participant.prepare(&gid(number), &work).await, Ok(Vote::Yes), "{number}");
    }
    drop(participant);
    let world = world.reopened().await;
    let participant = world.participant(0).await;
    assert_eq!(participant.in_doubt(gid(1).coordinator).await.unwrap().len(), 80);
    for number in 1..=80 {
        assert_eq!(participant.commit(&gid(number)).await, Ok(()), "{number}");
    }
    assert_eq!(world.balances("ada").await[0], (180, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_participant_under_two_names_is_noticed() {
    let world = World::new().await;
    let coordinator = crate::two_phase_commit::Coordinator::open(&world.log, super::bank::quick()).await.unwrap();
    for bank in super::bank::NAMES {
        let same = std::sync::Arc::new(world.participant(0).await);
        coordinator.register(super::bank::name(bank), same).unwrap();
    }
    let ended = coordinator.run(super::bank::transfer(10)).await.unwrap().ended;
    let crate::two_phase_commit::Ended::Aborted { why, .. } = ended else { panic!("{ended:?}") };
    assert!(why.contains("twice"), "{why}");
    super::bank::until("nothing is held", async || world.balances("ada").await[0] == (100, 100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_is_none_is_refused_with_the_place_and_a_closed_store_says_so() {
    let world = World::new().await;
    let participant = world.participant(0).await;
    let odd = crate::two_phase_commit::Work::of(&br#"{"prepare": [{"sqll": "x"}]}"#[..]).unwrap();
    let Ok(Vote::No { why }) = participant.prepare(&gid(1), &odd).await else { panic!("it is no work") };
    assert!(why.contains("sqll"), "{why}");
    let forbidden = SqlWork::default().prepare(Statement::of("DELETE FROM quorate_txn_branch")).work().unwrap();
    assert!(matches!(participant.prepare(&gid(2), &forbidden).await, Ok(Vote::No { .. })));
    assert!(crate::two_phase_commit::Work::of("{").is_err());
    assert_eq!(participant.prepare(&gid(3), &SqlWork::default().work().unwrap()).await, Ok(Vote::ReadOnly));
    world.banks[0].close().await.unwrap();
    let closed = participant.commit(&gid(1)).await.unwrap_err();
    assert_eq!(closed, ParticipantError::Failed { what: StoreError::Closed.to_string() });
}
