//! Claims about commands: conflicts, repetition, answers.

use std::sync::Arc;

use quorate_data::{
    event::{NewEvent, Version},
    schema::{Registrar, RegistryPolicy, UnknownType},
    store::{AppendBatch, AppendError, ExpectedVersion, ReadStream, Retire, StoreError, TransactError, sqlite},
};
use quorate_runtime::Env;
use serde_json::json;

use super::bank::{Bank, Command, Event, Overdrawn, accounts, forgetful, run, store};
use crate::event_sourcing::{
    Aggregate, Aggregates, Config, HandleError, LoadError, Metadata, SetupError, Undecodable, UnknownEvents,
};

fn nothing() -> Metadata {
    Metadata::default()
}

#[test]
fn an_outcome_shows_the_events_the_version_and_the_state_after_them() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = accounts(&store).await;
        accounts.handle("a", Command::Deposit(100), nothing()).await.unwrap();
        let bought = accounts.handle("a", Command::Buy("tea", 30), nothing()).await.unwrap();
        assert_eq!(bought.events, [Event::Withdrawn { cents: 30, left: 70 }, Event::Noted { text: "tea".into() }]);
        assert_eq!((bought.version, bought.state.balance, bought.repeated), (Version::new(3), 70, false));
        assert_eq!(bought.token.append(), store.head().get());

        let loaded = accounts.load("a").await.unwrap();
        assert_eq!((loaded.state, loaded.version, loaded.token), (bought.state, bought.version, bought.token));
        assert_eq!(accounts.load("b").await.unwrap().version, Version::ZERO);
    });
}

#[test]
fn events_carry_type_version_causation_correlation_and_source() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = accounts(&store).await;
        let time = "2020-02-02T20:20:20+02:00".parse().unwrap();
        let metadata = Metadata::command("c-1").correlated("k-1").said_by("/till/3").happened_at(time);
        accounts.handle(7, Command::Deposit(5), metadata).await.unwrap();
        let caused = Metadata::command("c-2").caused_by("m-1");
        accounts.handle(7, Command::Deposit(5), caused).await.unwrap();
        let page = store.read_stream(ReadStream::forward(Bank::stream(7).unwrap(), 10)).await.unwrap();
        let [first, second] = &page.events[..] else { panic!("{:?}", page.events) };
        assert_eq!((first.id(), first.source(), first.kind()), ("c-1.0", "/till/3", "account.deposited"));
        assert_eq!(first.schema(), Some("/v1/schemas/account.deposited/versions/1"));
        assert_eq!((first.causation_id(), first.correlation_id()), (Some("c-1"), Some("k-1")));
        assert_eq!(first.time_text(), Some("2020-02-02T20:20:20+02:00"));
        assert_eq!((first.content_type(), first.data()), (Some("application/json"), Some(&br#"{"cents":5}"#[..])));
        assert_eq!((second.causation_id(), second.correlation_id()), (Some("m-1"), None));
        assert_eq!(second.source(), "/account");
    });
}

#[test]
fn a_rejection_is_distinct_from_a_failure_and_writes_nothing() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = accounts(&store).await;
        let refused = accounts.handle(1, Command::Withdraw(1), nothing()).await.unwrap_err();
        assert!(matches!(refused, HandleError::Rejected(Overdrawn { balance: 0 })));
        assert_eq!(store.head().get(), 0);

        store.close().await.unwrap();
        let failed = accounts.handle(1, Command::Deposit(1), nothing()).await.unwrap_err();
        assert!(matches!(failed, HandleError::Store(StoreError::Closed)), "{failed:?}");
    });
}

#[test]
fn a_rejection_is_one_also_where_events_without_a_schema_are_refused() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let schemas = RegistryPolicy { unknown_type: UnknownType::Closed, ..RegistryPolicy::default() };
        let config = sqlite::Config { schemas, ..sqlite::Config::at(folder.path().join("test.db")) };
        let store = sqlite::open(&Env::real(), config).await.unwrap();
        Registrar::of(&store).register(&"account.deposited".parse().unwrap(), json!(true), None).await.unwrap();
        let accounts = accounts(&store).await;
        let command = |id: &'static str| Metadata::command(id);
        let refused = accounts.handle(1, Command::Withdraw(1), command("c-1")).await.unwrap_err();
        assert!(matches!(refused, HandleError::Rejected(Overdrawn { balance: 0 })), "{refused:?}");
        let first = accounts.handle(1, Command::Deposit(10), command("c-2")).await.unwrap();
        assert!(accounts.handle(1, Command::FillUpTo(10), command("c-3")).await.unwrap().events.is_empty());
        // What it came to before is found, although now there would be nothing to do.
        let again = accounts.handle(1, Command::FillUpTo(10), command("c-2")).await.unwrap();
        assert!(again.repeated && again.events == first.events, "{again:?}");
        assert_eq!(store.head().get(), 1);
    });
}

