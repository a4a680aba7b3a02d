//! Transfers between two banks whose coordinator is killed, once behind its decision and once before it: everything is done at both, or at
//! neither.

mod bank;
mod customers;
mod judge;
mod teller;
mod transfer;

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use quorate_runtime::Env;
use serde_json::{Value, json};

pub(super) use self::{bank::Bank, teller::Teller};
use self::{
    bank::{Books, Faults, How},
    customers::Customers,
    judge::Judge,
    transfer::{BANKS, BEGINS_WITH, EACH, OWNERS},
};
use super::{
    child::Role,
    moment::Moment,
    node::{self, Node, client},
    show::{Shown, Span, Timeline, millis, quantile},
};
use crate::{
    client::{Call, JSON},
    demo::{folder::Folder, process::Process},
    exit::{Exit, Failure},
};

/// How many of its transfers each customer orders before the next thing goes wrong.
const PHASE: u32 = EACH / 3;
/// The bank that something is wrong with.
const RIGHT: usize = 1;

fn failed(cause: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, cause.to_string())
}

/// The coordinator's death.
struct Strike {
    killed: Moment,
    back: Moment,
    /// When the banks did again what they are asked.
    well: Moment,
    /// What was in doubt then.
    in_doubt: BTreeSet<String>,
    /// What the node said of it when it was back.
    listed: Vec<Value>,
    /// The cents that had left one bank and not come to the other.
    missing: i64,
}

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let folder = Folder::passing(env)?;
    let banks = Banks::start(env, &folder.path).await?;
    let teller = Teller { folder: folder.path.clone(), banks: banks.places() };
    let mut node = Node::start_as(env, Role::Teller(teller)).await?;
    let customers = Customers::new(env, client(env, &node.url_of(1))?, client(env, &node.url())?);

    let begun = Moment::now(env);
    customers.order(0..PHASE).await?;
    banks.faults(RIGHT, Faults { stubborn: true, ..Faults::default() }).await?;
    let strike = kill_behind_the_decision(env, &mut node, &banks, &customers);
    let (ordered, decided) = tokio::join!(customers.order(PHASE..2 * PHASE), strike);
    let ((), decided) = (ordered?, decided?);
    banks.faults(RIGHT, Faults { mute: true, ..Faults::default() }).await?;
    let strike = kill_before_the_decision(env, &mut node, &banks);
    let (ordered, undecided) = tokio::join!(customers.order(2 * PHASE..EACH), strike);
    let ((), undecided) = (ordered?, undecided?);
    let at_rest = node::until(env, async || {
        let held = banks.books().await.unwrap_or_default().iter().map(|books| books.open().count()).sum::<usize>();
        held == 0 && in_doubt(&node).await.is_ok_and(|listed| listed.is_empty())
    });
    let at_rest = at_rest.await;

    let mut shown = chart(begun, &customers, [&decided, &undecided]);
    let judge = Judge { books: banks.books().await?, seen: customers.seen(), decided, undecided, at_rest };
    judge.figures(&mut shown);
    judge.claims(&mut shown);
    shown.timelines.extend(judge.timelines());
    Ok(shown)
}

/// Kills it when something is decided, done at the one bank, and the other one would not hear of it.
async fn kill_behind_the_decision(
    env: &Env,
    node: &mut Node,
    banks: &Banks,
    customers: &Customers,
) -> Result<Strike, Failure> {
    let half_done = |[left, right]: &[Books; 2]| -> BTreeSet<String> {
        right.open().filter(|gid| left.how(gid) == Some(How::Committed)).cloned().collect()
    };
    node::until(env, async || !half_done(&banks.books().await.unwrap_or_default()).is_empty()).await;
    let killed = Moment::now(env);
    node.kill().await;
    let books = banks.books().await?;
    let in_doubt_now = half_done(&books);
    let all = 2 * BEGINS_WITH * i64::try_from(OWNERS.len()).unwrap_or(0);
    let missing = all - books.iter().map(Books::total).sum::<i64>();
    let locked = customers.seen().locked.len();
    node.come_back().await?;
    let back = Moment::now(env);
    let mut listed = Vec::new();
    node::until(env, async || {
        listed = in_doubt(node).await.unwrap_or_default();
        in_doubt_now.iter().all(|gid| listed.iter().any(|one| one["transaction"] == **gid))
    })
    .await;
    // What is in doubt keeps others out.
    node::until(env, async || customers.seen().locked.len() > locked).await;
    banks.faults(RIGHT, Faults::default()).await?;
    Ok(Strike { killed, back, well: Moment::now(env), in_doubt: in_doubt_now, listed, missing })
}

