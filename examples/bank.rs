//! A bank account as a decider: deposits, a refused withdrawal, time travel, and two tellers at one account.
//!
//! `cargo run -p quorate-examples --example bank`

use quorate::{
    Env,
    event::Version,
    event_sourcing::{Aggregate, Aggregates, Decider, HandleError, Metadata, Moment},
    event_types,
    store::sqlite,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Event {
    Deposited { cents: u64 },
    Withdrawn { cents: u64 },
}
event_types! {
    Event {
        Deposited = "account.deposited" version 1,
        Withdrawn = "account.withdrawn" version 1,
    }
}

enum Command {
    Deposit(u64),
    Withdraw(u64),
}

#[derive(Debug)]
struct Overdrawn;
struct Bank;

impl Decider for Bank {
    type Command = Command;
    type Event = Event;
    type State = u64;
    type Rejection = Overdrawn;

    fn decide(&self, balance: &u64, command: &Command) -> Result<Vec<Event>, Overdrawn> {
        match *command {
            Command::Deposit(cents) => Ok(vec![Event::Deposited { cents }]),
            Command::Withdraw(cents) if cents <= *balance => Ok(vec![Event::Withdrawn { cents }]),
            Command::Withdraw(_) => Err(Overdrawn),
        }
    }

    fn evolve(balance: u64, event: &Event) -> u64 {
        match event {
            Event::Deposited { cents } => balance + cents,
            Event::Withdrawn { cents } => balance - cents,
        }
    }
}
impl Aggregate for Bank {
    const CATEGORY: &'static str = "account";
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("bank.db"))).await?;
    // Two services on one store, each with states of its own in memory.
    let (teller, other) = (Aggregates::of(Bank).open(&store).await?, Aggregates::of(Bank).open(&store).await?);

    teller.handle("ada", Command::Deposit(10_000), Metadata::command("open-1")).await?;
    let again = teller.handle("ada", Command::Deposit(10_000), Metadata::command("open-1")).await?;
    println!("balance {}, and the repeated command changed nothing: {}", again.state, again.repeated);

    let refused = teller.handle("ada", Command::Withdraw(10_001), Metadata::default()).await;
    assert!(matches!(refused, Err(HandleError::Rejected(Overdrawn))), "more than there is cannot be withdrawn");
    other.handle("ada", Command::Withdraw(6_000), Metadata::default()).await?;
    let late = teller.handle("ada", Command::Withdraw(4_000), Metadata::default()).await?;
    println!("balance {} after {} conflict that was decided anew", late.state, teller.statistics().conflicts);
    let first = teller.at("ada", Moment::Version(Version::new(1))).await?;
    println!("balance {} at version {}", first.state, first.version);
    Ok(store.close().await?)
}