#[test]
fn another_writer_is_noticed_and_the_command_decided_anew() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let (ours, theirs) = (accounts(&store).await, accounts(&store).await);
        ours.handle(1, Command::Deposit(100), nothing()).await.unwrap();
        theirs.handle(1, Command::Withdraw(60), nothing()).await.unwrap();
        // `Withdrawn` carries what is left, so that a decision against the old state would be wrong in the log.
        let ended = ours.handle(1, Command::Withdraw(40), nothing()).await.unwrap();
        assert_eq!(ended.events, [Event::Withdrawn { cents: 40, left: 0 }]);
        assert_eq!(ours.statistics().conflicts, 1);
    });
}

#[test]
fn no_is_never_said_because_of_an_old_state() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let (ours, theirs) = (accounts(&store).await, accounts(&store).await);
        ours.handle(1, Command::Deposit(10), nothing()).await.unwrap();
        theirs.handle(1, Command::Deposit(90), nothing()).await.unwrap();
        let allowed = ours.handle(1, Command::Withdraw(100), nothing()).await.unwrap();
        assert_eq!(allowed.state.balance, 0);

        theirs.handle(1, Command::Deposit(50), nothing()).await.unwrap();
        ours.handle(1, Command::FillUpTo(50), nothing()).await.unwrap();
        theirs.handle(1, Command::Withdraw(20), nothing()).await.unwrap();
        let filled = ours.handle(1, Command::FillUpTo(50), nothing()).await.unwrap();
        assert_eq!(filled.events, [Event::Deposited { cents: 20 }]);
        assert_eq!(ours.statistics().cache_misses, 1);
    });
}

#[test]
fn a_command_without_events_returns_the_newest_append_that_it_saw() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let (ours, theirs) = (accounts(&store).await, accounts(&store).await);
        ours.handle(1, Command::Deposit(10), nothing()).await.unwrap();
        let seen = theirs.handle(1, Command::Deposit(90), nothing()).await.unwrap();
        theirs.handle(2, Command::Deposit(1), nothing()).await.unwrap();
        let nothing_to_do = ours.handle(1, Command::FillUpTo(100), nothing()).await.unwrap();
        assert!(nothing_to_do.events.is_empty());
        assert_eq!((nothing_to_do.token, nothing_to_do.version), (seen.token, seen.version));
    });
}

#[test]
fn a_repeated_command_is_answered_as_the_first_time_whatever_happened_since() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        for accounts in [accounts(&store).await, forgetful(&store).await] {
            let id = format!("{:p}", Arc::as_ptr(&Arc::new(())));
            accounts.handle(&id, Command::Deposit(100), nothing()).await.unwrap();
            let buy = || accounts.handle(&id, Command::Buy("tea", 80), Metadata::command("c-1"));
            let first = buy().await.unwrap();
            // Decided anew it would be rejected; after the deposit it would lead to other events.
            for meanwhile in [None, Some(Command::Deposit(500)), Some(Command::FillUpTo(1_000))] {
                if let Some(command) = meanwhile {
                    accounts.handle(&id, command, nothing()).await.unwrap();
                }
                let head = store.head();
                let again = buy().await.unwrap();
                assert_eq!(again.events, first.events);
                assert_eq!((again.version, again.token, again.repeated), (first.version, first.token, true));
                assert_eq!(again.state, first.state);
                assert_eq!(store.head(), head, "nothing was written");
            }
            assert_eq!(accounts.load(&id).await.unwrap().state.balance, 1_000);
        }
    });
}

#[test]
fn a_command_repeated_by_a_process_that_knows_nothing_is_carried_out_once() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let first = {
            let store = store(folder.path()).await;
            let outcome = accounts(&store).await.handle(1, Command::Deposit(5), Metadata::command("c")).await.unwrap();
            store.close().await.unwrap();
            outcome
        };
        let store = store(folder.path()).await;
        let again = accounts(&store).await.handle(1, Command::Deposit(5), Metadata::command("c")).await.unwrap();
        assert_eq!((again.version, again.events, again.repeated), (first.version, first.events, true));
        assert_eq!(store.head().get(), 1);
    });
}

