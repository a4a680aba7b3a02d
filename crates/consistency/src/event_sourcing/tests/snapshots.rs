//! Claims about snapshots: they make loading short and are never believed without proof.

use std::{collections::BTreeSet, num::NonZeroU64};

use proptest::prelude::*;
use quorate_data::{
    event::{NewEvent, Version},
    schema::{
        SchemaVersion,
        upcast::{Upcasters, UpcastersBuilder, Versioned},
    },
    store::{AppendBatch, ExpectedVersion, Retire, Store},
};
use serde::{Deserialize, Serialize};

use super::bank::{Account, Bank, Command, Event, Overdrawn, forgetful, run, store};
use crate::event_sourcing::{
    Aggregate, Aggregates, Config, Decider, DomainEvent, Metadata, SetupError, Snapshotted, UnknownEvents,
    reader::Codec, snapshot::fingerprint,
};

async fn every<D: Snapshotted + Aggregate>(decider: D, events: u64, store: &Store) -> Aggregates<D> {
    let config = Config { cached_states: 0, ..Config::default() };
    let every = NonZeroU64::new(events).unwrap();
    Aggregates::of(decider).config(config).snapshots_every(every).open(store).await.unwrap()
}

async fn deposit<D: Aggregate<Command = Command, Rejection = Overdrawn>>(accounts: &Aggregates<D>, times: u64) {
    for _ in 0..times {
        accounts.handle(1, Command::Deposit(1), Metadata::default()).await.unwrap();
        accounts.flush().await;
    }
}

async fn rows(store: &Store) -> Vec<(i64, String)> {
    let sql = "SELECT version, state FROM quorate_snapshot ORDER BY decider, stream";
    let rows = store.room_query(sql, vec![]).await.unwrap();
    rows.iter().map(|row| (row.at(0).as_i64().unwrap(), row.at(1).as_str().unwrap().to_owned())).collect()
}

/// Writes to a snapshot behind everybody's back.
async fn tamper(store: &Store, set: &'static str) {
    let changed = store.transact(move |tx| {
        Box::pin(async move {
            let sql = format!("UPDATE quorate_snapshot SET {set}");
            tx.room_execute(&sql, &[]).await
        })
    });
    assert_eq!(changed.await.unwrap(), 1);
}

#[test]
fn a_snapshot_is_kept_every_so_many_events_and_used() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = every(Bank, 5, &store).await;
        deposit(&accounts, 4).await;
        assert!(rows(&store).await.is_empty());
        deposit(&accounts, 8).await;
        assert_eq!(rows(&store).await, [(10, r#"{"balance":10,"notes":{}}"#.to_owned())]);
        let used = accounts.statistics().snapshots_used;
        assert_eq!(accounts.load(1).await.unwrap().state.balance, 12);
        assert_eq!((accounts.statistics().snapshots_used, accounts.statistics().snapshots_written), (used + 1, 2));
    });
}

/// The bank with another fold.
macro_rules! another_bank {
    ($name:ident, $state:ty, $fold:literal, $probe:expr, $evolve:expr) => {
        struct $name;
        impl Decider for $name {
            type Command = Command;
            type Event = Event;
            type State = $state;
            type Rejection = Overdrawn;
            fn decide(&self, _: &$state, command: &Command) -> Result<Vec<Event>, Overdrawn> {
                Bank.decide(&Account::default(), command)
            }
            fn evolve(account: $state, event: &Event) -> $state {
                $evolve(account, event)
            }
        }
        impl Aggregate for $name {
            const CATEGORY: &'static str = "account";
        }
        impl Snapshotted for $name {
            const FOLD_VERSION: u32 = $fold;
            fn probe() -> Vec<Event> {
                $probe
            }
        }
    };
}

fn doubled(mut account: Account, event: &Event) -> Account {
    if let Event::Deposited { cents } = event {
        account.balance += 2 * cents;
    }
    account
}

/// Moves the only snapshot over to another decider, as if that one's code had been the other's before.
async fn hand_over<To>(store: &Store) {
    let name = std::any::type_name::<To>();
    let changed = store.transact(move |tx| {
        Box::pin(async move { tx.room_execute("UPDATE quorate_snapshot SET decider = $1", &[name.into()]).await })
    });
    assert_eq!(changed.await.unwrap(), 1);
}