/// Kills it when something is promised by both banks, and it has heard so from one of them.
async fn kill_before_the_decision(env: &Env, node: &mut Node, banks: &Banks) -> Result<Strike, Failure> {
    let promised = |[left, right]: &[Books; 2]| -> BTreeSet<String> {
        right.open().filter(|gid| left.open().any(|one| one == *gid)).cloned().collect()
    };
    node::until(env, async || !promised(&banks.books().await.unwrap_or_default()).is_empty()).await;
    let killed = Moment::now(env);
    node.kill().await;
    let in_doubt = promised(&banks.books().await?);
    banks.faults(RIGHT, Faults::default()).await?;
    node.come_back().await?;
    let back = Moment::now(env);
    node::until(env, async || {
        let books = banks.books().await.unwrap_or_default();
        in_doubt.iter().all(|gid| books.iter().all(|books| books.how(gid).is_some()))
    })
    .await;
    Ok(Strike { killed, back, well: Moment::now(env), in_doubt, listed: Vec::new(), missing: 0 })
}

/// What the node says to be in doubt.
async fn in_doubt(node: &Node) -> Result<Vec<Value>, Failure> {
    let told = node.call(&Call::get("/v1/transactions")).await?;
    Ok(told["transactions"].as_array().cloned().unwrap_or_default())
}

fn chart(begun: Moment, customers: &Customers, strikes: [&Strike; 2]) -> Shown {
    let scene = format!(
        "{} customers move money between their accounts at two banks, {EACH} times each: a coordinator in a node has both banks promise, writes \
         down its decision, and tells them. It is killed when the right bank has not heard of a decision that the left one has carried out, and \
         later when both have promised and nothing is decided. Now and then somebody moves more than there is.",
        OWNERS.len()
    );
    let mark = Some("the coordinator was killed, or its bank would not hear of a decision");
    let mut shown = Shown { scene, mark, ..Shown::default() };
    for strike in strikes {
        shown.unwell(begun.mono, strike.killed.mono, strike.well.mono);
    }
    let seen = customers.seen();
    shown.count("TRANSFERS DONE", begun.mono, seen.done);
    shown.count("LOCKED OUT, UNANSWERED", begun.mono, seen.locked.into_iter().chain(seen.unanswered));
    shown
}

/// The banks, while they run.
struct Banks {
    env: Env,
    banks: [(Process, SocketAddr); 2],
}

impl Banks {
    async fn start(env: &Env, folder: &Path) -> Result<Self, Failure> {
        let open = async |name: &str| {
            let role = Role::Bank(Bank { store: folder.join(format!("{name}.db")) });
            node::start(env, &format!("the {name} bank"), &role).await
        };
        Ok(Self { env: env.clone(), banks: [open(BANKS[0]).await?, open(BANKS[1]).await?] })
    }

    fn places(&self) -> [SocketAddr; 2] {
        [self.banks[0].1, self.banks[1].1]
    }

    async fn call(&self, bank: usize, call: &Call) -> Result<Value, Failure> {
        client(&self.env, &format!("http://{}", self.banks[bank].1))?.answer(call).await
    }

    async fn faults(&self, bank: usize, faults: Faults) -> Result<(), Failure> {
        self.call(bank, &Call::post("/faults", JSON, json!(faults).to_string())).await.map(drop)
    }

    async fn books(&self) -> Result<[Books; 2], Failure> {
        let one = async |bank| serde_json::from_value(self.call(bank, &Call::get("/books")).await?).map_err(failed);
        Ok([one(0).await?, one(1).await?])
    }
}