#[test]
fn the_same_command_id_of_another_source_is_another_command() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = accounts(&store).await;
        for till in ["/till/1", "/till/2", "/till/1"] {
            let metadata = Metadata::command("c").said_by(till);
            accounts.handle(1, Command::Deposit(5), metadata).await.unwrap();
        }
        assert_eq!(accounts.load(1).await.unwrap().state.balance, 10);
    });
}

#[test]
fn a_repeated_command_whose_events_were_truncated_is_told_so() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = accounts(&store).await;
        accounts.handle(1, Command::Deposit(5), Metadata::command("c")).await.unwrap();
        accounts.handle(1, Command::Deposit(5), nothing()).await.unwrap();
        let stream = Bank::stream(1).unwrap();
        store.retire(stream.clone(), Retire::Truncate { before: Version::new(2) }).await.unwrap();
        let told = accounts.handle(1, Command::Deposit(5), Metadata::command("c")).await.unwrap_err();
        assert!(
            matches!(&told, HandleError::AlreadyHandled { version, .. } if *version == Version::new(1)),
            "{told:?}"
        );
        assert_eq!(store.head().get(), 2);
    });
}

#[test]
fn another_command_under_the_same_id_is_refused_where_there_is_a_digest_and_answered_as_the_first_where_not() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = accounts(&store).await;
        let deposit = |cents, metadata| accounts.handle(1, Command::Deposit(cents), metadata);
        let asking = |cents: u64| Metadata::command("c").asking(&("deposit", cents)).unwrap();
        deposit(100, asking(100)).await.unwrap();
        assert!(deposit(100, asking(100)).await.unwrap().repeated);
        for digest in [asking(250), asking(251)] {
            let refused = deposit(250, digest).await.unwrap_err();
            let HandleError::CommandIdReused { command_id, stream, version } = &refused else { panic!("{refused:?}") };
            assert_eq!((&**command_id, stream.as_str(), version.get()), ("c", "account-1", 1));
        }
        // A process that knows nothing of the state is told the same.
        let fresh = super::bank::accounts(&store).await;
        let told = fresh.handle(1, Command::Deposit(250), asking(250)).await.unwrap_err();
        assert!(matches!(told, HandleError::CommandIdReused { .. }), "{told:?}");
        let unasked = deposit(250, Metadata::command("c")).await.unwrap();
        assert_eq!((unasked.repeated, unasked.state.balance), (true, 100));
    });
}

#[test]
#[expect(clippy::disallowed_types, reason = "an order that differs from run to run is what is tried")]
fn a_digest_is_that_of_the_command_whatever_the_order_of_its_maps() {
    let digest = || {
        let tags: std::collections::HashMap<String, u32> = (0..50).map(|n| (format!("tag-{n}"), n)).collect();
        Metadata::command("c").asking(&("tag", tags)).unwrap().digest
    };
    assert_eq!(digest(), digest());
    assert!(digest().is_some());
}

#[test]
fn an_id_that_somebody_else_took_is_an_error() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = accounts(&store).await;
        let stream = Bank::stream(1).unwrap();
        let foreign = NewEvent::new("c.1", "/account", "account.noted").json(&br#"{"text":"mine"}"#[..]);
        store.append(AppendBatch::to(stream, ExpectedVersion::Any, vec![foreign])).await.unwrap();
        accounts.handle(1, Command::Deposit(5), nothing()).await.unwrap();
        let refused = accounts.handle(1, Command::Buy("tea", 5), Metadata::command("c")).await.unwrap_err();
        assert!(matches!(refused, HandleError::Append(AppendError::IdReused { .. })), "{refused:?}");
        assert_eq!(accounts.load(1).await.unwrap().state.balance, 5);
    });
}

#[test]
fn a_tombstoned_aggregate_takes_no_commands_and_shows_no_state() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let (known, fresh) = (accounts(&store).await, accounts(&store).await);
        known.handle(1, Command::Deposit(5), nothing()).await.unwrap();
        let expected = ExpectedVersion::Exact(Version::new(1));
        store.retire(Bank::stream(1).unwrap(), Retire::Tombstone { expected }).await.unwrap();
        for accounts in [known, fresh] {
            let refused = accounts.handle(1, Command::Deposit(5), nothing()).await.unwrap_err();
            assert!(matches!(refused, HandleError::Load(LoadError::Tombstoned { .. })), "{refused:?}");
            assert!(matches!(accounts.load(1).await, Err(LoadError::Tombstoned { .. })));
        }
    });
}

