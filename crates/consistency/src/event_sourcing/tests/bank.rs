//! The bank that the tests keep their money in.

use std::{collections::BTreeMap, path::Path};

use quorate_data::store::{Store, sqlite};
use quorate_runtime::Env;
use serde::{Deserialize, Serialize};

use crate::{
    event_sourcing::{Aggregate, Aggregates, Config, Decider, Snapshotted, given},
    event_types,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Event {
    Deposited { cents: u64 },
    Withdrawn { cents: u64, left: u64 },
    Noted { text: String },
}

event_types! {
    Event {
        Deposited = "account.deposited" version 1,
        Withdrawn = "account.withdrawn" version 1,
        Noted = "account.noted" version 1,
    }
}

#[derive(Clone, Debug)]
pub(super) enum Command {
    Deposit(u64),
    Withdraw(u64),
    /// A withdrawal and a note about it.
    Buy(&'static str, u64),
    /// A deposit of whatever is missing, if anything.
    FillUpTo(u64),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) balance: u64,
    pub(super) notes: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Overdrawn {
    pub(super) balance: u64,
}

#[derive(Clone, Copy)]
pub(super) struct Bank;

impl Decider for Bank {
    type Command = Command;
    type Event = Event;
    type State = Account;
    type Rejection = Overdrawn;

    fn decide(&self, account: &Account, command: &Command) -> Result<Vec<Event>, Overdrawn> {
        let balance = account.balance;
        let withdraw = |cents| {
            let left = balance.checked_sub(cents).ok_or(Overdrawn { balance })?;
            Ok(Event::Withdrawn { cents, left })
        };
        match *command {
            Command::Deposit(cents) => Ok(vec![Event::Deposited { cents }]),
            Command::Withdraw(cents) => Ok(vec![withdraw(cents)?]),
            Command::Buy(text, cents) => Ok(vec![withdraw(cents)?, Event::Noted { text: text.into() }]),
            Command::FillUpTo(cents) if cents <= balance => Ok(vec![]),
            Command::FillUpTo(cents) => Ok(vec![Event::Deposited { cents: cents - balance }]),
        }
    }

    fn evolve(mut account: Account, event: &Event) -> Account {
        match event {
            Event::Deposited { cents } => account.balance += cents,
            Event::Withdrawn { cents, left } => {
                account.balance -= cents;
                assert_eq!(account.balance, *left, "a withdrawal was decided against another state than it acts on");
            }
            Event::Noted { text } => *account.notes.entry(text.clone()).or_default() += 1,
        }
        account
    }
}

impl Aggregate for Bank {
    const CATEGORY: &'static str = "account";
}

impl Snapshotted for Bank {
    const FOLD_VERSION: u32 = 1;

    fn probe() -> Vec<Event> {
        Vec::new()
    }
}

/// A store in a folder of its own.
pub(super) async fn store(folder: &Path) -> Store {
    sqlite::open(&Env::real(), sqlite::Config::at(folder.join("test.db"))).await.unwrap()
}

pub(super) async fn accounts(store: &Store) -> Aggregates<Bank> {
    Aggregates::of(Bank).open(store).await.unwrap()
}

/// Accounts that keep nothing in memory.
pub(super) async fn forgetful(store: &Store) -> Aggregates<Bank> {
    Aggregates::of(Bank).config(Config { cached_states: 0, ..Config::default() }).open(store).await.unwrap()
}

/// Runs a test on a runtime of its own.
pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

#[test]
fn the_rules_read_as_sentences() {
    given(Bank, [Event::Deposited { cents: 100 }])
        .when(Command::Buy("tea", 30))
        .then([Event::Withdrawn { cents: 30, left: 70 }, Event::Noted { text: "tea".into() }])
        .when(Command::Withdraw(71))
        .then_rejected(Overdrawn { balance: 70 })
        .when(Command::FillUpTo(70))
        .then_nothing()
        .state(|account| assert_eq!(account.notes["tea"], 1));
}

#[test]
#[should_panic(expected = "the command was not rejected")]
fn a_sentence_that_is_not_true_fails() {
    let _ = given(Bank, []).when(Command::Deposit(1)).then_rejected(Overdrawn { balance: 0 });
}
