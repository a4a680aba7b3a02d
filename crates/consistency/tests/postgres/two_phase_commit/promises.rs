//! What a server promises, and what it does not.

use std::str::FromStr;

use quorate_consistency::two_phase_commit::{
    Gid, Participant, ParticipantError, Postgres, PostgresConfig, SqlWork, Statement, Vote,
};
use quorate_data::store::postgres::Address;
use quorate_runtime::Env;

use super::{
    super::{run, server},
    banks::{banks, change, client, participant, prepared},
    lossy::{Loss, Lossy},
};

fn gid(n: u32) -> Gid {
    format!("quorate:0197f2a0-0000-7000-8000-00000000000b:1-{n}").parse().unwrap()
}

fn one(sql: &str) -> SqlWork {
    SqlWork::default().prepare(Statement::of(sql))
}

#[test]
fn what_a_server_cannot_promise_is_a_no_that_says_why() {
    run(async {
        let Some(address) = server::address() else { return };
        let addresses = banks(&address).await;
        let env = Env::real();
        let database = participant(&env, &addresses[0]);
        database.check().await.unwrap();
        let why = async |n: u32, work: &SqlWork| match database.prepare(&gid(n), &work.work().unwrap()).await {
            Ok(Vote::No { why }) => why,
            Err(ParticipantError::Unsuitable { what }) => what,
            other => panic!("{other:?}"),
        };
        let overdraws = one("UPDATE account SET free = free - 101 WHERE owner = 'ada'");
        assert!(why(1, &overdraws).await.contains("23514"));
        let nobody =
            SqlWork::default().prepare(Statement::of("UPDATE account SET free = 1 WHERE owner = 'eve'").changing(1));
        assert!(why(2, &nobody).await.contains("changed 0 rows"));
        assert!(why(3, &one("UPDATE nothing SET x = 1")).await.contains("42P01"));
        for (n, sql) in ["COMMIT", "SET statement_timeout = 0", "DROP TABLE account", ""].into_iter().enumerate() {
            assert!(why(4 + u32::try_from(n).unwrap(), &one(sql)).await.contains("begins with INSERT"), "{sql}");
        }
        let notifies = one("INSERT INTO account SELECT 'n', 1 FROM (SELECT pg_notify('a', 'b')) AS n");
        assert!(
            why(8, &notifies).await.contains("PREPARE a transaction that has executed LISTEN"),
            "notifications are not prepared"
        );
        assert!(prepared(&addresses).await.is_empty());
        // What only looks holds nothing, unless it locks.
        let looks = one("SELECT free FROM account");
        assert_eq!(database.prepare(&gid(10), &looks.work().unwrap()).await, Ok(Vote::ReadOnly));
        let locks = one("SELECT free FROM account WHERE owner = 'ada' FOR UPDATE");
        assert_eq!(database.prepare(&gid(11), &locks.work().unwrap()).await, Ok(Vote::Yes));
        let held = database.in_doubt(gid(11).coordinator).await.unwrap();
        assert_eq!((held.len(), held[0].gid), (1, gid(11)));
        assert!(held[0].held.iter().any(|held| held.ends_with("on public.account")), "{held:?}");
        // Over the wrong database nothing is ended, and it is said so.
        let branch = addresses[0].rsplit('/').next().unwrap();
        let wrong = PostgresConfig::at(Address::from_str(&addresses[1]).unwrap(), branch);
        let elsewhere = Postgres::new(&env, wrong).unwrap().commit(&gid(11)).await;
        assert!(matches!(elsewhere, Err(ParticipantError::Failed { .. })), "{elsewhere:?}");
        for _ in 0..2 {
            assert_eq!(database.abort(&gid(11)).await, Ok(()));
            assert_eq!(database.commit(&gid(12)).await, Ok(()), "what is unknown has ended");
        }
        // What somebody rolls back by hand is told, as long as the process that prepared it runs.
        assert_eq!(database.prepare(&gid(20), &change(1)).await, Ok(Vote::Yes));
        let by_hand = format!("ROLLBACK PREPARED '{}:{branch}'", gid(20));
        client(&addresses[0]).await.batch_execute(&by_hand).await.unwrap();
        let told = database.commit(&gid(20)).await;
        assert!(
            matches!(&told, Err(ParticipantError::Contradicted { what }) if what.contains("rolled back")),
            "{told:?}"
        );
        let Some(own) = server::Own::new("-c max_prepared_transactions=0") else { return };
        let refused = participant(&env, &own.address()).check().await;
        assert!(
            matches!(&refused, Err(ParticipantError::Unsuitable { what }) if what.contains("ALTER SYSTEM SET max_prepared_transactions")),
            "{refused:?}"
        );
    });
}