#[test]
fn an_event_that_this_code_does_not_know_is_refused_or_skipped_as_configured() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let foreign = NewEvent::new("x", "/elsewhere", "account.frozen").json(&b"{}"[..]);
        let batch = AppendBatch::to(Bank::stream(1).unwrap(), ExpectedVersion::Any, vec![foreign]);
        store.append(batch).await.unwrap();
        let refused = accounts(&store).await.load(1).await.unwrap_err();
        assert!(matches!(&refused, LoadError::UnknownType { kind, .. } if kind == "account.frozen"), "{refused:?}");

        let config = Config { unknown_events: UnknownEvents::Skip, ..Config::default() };
        let tolerant = Aggregates::of(Bank).config(config).open(&store).await.unwrap();
        let outcome = tolerant.handle(1, Command::Deposit(5), nothing()).await.unwrap();
        assert_eq!((outcome.version, tolerant.statistics().unknown_events), (Version::new(2), 1));
    });
}

#[test]
fn an_event_that_cannot_be_read_names_its_place_and_what_is_wrong() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        for (n, (data, schema)) in [
            ("{\"cents\":-1}", None),
            ("{\"cents\":1}", Some("/v1/schemas/account.deposited/2")),
            ("{}", Some("urn:x")),
        ]
        .into_iter()
        .enumerate()
        {
            let mut event = NewEvent::new("x", "/elsewhere", "account.deposited").json(data.as_bytes());
            event.schema = schema.map(Into::into);
            let batch = AppendBatch::to(Bank::stream(n).unwrap(), ExpectedVersion::Any, vec![event]);
            store.append(batch).await.unwrap();
            let failed = accounts(&store).await.handle(n, Command::Deposit(1), nothing()).await.unwrap_err();
            let HandleError::Load(LoadError::Undecodable { version, kind, cause, .. }) = failed else {
                panic!("{failed:?}")
            };
            assert_eq!((version, kind.as_str()), (Version::new(1), "account.deposited"));
            match n {
                0 => assert!(matches!(*cause, Undecodable::Json(_)), "{cause:?}"),
                1 => assert!(matches!(*cause, Undecodable::Version { found: 2, known: 1 }), "{cause:?}"),
                _ => assert!(matches!(*cause, Undecodable::Schema { .. }), "{cause:?}"),
            }
        }
    });
}

#[test]
fn a_command_in_a_transaction_commits_or_vanishes_with_it() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = accounts(&store).await;
        accounts.handle(1, Command::Deposit(100), nothing()).await.unwrap();
        let transfer = |cents: u64, end: Result<(), &'static str>| {
            let accounts = accounts.clone();
            store.transact(move |tx| {
                let accounts = accounts.clone();
                Box::pin(async move {
                    let failed = |failed: HandleError<Overdrawn>| format!("{failed:?}");
                    let paid = accounts.handle_in(tx, 1, Command::Withdraw(cents), nothing()).await.map_err(failed)?;
                    accounts.handle_in(tx, 2, Command::Deposit(cents), nothing()).await.map_err(failed)?;
                    // A second command sees what the first one did.
                    let twice = accounts.handle_in(tx, 1, Command::FillUpTo(0), nothing()).await.map_err(failed)?;
                    assert_eq!((twice.version, &twice.state), (paid.version, &paid.state));
                    end.map_err(str::to_owned)
                })
            })
        };
        transfer(60, Ok(())).await.unwrap();
        assert!(matches!(transfer(10, Err("changed my mind")).await, Err(TransactError::Aborted(_))));
        let overdrawn = transfer(50, Ok(())).await.unwrap_err();
        assert!(matches!(&overdrawn, TransactError::Aborted(why) if why.contains("balance: 40")), "{overdrawn:?}");
        let balances = [accounts.load(1).await.unwrap().state.balance, accounts.load(2).await.unwrap().state.balance];
        assert_eq!(balances, [40, 60]);
        assert_eq!(accounts.handle(1, Command::Withdraw(40), nothing()).await.unwrap().state.balance, 0);
    });
}

#[test]
fn a_category_that_would_end_early_is_refused_at_start_up() {
    #[derive(Clone, Copy)]
    struct Dashed;
    impl crate::event_sourcing::Decider for Dashed {
        type Command = ();
        type Event = Event;
        type State = ();
        type Rejection = ();
        fn decide(&self, (): &(), (): &()) -> Result<Vec<Event>, ()> {
            Ok(vec![])
        }
        fn evolve((): (), _: &Event) {}
    }
    impl Aggregate for Dashed {
        const CATEGORY: &'static str = "bank-account";
    }
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let refused = Aggregates::of(Dashed).open(&store).await.err().unwrap();
        assert!(matches!(refused, SetupError::Category { category: "bank-account" }));
    });
}
