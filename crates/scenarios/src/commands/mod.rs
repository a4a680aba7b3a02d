//! A service of a user's that takes commands and answers questions: crashed, cut off and short of disk, it carries each command out
//! once, stays with its answers, and shows whoever asks with a token what the command did.

mod desk;
mod hands;
mod judge;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_sim::{Phase, Sim};
use serde::{Deserialize, Serialize};

use crate::{Report, notes::Notes};

const CLIENTS: usize = 3;
/// Commands of each client, its repeats aside.
const COMMANDS: usize = 25;
const PORT: u16 = 80;

/// What a client and the desk had to do with each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Dealing {
    /// Sent a command until it was answered.
    Commanded {
        /// Its key.
        key: String,
        /// The purse.
        purse: u64,
        /// What is put in, or taken out where it is negative.
        cents: i64,
        /// The answer.
        answer: Answer,
    },
    /// Asked what is in a purse, with the token of an answer.
    Asked {
        /// The purse.
        purse: u64,
        /// The append that the token stands for.
        token: u64,
        /// What the view had of it.
        held: Held,
    },
    /// Read the log and the view when everything had come to rest.
    Closed(Ledger),
}

/// How a command was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// How many cents were missing, where it was rejected.
    pub missing: Option<i64>,
    /// How many events it led to.
    pub events: u64,
    /// The append that its token stands for.
    pub append: u64,
    /// The token.
    pub token: String,
    /// Whether this is the answer of an earlier time.
    pub repeated: bool,
}

/// What a view has of a purse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What is in it.
    pub cents: i64,
    /// How often it was changed.
    pub times: i64,
    /// As of which position.
    pub position: u64,
}

/// The log, and the view of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The events, in order.
    pub entries: Vec<Entry>,
    /// For each purse in order: what is in it, and how often it was changed.
    pub rows: Vec<(u64, i64, i64)>,
}

/// An event of a purse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the log.
    pub position: u64,
    /// The purse.
    pub purse: u64,
    /// What was put in, or taken out where it is negative.
    pub cents: i64,
    /// The key of the command that led to it.
    pub key: String,
}

/// Runs the scenario.
pub(crate) fn run(mut sim: Sim) -> Report {
    let server = sim.server("desk", desk::serve);
    let (to, notes, commands) = (sim.address(server, PORT), Notes::of_world(&sim), sim.rounds_or(COMMANDS));
    let names: Vec<String> = (0..CLIENTS).map(|n| format!("client-{n}")).collect();
    let present = names.iter().filter(|name| !sim.is_absent(name)).cloned();
    let busy = Arc::new(Mutex::new(present.collect::<BTreeSet<_>>()));
    for name in names {
        let (host, notes, busy) = (name.clone(), notes.clone(), busy.clone());
        sim.client(&host, move |env| {
            let (name, notes, busy) = (name.clone(), notes.clone(), busy.clone());
            async move {
                hands::work(&env, to, &name, commands, &notes).await;
                busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
                Ok(())
            }
        });
    }
    let (phase, reader) = (sim.phase(), notes.clone());
    sim.witness("reader", move |env| {
        let (phase, notes, busy) = (phase.clone(), reader.clone(), busy.clone());
        async move {
            let is_over = || busy.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
            while *phase.borrow() != Phase::Healed || !is_over() {
                env.sleep(Duration::from_millis(500)).await;
            }
            hands::close(&env, to, &notes).await;
            Ok(())
        }
    });
    let judge = if sim.out_of_contract().is_none() { judge::judge } else { judge::judge_where_syncs_lie };
    let (outcome, notes) = (sim.run(), notes.take());
    Report::judged(outcome, notes, commands as u64, judge)
}