#[test]
fn what_only_looks_as_if_it_read_is_promised_and_remembered() {
    run(async {
        let Some(address) = server::address() else { return };
        let addresses = banks(&address).await;
        let admin = client(&addresses[0]).await;
        let functions = "CREATE FUNCTION pays(int) RETURNS int LANGUAGE sql AS
                $$ UPDATE account SET free = free - $1 WHERE owner = 'ada' RETURNING free $$;
            CREATE FUNCTION looks() RETURNS int LANGUAGE sql AS $$ SELECT free FROM account WHERE owner = 'ada' $$;
            CREATE FUNCTION tries() RETURNS int LANGUAGE plpgsql AS $$
                BEGIN UPDATE account SET free = 0 WHERE owner = 'ada'; RAISE 'no';
                EXCEPTION WHEN raise_exception THEN RETURN 0; END $$";
        admin.batch_execute(functions).await.unwrap();
        let database = participant(&Env::real(), &addresses[0]);
        let ask = async |n: u32, sql: &str| database.prepare(&gid(n), &one(sql).work().unwrap()).await;
        let reads = ["SELECT looks()", "WITH one AS (SELECT looks()) SELECT * FROM one", "TABLE account"];
        for (n, sql) in (1..).zip(reads) {
            assert_eq!(ask(n, sql).await, Ok(Vote::ReadOnly), "{sql}");
        }
        assert!(prepared(&addresses).await.is_empty());
        let writes = [
            "SELECT pays(1)",
            "WITH paid AS (UPDATE account SET free = free - 1 WHERE owner = 'ada' RETURNING free) SELECT * FROM paid",
            "VALUES (pays(1))",
            "SELECT tries()",
        ];
        let branch = addresses[0].rsplit('/').next().unwrap();
        for (n, sql) in (11..).zip(writes) {
            assert_eq!(ask(n, sql).await, Ok(Vote::Yes), "{sql}");
            assert_eq!(prepared(&addresses).await, [format!("{}:{branch}", gid(n))], "{sql}");
            // It is remembered that it wrote: what somebody takes back by hand is told.
            admin.batch_execute(&format!("ROLLBACK PREPARED '{}:{branch}'", gid(n))).await.unwrap();
            let told = database.commit(&gid(n)).await;
            let Err(ParticipantError::Contradicted { what }) = told else { panic!("{sql}: {told:?}") };
            assert!(what.contains("rolled back"), "{sql}: {what}");
        }
        assert_eq!(ask(20, writes[1]).await, Ok(Vote::Yes));
        assert_eq!(database.commit(&gid(20)).await, Ok(()));
        let free: i32 = admin.query_one("SELECT free FROM account WHERE owner = 'ada'", &[]).await.unwrap().get(0);
        assert_eq!(free, 99);
    });
}

#[test]
fn a_connection_that_does_not_keep_a_transaction_together_promises_nothing() {
    run(async {
        let Some(address) = server::address() else { return };
        let addresses = banks(&address).await;
        let lossy = Lossy::default();
        let database = participant(&lossy.env(), &addresses[0]);
        let is_torn = |vote: &Result<Vote, ParticipantError>| matches!(vote, Err(ParticipantError::Unanswered { what }) if what.contains("together"));
        let reads = one("SELECT free FROM account").work().unwrap();
        let hidden = "WITH one AS (INSERT INTO account VALUES ('eve', 1) RETURNING 1) SELECT * FROM one";
        let hidden = one(hidden).work().unwrap();
        // As a pooler has it that puts another session behind the connection: what begins or ends a transaction is asked elsewhere.
        let unbegun = Loss::Instead("BEGIN; SET", "ABORT; SET");
        let unprepared = Loss::Instead("PREPARE TRANSACTION", "ROLLBACK;        --");
        let courses = [(unbegun, &change(1)), (unbegun, &hidden), (unbegun, &reads), (unprepared, &change(1))];
        for (n, (loss, work)) in (1..).zip(courses) {
            lossy.lose(Some(loss));
            let vote = database.prepare(&gid(n), work).await;
            assert!(is_torn(&vote), "{n}: {vote:?}");
            assert!(lossy.is_done(), "{n}: it did not come about");
            assert!(prepared(&addresses).await.is_empty());
            assert_eq!(database.abort(&gid(n)).await, Ok(()), "{n}");
        }
        // Alone: what was done by itself is not known, and what was not committed is not done.
        lossy.lose(Some(unbegun));
        let ended = database.one_phase(&gid(11), &change(1)).await;
        assert!(is_torn(&ended) && lossy.is_done(), "{ended:?}");
        lossy.lose(Some(Loss::Instead("COMMIT\0", "ABORT;\0")));
        let ended = database.one_phase(&gid(12), &change(1)).await;
        assert!(matches!(&ended, Ok(Vote::No { why }) if why.contains("together")), "{ended:?}");
        assert!(lossy.is_done());
        // A connection that is whole is used again.
        assert_eq!(database.one_phase(&gid(13), &change(1)).await, Ok(Vote::Yes));
        assert_eq!(database.prepare(&gid(14), &reads).await, Ok(Vote::ReadOnly));
    });
}