#[test]
fn whatever_makes_a_fold_another_shows_in_its_fingerprint() {
    #[derive(Clone, Default, Serialize, Deserialize)]
    struct Counted {
        balance: u64,
        #[serde(default)]
        events: u32,
    }
    fn counted(account: Counted, _: &Event) -> Counted {
        Counted { events: account.events + 1, ..account }
    }
    another_bank!(Raised, Account, 2, vec![], Bank::evolve);
    another_bank!(Reshaped, Counted, 1, vec![], counted);
    another_bank!(Probed, Account, 1, vec![Event::Deposited { cents: 1 }], Bank::evolve);
    another_bank!(Changed, Account, 1, vec![Event::Deposited { cents: 1 }], doubled);
    another_bank!(Twin, Account, 1, vec![], Bank::evolve);
    fn of<D: Snapshotted<Event = Event>>(name: &str, upcasters: Upcasters) -> String {
        fingerprint::<D>(name, &Codec::new(UnknownEvents::Refuse, upcasters)).unwrap()
    }
    let chain = Upcasters::builder().latest("account.opened", 2).step("account.opened", 1, 2, Ok).build().unwrap();
    let none = Upcasters::default;
    let same = [of::<Bank>("bank", none()), of::<Twin>("bank", none())];
    assert_eq!(same[0], same[1]);
    let different = BTreeSet::from([
        of::<Bank>("bank", none()),
        of::<Bank>("another bank", none()),
        of::<Bank>("bank", chain),
        of::<Raised>("bank", none()),
        of::<Reshaped>("bank", none()),
        of::<Probed>("bank", none()),
        of::<Changed>("bank", none()),
    ]);
    assert_eq!(different.len(), 7);
}

#[test]
fn an_upcaster_whose_change_shows_in_a_stored_event_makes_another_fold() {
    struct Old;
    impl Decider for Old {
        type Command = Command;
        type Event = Event;
        type State = Account;
        type Rejection = Overdrawn;
        fn decide(&self, _: &Account, command: &Command) -> Result<Vec<Event>, Overdrawn> {
            Bank.decide(&Account::default(), command)
        }
        fn evolve(account: Account, event: &Event) -> Account {
            Bank::evolve(account, event)
        }
    }
    impl Snapshotted for Old {
        const FOLD_VERSION: u32 = 1;
        fn probe() -> Vec<Event> {
            vec![]
        }
        fn stored_probe() -> Vec<Versioned> {
            let data = serde_json::json!({"units": 3});
            vec![Versioned { event_type: "money.put".parse().unwrap(), version: SchemaVersion::FIRST, data }]
        }
    }
    let chain = |cents: u64, to: &'static str| {
        Upcasters::builder().latest(to, 1).split(("money.put", 1), &[(to, 1)], move |data| {
            let units = data["units"].as_u64().ok_or("no units")?;
            let data = serde_json::json!({"cents": units * cents});
            Ok(vec![Versioned { event_type: to.parse()?, version: SchemaVersion::FIRST, data }])
        })
    };
    let of = |chain: UpcastersBuilder| {
        fingerprint::<Old>("bank", &Codec::new(UnknownEvents::Refuse, chain.build().unwrap()))
    };
    let kind = Event::TYPES[Event::Deposited { cents: 1 }.type_index()].name;
    assert_eq!(of(chain(10, kind)).unwrap(), of(chain(10, kind)).unwrap());
    assert_ne!(of(chain(10, kind)).unwrap(), of(chain(100, kind)).unwrap());
    let broken = Upcasters::builder().latest(kind, 1).split(("money.put", 1), &[(kind, 1)], |_| Err("broken".into()));
    assert!(matches!(of(broken), Err(SetupError::Probe { .. })));
}

#[test]
fn a_snapshot_of_another_fold_is_discarded_and_counted() {
    another_bank!(Today, Account, 1, vec![], doubled);
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        deposit(&every(Bank, 4, &store).await, 6).await;
        hand_over::<Today>(&store).await;
        let today = every(Today, 5, &store).await;
        assert_eq!(today.load(1).await.unwrap().state.balance, 12);
        assert_eq!((today.statistics().snapshots_stale, today.statistics().snapshots_used), (1, 0));
        deposit(&today, 1).await;
        assert_eq!(today.load(1).await.unwrap().state.balance, 14);
        assert_eq!((today.statistics().snapshots_stale, today.statistics().snapshots_used), (2, 1));
    });
}

#[test]
fn a_snapshot_that_cannot_be_read_is_discarded_counted_and_replaced() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        for damage in ["state = '{\"balance\":'", "state = '{}'", "chain = 'zz'", "version = 0", "version = -3"] {
            let accounts = every(Bank, 4, &store).await;
            deposit(&accounts, 4).await;
            tamper(&store, damage).await;
            let before = forgetful(&store).await.load(1).await.unwrap();
            let loaded = accounts.load(1).await.unwrap();
            assert_eq!((loaded.state, loaded.version), (before.state, before.version), "{damage}");
            assert_eq!(accounts.statistics().snapshots_undecodable, 1, "{damage}");
            deposit(&accounts, 1).await;
            assert_eq!(rows(&store).await[0].0.unsigned_abs(), loaded.version.get() + 1, "{damage}");
        }
    });
}

#[test]
fn a_snapshot_that_the_history_does_not_confirm_is_discarded() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let other_chain = "chain = '0000000000000000000000000000000000000000000000000000000000000000'";
        // A link of another history; a version that the stream has not reached; one that is another event's.
        for lie in [other_chain, "version = 999", "version = version - 1"] {
            let accounts = every(Bank, 4, &store).await;
            deposit(&accounts, 5).await;
            tamper(&store, lie).await;
            let truth = forgetful(&store).await.load(1).await.unwrap();
            let loaded = accounts.load(1).await.unwrap();
            assert_eq!((loaded.state, loaded.version), (truth.state, truth.version), "{lie}");
            assert_eq!(accounts.statistics().snapshots_foreign, 1, "{lie}");
            deposit(&accounts, 1).await;
            assert_eq!(rows(&store).await[0].0.unsigned_abs(), truth.version.get() + 1, "{lie}");
        }
    });
}

