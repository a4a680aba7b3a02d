//! Claims about many callers at once.

use std::{num::NonZeroU32, sync::Arc};

use futures_util::{FutureExt as _, future::join_all};
use proptest::prelude::*;
use quorate_data::{event::Version, store::Store};

use super::bank::{Account, Bank, Command, Event, Overdrawn, accounts, forgetful, run, store};
use crate::event_sourcing::{Aggregates, Config, Decider, HandleError, Metadata, Outcome};

type Answer = (Command, Result<Outcome<Bank>, HandleError<Overdrawn>>);

fn patient() -> Config {
    Config { attempts: NonZeroU32::new(1_000).unwrap(), ..Config::default() }
}

/// Hands out `scripts` to as many callers, each of whom works its script off on one of `services`.
async fn all_at_once(services: &[Aggregates<Bank>], scripts: Vec<Vec<Command>>) -> Vec<Answer> {
    let callers = scripts.into_iter().enumerate().map(|(n, script)| {
        let accounts = services[n % services.len()].clone();
        let (done, answers) = tokio::sync::oneshot::channel();
        let env = accounts.store().env().clone();
        env.tasks().spawn("caller", async move {
            let mut answers = vec![];
            for command in script {
                let answer = accounts.handle("shared", command.clone(), Metadata::default()).await;
                answers.push((command, answer));
            }
            let _ = done.send(answers);
        });
        async move { answers.await.unwrap() }
    });
    join_all(callers).await.into_iter().flatten().collect()
}

/// Checks that the answers are those of one caller after the other: sorted by version, each is what its command leads to
/// after all before it, and each rejection and each "nothing to do" is right at some point.
fn check_serial(mut answers: Vec<Answer>) -> Account {
    let quiet: Vec<_> =
        answers.extract_if(.., |(_, answer)| !answer.as_ref().is_ok_and(|o| !o.events.is_empty())).collect();
    answers.sort_by_key(|(_, answer)| answer.as_ref().unwrap().version);
    let mut states = vec![(Version::ZERO, Account::default())];
    for (command, answer) in answers {
        let outcome = answer.unwrap();
        let (version, state) = states.last().unwrap().clone();
        assert_eq!(Bank.decide(&state, &command).as_ref(), Ok(&outcome.events));
        let after = outcome.events.iter().fold(state, Bank::evolve);
        assert_eq!(*outcome.state, after);
        assert_eq!(outcome.version.get(), version.get() + outcome.events.len() as u64);
        states.push((outcome.version, after));
    }
    for (command, answer) in quiet {
        let right = states.iter().any(|(version, state)| match (&answer, Bank.decide(state, &command)) {
            (Ok(outcome), Ok(events)) => events.is_empty() && outcome.version == *version,
            (Err(HandleError::Rejected(given)), Err(here)) => *given == here,
            _ => false,
        });
        assert!(right, "{command:?} was answered {answer:?}, which was right at no time");
    }
    states.pop().unwrap().1
}

fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        (1_u64..50).prop_map(Command::Deposit),
        (1_u64..80).prop_map(Command::Withdraw),
        (1_u64..40).prop_map(|cents| Command::Buy("tea", cents)),
        (1_u64..60).prop_map(Command::FillUpTo),
    ]
}

async fn services(store: &Store) -> Vec<Aggregates<Bank>> {
    let cached = Aggregates::of(Bank).config(patient()).open(store);
    let bare = Aggregates::of(Bank).config(Config { cached_states: 0, ..patient() }).open(store);
    let snapshots = Aggregates::of(Bank).config(Config { cached_states: 1, ..patient() });
    let snapshots = snapshots.snapshots_every(3.try_into().unwrap()).open(store);
    vec![cached.await.unwrap(), bare.await.unwrap(), snapshots.await.unwrap()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn commands_of_many_callers_and_services_take_effect_as_if_one_after_another(
        scripts in prop::collection::vec(prop::collection::vec(commands(), 1..8), 1..7),
    ) {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let store = store(folder.path()).await;
            let answers = all_at_once(&services(&store).await, scripts).await;
            let state = check_serial(answers);
            assert_eq!(*forgetful(&store).await.load("shared").await.unwrap().state, state);
        });
    }
}

#[test]
fn callers_who_share_a_service_queue_up_instead_of_conflicting() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = accounts(&store).await;
        let scripts = vec![vec![Command::Deposit(1); 20]; 16];
        let state = check_serial(all_at_once(std::slice::from_ref(&accounts), scripts).await);
        assert_eq!((state.balance, accounts.statistics().conflicts), (320, 0));
    });
}

#[test]
fn exactly_one_of_many_gets_the_last_cent() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let services = services(&store).await;
        services[0].handle("shared", Command::Deposit(1), Metadata::default()).await.unwrap();
        let answers = all_at_once(&services, vec![vec![Command::Withdraw(1)]; 12]).await;
        assert_eq!(answers.iter().filter(|(_, answer)| answer.is_ok()).count(), 1);
        let refused = |(_, answer): &&Answer| matches!(answer, Err(HandleError::Rejected(Overdrawn { balance: 0 })));
        assert_eq!(answers.iter().filter(refused).count(), 11);
    });
}

#[test]
fn twins_of_one_command_are_carried_out_once_and_all_answered_alike() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let services = services(&store).await;
        services[0].handle("shared", Command::Deposit(100), Metadata::default()).await.unwrap();
        let twins = (0..9).map(|n| {
            let accounts = services[n % services.len()].clone();
            async move { accounts.handle("shared", Command::Withdraw(60), Metadata::command("c")).await.unwrap() }
        });
        let outcomes = join_all(twins).await;
        assert_eq!(outcomes.iter().filter(|outcome| !outcome.repeated).count(), 1);
        for outcome in outcomes {
            assert_eq!(outcome.events, [Event::Withdrawn { cents: 60, left: 40 }]);
            assert_eq!((outcome.version, outcome.state.balance), (Version::new(2), 40));
        }
    });
}

#[test]
fn a_writer_who_never_gets_through_is_told_after_a_bounded_number_of_attempts() {
    /// A rival who always writes between decision and append.
    struct Meddler(Aggregates<Bank>, tokio::runtime::Handle);
    impl Decider for Meddler {
        type Command = Command;
        type Event = Event;
        type State = Account;
        type Rejection = Overdrawn;
        fn decide(&self, account: &Account, command: &Command) -> Result<Vec<Event>, Overdrawn> {
            let rival = self.0.handle("shared", Command::Deposit(1), Metadata::default());
            tokio::task::block_in_place(|| self.1.block_on(rival)).unwrap();
            Bank.decide(account, command)
        }
        fn evolve(account: Account, event: &Event) -> Account {
            Bank::evolve(account, event)
        }
    }
    impl crate::event_sourcing::Aggregate for Meddler {
        const CATEGORY: &'static str = "account";
    }
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let meddler = Meddler(accounts(&store).await, tokio::runtime::Handle::current());
        let config = Config { attempts: NonZeroU32::new(4).unwrap(), ..Config::default() };
        let contended = Aggregates::of(meddler).config(config).open(&store).await.unwrap();
        let given_up = contended.handle("shared", Command::Deposit(100), Metadata::default()).await.unwrap_err();
        assert!(matches!(given_up, HandleError::Contended { attempts: 4, .. }), "{given_up:?}");
        assert_eq!(
            *accounts(&store).await.load("shared").await.unwrap().state,
            Account { balance: 4, ..Account::default() }
        );
    });
}

#[test]
fn a_command_that_is_dropped_half_way_leaves_nothing_wrong_behind() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = Arc::new(accounts(&store).await);
        for round in 0..50_u64 {
            let mut dropped = Box::pin(accounts.handle("shared", Command::Deposit(1), Metadata::default()));
            for _ in 0..round % 4 {
                if (&mut dropped).now_or_never().is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(dropped);
            let after = accounts.handle("shared", Command::FillUpTo(0), Metadata::default()).await.unwrap();
            let truth = forgetful(&store).await.load("shared").await.unwrap();
            assert!(truth.version >= after.version && truth.state.balance >= after.state.balance);
        }
        let last = accounts.handle("shared", Command::Deposit(1), Metadata::default()).await.unwrap();
        assert_eq!(last.state.balance, last.version.get());
    });
}