#[test]
fn after_a_truncate_the_state_is_the_fold_of_what_is_left_with_and_without_snapshot() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = every(Bank, 4, &store).await;
        deposit(&accounts, 9).await;
        for before in [3, 8, 9, 10] {
            let what = Retire::Truncate { before: Version::new(before) };
            store.retire(Bank::stream(1).unwrap(), what).await.unwrap();
            let loaded = accounts.load(1).await.unwrap();
            assert_eq!((loaded.state.balance, loaded.version), (10 - before, Version::new(9)), "before {before}");
            assert_eq!(forgetful(&store).await.load(1).await.unwrap().state.balance, 10 - before);
        }
        let outcome = accounts.handle(1, Command::Deposit(7), Metadata::default()).await.unwrap();
        assert_eq!((outcome.state.balance, outcome.version), (7, Version::new(10)));
    });
}

#[test]
fn a_state_kept_in_memory_notices_a_truncate_when_the_stream_is_read() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = super::bank::accounts(&store).await;
        deposit(&accounts, 5).await;
        let what = Retire::Truncate { before: Version::new(4) };
        store.retire(Bank::stream(1).unwrap(), what).await.unwrap();
        let refused = accounts.handle(1, Command::Withdraw(6), Metadata::default()).await;
        assert!(refused.is_err());
        assert_eq!(accounts.load(1).await.unwrap().state.balance, 2);
    });
}

#[test]
fn a_crash_between_append_and_snapshot_changes_nothing() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let before = {
            let store = store(folder.path()).await;
            let accounts = every(Bank, 3, &store).await;
            deposit(&accounts, 4).await;
            // Due at 6, and never written: the store closes first.
            accounts.handle(1, Command::Deposit(1), Metadata::default()).await.unwrap();
            let outcome = accounts.handle(1, Command::Deposit(1), Metadata::default()).await.unwrap();
            store.close().await.unwrap();
            accounts.flush().await;
            outcome
        };
        let store = store(folder.path()).await;
        let loaded = every(Bank, 3, &store).await.load(1).await.unwrap();
        assert_eq!((loaded.state, loaded.version), (before.state, before.version));
    });
}

#[test]
fn forgetting_leaves_no_copy_of_the_state_beside_the_log() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = Aggregates::of(Bank).snapshots_every(2.try_into().unwrap()).open(&store).await.unwrap();
        deposit(&accounts, 2).await;
        assert_eq!(rows(&store).await.len(), 1);
        accounts.forget(1).await.unwrap();
        assert!(rows(&store).await.is_empty());
        let misses = accounts.statistics().cache_misses;
        deposit(&accounts, 1).await;
        assert_eq!(accounts.statistics().cache_misses, misses + 1);
    });
}

#[test]
fn a_state_that_is_too_large_is_not_kept() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let config = Config { snapshot_bytes: 20, ..Config::default() };
        let accounts = Aggregates::of(Bank).config(config).snapshots_every(2.try_into().unwrap());
        let accounts = accounts.open(&store).await.unwrap();
        deposit(&accounts, 4).await;
        assert!(rows(&store).await.is_empty());
        assert_eq!(accounts.statistics().snapshots_skipped, 2);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn snapshot_and_tail_make_the_same_state_as_all_events(
        interval in 1_u64..9,
        page in 1_usize..5,
        steps in prop::collection::vec((0_u8..3, 1_u64..50), 1..40),
    ) {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let store = store(folder.path()).await;
            let config = Config { cached_states: 0, page_events: page.try_into().unwrap(), ..Config::default() };
            let kept = Aggregates::of(Bank).config(config).snapshots_every(interval.try_into().unwrap());
            let kept = kept.open(&store).await.unwrap();
            for (kind, cents) in steps {
                match kind {
                    0 => drop(kept.handle(1, Command::Deposit(cents), Metadata::default()).await),
                    1 => drop(kept.handle(1, Command::Buy("tea", cents), Metadata::default()).await),
                    _ => {
                        let note = NewEvent::new(store.event_id(), "/x", "account.noted").json(&br#"{"text":"n"}"#[..]);
                        let stream = Bank::stream(1).unwrap();
                        store.append(AppendBatch::to(stream, ExpectedVersion::Any, vec![note])).await.unwrap();
                    }
                }
                kept.flush().await;
                let (short, long) = (kept.load(1).await.unwrap(), forgetful(&store).await.load(1).await.unwrap());
                prop_assert_eq!((short.state, short.version), (long.state, long.version));
            }
            prop_assert_eq!(kept.statistics().snapshots_foreign, 0);
            Ok(())
        })?;
    }
}
